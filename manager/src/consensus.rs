//! Commands in, answers out, on whichever manager one stands.
//!
//! A follower passes commands and read requests to the leader and reads its own state once that
//! has caught up. The leader stamps each command with cluster time, in log order, from one task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use prost::Message;
use rswarm_api::{Wire, pb};
use rswarm_raft::{LogPosition, MemberId, ProposeError as RaftProposeError};
use rswarm_types::command::{Answer, Body, Caller, Command};
use rswarm_types::limits::{FEATURE_LEVEL, MANAGER_STALE_MS};
use rswarm_types::{Refusal, RequestId, TimestampMs};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::edge::Edge;
use crate::engine::Engine;
use crate::feed::{Feed, Inbox};
use crate::machine::{Snapshot, encode};
use crate::peers::{Peers, Proposed};

/// Commands waiting for the leader's stamp; more wait in their callers.
const QUEUE_LENGTH: usize = 4_096;
/// How long a call goes on looking for a leader.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// Why a command was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was applied, and refused; nothing changed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nobody leads; it was not applied.
    #[error("no leader: {0}")]
    NoLeader(String),
    /// It may or may not have been applied.
    #[error("the outcome is unknown: {0}")]
    Uncertain(String),
    /// This manager stopped.
    #[error("this manager stopped: {0}")]
    Stopped(String),
}

/// Why the newest state could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no leader: {0}")]
pub struct ReadError(pub String);

/// Log index of an entry, and what applying it answered.
type Applied = (u64, Result<Answer, Refusal>);

struct Queued {
    command: Command,
    answer: oneshot::Sender<Result<Applied, RaftProposeError>>,
}

/// Cluster time of one term: from the last entry applied before it, at the pace of this host.
#[derive(Debug, Default)]
struct Clock {
    running: Option<(u64, TimestampMs, Instant)>,
    last: TimestampMs,
}

impl Clock {
    /// The time now; never smaller than what was read or applied before.
    fn read(&mut self, term: u64, applied: TimestampMs) -> TimestampMs {
        let (base, since) = match self.running {
            Some((t, base, since)) if t == term => (base, since),
            _ => {
                let since = Instant::now();
                self.running = Some((term, applied, since));
                self.last = applied;
                (applied, since)
            }
        };
        self.last = base.after(since.elapsed()).max(self.last).max(applied);
        self.last
    }
}

impl Inner {
    fn clock(&self) -> std::sync::MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn led_by_and_applied(&self) -> (u64, TimestampMs) {
        let current = self.current.borrow();
        (current.led_by, current.state.now())
    }
}

/// The replicated state, for reading and changing. Cheap to clone.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    engine: Arc<dyn Engine>,
    peers: Arc<dyn Peers>,
    current: watch::Receiver<Snapshot>,
    feed: Feed,
    edge: Edge,
    queue: mpsc::Sender<Queued>,
    clock: Mutex<Clock>,
}

impl Consensus {
    /// Starts the stamping task on `tasks`; it ends with `stop`.
    pub fn start(
        engine: Arc<dyn Engine>,
        peers: Arc<dyn Peers>,
        current: watch::Receiver<Snapshot>,
        feed: Feed,
        edge: Edge,
        tasks: &TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let (queue, receiver) = mpsc::channel(QUEUE_LENGTH);
        let inner = Arc::new(Inner { engine, peers, current, feed, edge, queue, clock: Mutex::default() });
        tasks.spawn(stamp(Arc::clone(&inner), receiver, stop));
        Self { inner }
    }

    /// This manager's state as it is, perhaps behind.
    pub fn local(&self) -> Snapshot {
        self.inner.current.borrow().clone()
    }

