//! What the leader has heard of each node, from every manager's sessions. In memory: a new leader
//! counts silence from its own election.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rswarm_raft::MemberId;
use rswarm_types::NodeId;
use rswarm_types::command::Body;
use rswarm_types::limits::{HEARTBEAT_TIMEOUT_MS, RESTART_GRACE_MS};
use rswarm_types::node::{Node, NodeState};
use rswarm_types::session::Leaving;
use rswarm_types::units::TimestampMs;
use tokio::time::Instant;

use crate::machine::Snapshot;
use crate::peers::SessionFact;

/// A purposeful restart is excused once in so long.
const GRACE_PERIOD_MS: u64 = 10 * 60 * 1_000;

#[derive(Clone, Copy, Debug)]
struct Heard {
    epoch: u64,
    at: Instant,
    applied: u64,
    leaving: Option<Leaving>,
}

#[derive(Debug)]
struct Ears {
    nodes: BTreeMap<NodeId, Heard>,
    /// When this manager became leader, or could hear again.
    elected: Instant,
}

/// The leader's ears. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Liveness {
    ears: Arc<Mutex<Ears>>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { ears: Arc::new(Mutex::new(Ears { nodes: BTreeMap::new(), elected: Instant::now() })) }
    }
}

impl Liveness {
    fn lock(&self) -> MutexGuard<'_, Ears> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new term of leadership: everybody gets the full time again.
    pub fn elected(&self) {
        *self.lock() = Ears { nodes: BTreeMap::new(), elected: Instant::now() };
    }

    /// This leader could hear nobody until now: silence counts from here.
    pub fn was_deaf(&self) {
        self.lock().elected = Instant::now();
    }

    /// Facts of one manager's sessions.
    pub fn absorb(&self, _from: MemberId, facts: &[SessionFact]) {
        let now = Instant::now();
        let mut ears = self.lock();
        for fact in facts {
            let at = now.checked_sub(Duration::from_millis(fact.silent_ms)).unwrap_or(now);
            let heard = ears.nodes.entry(fact.node).or_insert(Heard {
                epoch: fact.epoch,
                at,
                applied: fact.applied,
                leaving: fact.leaving,
            });
            if fact.epoch > heard.epoch {
                *heard = Heard { epoch: fact.epoch, at, applied: fact.applied, leaving: fact.leaving };
            } else if fact.epoch == heard.epoch {
                heard.at = heard.at.max(at);
                heard.applied = heard.applied.max(fact.applied);
                heard.leaving = heard.leaving.or(fact.leaving);
            }
        }
    }

    /// The least index in the kernels of all Ready nodes; the greatest number when there is none.
    pub fn settled(&self, snapshot: &Snapshot) -> u64 {
        let ears = self.lock();
        snapshot
            .state
            .nodes()
            .filter(|n| n.status.state == NodeState::Ready)
            .map(|n| ears.nodes.get(&n.id).filter(|h| h.epoch == n.session_epoch).map_or(0, |h| h.applied))
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Whether the manager with this Raft member id was heard as a node lately.
    pub fn is_reachable(&self, snapshot: &Snapshot, member: MemberId) -> bool {
        let ears = self.lock();
        snapshot
            .state
            .nodes()
            .find(|n| n.membership.member.0 == member.0)
            .and_then(|n| ears.nodes.get(&n.id))
            .is_some_and(|h| h.at.elapsed() < Duration::from_millis(HEARTBEAT_TIMEOUT_MS))
    }

    /// Which nodes change their state now, by the rules of DESIGN §4a.
    pub fn verdicts(&self, snapshot: &Snapshot, now: TimestampMs) -> Vec<Body> {
        let ears = self.lock();
        snapshot.state.nodes().filter_map(|node| verdict(&ears, node, now)).collect()
    }
}

fn verdict(ears: &Ears, node: &Node, now: TimestampMs) -> Option<Body> {
    if matches!(node.status.state, NodeState::Down | NodeState::Disconnected) {
        return None;
    }
    let heard = ears.nodes.get(&node.id).filter(|h| h.epoch == node.session_epoch);
    let set = |state, message: String, grace_until| {
        Some(Body::SetNodeState { node: node.id, epoch: node.session_epoch, state, message, grace_until })
    };
    match heard.and_then(|h| h.leaving) {
        Some(Leaving::Shutdown) => return set(NodeState::Down, "the host shut down".into(), TimestampMs(0)),
        Some(Leaving::Restart) if node.status.state == NodeState::Ready && may_be_excused(node, now) => {
            let until = now.after(Duration::from_millis(RESTART_GRACE_MS));
            return set(NodeState::Unknown, "the daemon restarts".into(), until);
        }
        _ => {}
    }
    if now < node.status.grace_until {
        return None;
    }
    let last = heard.map_or(ears.elected, |h| h.at.max(ears.elected));
    let admitted_ago = now.since(node.admitted);
    let silent = last.elapsed().min(admitted_ago);
    if silent < Duration::from_millis(HEARTBEAT_TIMEOUT_MS) {
        return None;
    }
    let text = format!("heartbeat failure: silent for {:.1} s", silent.as_secs_f64());
    set(NodeState::Down, text, TimestampMs(0))
}

fn may_be_excused(node: &Node, now: TimestampMs) -> bool {
    node.status.grace_at == TimestampMs(0) || now.since(node.status.grace_at).as_millis() >= u128::from(GRACE_PERIOD_MS)
}
