//! What one manager may ask of another.

use std::net::SocketAddr;

use futures::future::BoxFuture;
use rswarm_types::command::{Answer, Command};
use rswarm_types::session::{Leaving, Settled};
use rswarm_types::{NodeId, Refusal};

/// What a manager's sessions know of one node, passed on to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionFact {
    pub node: NodeId,
    pub epoch: u64,
    /// Endpoint tables up to this index are in the node's kernel.
    pub applied: u64,
    /// Since the last heartbeat, in milliseconds.
    pub silent_ms: u64,
    /// It said goodbye.
    pub leaving: Option<Leaving>,
    /// The stream is up.
    pub is_open: bool,
}

/// What the leader answers to facts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RelayAnswer {
    pub settled: Settled,
}

/// A command went to another manager: what came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proposed {
    Applied {
        index: u64,
        result: Result<Answer, Refusal>,
    },
    /// Not the leader; perhaps it knows who is.
    NotLeader,
}

/// Why another manager did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("manager {address}: {reason}")]
pub struct PeerError {
    pub address: SocketAddr,
    pub reason: String,
}

/// The calls between managers: gRPC, or the simulator's network.
pub trait Peers: Send + Sync + 'static {
    fn propose(&self, to: SocketAddr, command: Command) -> BoxFuture<'static, Result<Proposed, PeerError>>;
    /// The commit index, after a quorum confirmed the leader; `None` = it does not lead.
    fn read_index(&self, to: SocketAddr) -> BoxFuture<'static, Result<Option<u64>, PeerError>>;
    /// `None` = it does not lead.
    fn relay(
        &self,
        to: SocketAddr,
        facts: Vec<SessionFact>,
    ) -> BoxFuture<'static, Result<Option<RelayAnswer>, PeerError>>;
}
