//! The cluster object and its join tokens.

use rswarm_api::{Wire, pb, status};
use rswarm_types::cluster::JoinTokens;
use rswarm_types::command::{Answer, Body};
use rswarm_types::{Refusal, validate};
use tonic::{Request, Status};

use super::authorize::Need;
use super::{ControlService, refuse};
use crate::token;

impl ControlService {
    /// The cluster without its secrets.
    pub(super) async fn cluster(&self, request: Request<pb::Empty>) -> Result<pb::Cluster, Status> {
        self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        let mut cluster = snapshot.state.cluster().ok_or_else(no_cluster)?.to_pb();
        cluster.tokens = Some(pb::JoinTokens::default());
        if let Some(root) = &mut cluster.root {
            root.key.clear();
        }
        Ok(cluster)
    }

    pub(super) async fn change_cluster(&self, request: Request<pb::UpdateClusterRequest>) -> Result<pb::Empty, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let message = request.into_inner();
        let spec = message.spec.ok_or_else(|| Status::invalid_argument("no spec"))?;
        let spec = Wire::from_pb(spec).map_err(status::from_wire)?;
        let violations = validate::cluster_spec(&spec);
        if !violations.is_empty() {
            return Err(refuse(Refusal::Invalid(violations)));
        }
        self.propose(&permit, Body::UpdateCluster { version: message.version, spec }).await?;
        Ok(pb::Empty {})
    }

    /// The standing tokens: who may read them may admit nodes, so `full` is needed.
    pub(super) async fn tokens(&self, request: Request<pb::Empty>) -> Result<pb::JoinTokens, Status> {
        self.permit(&request, Need::Write)?;
        let snapshot = self.read().await?;
        Ok(snapshot.state.cluster().ok_or_else(no_cluster)?.tokens.to_pb())
    }

    pub(super) async fn rotate(&self, request: Request<pb::RotateTokensRequest>) -> Result<pb::JoinTokens, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let message = request.into_inner();
        let snapshot = self.read().await?;
        let cluster = snapshot.state.cluster().ok_or_else(no_cluster)?;
        let root = &cluster.root.certificate;
        let edge = self.core.consensus.edge();
        let tokens = JoinTokens { worker: token::make(root, edge.random()), manager: token::make(root, edge.random()) };
        let body = Body::RotateTokens { tokens, worker: message.worker, manager: message.manager };
        match self.propose(&permit, body).await? {
            Answer::Tokens(tokens) => Ok(tokens.to_pb()),
            _ => Ok(self.core.consensus.local().state.cluster().ok_or_else(no_cluster)?.tokens.to_pb()),
        }
    }
}

fn no_cluster() -> Status {
    Status::unavailable("this manager has no cluster yet")
}
