//! Three managers and five workers, from nothing to a cluster, and from ruins to rest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rswarm_manager::feed::everything;
use rswarm_manager::manager::predefined;
use rswarm_manager::orchestrate::{self, Scope};
use rswarm_manager::{Edge, Snapshot, token};
use rswarm_types::cluster::{JoinTokens, Meta, RootCa};
use rswarm_types::command::{Body, Caller};
use rswarm_types::limits::FEATURE_LEVEL;
use rswarm_types::node::{Membership, Node, NodeState};
use rswarm_types::spec::{Availability, ClusterSpec, NodeSpec, Role};
use rswarm_types::{MemberId, NodeId, RequestId};
use tokio::time::{Instant, sleep, timeout};

use super::dice::Dice;
use super::host::{CLUSTER, Host};
use super::kernel::wall;
use super::manager::Serving;
use super::network::{HostId, Network, Weather};
use super::trace::Trace;
use super::witness::Witness;
use crate::invariants::Violation;
use crate::invariants::i12_convergence::{self, Actual, World, unmet};

const MANAGERS: u8 = 3;
const WORKERS: u8 = 5;
/// Without faults a cluster forms in a second or two.
const FORM_WITHIN: Duration = Duration::from_secs(20);
/// I12's bound.
const CONVERGE_WITHIN: Duration = Duration::from_secs(15);
/// What has converged must stay so.
const STAYS_FOR: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(100);
/// Lines of what is unmet in a report.
const UNMET_SHOWN: usize = 8;

/// All hosts.
pub struct Cluster {
    pub hosts: Vec<Arc<Host>>,
    pub network: Network,
    pub witness: Witness,
    pub dice: Dice,
}

impl Cluster {
    pub fn new(dice: Dice, trace: Trace) -> Self {
        let witness = Witness::new(trace.clone());
        let network = Network::new(dice.fork(), trace);
        let roles = (0..MANAGERS + WORKERS).map(|n| if n < MANAGERS { Role::Manager } else { Role::Worker });
        let first = vec![HostId(0).address()];
        let hosts =
            (0..).zip(roles).map(|(n, role)| Host::new(HostId(n), role, first.clone(), &network, &witness, &dice));
        Self { hosts: hosts.collect(), network, witness, dice }
    }

    pub fn managers(&self) -> impl Iterator<Item = &Arc<Host>> {
        self.hosts.iter().filter(|h| h.role == Role::Manager)
    }

    /// The manager that leads, if one is sure of it.
    pub fn leader(&self) -> Option<Arc<Serving>> {
        self.managers().filter_map(|h| h.serving()).find(|s| s.core.consensus.leads())
    }

