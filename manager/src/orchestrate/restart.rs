//! Whether and when a slot's finished task is followed by another.

use rswarm_store::State;
use rswarm_types::TimestampMs;
use rswarm_types::service::Service;
use rswarm_types::spec::{RestartCondition, RestartPolicy};
use rswarm_types::task::{Slot, Task};
use rswarm_types::task_state::{DesiredState, TaskState};

use super::slots::{Mate, SlotView};

/// What the restart policy says of a slot without a live task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Never,
    /// Not before then.
    Wait(TimestampMs),
    Replace {
        start_after: TimestampMs,
        is_restart: bool,
    },
}

/// Judges the last task of a slot.
///
/// Only what ended by itself waits for the delay and counts as an attempt. What the system stopped,
/// or lost with its node, is replaced at once, except where no restart was asked for at all.
///
/// What ran is followed at once by a task that is made ready during the delay. What never came to run is followed after
/// the delay only: to make the next one ready is to try again.
pub(super) fn verdict(
    state: &State,
    service: &Service,
    slot: &SlotView<'_>,
    last: &Mate<'_>,
    now: TimestampMs,
) -> Verdict {
    let policy = &service.spec.task.restart;
    let task = last.task;
    let at_once = Verdict::Replace { start_after: task.start_after, is_restart: false };
    if last.desired == DesiredState::Remove {
        // The slot was closed and is opened again: nothing of it counts.
        return at_once;
    }
    if !last.ended_by_itself() {
        let never_ran = task.status.state < TaskState::Assigned;
        let is_global = matches!(slot.slot, Slot::Node(_));
        let is_asked_for = policy.condition != RestartCondition::None || is_global || never_ran;
        return if is_asked_for { at_once } else { Verdict::Never };
    }
    let is_due = match policy.condition {
        RestartCondition::Any => true,
        RestartCondition::OnFailure => task.status.state != TaskState::Complete,
        RestartCondition::None => false,
    };
    if !is_due || !has_attempts_left(state, service, slot.slot, task) {
        return Verdict::Never;
    }
    let ended = task.status.applied;
    // One that ended within the delay of its own predecessor has not used that up.
    let start_after = ended.max(task.start_after).after(policy.delay);
    let never_ran = task.status.state == TaskState::Rejected || ended < task.start_after;
    if never_ran && task.spec_version == service.spec_version && now < start_after {
        return Verdict::Wait(start_after);
    }
    Verdict::Replace { start_after, is_restart: true }
}

/// Judged at the time of the end: an attempt that leaves the window later brings nothing back.
fn has_attempts_left(state: &State, service: &Service, slot: Slot, task: &Task) -> bool {
    let RestartPolicy { max_attempts, window, .. } = service.spec.task.restart;
    let history = state.restarts(service.id, slot).filter(|h| h.spec_version == service.spec_version);
    let Some(history) = history.filter(|_| max_attempts > 0) else { return true };
    let attempts = if window.is_zero() {
        history.attempts
    } else {
        history.times.iter().filter(|at| task.status.applied.since(**at) <= window).count() as u64
    };
    attempts < max_attempts
}
