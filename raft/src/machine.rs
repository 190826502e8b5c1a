//! What is replicated, seen from here: bytes in, bytes out.

use std::io;

use bytes::Bytes;

use crate::member::{LogPosition, Membership};

/// The replicated state. Synchronous and deterministic: the same entries give the same state everywhere.
pub trait StateMachine: Send + 'static {
    /// Applies one command; the bytes are given to the proposer, if it waits on this member.
    ///
    /// # Errors
    /// A [`Halt`] stops this member for good: it neither votes nor acknowledges from then on. The others carry on.
    /// A panic counts as one.
    fn apply(&mut self, at: LogPosition, command: &[u8]) -> Result<Bytes, Halt>;

    /// A leader's first entry, which carries nothing, was applied; `at.term` is that leader's term.
    fn applied_blank(&mut self, at: LogPosition);

    /// An entry that sets the membership was applied.
    fn applied_membership(&mut self, at: LogPosition, membership: &Membership);

    /// Captures an immutable view in O(1); it is written elsewhere while entries go on being applied.
    fn snapshot(&self) -> Box<dyn SnapshotSource>;

    /// Replaces the whole state by a snapshot that was taken after the entry `at`, which had `membership`.
    ///
    /// # Errors
    /// When the bytes cannot be understood; the member stops.
    fn restore(&mut self, at: LogPosition, membership: &Membership, snapshot: &mut dyn io::Read) -> io::Result<()>;
}

/// An immutable view of the state, ready to be written.
pub trait SnapshotSource: Send {
    /// Writes the whole view.
    ///
    /// # Errors
    /// Whatever `out` reports.
    fn write(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()>;
}

/// A reason why this member must not go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Halt(pub String);
