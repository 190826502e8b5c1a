//! How servers outside did lately: one that does not answer is asked last for a while. Pure.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::limits::{UPSTREAM_FAILURES_MAX, UPSTREAM_PENALTY};

/// The servers that failed since they last answered.
#[derive(Debug, Default)]
pub struct Health {
    failed: HashMap<SocketAddr, Failed>,
}

#[derive(Debug)]
struct Failed {
    times: u32,
    /// The next try at its own place in the list.
    again_at: Instant,
}

impl Health {
    /// The servers in the order to ask them: as given, but those that failed
    /// [`UPSTREAM_FAILURES_MAX`] times in a row last.
    ///
    /// Once in [`UPSTREAM_PENALTY`] one question goes to such a server in its turn, to see whether it
    /// is back: the order may mean something, such as a server that alone knows a company's names.
    pub fn order(&mut self, servers: &[SocketAddr], now: Instant) -> Vec<SocketAddr> {
        let (mut first, mut last) = (Vec::with_capacity(servers.len()), Vec::new());
        for server in servers {
            match self.failed.get_mut(server).filter(|f| f.times >= UPSTREAM_FAILURES_MAX) {
                Some(failed) if now < failed.again_at => last.push(*server),
                Some(failed) => {
                    failed.again_at = now + UPSTREAM_PENALTY;
                    first.push(*server);
                }
                None => first.push(*server),
            }
        }
        first.append(&mut last);
        first
    }

    pub fn answered(&mut self, server: SocketAddr) {
        self.failed.remove(&server);
    }

    /// It was silent or could not be reached. Returns whether it is now asked last, and was not.
    pub fn failed(&mut self, server: SocketAddr, now: Instant) -> bool {
        // Servers that left the list long ago.
        self.failed.retain(|_, failed| now < failed.again_at + UPSTREAM_PENALTY);
        let failed = self.failed.entry(server).or_insert(Failed { times: 0, again_at: now });
        failed.times = failed.times.saturating_add(1);
        failed.again_at = now + UPSTREAM_PENALTY;
        failed.times == UPSTREAM_FAILURES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_keeps_failing_is_asked_last_until_it_answers_and_tried_now_and_then() {
        let [a, b, c] = [1, 2, 3].map(|n| SocketAddr::from(([10, 0, 0, n], 53)));
        let all = [a, b, c];
        let mut health = Health::default();
        let start = Instant::now();
        for time in 1..=UPSTREAM_FAILURES_MAX {
            assert_eq!(health.order(&all, start), all);
            assert_eq!(health.failed(a, start), time == UPSTREAM_FAILURES_MAX);
        }
        assert_eq!(health.order(&all, start), [b, c, a]);
        // One question finds out; those beside it do not wait for it.
        let later = start + UPSTREAM_PENALTY;
        assert_eq!(health.order(&all, later), all);
        assert_eq!(health.order(&all, later), [b, c, a]);
        assert!(!health.failed(a, later));
        assert_eq!(health.order(&all, later), [b, c, a]);
        health.answered(a);
        assert_eq!(health.order(&all, later), all);
    }

    #[test]
    fn an_answer_between_failures_forgives_them_and_old_failures_are_forgotten() {
        let [a, b] = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 53)));
        let mut health = Health::default();
        let start = Instant::now();
        for _ in 0..3 * UPSTREAM_FAILURES_MAX {
            health.failed(a, start);
            health.answered(a);
        }
        assert_eq!(health.order(&[a, b], start), [a, b]);
        health.failed(a, start);
        health.failed(b, start + 3 * UPSTREAM_PENALTY);
        assert_eq!(health.failed.keys().collect::<Vec<_>>(), [&b]);
    }

    #[test]
    fn when_all_fail_all_are_asked_in_their_order() {
        let all = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 53)));
        let mut health = Health::default();
        let start = Instant::now();
        for _ in 0..UPSTREAM_FAILURES_MAX {
            for server in all {
                health.failed(server, start);
            }
        }
        assert_eq!(health.order(&all, start), all);
    }
}
