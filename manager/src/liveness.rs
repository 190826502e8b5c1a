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
use rswarm_types::session::{Leaving, Settled};
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
    /// When a node's newest session was first seen in the state: to open one is a sign of life, and what is heard of it
    /// comes later.
    opened: BTreeMap<NodeId, (u64, Instant)>,
    /// When this manager became leader, or could hear again.
    elected: Instant,
}

impl Ears {
    fn new() -> Self {
        Self { nodes: BTreeMap::new(), opened: BTreeMap::new(), elected: Instant::now() }
    }

    /// Since when a node is silent, at the least.
    fn silent_since(&mut self, node: &Node) -> Instant {
        let opened = self.opened.entry(node.id).or_insert_with(|| (node.session_epoch, Instant::now()));
        if opened.0 < node.session_epoch {
            *opened = (node.session_epoch, Instant::now());
        }
        let heard = self.nodes.get(&node.id).filter(|h| h.epoch == node.session_epoch);
        heard.map_or(opened.1, |h| h.at.max(opened.1)).max(self.elected)
    }
}

/// The leader's ears. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Liveness {
    ears: Arc<Mutex<Ears>>,
}

impl Default for Liveness {
    fn default() -> Self {
        Self { ears: Arc::new(Mutex::new(Ears::new())) }
    }
}

