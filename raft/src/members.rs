//! Changing who takes part: one member at a time, on the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::error::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{AsyncRuntime, BasicNode, ChangeMembers};

use crate::handle::{Raft, leader};
use crate::limits::{CHANGE_RETRY_MS, CHANGE_WAIT_MS, PROMOTION_LAG};
use crate::member::{LogPosition, MemberId};
use crate::status::Status;
use crate::types::position;

/// Why the membership did not change, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// This member does not lead; nothing changed.
    #[error("this member does not lead")]
    NotLeader {
        /// Who leads, if known.
        leader: Option<(MemberId, String)>,
    },
    /// Another change is under way, or the leader is too new; nothing changed. Try again.
    #[error("another membership change is under way")]
    InProgress,
    /// Nobody has this id; nothing changed.
    #[error("there is no member {0}")]
    Unknown(MemberId),
    /// The member must first hold nearly all of the log; nothing changed.
    #[error("member {member} is {behind} entries behind, allowed: {PROMOTION_LAG}")]
    Behind {
        /// The learner.
        member: MemberId,
        /// How many entries it lacks.
        behind: u64,
    },
    /// The last voter stays; nothing changed.
    #[error("member {0} is the only voter")]
    LastVoter(MemberId),
    /// The member was not heard of lately, so it cannot take over; nothing changed.
    #[error("member {0} does not answer")]
    Silent(MemberId),
    /// Not done in time; it may still happen.
    #[error("not done within {0:?}")]
    Late(Duration),
    /// Nobody knows; look at the status of the leader.
    #[error("the outcome is unknown: {0}")]
    Uncertain(String),
    /// The member has stopped; nothing changed.
    #[error("the raft member has stopped: {0}")]
    Stopped(String),
}

