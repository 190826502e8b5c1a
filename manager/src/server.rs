//! What a manager serves on 2377: certificates, sessions, and its peers.

use futures::StreamExt;
use rswarm_api::identity::{Identity, Peer, source};
use rswarm_api::{Wire, pb, status};
use rswarm_types::session::{LogLine, StreamRequest, Up};
use rswarm_types::spec::Role;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::admission::{AdmissionError, Applicant, Gate, issue};
use crate::core::Core;
use crate::dispatcher::{Arrival, DOWN_QUEUE};
use crate::grpc_peers::fact_from_pb;

/// Messages of a worker that wait to be taken.
const UP_QUEUE: usize = 64;

type Answer<T> = Result<Response<T>, Status>;

/// Certificates: the only calls that exist without one.
#[derive(Clone)]
pub struct CaService {
    core: Core,
    gate: Gate,
}

impl CaService {
    pub fn new(core: Core) -> Self {
        Self { core, gate: Gate::default() }
    }

    fn pass<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let peer = Peer::of(request)?;
        match peer {
            Peer::Anonymous(source) if !self.gate.admits(source, tokio::time::Instant::now()) => {
                Err(Status::resource_exhausted(
                    "too many calls without a certificate: at most 10 a second; wait and try again",
                ))
            }
            _ => Ok(peer),
        }
    }
}

#[tonic::async_trait]
impl pb::ca_server::Ca for CaService {
    async fn get_root_ca(&self, request: Request<pb::GetRootCaRequest>) -> Answer<pb::GetRootCaReply> {
        self.pass(&request)?;
        let snapshot = self.core.consensus.local();
        let cluster = snapshot.state.cluster().ok_or_else(|| Status::unavailable("this manager has no cluster yet"))?;
        Ok(Response::new(pb::GetRootCaReply { certificate: cluster.root.certificate.clone() }))
    }

    async fn issue_certificate(
        &self,
        request: Request<pb::IssueCertificateRequest>,
    ) -> Answer<pb::IssueCertificateReply> {
        let peer = self.pass(&request)?;
        let address = source(&request);
        let message = request.into_inner();
        let availability = Wire::from_pb(message.availability).map_err(status::from_wire)?;
        let applicant = match peer {
            Peer::Node(identity) if message.token.is_empty() => Applicant::Member(identity),
            _ => {
                let data_path = message.data_path_address.as_deref().map(|text| Wire::from_pb(text.to_owned()));
                let data_path = data_path.transpose().map_err(status::from_wire)?;
                Applicant::Joiner { token: &message.token, address, data_path, availability }
            }
        };
        let issued = issue(&self.core.consensus, &message.csr, applicant).await.map_err(|e| match e {
            AdmissionError::Refused(refusal) => status::from_refusal(&refusal),
            AdmissionError::Token(e) => Status::unauthenticated(e.to_string()),
            AdmissionError::Request(e) => Status::invalid_argument(e.to_string()),
            AdmissionError::Unavailable(text) => Status::unavailable(text),
        })?;
        tracing::info!(node.id = %issued.node, role = %issued.role, "certificate issued");
        let snapshot = self.core.consensus.local();
        let managers = snapshot.membership.voters.values().cloned().collect();
        Ok(Response::new(pb::IssueCertificateReply {
            node: issued.node.to_pb(),
            cluster: issued.cluster.to_pb(),
            role: issued.role.to_pb(),
            chain: issued.chain,
            managers,
        }))
    }

    async fn certificate_status(
        &self,
        request: Request<pb::CertificateStatusRequest>,
    ) -> Answer<pb::IssueCertificateReply> {
        self.pass(&request)?;
        let hash: [u8; 32] = Wire::from_pb(request.into_inner().key_hash).map_err(status::from_wire)?;
        let snapshot = self.core.consensus.local();
        let node = snapshot
            .state
            .nodes()
            .find(|n| n.key_hash == hash)
            .ok_or_else(|| Status::not_found("no node was admitted with this key"))?;
        Ok(Response::new(pb::IssueCertificateReply {
            node: node.id.to_pb(),
            cluster: snapshot.state.cluster().map(|c| c.id).unwrap_or_default().to_pb(),
            role: node.membership.role.to_pb(),
            chain: String::new(),
            managers: Vec::new(),
        }))
    }
}

