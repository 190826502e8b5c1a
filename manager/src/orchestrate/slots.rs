//! The slots of a service, as they will be once the pass's changes are applied.

use std::sync::Arc;

use rswarm_store::State;
use rswarm_types::ServiceId;
use rswarm_types::task::{Slot, Task};
use rswarm_types::task_state::{DesiredState, TaskState};

use super::health;

/// A task of a slot.
#[derive(Debug)]
pub(super) struct Mate<'a> {
    pub task: &'a Arc<Task>,
    /// After the changes of this pass.
    pub desired: DesiredState,
    /// This pass removes its record.
    pub is_removed: bool,
    /// Its node is down or gone: nobody waits for it to stop.
    pub is_lost: bool,
}

/// A slot with its tasks.
#[derive(Debug)]
pub(super) struct SlotView<'a> {
    pub slot: Slot,
    /// Oldest first.
    pub mates: Vec<Mate<'a>>,
    /// The service is to have a task here.
    pub is_wanted: bool,
    /// A task may be made here now; false on a paused node.
    pub can_fill: bool,
    /// This pass makes a task here, or a later one does once the restart delay is over.
    pub is_filled: bool,
}

impl Mate<'_> {
    /// Wanted and not finished.
    pub fn is_live(&self) -> bool {
        self.desired <= DesiredState::Running && !self.task.status.state.is_terminal()
    }

    pub fn is_finished(&self) -> bool {
        self.task.status.state.is_terminal()
    }

    pub fn is_running(&self) -> bool {
        self.task.status.state == TaskState::Running
    }

    /// Told to stop, and perhaps still running.
    pub fn is_stopping(&self) -> bool {
        !self.is_live() && !self.is_finished() && !self.is_lost && self.task.status.state >= TaskState::Assigned
    }

    /// It finished though nobody told it to: the restart policy says what follows. The system always
    /// gives a reason when it stops a task.
    pub fn ended_by_itself(&self) -> bool {
        let is_own = matches!(self.task.status.state, TaskState::Complete | TaskState::Failed | TaskState::Rejected);
        is_own && (self.task.desired <= DesiredState::Running || self.task.desired_reason.is_empty())
    }
}

impl<'a> SlotView<'a> {
    /// A slot without tasks.
    pub fn vacant(slot: Slot) -> Self {
        Self { slot, mates: Vec::new(), is_wanted: true, can_fill: true, is_filled: false }
    }

    pub fn live(&self) -> impl Iterator<Item = &Mate<'a>> {
        self.mates.iter().filter(|mate| mate.is_live())
    }

    pub fn is_live(&self) -> bool {
        self.live().next().is_some()
    }

    pub fn is_stopping(&self) -> bool {
        self.mates.iter().any(Mate::is_stopping)
    }

    pub fn last(&self) -> Option<&Mate<'a>> {
        self.mates.last()
    }

    /// Not every task of it is on its way out of the records.
    pub fn is_kept(&self) -> bool {
        self.mates.iter().any(|mate| mate.desired < DesiredState::Remove)
    }
}

/// The slots of a service that have tasks, in order.
pub(super) fn of_service(state: &State, service: ServiceId) -> Vec<SlotView<'_>> {
    let mut slots: Vec<SlotView<'_>> = Vec::new();
    for task in state.tasks_of_service(service) {
        let is_lost = task.node.is_some_and(|node| state.node(node).is_none_or(|node| health::is_lost(node)));
        let mate = Mate { task, desired: task.desired, is_removed: false, is_lost };
        match slots.last_mut().filter(|slot| slot.slot == task.slot) {
            Some(slot) => slot.mates.push(mate),
            None => slots.push(SlotView { mates: vec![mate], ..SlotView::vacant(task.slot) }),
        }
    }
    for slot in &mut slots {
        slot.mates.sort_by_key(|mate| (mate.task.spec_version, mate.task.created, mate.task.id));
    }
    slots
}
