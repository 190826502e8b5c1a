//! What can happen to the replicated state. A command becomes one Raft entry.

use std::net::IpAddr;
use std::sync::Arc;

use crate::cluster::{Cluster, JoinTokens};
use crate::id::{MemberId, NetworkId, NodeId, RequestId, ServiceId, TaskId};
use crate::network::Network;
use crate::node::{Node, NodeDescription, NodeState};
use crate::service::{RegistryAuth, Service, UpdateStatus};
use crate::spec::{ClusterSpec, NetworkSpec, NodeSpec, Role, ServiceSpec};
use crate::task::{Slot, Task, TaskStatus};
use crate::task_state::DesiredState;
use crate::units::TimestampMs;

/// Who asked, as the manager that took the call saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Caller {
    /// The node whose daemon made the call.
    pub node: NodeId,
    pub role: Role,
}

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Cluster time, stamped by the leader in log order.
    pub at: TimestampMs,
    /// Wall time of the leader, kept for people.
    pub wall: TimestampMs,
    /// Made by the client and kept across its retries; zero for the system's own commands.
    pub request: RequestId,
    pub caller: Caller,
    /// The state refuses to apply a body above its feature level.
    pub needs_level: u32,
    pub body: Body,
}

/// What the command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The first entry of a cluster: the cluster, its first manager, its predefined networks
    /// (ingress, host, none).
    Init {
        cluster: Box<Cluster>,
        node: Box<Node>,
        networks: Vec<NetworkSpecWithId>,
    },
    /// Nothing but the time.
    Tick,
    UpdateCluster {
        version: u64,
        spec: ClusterSpec,
    },
    RotateTokens {
        tokens: JoinTokens,
        worker: bool,
        manager: bool,
    },

    /// Admits a node, or finds the one that the same key was admitted as within an hour.
    Admit {
        node: NodeId,
        role: Role,
        key_hash: [u8; 32],
        address: Option<IpAddr>,
        availability: crate::spec::Availability,
    },
    UpdateNode {
        node: NodeId,
        version: u64,
        spec: NodeSpec,
    },
    RemoveNode {
        node: NodeId,
        force: bool,
    },
    /// A worker opened a session; the entry's index is the session's epoch.
    OpenSession {
        node: NodeId,
        boot_id: String,
        description: Box<NodeDescription>,
        address: Option<IpAddr>,
        raft_lost: bool,
        sandboxes: Vec<TaskId>,
    },
    /// A node described itself anew within its session.
    DescribeNode {
        node: NodeId,
        description: Box<NodeDescription>,
    },
    /// The leader's view of a node's health. `epoch`: ignored if a newer session was opened since.
    SetNodeState {
        node: NodeId,
        epoch: u64,
        state: NodeState,
        message: String,
        grace_until: TimestampMs,
    },
    /// One step of a promotion or demotion.
    SetMembership {
        node: NodeId,
        role: Role,
        member: MemberId,
        is_voter: bool,
    },

    CreateNetwork {
        id: NetworkId,
        spec: NetworkSpec,
    },
    RemoveNetwork {
        id: NetworkId,
    },

    CreateService {
        id: ServiceId,
        spec: Arc<ServiceSpec>,
        auth: RegistryAuth,
    },
    UpdateService {
        id: ServiceId,
        version: u64,
        spec: Arc<ServiceSpec>,
        auth: Option<RegistryAuth>,
        rollback: bool,
    },
    RemoveService {
        id: ServiceId,
    },

    /// A whole stack in one entry, all or nothing.
    DeployStack(Box<StackChange>),
    /// Removes every service, then every network that carries the stack's label.
    RemoveStack {
        name: String,
    },

    /// What the reconcilers decided. Each change carries the version it was decided on; stale
    /// ones are dropped, the rest is applied.
    Reconcile(Vec<Change>),

    /// What an agent reported. Older epochs are dropped whole.
    Report {
        node: NodeId,
        epoch: u64,
        statuses: Vec<(TaskId, TaskStatus)>,
    },
}

/// A network to make, with the id chosen by the proposer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpecWithId {
    pub id: NetworkId,
    pub spec: NetworkSpec,
}

