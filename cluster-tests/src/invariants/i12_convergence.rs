//! I12: once nothing fails any more, what is there is what is wanted: nothing left to decide, nothing running that
//! should not, everything running that should, and every manager with the same state.

use std::collections::{BTreeMap, BTreeSet};

use rswarm_store::State;
use rswarm_types::constraint::Constraint;
use rswarm_types::node::{Node, NodeState};
use rswarm_types::service::{Service, UpdateState};
use rswarm_types::spec::{Availability, PortConfig, PublishMode, ServiceMode, ServiceSpec};
use rswarm_types::task::{Slot, Task};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{NodeId, TaskId};

/// The invariant's name.
pub const NAME: &str = "I12";

/// What one host really has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// Containers that run.
    pub running: BTreeSet<TaskId>,
    /// Containers of any kind, and what is left of them.
    pub containers: BTreeSet<TaskId>,
    pub sandboxes: BTreeSet<TaskId>,
}

/// Everything that is looked at.
pub struct World<'a> {
    /// The leader's state.
    pub state: &'a State,
    /// What the reconcilers would still change in it, in words.
    pub left_to_decide: Vec<String>,
    pub hosts: &'a BTreeMap<NodeId, Actual>,
}

/// What is not as it should be yet; empty = converged.
pub fn unmet(world: &World<'_>) -> Vec<String> {
    let state = world.state;
    let mut unmet: Vec<String> = world.left_to_decide.iter().map(|c| format!("left to decide: {c}")).collect();
    for node in state.nodes().filter(|n| n.status.state != NodeState::Ready) {
        unmet.push(format!("node {} is {}: {}", node.display_name(), node.status.state, node.status.message));
    }
    for network in state.networks().filter(|n| n.removing) {
        unmet.push(format!("network {} is still being removed", network.spec.name));
    }
    for service in state.services() {
        unmet.extend(of_service(state, service));
    }
    for task in state.tasks() {
        unmet.extend(of_task(state, task));
    }
    for (id, actual) in world.hosts {
        unmet.extend(of_host(state, *id, actual));
    }
    unmet
}

fn of_service(state: &State, service: &Service) -> Vec<String> {
    let name = &service.spec.name;
    if service.removing {
        return vec![format!("service {name} is still being removed")];
    }
    let mut unmet = Vec::new();
    let progress = service.update.as_ref().map(|u| u.state);
    if matches!(progress, Some(UpdateState::Updating | UpdateState::RollbackStarted)) {
        unmet.push(format!("service {name} is still being updated"));
    }
    let is_paused = matches!(progress, Some(UpdateState::Paused | UpdateState::RollbackPaused));
    let held: Vec<&Task> = state.tasks_of_service(service.id).map(AsRef::as_ref).filter(|t| t.is_live()).collect();
    let slots: BTreeSet<Slot> = held.iter().map(|t| t.slot).collect();
    if slots.len() != held.len() {
        unmet.push(format!("service {name} has {} live tasks in {} slots", held.len(), slots.len()));
    }
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => {
            if slots.len() as u64 != replicas {
                unmet.push(format!("service {name} has {} of {replicas} slots filled", slots.len()));
            }
        }
        ServiceMode::Global => {
            let wanted: BTreeSet<Slot> =
                state.nodes().filter(|n| belongs(&service.spec, n)).map(|n| Slot::Node(n.id)).collect();
            // A paused node keeps what it has and gets nothing new.
            let may_stay: BTreeSet<Slot> = state
                .nodes()
                .filter(|n| n.spec.availability == Availability::Pause)
                .map(|n| Slot::Node(n.id))
                .collect();
            for missing in wanted.difference(&slots) {
                unmet.push(format!("global service {name} has no task on node {missing}"));
            }
            for surplus in slots.iter().filter(|s| !wanted.contains(s) && !may_stay.contains(s)) {
                unmet.push(format!("global service {name} has a task on node {surplus}"));
            }
        }
    }
    let old = held.iter().filter(|t| t.spec_version != service.spec_version).count();
    if old > 0 && !is_paused {
        unmet.push(format!("service {name} has {old} tasks of an older version"));
    }
    unmet
}

