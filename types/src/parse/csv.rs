//! One line of comma-separated fields, as the long option values are written.

/// Splits at commas; a field may be quoted with `"`, and `""` inside it is one quote.
///
/// # Errors
/// With what is wrong, on a quote that does not open or close a field.
pub fn split_csv(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut chars = line.chars().peekable();
    loop {
        if chars.peek() == Some(&'"') {
            chars.next();
            loop {
                match chars.next() {
                    Some('"') if chars.peek() == Some(&'"') => {
                        chars.next();
                        field.push('"');
                    }
                    Some('"') => break,
                    Some(c) => field.push(c),
                    None => return Err("a quoted field is not closed".into()),
                }
            }
            match chars.next() {
                Some(',') => fields.push(std::mem::take(&mut field)),
                None => {
                    fields.push(field);
                    return Ok(fields);
                }
                Some(c) => return Err(format!("\"{c}\" follows the end of a quoted field")),
            }
            continue;
        }
        match chars.next() {
            Some(',') => fields.push(std::mem::take(&mut field)),
            Some('"') => return Err("a quote stands in the middle of a field: quote the whole field".into()),
            Some(c) => field.push(c),
            None => {
                fields.push(field);
                return Ok(fields);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_at_commas_outside_quotes() {
        for (line, fields) in [
            ("a", vec!["a"]),
            ("a,b=c,", vec!["a", "b=c", ""]),
            (r#"a,"b=c,d",e"#, vec!["a", "b=c,d", "e"]),
            (r#""say ""hi""""#, vec![r#"say "hi""#]),
        ] {
            assert_eq!(split_csv(line), Ok(fields.iter().map(ToString::to_string).collect()), "{line}");
        }
    }

    #[test]
    fn stray_quotes_are_refused() {
        for line in [r#"a,"b"#, r#"a"b"#, r#""a"b"#] {
            assert!(split_csv(line).is_err(), "{line}");
        }
    }
}
