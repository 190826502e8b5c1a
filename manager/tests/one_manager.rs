//! One real manager on a real folder: a cluster is made, a worker is admitted and opens a session.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rswarm_api::identity::Identity;
use rswarm_api::tls::{Credentials, accept};
use rswarm_api::{Wire, pb};
use rswarm_manager::admission::{Applicant, issue};
use rswarm_manager::ca::{self, Grant};
use rswarm_manager::dispatcher::Arrival;
use rswarm_manager::manager::Timing;
use rswarm_manager::{Edge, InitRequest, Manager, ManagerConfig};
use rswarm_types::cluster::JoinTokens;
use rswarm_types::command::Body;
use rswarm_types::node::{NodeDescription, NodeState};
use rswarm_types::session::{CloseReason, Down, Leaving, Open, Up};
use rswarm_types::spec::{Availability, ClusterSpec, Role};
use rswarm_types::{ClusterId, MemberId, NodeId, TimestampMs};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::TaskTracker;

const NODE: NodeId = NodeId(0xabcd);
const CLUSTER: ClusterId = ClusterId(0x1234);

fn edge() -> Edge {
    Edge::new(
        || {
            let mut bytes = [0; 16];
            ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).unwrap();
            u128::from_be_bytes(bytes)
        },
        || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            TimestampMs(since.as_millis().try_into().unwrap())
        },
    )
}

async fn start(folder: &std::path::Path) -> (Manager, JoinTokens) {
    let (manager, tokens, _) = start_with_credentials(folder).await;
    (manager, tokens)
}

async fn start_with_credentials(folder: &std::path::Path) -> (Manager, JoinTokens, Credentials) {
    let edge = edge();
    let root = ca::new_root(edge.wall()).unwrap();
    let asked = ca::request().unwrap();
    let checked = ca::check_request(&asked.csr).unwrap();
    let grant = Grant {
        cluster: CLUSTER,
        node: NODE,
        role: Role::Manager,
        now: edge.wall(),
        life: Duration::from_secs(3_600),
        serial: 1,
    };
    let chain = ca::sign(&root, &checked, grant).unwrap();
    let credentials = Credentials::from_pem(&root.certificate, &chain, &asked.key).unwrap();
    let config = ManagerConfig {
        cluster: CLUSTER,
        node: NODE,
        member: MemberId(77),
        folder: folder.to_owned(),
        credentials: credentials.clone(),
        edge,
        timing: Timing::default(),
        snapshot_interval: 10_000,
    };
    let manager = Manager::start(config).await.unwrap();
    let request = InitRequest {
        root,
        spec: ClusterSpec::default(),
        address: SocketAddr::from(([127, 0, 0, 1], 2377)),
        availability: Availability::Active,
        description: NodeDescription { data_path_address: Some([10, 0, 0, 1].into()), ..NodeDescription::default() },
        key_hash: checked.key_hash,
    };
    let tokens = manager.init(request).await.unwrap();
    (manager, tokens, credentials)
}

/// Serves the manager as the daemon does.
async fn listen(manager: &Manager, credentials: &Credentials, tasks: &TaskTracker) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = ReceiverStream::new(accept(listener, credentials.server_config().unwrap(), tasks));
    let server = tonic::transport::Server::builder().add_routes(manager.routes());
    tasks.spawn(async move { server.serve_with_incoming(incoming).await.unwrap() });
    address
}

/// A node admitted as a worker, with its certificate.
async fn join(manager: &Manager, tokens: &JoinTokens) -> Credentials {
    let asked = ca::request().unwrap();
    let joiner = joiner(&tokens.worker, None);
    let issued = issue(&manager.core().consensus, &asked.csr, joiner).await.unwrap();
    let snapshot = manager.core().consensus.local();
    Credentials::from_pem(&snapshot.state.cluster().unwrap().root.certificate, &issued.chain, &asked.key).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_removed_while_it_was_away_is_told_so_when_it_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, tokens, credentials) = start_with_credentials(folder.path()).await;
    let tasks = TaskTracker::new();
    let address = listen(&manager, &credentials, &tasks).await;
    let worker = join(&manager, &tokens).await;
    let node = worker.identity().node;
    manager.core().consensus.propose_own(Body::RemoveNode { node, force: true }).await.unwrap();

    let mut client = pb::dispatcher_client::DispatcherClient::new(worker.channel(address));
    let (up, receiver) = mpsc::channel(1);
    let open = Open { node, boot_id: "boot".into(), ..Open::default() };
    up.send(Up::Open(Box::new(open)).to_pb()).await.unwrap();
    let mut down = client.session(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let closed = Down::from_pb(down.message().await.unwrap().unwrap()).unwrap();
    let Down::Closed { reason, message } = closed else { panic!("{closed:?}") };
    assert_eq!(reason, CloseReason::Removed);
    assert!(message.contains("removed from the cluster"), "{message}");

    // Nothing else is open to it.
    let error = client.stream(tokio_stream::empty()).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::PermissionDenied);
    // A certificate of the same root that names another cluster is not heard either.
    let asked = ca::request().unwrap();
    let grant = Grant {
        cluster: ClusterId(0x9999),
        node,
        role: Role::Worker,
        now: edge().wall(),
        life: Duration::from_secs(3_600),
        serial: 2,
    };
    let root = manager.core().consensus.local().state.cluster().unwrap().root.clone();
    let chain = ca::sign(&root, &ca::check_request(&asked.csr).unwrap(), grant).unwrap();
    let foreign = Credentials::from_pem(&root.certificate, &chain, &asked.key).unwrap();
    let mut client = pb::dispatcher_client::DispatcherClient::new(foreign.channel(address));
    let error = client.session(tokio_stream::empty()).await.unwrap_err();
    assert!(error.message().contains("another cluster"), "{error}");
    manager.stop().await;
}

