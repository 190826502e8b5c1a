//! One session, from `Open` to its end. Knows no transport: messages come and go by channels.

use std::net::IpAddr;
use std::time::Duration;

use rswarm_api::identity::Identity;
use rswarm_types::NodeId;
use rswarm_types::assignment::Assignments;
use rswarm_types::command::{Answer, Body};
use rswarm_types::delta::Delta;
use rswarm_types::limits::MANAGER_STALE_MS;
use rswarm_types::node::NodeState;
use rswarm_types::session::{CloseReason, Down, Open, Up};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Sessions;
use crate::assign::assignments;
use crate::consensus::{Consensus, ProposeError};
use crate::machine::Snapshot;

/// A session that says nothing for so long is closed here; its node's fate is the leader's to decide.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How often a session looks whether its manager went stale.
const CHECK_PERIOD: Duration = Duration::from_millis(250);
/// Another boot of the same node counts as alive for so long after its last heartbeat.
const CLONE_WINDOW_MS: u128 = 1_500;

/// A worker that has connected.
pub struct Arrival {
    pub identity: Identity,
    pub address: Option<IpAddr>,
    pub up: mpsc::Receiver<Up>,
    pub down: mpsc::Sender<Down>,
}

/// Why a session ended: told to the worker, if it still listens.
struct End(CloseReason, String);

/// Serves one worker until either side ends it.
pub async fn serve(consensus: Consensus, sessions: Sessions, mut arrival: Arrival, stop: CancellationToken) {
    let Some(Up::Open(open)) = arrival.up.recv().await else { return };
    let node = open.node;
    let end = match admit(&consensus, &sessions, &arrival, *open).await {
        Ok(session) => {
            let epoch = session.epoch;
            let end = session.run(&mut arrival, stop).await;
            sessions.close(node, epoch);
            end
        }
        Err(end) => end,
    };
    if let Some(End(reason, message)) = end {
        tracing::info!(node.id = %node, ?reason, message, "session ended");
        // A worker that is gone does not hear it.
        let _ = arrival.down.send(Down::Closed { reason, message }).await;
    }
}

async fn admit(
    consensus: &Consensus,
    sessions: &Sessions,
    arrival: &Arrival,
    open: Open,
) -> Result<Session, Option<End>> {
    let stale = |text: String| Some(End(CloseReason::Stale, text));
    let node = open.node;
    if arrival.identity.node != node {
        let text = format!("the certificate is node {}'s, the session node {node}'s", arrival.identity.node);
        return Err(Some(End(CloseReason::Removed, text)));
    }
    // A manager opens sessions only with a state that was confirmed since its start.
    let snapshot = consensus.read().await.map_err(|e| stale(e.to_string()))?;
    if snapshot.state.cluster().is_none() {
        return Err(stale("this manager's cluster is still being made".into()));
    }
    if snapshot.state.node(node).is_none() {
        return Err(Some(removed(node)));
    }
    if open.applied > snapshot.log_id() {
        // The worker tries the next manager.
        let _ = arrival.down.send(Down::Behind { at: snapshot.log_id() }).await;
        return Err(None);
    }
    if sessions.is_alive_elsewhere(node, &open.boot_id, CLONE_WINDOW_MS) {
        let text = format!(
            "another daemon with the identity of node {node} is alive: a copied data folder? \
             empty this node's data folder and join again"
        );
        return Err(Some(End(CloseReason::Clone, text)));
    }
    let applied = open.applied.index;
    let body = Body::OpenSession {
        node,
        boot_id: open.boot_id.clone(),
        description: Box::new(open.description),
        address: arrival.address,
        raft_lost: open.raft_lost,
        sandboxes: open.sandboxes,
    };
    let epoch = match consensus.propose_own(body).await {
        Ok((_, Answer::Epoch(epoch))) => epoch,
        Ok((index, _)) => index,
        Err(ProposeError::Refused(refusal)) => {
            return Err(Some(End(CloseReason::Removed, refusal.to_string())));
        }
        Err(error) => return Err(stale(error.to_string())),
    };
    sessions.insert(node, epoch, open.boot_id, applied, arrival.down.clone());
    tracing::info!(node.id = %node, epoch, "session opened");
    Ok(Session { consensus: consensus.clone(), sessions: sessions.clone(), node, epoch, sent: None, acked: 0 })
}

fn removed(node: NodeId) -> End {
    End(CloseReason::Removed, format!("node {node} was removed from the cluster; join it again with: rswarm join"))
}

struct Session {
    consensus: Consensus,
    sessions: Sessions,
    node: NodeId,
    epoch: u64,
    /// The assignments as the worker has them once it has read all that was sent, and the index at which they
    /// were last found to be right.
    sent: Option<(Assignments, u64)>,
    /// The index that the worker said it applied.
    acked: u64,
}

