//! Nodes: admitted, described, watched, promoted, removed.
//!
//! A node's version moves with what users and the role reconciler decide, not with sessions and
//! health: `node update` must not be refused because the node blinked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rswarm_types::command::{Answer, RetiredNumber};
use rswarm_types::limits::NODE_NUMBER_REST_MS;
use rswarm_types::node::{Membership, Node, NodeDescription, NodeState, NodeStatus};
use rswarm_types::spec::{Availability, NodeSpec, Role};
use rswarm_types::task::Task;
use rswarm_types::task_state::TaskState;
use rswarm_types::{MemberId, NodeId, Refusal, TaskId, TimestampMs};

use super::{Draft, check_version};

/// A certificate request repeated within this time gets the same node.
const SAME_KEY_WINDOW: Duration = Duration::from_secs(3_600);

/// What a worker says of itself when it opens a session.
pub(super) struct Session<'a> {
    pub boot_id: &'a str,
    pub description: &'a NodeDescription,
    pub address: Option<IpAddr>,
    pub raft_lost: bool,
}

impl Draft {
    pub(super) fn admit(
        &mut self,
        id: NodeId,
        role: Role,
        key_hash: &[u8; 32],
        address: Option<IpAddr>,
        availability: Availability,
    ) -> Result<Answer, Refusal> {
        if let Some(known) = self.state.node_of_key(key_hash) {
            if known.membership.role != role {
                return Err(Refusal::Conflict(format!(
                    "the key of this request was admitted as node {} with role {}\n       join with a new key",
                    known.id, known.membership.role,
                )));
            }
            if self.at.since(known.admitted) > SAME_KEY_WINDOW {
                return Err(Refusal::Conflict(format!(
                    "the key of this request was admitted as node {} more than an hour ago\n       join with a new key",
                    known.id,
                )));
            }
            return Ok(Answer::Node(known.id));
        }
        if self.state.node(id).is_some() {
            return Err(Refusal::Conflict(format!("node id {id} is taken")));
        }
        let number = self.next_node_number()?;
        let ingress = self.next_node_ingress()?;
        self.put_node(Node {
            id,
            meta: self.made(),
            spec: NodeSpec { role, availability, ..NodeSpec::default() },
            status: NodeStatus { address, since: self.at, ..NodeStatus::default() },
            membership: Membership { role, ..Membership::default() },
            number,
            ingress,
            admitted: self.at,
            key_hash: *key_hash,
            ..Node::default()
        });
        Ok(Answer::Node(id))
    }

    pub(super) fn update_node(&mut self, id: NodeId, version: u64, spec: &NodeSpec) -> Result<Answer, Refusal> {
        let mut node = self.node(id)?;
        check_version("node", &node.display_name(), node.meta.version, version)?;
        let is_demotion = node.spec.role == Role::Manager && spec.role == Role::Worker;
        if is_demotion && !self.state.nodes().any(|other| other.id != id && other.spec.role == Role::Manager) {
            return Err(last_manager(&node));
        }
        if node.spec != *spec {
            node.spec = spec.clone();
            self.touch(&mut node.meta);
            self.put_node(node);
        }
        Ok(Answer::Done)
    }

    pub(super) fn set_membership(
        &mut self,
        id: NodeId,
        role: Role,
        member: MemberId,
        is_voter: bool,
    ) -> Result<Answer, Refusal> {
        let mut node = self.node(id)?;
        let is_demotion = role == Role::Worker && node.membership.role == Role::Manager;
        let is_other_manager = |other: &Arc<Node>| other.id != id && other.membership.role == Role::Manager;
        if is_demotion && !self.state.nodes().any(is_other_manager) {
            return Err(last_manager(&node));
        }
        let is_taken = |other: &&Arc<Node>| other.id != id && other.membership.member == member;
        if member != MemberId(0)
            && let Some(other) = self.state.nodes().find(is_taken)
        {
            return Err(Refusal::Conflict(format!("member id {:x} belongs to node {}", member.0, other.id)));
        }
        // A new member starts with a folder of its own.
        let raft_lost = node.membership.raft_lost && node.membership.member == member;
        let membership = Membership { role, member, is_voter, raft_lost };
        if node.membership != membership {
            node.membership = membership;
            self.touch(&mut node.meta);
            self.put_node(node);
        }
        Ok(Answer::Done)
    }

