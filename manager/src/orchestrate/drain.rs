//! Drained nodes: their tasks are replaced elsewhere, without a restart delay.

use rswarm_types::node::Node;
use rswarm_types::spec::Availability;

/// Why a task on this node must be replaced.
pub(super) fn reason(node: &Node) -> Option<String> {
    (node.spec.availability == Availability::Drain).then(|| format!("node {} is drained", node.display_name()))
}
