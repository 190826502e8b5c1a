//! What turns the assignments of one moment into those of the next.
//!
//! Managers send a whole table when a session opens, and only what changed after that. Rows have ids and are in their
//! order, so that a table plus its changes equals the next table, byte for byte.

use std::cmp::Ordering;

use crate::assignment::{AssignedNetwork, AssignedService, AssignedTask, Assignments, Endpoint, LogId, Peer};
use crate::id::{NetworkId, NodeId, ServiceId, TaskId};

/// Changes of a table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delta {
    /// Position of the table that is changed.
    pub from: LogId,
    /// The new position with all that has no rows, and of the rows those that are new or other than before.
    pub changed: Assignments,
    pub gone: Gone,
}

/// Rows that are no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    pub tasks: Vec<TaskId>,
    pub networks: Vec<NetworkId>,
    pub services: Vec<ServiceId>,
    /// By their tasks.
    pub endpoints: Vec<TaskId>,
    pub peers: Vec<NodeId>,
}

/// A row of a table.
trait Row: Clone + PartialEq {
    type Id: Copy + Ord;
    fn id(&self) -> Self::Id;
}

macro_rules! rows {
    ($($row:ty => $id:ident: $id_type:ty;)*) => {
        $(impl Row for $row {
            type Id = $id_type;
            fn id(&self) -> $id_type {
                self.$id
            }
        })*
    };
}

rows! {
    AssignedTask => id: TaskId;
    AssignedNetwork => id: NetworkId;
    AssignedService => id: ServiceId;
    Endpoint => task: TaskId;
    Peer => id: NodeId;
}

impl Delta {
    /// What leads from the one table to the other.
    pub fn between(from: &Assignments, to: &Assignments) -> Self {
        let mut gone = Gone::default();
        let changed = Assignments {
            tasks: changed(&from.tasks, &to.tasks, &mut gone.tasks),
            networks: changed(&from.networks, &to.networks, &mut gone.networks),
            services: changed(&from.services, &to.services, &mut gone.services),
            endpoints: changed(&from.endpoints, &to.endpoints, &mut gone.endpoints),
            peers: changed(&from.peers, &to.peers, &mut gone.peers),
            log_id: to.log_id,
            node: to.node.clone(),
            managers: to.managers.clone(),
            now: to.now,
        };
        Self { from: from.log_id, changed, gone }
    }

    /// Whether the tables that it lies between ask for the same, whatever their positions.
    pub fn is_empty(&self, from: &Assignments) -> bool {
        let Assignments { tasks, networks, services, endpoints, peers, node, managers, log_id: _, now: _ } =
            &self.changed;
        tasks.is_empty()
            && networks.is_empty()
            && services.is_empty()
            && endpoints.is_empty()
            && peers.is_empty()
            && self.gone == Gone::default()
            && *node == from.node
            && *managers == from.managers
    }

    /// The table that follows; `None` where the changes are of another table than this one.
    pub fn apply(self, to: Assignments) -> Option<Assignments> {
        if to.log_id != self.from {
            return None;
        }
        let Self { changed, gone, .. } = self;
        Some(Assignments {
            tasks: merged(to.tasks, changed.tasks, &gone.tasks),
            networks: merged(to.networks, changed.networks, &gone.networks),
            services: merged(to.services, changed.services, &gone.services),
            endpoints: merged(to.endpoints, changed.endpoints, &gone.endpoints),
            peers: merged(to.peers, changed.peers, &gone.peers),
            ..changed
        })
    }
}

/// Rows of `to` that `from` lacks or has otherwise; those that only `from` has are `gone`.
fn changed<R: Row>(from: &[R], to: &[R], gone: &mut Vec<R::Id>) -> Vec<R> {
    let mut changed = Vec::new();
    let (mut old, mut new) = (from.iter().peekable(), to.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changed,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.id().cmp(&new.id()),
        };
        match order {
            Ordering::Less => gone.extend(old.next().map(R::id)),
            Ordering::Greater => changed.extend(new.next().cloned()),
            Ordering::Equal => {
                let (before, after) = (old.next(), new.next());
                changed.extend(after.filter(|_| before != after).cloned());
            }
        }
    }
}