impl Liveness {
    fn lock(&self) -> MutexGuard<'_, Ears> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new term of leadership: everybody gets the full time again.
    pub fn elected(&self) {
        *self.lock() = Ears::new();
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

    /// The least index in the kernels of the Ready nodes that lead to a task that stops: of all for one in the routing
    /// mesh, of those on its networks for any other.
    pub fn settled(&self, snapshot: &Snapshot) -> Settled {
        let ears = self.lock();
        let applied = |n: &Arc<Node>| {
            let heard = ears.nodes.get(&n.id).filter(|h| h.epoch == n.session_epoch);
            (n.status.state == NodeState::Ready).then(|| heard.map_or(0, |h| h.applied))
        };
        let state = &snapshot.state;
        let on = |network| state.nodes_on_network(network).filter_map(applied).min().unwrap_or(u64::MAX);
        Settled {
            everywhere: state.nodes().filter_map(applied).min().unwrap_or(u64::MAX),
            // Nodes that came to the network after this state are not among those asked.
            networks: state.stopping_networks().map(|id| (id, on(id).min(state.index()))).collect(),
        }
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

    /// This leader was late by so much: that is its own silence, nobody else's.
    pub fn was_late(&self, by: Duration) {
        let now = Instant::now();
        let mut ears = self.lock();
        let later = |at: Instant| (at + by).min(now);
        ears.elected = later(ears.elected);
        ears.nodes.values_mut().for_each(|heard| heard.at = later(heard.at));
        ears.opened.values_mut().for_each(|(_, at)| *at = later(*at));
    }

    /// Which nodes change their state now, by the rules of DESIGN §4a.
    ///
    /// `leader` is this manager: while it leads, its own node is not silent, however late its own worker is.
    pub fn verdicts(&self, snapshot: &Snapshot, leader: MemberId, now: TimestampMs) -> Vec<Body> {
        let mut ears = self.lock();
        ears.opened.retain(|id, _| snapshot.state.node(*id).is_some());
        let verdict = |node: &Arc<Node>| verdict(&mut ears, node, node.membership.member.0 == leader.0, now);
        snapshot.state.nodes().filter_map(verdict).collect()
    }
}

fn verdict(ears: &mut Ears, node: &Node, is_leader: bool, now: TimestampMs) -> Option<Body> {
    let silent_since = ears.silent_since(node);
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
    if is_leader || now < node.status.grace_until {
        return None;
    }
    let admitted_ago = now.since(node.admitted);
    let silent = silent_since.elapsed().min(admitted_ago);
    if silent < Duration::from_millis(HEARTBEAT_TIMEOUT_MS) {
        return None;
    }
    let text = format!("heartbeat failure: silent for {:.1} s", silent.as_secs_f64());
    set(NodeState::Down, text, TimestampMs(0))
}

fn may_be_excused(node: &Node, now: TimestampMs) -> bool {
    node.status.grace_at == TimestampMs(0) || now.since(node.status.grace_at).as_millis() >= u128::from(GRACE_PERIOD_MS)
}

#[cfg(test)]
mod tests {
    use rswarm_types::command::{Caller, Command};
    use rswarm_types::node::NodeDescription;
    use rswarm_types::spec::NetworkSpec;
    use rswarm_types::{NetworkId, RequestId};

    use super::*;
    use crate::orchestrate::harness::{Lab, MANAGER, init, join_network, replicated};

    fn apply(snapshot: &mut Snapshot, index: u64, at: TimestampMs, body: Body) {
        let caller = Caller::default();
        let command = Command { at, wall: at, request: RequestId::default(), caller, needs_level: 1, body };
        snapshot.state.apply(index, &command, [0; 32]).result.unwrap();
    }

    fn open(snapshot: &mut Snapshot, index: u64, at: TimestampMs) {
        let body = Body::OpenSession {
            node: MANAGER,
            boot_id: "boot".into(),
            description: Box::new(NodeDescription::default()),
            address: None,
            raft_lost: false,
            sandboxes: Vec::new(),
        };
        apply(snapshot, index, at, body);
    }

    /// One node with a session opened at once, at entry 3.
    fn cluster() -> Snapshot {
        let mut snapshot = Snapshot::default();
        apply(&mut snapshot, 1, TimestampMs(1), init());
        open(&mut snapshot, 3, TimestampMs(1));
        snapshot
    }

    fn fact(epoch: u64) -> SessionFact {
        SessionFact { node: MANAGER, epoch, applied: 0, silent_ms: 0, leaving: None, is_open: true }
    }

    /// Manager 1 leads; the only node's is another one.
    fn verdicts(liveness: &Liveness, snapshot: &Snapshot, now: TimestampMs) -> Vec<Body> {
        liveness.verdicts(snapshot, MemberId(1), now)
    }

    async fn wait(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_just_opened_is_not_silence_although_nothing_was_heard_of_it() {
        let (liveness, mut snapshot) = (Liveness::default(), cluster());
        liveness.absorb(MemberId(1), &[fact(3)]);
        assert_eq!(verdicts(&liveness, &snapshot, TimestampMs(1)), []);
        wait(HEARTBEAT_TIMEOUT_MS * 5).await;
        let now = TimestampMs(1 + HEARTBEAT_TIMEOUT_MS * 5);
        assert_eq!(verdicts(&liveness, &snapshot, now).len(), 1, "the old session is silent");
        open(&mut snapshot, 9, now);
        assert_eq!(verdicts(&liveness, &snapshot, now), [], "the new one is not yet");
        wait(HEARTBEAT_TIMEOUT_MS - 1).await;
        assert_eq!(verdicts(&liveness, &snapshot, now), []);
        wait(1).await;
        assert_eq!(verdicts(&liveness, &snapshot, now).len(), 1, "nothing was ever heard of the new session");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_word_of_the_newest_session() {
        let (liveness, snapshot) = (Liveness::default(), cluster());
        let now = TimestampMs(HEARTBEAT_TIMEOUT_MS * 100);
        for _ in 0..10 {
            wait(HEARTBEAT_TIMEOUT_MS - 1).await;
            liveness.absorb(MemberId(1), &[fact(3)]);
            assert_eq!(verdicts(&liveness, &snapshot, now), []);
        }
        wait(HEARTBEAT_TIMEOUT_MS).await;
        assert_eq!(verdicts(&liveness, &snapshot, now).len(), 1);
        liveness.elected();
        assert_eq!(verdicts(&liveness, &snapshot, now), [], "a new leader counts from its election");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_is_not_down_while_it_leads_unless_it_says_goodbye() {
        let (liveness, snapshot) = (Liveness::default(), cluster());
        let leader = MemberId(snapshot.state.node(MANAGER).unwrap().membership.member.0);
        let other = MemberId(leader.0 + 1);
        liveness.absorb(leader, &[fact(3)]);
        let now = TimestampMs(HEARTBEAT_TIMEOUT_MS * 11);
        assert_eq!(liveness.verdicts(&snapshot, leader, now), []);
        wait(HEARTBEAT_TIMEOUT_MS * 10).await;
        assert_eq!(liveness.verdicts(&snapshot, leader, now), []);
        assert_eq!(liveness.verdicts(&snapshot, other, now).len(), 1, "another leader does not hear it");
        liveness.absorb(leader, &[SessionFact { leaving: Some(Leaving::Shutdown), ..fact(3) }]);
        assert_eq!(liveness.verdicts(&snapshot, leader, now).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_is_late_itself_does_not_count_that_as_silence() {
        let (liveness, snapshot) = (Liveness::default(), cluster());
        let now = TimestampMs(HEARTBEAT_TIMEOUT_MS * 100);
        let late = 700;
        wait(HEARTBEAT_TIMEOUT_MS).await;
        liveness.absorb(MemberId(1), &[fact(3)]);
        for _ in 0..HEARTBEAT_TIMEOUT_MS / 100 {
            assert_eq!(verdicts(&liveness, &snapshot, now), []);
            wait(100 + late).await;
            liveness.was_late(Duration::from_millis(late));
        }
        assert_eq!(verdicts(&liveness, &snapshot, now).len(), 1, "the rest of the time is the node's");
    }

    /// Reports that the node with this session has applied so much.
    fn applied(liveness: &Liveness, snapshot: &Snapshot, node: NodeId, applied: u64) {
        let epoch = snapshot.state.node(node).unwrap().session_epoch;
        liveness.absorb(MemberId(1), &[SessionFact { node, epoch, applied, ..fact(epoch) }]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_the_nodes_that_lead_to_the_task_and_for_no_others() {
        let mut lab = Lab::new(3);
        lab.network(70, NetworkSpec { name: "back".into(), ..NetworkSpec::default() });
        let mut spec = replicated("web", 2);
        join_network(&mut spec, "back");
        spec.task.placement.constraints = vec!["node.hostname != n4".into()];
        let web = lab.create(50, spec);
        lab.settle();
        assert_eq!(lab.running_nodes(web), [2, 3]);
        lab.stubborn.extend([NodeId(2), NodeId(3)]);
        lab.scale(web, 1);
        lab.settle();
        let snapshot = Snapshot { state: lab.state.clone(), ..Snapshot::default() };
        let stop_at = lab.tasks(web).iter().map(|task| task.stop_at).max().unwrap();
        let liveness = Liveness::default();
        for node in [MANAGER, NodeId(2), NodeId(3)] {
            applied(&liveness, &snapshot, node, stop_at);
        }
        applied(&liveness, &snapshot, NodeId(4), stop_at - 1);
        let back = NetworkId(70);
        assert!(lab.node(NodeId(4)).status.state == NodeState::Ready);
        assert_eq!(liveness.settled(&snapshot), Settled { everywhere: stop_at - 1, networks: vec![(back, stop_at)] });
    }
}
