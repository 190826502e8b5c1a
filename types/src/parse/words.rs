//! A command line in one string, split into words.

use super::ParseError;

/// Splits as Docker's client does (POSIX quoting, no expansion): white space separates; `'…'` keeps
/// everything; in `"…"` a backslash takes the next character; outside quotes too; `#` at the start
/// of a word begins a comment that ends with the line.
///
/// # Errors
/// On a quote that is not closed or a backslash at the end.
pub fn split_words(text: &str) -> Result<Vec<String>, ParseError> {
    let error = |problem: &str| ParseError::new(text, problem, "words with balanced quotes, e.g. sh -c 'echo hi'");
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '#' if word.is_none() => {
                for skipped in chars.by_ref() {
                    if skipped == '\n' {
                        break;
                    }
                }
            }
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err(error("a single quote is not closed")),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => word.push(chars.next().ok_or_else(|| error("a double quote is not closed"))?),
                        Some(c) => word.push(c),
                        None => return Err(error("a double quote is not closed")),
                    }
                }
            }
            '\\' => {
                let next = chars.next().ok_or_else(|| error("a backslash stands at the end"))?;
                word.get_or_insert_default().push(next);
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_backslashes_work_as_in_a_shell_without_expansion() {
        for (text, words) in [
            ("", vec![]),
            ("  a  b\tc\n", vec!["a", "b", "c"]),
            ("sh -c 'echo \"$HOME\" && ls | wc'", vec!["sh", "-c", "echo \"$HOME\" && ls | wc"]),
            ("a\"b c\"d", vec!["ab cd"]),
            (r#"say "a \"b\" \\ c""#, vec!["say", r#"a "b" \ c"#]),
            (r"a\ b \'c", vec!["a b", "'c"]),
            ("a '' \"\"", vec!["a", "", ""]),
            ("a # rest\nb c#d", vec!["a", "b", "c#d"]),
            ("x; y > z & w", vec!["x;", "y", ">", "z", "&", "w"]),
        ] {
            assert_eq!(split_words(text), Ok(words.iter().map(ToString::to_string).collect()), "{text}");
        }
    }

    #[test]
    fn open_quotes_are_refused() {
        for (text, problem) in [
            ("a 'b", "a single quote is not closed"),
            ("a \"b", "a double quote is not closed"),
            ("a \"b\\", "a double quote is not closed"),
            ("a \\", "a backslash stands at the end"),
        ] {
            assert_eq!(split_words(text).unwrap_err().problem, problem, "{text}");
        }
    }
}
