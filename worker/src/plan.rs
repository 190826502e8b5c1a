//! What to do next, as a function of the orders and of what is here. Pure: no clock, no effects.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rswarm_overlay::desired::{Isolation, isolation};
use rswarm_types::TaskId;
use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::limits::{DRAIN_WAIT_MS, STOP_GRACE_MS};
use rswarm_types::session::Settled;
use rswarm_types::spec::PortConfig;
use rswarm_types::task::TaskStatus;
use rswarm_types::task_state::{DesiredState, TaskState};

use crate::limits::{KILL_AGAIN_MS, NETWORK_PATIENCE_MS, REMOVE_AGAIN_MS, STRAY_GRACE};

/// A container as the host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Container {
    Running {
        pid: u32,
        /// Wall time, milliseconds since 1970.
        started_at_ms: u64,
    },
    Exited {
        code: i32,
        /// Killed for lack of memory.
        oom: bool,
        /// Wall time, milliseconds since 1970.
        at_ms: u64,
    },
    /// Gone without an exit code, and why.
    Lost(String),
}

impl Container {
    pub fn is_running(&self) -> bool {
        matches!(self, Self::Running { .. })
    }
}

/// A task's network namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxState {
    #[default]
    Absent,
    /// Asked for, or asked to go; not known yet.
    Unsettled,
    Present,
}

/// Why a sandbox is not as ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxProblem {
    pub text: String,
    /// It will not heal by itself.
    pub is_final: bool,
    pub since_ms: u64,
}

/// What a health check says of a running container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wellness {
    /// Not known yet whether there is a check.
    #[default]
    Unknown,
    Unchecked,
    Starting,
    Healthy,
    /// With the last check's words.
    Unhealthy(String),
}

/// Work on a task that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    Prepare,
    Start,
    /// A signal, or a removal.
    Other,
}

/// One task on this node, as far as this node knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// The newest status that was said, or that managers know.
    pub status: TaskStatus,
    /// Its image and volumes are here.
    pub prepared: bool,
    pub work: Option<Work>,
    pub container: Option<Container>,
    pub sandbox: SandboxState,
    pub problem: Option<SandboxProblem>,
    pub wellness: Wellness,
    /// Host-mode ports with their numbers.
    pub host_ports: Vec<PortConfig>,
    /// When the order to stop was heard; local times are milliseconds since the agent began.
    pub stop_heard_ms: Option<u64>,
    pub stop_sent_ms: Option<u64>,
    pub killed_ms: Option<u64>,
    pub remove_failed_ms: Option<u64>,
}

impl Local {
    fn is_running(&self) -> bool {
        self.container.as_ref().is_some_and(Container::is_running)
    }
}

/// How far the orders can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Orders {
    /// From the ledger: what runs keeps running, nothing is started or stopped.
    Remembered,
    /// A manager gave them to this daemon.
    Fresh,
}

/// What surrounds the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment<'a> {
    pub orders: Orders,
    /// Milliseconds since the agent began.
    pub now_ms: u64,
    /// How far endpoint tables are in the kernels that matter.
    pub settled: &'a Settled,
}

/// One thing to do; each may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Say that the task is in this state.
    Report(TaskId, Box<TaskStatus>),
    /// Bring image and volumes.
    Prepare(TaskId),
    /// Give up a preparation.
    Abort(TaskId),
    Start(TaskId),
    /// Send the stop signal.
    Stop(TaskId),
    Kill(TaskId),
    /// Remove what is left of a container, logs included, and forget the task.
    Remove(TaskId),
}

/// What follows from the orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In order of task.
    pub steps: Vec<Step>,
    /// Tasks that must have a sandbox.
    pub sandboxes: BTreeSet<TaskId>,
    /// When to plan again at the latest.
    pub wake_ms: Option<u64>,
}

impl Plan {
    fn wake_at(&mut self, at_ms: u64) {
        self.wake_ms = Some(self.wake_ms.map_or(at_ms, |w| w.min(at_ms)));
    }
}

/// What to do next on this node.
pub fn plan(assignments: &Assignments, tasks: &BTreeMap<TaskId, Local>, moment: Moment<'_>) -> Plan {
    let mut plan = Plan::default();
    let assigned: BTreeMap<TaskId, &AssignedTask> = assignments.tasks.iter().map(|t| (t.id, t)).collect();
    for (id, local) in tasks {
        match assigned.get(id) {
            Some(task) => {
                let has_sandbox = isolation(task, &assignments.networks) != Isolation::Host;
                if has_sandbox && needs_sandbox(task, local, moment) {
                    plan.sandboxes.insert(*id);
                }
                assigned_task(task, local, has_sandbox, moment, &mut plan);
            }
            None => stray(*id, local, moment, &mut plan),
        }
    }
    plan
}