/// Rows in the order of their ids, each changed one in its place.
fn merged<R: Row>(rows: Vec<R>, changed: Vec<R>, gone: &[R::Id]) -> Vec<R> {
    let is_new = |id: R::Id| changed.binary_search_by_key(&id, R::id).is_ok();
    let mut all: Vec<R> =
        rows.into_iter().filter(|row| gone.binary_search(&row.id()).is_err() && !is_new(row.id())).collect();
    all.extend(changed);
    // Two sorted runs.
    all.sort_by_key(R::id);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::TimestampMs;
    use proptest::prelude::*;

    /// Rows by id, with something that changes.
    fn rows() -> impl Strategy<Value = Vec<(u128, u16)>> {
        prop::collection::btree_map(0..40u128, 0..3u16, 0..30).prop_map(|map| map.into_iter().collect())
    }

    fn table(index: u64, [tasks, networks, services, endpoints, peers]: &[Vec<(u128, u16)>; 5]) -> Assignments {
        let endpoint = |(id, number): &(u128, u16)| Endpoint {
            task: TaskId(*id),
            service: ServiceId(1),
            node: NodeId(1),
            node_number: *number,
            slot: Default::default(),
            state: Default::default(),
            addresses: Vec::new(),
            ingress: Default::default(),
        };
        let peer = |(id, number): &(u128, u16)| Peer {
            id: NodeId(*id),
            number: *number,
            address: [10, 9, 0, 1].into(),
            addresses: Vec::new(),
            is_up: true,
            ingress: Default::default(),
        };
        let task = |(id, n): &(u128, u16)| AssignedTask { id: TaskId(*id), stop_at: (*n).into(), ..Default::default() };
        let network =
            |(id, n): &(u128, u16)| AssignedNetwork { id: NetworkId(*id), vni: (*n).into(), ..Default::default() };
        let service =
            |(id, n): &(u128, u16)| AssignedService { id: ServiceId(*id), name: n.to_string(), ..Default::default() };
        Assignments {
            log_id: LogId { era: 0, term: 1, index },
            tasks: tasks.iter().map(task).collect(),
            networks: networks.iter().map(network).collect(),
            services: services.iter().map(service).collect(),
            endpoints: endpoints.iter().map(endpoint).collect(),
            peers: peers.iter().map(peer).collect(),
            now: TimestampMs(index),
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn a_table_and_its_changes_are_the_next_table(from in [rows(), rows(), rows(), rows(), rows()], to in [rows(), rows(), rows(), rows(), rows()]) {
            let (from, to) = (table(3, &from), table(4, &to));
            let delta = Delta::between(&from, &to);
            let same = Assignments { log_id: to.log_id, now: to.now, ..from.clone() } == to;
            prop_assert_eq!(delta.is_empty(&from), same);
            prop_assert_eq!(delta.clone().apply(to.clone()), None);
            prop_assert_eq!(delta.apply(from), Some(to));
        }
    }

    #[test]
    fn one_changed_row_of_many_is_all_that_is_sent() {
        let many: Vec<(u128, u16)> = (0..5_000).map(|id| (id, 0)).collect();
        let mut next = many.clone();
        next[2_500].1 = 1;
        next.remove(10);
        let none = Vec::new;
        let from = table(3, &[none(), none(), none(), many, none()]);
        let to = table(4, &[none(), none(), none(), next, none()]);
        let delta = Delta::between(&from, &to);
        let ids: Vec<_> = delta.changed.endpoints.iter().map(|e| e.task).collect();
        assert_eq!((ids, delta.gone.endpoints.clone()), (vec![TaskId(2_500)], vec![TaskId(10)]));
        assert_eq!(delta.apply(from), Some(to));
    }

    #[test]
    fn a_manager_more_is_a_change() {
        let from = table(3, &Default::default());
        let mut to = Assignments { managers: vec![([10, 9, 0, 1], 2377).into()], ..from.clone() };
        to.log_id.index = 4;
        assert!(!Delta::between(&from, &to).is_empty(&from));
    }
}
