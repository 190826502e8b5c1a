//! The consensus engine as the rest of the manager sees it, whatever runtime it runs on.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rswarm_raft::{AsyncRuntime, ChangeError, LogPosition, MemberId, ProposeError, Raft, ReadError, Status};

/// A new member may take so long to fetch the log before it is tried again.
const CATCH_UP: Duration = Duration::from_secs(30);
/// A planned hand-over takes well under a second, or does not happen.
const TRANSFER: Duration = Duration::from_secs(1);

/// Raft, with its runtime (tokio's or the simulator's) hidden.
pub trait Engine: Send + Sync + 'static {
    fn status(&self) -> Status;
    /// Resolves after the status next changes, counted from this call: made before a look at the status, it misses
    /// nothing.
    fn changed(&self) -> BoxFuture<'static, ()>;
    fn propose(&self, command: Bytes) -> BoxFuture<'static, Result<(LogPosition, Bytes), ProposeError>>;
    /// The commit index, once a quorum confirmed that this member leads.
    fn read_index(&self) -> BoxFuture<'static, Result<u64, ReadError>>;
    /// A message of a peer; gives the answer.
    fn handle(&self, message: Bytes) -> BoxFuture<'static, Bytes>;
    fn add_learner(&self, id: MemberId, address: String) -> BoxFuture<'static, Result<(), ChangeError>>;
    fn promote(&self, id: MemberId) -> BoxFuture<'static, Result<(), ChangeError>>;
    fn remove(&self, id: MemberId) -> BoxFuture<'static, Result<(), ChangeError>>;
    fn transfer(&self, to: MemberId) -> BoxFuture<'static, Result<(), ChangeError>>;
    fn shutdown(&self) -> BoxFuture<'static, ()>;
}

impl<R: AsyncRuntime> Engine for Raft<R> {
    fn status(&self) -> Status {
        Raft::status(self)
    }
    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut watch = self.watch();
        Box::pin(async move {
            if watch.changed().await.is_none() {
                // Nothing changes any more; whoever waits is stopped by other means.
                std::future::pending::<()>().await;
            }
        })
    }
    fn propose(&self, command: Bytes) -> BoxFuture<'static, Result<(LogPosition, Bytes), ProposeError>> {
        let raft = self.clone();
        Box::pin(async move { raft.propose(command).await.map(|p| (p.at, p.answer)) })
    }
    fn read_index(&self) -> BoxFuture<'static, Result<u64, ReadError>> {
        let raft = self.clone();
        Box::pin(async move { raft.read_index().await.map(|at| at.index) })
    }
    fn handle(&self, message: Bytes) -> BoxFuture<'static, Bytes> {
        let raft = self.clone();
        Box::pin(async move { raft.handle(message).await })
    }
    fn add_learner(&self, id: MemberId, address: String) -> BoxFuture<'static, Result<(), ChangeError>> {
        let raft = self.clone();
        Box::pin(async move { raft.add_learner(id, address).await.map(drop) })
    }
    fn promote(&self, id: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        let raft = self.clone();
        Box::pin(async move {
            raft.wait_caught_up(id, CATCH_UP).await?;
            raft.promote_to_voter(id).await.map(drop)
        })
    }
    fn remove(&self, id: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        let raft = self.clone();
        Box::pin(async move { raft.remove_member(id).await.map(drop) })
    }
    fn transfer(&self, to: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        let raft = self.clone();
        Box::pin(async move { raft.transfer_leader(to, TRANSFER).await })
    }
    fn shutdown(&self) -> BoxFuture<'static, ()> {
        let raft = self.clone();
        Box::pin(async move { raft.shutdown().await })
    }
}
