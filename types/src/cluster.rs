//! The one cluster object.

use crate::id::ClusterId;
use crate::spec::ClusterSpec;
use crate::units::TimestampMs;

/// When and at which log index an object was made and last changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Log index of the last change; an update must name it.
    pub version: u64,
    /// Wall time, for people.
    pub created_at: TimestampMs,
    /// Wall time, for people.
    pub updated_at: TimestampMs,
}

/// The root certificate and its key, PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct RootCa {
    pub certificate: String,
    pub key: String,
}

impl std::fmt::Debug for RootCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootCa").field("certificate", &self.certificate).field("key", &"(secret)").finish()
    }
}

/// The two standing join tokens, whole (`SWMTKN-1-…`). Secrets of the replicated state.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct JoinTokens {
    pub worker: String,
    pub manager: String,
}

impl std::fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JoinTokens(secret)")
    }
}

/// The cluster, made by `init`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub id: ClusterId,
    pub meta: Meta,
    pub spec: ClusterSpec,
    pub root: RootCa,
    pub tokens: JoinTokens,
    /// Grows with recover and restore; part of every `LogId` that workers hold.
    pub era: u64,
    /// Highest body that may be proposed.
    pub feature_level: u32,
}
