//! The control API: what people and tools may ask of the cluster, on any manager.

mod authorize;
mod cluster;
mod logs;
mod networks;
mod nodes;
mod service;
mod services;
mod stacks;
mod watch;

use rswarm_api::status;
use rswarm_store::State;
use rswarm_types::command::{Answer, Body};
use rswarm_types::{NodeId, Refusal};
use tonic::Status;

use crate::consensus::ProposeError;
use crate::core::Core;
use crate::grpc_peers::GrpcPeers;
use crate::machine::Snapshot;
use authorize::Permit;

/// Serves `ControlApi`. Cheap to clone.
#[derive(Clone)]
pub struct ControlService {
    core: Core,
    /// Other managers, for streams of nodes whose sessions sit there.
    peers: GrpcPeers,
    /// The node that this manager runs on.
    node: NodeId,
}

impl ControlService {
    pub fn new(core: Core, peers: GrpcPeers, node: NodeId) -> Self {
        Self { core, peers, node }
    }

    /// The newest state.
    async fn read(&self) -> Result<Snapshot, Status> {
        self.core.consensus.read().await.map_err(|e| Status::unavailable(e.to_string()))
    }

    async fn propose(&self, permit: &Permit, body: Body) -> Result<Answer, Status> {
        match self.core.consensus.propose(body, permit.request, permit.caller).await {
            Ok((_, answer)) => Ok(answer),
            Err(ProposeError::Refused(refusal)) => Err(status::from_refusal(&refusal)),
            Err(error @ ProposeError::Uncertain(_)) => Err(Status::deadline_exceeded(error.to_string())),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

fn refuse(refusal: Refusal) -> Status {
    status::from_refusal(&refusal)
}

/// Turns a lookup's refusal into a status.
fn found<T>(result: Result<T, Refusal>) -> Result<T, Status> {
    result.map_err(refuse)
}

fn node_named<'a>(
    state: &'a State,
    name: &str,
    this: NodeId,
) -> Result<&'a std::sync::Arc<rswarm_types::node::Node>, Status> {
    if name == "self" {
        return found(state.node(this).ok_or_else(|| Refusal::not_found("node", "self")));
    }
    found(state.find_node(name))
}
