//! Networks.

use rswarm_api::{Wire, pb, status};
use rswarm_types::command::{Answer, Body};
use rswarm_types::{NetworkId, Refusal, validate};
use tonic::{Request, Status};

use super::authorize::Need;
use super::{ControlService, found, refuse};

impl ControlService {
    pub(super) async fn make_network(&self, request: Request<pb::NetworkSpec>) -> Result<pb::Ref, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let spec = Wire::from_pb(request.into_inner()).map_err(status::from_wire)?;
        let violations = validate::network_spec(&spec);
        if !violations.is_empty() {
            return Err(refuse(Refusal::Invalid(violations)));
        }
        let id = NetworkId(self.core.consensus.edge().random());
        match self.propose(&permit, Body::CreateNetwork { id, spec }).await? {
            Answer::Network(id) => Ok(pb::Ref { name: id.to_string() }),
            _ => Ok(pb::Ref { name: id.to_string() }),
        }
    }

    pub(super) async fn networks(&self, request: Request<pb::Empty>) -> Result<pb::NetworkList, Status> {
        self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        Ok(pb::NetworkList { networks: snapshot.state.networks().map(|n| n.to_pb()).collect() })
    }

    pub(super) async fn network(&self, request: Request<pb::Ref>) -> Result<pb::Network, Status> {
        self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        Ok(found(snapshot.state.find_network(&request.into_inner().name))?.to_pb())
    }

    pub(super) async fn drop_network(&self, request: Request<pb::Ref>) -> Result<pb::Empty, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let snapshot = self.read().await?;
        let id = found(snapshot.state.find_network(&request.into_inner().name))?.id;
        self.propose(&permit, Body::RemoveNetwork { id }).await?;
        Ok(pb::Empty {})
    }
}
