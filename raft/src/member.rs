//! Who takes part in a cluster, and places in its log.

use std::collections::BTreeMap;
use std::fmt;

/// One member of one cluster: a fresh random number at every promotion, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u64);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// The cluster that a folder and a message belong to; a mismatch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClusterTag(pub [u8; 16]);

impl fmt::Display for ClusterTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A place in the log: which leader's term wrote it, and its index. Indexes start at 0.
///
/// Ordered by term, then by index, as Raft orders logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition {
    /// The term of the leader that appended the entry.
    pub term: u64,
    /// The index of the entry.
    pub index: u64,
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.index)
    }
}

/// Who votes and who only listens, each with the address it is reached at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// The members whose majority commits. While `changing`, the union of the old and the new set.
    pub voters: BTreeMap<MemberId, String>,
    /// The members that receive the log without a vote.
    pub learners: BTreeMap<MemberId, String>,
    /// Whether a change is half way: both the old and the new majority are needed.
    pub changing: bool,
}

/// Whether the cluster would still have a majority of reachable voters once `removed` is no voter.
///
/// `reachable` is what the caller has heard from lately, itself included.
pub fn keeps_quorum_without(
    voters: &BTreeMap<MemberId, String>,
    reachable: impl Fn(MemberId) -> bool,
    removed: MemberId,
) -> bool {
    let rest: Vec<MemberId> = voters.keys().copied().filter(|id| *id != removed).collect();
    let up = rest.iter().filter(|id| reachable(**id)).count();
    !rest.is_empty() && up > rest.len() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(count: u64) -> BTreeMap<MemberId, String> {
        (1..=count).map(|id| (MemberId(id), String::new())).collect()
    }

    #[test]
    fn a_removal_that_leaves_no_reachable_majority_is_seen() {
        // (voters, reachable, removed, keeps quorum)
        let cases: [(u64, &[u64], u64, bool); 7] = [
            (1, &[1], 1, false),
            (2, &[1, 2], 2, true),
            (2, &[1], 2, true),
            (3, &[1, 2], 3, true),
            (3, &[1, 2], 2, false),
            (5, &[1, 2, 3], 5, true),
            (5, &[1, 2, 3], 3, false),
        ];
        for (count, up, removed, expected) in cases {
            let reachable = |id: MemberId| up.contains(&id.0);
            assert_eq!(
                keeps_quorum_without(&voters(count), reachable, MemberId(removed)),
                expected,
                "{count} voters, {up:?} up, {removed} removed"
            );
        }
    }

    #[test]
    fn positions_order_by_term_before_index() {
        assert!(LogPosition { term: 2, index: 1 } > LogPosition { term: 1, index: 9 });
    }
}