/// What `stack deploy` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackChange {
    pub name: String,
    /// Networks that do not exist yet (by name); existing ones are left as they are.
    pub networks: Vec<NetworkSpecWithId>,
    /// Created or updated by name; an equal spec changes nothing.
    pub services: Vec<StackService>,
    /// Remove the stack's services that are not listed.
    pub prune: bool,
}

/// One service of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackService {
    /// Used if the service is new.
    pub id: ServiceId,
    pub spec: Arc<ServiceSpec>,
    pub auth: RegistryAuth,
}

/// One decision of a reconciler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    CreateTask(Box<NewTask>),
    /// The task gets addresses in its networks; `apply` picks them.
    AllocateTask {
        task: TaskId,
    },
    /// The task runs on this node from now on. Dropped if the task or node changed since.
    AssignTask {
        task: TaskId,
        version: u64,
        node: NodeId,
    },
    /// Why a task cannot be placed.
    ExplainTask {
        task: TaskId,
        version: u64,
        error: String,
    },
    /// Only forward.
    SetDesired {
        task: TaskId,
        version: u64,
        desired: DesiredState,
        reason: String,
    },
    /// Node health gives up: the agent will never report again.
    OrphanTask {
        task: TaskId,
        reason: String,
    },
    /// The record goes.
    RemoveTask {
        task: TaskId,
    },
    SetUpdateStatus {
        service: ServiceId,
        version: u64,
        status: UpdateStatus,
    },
    /// The service is being removed and its last task is gone.
    ForgetService {
        service: ServiceId,
    },
    /// A network marked for removal with its stack has no more users.
    ForgetNetwork {
        network: NetworkId,
    },
}

/// A task to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewTask {
    pub id: TaskId,
    pub service: ServiceId,
    /// Service version this was decided on: dropped if the service's spec changed since.
    pub spec_version: u64,
    pub slot: Slot,
    /// Global services: the node is known at birth.
    pub node: Option<NodeId>,
    pub desired: DesiredState,
    pub start_after: TimestampMs,
    pub replaces: Option<TaskId>,
    /// It replaces a task that failed or finished: counted as a restart of the slot.
    pub is_restart: bool,
}

/// What `apply` answers to the proposer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Done; nothing more to say.
    Done,
    Node(NodeId),
    Network(NetworkId),
    Service {
        id: ServiceId,
        version: u64,
    },
    /// Log index at which the session was opened.
    Epoch(u64),
    Stack(Vec<StackOutcome>),
    /// Members that must leave Raft because of the command.
    Tokens(JoinTokens),
}

/// What happened to one object of a stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackOutcome {
    NetworkCreated { name: String, id: NetworkId },
    ServiceCreated { name: String, id: ServiceId },
    ServiceUpdated { name: String, id: ServiceId, changed: bool },
    ServiceRemoved { name: String, id: ServiceId },
    NetworkRemoved { name: String, id: NetworkId },
}

/// A record of the state, as snapshots carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Cluster(Box<Cluster>),
    Node(Box<Node>),
    Network(Box<Network>),
    Service(Box<Service>),
    Task(Box<Task>),
    Restarts(Box<RestartHistory>),
    Request(Box<RequestRecord>),
    Retired(RetiredNumber),
    /// Last values of what moves forward.
    Cursor(Cursor),
}

/// Restarts of one slot, kept across leader changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestartHistory {
    pub service: ServiceId,
    pub slot: Slot,
    /// Restarts since this version of the service; a new version starts anew.
    pub spec_version: u64,
    pub attempts: u64,
    /// Cluster times of restarts, oldest first, at most `max_attempts` of them (bounded window).
    pub times: Vec<TimestampMs>,
    /// Failures: node and cluster time, for the scheduler's last-choice rule. Bounded.
    pub failures: Vec<(NodeId, TimestampMs)>,
}

/// A finished request, so that a retry gets the same answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRecord {
    pub caller: NodeId,
    pub request: RequestId,
    pub body_hash: [u8; 32],
    pub at: TimestampMs,
    pub answer: Result<Answer, crate::Refusal>,
}

/// A node number that rests after `node rm`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetiredNumber {
    pub number: u16,
    pub until: TimestampMs,
}

/// Where next-fit allocation stands, and cluster time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    pub at: TimestampMs,
    pub index: u64,
    pub node_number: u16,
    pub vni: u32,
    /// Last address given, per network and family.
    pub addresses: Vec<(NetworkId, std::net::IpAddr)>,
}
