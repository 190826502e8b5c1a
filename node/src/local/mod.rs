//! What one node answers on its own socket, whatever its place in a cluster.

mod images;
mod info;
mod service;
mod volumes;

use std::sync::Arc;

use rswarm_api::{Wire, pb, status};
use rswarm_manager::token::TokenError;
use rswarm_types::spec::{ClusterSpec, Role};
use tonic::{Code, Status};

use crate::admission::AdmissionError;
use crate::daemon::Daemon;
use crate::membership::{Init, Join, MembershipError, chain};

/// What a cluster's only manager is told that would leave it.
const LAST_MANAGER: &str = "this node is the swarm's only manager: leaving removes the swarm's whole state\n       \
                            if that is meant: rswarm leave --force";

/// Serves `NodeApi`. Cheap to clone.
#[derive(Clone)]
pub struct LocalApi {
    daemon: Arc<Daemon>,
}

/// A code that lets the client choose its exit code; the text is the whole chain.
fn refused(error: &MembershipError) -> Status {
    let code = match error {
        MembershipError::AlreadyIn => Code::AlreadyExists,
        MembershipError::NotIn => Code::FailedPrecondition,
        // The node's present state forbids it.
        MembershipError::Refused(_) => Code::Aborted,
        MembershipError::Address(_) | MembershipError::Invalid(_) => Code::InvalidArgument,
        MembershipError::Admission(AdmissionError::Token(TokenError::Malformed)) => Code::InvalidArgument,
        MembershipError::Admission(AdmissionError::Token(_)) => Code::PermissionDenied,
        MembershipError::Admission(AdmissionError::Refused { .. }) => Code::PermissionDenied,
        MembershipError::Admission(AdmissionError::Unreachable { .. }) => Code::Unavailable,
        _ => Code::Internal,
    };
    Status::new(code, chain(error))
}

impl LocalApi {
    pub fn new(daemon: Arc<Daemon>) -> Self {
        Self { daemon }
    }

    async fn init(&self, request: pb::InitRequest) -> Result<pb::InitReply, Status> {
        let spec = match request.spec {
            Some(spec) => Wire::from_pb(spec).map_err(status::from_wire)?,
            None => ClusterSpec::default(),
        };
        let init = Init {
            advertise: request.advertise_address,
            listen: request.listen_address,
            data_path: request.data_path_address,
            availability: Wire::from_pb(request.availability).map_err(status::from_wire)?,
            spec,
        };
        let (file, tokens) = self.daemon.init(init).await.map_err(|e| refused(&e))?;
        let identity = self.daemon.member.lock().await.as_ref().map(crate::membership::Member::identity);
        let identity = identity.ok_or_else(|| Status::internal("the node left while it was made"))?;
        Ok(pb::InitReply {
            node: identity.node.to_pb(),
            cluster: identity.cluster.to_pb(),
            worker_token: tokens.worker,
            manager_token: tokens.manager,
            address: file.advertise.to_string(),
        })
    }

    async fn join(&self, request: pb::JoinRequest) -> Result<pb::JoinReply, Status> {
        let join = Join {
            remote: request.remote,
            token: request.token,
            advertise: request.advertise_address,
            listen: request.listen_address,
            data_path: request.data_path_address,
            availability: Wire::from_pb(request.availability).map_err(status::from_wire)?,
        };
        let (file, role) = self.daemon.join(join).await.map_err(|e| refused(&e))?;
        let node: rswarm_types::NodeId =
            file.node.parse().map_err(|_| Status::internal("the node id was not understood"))?;
        Ok(pb::JoinReply { node: node.to_pb(), role: role.to_pb() })
    }

    async fn leave(&self, request: pb::LeaveRequest) -> Result<pb::Empty, Status> {
        if !request.force && self.is_last_manager().await {
            return Err(Status::aborted(LAST_MANAGER));
        }
        self.daemon.leave(request.force).await.map_err(|e| refused(&e))?;
        *self.daemon.trouble.lock().await = None;
        Ok(pb::Empty {})
    }

    async fn is_last_manager(&self) -> bool {
        let guard = self.daemon.member.lock().await;
        let Some(running) = guard.as_ref().and_then(|member| member.manager.as_ref()) else { return false };
        let snapshot = running.manager.core().consensus.local();
        snapshot.state.nodes().filter(|node| node.membership.role == Role::Manager).count() < 2
    }
}
