//! Waiting for a condition.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(25);

/// Waits until `condition` holds and returns how long that took; the time is also printed.
///
/// Deadlines are generous: whether something was fast enough is for benchmarks to judge.
///
/// # Errors
/// If it does not hold within `deadline`.
pub fn until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Result<Duration> {
    let began = Instant::now();
    loop {
        if condition() {
            let took = began.elapsed();
            eprintln!("lab: {what}: after {:.3} s", took.as_secs_f64());
            return Ok(took);
        }
        if began.elapsed() >= deadline {
            bail!("{what}: not within {:.1} s", deadline.as_secs_f64());
        }
        std::thread::sleep(PERIOD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_that_comes_true_is_seen_and_one_that_does_not_is_an_error() {
        let mut left = 3;
        let took = until("counted down", Duration::from_secs(5), || {
            left -= 1;
            left == 0
        });
        assert!(took.unwrap() >= 2 * PERIOD);
        let error = until("pigs fly", Duration::ZERO, || false).unwrap_err();
        assert_eq!(error.to_string(), "pigs fly: not within 0.0 s");
    }
}