    /// A receiver of every new state.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.inner.current.clone()
    }

    /// A new subscriber of changes.
    pub fn subscribe(&self) -> Arc<Inbox> {
        self.inner.feed.subscribe()
    }

    /// The consensus engine underneath.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.inner.engine
    }

    /// Chance and wall time.
    pub fn edge(&self) -> &Edge {
        &self.inner.edge
    }

    /// Whether this manager leads and may propose: its own blank entry is applied.
    pub fn leads(&self) -> bool {
        let status = self.inner.engine.status();
        status.is_leader() && self.inner.current.borrow().led_by == status.term
    }

    /// Whether this manager leads with a majority, or heard the leader, lately enough.
    pub fn hears_leader(&self) -> bool {
        let status = self.inner.engine.status();
        // A leader that is the only voter is its own majority.
        if status.is_leader() && status.voters.len() == 1 {
            return true;
        }
        status.leader.is_some() && status.contact_ms.is_some_and(|ms| ms <= MANAGER_STALE_MS)
    }

    /// The leader's address, if one is known and it is not this manager.
    fn leader(&self) -> Option<SocketAddr> {
        let status = self.inner.engine.status();
        let (id, address) = status.leader?;
        (id != status.member).then(|| address.parse().ok()).flatten()
    }

    /// Cluster time as the leader would stamp it now; on a follower the last one applied.
    pub fn now(&self) -> TimestampMs {
        let term = self.inner.engine.status().term;
        let (led_by, applied) = self.inner.led_by_and_applied();
        if self.leads() && led_by == term { self.inner.clock().read(term, applied) } else { applied }
    }

    /// Proposes and waits until it is applied on the leader and here.
    ///
    /// Retries over leader changes for ten seconds: the request id (or the body's own idempotence)
    /// makes that safe.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose(&self, body: Body, request: RequestId, caller: Caller) -> Result<(u64, Answer), ProposeError> {
        let command =
            Command { at: TimestampMs(0), wall: TimestampMs(0), request, caller, needs_level: FEATURE_LEVEL, body };
        let deadline = Instant::now() + PATIENCE;
        let mut sent = false;
        loop {
            let problem = match self.try_propose(command.clone(), &mut sent).await {
                Ok((index, result)) => {
                    let answer = result?;
                    self.wait_applied(index, deadline).await;
                    return Ok((index, answer));
                }
                Err(problem) => problem,
            };
            if let Some(fatal) = self.inner.engine.status().fatal {
                return Err(ProposeError::Stopped(fatal));
            }
            if Instant::now() >= deadline {
                return Err(if sent { ProposeError::Uncertain(problem) } else { ProposeError::NoLeader(problem) });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// One of the system's own commands: no request id, this node as the caller.
    ///
    /// # Errors
    /// See [`ProposeError`].
    pub async fn propose_own(&self, body: Body) -> Result<(u64, Answer), ProposeError> {
        self.propose(body, RequestId::default(), Caller::default()).await
    }

    async fn try_propose(&self, command: Command, sent: &mut bool) -> Result<Applied, String> {
        if self.leads() {
            return self.enqueue(command, sent).await;
        }
        let Some(leader) = self.leader() else { return Err(self.describe_absence()) };
        match self.inner.peers.propose(leader, command).await {
            Ok(Proposed::Applied { index, result }) => Ok((index, result)),
            Ok(Proposed::NotLeader) => Err(format!("{leader} does not lead any more")),
            Err(error) => {
                *sent = true;
                Err(error.to_string())
            }
        }
    }

    async fn enqueue(&self, command: Command, sent: &mut bool) -> Result<Applied, String> {
        let (answer, receiver) = oneshot::channel();
        if self.inner.queue.send(Queued { command, answer }).await.is_err() {
            return Err("this manager stops".into());
        }
        match receiver.await {
            Ok(Ok(applied)) => Ok(applied),
            Ok(Err(RaftProposeError::NotLeader { .. })) => Err("this manager does not lead any more".into()),
            Ok(Err(error)) => {
                *sent = true;
                Err(error.to_string())
            }
            Err(_) => Err("this manager stops".into()),
        }
    }

    /// Proposes here and only here: what a peer passed on.
    ///
    /// # Errors
    /// The text says why there is no answer.
    pub async fn propose_here(&self, command: Command) -> Result<Proposed, String> {
        if !self.leads() {
            return Ok(Proposed::NotLeader);
        }
        let mut sent = false;
        match self.enqueue(command, &mut sent).await {
            Ok((index, result)) => Ok(Proposed::Applied { index, result }),
            Err(_) if !sent => Ok(Proposed::NotLeader),
            Err(problem) => Err(problem),
        }
    }

    /// The commit index after a quorum confirmed that this manager leads; `None` = it does not.
    pub async fn read_index_here(&self) -> Option<u64> {
        if !self.leads() {
            return None;
        }
        self.inner.engine.read_index().await.ok()
    }

    /// A state that holds every change acknowledged before the call.
    ///
    /// # Errors
    /// When no leader could be confirmed within ten seconds.
    pub async fn read(&self) -> Result<Snapshot, ReadError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let problem = match self.read_index().await {
                Ok(index) => {
                    if self.wait_applied(index, deadline).await {
                        return Ok(self.local());
                    }
                    format!("this manager is behind: entry {index} is not applied yet")
                }
                Err(problem) => problem,
            };
            if Instant::now() >= deadline {
                return Err(ReadError(problem));
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn read_index(&self) -> Result<u64, String> {
        if self.leads() {
            return self.inner.engine.read_index().await.map_err(|e| e.to_string());
        }
        let Some(leader) = self.leader() else { return Err(self.describe_absence()) };
        match self.inner.peers.read_index(leader).await {
            Ok(Some(index)) => Ok(index),
            Ok(None) => Err(format!("{leader} does not lead any more")),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn wait_applied(&self, index: u64, deadline: Instant) -> bool {
        let mut current = self.inner.current.clone();
        tokio::time::timeout_at(deadline, current.wait_for(|s| s.at.index >= index)).await.is_ok_and(|r| r.is_ok())
    }

    fn describe_absence(&self) -> String {
        let status = self.inner.engine.status();
        if let Some(fatal) = status.fatal {
            return format!("this manager stopped: {fatal}");
        }
        let others: Vec<&str> =
            status.voters.iter().filter(|(id, _)| **id != status.member).map(|(_, a)| a.as_str()).collect();
        format!(
            "writes need {} of {} managers; this one hears from no leader (the others: {})",
            status.voters.len() / 2 + 1,
            status.voters.len(),
            if others.is_empty() { "none".to_owned() } else { others.join(", ") }
        )
    }

    /// This member's id.
    pub fn member(&self) -> MemberId {
        self.inner.engine.status().member
    }
}

type InFlight = BoxFuture<'static, ()>;

/// Stamps commands in the order in which they enter the log: each is handed to the engine before
/// the next gets its time.
async fn stamp(inner: Arc<Inner>, mut queue: mpsc::Receiver<Queued>, stop: CancellationToken) {
    let mut in_flight: FuturesUnordered<InFlight> = FuturesUnordered::new();
    loop {
        let queued = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            Some(()) = in_flight.next(), if !in_flight.is_empty() => continue,
            queued = queue.recv() => queued,
        };
        let Some(Queued { mut command, answer }) = queued else { return };
        let status = inner.engine.status();
        let (led_by, applied) = inner.led_by_and_applied();
        if !status.is_leader() || led_by != status.term {
            // The caller looks for the new leader.
            let _ = answer.send(Err(RaftProposeError::NotLeader { leader: status.leader }));
            continue;
        }
        command.at = inner.clock().read(status.term, applied);
        command.wall = inner.edge.wall();
        let mut proposal = inner.engine.propose(encode(&command));
        let now = (&mut proposal).now_or_never();
        let finish = move |outcome: Result<(LogPosition, Bytes), RaftProposeError>| {
            // A caller that went away does not want the answer.
            let _ = answer.send(outcome.and_then(|(at, bytes)| Ok((at.index, decode_answer(&bytes)?))));
        };
        match now {
            Some(outcome) => finish(outcome),
            None => in_flight.push(Box::pin(async move { finish(proposal.await) })),
        }
    }
}

fn decode_answer(bytes: &[u8]) -> Result<Result<Answer, Refusal>, RaftProposeError> {
    pb::AnswerOrRefusal::decode(bytes)
        .map_err(|e| e.to_string())
        .and_then(|pb| Wire::from_pb(pb).map_err(|e| e.to_string()))
        .map_err(|reason| RaftProposeError::Uncertain { reason })
}