    pub(super) fn remove_node(&mut self, id: NodeId, force: bool) -> Result<Answer, Refusal> {
        let node = self.node(id)?;
        let name = node.display_name();
        if node.spec.role == Role::Manager || node.membership.role == Role::Manager || node.membership.member.0 != 0 {
            return Err(Refusal::Conflict(format!(
                "node {name} is a cluster manager and is a member of the raft cluster\n       \
                 demote it to a worker first: rswarm node demote {name}",
            )));
        }
        if !force && !matches!(node.status.state, NodeState::Down | NodeState::Disconnected) {
            return Err(Refusal::Conflict(format!(
                "node {name} is {} and not down: it can't be removed\n       \
                 stop its daemon first, or use --force",
                node.status.state,
            )));
        }
        self.changed.nodes.insert(id);
        self.state.remove_node(id);
        let until = TimestampMs(self.at.0.saturating_add(NODE_NUMBER_REST_MS));
        self.state.put_retired(RetiredNumber { number: node.number, until });
        let tasks: Vec<Task> = self.state.tasks_on_node(id).map(|task| task.as_ref().clone()).collect();
        for task in tasks {
            self.orphan(task, "the node was removed");
        }
        Ok(Answer::Done)
    }

    pub(super) fn open_session(
        &mut self,
        id: NodeId,
        session: Session<'_>,
        sandboxes: &[TaskId],
    ) -> Result<Answer, Refusal> {
        let mut node = self.node(id)?;
        if node.status.state != NodeState::Ready {
            node.status.since = self.at;
        }
        node.status.state = NodeState::Ready;
        node.status.message.clear();
        node.status.grace_until = TimestampMs(0);
        node.status.address = session.address;
        node.description = session.description.clone();
        session.boot_id.clone_into(&mut node.boot_id);
        node.membership.raft_lost = session.raft_lost;
        node.session_epoch = self.index;
        self.put_node(node);

        let listed: BTreeSet<TaskId> = sandboxes.iter().copied().collect();
        let is_gone = |task: &&Arc<Task>| {
            task.status.state.is_terminal() && !task.status.sandbox_gone && !listed.contains(&task.id)
        };
        let gone: Vec<Task> = self.state.tasks_on_node(id).filter(is_gone).map(|t| t.as_ref().clone()).collect();
        for mut task in gone {
            task.status.sandbox_gone = true;
            self.put_task(task);
        }
        Ok(Answer::Epoch(self.index))
    }

    pub(super) fn describe_node(&mut self, id: NodeId, description: &NodeDescription) -> Result<Answer, Refusal> {
        let mut node = self.node(id)?;
        if node.description != *description {
            node.description = description.clone();
            self.put_node(node);
        }
        Ok(Answer::Done)
    }

    pub(super) fn set_node_state(
        &mut self,
        id: NodeId,
        epoch: u64,
        state: NodeState,
        message: &str,
        grace_until: TimestampMs,
    ) -> Result<Answer, Refusal> {
        let node = self.node(id)?;
        if node.session_epoch != epoch {
            return Ok(Answer::Done);
        }
        let mut status = NodeStatus { state, message: message.into(), grace_until, ..node.status.clone() };
        if node.status.state != state {
            status.since = self.at;
        }
        if grace_until > self.at && grace_until != node.status.grace_until {
            status.grace_at = self.at;
        }
        if status != node.status {
            self.put_node(Node { status, ..node });
        }
        Ok(Answer::Done)
    }

    /// The agent will never report again: what it holds counts as gone.
    pub(super) fn orphan(&mut self, mut task: Task, reason: &str) {
        if task.status.state < TaskState::Assigned || task.status.sandbox_gone {
            return;
        }
        if !task.status.state.is_terminal() {
            task.status.state = TaskState::Orphaned;
            task.status.message = "orphaned".into();
            task.status.error = reason.into();
            task.status.at = self.wall;
            task.status.applied = self.at;
        }
        task.status.sandbox_gone = true;
        self.put_task(task);
    }
}

fn last_manager(node: &Node) -> Refusal {
    Refusal::Conflict(format!(
        "node {} is the last manager of the cluster: it can't be demoted\n       \
         promote another node first: rswarm node promote NODE",
        node.display_name(),
    ))
}
