//! Health checks: when to ask, and what the answers mean. Pure.

use std::time::Duration;

use rswarm_runtime::image::ImageHealthcheck;
use rswarm_types::spec::Healthcheck;

const SHELL: [&str; 2] = ["/bin/sh", "-c"];
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// A check's words in an error.
const WORDS_MAX: usize = 200;

/// How a container is asked whether it is well; every time is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub argv: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

/// What one check came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    Healthy,
    /// With what it said.
    Unhealthy(String),
}

/// Whether the check's verdict changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Healthy,
    Unhealthy(String),
}

/// The check of a container: the service's, where it says something, over the image's (Docker's rule).
pub fn check_of(spec: Option<&Healthcheck>, image: Option<&ImageHealthcheck>) -> Option<Check> {
    let inherited = spec.is_none_or(|s| s.test.is_empty());
    let test = if inherited { image.map(|i| &i.test) } else { spec.map(|s| &s.test) }?;
    let argv = match test.first().map(String::as_str) {
        Some("CMD") => test[1..].to_vec(),
        Some("CMD-SHELL") => SHELL.iter().map(|s| (*s).to_owned()).chain(test.get(1).cloned()).collect(),
        // NONE, and nothing at all.
        _ => return None,
    };
    if argv.is_empty() {
        return None;
    }
    let image = image.filter(|_| inherited);
    let time = |of_spec: Option<Duration>, of_image: Option<u64>, default: Duration| {
        let of_image = of_image.map(Duration::from_nanos);
        of_spec.filter(|d| !d.is_zero()).or(of_image.filter(|d| !d.is_zero())).unwrap_or(default)
    };
    let retries = spec.map(|s| s.retries).filter(|r| *r > 0);
    let of_image = image.and_then(|i| u32::try_from(i.retries).ok()).filter(|r| *r > 0);
    Some(Check {
        argv,
        interval: time(spec.and_then(|s| s.interval), image.map(|i| i.interval_ns), INTERVAL),
        timeout: time(spec.and_then(|s| s.timeout), image.map(|i| i.timeout_ns), TIMEOUT),
        start_period: time(spec.and_then(|s| s.start_period), image.map(|i| i.start_period_ns), Duration::ZERO),
        start_interval: time(spec.and_then(|s| s.start_interval), image.map(|i| i.start_interval_ns), START_INTERVAL),
        retries: retries.or(of_image).unwrap_or(RETRIES),
    })
}

/// The health of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    check: Check,
    failures: u32,
    is_healthy: bool,
}

impl Health {
    /// Of a container that just started, or (`is_healthy`) of one that was well when this daemon found it.
    pub fn new(check: Check, is_healthy: bool) -> Self {
        Self { check, failures: 0, is_healthy }
    }

    /// How long to wait until the next check, `age` after the start.
    pub fn pause(&self, age: Duration) -> Duration {
        if self.is_in_start_period(age) { self.check.start_interval } else { self.check.interval }
    }

    /// Takes an answer, `age` after the start; says what changed.
    pub fn take(&mut self, age: Duration, result: ProbeResult) -> Option<Verdict> {
        match result {
            ProbeResult::Healthy => {
                self.failures = 0;
                let was = std::mem::replace(&mut self.is_healthy, true);
                (!was).then_some(Verdict::Healthy)
            }
            // It is still coming up.
            ProbeResult::Unhealthy(_) if self.is_in_start_period(age) => None,
            ProbeResult::Unhealthy(words) => {
                self.failures += 1;
                if self.failures < self.check.retries {
                    return None;
                }
                self.is_healthy = false;
                let words: String = words.trim().chars().take(WORDS_MAX).collect();
                Some(Verdict::Unhealthy(words))
            }
        }
    }

