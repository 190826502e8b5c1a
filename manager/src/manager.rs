//! A manager with its sockets and its folder: what the daemon runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rswarm_api::pb;
use rswarm_api::tls::Credentials;
use rswarm_raft::{BootstrapError, ClusterTag, Config, Folder, MemberId as RaftMember, Raft, StartError, TokioRuntime};
use rswarm_types::cluster::{Cluster, JoinTokens, Meta, RootCa};
use rswarm_types::command::{Body, NetworkSpecWithId};
use rswarm_types::limits::{FEATURE_LEVEL, SNAPSHOT_CHUNK_BYTES};
use rswarm_types::node::{Membership, Node, NodeDescription};
use rswarm_types::spec::{Availability, ClusterSpec, NetworkDriver, NetworkSpec, NodeSpec, Role};
use rswarm_types::{ClusterId, MemberId, NetworkId, NodeId};
use tonic::service::Routes;

use crate::consensus::ProposeError;
use crate::control::ControlService;
use crate::core::Core;
use crate::edge::Edge;
use crate::grpc_peers::GrpcPeers;
use crate::machine::Machine;
use crate::server::{CaService, DispatcherService, ManagersService};
use crate::token;

/// Messages of gRPC: a snapshot chunk or a batch, with room for framing.
const MESSAGE_BYTES_MAX: usize = 4 * SNAPSHOT_CHUNK_BYTES;

/// What a manager needs to run.
pub struct ManagerConfig {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub member: MemberId,
    /// `<data-dir>/raft`.
    pub folder: PathBuf,
    pub credentials: Credentials,
    pub edge: Edge,
    pub timing: Timing,
    pub snapshot_interval: u64,
}

/// How fast leaders are missed; see the ADR on election timing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 50, election_min_ms: 100, election_max_ms: 150 }
    }
}

/// Why a manager does not run.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    #[error("the Raft folder {} cannot be used", path.display())]
    Folder {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("Raft does not start")]
    Start(#[source] StartError),
    #[error("the cluster cannot be made")]
    Bootstrap(#[source] BootstrapError),
    #[error("the cluster's first entry is not committed")]
    Init(#[source] ProposeError),
}

/// A running manager. Cheap to clone.
#[derive(Clone)]
pub struct Manager {
    core: Core,
    peers: GrpcPeers,
    cluster: ClusterId,
    node: NodeId,
    member: MemberId,
    raft: Raft<TokioRuntime>,
}

/// What `init` decides.
pub struct InitRequest {
    pub root: RootCa,
    pub spec: ClusterSpec,
    pub address: SocketAddr,
    pub availability: Availability,
    pub description: NodeDescription,
    pub key_hash: [u8; 32],
}

impl Manager {
    /// Opens the folder and starts Raft and everything on it; serves nothing yet.
    ///
    /// # Errors
    /// When the folder cannot be used or its log is damaged.
    pub async fn start(config: ManagerConfig) -> Result<Self, ManagerError> {
        let folder_error = |source| ManagerError::Folder { path: config.folder.clone(), source };
        let disk = Folder::open(&config.folder).map_err(folder_error)?;
        let mut raft_config =
            Config::new(ClusterTag(config.cluster.to_bytes()), RaftMember(config.member.0), Arc::new(disk));
        raft_config.heartbeat_ms = config.timing.heartbeat_ms;
        raft_config.election_min_ms = config.timing.election_min_ms;
        raft_config.election_max_ms = config.timing.election_max_ms;
        raft_config.snapshot_every = config.snapshot_interval;
        let peers = GrpcPeers::new(config.credentials);
        let (machine, current, feed) = Machine::new();
        let raft = Raft::<TokioRuntime>::start(raft_config, Arc::new(peers.clone()), machine)
            .await
            .map_err(ManagerError::Start)?;
        let core = Core::start(Arc::new(raft.clone()), Arc::new(peers.clone()), current, feed, config.edge);
        Ok(Self { core, peers, cluster: config.cluster, node: config.node, member: config.member, raft })
    }

    /// Makes a cluster of which this manager is the first member.
    ///
    /// # Errors
    /// When the folder is in use already, or the first entry cannot be written.
    pub async fn init(&self, request: InitRequest) -> Result<JoinTokens, ManagerError> {
        self.raft.bootstrap(request.address.to_string()).await.map_err(ManagerError::Bootstrap)?;
        let edge = self.core.consensus.edge().clone();
        let root = &request.root.certificate;
        let tokens = JoinTokens { worker: token::make(root, edge.random()), manager: token::make(root, edge.random()) };
        let cluster = Cluster {
            id: self.cluster,
            meta: Meta::default(),
            spec: request.spec,
            root: request.root,
            tokens: tokens.clone(),
            era: 0,
            feature_level: FEATURE_LEVEL,
        };
        let node = Node {
            id: self.node,
            spec: NodeSpec { role: Role::Manager, availability: request.availability, ..NodeSpec::default() },
            description: request.description,
            membership: Membership { role: Role::Manager, member: self.member, is_voter: true, raft_lost: false },
            key_hash: request.key_hash,
            ..Node::default()
        };
        let networks = predefined(&edge);
        let body = Body::Init { cluster: Box::new(cluster), node: Box::new(node), networks };
        self.core.consensus.propose_own(body).await.map_err(ManagerError::Init)?;
        Ok(tokens)
    }

    /// The parts without sockets.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The control API, for the daemon's own socket.
    pub fn control(&self) -> pb::control_api_server::ControlApiServer<ControlService> {
        pb::control_api_server::ControlApiServer::new(ControlService::new(
            self.core.clone(),
            self.peers.clone(),
            self.node,
        ))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX)
    }

    /// Everything that is served on 2377.
    pub fn routes(&self) -> Routes {
        let core = || self.core.clone();
        Routes::new(pb::ca_server::CaServer::new(CaService::new(core())).max_decoding_message_size(16 * 1_024))
            .add_service(
                pb::dispatcher_server::DispatcherServer::new(DispatcherService::new(core()))
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(usize::MAX),
            )
            .add_service(
                pb::managers_server::ManagersServer::new(ManagersService::new(core()))
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(self.control())
    }

    /// Stops serving, hands over leadership, and closes the folder.
    pub async fn stop(&self) {
        self.core.stop().await;
    }

    /// Waits until this manager knows the cluster (its log was replayed or fetched), for at most `within`.
    pub async fn wait_for_cluster(&self, within: Duration) -> bool {
        let mut watch = self.core.consensus.watch();
        let known = watch.wait_for(|s| s.state.cluster().is_some());
        tokio::time::timeout(within, known).await.is_ok_and(|r| r.is_ok())
    }
}

/// The networks that every cluster has: the routing mesh's, `host` and `none`.
pub fn predefined(edge: &Edge) -> Vec<NetworkSpecWithId> {
    let network = |name: &str, driver, ingress| NetworkSpecWithId {
        id: NetworkId(edge.random()),
        spec: NetworkSpec { name: name.into(), driver, ingress, ..NetworkSpec::default() },
    };
    vec![
        network("ingress", NetworkDriver::Overlay, true),
        network("host", NetworkDriver::Host, false),
        network("none", NetworkDriver::Null, false),
    ]
}
