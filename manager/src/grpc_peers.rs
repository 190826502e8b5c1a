//! The calls between managers over mutual TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rswarm_api::pb::managers_client::ManagersClient;
use rswarm_api::tls::Credentials;
use rswarm_api::{Wire, pb};
use rswarm_raft::{MESSAGE_BYTES, MemberId, Transport, TransportError};
use rswarm_types::NodeId;
use rswarm_types::command::Command;
use rswarm_types::session::StreamRequest;
use tonic::transport::Channel;

use crate::lost_peers::LostPeers;
use crate::peers::{PeerError, Peers, Proposed, RelayAnswer, SessionFact};

/// A proposal may wait for a slow disk on two managers.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const RELAY_TIMEOUT: Duration = Duration::from_secs(1);

/// Channels to other managers, by address. Cheap to clone.
#[derive(Clone)]
pub struct GrpcPeers {
    credentials: Credentials,
    channels: Arc<Mutex<BTreeMap<SocketAddr, Channel>>>,
    lost: Arc<Mutex<LostPeers>>,
}

impl GrpcPeers {
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, channels: Arc::default(), lost: Arc::default() }
    }

    fn client(&self, to: SocketAddr) -> ManagersClient<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry(to).or_insert_with(|| self.credentials.channel(to)).clone();
        let limit = MESSAGE_BYTES + 64 * 1_024;
        ManagersClient::new(channel).max_decoding_message_size(limit).max_encoding_message_size(limit)
    }

    /// Lines of a task whose node's session sits on another manager.
    ///
    /// # Errors
    /// The other manager's refusal.
    pub async fn open_logs(
        &self,
        to: SocketAddr,
        node: NodeId,
        request: &StreamRequest,
    ) -> Result<tonic::Streaming<pb::StreamData>, tonic::Status> {
        let message = pb::LogsOfTask { request: Some(request.to_pb()), node: node.to_pb() };
        self.client(to).open_logs(message).await.map(tonic::Response::into_inner)
    }
}

async fn within<T>(
    address: SocketAddr,
    limit: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, PeerError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(PeerError { address, reason: reason(&status) }),
        Err(_) => Err(PeerError { address, reason: format!("no answer within {limit:?}") }),
    }
}

/// What a status says, with the connection error underneath where there is one.
fn reason(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

impl Peers for GrpcPeers {
    fn propose(&self, to: SocketAddr, command: Command) -> BoxFuture<'static, Result<Proposed, PeerError>> {
        let mut client = self.client(to);
        Box::pin(async move {
            let message = pb::ProposeRequest { command: Some(command.to_pb()) };
            let answer = within(to, PROPOSE_TIMEOUT, client.propose(message)).await?;
            match answer.reply {
                Some(pb::propose_reply::Reply::Result(result)) => {
                    let result = Wire::from_pb(result).map_err(|e| PeerError { address: to, reason: e.to_string() })?;
                    Ok(Proposed::Applied { index: answer.index, result })
                }
                Some(pb::propose_reply::Reply::NotLeader(_)) => Ok(Proposed::NotLeader),
                None => Err(PeerError { address: to, reason: "an empty answer".into() }),
            }
        })
    }

    fn read_index(&self, to: SocketAddr) -> BoxFuture<'static, Result<Option<u64>, PeerError>> {
        let mut client = self.client(to);
        Box::pin(async move {
            let answer = within(to, READ_TIMEOUT, client.read_index(pb::ReadIndexRequest {})).await?;
            Ok(match answer.reply {
                Some(pb::read_index_reply::Reply::Index(index)) => Some(index),
                Some(pb::read_index_reply::Reply::NotLeader(_)) | None => None,
            })
        })
    }

    fn relay(
        &self,
        to: SocketAddr,
        facts: Vec<SessionFact>,
    ) -> BoxFuture<'static, Result<Option<RelayAnswer>, PeerError>> {
        let mut client = self.client(to);
        Box::pin(async move {
            let sessions = facts.iter().map(fact_to_pb).collect();
            let message = pb::RelayRequest { manager: Bytes::new(), sessions };
            let answer = within(to, RELAY_TIMEOUT, client.relay(message)).await?;
            let settled = Wire::from_pb(answer.settled.unwrap_or_default())
                .map_err(|e| PeerError { address: to, reason: e.to_string() })?;
            Ok(answer.is_leader.then_some(RelayAnswer { settled }))
        })
    }
}

fn fact_to_pb(fact: &SessionFact) -> pb::SessionFacts {
    pb::SessionFacts {
        node: fact.node.to_pb(),
        epoch: fact.epoch,
        applied: fact.applied,
        silent_ms: fact.silent_ms,
        leaving: fact.leaving.to_pb(),
        is_open: fact.is_open,
    }
}

/// Reads what [`Peers::relay`] sent.
///
/// # Errors
/// When a field is outside its type.
pub fn fact_from_pb(pb: pb::SessionFacts) -> Result<SessionFact, rswarm_api::WireError> {
    Ok(SessionFact {
        node: Wire::from_pb(pb.node)?,
        epoch: pb.epoch,
        applied: pb.applied,
        silent_ms: pb.silent_ms,
        leaving: Wire::from_pb(pb.leaving)?,
        is_open: pb.is_open,
    })
}

impl Transport for GrpcPeers {
    fn call(
        &self,
        to: MemberId,
        address: &str,
        message: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let address = address.to_owned();
        let Ok(socket) = address.parse::<SocketAddr>() else {
            let reason = "not an address".to_owned();
            return Box::pin(async move { Err(TransportError::Unreachable { to, address, reason }) });
        };
        let (mut client, lost) = (self.client(socket), Arc::clone(&self.lost));
        Box::pin(async move {
            let call = client.raft(pb::RaftMessage { body: message });
            let to_address = address.clone();
            let answer = match tokio::time::timeout(ttl, call).await {
                Ok(Ok(answer)) => Ok(answer.into_inner().body),
                Ok(Err(status)) => Err(TransportError::Unreachable { to, address, reason: reason(&status) }),
                Err(_) => Err(TransportError::Timeout { to, address, ttl }),
            };
            lost.lock().unwrap_or_else(PoisonError::into_inner).note(to, &to_address, &answer);
            answer
        })
    }
}
