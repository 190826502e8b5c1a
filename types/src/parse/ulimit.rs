//! `--ulimit NAME=SOFT[:HARD]`.

use super::ParseError;
use crate::spec::Ulimit;

/// The resources that can be limited.
pub const ULIMIT_NAMES: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Reads `nofile=1024:2048`; one number is both; -1 = unlimited.
///
/// # Errors
/// On an unknown name, a bad number, or a soft limit above the hard one.
pub fn parse_ulimit(text: &str) -> Result<Ulimit, ParseError> {
    let error = |problem: String| {
        ParseError::new(text, problem, format!("NAME=SOFT[:HARD] with NAME one of {}", ULIMIT_NAMES.join(", ")))
    };
    let Some((name, limits)) = text.split_once('=') else {
        return Err(error("no \"=\"".into()));
    };
    let number = |text: &str| -> Result<i64, ParseError> {
        text.parse().ok().filter(|n| *n >= -1).ok_or_else(|| error(format!("limit is \"{text}\"")))
    };
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    let ulimit = Ulimit { name: name.to_ascii_lowercase(), soft, hard };
    match check_ulimit(&ulimit) {
        Some(problem) => Err(error(problem)),
        None => Ok(ulimit),
    }
}

/// What is wrong with a limit, if anything.
pub fn check_ulimit(ulimit: &Ulimit) -> Option<String> {
    let order = |n: i64| if n == -1 { i64::MAX } else { n };
    if !ULIMIT_NAMES.contains(&ulimit.name.as_str()) {
        Some(format!("unknown limit \"{}\"", ulimit.name))
    } else if ulimit.soft < -1 || ulimit.hard < -1 {
        Some("limits are -1 (unlimited) or more".into())
    } else if order(ulimit.soft) > order(ulimit.hard) {
        Some(format!("the soft limit {} is above the hard limit {}", ulimit.soft, ulimit.hard))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        for (text, name, soft, hard) in [
            ("nofile=1024:2048", "nofile", 1024, 2048),
            ("NPROC=10", "nproc", 10, 10),
            ("core=0:-1", "core", 0, -1),
            ("memlock=-1:-1", "memlock", -1, -1),
        ] {
            assert_eq!(parse_ulimit(text), Ok(Ulimit { name: name.into(), soft, hard }), "{text}");
        }
    }

    #[test]
    fn bad_limits_say_what_is_wrong() {
        for (text, problem) in [
            ("nofile", "no \"=\""),
            ("files=1", "unknown limit \"files\""),
            ("nofile=x", "limit is \"x\""),
            ("nofile=-2", "limit is \"-2\""),
            ("nofile=1:2:3", "limit is \"2:3\""),
            ("nofile=2:1", "the soft limit 2 is above the hard limit 1"),
            ("nofile=-1:1", "the soft limit -1 is above the hard limit 1"),
        ] {
            assert_eq!(parse_ulimit(text).unwrap_err().problem, problem, "{text}");
        }
    }
}
