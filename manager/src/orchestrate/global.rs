//! Global services: a slot on every node that may run the service.

use std::collections::BTreeMap;

use rswarm_types::node::Node;
use rswarm_types::service::Service;
use rswarm_types::spec::Availability;
use rswarm_types::task::Slot;
use rswarm_types::task_state::DesiredState;

use super::enforce::Placeable;
use super::health;
use super::proposal::Proposal;
use super::slots::SlotView;

/// Opens a slot per eligible node. Tasks on the others were told to stop already.
pub(super) fn cover(p: &mut Proposal<'_>, service: &Service, slots: &mut Vec<SlotView<'_>>) {
    let placeable = Placeable::of(service);
    for slot in slots.iter_mut() {
        slot.is_wanted = false;
    }
    let known: BTreeMap<Slot, usize> = slots.iter().enumerate().map(|(at, slot)| (slot.slot, at)).collect();
    for node in p.state.nodes().filter(|node| is_eligible(node) && placeable.matches(node)) {
        let slot = Slot::Node(node.id);
        // A paused node keeps its task; a node not seen yet gets one when it is.
        let can_fill = node.is_schedulable();
        match known.get(&slot) {
            Some(at) => {
                slots[*at].is_wanted = true;
                slots[*at].can_fill = can_fill;
            }
            None if can_fill => slots.push(SlotView::vacant(slot)),
            None => {}
        }
    }
    let is_gone = |slot: &Slot| matches!(slot, Slot::Node(node) if p.state.node(*node).is_none());
    for mate in slots.iter_mut().filter(|slot| is_gone(&slot.slot)).flat_map(|slot| &mut slot.mates) {
        if mate.desired < DesiredState::Remove {
            p.stop(mate, DesiredState::Remove, "the node was removed");
        }
    }
}

fn is_eligible(node: &Node) -> bool {
    !health::is_lost(node) && node.spec.availability != Availability::Drain
}
