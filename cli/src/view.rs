//! The cluster's answers as nouns.

use std::collections::BTreeMap;

use rswarm_api::{Wire, WireError, pb};
use rswarm_types::NodeId;
use rswarm_types::node::Node;
use rswarm_types::service::Service;
use rswarm_types::task::Task;

/// A node with what only managers know.
#[derive(Clone, Debug, Default)]
pub struct NodeView {
    pub node: Node,
    pub is_leader: bool,
    pub is_reachable: bool,
    /// It is the node whose daemon was asked.
    pub is_self: bool,
}

/// A service with its counts of tasks.
#[derive(Clone, Debug, Default)]
pub struct ServiceView {
    pub service: Service,
    pub running: u64,
    pub desired: u64,
}

/// A service and its tasks at one moment.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// Nothing once the service is gone.
    pub service: Option<ServiceView>,
    pub tasks: Vec<Task>,
}

/// Hostnames by node.
pub type NodeNames = BTreeMap<NodeId, String>;

impl NodeView {
    /// # Errors
    /// When the answer is not what this build understands.
    pub fn read(pb: pb::NodeView) -> Result<Self, WireError> {
        Ok(Self {
            node: Wire::from_pb(pb.node.ok_or(WireError::Missing("NodeView.node"))?)?,
            is_leader: pb.is_leader,
            is_reachable: pb.is_reachable,
            is_self: pb.is_self,
        })
    }
}

impl ServiceView {
    /// # Errors
    /// When the answer is not what this build understands.
    pub fn read(pb: pb::ServiceView) -> Result<Self, WireError> {
        Ok(Self {
            service: Wire::from_pb(pb.service.ok_or(WireError::Missing("ServiceView.service"))?)?,
            running: pb.running,
            desired: pb.desired,
        })
    }
}

impl Progress {
    /// # Errors
    /// When the message is not what this build understands.
    pub fn read(pb: pb::ServiceProgress) -> Result<Self, WireError> {
        if pb.removed {
            return Ok(Self::default());
        }
        let service = pb.service.ok_or(WireError::Missing("ServiceProgress.service"))?;
        Ok(Self { service: Some(ServiceView::read(service)?), tasks: Wire::from_pb(pb.tasks)? })
    }
}

/// What to call each node.
pub fn node_names(nodes: &[NodeView]) -> NodeNames {
    nodes.iter().map(|view| (view.node.id, view.node.display_name())).collect()
}