/// Whether a global service has a task on the node.
fn belongs(spec: &ServiceSpec, node: &Node) -> bool {
    node.is_schedulable() && constraints_hold(spec, node)
}

fn constraints_hold(spec: &ServiceSpec, node: &Node) -> bool {
    spec.task.placement.constraints.iter().all(|text| Constraint::parse(text).is_ok_and(|c| c.matches(node)))
}

fn of_task(state: &State, task: &Task) -> Option<String> {
    let name = task.name();
    let now = task.status.state;
    let why = match task.desired {
        DesiredState::Ready => Some(format!("is {now} and still waits to be wanted")),
        DesiredState::Running if now == TaskState::Running || now.is_terminal() => None,
        DesiredState::Running if now == TaskState::Pending && !task.status.error.is_empty() => {
            let taker = state.nodes().find(|n| takes(state, n, task));
            taker.map(|n| format!("is not placed ({}) and node {} would take it", task.status.error, n.display_name()))
        }
        DesiredState::Running => Some(format!("is wanted running and is {now}")),
        _ if now < TaskState::Assigned => Some(format!("is {now} and not wanted any more")),
        _ if !now.is_terminal() => Some(format!("is wanted stopped and is {now}")),
        _ if !task.status.sandbox_gone => Some(format!("is {now} and its sandbox is not known to be gone")),
        _ => None,
    };
    why.map(|why| format!("task {name} {why}"))
}

/// The filters, judged anew and without the scheduler.
fn takes(state: &State, node: &Node, task: &Task) -> bool {
    let spec = &task.spec;
    if !belongs(spec, node) || task.node.is_some_and(|wanted| wanted != node.id) {
        return false;
    }
    let here: Vec<&Task> = state
        .tasks_on_node(node.id)
        .map(AsRef::as_ref)
        .filter(|t| t.status.state >= TaskState::Assigned && !t.status.state.is_terminal())
        .collect();
    let wants = &spec.task.resources;
    let cpus: u64 = here.iter().map(|t| t.spec.task.resources.reserve_cpu.0).sum();
    let memory: u64 = here.iter().map(|t| t.spec.task.resources.reserve_memory.0).sum();
    let ports = |spec: &ServiceSpec| -> Vec<PortConfig> {
        spec.endpoint.ports.iter().filter(|p| p.mode == PublishMode::Host).copied().collect()
    };
    let wanted_ports = ports(spec);
    let is_met = |port: &PortConfig| wanted_ports.iter().any(|wanted| wanted.meets(port));
    let mates = here.iter().filter(|t| t.service == task.service && t.desired <= DesiredState::Running).count() as u64;
    let most = spec.task.placement.max_replicas_per_node;
    (wants.reserve_cpu.0 == 0 || cpus + wants.reserve_cpu.0 <= node.description.cpus.0)
        && (wants.reserve_memory.0 == 0 || memory + wants.reserve_memory.0 <= node.description.memory.0)
        && !here.iter().any(|t| ports(&t.spec).iter().any(is_met))
        && (most == 0 || mates < most)
}

