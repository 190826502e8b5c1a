//! Answering peers.

use std::sync::Arc;

use bytes::Bytes;
use futures::channel::oneshot;
use openraft::AsyncRuntime;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{Fatal, RaftError};
use openraft::raft::AppendEntriesResponse;
use openraft::storage::Snapshot;

use crate::applier::{EngineSnapshot, SnapshotData, blocking};
use crate::handle::{Raft, lock};
use crate::member::MemberId;
use crate::snapshot::{Chunk, Received};
use crate::types::{TypeConfig, Vote};
use crate::wire::{Answer, Refusal, Request};

impl<R: AsyncRuntime> Raft<R> {
    /// Takes a peer's message, and returns the answer to carry back. Every message has one, if only a refusal.
    ///
    /// The caller has made sure that the peer is who it says, and is allowed to speak to members.
    ///
    /// # Cancel safety
    /// A message whose handling is dropped may have taken effect.
    pub async fn handle(&self, message: Bytes) -> Bytes {
        let here = self.inner.config.identity();
        match Request::<R>::decode(message, here) {
            Ok((from, request)) => {
                let answer = self.answer(from, request).await;
                answer.unwrap_or_else(Answer::Refused).encode(here, from)
            }
            Err(refusal) => Answer::<R>::Refused(refusal).encode(here, MemberId(0)),
        }
    }

    async fn answer(&self, from: MemberId, request: Request<R>) -> Result<Answer<R>, Refusal> {
        if let Some(reason) = self.stopped() {
            return Err(Refusal::Stopped(reason));
        }
        let engine = &self.inner.engine;
        match request {
            Request::Append(request) => {
                let vote = request.vote;
                let response = engine.append_entries(request).await.map_err(|error| self.refusal(error))?;
                let led = vote.committed && vote.leader_id.voted_for == from.0;
                if led && !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                    self.heard_leader();
                }
                Ok(Answer::Append(response))
            }
            Request::Vote(request) => engine.vote(request).await.map(Answer::Vote).map_err(|error| self.refusal(error)),
            Request::PreVote(request) => {
                engine.pre_vote(request).await.map(Answer::Vote).map_err(|error| self.refusal(error))
            }
            Request::Snapshot { vote, chunk } => self.take_chunk(vote, chunk).await,
            Request::TransferLeader(request) => {
                let response = engine.handle_transfer_leader(request).await;
                response.map(Answer::TransferLeader).map_err(|fatal| self.fatal_refusal(&fatal))
            }
        }
    }

    async fn take_chunk(&self, vote: Vote, chunk: Chunk) -> Result<Answer<R>, Refusal> {
        let (ours, have) = {
            let metrics = self.inner.engine.metrics();
            let metrics = metrics.borrow_watched();
            (metrics.vote, metrics.snapshot)
        };
        if ours > vote {
            return Ok(Answer::Snapshot { vote: ours, next: None });
        }
        if have.is_some() && have >= chunk.meta.last_log_id {
            // Its installation was not heard of, or it was overtaken by a newer one.
            return Ok(Answer::Snapshot { vote, next: None });
        }
        let receiver = Arc::clone(&self.inner.receiver);
        let meta = chunk.meta.clone();
        let accepted = blocking::<R, _>(self.inner.config.writer, move || lock(&receiver).accept(&chunk));
        let received = accepted.await.flatten().map_err(|error| Refusal::NotStored(error.to_string()))?;
        match received {
            Received::Next(next) => Ok(Answer::Snapshot { vote, next: Some(next) }),
            Received::Whole(file) => {
                let snapshot = Snapshot { meta, snapshot: SnapshotData::Fresh(file) };
                let vote = self.install(vote, snapshot).await?;
                Ok(Answer::Snapshot { vote, next: None })
            }
        }
    }

    /// Installs a snapshot, to the end even if the sender stops waiting: it will ask again.
    async fn install(&self, vote: Vote, snapshot: EngineSnapshot) -> Result<Vote, Refusal> {
        let (sender, installed) = oneshot::channel();
        let (engine, receiver) = (self.inner.engine.clone(), Arc::clone(&self.inner.receiver));
        let task = R::spawn(async move {
            let response = engine.install_full_snapshot(vote, snapshot).await;
            lock(&receiver).installed();
            // The sender may have given up.
            let _ = sender.send(response);
        });
        lock(&self.inner.installation).replace(task);
        match installed.await {
            Ok(Ok(response)) => {
                self.heard_leader();
                Ok(response.vote)
            }
            Ok(Err(fatal)) => Err(self.fatal_refusal(&fatal)),
            Err(_) => Err(Refusal::Stopped("the installation ended early".to_owned())),
        }
    }

    fn refusal(&self, error: RaftError<TypeConfig<R>>) -> Refusal {
        match error {
            RaftError::Fatal(fatal) => self.fatal_refusal(&fatal),
            RaftError::APIError(never) => match never {},
        }
    }

    fn fatal_refusal(&self, fatal: &Fatal<TypeConfig<R>>) -> Refusal {
        Refusal::Stopped(self.reason(fatal))
    }
}
