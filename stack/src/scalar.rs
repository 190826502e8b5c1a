//! What a plain scalar means, by the rules of Go's yaml.v3, which Docker reads with: `0440` is
//! octal, `yes` is text, `1_000` is a number, `2024-01-01` is a date.

use crate::tree::Value;

/// Resolves a plain (unquoted, untagged) scalar.
pub fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if number_text(text).is_some() => Value::Number(text.into()),
        _ if is_time(text) => Value::Time(text.into()),
        _ => Value::Text(text.into()),
    }
}

/// The decimal text that Go prints for a number: `0440` → `288`, `1.10` → `1.1`.
pub fn number_text(text: &str) -> Option<String> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    match unsigned {
        ".inf" | ".Inf" | ".INF" => return Some(if text.starts_with('-') { "-Inf" } else { "+Inf" }.into()),
        ".nan" | ".NaN" | ".NAN" if unsigned.len() == text.len() => return Some("NaN".into()),
        _ => {}
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    let digits = unsigned.replace('_', "");
    let sign = if text.starts_with('-') { "-" } else { "" };
    if let Some(number) = integer(&digits) {
        return Some(if number == 0 { "0".into() } else { format!("{sign}{number}") });
    }
    is_float(&digits).then(|| digits.parse::<f64>().ok()).flatten().map(|number| format!("{sign}{}", go_float(number)))
}

/// An integer in the notation that Go's `ParseInt` takes with base 0.
fn integer(digits: &str) -> Option<u64> {
    let radix = |prefix: &str, radix| {
        let rest = digits
            .get(..prefix.len())
            .filter(|head| head.eq_ignore_ascii_case(prefix))
            .map(|_| &digits[prefix.len()..]);
        rest.filter(|r| r.bytes().all(|b| b.is_ascii_alphanumeric())).and_then(|r| u64::from_str_radix(r, radix).ok())
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)) {
        return Some(number);
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) || digits.is_empty() {
        return None;
    }
    if digits.len() > 1 && digits.starts_with('0') {
        return u64::from_str_radix(digits, 8).ok();
    }
    digits.parse().ok()
}

/// `DIGITS[.DIGITS][e[±]DIGITS]` or `.DIGITS…`.
fn is_float(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let is_mantissa = all_digits(whole)
        && fraction.is_none_or(all_digits)
        && (!whole.is_empty() || fraction.is_some_and(|f| !f.is_empty()));
    let is_exponent = |e: &str| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && all_digits(e)
    };
    is_mantissa && exponent.is_none_or(is_exponent)
}

/// As Go's `fmt.Sprint` prints a float64.
fn go_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    match scientific.split_once('e') {
        Some((mantissa, exponent)) => match exponent.parse::<i32>() {
            Ok(exponent) if !(-4..21).contains(&exponent) => {
                let sign = if exponent < 0 { '-' } else { '+' };
                format!("{mantissa}e{sign}{:02}", exponent.abs())
            }
            _ => format!("{number}"),
        },
        None => scientific,
    }
}

/// `YYYY-M-D`, alone or followed by a time.
fn is_time(text: &str) -> bool {
    let (date, time) = match text.split_once(['T', 't', ' ']) {
        Some((date, time)) => (date, Some(time)),
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let is_digits = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
    };
    let in_range = |part: &str, range: std::ops::RangeInclusive<u8>| part.parse().is_ok_and(|n: u8| range.contains(&n));
    let is_date = matches!(parts[..], [y, m, d] if is_digits(y, 4..=4) && is_digits(m, 1..=2) && is_digits(d, 1..=2)
        && in_range(m, 1..=12) && in_range(d, 1..=31));
    let is_clock = |time: &str| {
        let end = time.find(['Z', '+', '-', ' ']).unwrap_or(time.len());
        let fields: Vec<&str> = time[..end].split(':').collect();
        matches!(fields[..], [h, m, s] if is_digits(h, 1..=2) && is_digits(m, 1..=2)
            && s.split('.').all(|part| is_digits(part, 1..=9)))
    };
    is_date && time.is_none_or(is_clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        for (text, printed) in [
            ("0", "0"),
            ("-0", "0"),
            ("42", "42"),
            ("+42", "42"),
            ("-42", "-42"),
            ("0440", "288"),
            ("0o17", "15"),
            ("0x1F", "31"),
            ("0b101", "5"),
            ("1_000", "1000"),
            ("08", "8"),
            ("1.10", "1.1"),
            ("3.0", "3"),
            (".5", "0.5"),
            ("1e3", "1000"),
            ("1e21", "1e+21"),
            ("0.00001", "1e-05"),
            ("-1.5", "-1.5"),
            ("12345678901234567890123", "1.2345678901234568e+22"),
            (".inf", "+Inf"),
            ("-.inf", "-Inf"),
        ] {
            assert_eq!(number_text(text).as_deref(), Some(printed), "{text}");
        }
        for text in ["", "a", "1a", "0x", "0xg", "1.2.3", "8080:80", "-", ".", "e5", "0o", "10m", "1-2"] {
            assert_eq!(number_text(text), None, "{text}");
        }
    }

    #[test]
    fn words_that_older_yaml_took_for_booleans_are_text() {
        for text in ["yes", "no", "on", "off", "y", "n", "tRue"] {
            assert_eq!(resolve(text), Value::Text(text.into()));
        }
        assert_eq!(resolve("True"), Value::Bool(true));
        assert_eq!(resolve("~"), Value::Null);
    }

    #[test]
    fn dates_are_no_text() {
        for text in ["2024-01-01", "2024-1-2", "2024-01-01T10:00:00Z", "2024-01-01 10:00:00.5"] {
            assert_eq!(resolve(text), Value::Time(text.into()));
        }
        for text in ["2024-13-01", "2024-01", "1-2-3", "2024-01-01x", "2024-01-01 noon"] {
            assert_eq!(resolve(text), Value::Text(text.into()));
        }
    }
}
