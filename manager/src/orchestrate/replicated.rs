//! Replicated services: as many slots as replicas.

use std::collections::{BTreeMap, BTreeSet};

use rswarm_types::NodeId;
use rswarm_types::task::Slot;
use rswarm_types::task_state::DesiredState;

use super::proposal::Proposal;
use super::slots::{Mate, SlotView};

/// Opens the lowest free slots, or closes those that are worth least.
pub(super) fn scale(p: &mut Proposal<'_>, replicas: u64, slots: &mut Vec<SlotView<'_>>) {
    for slot in slots.iter_mut() {
        slot.is_wanted = slot.is_kept();
    }
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    let kept = slots.iter().filter(|slot| slot.is_wanted).count();
    if kept > replicas {
        for at in worth_least_first(slots).into_iter().take(kept - replicas) {
            slots[at].is_wanted = false;
        }
        for mate in slots.iter_mut().filter(|slot| !slot.is_wanted).flat_map(|slot| &mut slot.mates) {
            p.stop(mate, DesiredState::Remove, "the service was scaled down");
        }
    } else if kept < replicas {
        open(slots, replicas - kept);
    }
}

/// Slots that do not run first, then those on nodes with the most tasks of the service.
fn worth_least_first(slots: &[SlotView<'_>]) -> Vec<usize> {
    let mut seen: BTreeMap<Option<NodeId>, usize> = BTreeMap::new();
    let mut order: Vec<(bool, usize, usize)> = Vec::new();
    for (at, slot) in slots.iter().enumerate().filter(|(_, slot)| slot.is_wanted) {
        match slot.live().find(|mate| mate.is_running()) {
            Some(Mate { task, .. }) => {
                let rank = seen.entry(task.node).or_default();
                order.push((true, *rank, at));
                *rank += 1;
            }
            None => order.push((false, 0, at)),
        }
    }
    order.sort_by_key(|(is_running, rank, at)| (*is_running, std::cmp::Reverse(*rank), std::cmp::Reverse(*at)));
    order.into_iter().map(|(_, _, at)| at).collect()
}

fn open(slots: &mut Vec<SlotView<'_>>, missing: usize) {
    let taken: BTreeSet<Slot> = slots.iter().filter(|slot| slot.is_wanted).map(|slot| slot.slot).collect();
    let mut closing: BTreeMap<Slot, usize> = BTreeMap::new();
    closing.extend(slots.iter().enumerate().filter(|(_, slot)| !slot.is_wanted).map(|(at, slot)| (slot.slot, at)));
    let free = (1..).map(Slot::Number).filter(|slot| !taken.contains(slot)).take(missing);
    for slot in free {
        match closing.get(&slot) {
            // Its old task still stops: the new one waits for that.
            Some(at) => slots[*at].is_wanted = true,
            None => slots.push(SlotView::vacant(slot)),
        }
    }
}
