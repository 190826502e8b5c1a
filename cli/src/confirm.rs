//! A question before something that is hard to take back.

use std::io::BufRead;

use crate::errors::{Error, Result};
use crate::output::note;

/// Asks on stderr, and reads the answer from stdin: whether it is yes.
///
/// # Errors
/// When nobody answers; the text says that `flag` spares the question.
pub fn is_confirmed(question: &str, flag: &str) -> Result<bool> {
    note(&format!("{question} [y/N] "));
    let mut text = String::new();
    let read = std::io::stdin().lock().read_line(&mut text);
    read.map_err(|e| Error::Failed(format!("standard input cannot be read: {e}")))?;
    answer(&text).ok_or_else(|| {
        note("\n");
        Error::Usage(format!(
            "no answer on standard input: nothing was done\n       to go on without being asked: {flag}"
        ))
    })
}

/// Yes or no; `None` = the input ended.
fn answer(line: &str) -> Option<bool> {
    let word = line.trim();
    (!line.is_empty()).then(|| word.eq_ignore_ascii_case("y") || word.eq_ignore_ascii_case("yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes_and_silence_is_no_answer() {
        for (line, expected) in [
            ("y\n", Some(true)),
            ("Y", Some(true)),
            ("yes\r\n", Some(true)),
            ("\n", Some(false)),
            ("n\n", Some(false)),
            ("sure\n", Some(false)),
            ("", None),
        ] {
            assert_eq!(answer(line), expected, "{line:?}");
        }
    }
}
