//! Tasks that wait for addresses.

use std::collections::BTreeSet;

use rswarm_store::State;
use rswarm_types::TaskId;
use rswarm_types::command::{Body, Caller, Change, Command};
use rswarm_types::{RequestId, TimestampMs};

/// Those of the waiting tasks for which asking again changes something.
///
/// A task that was refused says so; whether it still would be is tried on a copy of the state.
pub(super) fn waiting(state: &State, unallocated: &BTreeSet<TaskId>) -> Vec<TaskId> {
    let was_refused = |id: &TaskId| state.task(*id).is_some_and(|task| !task.status.error.is_empty());
    let (refused, mut waiting): (Vec<TaskId>, Vec<TaskId>) = unallocated.iter().copied().partition(was_refused);
    if !refused.is_empty() {
        let asked = refused.iter().map(|task| Change::AllocateTask { task: *task }).collect();
        let command = Command {
            at: state.now(),
            wall: TimestampMs(0),
            request: RequestId(0),
            caller: Caller::default(),
            needs_level: 0,
            body: Body::Reconcile(asked),
        };
        let changed = state.clone().apply(state.index() + 1, &command, [0; 32]).changed.tasks;
        waiting.extend(refused.into_iter().filter(|task| changed.contains(task)));
    }
    waiting
}
