//! Which managers do not answer: told once when one is lost, and once when it is back.

use std::collections::BTreeMap;
use std::time::Duration;

use rswarm_raft::{MemberId, TransportError};
use tokio::time::Instant;

/// A manager that answered no call for so long is lost; one late answer is not worth a line.
const LOST_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Silence {
    since: Instant,
    is_told: bool,
}

/// The managers whose last call failed.
#[derive(Debug, Default)]
pub struct LostPeers {
    silent: BTreeMap<MemberId, Silence>,
}

impl LostPeers {
    /// Notes how a call ended, and says so if that is news.
    pub fn note<T>(&mut self, member: MemberId, address: &str, answer: &Result<T, TransportError>) {
        match answer {
            Ok(_) => {
                if let Some(silent) = self.answered(member) {
                    let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
                    tracing::info!(member.id = member.0, address, silent_ms, "a manager answers again");
                }
            }
            Err(error) => {
                if self.failed(member) {
                    let reason = match error {
                        TransportError::Unreachable { reason, .. } => reason.clone(),
                        TransportError::Timeout { ttl, .. } => format!("no answer within {ttl:?}"),
                    };
                    tracing::warn!(member.id = member.0, address, reason, "a manager does not answer; trying on");
                }
            }
        }
    }

    /// Whether the member is lost from now on.
    fn failed(&mut self, member: MemberId) -> bool {
        let silence = self.silent.entry(member).or_insert_with(|| Silence { since: Instant::now(), is_told: false });
        let is_news = !silence.is_told && silence.since.elapsed() >= LOST_AFTER;
        silence.is_told |= is_news;
        is_news
    }

    /// How long the member was silent, if it was said to be lost.
    fn answered(&mut self, member: MemberId) -> Option<Duration> {
        self.silent.remove(&member).filter(|silence| silence.is_told).map(|silence| silence.since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_is_said_to_be_lost_once_and_to_be_back_once() {
        let (mut peers, peer) = (LostPeers::default(), MemberId(2));
        assert!(!peers.failed(peer));
        assert_eq!(peers.answered(peer), None, "one late answer is no loss");
        let mut told = 0;
        for _ in 0..100 {
            told += u32::from(peers.failed(peer));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(told, 1);
        assert_eq!(peers.answered(peer), Some(Duration::from_secs(10)));
        assert_eq!(peers.answered(peer), None);
        assert!(!peers.failed(peer), "it has its second again");
    }
}
