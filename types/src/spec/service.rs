//! What users ask of a service.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::container::ContainerSpec;
use crate::limits;
use crate::units::{Bytes, NanoCpus};

/// A service, `service create`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub task: TaskSpec,
    pub mode: ServiceMode,
    /// `None` = Swarm's defaults.
    pub update: Option<UpdateConfig>,
    pub rollback: Option<UpdateConfig>,
    pub endpoint: EndpointSpec,
}

/// How many tasks a service has. Jobs come later and are refused by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceMode {
    Replicated { replicas: u64 },
    Global,
}

impl Default for ServiceMode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

/// What each task of the service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSpec {
    pub container: ContainerSpec,
    pub resources: Resources,
    pub restart: RestartPolicy,
    pub placement: Placement,
    pub networks: Vec<NetworkAttachment>,
    pub log_driver: Option<LogDriver>,
    /// Grows with `service update --force`.
    pub force_update: u64,
}

/// Limits and reservations; zero = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub limit_cpu: NanoCpus,
    pub limit_memory: Bytes,
    /// Processes.
    pub limit_pids: u64,
    pub reserve_cpu: NanoCpus,
    pub reserve_memory: Bytes,
}

/// When a finished task is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RestartCondition {
    None,
    OnFailure,
    #[default]
    Any,
}

impl fmt::Display for RestartCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::OnFailure => "on-failure",
            Self::Any => "any",
        })
    }
}

/// Restarts of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    pub condition: RestartCondition,
    pub delay: Duration,
    /// 0 = no bound.
    pub max_attempts: u64,
    /// Attempts are counted in this window; zero = the slot's whole life.
    pub window: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            delay: Duration::from_millis(limits::RESTART_DELAY_MS),
            max_attempts: 0,
            window: Duration::ZERO,
        }
    }
}

/// Where tasks may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Expressions as the user wrote them; [`crate::constraint`] reads them.
    pub constraints: Vec<String>,
    pub preferences: Vec<SpreadPreference>,
    /// 0 = no bound.
    pub max_replicas_per_node: u64,
    /// Platforms of the image; empty = any.
    pub platforms: Vec<Platform>,
}

/// `--placement-pref spread=DESCRIPTOR`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpreadPreference {
    /// `node.labels.KEY` or `engine.labels.KEY`.
    pub descriptor: String,
}

/// An operating system and architecture, in Go's names (`linux`, `amd64`).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
}

/// A network that each task joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkAttachment {
    /// The name or id that the user gave; the control API replaces it by the id (25 characters).
    pub target: String,
    pub aliases: Vec<String>,
    pub driver_opts: BTreeMap<String, String>,
}

/// A logging driver; only `json-file`, `local` and `none` exist.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogDriver {
    pub name: String,
    pub options: BTreeMap<String, String>,
}

/// Which end of an update comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdateOrder {
    #[default]
    StopFirst,
    StartFirst,
}

impl fmt::Display for UpdateOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::StopFirst => "stop-first",
            Self::StartFirst => "start-first",
        })
    }
}

/// What happens when a task of an update fails. Others are refused by name until they are built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureAction {
    #[default]
    Pause,
}

impl fmt::Display for FailureAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("pause")
    }
}

/// How a change rolls out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpdateConfig {
    /// Slots at once; 0 = all.
    pub parallelism: u64,
    pub delay: Duration,
    pub failure_action: FailureAction,
    /// A task that fails inside this time after RUNNING counts as a failed update.
    pub monitor: Duration,
    pub order: UpdateOrder,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            parallelism: 1,
            delay: Duration::ZERO,
            failure_action: FailureAction::Pause,
            monitor: Duration::from_millis(limits::UPDATE_MONITOR_MS),
            order: UpdateOrder::StopFirst,
        }
    }
}

/// How clients find the tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointMode {
    /// One virtual address per network.
    #[default]
    Vip,
    /// The name gives the addresses of the tasks.
    DnsRr,
}

impl fmt::Display for EndpointMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vip => "vip",
            Self::DnsRr => "dnsrr",
        })
    }
}

/// Which backend a new connection to a virtual address or a published port goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Balance {
    /// All connections of one client address go to one task, as long as the set of tasks is the same.
    pub by_client: bool,
    /// Tasks of the node that leads the connection first; others where it has none.
    pub prefers_local: bool,
}

impl Balance {
    /// The word of `--endpoint-affinity`.
    pub fn affinity(self) -> &'static str {
        if self.by_client { "client-ip" } else { "none" }
    }

    /// The word of `--endpoint-prefer`.
    pub fn prefer(self) -> &'static str {
        if self.prefers_local { "local" } else { "any" }
    }
}

/// Name and published ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSpec {
    pub mode: EndpointMode,
    pub balance: Balance,
    pub ports: Vec<PortConfig>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// Who answers on a published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PublishMode {
    /// Every node.
    #[default]
    Ingress,
    /// The task's own node.
    Host,
}

impl fmt::Display for PublishMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Host => "host",
        })
    }
}

/// One published port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortConfig {
    pub protocol: Protocol,
    /// In the container, 1-65535.
    pub target: u16,
    /// On the nodes; 0 = chosen from 30000-32767 (ingress) or by the node (host).
    pub published: u16,
    pub mode: PublishMode,
    /// Of a node's addresses only this one answers; nodes that do not have it answer nowhere. `None` = all of both
    /// families.
    pub address: Option<IpAddr>,
}

impl PortConfig {
    /// Whether no node could answer both: equal numbers and protocols on a common address.
    pub fn meets(&self, other: &Self) -> bool {
        let key = |port: &Self| (port.published, port.protocol);
        self.published != 0 && key(self) == key(other) && share_address(self.address, other.address)
    }
}

/// Whether two `address`es of published ports have one in common.
pub fn share_address(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    a.is_none() || b.is_none() || a == b
}

/// As `--publish` takes it: `8080:80/tcp`, `[::1]:8080:80/udp`, `127.0.0.1::80/tcp`, `80/tcp`.
impl fmt::Display for PortConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        match (self.published, self.address) {
            (0, None) => {}
            (0, Some(_)) => f.write_str(":")?,
            (published, _) => write!(f, "{published}:")?,
        }
        write!(f, "{}/{}", self.target, self.protocol)
    }
}