impl<R: AsyncRuntime> Raft<R> {
    /// Adds a member without a vote, reached at `address`; it begins to receive the log.
    ///
    /// As all changes, it waits until a majority has committed it: the caller sets the deadline.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn add_learner(&self, member: MemberId, address: String) -> Result<LogPosition, ChangeError> {
        let node = BTreeMap::from([(member.0, BasicNode { addr: address })]);
        self.change(ChangeMembers::AddNodes(node), true).await
    }

    /// Waits until a member holds nearly all of the log.
    ///
    /// # Errors
    /// When it does not within `within`, or this member ceases to lead.
    pub async fn wait_caught_up(&self, member: MemberId, within: Duration) -> Result<(), ChangeError> {
        let mut watch = self.watch();
        let caught_up = watch.until(|status| !status.is_leader() || behind(status, member) <= PROMOTION_LAG);
        match R::timeout(within, caught_up).await {
            Ok(Some(status)) if status.is_leader() => Ok(()),
            Ok(Some(status)) => Err(ChangeError::NotLeader { leader: status.leader }),
            Ok(None) => Err(ChangeError::Stopped(self.stopped().unwrap_or_default())),
            Err(_) => Err(ChangeError::Late(within)),
        }
    }

    /// Gives a learner a vote. It must have caught up, or commits would wait for it.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn promote_to_voter(&self, member: MemberId) -> Result<LogPosition, ChangeError> {
        let status = self.leading()?;
        if !status.voters.contains_key(&member) {
            if !status.learners.contains_key(&member) {
                return Err(ChangeError::Unknown(member));
            }
            let behind = behind(&status, member);
            if behind > PROMOTION_LAG {
                return Err(ChangeError::Behind { member, behind });
            }
        }
        self.change(ChangeMembers::AddVoterIds(BTreeSet::from([member.0])), true).await
    }

    /// Takes a member out, voter or not. Whether the rest keeps a majority that answers is for the caller to ask
    /// first: [`Status::can_lose`]. A leader that removes itself leads until that is committed, then hands over.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn remove_member(&self, member: MemberId) -> Result<LogPosition, ChangeError> {
        let status = self.leading()?;
        let ids = BTreeSet::from([member.0]);
        if status.voters.contains_key(&member) {
            if status.voters.len() == 1 {
                return Err(ChangeError::LastVoter(member));
            }
            return self.change(ChangeMembers::RemoveVoters(ids), false).await;
        }
        if status.learners.contains_key(&member) {
            return self.change(ChangeMembers::RemoveNodes(ids), true).await;
        }
        Err(ChangeError::Unknown(member))
    }

    /// Ends a change of the voters that a former leader left half way. Does nothing if there is none.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn settle_membership(&self) -> Result<(), ChangeError> {
        if self.leading()?.changing {
            self.change_raw(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await?;
        }
        Ok(())
    }

    /// Hands leadership to a voter, and waits until it leads. Until then no proposal is accepted; should the voter
    /// fail meanwhile, the others elect somebody.
    ///
    /// # Errors
    /// See [`ChangeError`].
    pub async fn transfer_leader(&self, to: MemberId, within: Duration) -> Result<(), ChangeError> {
        let status = self.leading()?;
        if !status.voters.contains_key(&to) {
            return Err(ChangeError::Unknown(to));
        }
        if to == status.member {
            return Ok(());
        }
        let contact_ms = status.progress.get(&to).and_then(|progress| progress.contact_ms);
        if contact_ms.is_none_or(|ms| ms > self.inner.config.election_max_ms) {
            return Err(ChangeError::Silent(to));
        }
        if let Err(fatal) = self.inner.engine.trigger().transfer_leader(to.0).await {
            return Err(ChangeError::Stopped(self.reason(&fatal)));
        }
        let mut watch = self.watch();
        let led = |status: &Status| status.leader.as_ref().is_some_and(|(id, _)| *id != status.member);
        match R::timeout(within, watch.until(led)).await {
            Ok(Some(status)) if status.leader.as_ref().is_some_and(|(id, _)| *id == to) => Ok(()),
            Ok(Some(status)) => Err(ChangeError::NotLeader { leader: status.leader }),
            Ok(None) => Err(ChangeError::Stopped(self.stopped().unwrap_or_default())),
            Err(_) => Err(ChangeError::Late(within)),
        }
    }

    fn leading(&self) -> Result<Status, ChangeError> {
        let status = self.status();
        if let Some(reason) = self.stopped() {
            return Err(ChangeError::Stopped(reason));
        }
        if status.is_leader() { Ok(status) } else { Err(ChangeError::NotLeader { leader: status.leader }) }
    }

    async fn change(&self, change: ChangeMembers<u64, BasicNode>, retain: bool) -> Result<LogPosition, ChangeError> {
        for _ in 0..CHANGE_WAIT_MS / CHANGE_RETRY_MS {
            let settled = self.settle_membership().await;
            let changed = match settled {
                Ok(()) => self.change_raw(change.clone(), retain).await,
                Err(error) => Err(error),
            };
            if changed != Err(ChangeError::InProgress) {
                return changed;
            }
            R::sleep(Duration::from_millis(CHANGE_RETRY_MS)).await;
        }
        Err(ChangeError::InProgress)
    }

    async fn change_raw(
        &self,
        change: ChangeMembers<u64, BasicNode>,
        retain: bool,
    ) -> Result<LogPosition, ChangeError> {
        let error = match self.inner.engine.change_membership(change, retain).await {
            Ok(done) => return Ok(position(&done.log_id)),
            Err(RaftError::Fatal(fatal)) => return Err(ChangeError::Uncertain(self.reason(&fatal))),
            Err(RaftError::APIError(error)) => error,
        };
        Err(match error {
            ClientWriteError::ForwardToLeader(forward) => ChangeError::NotLeader { leader: leader(forward) },
            ClientWriteError::ChangeMembershipError(
                ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
            ) => ChangeError::InProgress,
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::LearnerNotFound(missing)) => {
                ChangeError::Unknown(MemberId(missing.node_id))
            }
            other => ChangeError::Uncertain(other.to_string()),
        })
    }
}

/// How many entries a member lacks; all of them if nothing was heard of it.
fn behind(status: &Status, member: MemberId) -> u64 {
    let length = status.last_log.map_or(0, |last| last + 1);
    let matched = status.progress.get(&member).and_then(|progress| progress.matched);
    match matched {
        _ if member == status.member => 0,
        Some(matched) => length.saturating_sub(matched.index + 1),
        None => u64::MAX,
    }
}
