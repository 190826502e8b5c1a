//! What should be true on one node, as managers compute it from their replicated state.
//!
//! A session begins with the whole table; what follows are changes ([`crate::delta`]). Everything is
//! sorted by id, so that equal tables are equal values.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::id::{ClusterId, MemberId, NetworkId, NodeId, ServiceId, TaskId};
use crate::network::{Addresses, SubnetBlock};
use crate::service::RegistryAuth;
use crate::spec::{Balance, Control, EndpointMode, NetworkDriver, PortConfig, PublishMode, Role, ServiceSpec};
use crate::task::{Attachment, EndpointState, Slot};
use crate::task_state::{DesiredState, TaskState};
use crate::units::TimestampMs;

/// A position in the cluster's history; a worker refuses anything smaller than it has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId {
    pub era: u64,
    pub term: u64,
    pub index: u64,
}

/// A task that this node should act on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedTask {
    pub id: TaskId,
    pub service: ServiceId,
    pub slot: Slot,
    pub spec: Arc<ServiceSpec>,
    pub desired: DesiredState,
    /// What the managers know of its state (for the reporter to compare).
    pub state: TaskState,
    /// Stop once `settled` reached this index, or `DRAIN_WAIT_MS` after hearing of it. 0 = at once.
    pub stop_at: u64,
    pub attachments: Vec<Attachment>,
    pub ingress: Addresses,
    /// Ports of the service with their numbers.
    pub ports: Vec<PortConfig>,
    pub registry_auth: RegistryAuth,
}

/// A network with a task here, or the ingress network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedNetwork {
    pub id: NetworkId,
    pub name: String,
    pub driver: NetworkDriver,
    pub vni: u32,
    pub blocks: Vec<SubnetBlock>,
    pub internal: bool,
    pub ingress: bool,
    /// MTU of containers' interfaces.
    pub mtu: u32,
}

/// A service that a local task can name, or that publishes ports in ingress mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssignedService {
    pub id: ServiceId,
    pub name: String,
    pub mode: EndpointMode,
    pub balance: Balance,
    /// One per network (only networks that this node has; none with dnsrr).
    pub vips: Vec<(NetworkId, Addresses)>,
    /// Aliases per network.
    pub aliases: Vec<(NetworkId, Vec<String>)>,
    /// Ports with [`PublishMode::Ingress`] and their numbers; every node answers them.
    pub ports: Vec<PortConfig>,
}

/// A running (or starting, or draining) task somewhere in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub task: TaskId,
    pub service: ServiceId,
    pub node: NodeId,
    /// Of its node.
    pub node_number: u16,
    pub slot: Slot,
    pub state: EndpointState,
    /// In each network that this node has too.
    pub addresses: Vec<(NetworkId, Addresses)>,
    pub ingress: Addresses,
}

/// Another node (or this one): where VXLAN frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub id: NodeId,
    pub number: u16,
    /// Of its data path.
    pub address: IpAddr,
    /// All that its interfaces have and that others may see, sorted: as a client it is known by them.
    pub addresses: Vec<IpAddr>,
    /// The node is not Down.
    pub is_up: bool,
    /// Its addresses in the ingress network.
    pub ingress: Addresses,
}

/// What the cluster has decided about this node itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeOrders {
    pub id: NodeId,
    pub number: u16,
    /// Its addresses in the ingress network.
    pub ingress: Addresses,
    pub role: Role,
    pub member: MemberId,
    pub control: Control,
    pub data_path_port: u16,
    pub cluster: ClusterId,
}

/// All that should be true on one node at one log position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assignments {
    pub log_id: LogId,
    pub node: NodeOrders,
    pub tasks: Vec<AssignedTask>,
    pub networks: Vec<AssignedNetwork>,
    pub services: Vec<AssignedService>,
    pub endpoints: Vec<Endpoint>,
    pub peers: Vec<Peer>,
    /// Managers to try, control addresses.
    pub managers: Vec<SocketAddr>,
    /// Cluster time, for back-off and delays that a worker counts.
    pub now: TimestampMs,
}

impl AssignedService {
    /// Ports that every node answers.
    pub fn ingress_ports(&self) -> impl Iterator<Item = &PortConfig> {
        self.ports.iter().filter(|p| p.mode == PublishMode::Ingress)
    }
}

/// What a worker says of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskReport {
    pub task: TaskId,
    pub status: crate::task::TaskStatus,
}
