//! How far a service is on its way to its spec, from what managers tell at each change. Pure: the
//! time is handed in, and the answer says when to look again.

use std::collections::BTreeMap;
use std::time::Duration;

use rswarm_types::TimestampMs;
use rswarm_types::limits::UPDATE_MONITOR_MS;
use rswarm_types::service::{UpdateState, UpdateStatus};
use rswarm_types::spec::{RestartCondition, ServiceMode};
use rswarm_types::task::{Slot, Task};
use rswarm_types::task_state::{DesiredState, TaskState};

use crate::view::{NodeNames, Progress, ServiceView};

mod plain;
mod screen;

pub use plain::Plain;
pub use screen::Screen;

/// What there is to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// `overall progress: 2 out of 3 tasks`.
    pub overall: String,
    /// A line for each slot.
    pub bars: Vec<Bar>,
    /// `verify: …`, once all tasks run.
    pub verify: Option<String>,
}

/// One slot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bar {
    /// `1/3`, or the node of a global service's task.
    pub name: String,
    /// `running`.
    pub state: String,
    /// 0 to [`STEPS`].
    pub step: usize,
    /// Why the last task of the slot failed or cannot be placed, in full.
    pub error: String,
}

/// How many states a task goes through until it runs.
pub const STEPS: usize = 9;

/// Whether the wait is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Look again at the next change, or at this time.
    Wait(Option<TimestampMs>),
    Converged,
    /// It will not get there by itself.
    Failed(String),
}

/// The wait for one service.
#[derive(Clone, Debug, Default)]
pub struct Tracker {
    /// What the last message said.
    present: Progress,
    /// Since when all tasks have been running.
    stable_since: Option<TimestampMs>,
    /// A rollback was seen: its end is not the end that was asked for, unless one was asked for.
    was_rolled_back: bool,
}

impl Tracker {
    /// Takes a message in.
    pub fn take(&mut self, progress: Progress) {
        self.present = progress;
    }

    /// Where the service stands at `now`.
    pub fn look(&mut self, nodes: &NodeNames, now: TimestampMs) -> (Frame, Verdict) {
        let Some(view) = &self.present.service else {
            let gone = "the service was removed while it was waited for".to_owned();
            return (Frame::default(), Verdict::Failed(gone));
        };
        let slots = slots(view, &self.present.tasks);
        let total = total(view, &slots);
        let good = slots.values().filter(|slot| slot.is_good).count() as u64;
        let mut frame = Frame {
            overall: format!("overall progress: {good} out of {total} tasks"),
            bars: bars(view, &slots, total, nodes),
            verify: None,
        };
        if let Some(status) = &view.service.update {
            match status.state {
                UpdateState::RollbackStarted => {
                    self.was_rolled_back = true;
                    frame.overall = format!("overall progress: rolling back update: {good} out of {total} tasks");
                }
                UpdateState::Paused | UpdateState::RollbackPaused => {
                    self.stable_since = None;
                    return (frame, Verdict::Failed(paused(status)));
                }
                UpdateState::Updating | UpdateState::Completed | UpdateState::RollbackCompleted => {}
            }
        }
        // A finished update is still told as running until its last slot was watched.
        if good != total {
            self.stable_since = None;
            if let Some(failure) = dead_end(view, &slots, total) {
                return (frame, Verdict::Failed(failure));
            }
            return (frame, Verdict::Wait(None));
        }
        let since = *self.stable_since.get_or_insert(now);
        let monitor = match (view.service.spec.update, view.service.spec.rollback, self.was_rolled_back) {
            (_, Some(config), true) | (Some(config), _, false) => config.monitor,
            _ => Duration::from_millis(UPDATE_MONITOR_MS),
        };
        let left = monitor.saturating_sub(now.since(since));
        if left.is_zero() {
            frame.verify = Some(format!("verify: Service {} converged", view.service.id));
            return (frame, Verdict::Converged);
        }
        let seconds = left.as_millis().div_ceil(1_000);
        let unit = if seconds == 1 { "second" } else { "seconds" };
        frame.verify = Some(format!("verify: Waiting {seconds} {unit} to verify that tasks are stable..."));
        let next = Duration::from_millis(u64::try_from(left.as_millis() % 1_000).unwrap_or(0).max(1));
        (frame, Verdict::Wait(Some(now.after(next))))
    }
}

fn paused(status: &UpdateStatus) -> String {
    let what = if status.state == UpdateState::Paused { "update" } else { "rollback" };
    let message = if status.message.is_empty() { "a task failed" } else { &status.message };
    format!("service {what} paused: {message}")
}

/// What a slot shows: its newest task of the present spec, and whether it is where it should be.
struct SlotView<'a> {
    task: &'a Task,
    is_good: bool,
    /// Why the newest task of the slot that failed did so.
    error: &'a str,
}