/// A node with a certificate of the cluster, whether or not it (still) has a place in it.
fn bearer_of<T>(core: &Core, request: &Request<T>) -> Result<Identity, Status> {
    let Peer::Node(identity) = Peer::of(request)? else {
        return Err(Status::unauthenticated("a certificate of the cluster is needed"));
    };
    let snapshot = core.consensus.local();
    if snapshot.state.cluster().is_some_and(|cluster| cluster.id != identity.cluster) {
        return Err(Status::permission_denied("the certificate is of another cluster"));
    }
    Ok(identity)
}

/// A node with a certificate and a place in the cluster.
fn node_of<T>(core: &Core, request: &Request<T>) -> Result<Identity, Status> {
    let identity = bearer_of(core, request)?;
    let snapshot = core.consensus.local();
    if snapshot.state.cluster().is_some() && snapshot.state.node(identity.node).is_none() {
        return Err(Status::permission_denied("this node was removed from the cluster"));
    }
    Ok(identity)
}

/// A manager: by its certificate, and by the replicated role where that is known here.
fn manager_of<T>(core: &Core, request: &Request<T>) -> Result<Identity, Status> {
    let Peer::Node(identity) = Peer::of(request)? else {
        return Err(Status::unauthenticated("a certificate of the cluster is needed"));
    };
    let snapshot = core.consensus.local();
    let role = snapshot.state.node(identity.node).map(|n| n.membership.role);
    // A member that has just begun knows nobody yet: the log will tell it.
    let is_manager = role.map_or(snapshot.state.cluster().is_none(), |r| r == Role::Manager);
    if identity.role == Role::Manager && is_manager {
        Ok(identity)
    } else {
        Err(Status::permission_denied("only managers of this cluster may call this"))
    }
}

/// Workers' sessions and the streams they open.
#[derive(Clone)]
pub struct DispatcherService {
    core: Core,
}

impl DispatcherService {
    pub fn new(core: Core) -> Self {
        Self { core }
    }
}

#[tonic::async_trait]
impl pb::dispatcher_server::Dispatcher for DispatcherService {
    type SessionStream = futures::stream::BoxStream<'static, Result<pb::DownMessage, Status>>;

    async fn session(&self, request: Request<Streaming<pb::UpMessage>>) -> Answer<Self::SessionStream> {
        // One that was removed while it was away is told so by the session, as one that was there.
        let identity = bearer_of(&self.core, &request)?;
        let address = source(&request);
        let mut messages = request.into_inner();
        let (up, up_receiver) = mpsc::channel(UP_QUEUE);
        let (down, down_receiver) = mpsc::channel(DOWN_QUEUE);
        let stop = self.core.stopping();
        self.core.tasks().spawn(async move {
            loop {
                let message = tokio::select! {
                    () = stop.cancelled() => return,
                    message = messages.message() => message,
                };
                let Ok(Some(message)) = message else { return };
                match Up::from_pb(message) {
                    Ok(message) => {
                        if up.send(message).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a worker said what this build does not know");
                        return;
                    }
                }
            }
        });
        self.core.serve(Arrival { identity, address, up: up_receiver, down });
        Ok(Response::new(ReceiverStream::new(down_receiver).map(|d| Ok(d.to_pb())).boxed()))
    }

    async fn stream(&self, request: Request<Streaming<pb::StreamData>>) -> Answer<pb::StreamEnd> {
        node_of(&self.core, &request)?;
        let mut messages = request.into_inner();
        let mut reader = None;
        while let Some(message) = messages.message().await? {
            if reader.is_none() {
                let id = Wire::from_pb(message.id.clone()).map_err(status::from_wire)?;
                reader = self.core.streams.claim(id);
            }
            let Some(reader) = &reader else { return Err(Status::not_found("nobody asked for this stream")) };
            let batch = if message.error.is_empty() {
                Ok(Vec::<LogLine>::from_pb(message.lines).map_err(status::from_wire)?)
            } else {
                Err(crate::dispatcher::StreamError::Worker(message.error))
            };
            if reader.send(batch).await.is_err() {
                return Err(Status::cancelled("the reader has gone"));
            }
        }
        Ok(Response::new(pb::StreamEnd {}))
    }
}

