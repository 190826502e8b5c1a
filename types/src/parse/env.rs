//! Environment variables and files of them.

use super::ParseError;

const ALLOWED: &str = "KEY=VALUE, or KEY to take the value from your own environment";

/// A line of an environment file that is no variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}\n       allowed: lines KEY=VALUE or KEY, comments that begin with #, empty lines")]
pub struct EnvFileError {
    /// Counted from 1.
    pub line: usize,
    pub problem: String,
}

/// Reads `KEY=VALUE`; `KEY` alone takes the caller's value, and stays `KEY` where there is none
/// (which removes the image's variable of that name, as Docker does).
///
/// # Errors
/// On an empty key.
pub fn parse_env(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, ParseError> {
    let key = text.split_once('=').map_or(text, |(key, _)| key);
    if key.is_empty() {
        return Err(ParseError::new(text, "no variable name", ALLOWED));
    }
    if text.contains('\0') {
        return Err(ParseError::new(text.replace('\0', "\\0"), "a NUL character", ALLOWED));
    }
    Ok(match (text.contains('='), lookup(key)) {
        (false, Some(value)) => format!("{key}={value}"),
        _ => text.to_owned(),
    })
}

/// Reads a file of variables, one a line: no quotes, no expansion, `#` begins a comment only at the
/// start of a line. `KEY` alone takes the caller's value and is left out where there is none.
///
/// # Errors
/// On the first line without a name or with white space in it.
pub fn parse_env_file(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>, EnvFileError> {
    let mut variables = Vec::new();
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let error = |problem: String| EnvFileError { line: index + 1, problem };
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (line.trim_end(), None),
        };
        if key.is_empty() {
            return Err(error(format!("no variable name in \"{line}\"")));
        }
        if key.contains(char::is_whitespace) {
            return Err(error(format!("variable \"{key}\" contains white space")));
        }
        if line.contains('\0') {
            return Err(error("a NUL character".into()));
        }
        match value.map(str::to_owned).or_else(|| lookup(key)) {
            Some(value) => variables.push(format!("{key}={value}")),
            None => continue,
        }
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(key: &str) -> Option<String> {
        (key == "HOME").then(|| "/root".to_string())
    }

    #[test]
    fn a_key_alone_takes_the_callers_value() {
        for (text, variable) in [
            ("A=1", "A=1"),
            ("A=", "A="),
            ("A=b=c", "A=b=c"),
            ("HOME", "HOME=/root"),
            ("HOME=", "HOME="),
            ("NOPE", "NOPE"),
        ] {
            assert_eq!(parse_env(text, &lookup).as_deref(), Ok(variable), "{text}");
        }
        assert_eq!(parse_env("=1", &lookup).unwrap_err().problem, "no variable name");
    }

    #[test]
    fn files_keep_quotes_and_skip_comments() {
        let text = "\u{feff}# comment\n\n  A=1\r\nB=\"two words\" # kept\nHOME\nNOPE\n";
        assert_eq!(parse_env_file(text, &lookup).unwrap(), ["A=1", "B=\"two words\" # kept", "HOME=/root"]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (text, line, problem) in [
            ("A=1\n=2\n", 2, "no variable name in \"=2\""),
            ("export A=1\n", 1, "variable \"export A\" contains white space"),
        ] {
            assert_eq!(parse_env_file(text, &lookup), Err(EnvFileError { line, problem: problem.into() }));
        }
    }
}
