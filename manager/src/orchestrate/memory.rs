//! What one leader keeps between passes: nothing that the state does not tell.

use std::collections::{BTreeMap, BTreeSet};

use rswarm_scheduler::Cluster;
use rswarm_store::{Changed, State};
use rswarm_types::spec::ServiceMode;
use rswarm_types::task::Task;
use rswarm_types::task_state::TaskState;
use rswarm_types::{NodeId, ServiceId, TaskId, TimestampMs};

/// Tasks of one service that were made from one version of it.
pub(super) type Batch = (ServiceId, u64);

/// Indexes, the scheduler's view and timers. May be dropped at any time: it is built anew.
#[derive(Debug, Default)]
pub struct Memory {
    is_built: bool,
    pub(super) cluster: Cluster,
    /// Tasks in Pending that are still wanted.
    pub(super) pending: BTreeMap<Batch, BTreeSet<TaskId>>,
    batches: BTreeMap<TaskId, Batch>,
    /// Tasks in New that are still wanted.
    unallocated: BTreeSet<TaskId>,
    /// Tasks that the scheduler's view shows as the last plan wanted them, not as the state has them.
    pub(super) presumed: Vec<TaskId>,
    service_wakes: BTreeMap<ServiceId, TimestampMs>,
    node_wakes: BTreeMap<NodeId, TimestampMs>,
}

/// Where a pass looks.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub nodes: BTreeSet<NodeId>,
    pub services: BTreeSet<ServiceId>,
}

impl Memory {
    /// Takes note of what was touched and says where to look.
    pub(super) fn follow(&mut self, state: &State, changed: &Changed, now: TimestampMs) -> Look {
        if !self.is_built || changed.cluster {
            *self = Self::of(state);
            return Look {
                nodes: state.nodes().map(|node| node.id).collect(),
                services: state.services().map(|service| service.id).collect(),
            };
        }
        for id in std::mem::take(&mut self.presumed) {
            self.note_task(state, id);
        }
        for id in &changed.nodes {
            match state.node(*id) {
                Some(node) => self.cluster.upsert_node(node),
                None => self.cluster.remove_node(*id),
            }
        }
        for id in &changed.tasks {
            self.note_task(state, *id);
        }
        self.look(state, changed, now)
    }

    fn of(state: &State) -> Self {
        let mut memory = Self { is_built: true, ..Self::default() };
        memory.cluster = Cluster::from_scratch(state.nodes(), state.tasks());
        for task in state.tasks().filter(|task| task.status.state <= TaskState::Pending) {
            memory.note_waiting(task);
        }
        memory
    }

    fn look(&self, state: &State, changed: &Changed, now: TimestampMs) -> Look {
        let mut look = Look { nodes: changed.nodes.clone(), ..Look::default() };
        look.nodes.extend(self.node_wakes.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id));
        look.services.extend(&changed.services);
        look.services.extend(&changed.task_services);
        look.services.extend(self.service_wakes.iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id));
        for node in &changed.nodes {
            let tasks = state.tasks_on_node(*node).filter(|task| !task.status.state.is_terminal());
            look.services.extend(tasks.map(|task| task.service));
        }
        if !changed.nodes.is_empty() {
            let globals = state.services().filter(|service| matches!(service.spec.mode, ServiceMode::Global));
            look.services.extend(globals.map(|service| service.id));
        }
        look
    }

    fn note_task(&mut self, state: &State, id: TaskId) {
        self.unallocated.remove(&id);
        if let Some(batch) = self.batches.remove(&id)
            && let Some(tasks) = self.pending.get_mut(&batch)
        {
            tasks.remove(&id);
            if tasks.is_empty() {
                self.pending.remove(&batch);
            }
        }
        match state.task(id) {
            Some(task) => {
                self.cluster.upsert_task(task);
                self.note_waiting(task);
            }
            None => self.cluster.remove_task(id),
        }
    }

    fn note_waiting(&mut self, task: &Task) {
        if !task.is_live() {
            return;
        }
        match task.status.state {
            TaskState::New => {
                self.unallocated.insert(task.id);
            }
            TaskState::Pending => {
                let batch = (task.service, task.spec_version);
                self.pending.entry(batch).or_default().insert(task.id);
                self.batches.insert(task.id, batch);
            }
            _ => {}
        }
    }

    pub(super) fn unallocated(&self) -> &BTreeSet<TaskId> {
        &self.unallocated
    }

    pub(super) fn wake_for_service(&mut self, service: ServiceId, at: Option<TimestampMs>) {
        set(&mut self.service_wakes, service, at);
    }

    pub(super) fn wake_for_node(&mut self, node: NodeId, at: Option<TimestampMs>) {
        set(&mut self.node_wakes, node, at);
    }

    /// The earliest timer.
    pub(super) fn next_wake(&self) -> Option<TimestampMs> {
        self.service_wakes.values().chain(self.node_wakes.values()).min().copied()
    }
}

fn set<K: Ord>(wakes: &mut BTreeMap<K, TimestampMs>, key: K, at: Option<TimestampMs>) {
    match at {
        Some(at) => wakes.insert(key, at),
        None => wakes.remove(&key),
    };
}
