//! What is asked, and what is answered.

use std::sync::Arc;

use rswarm_types::spec::ServiceSpec;
use rswarm_types::{NodeId, ServiceId, TaskId, TimestampMs};

/// Pending tasks of one service that were made from one spec: they share one pass.
#[derive(Clone, Debug)]
pub struct Group {
    pub service: ServiceId,
    /// The spec of the tasks.
    pub spec: Arc<ServiceSpec>,
    /// Tasks that any node may take, in the order in which they are placed.
    pub tasks: Vec<TaskId>,
    /// Tasks whose node was chosen at birth (global services): only checked.
    pub preassigned: Vec<(TaskId, NodeId)>,
    /// Failures of the service's tasks, with the node and the cluster time.
    pub failures: Vec<(NodeId, TimestampMs)>,
}

/// What became of one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub task: TaskId,
    pub outcome: Outcome,
}

/// A node, or the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Node(NodeId),
    /// `no suitable node (<reason> on N nodes; …)`, shared by the tasks of a group.
    Unplaced {
        explanation: Arc<str>,
    },
}