fn of_host(state: &State, id: NodeId, actual: &Actual) -> Vec<String> {
    let mut unmet = Vec::new();
    let Some(node) = state.node(id) else { return vec![format!("host {id} is no node")] };
    let name = node.display_name();
    let wanted: BTreeSet<TaskId> = state
        .tasks_on_node(id)
        .filter(|t| t.status.state == TaskState::Running && t.desired == DesiredState::Running)
        .map(|t| t.id)
        .collect();
    for task in wanted.difference(&actual.running) {
        unmet.push(format!("task {task} is running says the state, and has no running container on {name}"));
    }
    for task in actual.running.difference(&wanted) {
        unmet.push(format!("a container of task {task} runs on {name} and should not"));
    }
    for task in wanted.symmetric_difference(&actual.sandboxes) {
        unmet.push(format!("the sandbox of task {task} on {name} is not as wanted"));
    }
    for task in actual.containers.iter().filter(|task| state.task(**task).is_none()) {
        unmet.push(format!("what is left of task {task} on {name} is not removed"));
    }
    unmet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::{Cluster, NODE, spec};

    const TASK: TaskId = TaskId(500);

    /// A converged world that a test then spoils; says what is unmet.
    fn check(spoil: impl FnOnce(&mut Cluster, &mut Actual, &mut Vec<String>)) -> Vec<String> {
        let mut cluster = Cluster::new();
        cluster.service(10, spec("s"));
        let mut actual = Actual { running: [TASK].into(), containers: [TASK].into(), sandboxes: [TASK].into() };
        let mut left = Vec::new();
        spoil(&mut cluster, &mut actual, &mut left);
        let hosts = BTreeMap::from([(NODE, actual)]);
        unmet(&World { state: &cluster.state, left_to_decide: left, hosts: &hosts })
    }

    fn run(task: &mut Task) {
        task.spec_version = 1;
    }

    #[test]
    fn a_world_that_is_as_wanted_has_converged() {
        assert_eq!(check(|cluster, _, _| cluster.task_as(TASK, 10, 1, run)), [""; 0]);
    }

    #[test]
    fn everything_that_is_not_as_wanted_is_caught() {
        type Spoil = fn(&mut Cluster, &mut Actual, &mut Vec<String>);
        let cases: [(&str, Spoil); 9] = [
            ("left to decide", |cluster, _, left| {
                cluster.task_as(TASK, 10, 1, run);
                left.push("something".into());
            }),
            ("0 of 1 slots", |_, actual, _| *actual = Actual::default()),
            ("no running container", |cluster, actual, _| {
                cluster.task_as(TASK, 10, 1, run);
                actual.running.clear();
            }),
            ("runs on", |cluster, actual, _| {
                cluster.task_as(TASK, 10, 1, run);
                actual.running.insert(TaskId(7));
            }),
            ("is not removed", |cluster, actual, _| {
                cluster.task_as(TASK, 10, 1, run);
                actual.containers.insert(TaskId(7));
            }),
            ("sandbox of task", |cluster, actual, _| {
                cluster.task_as(TASK, 10, 1, run);
                actual.sandboxes.clear();
            }),
            ("older version", |cluster, _, _| cluster.task_as(TASK, 10, 1, |task| task.spec_version = 0)),
            ("wanted stopped", |cluster, _, _| {
                cluster.task_as(TASK, 10, 1, |task| task.desired = DesiredState::Shutdown);
            }),
            ("would take it", |cluster, actual, _| {
                cluster.task_as(TASK, 10, 1, |task| {
                    run(task);
                    task.node = None;
                    task.status.state = TaskState::Pending;
                    task.status.error = "no suitable node".into();
                });
                *actual = Actual::default();
            }),
        ];
        for (expected, spoil) in cases {
            let unmet = check(spoil);
            assert!(unmet.iter().any(|u| u.contains(expected)), "{expected}: {unmet:?}");
        }
    }

    #[test]
    fn a_task_that_no_node_takes_may_wait() {
        let unmet = check(|cluster, actual, _| {
            let mut greedy = spec("s");
            greedy.task.resources.reserve_cpu = rswarm_types::units::NanoCpus(9_000_000_000);
            cluster.service(11, greedy);
            cluster.task_as(TASK, 10, 1, run);
            cluster.task_as(TaskId(501), 11, 1, |task| {
                run(task);
                task.node = None;
                task.status.state = TaskState::Pending;
                task.status.error = "no suitable node (insufficient resources on 1 node)".into();
            });
            actual.sandboxes = [TASK].into();
        });
        assert_eq!(unmet, [""; 0]);
    }
}
