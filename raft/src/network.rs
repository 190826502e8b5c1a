//! The engine's calls to peers, over a [`Transport`].

use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::Select2;
use openraft::error::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::RPCOption;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use openraft::{AsyncRuntime, BasicNode, OptionalSend, RPCTypes, RaftNetworkFactory, RaftNetworkV2};

use crate::applier::SnapshotData;
use crate::config::Config;
use crate::limits::{SNAPSHOT_CHUNK_BYTES, SNAPSHOT_POLL_MS};
use crate::member::MemberId;
use crate::snapshot::Chunk;
use crate::transport::{Transport, TransportError};
use crate::types::{Committed, TypeConfig, Vote};
use crate::wire::{Answer, Request};

/// Makes the ways to peers.
pub(crate) struct Network {
    pub config: Arc<Config>,
    pub transport: Arc<dyn Transport>,
}

impl<R: AsyncRuntime> RaftNetworkFactory<TypeConfig<R>> for Network {
    type Network = Link<R>;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Link<R> {
        Link {
            config: Arc::clone(&self.config),
            transport: Arc::clone(&self.transport),
            peer: MemberId(target),
            address: node.addr.clone(),
            runtime: PhantomData,
        }
    }
}

/// The way to one peer.
pub(crate) struct Link<R> {
    config: Arc<Config>,
    transport: Arc<dyn Transport>,
    peer: MemberId,
    address: String,
    runtime: PhantomData<fn() -> R>,
}

type Rpc<T, R> = Result<T, RPCError<TypeConfig<R>>>;

impl<R: AsyncRuntime> Link<R> {
    async fn call(&self, request: Request<R>, action: RPCTypes, ttl: Duration) -> Rpc<Answer<R>, R> {
        let here = self.config.identity();
        let message = request.encode(here, self.peer);
        // The request may be large, and is not needed while the answer is awaited.
        drop(request);
        let late = || RPCError::Timeout(Timeout { action, id: here.member.0, target: self.peer.0, timeout: ttl });
        let call = self.transport.call(self.peer, &self.address, message, ttl);
        let answer = match R::timeout(ttl, call).await {
            Err(_) | Ok(Err(TransportError::Timeout { .. })) => return Err(late()),
            Ok(Err(error @ TransportError::Unreachable { .. })) => {
                return Err(RPCError::Unreachable(Unreachable::new(&error)));
            }
            Ok(Ok(answer)) => answer,
        };
        match Answer::decode(answer, here, self.peer) {
            Ok(Answer::Refused(refusal)) | Err(refusal) => Err(RPCError::Unreachable(Unreachable::new(&refusal))),
            Ok(answer) => Ok(answer),
        }
    }

    /// An answer of another kind than was asked for.
    fn unexpected<T>(&self) -> Rpc<T, R> {
        let text = format!("member {} answered something else than it was asked", self.peer);
        Err(RPCError::Unreachable(Unreachable::from_string(text)))
    }

    async fn send_snapshot(&self, vote: Vote, meta: crate::types::SnapshotMeta, data: SnapshotData) -> Rpc<Vote, R> {
        let file = match &data {
            SnapshotData::Kept(file) => file.as_ref(),
            SnapshotData::Fresh(file) => file.as_ref(),
        };
        let mut offset = 0;
        loop {
            let data = file.read_at(offset, SNAPSHOT_CHUNK_BYTES);
            let data = data.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
            let chunk = Chunk { meta: meta.clone(), id: file.id, offset, data: data.into() };
            let request = Request::Snapshot { vote, chunk };
            let ttl = self.config.snapshot_chunk_timeout();
            match self.call(request, RPCTypes::InstallSnapshot, ttl).await? {
                Answer::Snapshot { vote: theirs, next: None } => return Ok(theirs),
                Answer::Snapshot { vote: theirs, .. } if theirs > vote => return Ok(theirs),
                Answer::Snapshot { next: Some(next), .. } if next <= file.id.bytes => {
                    if next == file.id.bytes {
                        R::sleep(Duration::from_millis(SNAPSHOT_POLL_MS)).await;
                    }
                    offset = next;
                }
                _ => return self.unexpected(),
            }
        }
    }
}

impl<R: AsyncRuntime> RaftNetworkV2<TypeConfig<R>> for Link<R> {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig<R>>,
        _: RPCOption,
    ) -> Rpc<AppendEntriesResponse<TypeConfig<R>>, R> {
        // The engine's time is that of a heartbeat, which it gives up on by itself. Entries are answered only once they
        // are durable; and a peer that is short of processor time must not lose its place for that.
        let ttl = self.config.append_timeout();
        match self.call(Request::Append(rpc), RPCTypes::AppendEntries, ttl).await? {
            Answer::Append(response) => Ok(response),
            _ => self.unexpected(),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig<R>>, R> {
        match self.call(Request::Vote(rpc), RPCTypes::Vote, option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => self.unexpected(),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig<R>>, R> {
        match self.call(Request::PreVote(rpc), RPCTypes::Vote, option.hard_ttl()).await? {
            Answer::Vote(response) => Ok(response),
            _ => self.unexpected(),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<Committed, u64, BasicNode, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig<R>>, StreamingError<TypeConfig<R>>> {
        let sending = pin!(self.send_snapshot(vote, snapshot.meta, snapshot.snapshot));
        match R::select2(pin!(cancel), sending).await {
            Select2::First(closed) => Err(closed.into()),
            Select2::Second(sent) => Ok(SnapshotResponse::new(sent?)),
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig<R>>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig<R>>, R> {
        match self.call(Request::TransferLeader(req), RPCTypes::TransferLeader, option.hard_ttl()).await? {
            Answer::TransferLeader(response) => Ok(response),
            _ => self.unexpected(),
        }
    }
}
