//! Signal names and numbers.

/// Names without `SIG`; the position is the number less one (x86_64 and aarch64 agree).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// First real-time signal as C libraries give it out (two are theirs).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The text is no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no signal: allowed are names such as SIGTERM or QUIT, RTMIN+N, RTMAX-N and numbers from 1 to 64")]
pub struct BadSignal(pub String);

/// The number of a signal that is given as `SIGTERM`, `term`, `15`, `RTMIN+3` or `SIGRTMAX-1`.
///
/// # Errors
/// On anything else.
pub fn number(text: &str) -> Result<i32, BadSignal> {
    let bad = || BadSignal(text.to_owned());
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(i) = NAMES.iter().position(|n| *n == name) {
        return i32::try_from(i + 1).map_err(|_| bad());
    }
    match name {
        "IOT" => return Ok(6),
        "CLD" => return Ok(17),
        "POLL" => return Ok(29),
        _ => {}
    }
    let real_time = |rest: &str, base: i32, sign: i32| -> Option<i32> {
        let offset = if rest.is_empty() { 0 } else { rest.parse::<i32>().ok()? };
        base.checked_add(sign.checked_mul(offset)?)
    };
    let found = if let Some(rest) = name.strip_prefix("RTMIN") {
        real_time(rest, RTMIN, 1)
    } else if let Some(rest) = name.strip_prefix("RTMAX") {
        real_time(rest.strip_prefix('-').unwrap_or(rest), RTMAX, -1)
    } else {
        None
    };
    found.filter(|n| (RTMIN..=RTMAX).contains(n)).ok_or_else(bad)
}

/// The name of a signal, e.g. `SIGKILL`, or its number.
pub fn name(number: i32) -> String {
    match usize::try_from(number - 1).ok().and_then(|i| NAMES.get(i)) {
        Some(name) => format!("SIG{name}"),
        None => format!("signal {number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_as_docker_reads_them() {
        for (text, expected) in [
            ("SIGTERM", 15),
            ("quit", 3),
            ("9", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGWINCH", 28),
        ] {
            assert_eq!(number(text), Ok(expected), "{text}");
        }
        for text in ["", "SIG", "0", "65", "-1", "RTMIN+40", "RTMAX-99999999999", "STOPP"] {
            assert!(number(text).is_err(), "{text}");
        }
        assert_eq!(name(9), "SIGKILL");
        assert_eq!(name(40), "signal 40");
    }
}
