//! Where text goes: data to stdout, everything else to stderr.

use std::io::{self, ErrorKind, Write};

use crate::errors::{Error, Result};

/// Writes data to stdout.
///
/// # Errors
/// [`Error::OutputClosed`] when the reader left (`… | head`).
pub fn out(text: &str) -> Result<()> {
    write(text.as_bytes())
}

/// Writes a line of data to stdout.
///
/// # Errors
/// As [`out`].
pub fn line(text: &str) -> Result<()> {
    write(format!("{text}\n").as_bytes())
}

/// Writes bytes to stdout.
///
/// # Errors
/// As [`out`].
pub fn write(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Error::OutputClosed),
        Err(e) => Err(Error::Failed(format!("stdout cannot be written: {e}"))),
    }
}

/// Writes to stderr; nobody can be told when that fails.
pub fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
