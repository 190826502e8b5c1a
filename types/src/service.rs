//! A service with what the cluster did for it.

use std::fmt;
use std::sync::Arc;

use crate::cluster::Meta;
use crate::id::{NetworkId, ServiceId};
use crate::network::Addresses;
use crate::spec::{PortConfig, ServiceSpec};
use crate::units::TimestampMs;

/// Where an update stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdateState {
    #[default]
    Updating,
    Paused,
    Completed,
    RollbackStarted,
    RollbackPaused,
    RollbackCompleted,
}

impl fmt::Display for UpdateState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollbackStarted => "rollback_started",
            Self::RollbackPaused => "rollback_paused",
            Self::RollbackCompleted => "rollback_completed",
        })
    }
}

/// The update in progress or the last one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateStatus {
    pub state: UpdateState,
    pub message: String,
    /// Cluster time at which it began, or was resumed: failures count from here.
    pub started: TimestampMs,
    /// Cluster time at which the last slot was replaced; the next waits `delay` from here.
    pub last_slot: TimestampMs,
    /// Wall times, for people; 0 = not yet.
    pub started_at: TimestampMs,
    pub completed_at: TimestampMs,
}

/// The virtual addresses on one network, one per family of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtualIp {
    pub network: NetworkId,
    pub addresses: Addresses,
}

/// A service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    pub id: ServiceId,
    pub meta: Meta,
    pub spec: Arc<ServiceSpec>,
    /// What `rollback` goes back to; one level.
    pub previous: Option<Arc<ServiceSpec>>,
    /// Log index at which what tasks are made of last changed; tasks carry it.
    pub spec_version: u64,
    /// Ports with the numbers given, in the order of the spec.
    pub ports: Vec<PortConfig>,
    /// In the order of the networks; none with dnsrr.
    pub vips: Vec<VirtualIp>,
    pub update: Option<UpdateStatus>,
    /// It is being removed: its tasks go first.
    pub removing: bool,
    /// Registry credentials (`--with-registry-auth`), as the registry wants them; secret.
    pub registry_auth: RegistryAuth,
}

/// Registry credentials in transit and in the replicated state; never printed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RegistryAuth(pub String);

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "(secret)" })
    }
}
