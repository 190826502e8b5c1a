//! How a member is set up.

use std::sync::Arc;
use std::time::Duration;

use openraft::SnapshotPolicy;

use crate::disk::Disk;
use crate::limits::{APPEND_ENTRIES, SNAPSHOT_TRANSFER_MS};
use crate::log::{Identity, WriterMode};
use crate::member::{ClusterTag, MemberId};

/// Everything that one member needs to know about itself.
#[derive(Clone)]
pub struct Config {
    /// The cluster; every message and every file names it.
    pub cluster: ClusterTag,
    /// This member.
    pub member: MemberId,
    /// Where its files are. One member at a time may use them: the caller holds the lock.
    pub disk: Arc<dyn Disk>,
    /// Where the log is written.
    pub writer: WriterMode,
    /// How often a leader shows that it is there, in milliseconds.
    pub heartbeat_ms: u64,
    /// The shortest silence after which a voter seeks election, in milliseconds. At least two heartbeats.
    pub election_min_ms: u64,
    /// The longest, in milliseconds, drawn anew each time; also the leader's lease.
    pub election_max_ms: u64,
    /// How long a leader waits for a peer to make entries durable before it sends them again, in milliseconds.
    pub append_timeout_ms: u64,
    /// How long one piece of a snapshot may be on its way before it is sent again, in milliseconds.
    pub snapshot_chunk_timeout_ms: u64,
    /// After how many entries a snapshot is taken.
    pub snapshot_every: u64,
    /// How many entries are kept in the log behind a snapshot, for members that lag.
    pub keep_entries: u64,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {field} {value}: {allowed}")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// Its value.
    pub value: u64,
    /// What is allowed.
    pub allowed: &'static str,
}

impl Config {
    /// The usual settings.
    pub fn new(cluster: ClusterTag, member: MemberId, disk: Arc<dyn Disk>) -> Self {
        Self {
            cluster,
            member,
            disk,
            writer: WriterMode::Thread,
            heartbeat_ms: 50,
            election_min_ms: 100,
            election_max_ms: 150,
            append_timeout_ms: 500,
            snapshot_chunk_timeout_ms: 5_000,
            snapshot_every: 10_000,
            keep_entries: 500,
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity { cluster: self.cluster, member: self.member }
    }

    pub(crate) fn append_timeout(&self) -> Duration {
        Duration::from_millis(self.append_timeout_ms)
    }

    pub(crate) fn snapshot_chunk_timeout(&self) -> Duration {
        Duration::from_millis(self.snapshot_chunk_timeout_ms)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let rule = |holds: bool, field, value, allowed| {
            if holds { Ok(()) } else { Err(ConfigError { field, value, allowed }) }
        };
        rule(self.heartbeat_ms > 0, "heartbeat_ms", self.heartbeat_ms, "at least 1")?;
        let two = self.heartbeat_ms.saturating_mul(2);
        rule(self.election_min_ms >= two, "election_min_ms", self.election_min_ms, "at least two heartbeats")?;
        let longer = self.election_max_ms > self.election_min_ms;
        rule(longer, "election_max_ms", self.election_max_ms, "more than election_min_ms")?;
        rule(self.append_timeout_ms > 0, "append_timeout_ms", self.append_timeout_ms, "at least 1")?;
        let chunk = self.snapshot_chunk_timeout_ms;
        rule(chunk > 0, "snapshot_chunk_timeout_ms", chunk, "at least 1")?;
        rule(self.snapshot_every > 0, "snapshot_every", self.snapshot_every, "at least 1")
    }

    /// The engine's settings.
    pub(crate) fn engine(&self) -> Result<Arc<openraft::Config>, ConfigError> {
        self.check()?;
        Ok(Arc::new(openraft::Config {
            cluster_name: self.cluster.to_string(),
            heartbeat_interval: self.heartbeat_ms,
            election_timeout_min: self.election_min_ms,
            election_timeout_max: self.election_max_ms,
            // Covers all the pieces of a snapshot; each has its own deadline.
            install_snapshot_timeout: SNAPSHOT_TRANSFER_MS,
            max_payload_entries: APPEND_ENTRIES,
            // Beyond this a member gets a snapshot instead, so there must be one by then.
            replication_lag_threshold: self.snapshot_every.saturating_mul(2),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_every),
            max_in_snapshot_log_to_keep: self.keep_entries,
            // A member that was cut off must not depose a leader that the others follow.
            enable_pre_vote: Some(true),
            // A leader that restarts may have missed its successor: it must be elected again.
            enable_leader_restore: Some(false),
            // A member that comes back must not wait for the engine's default of up to a second.
            backoff: "20ms 40ms ...200ms".to_owned(),
            ..openraft::Config::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn a_bad_setting_is_named_with_what_is_allowed() {
        let config = Config::new(ClusterTag([0; 16]), MemberId(1), Arc::new(MemoryDisk::new()));
        config.engine().unwrap().as_ref().clone().validate().unwrap();
        let bad = Config { election_min_ms: 90, ..config.clone() };
        assert_eq!(bad.engine().unwrap_err().to_string(), "invalid election_min_ms 90: at least two heartbeats");
        let bad = Config { election_max_ms: 100, ..config };
        assert_eq!(bad.engine().unwrap_err().to_string(), "invalid election_max_ms 100: more than election_min_ms");
    }
}
