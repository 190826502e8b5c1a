//! Nodes.

use rswarm_api::{Wire, pb, status};
use rswarm_types::command::Body;
use rswarm_types::node::{Node, NodeState};
use rswarm_types::{NodeId, Refusal, validate};
use tonic::{Request, Status};

use super::authorize::Need;
use super::{ControlService, node_named, refuse};
use crate::machine::Snapshot;

impl ControlService {
    fn node_view(&self, snapshot: &Snapshot, node: &Node, this: NodeId) -> pb::NodeView {
        let leader = self.core.consensus.engine().status().leader;
        let member = node.membership.member.0;
        pb::NodeView {
            node: Some(node.to_pb()),
            is_leader: member != 0 && leader.is_some_and(|(id, _)| id.0 == member),
            is_reachable: node.status.state == NodeState::Ready
                && snapshot.membership.voters.keys().any(|m| m.0 == member),
            is_self: node.id == this,
        }
    }

    pub(super) async fn nodes(&self, request: Request<pb::Empty>) -> Result<pb::NodeList, Status> {
        let permit = self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        let nodes = snapshot.state.nodes().map(|n| self.node_view(&snapshot, n, permit.node)).collect();
        Ok(pb::NodeList { nodes })
    }

    pub(super) async fn node(&self, request: Request<pb::Ref>) -> Result<pb::NodeView, Status> {
        let permit = self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        let node = node_named(&snapshot.state, &request.into_inner().name, permit.node)?;
        Ok(self.node_view(&snapshot, node, permit.node))
    }

    pub(super) async fn change_node(&self, request: Request<pb::UpdateNodeRequest>) -> Result<pb::Empty, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let message = request.into_inner();
        let spec = message.spec.ok_or_else(|| Status::invalid_argument("no spec"))?;
        let spec = Wire::from_pb(spec).map_err(status::from_wire)?;
        let violations = validate::node_spec(&spec);
        if !violations.is_empty() {
            return Err(refuse(Refusal::Invalid(violations)));
        }
        let snapshot = self.read().await?;
        let node = node_named(&snapshot.state, &message.name, permit.node)?.id;
        self.propose(&permit, Body::UpdateNode { node, version: message.version, spec }).await?;
        Ok(pb::Empty {})
    }

    pub(super) async fn drop_node(&self, request: Request<pb::RemoveNodeRequest>) -> Result<pb::Empty, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let message = request.into_inner();
        let snapshot = self.read().await?;
        let node = node_named(&snapshot.state, &message.name, permit.node)?.id;
        self.propose(&permit, Body::RemoveNode { node, force: message.force }).await?;
        Ok(pb::Empty {})
    }
}
