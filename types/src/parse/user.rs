//! `--user`.

use super::ParseError;

const ALLOWED: &str = "NAME|UID[:GROUP|GID], e.g. nobody or 1000:1000";

/// Checks `NAME|UID[:GROUP|GID]`; names are looked up in the image when the task starts.
///
/// # Errors
/// On an empty part, a number above 2^31 - 1, or characters that no account has.
pub fn parse_user(text: &str) -> Result<String, ParseError> {
    match check_user(text) {
        Some(problem) => Err(ParseError::new(text, problem, ALLOWED)),
        None => Ok(text.into()),
    }
}

/// What is wrong with a user, if anything.
pub fn check_user(text: &str) -> Option<String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let problem = |part: &str, what: &str| {
        let is_number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if part.is_empty() {
            Some(format!("no {what}"))
        } else if is_number && part.parse::<i32>().is_err() {
            Some(format!("{what} is \"{part}\", above {}", i32::MAX))
        } else if part.contains(|c: char| c.is_whitespace() || c.is_control() || c == ':' || c == '/') {
            Some(format!("{what} is \"{part}\""))
        } else {
            None
        }
    };
    problem(user, "user").or_else(|| group.and_then(|g| problem(g, "group")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_names_or_numbers() {
        for text in ["root", "0", "1000:1000", "www-data:www-data", "nobody:65534"] {
            assert_eq!(parse_user(text).as_deref(), Ok(text));
        }
        for (text, problem) in [
            ("", "no user"),
            (":5", "no user"),
            ("a:", "no group"),
            ("a:b:c", "group is \"b:c\""),
            ("a b", "user is \"a b\""),
            ("4294967295", "user is \"4294967295\", above 2147483647"),
        ] {
            assert_eq!(parse_user(text).unwrap_err().problem, problem, "{text}");
        }
    }
}
