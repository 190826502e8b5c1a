//! A task: one attempt to run one container on one node.

use std::fmt;
use std::sync::Arc;

use crate::cluster::Meta;
use crate::id::{NetworkId, NodeId, ServiceId, TaskId};
use crate::network::Addresses;
use crate::spec::{PortConfig, ServiceSpec};
use crate::task_state::{DesiredState, TaskState};
use crate::units::TimestampMs;

/// Which place of the service the task fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// 1, 2, … of a replicated service.
    Number(u64),
    /// The node of a global service's task.
    Node(NodeId),
}

impl Default for Slot {
    fn default() -> Self {
        Self::Number(0)
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Node(id) => write!(f, "{id}"),
        }
    }
}

/// What the agent last reported (or a manager, where the state's owner is one).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskStatus {
    pub state: TaskState,
    /// What happened, e.g. `started`, `preparing`.
    pub message: String,
    /// Why it failed, in full; why it cannot be placed.
    pub error: String,
    pub exit_code: Option<i32>,
    /// Container's init process on its node; 0 = none.
    pub pid: u32,
    /// Wall time, for people.
    pub at: TimestampMs,
    /// Cluster time at which `apply` took the status.
    pub applied: TimestampMs,
    /// Published host-mode ports with the numbers that the node chose.
    pub host_ports: Vec<PortConfig>,
    /// The agent holds nothing of the task any more: its address may be given again.
    pub sandbox_gone: bool,
}

/// Whether new connections go to a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EndpointState {
    #[default]
    Starting,
    Ready,
    /// Existing connections only; set with desired Shutdown.
    Draining,
    Dead,
}

/// A task's place in one network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub network: NetworkId,
    pub addresses: Addresses,
    pub aliases: Vec<String>,
}

/// A task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Task {
    pub id: TaskId,
    pub meta: Meta,
    pub service: ServiceId,
    pub slot: Slot,
    /// The node that runs it, once placed; set at birth for a global service.
    pub node: Option<NodeId>,
    /// The spec it was made from, shared between the tasks of one version.
    pub spec: Arc<ServiceSpec>,
    /// [`crate::service::Service::spec_version`] at birth.
    pub spec_version: u64,
    pub status: TaskStatus,
    pub desired: DesiredState,
    /// Why `desired` is Shutdown, for people.
    pub desired_reason: String,
    /// Log index of the entry that set desired to Shutdown: stop once load balancers have it. 0 = none.
    pub stop_at: u64,
    /// Addresses from the store; empty before allocation.
    pub attachments: Vec<Attachment>,
    /// Addresses in the ingress network; empty where the service publishes nothing in ingress mode.
    pub ingress: Addresses,
    /// Allocation was done (possibly of nothing).
    pub allocated: bool,
    /// Not started before this cluster time (restart delay); 0 = at once.
    pub start_after: TimestampMs,
    /// The task this one replaces: it starts when that one stopped.
    pub replaces: Option<TaskId>,
    /// Cluster time of birth.
    pub created: TimestampMs,
    /// Cluster time at which it last became RUNNING; 0 = never.
    pub running_since: TimestampMs,
}

impl Task {
    /// `service.slot`, the name without the id.
    pub fn short_name(&self) -> String {
        format!("{}.{}", self.spec.name, self.slot)
    }

    /// `service.slot.id`, Swarm's name of a task.
    pub fn name(&self) -> String {
        format!("{}.{}.{}", self.spec.name, self.slot, self.id)
    }

    /// Whether new connections go to it.
    pub fn endpoint_state(&self) -> EndpointState {
        if self.status.state.is_terminal() {
            EndpointState::Dead
        } else if self.desired >= DesiredState::Shutdown {
            EndpointState::Draining
        } else if self.status.state == TaskState::Running {
            EndpointState::Ready
        } else {
            EndpointState::Starting
        }
    }

    /// Whether it holds, or will hold, its slot: wanted and not finished.
    pub fn is_live(&self) -> bool {
        self.desired <= DesiredState::Running && !self.status.state.is_terminal()
    }
}