impl Session {
    async fn run(mut self, arrival: &mut Arrival, stop: CancellationToken) -> Option<End> {
        let inbox = self.consensus.subscribe();
        let mut settled = self.sessions.settled();
        let mut check = tokio::time::interval(CHECK_PERIOD);
        let mut heard = Instant::now();
        let mut contact = Instant::now();
        let mut told = None;
        if arrival.down.send(Down::Opened { epoch: self.epoch }).await.is_err() {
            return None;
        }
        if let Err(end) = self.push(arrival, &mut told).await {
            return end;
        }
        loop {
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => return Some(End(CloseReason::Stale, "this manager stops".into())),
                up = arrival.up.recv() => match up {
                    None => return None,
                    Some(up) => {
                        heard = Instant::now();
                        self.take(up, arrival).await
                    }
                },
                _ = inbox.changed() => self.push(arrival, &mut told).await,
                Ok(()) = settled.changed() => {
                    let settled = settled.borrow_and_update().clone();
                    send(arrival, Down::Settled(settled)).await
                }
                _ = check.tick() => {
                    if self.consensus.hears_leader() {
                        contact = Instant::now();
                    }
                    if heard.elapsed() > SILENCE_MAX {
                        return None;
                    }
                    if contact.elapsed() > Duration::from_millis(MANAGER_STALE_MS) {
                        let text = "this manager hears from no leader".to_owned();
                        return Some(End(CloseReason::Stale, text));
                    }
                    Ok(())
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn take(&mut self, up: Up, arrival: &Arrival) -> Result<(), Option<End>> {
        self.sessions.heard(self.node, self.epoch);
        match up {
            Up::Heartbeat => Ok(()),
            Up::Open(_) => Err(Some(End(CloseReason::Stale, "a session is opened once".into()))),
            Up::Applied { index } => {
                self.acked = self.acked.max(index);
                self.note_applied(index);
                Ok(())
            }
            Up::GoingAway(leaving) => {
                self.sessions.leaves(self.node, self.epoch, leaving);
                Ok(())
            }
            Up::Statuses { number, statuses } => {
                let body = Body::Report { node: self.node, epoch: self.epoch, statuses };
                match self.consensus.propose_own(body).await {
                    Ok(_) => send(arrival, Down::Reported { number }).await,
                    // It resends: nothing is lost.
                    Err(error) => {
                        tracing::warn!(node.id = %self.node, %error, "report not taken");
                        Ok(())
                    }
                }
            }
            Up::Describe(description) => {
                let body = Body::DescribeNode { node: self.node, description };
                if let Err(error) = self.consensus.propose_own(body).await {
                    tracing::warn!(node.id = %self.node, %error, "description not taken");
                }
                Ok(())
            }
        }
    }

    /// The worker has what was sent; tables that did not change since are in its kernel too.
    fn note_applied(&self, index: u64) {
        let effective = match &self.sent {
            Some((_, computed)) if self.acked >= self.last_sent_index() => (*computed).max(index),
            _ => index,
        };
        self.sessions.applied(self.node, self.epoch, effective);
    }

    fn last_sent_index(&self) -> u64 {
        self.sent.as_ref().map_or(u64::MAX, |(a, _)| a.log_id.index)
    }

    /// Sends what changed of the assignments, all of them the first time, and orders about the node itself.
    async fn push(&mut self, arrival: &Arrival, told: &mut Option<Down>) -> Result<(), Option<End>> {
        let snapshot = self.consensus.local();
        let (orders, assigned) = self.compute(&snapshot)?;
        if told.as_ref() != Some(&orders) {
            send(arrival, orders.clone()).await?;
            *told = Some(orders);
        }
        let at = assigned.log_id.index;
        let Some((last, computed)) = &mut self.sent else {
            self.sent = Some((assigned.clone(), at));
            return send(arrival, Down::Assignments(Box::new(assigned))).await;
        };
        let delta = Delta::between(last, &assigned);
        if delta.is_empty(last) {
            *computed = at;
            if self.acked >= last.log_id.index {
                self.sessions.applied(self.node, self.epoch, at);
            }
            return Ok(());
        }
        self.sent = Some((assigned, at));
        send(arrival, Down::Changes(Box::new(delta))).await
    }

    fn compute(&self, snapshot: &Snapshot) -> Result<(Down, Assignments), Option<End>> {
        let Some(node) = snapshot.state.node(self.node) else { return Err(Some(removed(self.node))) };
        if node.session_epoch > self.epoch {
            let text = "a newer session of this node is open".to_owned();
            return Err(Some(End(CloseReason::Superseded, text)));
        }
        if node.session_epoch == self.epoch && node.status.state == NodeState::Down {
            // The leader heard nothing of this session: only a new one makes the node Ready again.
            let text = format!("the cluster counts this node as down ({}); open a new session", node.status.message);
            return Err(Some(End(CloseReason::Stale, text)));
        }
        let orders =
            Down::Node { role: node.membership.role, member: node.membership.member, control: node.spec.control };
        let assigned = assignments(snapshot, self.node).ok_or_else(|| Some(removed(self.node)))?;
        Ok((orders, assigned))
    }
}

async fn send(arrival: &Arrival, message: Down) -> Result<(), Option<End>> {
    arrival.down.send(message).await.map_err(|_| None)
}