    /// Failures do not count yet: the period has not passed, and no check has succeeded.
    fn is_in_start_period(&self, age: Duration) -> bool {
        !self.is_healthy && age < self.check.start_period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(test: &[&str]) -> Healthcheck {
        Healthcheck { test: test.iter().map(|t| (*t).to_owned()).collect(), ..Default::default() }
    }

    fn image(test: &[&str]) -> ImageHealthcheck {
        let test = test.iter().map(|t| (*t).to_owned()).collect();
        ImageHealthcheck { test, interval_ns: 7_000_000_000, retries: 5, ..Default::default() }
    }

    #[test]
    fn the_service_s_check_goes_over_the_image_s() {
        let argv = |spec: Option<Healthcheck>, image: Option<ImageHealthcheck>| {
            check_of(spec.as_ref(), image.as_ref()).map(|c| c.argv.join(" "))
        };
        for (of_spec, of_image, expected) in [
            (None, None, None),
            (None, Some(image(&["CMD", "a"])), Some("a")),
            (Some(spec(&["NONE"])), Some(image(&["CMD", "a"])), None),
            (Some(spec(&[])), Some(image(&["CMD", "a"])), Some("a")),
            (Some(spec(&["CMD-SHELL", "x | y"])), Some(image(&["CMD", "a"])), Some("/bin/sh -c x | y")),
            (Some(spec(&["CMD", "b", "c"])), None, Some("b c")),
            (Some(spec(&["CMD"])), None, None),
            (None, Some(image(&["NONE"])), None),
        ] {
            assert_eq!(argv(of_spec, of_image), expected.map(str::to_owned));
        }
    }

    #[test]
    fn times_that_the_service_leaves_out_come_from_the_image_then_from_docker() {
        let inherits = Healthcheck { timeout: Some(Duration::from_secs(2)), ..spec(&[]) };
        let check = check_of(Some(&inherits), Some(&image(&["CMD", "a"]))).unwrap();
        assert_eq!((check.interval, check.timeout), (Duration::from_secs(7), Duration::from_secs(2)));
        assert_eq!((check.retries, check.start_interval), (5, START_INTERVAL));
        let own = check_of(Some(&spec(&["CMD", "b"])), Some(&image(&["CMD", "a"]))).unwrap();
        assert_eq!((own.interval, own.retries), (INTERVAL, RETRIES));
    }

    fn health(start_period_s: u64) -> Health {
        let check = check_of(Some(&spec(&["CMD", "a"])), None).unwrap();
        let start_period = Duration::from_secs(start_period_s);
        Health::new(Check { start_period, ..check }, false)
    }

    fn bad() -> ProbeResult {
        ProbeResult::Unhealthy(" no answer\n".into())
    }

    #[test]
    fn only_failures_in_a_row_make_a_container_unhealthy() {
        let mut health = health(0);
        let age = Duration::from_secs(60);
        assert_eq!(health.take(age, bad()), None);
        assert_eq!(health.take(age, bad()), None);
        assert_eq!(health.take(age, ProbeResult::Healthy), Some(Verdict::Healthy));
        assert_eq!(health.take(age, ProbeResult::Healthy), None);
        assert_eq!(health.take(age, bad()), None);
        assert_eq!(health.take(age, bad()), None);
        assert_eq!(health.take(age, bad()), Some(Verdict::Unhealthy("no answer".into())));
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_a_check_succeeded() {
        let mut health = health(30);
        let early = Duration::from_secs(10);
        assert_eq!(health.pause(early), START_INTERVAL);
        for _ in 0..9 {
            assert_eq!(health.take(early, bad()), None);
        }
        assert_eq!(health.take(early, ProbeResult::Healthy), Some(Verdict::Healthy));
        assert_eq!(health.pause(early), INTERVAL);
        health.take(early, bad());
        health.take(early, bad());
        assert!(matches!(health.take(early, bad()), Some(Verdict::Unhealthy(_))));
    }

    #[test]
    fn a_container_found_well_is_well_until_checks_fail() {
        let mut health = Health { is_healthy: true, ..health(0) };
        assert_eq!(health.take(Duration::ZERO, ProbeResult::Healthy), None);
    }
}
