//! Records that may go: old tasks, removed services, removed networks.

use rswarm_types::command::Change;
use rswarm_types::limits::TASK_HISTORY_LIMIT;
use rswarm_types::service::Service;
use rswarm_types::task_state::DesiredState;

use super::proposal::Proposal;
use super::slots::{Mate, SlotView};

/// Stops every task; once the last is gone, the service is forgotten.
pub(super) fn remove_service(p: &mut Proposal<'_>, service: &Service, slots: &mut [SlotView<'_>]) {
    for mate in slots.iter_mut().flat_map(|slot| &mut slot.mates) {
        p.stop(mate, DesiredState::Remove, "the service was removed");
        reap_unwanted(p, mate);
    }
    if slots.iter().flat_map(|slot| &slot.mates).all(|mate| mate.is_removed) {
        p.push(Change::ForgetService { service: service.id });
    }
}

/// Removes what nobody wants to see any more: finished tasks beyond the limit of their slot.
pub(super) fn reap_history(p: &mut Proposal<'_>, service: &Service, slots: &mut [SlotView<'_>]) {
    let limit = history_limit(p, service);
    for slot in slots {
        slot.mates.iter_mut().for_each(|mate| reap_unwanted(p, mate));
        let Some(limit) = limit else { continue };
        // The restart policy judges the last task of a slot: it stays until the slot has another.
        let judged = if slot.is_live() { None } else { slot.last().map(|mate| mate.task.id) };
        let mut finished: Vec<&mut Mate<'_>> =
            slot.mates.iter_mut().filter(|mate| mate.is_finished() && !mate.is_removed).collect();
        let surplus = finished.len().saturating_sub(limit);
        for mate in finished.iter_mut().take(surplus) {
            if is_free(mate) && Some(mate.task.id) != judged {
                p.remove(mate);
            }
        }
    }
}

/// Finished tasks kept per slot; `None` = all.
fn history_limit(p: &Proposal<'_>, service: &Service) -> Option<usize> {
    let attempts = service.spec.task.restart.max_attempts;
    if attempts > 0 {
        return Some(usize::try_from(attempts).unwrap_or(usize::MAX).saturating_add(1));
    }
    let limit = p.state.cluster().map_or(TASK_HISTORY_LIMIT, |cluster| cluster.spec.task_history_limit);
    usize::try_from(limit).ok()
}

/// Desired Remove, and nothing is left of it.
fn reap_unwanted(p: &mut Proposal<'_>, mate: &mut Mate<'_>) {
    if mate.desired == DesiredState::Remove && !mate.is_removed && mate.is_finished() && is_free(mate) {
        p.remove(mate);
    }
}

/// Its node holds nothing of it, or it never held an address.
fn is_free(mate: &Mate<'_>) -> bool {
    let task = mate.task;
    task.status.sandbox_gone || (task.attachments.is_empty() && task.ingress.is_empty())
}

/// Networks that are being removed and whose last address is free.
pub(super) fn forget_networks(p: &mut Proposal<'_>) {
    for network in p.state.networks().filter(|network| network.removing) {
        if p.state.addresses(network.id).all(|(_, holder)| holder.is_network()) {
            p.push(Change::ForgetNetwork { network: network.id });
        }
    }
}
