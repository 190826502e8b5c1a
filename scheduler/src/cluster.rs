//! Nodes, and what runs on them, in the order in which they are chosen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rswarm_types::node::Node;
use rswarm_types::spec::{PortConfig, Protocol, PublishMode, ServiceSpec, share_address};
use rswarm_types::task::Task;
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{NodeId, ServiceId, TaskId};

use crate::pending::Pending;

/// Place of a node in [`Cluster::slots`]. Never decides anything: ids do.
pub(crate) type Index = u32;

/// The scheduler's view. Changes cost O(log nodes).
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub(crate) slots: Vec<Slot>,
    /// Places of [`Self::slots`] that nobody uses.
    free: Vec<Index>,
    pub(crate) indexes: BTreeMap<NodeId, Index>,
    /// Nodes that may be given work, by their tasks, then by id.
    pub(crate) order: BTreeSet<(u64, NodeId, Index)>,
    /// Wanted tasks of each service per node; no entry = none.
    pub(crate) services: BTreeMap<ServiceId, BTreeMap<Index, u64>>,
    tasks: BTreeMap<TaskId, Placed>,
    pub(crate) pending: Pending,
}

/// A node with what its tasks take.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    pub id: NodeId,
    /// `None`: removed, or not heard of yet, while tasks are still counted here.
    pub node: Option<Arc<Node>>,
    /// Billionths of a CPU.
    pub reserved_cpu: u64,
    /// Bytes.
    pub reserved_memory: u64,
    /// Host-mode ports in use, with the number of their users.
    pub ports: BTreeMap<HostPort, u32>,
    /// Tasks that are to run: what spreading counts.
    pub wanted: u64,
    /// All tasks that are not finished.
    unfinished: u64,
    /// The key under which the node stands in [`Cluster::order`].
    ordered: Option<u64>,
}

/// A published port, and the address of the node that it answers on; `None` = all.
pub(crate) type HostPort = (u16, Protocol, Option<IpAddr>);

impl Slot {
    /// Whether a task of the node answers this port on one of these addresses.
    pub fn is_port_used(&self, (port, protocol, address): HostPort) -> bool {
        // `None` comes first.
        let used = self.ports.range((port, protocol, None)..).map(|(used, _)| *used);
        let mut same = used.take_while(|(other, of, _)| (*other, *of) == (port, protocol));
        same.any(|(_, _, other)| share_address(other, address))
    }
}

/// A task that takes resources of a node.
#[derive(Clone, Debug)]
struct Placed {
    at: Index,
    service: ServiceId,
    is_wanted: bool,
    spec: Arc<ServiceSpec>,
}

