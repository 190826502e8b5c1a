//! Promotions and demotions, one member and one step at a time, never below quorum.

use rswarm_raft::{ChangeError, MemberId as RaftMember, keeps_quorum_without};
use rswarm_types::command::Body;
use rswarm_types::node::{Node, NodeState};
use rswarm_types::spec::Role;
use rswarm_types::{MemberId, NodeId};

use crate::consensus::{Consensus, ProposeError};
use crate::liveness::Liveness;
use crate::machine::Snapshot;

/// Why a step was not taken; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    #[error("membership of node {node} cannot change now")]
    Change {
        node: NodeId,
        #[source]
        source: ChangeError,
    },
    #[error("role of node {node} not committed")]
    Commit {
        node: NodeId,
        #[source]
        source: ProposeError,
    },
    #[error("node {node} stays a manager: without it {up} of {left} managers would be reachable, which is no majority")]
    Quorum { node: NodeId, up: usize, left: usize },
}

/// The next step that some node needs. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Give it a member id; its daemon then starts Raft on an empty folder.
    Name { node: NodeId },
    /// Bring the log to it, then let it vote.
    Admit { node: NodeId, member: MemberId, address: String },
    /// It votes in Raft already; the state does not say so yet.
    Record { node: NodeId, member: MemberId },
    /// Take it out of Raft; then the role entry.
    Expel { node: NodeId, member: MemberId, then: Role },
    /// A member that no node of the cluster has.
    Forget { member: RaftMember },
}

fn next_step(snapshot: &Snapshot) -> Option<Step> {
    snapshot.state.nodes().find_map(|n| step_of(snapshot, n)).or_else(|| stray(snapshot))
}

fn step_of(snapshot: &Snapshot, node: &Node) -> Option<Step> {
    let m = node.membership;
    let id = node.id;
    let raft_member = RaftMember(m.member.0);
    match (node.spec.role, m.role) {
        (Role::Worker, Role::Manager) => Some(Step::Expel { node: id, member: m.member, then: Role::Worker }),
        (Role::Manager, Role::Manager) if m.raft_lost && m.member != MemberId(0) => {
            Some(Step::Expel { node: id, member: m.member, then: Role::Manager })
        }
        (Role::Manager, _) if m.member == MemberId(0) || m.role == Role::Worker => {
            // It must be there to be told.
            (node.status.state == NodeState::Ready).then_some(Step::Name { node: id })
        }
        (Role::Manager, Role::Manager) if snapshot.membership.voters.contains_key(&raft_member) => {
            (!m.is_voter).then_some(Step::Record { node: id, member: m.member })
        }
        (Role::Manager, Role::Manager) if node.status.state == NodeState::Ready => {
            let address = node.description.control_address?.to_string();
            Some(Step::Admit { node: id, member: m.member, address })
        }
        _ => None,
    }
}

/// Members left behind by a step whose entry was lost with its leader.
fn stray(snapshot: &Snapshot) -> Option<Step> {
    let known = |member: &RaftMember| snapshot.state.nodes().any(|n| n.membership.member.0 == member.0);
    let all = snapshot.membership.voters.keys().chain(snapshot.membership.learners.keys());
    all.copied().find(|m| !known(m)).map(|member| Step::Forget { member })
}

/// Takes one step, if any is due.
///
/// # Errors
/// When the step must wait.
pub async fn step(consensus: &Consensus, liveness: &Liveness) -> Result<(), RoleError> {
    let snapshot = consensus.local();
    if snapshot.state.cluster().is_none() {
        return Ok(());
    }
    let Some(step) = next_step(&snapshot) else { return Ok(()) };
    tracing::info!(?step, "membership step");
    let engine = consensus.engine();
    match step {
        Step::Name { node } => {
            let member = MemberId(fresh_member(consensus));
            set(consensus, node, Role::Manager, member, false).await
        }
        Step::Admit { node, member, address } => {
            let change = |source| RoleError::Change { node, source };
            engine.add_learner(RaftMember(member.0), address).await.map_err(change)?;
            engine.promote(RaftMember(member.0)).await.map_err(change)?;
            set(consensus, node, Role::Manager, member, true).await
        }
        Step::Record { node, member } => set(consensus, node, Role::Manager, member, true).await,
        Step::Expel { node, member, then } => {
            if member != MemberId(0) {
                expel(consensus, liveness, &snapshot, node, RaftMember(member.0)).await?;
            }
            set(consensus, node, then, MemberId(0), false).await
        }
        Step::Forget { member } => {
            engine.remove(member).await.map_err(|source| RoleError::Change { node: NodeId::default(), source })
        }
    }
}

fn fresh_member(consensus: &Consensus) -> u64 {
    // 0 means "none".
    u64::try_from(consensus.edge().random() >> 64).unwrap_or(1).max(1)
}

async fn set(
    consensus: &Consensus,
    node: NodeId,
    role: Role,
    member: MemberId,
    is_voter: bool,
) -> Result<(), RoleError> {
    let body = Body::SetMembership { node, role, member, is_voter };
    consensus.propose_own(body).await.map(|_| ()).map_err(|source| RoleError::Commit { node, source })
}

async fn expel(
    consensus: &Consensus,
    liveness: &Liveness,
    snapshot: &Snapshot,
    node: NodeId,
    member: RaftMember,
) -> Result<(), RoleError> {
    let engine = consensus.engine();
    let voters = &snapshot.membership.voters;
    let change = |source| RoleError::Change { node, source };
    if voters.contains_key(&member) {
        let reachable = |m: RaftMember| m == consensus.member() || liveness.is_reachable(snapshot, m);
        if !keeps_quorum_without(voters, reachable, member) {
            let left = voters.len() - 1;
            let up = voters.keys().filter(|m| **m != member && reachable(**m)).count();
            return Err(RoleError::Quorum { node, up, left });
        }
        if member == consensus.member() {
            let heir = voters.keys().copied().find(|m| *m != member && reachable(*m));
            if let Some(heir) = heir {
                // The new leader takes the next step.
                return engine.transfer(heir).await.map_err(change);
            }
        }
    }
    engine.remove(member).await.map_err(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cluster_needs_no_step() {
        assert_eq!(next_step(&Snapshot::default()), None);
    }
}
