//! The way to a peer.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::member::MemberId;

/// Carries a message to a member and brings its answer back.
///
/// At the other end the message goes into [`crate::Raft::handle`], whose result is the answer. Messages are at most
/// [`crate::MESSAGE_BYTES`] long. The caller ends the wait itself after `ttl`; the transport gets it to set its own deadline.
pub trait Transport: Send + Sync + 'static {
    /// Sends `message` to the member `to`, reached at `address`, and waits for its answer.
    fn call(
        &self,
        to: MemberId,
        address: &str,
        message: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>>;
}

/// Why no answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Nobody could be reached: worth waiting a little before the next try.
    #[error("member {to} at {address} cannot be reached: {reason}")]
    Unreachable {
        /// The member that was called.
        to: MemberId,
        /// Where it was sought.
        address: String,
        /// What the network said.
        reason: String,
    },
    /// The answer did not come in time; the message may have arrived.
    #[error("member {to} at {address} did not answer within {ttl:?}")]
    Timeout {
        /// The member that was called.
        to: MemberId,
        /// Where it was sought.
        address: String,
        /// The time it had.
        ttl: Duration,
    },
}
