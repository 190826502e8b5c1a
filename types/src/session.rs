//! What a worker and a manager say to each other on the one stream between them (DESIGN §4a).

use crate::assignment::{AssignedTask, Assignments, LogId};
use crate::delta::Delta;
use crate::id::{MemberId, NetworkId, NodeId, TaskId};
use crate::node::NodeDescription;
use crate::spec::{Control, Role};
use crate::task::TaskStatus;

/// From the worker.
#[derive(Clone, Debug, PartialEq)]
pub enum Up {
    /// Always first.
    Open(Box<Open>),
    Heartbeat,
    /// Endpoint tables up to this index are in this node's kernel.
    Applied {
        index: u64,
    },
    /// Newest status per task; resent until [`Down::Reported`] names the number.
    Statuses {
        number: u64,
        statuses: Vec<(TaskId, TaskStatus)>,
    },
    Describe(Box<NodeDescription>),
    GoingAway(Leaving),
}

/// Why the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaving {
    /// It comes back at once: the node keeps its tasks for 30 s.
    Restart,
    /// The host stops, or the node leaves: its tasks are replaced at once.
    Shutdown,
}

/// A worker introduces itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    pub node: NodeId,
    pub boot_id: String,
    /// Position of the last assignments it acted on.
    pub applied: LogId,
    /// Tasks whose sandbox still exists here.
    pub sandboxes: Vec<TaskId>,
    pub description: NodeDescription,
    /// It has a manager's certificate and no Raft folder.
    pub raft_lost: bool,
}

/// From the manager.
#[derive(Clone, Debug, PartialEq)]
pub enum Down {
    /// The session is open under this epoch.
    Opened {
        epoch: u64,
    },
    /// This manager is behind what the worker has seen: try the next.
    Behind {
        at: LogId,
    },
    /// The session ends: removed, cloned, or the manager has no leader. The text is for people.
    Closed {
        reason: CloseReason,
        message: String,
    },
    /// The whole table: first in a session.
    Assignments(Box<Assignments>),
    /// Of the table sent before.
    Changes(Box<Delta>),
    /// Role and member id, when they change.
    Node {
        role: Role,
        member: MemberId,
        control: Control,
    },
    Settled(Settled),
    /// The statuses with this number are in the replicated state.
    Reported {
        number: u64,
    },
    /// Open a stream for this request (logs).
    Stream(StreamRequest),
}

/// How far endpoint tables are in the kernels that lead traffic to what stops, as log indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled {
    /// On every Ready node.
    pub everywhere: u64,
    /// On the Ready nodes with tasks on a network, for networks on which tasks stop; in order of id.
    pub networks: Vec<(NetworkId, u64)>,
}

impl Settled {
    /// For a task: every node leads to it if it is in the routing mesh, else those on its networks. The greatest
    /// number when nobody does.
    pub fn of(&self, task: &AssignedTask) -> u64 {
        let on = |network: NetworkId| {
            let at = self.networks.binary_search_by_key(&network, |(id, _)| *id);
            // Not told of yet: then nobody may be left out.
            at.map_or(self.everywhere, |at| self.networks[at].1)
        };
        if !task.ingress.is_empty() {
            return self.everywhere;
        }
        task.attachments.iter().map(|attachment| on(attachment.network)).min().unwrap_or(u64::MAX)
    }
}

/// Whether it is worth trying another manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Try another manager.
    Stale,
    /// A newer session of this node is open elsewhere.
    Superseded,
    /// Another daemon with this node's identity is alive.
    Clone,
    /// The node was removed from the cluster.
    Removed,
}

/// Logs asked of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamRequest {
    /// The worker names it when it opens the stream.
    pub id: u128,
    pub task: TaskId,
    pub follow: bool,
    /// Lines from the end; `None` = all.
    pub tail: Option<u64>,
    /// Unix nanoseconds; 0 = from the start.
    pub since_ns: u64,
}

/// One line of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogLine {
    pub task: TaskId,
    pub node: NodeId,
    pub is_stderr: bool,
    /// Unix nanoseconds.
    pub at_ns: u64,
    /// Without the newline.
    pub text: Vec<u8>,
}
