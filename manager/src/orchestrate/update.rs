//! Rolling updates: which slots are replaced now, and what the service says of it.
//!
//! Where an update stands is read from its tasks; only its outcome is written down.

use std::sync::Arc;
use std::time::Duration;

use rswarm_types::TimestampMs;
use rswarm_types::command::Change;
use rswarm_types::service::{Service, UpdateState, UpdateStatus};
use rswarm_types::spec::{UpdateConfig, UpdateOrder};
use rswarm_types::task::Task;
use rswarm_types::task_state::DesiredState;

use super::proposal::{Birth, Proposal};
use super::service::UPDATED;
use super::slots::{Mate, SlotView};

/// Takes the update of a service further.
pub(super) fn roll(p: &mut Proposal<'_>, service: &Service, slots: &mut [SlotView<'_>]) {
    let status = service.update.as_ref();
    let state = status.map_or(UpdateState::Completed, |status| status.state);
    if matches!(state, UpdateState::Paused | UpdateState::RollbackPaused) {
        return;
    }
    let is_rollback = matches!(state, UpdateState::RollbackStarted | UpdateState::RollbackCompleted);
    let config = if is_rollback { service.spec.rollback } else { service.spec.update }.unwrap_or_default();
    let in_progress = status.filter(|s| matches!(s.state, UpdateState::Updating | UpdateState::RollbackStarted));
    if let Some(status) = in_progress
        && let Some(failed) = first_failure(service, status, &config, slots)
    {
        pause(p, service, status, failed, is_rollback);
        return;
    }
    let is_outdated = replace_outdated(p, service, &config, slots);
    if let Some(status) = in_progress.filter(|_| !is_outdated) {
        complete(p, service, status, &config, slots, is_rollback);
    }
}

/// The first task of the new version that ended by itself while it was watched.
fn first_failure<'a>(
    service: &Service,
    status: &UpdateStatus,
    config: &UpdateConfig,
    slots: &[SlotView<'a>],
) -> Option<&'a Arc<Task>> {
    let is_failure = |mate: &&Mate<'a>| {
        let Task { spec_version, status: end, running_since, .. } = &**mate.task;
        *spec_version == service.spec_version
            && mate.ended_by_itself()
            && end.applied > status.started
            && (*running_since == TimestampMs(0) || end.applied.since(*running_since) <= config.monitor)
    };
    let failures = slots.iter().flat_map(|slot| &slot.mates).filter(is_failure);
    failures.map(|mate| mate.task).min_by_key(|task| (task.status.applied, task.id))
}

fn pause(p: &mut Proposal<'_>, service: &Service, status: &UpdateStatus, failed: &Task, is_rollback: bool) {
    let (state, word) =
        if is_rollback { (UpdateState::RollbackPaused, "rollback") } else { (UpdateState::Paused, "update") };
    let message = format!("{word} paused due to failure or early termination of task {}", failed.id);
    set_status(p, service, UpdateStatus { state, message, ..status.clone() });
}

/// Replaces as many outdated slots as the update allows now; whether any is left or on its way.
fn replace_outdated(
    p: &mut Proposal<'_>,
    service: &Service,
    config: &UpdateConfig,
    slots: &mut [SlotView<'_>],
) -> bool {
    let is_candidate = |slot: &SlotView<'_>| slot.is_wanted && slot.can_fill && is_outdated(service, slot);
    let mut candidates: Vec<usize> = (0..slots.len()).filter(|at| is_candidate(&slots[*at])).collect();
    if candidates.is_empty() {
        return false;
    }
    // What does not run anyway is replaced first.
    candidates.sort_by_key(|at| (slots[*at].live().any(Mate::is_running), *at));
    let parallelism = match usize::try_from(config.parallelism) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(parallelism) => parallelism,
    };
    let busy = slots.iter().filter(|slot| slot.is_wanted && is_busy(p, service, config.delay, slot)).count();
    for at in candidates.into_iter().take(parallelism.saturating_sub(busy)) {
        replace(p, service, config.order, &mut slots[at]);
    }
    true
}