/// A running container keeps its namespace; one that is to start gets it.
fn needs_sandbox(task: &AssignedTask, local: &Local, moment: Moment<'_>) -> bool {
    let is_starting = moment.orders == Orders::Fresh
        && local.prepared
        && local.container.is_none()
        && task.desired == DesiredState::Running
        && !local.status.state.is_terminal();
    local.is_running() || local.work == Some(Work::Start) || is_starting
}

fn assigned_task(task: &AssignedTask, local: &Local, has_sandbox: bool, moment: Moment<'_>, plan: &mut Plan) {
    let state = local.status.state;
    let wants_stop = task.desired >= DesiredState::Shutdown;
    if let Some(work) = local.work {
        if work == Work::Prepare && wants_stop && moment.orders == Orders::Fresh {
            plan.steps.push(Step::Abort(task.id));
        }
        return;
    }
    if state.is_terminal() {
        if local.is_running() {
            kill(task.id, local, moment, plan);
        } else if local.sandbox == SandboxState::Absent && !local.status.sandbox_gone {
            let status = TaskStatus { sandbox_gone: true, ..local.status.clone() };
            plan.steps.push(Step::Report(task.id, Box::new(status)));
        }
        return;
    }
    match &local.container {
        Some(Container::Exited { code, oom, .. }) => {
            let status = ended(task, local, *code, *oom);
            plan.steps.push(Step::Report(task.id, Box::new(status)));
        }
        Some(Container::Lost(why)) => {
            let status = if wants_stop { shut_down(local) } else { failed(local, format!("container lost: {why}")) };
            plan.steps.push(Step::Report(task.id, Box::new(status)));
        }
        Some(Container::Running { pid, .. }) => running(task, local, *pid, moment, plan),
        None if state >= TaskState::Running => {
            let status = if wants_stop {
                shut_down(local)
            } else {
                failed(local, "container lost: it is not on this node any more".into())
            };
            plan.steps.push(Step::Report(task.id, Box::new(status)));
        }
        None => not_started(task, local, has_sandbox, moment, plan),
    }
}

fn not_started(task: &AssignedTask, local: &Local, has_sandbox: bool, moment: Moment<'_>, plan: &mut Plan) {
    if moment.orders == Orders::Remembered {
        // Registry credentials are not remembered, and the task may run elsewhere by now.
        return;
    }
    let state = local.status.state;
    if task.desired >= DesiredState::Shutdown {
        plan.steps.push(Step::Report(task.id, Box::new(shut_down(local))));
        return;
    }
    if !local.prepared {
        advance(task.id, local, TaskState::Preparing, "preparing", plan);
        plan.steps.push(Step::Prepare(task.id));
        return;
    }
    if state < TaskState::Ready {
        advance(task.id, local, TaskState::Ready, "prepared", plan);
        return;
    }
    if task.desired == DesiredState::Ready {
        return;
    }
    match &local.problem {
        Some(problem) if has_sandbox => {
            let give_up = problem.since_ms.saturating_add(NETWORK_PATIENCE_MS);
            if problem.is_final || moment.now_ms >= give_up {
                plan.steps.push(Step::Report(task.id, Box::new(failed(local, problem.text.clone()))));
            } else {
                plan.wake_at(give_up);
            }
        }
        _ if !has_sandbox || local.sandbox == SandboxState::Present => {
            advance(task.id, local, TaskState::Starting, "starting", plan);
            plan.steps.push(Step::Start(task.id));
        }
        // The sandbox is being made: its result plans again.
        _ => {}
    }
}