/// The slots that have a task of the present spec.
fn slots<'a>(view: &ServiceView, tasks: &'a [Task]) -> BTreeMap<Slot, SlotView<'a>> {
    let mut slots: BTreeMap<Slot, SlotView<'a>> = BTreeMap::new();
    let mut present: Vec<&Task> = tasks.iter().filter(|t| t.spec_version == view.service.spec_version).collect();
    // Last comes what counts: wanted before unwanted, then the newest.
    present.sort_by_key(|t| (t.desired <= DesiredState::Running, t.created, t.meta.created_at, t.id));
    for task in present {
        let error = task.status.error.as_str();
        let earlier = slots.get(&task.slot).map_or("", |slot| slot.error);
        let is_running = task.status.state == TaskState::Running && task.desired <= DesiredState::Running;
        // A task that was to end and did so is where it should be.
        let is_done = task.status.state == TaskState::Complete && !restarts_after_success(task);
        let error = if is_running || is_done {
            ""
        } else if error.is_empty() {
            earlier
        } else {
            error
        };
        slots.insert(task.slot, SlotView { task, is_good: is_running || is_done, error });
    }
    if let ServiceMode::Replicated { replicas } = view.service.spec.mode {
        // Slots beyond the number wanted only stop; which ones they are is the managers' choice.
        let extra = slots.len().saturating_sub(usize::try_from(replicas).unwrap_or(usize::MAX));
        let leaving = slots.iter().filter(|(_, slot)| slot.task.desired > DesiredState::Running);
        let leaving: Vec<Slot> = leaving.map(|(slot, _)| *slot).take(extra).collect();
        leaving.iter().for_each(|slot| {
            slots.remove(slot);
        });
    } else {
        // A node that takes no tasks any more has only stopping ones.
        slots.retain(|_, slot| slot.task.desired <= DesiredState::Running || slot.is_good);
    }
    slots
}

fn restarts_after_success(task: &Task) -> bool {
    task.spec.task.restart.condition == RestartCondition::Any
}

/// How many tasks there should be.
fn total(view: &ServiceView, slots: &BTreeMap<Slot, SlotView<'_>>) -> u64 {
    match view.service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::Global => view.desired.max(slots.len() as u64),
    }
}

fn bars(view: &ServiceView, slots: &BTreeMap<Slot, SlotView<'_>>, total: u64, nodes: &NodeNames) -> Vec<Bar> {
    let bar = |name: String, slot: &SlotView<'_>| {
        let state = match (slot.is_good, slot.task.desired) {
            (false, DesiredState::Ready) if slot.task.status.state == TaskState::Ready => "ready".to_owned(),
            _ => slot.task.status.state.to_string(),
        };
        Bar { name, state, step: step(slot.task.status.state), error: slot.error.to_owned() }
    };
    match view.service.spec.mode {
        ServiceMode::Replicated { .. } => {
            slots.iter().enumerate().map(|(index, (_, slot))| bar(format!("{}/{total}", index + 1), slot)).collect()
        }
        ServiceMode::Global => slots
            .values()
            .map(|slot| {
                let name = slot.task.node.map(|id| nodes.get(&id).cloned().unwrap_or_else(|| id.short()));
                bar(name.unwrap_or_default(), slot)
            })
            .collect(),
    }
}

fn step(state: TaskState) -> usize {
    match state {
        TaskState::New => 1,
        TaskState::Pending => 2,
        TaskState::Assigned => 3,
        TaskState::Accepted => 4,
        TaskState::Preparing => 5,
        TaskState::Ready => 6,
        TaskState::Starting => 7,
        TaskState::Running | TaskState::Complete => STEPS,
        TaskState::Shutdown | TaskState::Failed | TaskState::Rejected | TaskState::Orphaned => 0,
    }
}

/// Why the service cannot get there: every slot has ended, and what failed is not to be restarted.
fn dead_end(view: &ServiceView, slots: &BTreeMap<Slot, SlotView<'_>>, total: u64) -> Option<String> {
    let restart = &view.service.spec.task.restart;
    let has_ended = (slots.len() as u64) >= total
        && restart.condition == RestartCondition::None
        && slots.values().all(|slot| slot.task.status.state.is_terminal());
    if !has_ended {
        return None;
    }
    let failed = slots.values().find(|slot| !slot.is_good)?;
    let name = failed.task.short_name();
    let why = if failed.error.is_empty() { failed.task.status.message.as_str() } else { failed.error };
    Some(format!(
        "task {name} is {}: {why}\n       it is not restarted: --restart-condition is none",
        failed.task.status.state
    ))
}

#[cfg(test)]
mod tests;