fn joiner(token: &str, data_path: Option<IpAddr>) -> Applicant<'_> {
    Applicant::Joiner { token, address: None, data_path, availability: Availability::Active }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_containers_talk_over_another_family_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, tokens) = start(folder.path()).await;
    let consensus = &manager.core().consensus;
    let asked = ca::request().unwrap();
    let six = IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 5]);
    let refused = issue(consensus, &asked.csr, joiner(&tokens.worker, Some(six))).await.unwrap_err().to_string();
    assert!(refused.contains("by fd00::5, over IPv6; those of the cluster talk over IPv4"), "{refused}");
    assert!(refused.ends_with("give an address of IPv4: --data-path-addr"), "{refused}");
    assert_eq!(consensus.local().state.nodes().count(), 1, "nothing was admitted");
    issue(consensus, &asked.csr, joiner(&tokens.worker, Some([10, 0, 0, 5].into()))).await.unwrap();
    manager.stop().await;
}

async fn next(down: &mut mpsc::Receiver<Down>) -> Down {
    tokio::time::timeout(Duration::from_secs(20), down.recv()).await.unwrap().unwrap()
}

/// Reads on until a message fits.
async fn until(down: &mut mpsc::Receiver<Down>, wanted: impl Fn(&Down) -> bool) -> Down {
    loop {
        let message = next(down).await;
        if wanted(&message) {
            return message;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_is_admitted_by_its_token_and_gets_its_orders() {
    let folder = tempfile::tempdir().unwrap();
    let (manager, tokens) = start(folder.path()).await;
    let core = manager.core();
    let asked = ca::request().unwrap();
    let bad = issue(&core.consensus, &asked.csr, joiner("SWMTKN-1-x-y", None)).await.unwrap_err();
    assert!(bad.to_string().contains("malformed"), "{bad}");
    let mut wrong = tokens.worker.clone();
    wrong.replace_range(wrong.len() - 3.., "aaa");
    let bad = issue(&core.consensus, &asked.csr, joiner(&wrong, None)).await.unwrap_err();
    assert!(bad.to_string().contains("secret is wrong"), "{bad}");
    let issued = issue(&core.consensus, &asked.csr, joiner(&tokens.worker, None)).await.unwrap();
    assert_eq!(issued.role, Role::Worker);
    let again = issue(&core.consensus, &asked.csr, joiner(&tokens.worker, None)).await.unwrap();
    assert_eq!(again.node, issued.node, "the same key is the same node");

    let (up, up_receiver) = mpsc::channel(16);
    let (down_sender, mut down) = mpsc::channel(16);
    let identity = Identity { cluster: CLUSTER, node: issued.node, role: Role::Worker };
    core.serve(Arrival { identity, address: None, up: up_receiver, down: down_sender });
    let open = Open { node: issued.node, boot_id: "boot".into(), ..Open::default() };
    up.send(Up::Open(Box::new(open))).await.unwrap();
    assert!(matches!(next(&mut down).await, Down::Opened { .. }));
    let assigned = until(&mut down, |d| matches!(d, Down::Assignments(_))).await;
    let Down::Assignments(assigned) = assigned else { unreachable!() };
    assert_eq!(assigned.node.id, issued.node);
    assert!(assigned.networks.iter().any(|n| n.ingress), "every node has the ingress network");
    let state = |id| core.consensus.local().state.node(id).map(|n| n.status.state);
    assert_eq!(state(issued.node), Some(NodeState::Ready));

    up.send(Up::GoingAway(Leaving::Shutdown)).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while state(issued.node) != Some(NodeState::Down) {
        assert!(tokio::time::Instant::now() < deadline, "a node that shuts down is Down");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    manager.stop().await;
}
