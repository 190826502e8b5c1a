//! A node as the cluster knows it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::cluster::Meta;
use crate::id::{MemberId, NodeId};
use crate::network::Addresses;
use crate::spec::{Availability, NodeSpec, Platform, Role};
use crate::units::{Bytes, NanoCpus, TimestampMs};

/// Whether a node can be given work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeState {
    /// Admitted, or restarting on purpose; not seen yet.
    #[default]
    Unknown,
    Down,
    Ready,
    /// It said goodbye with `leave`.
    Disconnected,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Ready => "ready",
            Self::Disconnected => "disconnected",
        })
    }
}

/// What a node says of itself when it opens a session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeDescription {
    pub hostname: String,
    pub platform: Platform,
    pub cpus: NanoCpus,
    pub memory: Bytes,
    pub engine_version: String,
    /// Labels of the daemon (`--label`).
    pub engine_labels: BTreeMap<String, String>,
    /// Where other nodes send VXLAN.
    pub data_path_address: Option<IpAddr>,
    /// Where managers are reached, `HOST:2377`.
    pub control_address: Option<SocketAddr>,
    /// What its interfaces have, sorted; not loopback and link-local ones, nor ours.
    pub addresses: Vec<IpAddr>,
    /// Published ports that this node cannot answer, with the reason.
    pub port_problems: Vec<PortProblem>,
    /// Feature levels that this build can apply.
    pub feature_range: (u32, u32),
}

/// A published port that something else on the node holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortProblem {
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: crate::spec::Protocol,
    /// Names the process where the kernel tells.
    pub reason: String,
}

/// The state with its reason, written by the leader.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeStatus {
    pub state: NodeState,
    pub message: String,
    /// The address its session came from.
    pub address: Option<IpAddr>,
    /// Cluster time of the last change of `state`.
    pub since: TimestampMs,
    /// Cluster time until which a purposeful restart keeps the node from Down; 0 = none.
    pub grace_until: TimestampMs,
    /// Cluster time of the last grace given: one per 10 minutes.
    pub grace_at: TimestampMs,
}

/// How far a node is on its way to the role its spec asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The role that authority is judged by.
    pub role: Role,
    /// Its Raft member id, chosen at promotion; 0 = none.
    pub member: MemberId,
    /// It votes.
    pub is_voter: bool,
    /// It said that its Raft folder is gone.
    pub raft_lost: bool,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub id: NodeId,
    pub meta: Meta,
    pub spec: NodeSpec,
    pub description: NodeDescription,
    pub status: NodeStatus,
    pub membership: Membership,
    /// 1-65535, unique: conntrack zone, MACs, ingress address.
    pub number: u16,
    /// Its addresses in the ingress network; empty while there is no such network.
    pub ingress: Addresses,
    /// Cluster time of its admission.
    pub admitted: TimestampMs,
    /// Log index of the entry that opened the current session; 0 = never.
    pub session_epoch: u64,
    /// Boot of the daemon's host as the session named it.
    pub boot_id: String,
    /// SHA-256 of the public key it was admitted with; the same key gets the same node.
    pub key_hash: [u8; 32],
}

impl Node {
    /// Ready and active: may be given new tasks.
    pub fn is_schedulable(&self) -> bool {
        self.status.state == NodeState::Ready && self.spec.availability == Availability::Active
    }

    /// What people call it: the hostname, else the short id.
    pub fn display_name(&self) -> String {
        if self.description.hostname.is_empty() { self.id.short() } else { self.description.hostname.clone() }
    }
}