/// Calls between managers.
#[derive(Clone)]
pub struct ManagersService {
    core: Core,
}

impl ManagersService {
    pub fn new(core: Core) -> Self {
        Self { core }
    }
}

#[tonic::async_trait]
impl pb::managers_server::Managers for ManagersService {
    type OpenLogsStream = futures::stream::BoxStream<'static, Result<pb::StreamData, Status>>;

    async fn raft(&self, request: Request<pb::RaftMessage>) -> Answer<pb::RaftMessage> {
        manager_of(&self.core, &request)?;
        let body = self.core.consensus.engine().handle(request.into_inner().body).await;
        Ok(Response::new(pb::RaftMessage { body }))
    }

    async fn propose(&self, request: Request<pb::ProposeRequest>) -> Answer<pb::ProposeReply> {
        use pb::propose_reply::{NotLeader, Reply};
        manager_of(&self.core, &request)?;
        let command = request.into_inner().command.ok_or_else(|| Status::invalid_argument("no command"))?;
        let command = Wire::from_pb(command).map_err(status::from_wire)?;
        let (reply, index) = match self.core.consensus.propose_here(command).await {
            Ok(crate::peers::Proposed::Applied { index, result }) => (Reply::Result(result.to_pb()), index),
            Ok(crate::peers::Proposed::NotLeader) => (Reply::NotLeader(NotLeader { leader: None }), 0),
            Err(text) => return Err(Status::unavailable(text)),
        };
        Ok(Response::new(pb::ProposeReply { reply: Some(reply), index }))
    }

    async fn read_index(&self, request: Request<pb::ReadIndexRequest>) -> Answer<pb::ReadIndexReply> {
        use pb::read_index_reply::Reply;
        manager_of(&self.core, &request)?;
        let reply = match self.core.consensus.read_index_here().await {
            Some(index) => Reply::Index(index),
            None => Reply::NotLeader(String::new()),
        };
        Ok(Response::new(pb::ReadIndexReply { reply: Some(reply) }))
    }

    async fn relay(&self, request: Request<pb::RelayRequest>) -> Answer<pb::RelayReply> {
        manager_of(&self.core, &request)?;
        if !self.core.consensus.leads() {
            return Ok(Response::new(pb::RelayReply { settled: None, is_leader: false }));
        }
        let facts: Result<Vec<_>, _> = request.into_inner().sessions.into_iter().map(fact_from_pb).collect();
        self.core.liveness.absorb(self.core.consensus.member(), &facts.map_err(status::from_wire)?);
        let settled = self.core.liveness.settled(&self.core.consensus.local());
        Ok(Response::new(pb::RelayReply { settled: Some(settled.to_pb()), is_leader: true }))
    }

    async fn open_logs(&self, request: Request<pb::LogsOfTask>) -> Answer<Self::OpenLogsStream> {
        manager_of(&self.core, &request)?;
        let message = request.into_inner();
        let node = Wire::from_pb(message.node).map_err(status::from_wire)?;
        let wanted = message.request.ok_or_else(|| Status::invalid_argument("no request"))?;
        let wanted = StreamRequest::from_pb(wanted).map_err(status::from_wire)?;
        let batches =
            self.core.streams.ask(&self.core.sessions, node, wanted).map_err(|e| Status::not_found(e.to_string()))?;
        let stream = ReceiverStream::new(batches).map(|batch| {
            Ok(match batch {
                Ok(lines) => pb::StreamData { lines: lines.to_pb(), ..Default::default() },
                Err(error) => pb::StreamData { error: error.to_string(), ..Default::default() },
            })
        });
        Ok(Response::new(stream.boxed()))
    }

    async fn ready(&self, request: Request<pb::ReadyRequest>) -> Answer<pb::ReadyReply> {
        manager_of(&self.core, &request)?;
        let status = self.core.consensus.engine().status();
        let is_ready = status.member.0 == request.into_inner().member && status.fatal.is_none();
        Ok(Response::new(pb::ReadyReply { is_ready, address: String::new() }))
    }
}
