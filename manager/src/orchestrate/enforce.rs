//! Tasks whose node no longer fits them: constraints and reserved resources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rswarm_store::State;
use rswarm_types::constraint::Constraint;
use rswarm_types::node::{Node, NodeState};
use rswarm_types::service::Service;
use rswarm_types::task::Task;
use rswarm_types::task_state::TaskState;
use rswarm_types::{NodeId, TaskId};

/// Where tasks of a service may be, as its spec says today.
pub(super) struct Placeable<'a> {
    service: &'a Service,
    constraints: Vec<(&'a str, Option<Constraint>)>,
}

impl<'a> Placeable<'a> {
    pub fn of(service: &'a Service) -> Self {
        let constraints = service.spec.task.placement.constraints.iter();
        Self { service, constraints: constraints.map(|text| (text.as_str(), Constraint::parse(text).ok())).collect() }
    }

    /// Whether the node satisfies every constraint.
    pub fn matches(&self, node: &Node) -> bool {
        self.unmet(node).is_none()
    }

    /// Why a task on this node must be replaced.
    pub fn reason(&self, node: &Node) -> Option<String> {
        let text = self.unmet(node)?;
        Some(format!("node {} no longer satisfies constraint \"{text}\"", node.display_name()))
    }

    /// Why a task without a node must be made anew: it would be placed by rules that have changed.
    pub fn outdated(&self, task: &Task) -> Option<String> {
        let is_outdated = task.status.state < TaskState::Assigned
            && task.spec_version == self.service.spec_version
            && !Arc::ptr_eq(&task.spec, &self.service.spec)
            && task.spec.task.placement != self.service.spec.task.placement;
        is_outdated.then(|| "the placement of the service has changed".to_owned())
    }

    fn unmet(&self, node: &Node) -> Option<&str> {
        let holds = |constraint: &Option<Constraint>| constraint.as_ref().is_some_and(|c| c.matches(node));
        self.constraints.iter().find(|(_, constraint)| !holds(constraint)).map(|(text, _)| *text)
    }
}

/// Tasks for which their node no longer has the resources.
#[derive(Debug, Default)]
pub(super) struct Overload {
    tasks: BTreeMap<TaskId, String>,
}

impl Overload {
    /// Looks at these nodes: the oldest tasks stay.
    pub fn of(state: &State, nodes: &BTreeSet<NodeId>) -> Self {
        let mut overload = Self::default();
        for node in nodes.iter().filter_map(|id| state.node(*id)) {
            let load = state.load(node.id);
            let is_over = load.cpu > node.description.cpus || load.memory > node.description.memory;
            if node.status.state == NodeState::Ready && is_over {
                overload.judge(state, node);
            }
        }
        overload
    }

    fn judge(&mut self, state: &State, node: &Node) {
        let is_there = |task: &&Arc<Task>| task.is_live() && task.status.state >= TaskState::Assigned;
        let mut tasks: Vec<&Arc<Task>> = state.tasks_on_node(node.id).filter(is_there).collect();
        tasks.sort_by_key(|task| (task.created, task.id));
        let (mut cpu, mut memory) = (node.description.cpus.0, node.description.memory.0);
        for task in tasks {
            let wanted = &task.spec.task.resources;
            if wanted.reserve_cpu.0 > cpu || wanted.reserve_memory.0 > memory {
                let reason = format!("node {} no longer has the resources reserved", node.display_name());
                self.tasks.insert(task.id, reason);
            } else {
                cpu -= wanted.reserve_cpu.0;
                memory -= wanted.reserve_memory.0;
            }
        }
    }

    /// Why a task must be replaced.
    pub fn reason(&self, task: TaskId) -> Option<String> {
        self.tasks.get(&task).cloned()
    }
}
