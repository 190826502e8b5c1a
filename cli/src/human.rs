//! Durations, sizes and times as Docker writes them for people.

use std::time::Duration;

use rswarm_types::TimestampMs;

/// About how long, in words: `Less than a second`, `5 seconds`, `About an hour`, `3 weeks`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let minutes = seconds / 60;
    // Hours are rounded to the nearest, everything else down.
    let hours = (duration.as_secs_f64() / 3_600.0 + 0.5) as u64;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".into(),
        (_, _, ..48) => format!("{hours} hours"),
        (_, _, h) if h < 24 * 7 * 2 => format!("{} days", h / 24),
        (_, _, h) if h < 24 * 30 * 2 => format!("{} weeks", h / 24 / 7),
        (_, _, h) if h < 24 * 365 * 2 => format!("{} months", h / 24 / 30),
        _ => format!("{} years", seconds / 3_600 / 24 / 365),
    }
}

/// `5 seconds ago`, in lower case.
pub fn ago(at: TimestampMs, now: TimestampMs) -> String {
    format!("{} ago", duration(now.since(at)).to_lowercase())
}

/// A decimal size with three digits, as images have: `187MB`, `1.23kB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_000.0 && unit + 1 < UNITS.len() {
        value /= 1_000.0;
        unit += 1;
    }
    format!("{}{}", three_digits(value), UNITS[unit])
}

/// Go's `%.3g` for 0 ≤ value < 1000.
fn three_digits(value: f64) -> String {
    let decimals = match value {
        v if v < 10.0 => 2,
        v if v < 100.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// RFC 3339 in UTC, with milliseconds where there are any; Go's zero time for 0.
pub fn rfc3339(at: TimestampMs) -> String {
    if at.0 == 0 {
        return "0001-01-01T00:00:00Z".into();
    }
    instant(at).map_or_else(|| at.0.to_string(), |t| t.to_string())
}

/// `2026-11-21 10:18:23.5 +0000 UTC`, as Docker's pretty printers write times.
pub fn pretty_time(at: TimestampMs) -> String {
    match instant(at) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 utc").to_string(),
        None => at.0.to_string(),
    }
}

/// `2026-11-21 10:18:23 +0000 UTC`: Go's own text of a time, as the `.CreatedAt` of listings has it.
pub fn listed_time(at: TimestampMs) -> String {
    match instant(at) {
        Some(time) => time.strftime("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
        None => at.0.to_string(),
    }
}

/// As [`listed_time`], in whole seconds.
pub fn listed_second(at: TimestampMs) -> String {
    listed_time(TimestampMs(at.0 / 1_000 * 1_000))
}

/// RFC 3339 with nine digits of nanoseconds, as log lines have.
pub fn log_time(at_ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(at_ns))
        .map_or_else(|_| at_ns.to_string(), |t| t.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string())
}

fn instant(at: TimestampMs) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()
}

/// The wall time now.
pub fn now() -> TimestampMs {
    TimestampMs(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

/// At most `length` characters, the last of them an ellipsis if some are missing.
pub fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(length.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

/// The first letter in upper case: `Running`.
pub fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_dockers_do() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (5_399, "About an hour"),
            (5_400, "2 hours"),
            (47 * 3_600, "47 hours"),
            (48 * 3_600, "2 days"),
            (14 * 24 * 3_600, "2 weeks"),
            (60 * 24 * 3_600, "2 months"),
            (2 * 365 * 24 * 3_600, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_are_decimal_with_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1_000, "1kB"),
            (1_234, "1.23kB"),
            (187_400_000, "187MB"),
            (72_860_000, "72.9MB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(rfc3339(TimestampMs(1_500)), "1970-01-01T00:00:01.5Z");
        assert_eq!(listed_time(TimestampMs(1_795_276_727_500)), "2026-11-21 15:58:47.5 +0000 UTC");
        assert_eq!(listed_second(TimestampMs(1_795_276_727_500)), "2026-11-21 15:58:47 +0000 UTC");
        assert_eq!(rfc3339(TimestampMs(0)), "0001-01-01T00:00:00Z");
        assert_eq!(log_time(1_000_000_001), "1970-01-01T00:00:01.000000001Z");
    }

    #[test]
    fn long_text_is_cut_to_a_length() {
        assert_eq!(ellipsis("abcdef", 6), "abcdef");
        assert_eq!(ellipsis("abcdefg", 6), "abcde…");
    }
}
