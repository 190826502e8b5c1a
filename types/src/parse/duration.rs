//! Durations in Go's notation, which every Docker flag and compose key uses.

use std::time::Duration;

use super::ParseError;

const ALLOWED: &str = "a sequence of numbers with units ns, us, ms, s, m or h, e.g. 1m30s or 500ms";

/// Longest duration: 2^63 - 1 nanoseconds, as Go's (about 292 years).
const MAX_NANOS: u128 = i64::MAX as u128;

const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads `1m30s`, `1.5h`, `250ms`, `0`.
///
/// # Errors
/// On a missing or unknown unit, a negative or too long duration.
pub fn parse_duration(text: &str) -> Result<Duration, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, ALLOWED);
    let body = text.strip_prefix('+').unwrap_or(text);
    if body.starts_with('-') {
        return Err(error("a duration cannot be negative".into()));
    }
    if body == "0" {
        return Ok(Duration::ZERO);
    }
    if body.is_empty() {
        return Err(error("no duration".into()));
    }
    let mut rest = body;
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(error(format!("\"{number}{unit}\" does not begin with a number")));
        }
        if unit.is_empty() {
            return Err(error(format!("\"{number}\" has no unit")));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(error(format!("\"{unit}\" is not a unit")));
        };
        let nanos = scaled(whole, fraction, *scale).filter(|n| *n <= MAX_NANOS);
        total = nanos.map_or(MAX_NANOS + 1, |n| total + n);
        if total > MAX_NANOS {
            return Err(error("too long: at most 292 years".into()));
        }
        rest = next;
    }
    let seconds = u64::try_from(total / 1_000_000_000).unwrap_or(u64::MAX);
    let nanos = u32::try_from(total % 1_000_000_000).unwrap_or(0);
    Ok(Duration::new(seconds, nanos))
}

/// `whole.fraction * scale`, cut to an integer; `None` when it is out of any range.
pub(super) fn scaled(whole: &str, fraction: &str, scale: u128) -> Option<u128> {
    let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut sum = whole.checked_mul(scale)?;
    // 18 digits are more than any unit can show.
    let fraction = &fraction[..fraction.len().min(18)];
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok()?;
        sum = sum.checked_add(fraction.parse::<u128>().ok()?.checked_mul(scale)? / 10u128.pow(digits))?;
    }
    Some(sum)
}

/// Writes as Go prints durations: `1h0m0s`, `1m30s`, `1.5s`, `100ms`, `0s`.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".into();
    }
    if nanos < 1_000_000_000 {
        return match nanos {
            n if n >= 1_000_000 => decimal(n, 1_000_000, "ms"),
            n if n >= 1_000 => decimal(n, 1_000, "µs"),
            n => format!("{n}ns"),
        };
    }
    let minutes = nanos / 60_000_000_000;
    let seconds = decimal(nanos % 60_000_000_000, 1_000_000_000, "s");
    match (minutes / 60, minutes % 60) {
        (0, 0) => seconds,
        (0, m) => format!("{m}m{seconds}"),
        (h, m) => format!("{h}h{m}m{seconds}"),
    }
}

fn decimal(value: u128, scale: u128, unit: &str) -> String {
    let (whole, part) = (value / scale, value % scale);
    if part == 0 {
        return format!("{whole}{unit}");
    }
    let width = scale.ilog10() as usize;
    let digits = format!("{part:0width$}");
    format!("{whole}.{}{unit}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn go_durations_are_read_and_written_back() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("5s", 5_000_000_000, "5s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("90s", 90_000_000_000, "1m30s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            (".5s", 500_000_000, "500ms"),
            ("1.s", 1_000_000_000, "1s"),
            ("2160h", 7_776_000_000_000_000, "2160h0m0s"),
            ("100ms", 100_000_000, "100ms"),
            ("1.25ms", 1_250_000, "1.25ms"),
            ("1us", 1_000, "1µs"),
            ("1µs", 1_000, "1µs"),
            ("1500ns", 1_500, "1.5µs"),
            ("7ns", 7, "7ns"),
            ("1s500ms", 1_500_000_000, "1.5s"),
            ("1h0m0.000000001s", 3_600_000_000_001, "1h0m0.000000001s"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration.as_nanos(), nanos, "{text}");
            assert_eq!(format_duration(duration), printed, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_units() {
        for (text, problem) in [
            ("", "no duration"),
            ("5", "\"5\" has no unit"),
            ("s", "\"s\" does not begin with a number"),
            ("5d", "\"d\" is not a unit"),
            ("-5s", "a duration cannot be negative"),
            ("1..5s", "\"1..5s\" does not begin with a number"),
            ("9999999h", "too long: at most 292 years"),
            ("99999999999999999999999999999999999999999h", "too long: at most 292 years"),
            ("5 s", "\" s\" is not a unit"),
        ] {
            let error = parse_duration(text).unwrap_err();
            assert_eq!(error.problem, problem, "{text}");
            assert!(error.to_string().contains("allowed: a sequence"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_duration_survives_print_and_parse(nanos in 0..i64::MAX) {
            let duration = Duration::from_nanos(nanos.unsigned_abs());
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in ".{0,40}") {
            let _ = parse_duration(&text);
        }
    }
}
