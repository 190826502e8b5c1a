//! Sizes in bytes and parts of CPUs.

use super::ParseError;
use super::duration::scaled;
use crate::units::{Bytes, NanoCpus};

const BYTES_ALLOWED: &str =
    "a number with an optional unit b, k, m, g, t or p (binary: 1k = 1024), e.g. 512m or 1.5GiB";
const CPUS_ALLOWED: &str = "a decimal number of CPUs with at most 9 decimals, e.g. 0.5";

/// Reads a size as Docker's `RAMInBytes` does: every unit is binary, `64MB` = `64MiB` = `64m`.
///
/// # Errors
/// On an unknown unit, a negative number, or more than 2^63 - 1 bytes.
pub fn parse_bytes(text: &str) -> Result<Bytes, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, BYTES_ALLOWED);
    if text.starts_with('-') {
        return Err(error("a size cannot be negative".into()));
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(error(format!("\"{unit}\" is not a unit"))),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(error("no number".into()));
    }
    scaled(whole, fraction, 1u128 << shift)
        .and_then(|n| i64::try_from(n).ok())
        .map(|n| Bytes(n.unsigned_abs()))
        .ok_or_else(|| error("too large: at most 8 EiB".into()))
}

/// Reads `0.5`, `2`, `.25`.
///
/// # Errors
/// On anything but a decimal number, more than 9 decimals, or more than 9 billion CPUs.
pub fn parse_cpus(text: &str) -> Result<NanoCpus, ParseError> {
    let error = |problem: &str| ParseError::new(text, problem, CPUS_ALLOWED);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || whole.is_empty() && fraction.is_empty() {
        return Err(error("not a decimal number"));
    }
    if fraction.trim_end_matches('0').len() > 9 {
        return Err(error("too precise"));
    }
    scaled(whole, fraction, 1_000_000_000)
        .and_then(|n| i64::try_from(n).ok())
        .map(|n| NanoCpus(n.unsigned_abs()))
        .ok_or_else(|| error("too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_binary_whatever_the_unit_is_called() {
        for (text, bytes) in [
            ("0", 0),
            ("42", 42),
            ("42b", 42),
            ("42B", 42),
            ("1k", 1 << 10),
            ("1KB", 1 << 10),
            ("512m", 512 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5GiB", 3 << 29),
            ("0.5 g", 1 << 29),
            ("1.1g", 1_181_116_006),
            ("2T", 2 << 40),
            ("1p", 1 << 50),
        ] {
            assert_eq!(parse_bytes(text), Ok(Bytes(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for (text, problem) in [
            ("", "no number"),
            ("m", "no number"),
            ("1..5m", "no number"),
            ("-5m", "a size cannot be negative"),
            ("5x", "\"x\" is not a unit"),
            ("5mbb", "\"mbb\" is not a unit"),
            ("5  m", "\" m\" is not a unit"),
            ("9999999p", "too large: at most 8 EiB"),
        ] {
            assert_eq!(parse_bytes(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn cpus_are_decimal() {
        for (text, nanos) in [
            ("0.5", 500_000_000),
            ("2", 2_000_000_000),
            (".25", 250_000_000),
            ("0.000000001", 1),
            ("1.50", 1_500_000_000),
        ] {
            assert_eq!(parse_cpus(text), Ok(NanoCpus(nanos)), "{text}");
        }
        for (text, problem) in [
            ("", "not a decimal number"),
            (".", "not a decimal number"),
            ("half", "not a decimal number"),
            ("-1", "not a decimal number"),
            ("1e3", "not a decimal number"),
            ("1.2.3", "not a decimal number"),
            ("0.0000000001", "too precise"),
            ("99999999999", "too large"),
        ] {
            assert_eq!(parse_cpus(text).unwrap_err().problem, problem, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_reader_panic(text in ".{0,40}") {
            let _ = parse_bytes(&text);
            let _ = parse_cpus(&text);
        }
    }
}