fn running(task: &AssignedTask, local: &Local, pid: u32, moment: Moment<'_>, plan: &mut Plan) {
    if let Wellness::Unhealthy(_) = local.wellness {
        stop(task.id, local, grace(task), moment, plan);
        return;
    }
    if task.desired >= DesiredState::Shutdown && moment.orders == Orders::Fresh {
        let waited = local.stop_heard_ms.unwrap_or(moment.now_ms).saturating_add(DRAIN_WAIT_MS);
        let is_drained = task.stop_at == 0 || moment.settled.of(task) >= task.stop_at || moment.now_ms >= waited;
        if is_drained || local.stop_sent_ms.is_some() {
            stop(task.id, local, grace(task), moment, plan);
        } else {
            plan.wake_at(waited);
        }
        return;
    }
    let is_well = matches!(local.wellness, Wellness::Unchecked | Wellness::Healthy);
    let status = &local.status;
    if status.state < TaskState::Running && is_well
        || status.state == TaskState::Running && (status.pid != pid || status.host_ports != local.host_ports)
    {
        let status = TaskStatus {
            state: TaskState::Running,
            message: "started".into(),
            error: String::new(),
            pid,
            host_ports: local.host_ports.clone(),
            ..status.clone()
        };
        plan.steps.push(Step::Report(task.id, Box::new(status)));
    } else if status.state < TaskState::Starting {
        // A container that an earlier daemon started and could not report.
        advance(task.id, local, TaskState::Starting, "starting", plan);
    }
}

/// The stop signal, then after the grace SIGKILL.
fn stop(id: TaskId, local: &Local, grace: Duration, moment: Moment<'_>, plan: &mut Plan) {
    let Some(sent) = local.stop_sent_ms else {
        plan.steps.push(Step::Stop(id));
        return;
    };
    let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let kill_at = sent.saturating_add(grace_ms);
    if moment.now_ms >= kill_at { kill(id, local, moment, plan) } else { plan.wake_at(kill_at) }
}

fn kill(id: TaskId, local: &Local, moment: Moment<'_>, plan: &mut Plan) {
    let again = local.killed_ms.map_or(0, |at| at.saturating_add(KILL_AGAIN_MS));
    if moment.now_ms >= again {
        plan.steps.push(Step::Kill(id));
        plan.wake_at(moment.now_ms.saturating_add(KILL_AGAIN_MS));
    } else {
        plan.wake_at(again);
    }
}

/// A container without an assigned task: its record is gone, or it never was this cluster's.
fn stray(id: TaskId, local: &Local, moment: Moment<'_>, plan: &mut Plan) {
    if local.is_running() {
        plan.sandboxes.insert(id);
    }
    if moment.orders == Orders::Remembered {
        return;
    }
    match local.work {
        Some(Work::Prepare) => plan.steps.push(Step::Abort(id)),
        Some(_) => {}
        None if local.is_running() => stop(id, local, STRAY_GRACE, moment, plan),
        None => {
            let again = local.remove_failed_ms.map_or(0, |at| at.saturating_add(REMOVE_AGAIN_MS));
            if moment.now_ms >= again { plan.steps.push(Step::Remove(id)) } else { plan.wake_at(again) }
        }
    }
}

/// Time between the stop signal and SIGKILL.
pub fn grace(task: &AssignedTask) -> Duration {
    task.spec.task.container.stop_grace.unwrap_or(Duration::from_millis(STOP_GRACE_MS))
}

fn advance(id: TaskId, local: &Local, state: TaskState, message: &str, plan: &mut Plan) {
    if local.status.state < state {
        let status = TaskStatus { state, message: message.into(), ..local.status.clone() };
        plan.steps.push(Step::Report(id, Box::new(status)));
    }
}

/// The final status of a container that ended.
fn ended(task: &AssignedTask, local: &Local, code: i32, oom: bool) -> TaskStatus {
    let status = match (&local.wellness, code) {
        _ if task.desired >= DesiredState::Shutdown => shut_down(local),
        (Wellness::Unhealthy(words), _) => failed(local, format!("unhealthy container: {words}")),
        (_, 0) => TaskStatus {
            state: TaskState::Complete,
            message: "finished".into(),
            error: String::new(),
            ..final_status(local)
        },
        _ if oom => failed(local, format!("task: non-zero exit ({code}): container was killed: out of memory")),
        _ => failed(local, format!("task: non-zero exit ({code})")),
    };
    TaskStatus { exit_code: Some(code), ..status }
}

fn shut_down(local: &Local) -> TaskStatus {
    TaskStatus { state: TaskState::Shutdown, message: "shutdown".into(), error: String::new(), ..final_status(local) }
}

fn failed(local: &Local, error: String) -> TaskStatus {
    TaskStatus { state: TaskState::Failed, error, ..final_status(local) }
}

fn final_status(local: &Local) -> TaskStatus {
    let sandbox_gone = local.sandbox == SandboxState::Absent;
    TaskStatus { pid: 0, host_ports: Vec::new(), sandbox_gone, ..local.status.clone() }
}

#[cfg(test)]
mod tests;