/// No task of the current version is, or is coming, in the slot.
fn is_outdated(service: &Service, slot: &SlotView<'_>) -> bool {
    let is_current = |mate: &Mate<'_>| mate.task.spec_version == service.spec_version;
    if slot.is_filled || slot.live().any(is_current) {
        return false;
    }
    slot.is_live() || slot.last().is_some_and(|last| !is_current(last))
}

/// A new task is on its way to RUNNING here, or got there less than the update's delay ago.
fn is_busy(p: &mut Proposal<'_>, service: &Service, delay: Duration, slot: &SlotView<'_>) -> bool {
    let current = |mate: &&Mate<'_>| mate.task.spec_version == service.spec_version;
    let Some(mate) = slot.live().find(current) else { return slot.is_filled };
    let free_at = mate.task.running_since.after(delay);
    if mate.is_running() {
        p.wake(free_at);
    }
    !mate.is_running() || free_at > p.now
}

fn replace(p: &mut Proposal<'_>, service: &Service, order: UpdateOrder, slot: &mut SlotView<'_>) {
    let running = slot.mates.iter().position(|mate| mate.is_live() && mate.is_running());
    let kept = running.filter(|_| order == UpdateOrder::StartFirst);
    let replaces = kept.map_or_else(|| slot.last().map(|mate| mate.task.id), |at| Some(slot.mates[at].task.id));
    for (at, mate) in slot.mates.iter_mut().enumerate() {
        if mate.is_live() && Some(at) != kept {
            p.stop(mate, DesiredState::Shutdown, UPDATED);
        }
    }
    p.create(service, slot, Birth { replaces, is_start_first: kept.is_some(), ..Birth::default() });
}

/// Every slot has had a running task of the new version, and the last one was watched long enough.
fn complete(
    p: &mut Proposal<'_>,
    service: &Service,
    status: &UpdateStatus,
    config: &UpdateConfig,
    slots: &[SlotView<'_>],
    is_rollback: bool,
) {
    let mut last = TimestampMs(0);
    for slot in slots.iter().filter(|slot| slot.is_wanted && slot.can_fill) {
        let Some(at) = updated_at(service, slot) else { return };
        last = last.max(at);
    }
    let due = if last == TimestampMs(0) { last } else { last.after(config.monitor) };
    if due > p.now {
        p.wake(due);
        return;
    }
    let (state, message) = if is_rollback {
        (UpdateState::RollbackCompleted, "rollback completed")
    } else {
        (UpdateState::Completed, "update completed")
    };
    let completed_at = wall(status, slots, p.now);
    set_status(
        p,
        service,
        UpdateStatus { state, message: message.into(), last_slot: last, completed_at, ..status.clone() },
    );
}

/// When the slot first had a task of the new version that ran, or one that ended for good.
fn updated_at(service: &Service, slot: &SlotView<'_>) -> Option<TimestampMs> {
    let current = || slot.mates.iter().filter(|mate| mate.task.spec_version == service.spec_version);
    let ran = current().map(|mate| mate.task.running_since).filter(|at| *at > TimestampMs(0)).min();
    let is_over = !slot.is_filled && !slot.is_live();
    ran.or_else(|| current().next_back().filter(|_| is_over).map(|mate| mate.task.status.applied))
}

/// Wall time of `now`, for people: cluster time as the youngest task's birth ties it to wall time.
fn wall(status: &UpdateStatus, slots: &[SlotView<'_>], now: TimestampMs) -> TimestampMs {
    let youngest = slots.iter().flat_map(|slot| &slot.mates).map(|mate| mate.task).max_by_key(|task| task.created);
    let (wall, at) = youngest.map_or((status.started_at, status.started), |t| (t.meta.created_at, t.created));
    wall.after(now.since(at))
}

fn set_status(p: &mut Proposal<'_>, service: &Service, status: UpdateStatus) {
    p.push(Change::SetUpdateStatus { service: service.id, version: service.meta.version, status });
}
