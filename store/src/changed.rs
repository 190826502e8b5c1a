//! What an entry touched: where reconcilers and dispatchers look next.

use std::collections::BTreeSet;

use rswarm_types::{NetworkId, NodeId, ServiceId, TaskId};

/// Ids of the rows that an entry made, changed or removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    pub cluster: bool,
    pub nodes: BTreeSet<NodeId>,
    pub networks: BTreeSet<NetworkId>,
    pub services: BTreeSet<ServiceId>,
    pub tasks: BTreeSet<TaskId>,
    /// Services of [`Self::tasks`]: the record of a removed task can no longer be asked.
    pub task_services: BTreeSet<ServiceId>,
    /// Nodes of [`Self::tasks`].
    pub task_nodes: BTreeSet<NodeId>,
}

impl Changed {
    /// Whether nothing was touched but time.
    pub fn is_empty(&self) -> bool {
        !self.cluster
            && self.nodes.is_empty()
            && self.networks.is_empty()
            && self.services.is_empty()
            && self.tasks.is_empty()
    }

    /// Adds what another entry touched.
    pub fn merge(&mut self, other: Self) {
        self.cluster |= other.cluster;
        self.nodes.extend(other.nodes);
        self.networks.extend(other.networks);
        self.services.extend(other.services);
        self.tasks.extend(other.tasks);
        self.task_services.extend(other.task_services);
        self.task_nodes.extend(other.task_nodes);
    }
}