    /// Makes the cluster: the first manager begins it, the others are admitted, told their roles, and promoted.
    pub async fn form(&self) {
        let first = &self.hosts[0];
        first.found();
        first.start().await;
        let Some(serving) = first.serving() else { return };
        let formed = timeout(FORM_WITHIN, async {
            if let Err(error) = serving.raft.bootstrap(first.id.address().to_string()).await {
                return Err(error.to_string());
            }
            self.begin(first, &serving).await?;
            for host in &self.hosts[1..] {
                let body = Body::Admit {
                    node: host.node,
                    role: host.role,
                    key_hash: key_hash(host.node),
                    address: Some(host.id.ip()),
                    availability: Availability::Active,
                };
                serving.core.consensus.propose_own(body).await.map_err(|e| e.to_string())?;
                host.start().await;
            }
            while !self.is_formed() {
                sleep(LOOK).await;
            }
            Ok(())
        });
        let why = match formed.await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => "the cluster does not form".to_owned(),
        };
        self.witness.accuse(Violation::new("form", why));
    }

    async fn begin(&self, first: &Host, serving: &Serving) -> Result<(), String> {
        let root = RootCa { certificate: "the root of a simulation".into(), key: "none".into() };
        let tokens = JoinTokens {
            worker: token::make(&root.certificate, first.fresh()),
            manager: token::make(&root.certificate, first.fresh()),
        };
        let cluster = rswarm_types::cluster::Cluster {
            id: CLUSTER,
            meta: Meta::default(),
            spec: ClusterSpec::default(),
            root,
            tokens,
            era: 0,
            feature_level: FEATURE_LEVEL,
        };
        let member = MemberId(serving.raft.member().0);
        let node = Node {
            id: first.node,
            spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
            description: first.description(),
            membership: Membership { role: Role::Manager, member, is_voter: true, raft_lost: false },
            key_hash: key_hash(first.node),
            ..Node::default()
        };
        let (chance, trace) = (self.dice.fork(), self.network.trace().clone());
        let networks = predefined(&Edge::new(move || chance.wide(), move || wall(&trace)));
        let body = Body::Init { cluster: Box::new(cluster), node: Box::new(node), networks };
        let made = serving.core.consensus.propose(body, RequestId::default(), Caller::default()).await;
        made.map(drop).map_err(|error| error.to_string())
    }

    fn is_formed(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let state = leader.core.consensus.local().state;
        let is_settled = |n: &Arc<Node>| {
            n.status.state == NodeState::Ready && (n.spec.role == Role::Worker || n.membership.is_voter)
        };
        state.nodes().count() == self.hosts.len() && state.nodes().all(is_settled)
    }

    /// Ends all faults.
    pub async fn heal(&self) {
        self.network.trace().note("heal");
        self.network.set_weather(Weather::FINE);
        self.network.mend_all();
        for host in &self.hosts {
            host.kernel.trouble(false);
            host.start().await;
        }
    }

    /// Waits until everything is as wanted, and stays so; then compares with what was acknowledged.
    pub async fn settle(&self) {
        let healed = Instant::now();
        let mut since: Option<Instant> = None;
        loop {
            let unmet = self.unmet();
            match since {
                _ if !unmet.is_empty() => since = None,
                None => {
                    since = Some(Instant::now());
                    self.network
                        .trace()
                        .note(format!("converged {} ms after the last fault", healed.elapsed().as_millis()));
                }
                Some(since) if since.elapsed() >= STAYS_FOR => break,
                Some(_) => {}
            }
            if since.is_none() && healed.elapsed() >= CONVERGE_WITHIN {
                let more = unmet.len().saturating_sub(UNMET_SHOWN);
                let mut shown: Vec<String> = unmet.into_iter().take(UNMET_SHOWN).collect();
                if more > 0 {
                    shown.push(format!("and {more} more"));
                }
                let text = format!("not converged {CONVERGE_WITHIN:?} after the last fault:\n  {}", shown.join("\n  "));
                self.witness.accuse(Violation::new(i12_convergence::NAME, text));
                return;
            }
            sleep(LOOK).await;
        }
        for host in self.managers() {
            if let Some(serving) = host.serving() {
                self.witness.check_acknowledged(&host.name, &serving.core.consensus.local().state);
            }
        }
    }

    fn unmet(&self) -> Vec<String> {
        let Some(leader) = self.leader() else { return vec!["no manager leads".to_owned()] };
        let consensus = &leader.core.consensus;
        let snapshot = consensus.local();
        let mut all = self.managers_behind(&snapshot);
        let hosts: BTreeMap<NodeId, Actual> = self.hosts.iter().map(|h| (h.node, h.kernel.actual())).collect();
        let mut ids = || 1;
        let mut memory = orchestrate::Memory::default();
        let scope = everything(&snapshot.state);
        let plan =
            orchestrate::reconcile(&snapshot.state, &Scope::Dirty(&scope), consensus.now(), &mut ids, &mut memory);
        let left_to_decide = plan.changes.iter().map(|change| format!("{change:?}")).collect();
        all.extend(unmet(&World { state: &snapshot.state, left_to_decide, hosts: &hosts }));
        all
    }

    fn managers_behind(&self, leader: &Snapshot) -> Vec<String> {
        let mut unmet = Vec::new();
        for host in self.managers() {
            let Some(serving) = host.serving() else {
                unmet.push(format!("{} does not serve", host.name));
                continue;
            };
            let snapshot = serving.core.consensus.local();
            if let Some(fatal) = serving.raft.status().fatal {
                unmet.push(format!("{} stopped: {fatal}", host.name));
            }
            if snapshot.at != leader.at || snapshot.state.digest() != leader.state.digest() {
                unmet.push(format!("{} is at entry {}, the leader at {}", host.name, snapshot.at, leader.at));
            }
        }
        unmet
    }
}

fn key_hash(node: NodeId) -> [u8; 32] {
    let mut hash = [0; 32];
    hash[..16].copy_from_slice(&node.to_bytes());
    hash
}
