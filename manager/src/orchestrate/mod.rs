//! The pure reconcilers: what is, what is wanted, and the changes between them.
//!
//! One pass looks at the services that something touched: tasks that must stop are told so, slots
//! are opened and closed, each slot gets the task it lacks, updates roll on, history is reaped; then
//! what was born or waits is given addresses and a node. A task is made, allocated and placed by one
//! entry of the log where the batch allows it.
//!
//! Each decision stands by itself: whatever part of a plan is applied, the next pass goes on from
//! there, and on a state that is as wanted it decides nothing. All that must survive a leader is in
//! the state; [`Memory`] may be dropped at any time.

mod memory;
pub use memory::Memory;

mod proposal;
mod service;
mod slots;

mod drain;
mod enforce;
mod health;

mod global;
mod replicated;

mod restart;
mod update;

mod reap;

mod allocate;
mod place;

#[cfg(test)]
pub(crate) mod harness;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod update_tests;

use rswarm_store::{Changed, State};
use rswarm_types::command::Change;
use rswarm_types::units::TimestampMs;

use proposal::Proposal;

/// Where to look.
pub enum Scope<'a> {
    /// At what was touched. `cluster` = at everything.
    Dirty(&'a Changed),
}

/// What a pass decided.
#[derive(Debug)]
pub struct Plan {
    /// To be committed in this order, in batches of any size.
    pub changes: Vec<Change>,
    /// What to look at again once the changes are applied, beyond what they touch.
    pub again: Changed,
    /// Cluster time of the next pass if nothing is touched before; its scope may be empty.
    pub wake_at: Option<TimestampMs>,
}

/// One pass over what was touched. `now` is cluster time, `ids` draws fresh random ids.
pub fn reconcile(
    state: &State,
    scope: &Scope<'_>,
    now: TimestampMs,
    ids: &mut dyn FnMut() -> u128,
    memory: &mut Memory,
) -> Plan {
    let Scope::Dirty(changed) = scope;
    let look = memory.follow(state, changed, now);
    let mut proposal = Proposal::new(state, now, ids);
    for node in &look.nodes {
        let wake_at = health::orphan_tasks(&mut proposal, *node);
        memory.wake_for_node(*node, wake_at);
    }
    let overload = enforce::Overload::of(state, &look.nodes);
    for id in &look.services {
        let Some(service) = state.service(*id) else { continue };
        proposal.wake_at = None;
        service::reconcile(&mut proposal, service, &overload);
        memory.wake_for_service(*id, proposal.wake_at);
    }
    reap::forget_networks(&mut proposal);
    let unallocated = allocate::waiting(state, memory.unallocated());
    let decisions = place::place(&proposal, memory);
    Plan { changes: proposal.assemble(unallocated, decisions), again: Changed::default(), wake_at: memory.next_wake() }
}
