//! One service: what must stop, which slots there are, and the task that each slot lacks.

use std::sync::Arc;

use rswarm_types::TimestampMs;
use rswarm_types::limits::OLD_TASK_WAIT_MS;
use rswarm_types::service::Service;
use rswarm_types::spec::ServiceMode;
use rswarm_types::task_state::DesiredState;

use super::enforce::{Overload, Placeable};
use super::proposal::{Birth, Proposal};
use super::restart::{self, Verdict};
use super::slots::{self, SlotView};
use super::{drain, global, health, reap, replicated, update};

/// Why the old tasks of an updated slot stop.
pub(super) const UPDATED: &str = "replaced by an update of the service";

pub(super) fn reconcile(p: &mut Proposal<'_>, service: &Arc<Service>, overload: &Overload) {
    let mut slots = slots::of_service(p.state, service.id);
    if service.removing {
        reap::remove_service(p, service, &mut slots);
        return;
    }
    stop_misplaced(p, service, overload, &mut slots);
    match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicated::scale(p, replicas, &mut slots),
        ServiceMode::Global => global::cover(p, service, &mut slots),
    }
    for slot in slots.iter_mut().filter(|slot| slot.is_wanted) {
        settle(p, slot);
        fill(p, service, slot);
        acknowledge_ends(p, slot);
        promote(p, slot);
    }
    update::roll(p, service, &mut slots);
    reap::reap_history(p, service, &mut slots);
}

/// Stops live tasks that may not be where they are.
fn stop_misplaced(p: &mut Proposal<'_>, service: &Service, overload: &Overload, slots: &mut [SlotView<'_>]) {
    let placeable = Placeable::of(service);
    for mate in slots.iter_mut().flat_map(|slot| &mut slot.mates).filter(|mate| mate.is_live()) {
        let node = mate.task.node.map(|id| (id, p.state.node(id)));
        let reason = match node {
            Some((id, None)) => Some(format!("node {} was removed", id.short())),
            Some((_, Some(node))) => health::reason(node)
                .or_else(|| drain::reason(node))
                .or_else(|| placeable.reason(node))
                .or_else(|| overload.reason(mate.task.id)),
            None => None,
        };
        if let Some(reason) = reason.or_else(|| placeable.outdated(mate.task)) {
            p.stop(mate, DesiredState::Shutdown, &reason);
        }
    }
}

/// One live task per slot, or two while the new one starts first.
fn settle(p: &mut Proposal<'_>, slot: &mut SlotView<'_>) {
    let live: Vec<usize> = (0..slot.mates.len()).filter(|at| slot.mates[*at].is_live()).collect();
    let Some((newest, older)) = live.split_last().filter(|(_, older)| !older.is_empty()) else { return };
    let replacement = &slot.mates[*newest];
    // A replacement that is only made ready waits for the old task to stop; one that runs has its place.
    let is_start_first = replacement.desired == DesiredState::Running && !replacement.is_running();
    let kept = is_start_first.then(|| older.iter().find(|at| slot.mates[**at].is_running()).unwrap_or(&older[0]));
    let stopped: Vec<usize> = older.iter().filter(|at| Some(*at) != kept).copied().collect();
    for at in stopped {
        p.stop(&mut slot.mates[at], DesiredState::Shutdown, UPDATED);
    }
}

/// Gives a slot without a live task a new one, if the restart policy has nothing against it.
fn fill(p: &mut Proposal<'_>, service: &Service, slot: &mut SlotView<'_>) {
    if slot.is_live() || !slot.can_fill {
        return;
    }
    let Some(last) = slot.last() else {
        p.create(service, slot, Birth::default());
        return;
    };
    let replaces = Some(last.task.id);
    match restart::verdict(p.state, service, slot, last, p.now) {
        Verdict::Never => {}
        Verdict::Wait(until) => {
            slot.is_filled = true;
            p.wake(until);
        }
        Verdict::Replace { start_after, is_restart } => {
            p.create(service, slot, Birth { start_after, replaces, is_restart, is_start_first: false });
        }
    }
}

/// A task that ended by itself is no longer wanted, whether it was replaced or not.
///
/// After its replacement in the plan: what the restart policy has to judge stays to be seen.
fn acknowledge_ends(p: &mut Proposal<'_>, slot: &mut SlotView<'_>) {
    for mate in slot.mates.iter_mut().filter(|mate| mate.is_finished() && mate.desired <= DesiredState::Running) {
        p.set_desired(mate, DesiredState::Shutdown, "");
    }
}

/// A task that was made ready runs once its delay is over and its predecessors have stopped.
fn promote(p: &mut Proposal<'_>, slot: &mut SlotView<'_>) {
    let is_stopping = slot.is_stopping();
    let Some(mate) = slot.mates.iter_mut().find(|m| m.is_live() && m.desired == DesiredState::Ready) else { return };
    let waited = TimestampMs(mate.task.created.0.saturating_add(OLD_TASK_WAIT_MS));
    let due = if is_stopping { mate.task.start_after.max(waited) } else { mate.task.start_after };
    if due <= p.now {
        p.set_desired(mate, DesiredState::Running, "");
    } else {
        p.wake(due);
    }
}
