//! The engine's types, fixed to ours. Nothing of it leaves this crate.

use std::cmp::Ordering;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use openraft::impls::{BasicNode, BoxedErrorSource, InlineBatch, OneshotResponder};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftTypeConfig};

use crate::member::{LogPosition, MemberId, Membership};

/// A command as the engine carries it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Command(pub Bytes);

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry returned.
#[derive(Debug)]
pub(crate) struct Answer(pub Bytes);

pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
pub(crate) type Committed = <LeaderId as openraft::vote::RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<Committed>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<Command, u64, BasicNode>;
pub(crate) type Entry = openraft::Entry<Committed, Payload>;
pub(crate) type EngineMembership = openraft::Membership<u64, BasicNode>;
pub(crate) type StoredMembership = openraft::StoredMembership<Committed, u64, BasicNode>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<Committed, u64, BasicNode>;

/// Ties the engine to a runtime: tokio's, or the simulator's.
pub(crate) struct TypeConfig<R>(PhantomData<fn() -> R>);

impl<R: AsyncRuntime> RaftTypeConfig for TypeConfig<R> {
    type D = Command;
    type R = Answer;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = R;
    type Responder<T>
        = OneshotResponder<Self, T>
    where
        T: OptionalSend + 'static;
    type Batch<T>
        = InlineBatch<T>
    where
        T: OptionalSend + 'static;
    type ErrorSource = BoxedErrorSource;
}

// Derives would ask the same of `R`, which has no value here.
impl<R> fmt::Debug for TypeConfig<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypeConfig")
    }
}
impl<R> Clone for TypeConfig<R> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<R> Copy for TypeConfig<R> {}
impl<R> Default for TypeConfig<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}
impl<R> PartialEq for TypeConfig<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<R> Eq for TypeConfig<R> {}
impl<R> PartialOrd for TypeConfig<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<R> Ord for TypeConfig<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

/// A log id, outwards.
pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition { term: id.leader_id.term, index: id.index }
}

/// A log id, inwards.
pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

/// A membership, outwards.
pub(crate) fn membership(from: &EngineMembership) -> Membership {
    let voters: std::collections::BTreeSet<u64> = from.voter_ids().collect();
    let mut out = Membership { changing: from.get_joint_config().len() > 1, ..Membership::default() };
    for (id, node) in from.nodes() {
        let side = if voters.contains(id) { &mut out.voters } else { &mut out.learners };
        side.insert(MemberId(*id), node.addr.clone());
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_engine_is_built_without_any_serialisation_of_its_own() {
        let manifest = include_str!("../../Cargo.toml");
        let line = manifest.lines().find(|line| line.starts_with("openraft = ")).unwrap();
        assert!(line.contains("default-features = false") && !line.contains("serde"), "{line}");
    }
}
