//! Nodes that are lost: their tasks are replaced at once, and given up after a day.

use std::time::Duration;

use rswarm_types::command::Change;
use rswarm_types::limits::ORPHAN_AFTER_MS;
use rswarm_types::node::{Node, NodeState};
use rswarm_types::task::Task;
use rswarm_types::task_state::TaskState;
use rswarm_types::{NodeId, TimestampMs};

use super::proposal::Proposal;

/// Whether a node's tasks count as lost. A daemon that restarts on purpose is `Unknown`, not lost.
pub(super) fn is_lost(node: &Node) -> bool {
    matches!(node.status.state, NodeState::Down | NodeState::Disconnected)
}

/// Why a task on this node must be replaced.
pub(super) fn reason(node: &Node) -> Option<String> {
    is_lost(node).then(|| format!("node {} is {}", node.display_name(), node.status.state))
}

/// Gives up the tasks of a node that was lost for a day; else when to look again.
pub(super) fn orphan_tasks(p: &mut Proposal<'_>, id: NodeId) -> Option<TimestampMs> {
    let node = p.state.node(id).filter(|node| is_lost(node))?;
    let at = node.status.since.after(Duration::from_millis(ORPHAN_AFTER_MS));
    let is_held = |task: &Task| task.status.state >= TaskState::Assigned && !task.status.sandbox_gone;
    let mut held = p.state.tasks_on_node(id).filter(|task| is_held(task)).peekable();
    held.peek()?;
    if at > p.now {
        return Some(at);
    }
    let reason = format!("node {} has been {} for 24 hours", node.display_name(), node.status.state);
    for task in held {
        p.push(Change::OrphanTask { task: task.id, reason: reason.clone() });
    }
    None
}