impl Cluster {
    /// A cluster without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The view of these nodes and tasks, from scratch.
    pub fn from_scratch<'a>(
        nodes: impl IntoIterator<Item = &'a Arc<Node>>,
        tasks: impl IntoIterator<Item = &'a Arc<Task>>,
    ) -> Self {
        let mut cluster = Self::new();
        for node in nodes {
            cluster.upsert_node(node);
        }
        for task in tasks {
            cluster.upsert_task(task);
        }
        cluster
    }

    /// Takes note of a node that is new or changed.
    pub fn upsert_node(&mut self, node: &Arc<Node>) {
        let at = self.index_of(node.id);
        let slot = &mut self.slots[at as usize];
        if slot.node.as_ref() == Some(node) {
            return;
        }
        let old_name = slot.node.replace(Arc::clone(node)).map(|old| old.display_name());
        if old_name.is_some_and(|old| old != node.display_name()) {
            // Explanations name nodes.
            self.pending.clear();
        }
        self.touch(at);
    }

    /// Takes note that a node was removed.
    pub fn remove_node(&mut self, id: NodeId) {
        if let Some(at) = self.indexes.get(&id).copied() {
            self.slots[at as usize].node = None;
            self.touch(at);
            self.drop_if_empty(at);
        }
    }

    /// Takes note of a task that is new or changed. Idempotent: also what to call, with the state's
    /// record, for each task that [`Self::schedule`] placed, once the entry is applied or given up.
    pub fn upsert_task(&mut self, task: &Task) {
        let is_unfinished = task.status.state >= TaskState::Assigned && !task.status.state.is_terminal();
        let Some(node) = task.node.filter(|_| is_unfinished) else {
            self.remove_task(task.id);
            return;
        };
        let at = self.index_of(node);
        let is_wanted = task.desired <= DesiredState::Running;
        if self.tasks.get(&task.id).is_some_and(|known| known.at == at && known.is_wanted == is_wanted) {
            return;
        }
        self.remove_task(task.id);
        // Removing the last task of a node that is gone frees its place.
        let at = self.index_of(node);
        let placed = Placed { at, service: task.service, is_wanted, spec: Arc::clone(&task.spec) };
        self.count(task.id, placed);
        self.touch(at);
    }

    /// Takes note that a task's record is gone, or that it no longer takes resources.
    pub fn remove_task(&mut self, id: TaskId) {
        let Some(Placed { at, service, is_wanted, spec }) = self.tasks.remove(&id) else { return };
        let slot = &mut self.slots[at as usize];
        let reserved = &spec.task.resources;
        slot.reserved_cpu = slot.reserved_cpu.saturating_sub(reserved.reserve_cpu.0);
        slot.reserved_memory = slot.reserved_memory.saturating_sub(reserved.reserve_memory.0);
        slot.unfinished -= 1;
        for port in fixed_host_ports(&spec) {
            if let Some(users) = slot.ports.get_mut(&port) {
                *users -= 1;
                if *users == 0 {
                    slot.ports.remove(&port);
                }
            }
        }
        if is_wanted {
            slot.wanted -= 1;
            let counts = self.services.entry(service).or_default();
            if let Some(count) = counts.get_mut(&at) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&at);
                }
            }
            if counts.is_empty() {
                self.services.remove(&service);
            }
        }
        self.touch(at);
        self.drop_if_empty(at);
    }

    /// Wanted tasks of a service on a node.
    pub(crate) fn tasks_of(&self, service: ServiceId, at: Index) -> u64 {
        self.services.get(&service).and_then(|counts| counts.get(&at)).copied().unwrap_or_default()
    }

    /// Counts a task that was just placed; [`Self::touch`] its node when the group is done.
    pub(crate) fn place(&mut self, task: TaskId, service: ServiceId, spec: &Arc<ServiceSpec>, at: Index) {
        self.count(task, Placed { at, service, is_wanted: true, spec: Arc::clone(spec) });
    }

    /// Whether a task is already counted.
    pub(crate) fn is_counted(&self, task: TaskId) -> bool {
        self.tasks.contains_key(&task)
    }

    fn count(&mut self, task: TaskId, placed: Placed) {
        let slot = &mut self.slots[placed.at as usize];
        let reserved = &placed.spec.task.resources;
        slot.reserved_cpu = slot.reserved_cpu.saturating_add(reserved.reserve_cpu.0);
        slot.reserved_memory = slot.reserved_memory.saturating_add(reserved.reserve_memory.0);
        slot.unfinished += 1;
        for port in fixed_host_ports(&placed.spec) {
            *slot.ports.entry(port).or_default() += 1;
        }
        if placed.is_wanted {
            slot.wanted += 1;
            *self.services.entry(placed.service).or_default().entry(placed.at).or_default() += 1;
        }
        self.tasks.insert(task, placed);
    }

    /// Puts a node that changed in its place in the order, and has pending groups look at it.
    pub(crate) fn touch(&mut self, at: Index) {
        let slot = &mut self.slots[at as usize];
        let is_schedulable = slot.node.as_ref().is_some_and(|node| node.is_schedulable());
        let key = is_schedulable.then_some(slot.wanted);
        if slot.ordered != key {
            if let Some(old) = slot.ordered {
                self.order.remove(&(old, slot.id, at));
            }
            if let Some(new) = key {
                self.order.insert((new, slot.id, at));
            }
            slot.ordered = key;
        }
        self.pending.node_changed(at, self.slots.len());
    }

    fn index_of(&mut self, id: NodeId) -> Index {
        if let Some(at) = self.indexes.get(&id) {
            return *at;
        }
        let slot = Slot { id, ..Slot::default() };
        let at = if let Some(at) = self.free.pop() {
            // Explanations that are kept name the node that was here.
            self.pending.clear();
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            Index::try_from(self.slots.len() - 1).expect("nodes are numbered with 16 bits")
        };
        self.indexes.insert(id, at);
        at
    }

    fn drop_if_empty(&mut self, at: Index) {
        let slot = &self.slots[at as usize];
        if slot.node.is_none() && slot.unfinished == 0 {
            self.indexes.remove(&slot.id);
            self.free.push(at);
        }
    }
}

/// Host-mode ports with a number of their own; the node chooses the others.
pub(crate) fn fixed_host_ports(spec: &ServiceSpec) -> impl Iterator<Item = HostPort> {
    let is_fixed = |port: &&PortConfig| port.mode == PublishMode::Host && port.published != 0;
    spec.endpoint.ports.iter().filter(is_fixed).map(|port| (port.published, port.protocol, port.address))
}
