//! Which backend has which slot: as before where possible, so that a change touches few elements.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::rules::Backend;
use crate::model::Version;
use crate::ports::PublishedPort;

/// Slots as they are in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    pub virtual_addresses: BTreeMap<IpAddr, Vec<IpAddr>>,
    pub published: BTreeMap<(PublishedPort, Version), Vec<Backend>>,
}

/// The wanted ones, each in its slot of before; new ones and then the last ones fill the holes.
pub fn settle<T: Copy + Ord>(before: &[T], wanted: &[T]) -> Vec<T> {
    let all: BTreeSet<T> = wanted.iter().copied().collect();
    let had: BTreeSet<T> = before.iter().copied().collect();
    let mut new = wanted.iter().copied().filter(|one| !had.contains(one));
    let mut slots: Vec<Option<T>> =
        before.iter().map(|one| if all.contains(one) { Some(*one) } else { new.next() }).collect();
    slots.extend(new.map(Some));
    let mut at = 0;
    while at < slots.len() {
        if slots[at].is_some() {
            at += 1;
        } else {
            slots.swap_remove(at);
        }
    }
    slots.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_slots_change_and_none_is_lost_or_doubled() {
        for (before, wanted, expected) in [
            (vec![], vec![1, 2, 3], vec![1, 2, 3]),
            (vec![3, 1, 2], vec![1, 2, 3], vec![3, 1, 2]),
            // One goes: the last takes its slot.
            (vec![1, 2, 3, 4], vec![1, 3, 4], vec![1, 4, 3]),
            // One is replaced.
            (vec![1, 2, 3], vec![1, 3, 9], vec![1, 9, 3]),
            // One comes.
            (vec![5, 6], vec![4, 5, 6], vec![5, 6, 4]),
            (vec![1, 2, 3], vec![3], vec![3]),
            (vec![1, 2], vec![], vec![]),
        ] {
            assert_eq!(settle(&before, &wanted), expected, "{before:?} -> {wanted:?}");
        }
    }
}
