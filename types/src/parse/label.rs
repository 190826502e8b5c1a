//! Labels.

use super::ParseError;

/// Reads `KEY=VALUE`; `KEY` alone has an empty value.
///
/// # Errors
/// On an empty key or white space in it.
pub fn parse_label(text: &str) -> Result<(String, String), ParseError> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    match check_label_key(key) {
        Some(problem) => Err(ParseError::new(text, problem, "KEY=VALUE or KEY")),
        None => Ok((key.into(), value.into())),
    }
}

/// What is wrong with a label's key, if anything.
pub fn check_label_key(key: &str) -> Option<String> {
    if key.is_empty() {
        Some("no label key".into())
    } else if key.contains(char::is_whitespace) {
        Some(format!("label key \"{key}\" contains white space"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_split_at_the_first_equals_sign() {
        for (text, key, value) in [("a=b", "a", "b"), ("a", "a", ""), ("a=b=c", "a", "b=c"), ("a= b", "a", " b")] {
            assert_eq!(parse_label(text), Ok((key.into(), value.into())), "{text}");
        }
        for text in ["", "=b", "a b=c"] {
            assert!(parse_label(text).is_err(), "{text}");
        }
    }
}
