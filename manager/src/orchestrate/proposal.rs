//! What a pass has decided so far.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rswarm_scheduler::{Decision, Outcome};
use rswarm_store::State;
use rswarm_types::command::{Change, NewTask};
use rswarm_types::service::Service;
use rswarm_types::spec::ServiceSpec;
use rswarm_types::task::Slot;
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{TaskId, TimestampMs};

use super::slots::{Mate, SlotView};

/// The version named in changes to a task that the same entry makes: no task has it, so that a
/// change that ended up in a later entry is dropped and decided on again.
const BORN_IN_THIS_ENTRY: u64 = 0;

/// A pass in progress.
pub(super) struct Proposal<'a> {
    pub state: &'a State,
    pub now: TimestampMs,
    ids: &'a mut dyn FnMut() -> u128,
    changes: Vec<Change>,
    /// The tasks that the pass makes, in order.
    pub born: Vec<(NewTask, Arc<ServiceSpec>)>,
    /// Tasks that the pass stops or removes: they are not placed, and no longer spread around.
    pub stopped: BTreeSet<TaskId>,
    /// When the service at hand must be looked at again.
    pub wake_at: Option<TimestampMs>,
}

/// Why and when a task is made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Birth {
    pub start_after: TimestampMs,
    pub replaces: Option<TaskId>,
    pub is_restart: bool,
    /// It starts while the one it replaces still runs.
    pub is_start_first: bool,
}

impl<'a> Proposal<'a> {
    pub fn new(state: &'a State, now: TimestampMs, ids: &'a mut dyn FnMut() -> u128) -> Self {
        Self { state, now, ids, changes: Vec::new(), born: Vec::new(), stopped: BTreeSet::new(), wake_at: None }
    }

    pub fn push(&mut self, change: Change) {
        self.changes.push(change);
    }

    /// Asks for another look at the service at hand; what is past was acted on.
    pub fn wake(&mut self, at: TimestampMs) {
        if at > self.now {
            self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// Moves a task's desired state forward. A task that no agent knows of is removed at once.
    pub fn stop(&mut self, mate: &mut Mate<'_>, desired: DesiredState, reason: &str) {
        if mate.is_removed {
            return;
        }
        if mate.task.status.state < TaskState::Assigned {
            self.remove(mate);
        } else if desired > mate.desired {
            self.set_desired(mate, desired, reason);
            self.stopped.insert(mate.task.id);
        }
    }

    pub fn set_desired(&mut self, mate: &mut Mate<'_>, desired: DesiredState, reason: &str) {
        let Mate { task, .. } = mate;
        self.push(Change::SetDesired { task: task.id, version: task.meta.version, desired, reason: reason.into() });
        mate.desired = desired;
    }

    /// Removes a task's record.
    pub fn remove(&mut self, mate: &mut Mate<'_>) {
        self.push(Change::RemoveTask { task: mate.task.id });
        self.stopped.insert(mate.task.id);
        mate.desired = DesiredState::Remove;
        mate.is_removed = true;
    }

    /// Makes a task in a slot: to run at once, or made ready until its time has come.
    pub fn create(&mut self, service: &Service, slot: &mut SlotView<'_>, birth: Birth) {
        let Birth { start_after, replaces, is_restart, is_start_first } = birth;
        let waits = start_after > self.now || slot.is_stopping();
        let desired = if waits && !is_start_first { DesiredState::Ready } else { DesiredState::Running };
        let node = match slot.slot {
            Slot::Node(node) => Some(node),
            Slot::Number(_) => None,
        };
        let start_after = if start_after > self.now { start_after } else { TimestampMs(0) };
        let task = NewTask {
            id: TaskId((self.ids)()),
            service: service.id,
            spec_version: service.spec_version,
            slot: slot.slot,
            node,
            desired,
            start_after,
            replaces,
            is_restart,
        };
        self.wake(start_after);
        slot.is_filled = true;
        self.push(Change::CreateTask(Box::new(task.clone())));
        self.born.push((task, Arc::clone(&service.spec)));
    }

    /// The changes in order; what concerns one new task stands together, so that one entry holds it.
    pub fn assemble(self, unallocated: Vec<TaskId>, decisions: Vec<Decision>) -> Vec<Change> {
        let mut outcomes: BTreeMap<TaskId, Outcome> = decisions.into_iter().map(|d| (d.task, d.outcome)).collect();
        let mut out = Vec::with_capacity(self.changes.len() + 2 * self.born.len() + outcomes.len());
        for change in self.changes {
            let born = match &change {
                Change::CreateTask(task) => Some(task.id),
                _ => None,
            };
            out.push(change);
            if let Some(task) = born {
                out.push(Change::AllocateTask { task });
                out.extend(outcomes.remove(&task).map(|o| placed(task, BORN_IN_THIS_ENTRY, o)));
            }
        }
        out.extend(
            unallocated.into_iter().filter(|t| !self.stopped.contains(t)).map(|task| Change::AllocateTask { task }),
        );
        for (id, outcome) in outcomes {
            let Some(task) = self.state.task(id) else { continue };
            let is_news = match &outcome {
                Outcome::Node(_) => true,
                Outcome::Unplaced { explanation } => task.status.error != **explanation,
            };
            if is_news {
                out.push(placed(id, task.meta.version, outcome));
            }
        }
        out
    }
}

fn placed(task: TaskId, version: u64, outcome: Outcome) -> Change {
    match outcome {
        Outcome::Node(node) => Change::AssignTask { task, version, node },
        Outcome::Unplaced { explanation } => Change::ExplainTask { task, version, error: explanation.to_string() },
    }
}
