//! What a member knows about itself and the others.

use std::collections::BTreeMap;

use futures::FutureExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{AsyncRuntime, Instant, RaftMetrics, ServerState};

use crate::handle::Raft;
use crate::member::{LogPosition, MemberId, keeps_quorum_without};
use crate::types::{TypeConfig, membership, position};

/// What a member is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads: proposals and linearizable reads go through it.
    Leader,
    /// It seeks election.
    Candidate,
    /// It votes and follows.
    Follower,
    /// It has no vote: it was just added, or removed, or its cluster has not begun.
    Learner,
    /// It was shut down, or has failed for good.
    Stopped,
}

/// How far a peer is, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last entry that it is known to hold durably.
    pub matched: Option<LogPosition>,
    /// How long ago it was last heard from, in milliseconds.
    pub contact_ms: Option<u64>,
}

/// A member's view at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// This member.
    pub member: MemberId,
    /// Its term.
    pub term: u64,
    /// What it is.
    pub role: Role,
    /// The leader that it knows of, and its address.
    pub leader: Option<(MemberId, String)>,
    /// The index of its last entry.
    pub last_log: Option<u64>,
    /// The last entry that it knows to be committed.
    pub committed: Option<LogPosition>,
    /// The last entry given to the state machine.
    pub applied: Option<LogPosition>,
    /// The last entry in its snapshot.
    pub snapshot: Option<LogPosition>,
    /// The last entry that is gone from its log.
    pub purged: Option<LogPosition>,
    /// The voters and their addresses. During a change both the old and the new ones.
    pub voters: BTreeMap<MemberId, String>,
    /// The members without a vote.
    pub learners: BTreeMap<MemberId, String>,
    /// Whether a change of the voters is half way.
    pub changing: bool,
    /// How long ago a majority last answered (leader), or the leader was last heard (others), in milliseconds.
    pub contact_ms: Option<u64>,
    /// How far the others are; empty unless this member leads.
    pub progress: BTreeMap<MemberId, Progress>,
    /// Why it has stopped for good, with the file's path when a disk is the reason.
    pub fatal: Option<String>,
}

impl Status {
    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether the cluster keeps a majority of voters that answered within `within_ms` once `removed` is no voter.
    ///
    /// Only a leader can tell; elsewhere the answer is no.
    pub fn can_lose(&self, removed: MemberId, within_ms: u64) -> bool {
        let recent = |id: MemberId| {
            let contact = self.progress.get(&id).and_then(|progress| progress.contact_ms);
            id == self.member || contact.is_some_and(|ms| ms <= within_ms)
        };
        self.is_leader() && keeps_quorum_without(&self.voters, recent, removed)
    }
}

impl<R: AsyncRuntime> Raft<R> {
    /// The view at this moment. Cheap, never waits.
    pub fn status(&self) -> Status {
        let metrics = self.inner.engine.metrics();
        let metrics = metrics.borrow_watched();
        self.status_of(&metrics)
    }

    /// Tells of changes to [`Self::status`] from this call on.
    pub fn watch(&self) -> StatusWatch<R> {
        let mut metrics = self.inner.engine.metrics();
        // The engine gives a copy of a receiver that has seen nothing yet: to it everything is new.
        let _ = metrics.changed().now_or_never();
        StatusWatch { metrics, raft: self.clone() }
    }

    fn status_of(&self, metrics: &RaftMetrics<TypeConfig<R>>) -> Status {
        let members = membership(metrics.membership_config.membership());
        let address = |id: &MemberId| members.voters.get(id).or_else(|| members.learners.get(id)).cloned();
        let fatal = self.fatal(metrics.running_state.as_ref().err());
        let stopped = fatal.is_some() || metrics.running_state.is_err();
        let role = match metrics.state {
            _ if stopped => Role::Stopped,
            ServerState::Leader => Role::Leader,
            ServerState::Candidate => Role::Candidate,
            ServerState::Follower => Role::Follower,
            ServerState::Learner => Role::Learner,
            ServerState::Shutdown => Role::Stopped,
        };
        let elapsed = |elapsed: std::time::Duration| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let contact_ms = match role {
            Role::Leader => metrics.last_quorum_acked.as_ref().map(|acked| elapsed(acked.elapsed())),
            _ => self.last_heard().map(|heard| elapsed(heard.elapsed())),
        };
        let mut progress = BTreeMap::new();
        for (id, matched) in metrics.replication.iter().flatten().filter(|_| role == Role::Leader) {
            let heard = metrics.heartbeat.as_ref().and_then(|all| all.get(id)).and_then(Option::as_ref);
            let contact_ms = heard.map(|heard| elapsed(heard.elapsed()));
            progress.insert(MemberId(*id), Progress { matched: matched.as_ref().map(position), contact_ms });
        }
        let leader = metrics.current_leader.map(MemberId).filter(|_| !stopped);
        Status {
            member: MemberId(metrics.id),
            term: metrics.current_term,
            role,
            leader: leader.map(|id| (id, address(&id).unwrap_or_default())),
            last_log: metrics.last_log_index,
            committed: metrics.local_committed.as_ref().map(position),
            applied: metrics.last_applied.as_ref().map(position),
            snapshot: metrics.snapshot.as_ref().map(position),
            purged: metrics.purged.as_ref().map(position),
            changing: members.changing,
            contact_ms,
            progress,
            fatal,
            voters: members.voters,
            learners: members.learners,
        }
    }
}

/// Waits for changes of a [`Status`].
pub struct StatusWatch<R: AsyncRuntime> {
    metrics: WatchReceiverOf<TypeConfig<R>, RaftMetrics<TypeConfig<R>>>,
    raft: Raft<R>,
}

impl<R: AsyncRuntime> StatusWatch<R> {
    /// The view now.
    pub fn status(&self) -> Status {
        self.raft.status()
    }

    /// Waits for the next change; `None` once the member has ended, after which there is none.
    ///
    /// # Cancel safety
    /// A change that nobody waited for is reported by the next call.
    pub async fn changed(&mut self) -> Option<Status> {
        self.metrics.changed().await.ok()?;
        Some(self.raft.status())
    }

    /// Waits until `wanted` holds; `None` if the member ends before.
    ///
    /// # Cancel safety
    /// May be called again.
    pub async fn until(&mut self, wanted: impl Fn(&Status) -> bool + Send) -> Option<Status> {
        let mut status = self.raft.status();
        while !wanted(&status) {
            if status.role == Role::Stopped {
                return None;
            }
            status = self.changed().await?;
        }
        Some(status)
    }
}
