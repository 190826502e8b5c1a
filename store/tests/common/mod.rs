//! A cluster of one state: entries are applied one after another.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use rswarm_store::{Changed, State};
use rswarm_types::cluster::{Cluster, JoinTokens, RootCa};
use rswarm_types::command::{Answer, Body, Caller, Change, Command, NetworkSpecWithId, NewTask};
use rswarm_types::node::{Membership, Node, NodeDescription, NodeState};
use rswarm_types::spec::{
    Availability, ClusterSpec, ContainerSpec, NetworkAttachment, NetworkDriver, NetworkSpec, NodeSpec, PortConfig,
    Role, ServiceMode, ServiceSpec, TaskSpec,
};
use rswarm_types::task::{Slot, Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{
    Bytes, ClusterId, MemberId, NanoCpus, NetworkId, NodeId, Refusal, RequestId, ServiceId, TaskId, TimestampMs,
};

pub const MANAGER: NodeId = NodeId(1);
pub const INGRESS: NetworkId = NetworkId(1);

pub struct Cell {
    pub state: State,
    pub at: u64,
    pub changed: Changed,
}

pub fn init_body(spec: ClusterSpec) -> Body {
    let network = |id, name: &str, driver, ingress| NetworkSpecWithId {
        id: NetworkId(id),
        spec: NetworkSpec { name: name.into(), driver, ingress, ..NetworkSpec::default() },
    };
    Body::Init {
        cluster: Box::new(Cluster {
            id: ClusterId(7),
            meta: Default::default(),
            spec,
            root: RootCa { certificate: "cert".into(), key: "key".into() },
            tokens: JoinTokens { worker: "w".into(), manager: "m".into() },
            era: 0,
            feature_level: 1,
        }),
        node: Box::new(Node {
            id: MANAGER,
            spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
            membership: Membership { role: Role::Manager, member: MemberId(11), is_voter: true, raft_lost: false },
            key_hash: [1; 32],
            ..Node::default()
        }),
        networks: vec![
            network(2, "host", NetworkDriver::Host, false),
            network(3, "none", NetworkDriver::Null, false),
            network(1, "ingress", NetworkDriver::Overlay, true),
        ],
    }
}

pub fn description(hostname: &str) -> NodeDescription {
    NodeDescription {
        hostname: hostname.into(),
        cpus: NanoCpus(4_000_000_000),
        memory: Bytes(8 << 30),
        ..NodeDescription::default()
    }
}

impl Cell {
    pub fn new() -> Self {
        Self::with(ClusterSpec::default())
    }

    pub fn with(spec: ClusterSpec) -> Self {
        let mut cell = Self { state: State::empty(), at: 1_000, changed: Changed::default() };
        cell.run(init_body(spec)).expect("a first entry is accepted");
        cell
    }

    pub fn command(&self, body: Body) -> Command {
        Command {
            at: TimestampMs(self.at),
            wall: TimestampMs(1_700_000_000_000 + self.at),
            request: RequestId(0),
            caller: Caller { node: MANAGER, role: Role::Manager },
            needs_level: 1,
            body,
        }
    }

    pub fn run(&mut self, body: Body) -> Result<Answer, Refusal> {
        self.at += 1;
        self.run_command(&self.command(body), [0; 32])
    }

    pub fn run_command(&mut self, command: &Command, hash: [u8; 32]) -> Result<Answer, Refusal> {
        let before = self.state.clone();
        let applied = self.state.apply(self.state.index() + 1, command, hash);
        self.changed = applied.changed;
        if applied.result.is_err() {
            assert!(self.changed.is_empty(), "a refusal changes nothing");
            assert_eq!(before.task_count(), self.state.task_count());
        }
        let problems = self.state.audit();
        assert!(problems.is_empty(), "{problems:#?}");
        applied.result
    }

    pub fn refused(&mut self, body: Body) -> String {
        self.run(body).expect_err("this is refused").to_string()
    }

    pub fn reconcile(&mut self, changes: Vec<Change>) {
        self.run(Body::Reconcile(changes)).expect("reconcilers are never refused");
    }

    /// Admits a worker and opens its session.
    pub fn worker(&mut self, id: u128) -> NodeId {
        let node = NodeId(id);
        let key_hash = [u8::try_from(id).expect("small ids"); 32];
        let body = Body::Admit {
            node,
            role: Role::Worker,
            key_hash,
            address: Some([192, 168, 0, 1].into()),
            availability: Availability::Active,
        };
        assert_eq!(self.run(body), Ok(Answer::Node(node)));
        self.session(node, vec![]);
        node
    }

    pub fn session(&mut self, node: NodeId, sandboxes: Vec<TaskId>) -> u64 {
        let body = Body::OpenSession {
            node,
            boot_id: "boot".into(),
            description: Box::new(description(&format!("n{}", node.0))),
            address: Some([192, 168, 0, 1].into()),
            raft_lost: false,
            sandboxes,
        };
        match self.run(body) {
            Ok(Answer::Epoch(epoch)) => epoch,
            other => panic!("{other:?}"),
        }
    }

    pub fn network(&mut self, id: u128, name: &str) -> NetworkId {
        let spec = NetworkSpec { name: name.into(), ..NetworkSpec::default() };
        assert_eq!(self.run(Body::CreateNetwork { id: NetworkId(id), spec }), Ok(Answer::Network(NetworkId(id))));
        NetworkId(id)
    }

    pub fn service(&mut self, id: u128, spec: ServiceSpec) -> ServiceId {
        self.create(id, spec).unwrap_or_else(|refusal| panic!("{refusal}"));
        ServiceId(id)
    }

    pub fn create(&mut self, id: u128, spec: ServiceSpec) -> Result<Answer, Refusal> {
        self.run(Body::CreateService { id: ServiceId(id), spec: Arc::new(spec), auth: Default::default() })
    }

    pub fn update(&mut self, id: ServiceId, change: impl FnOnce(&mut ServiceSpec)) -> Result<Answer, Refusal> {
        let service = self.state.service(id).expect("the service exists").clone();
        let mut spec = service.spec.as_ref().clone();
        change(&mut spec);
        let version = service.meta.version;
        self.run(Body::UpdateService { id, version, spec: Arc::new(spec), auth: None, rollback: false })
    }

    pub fn rollback(&mut self, id: ServiceId) -> Result<Answer, Refusal> {
        let version = self.state.service(id).expect("the service exists").meta.version;
        self.run(Body::UpdateService { id, version, spec: Default::default(), auth: None, rollback: true })
    }

    pub fn new_task(&self, id: u128, service: ServiceId, slot: u64) -> NewTask {
        NewTask {
            id: TaskId(id),
            service,
            spec_version: self.state.service(service).expect("the service exists").spec_version,
            slot: Slot::Number(slot),
            desired: DesiredState::Running,
            ..NewTask::default()
        }
    }

    /// A task that was made and given addresses.
    pub fn pending(&mut self, id: u128, service: ServiceId, slot: u64) -> TaskId {
        let task = self.new_task(id, service, slot);
        self.reconcile(vec![Change::CreateTask(Box::new(task)), Change::AllocateTask { task: TaskId(id) }]);
        TaskId(id)
    }

    /// A task that was placed.
    pub fn assigned(&mut self, id: u128, service: ServiceId, slot: u64, node: NodeId) -> TaskId {
        let task = self.pending(id, service, slot);
        let version = self.task(task).meta.version;
        self.reconcile(vec![Change::AssignTask { task, version, node }]);
        task
    }

    pub fn report(&mut self, task: TaskId, state: TaskState, sandbox_gone: bool) {
        let node = self.task(task).node.expect("the task has a node");
        let epoch = self.state.node(node).expect("the node exists").session_epoch;
        let status = TaskStatus { state, sandbox_gone, ..TaskStatus::default() };
        self.run(Body::Report { node, epoch, statuses: vec![(task, status)] }).expect("reports are never refused");
    }

    pub fn desire(&mut self, task: TaskId, desired: DesiredState) {
        let version = self.task(task).meta.version;
        self.reconcile(vec![Change::SetDesired { task, version, desired, reason: "because".into() }]);
    }

    pub fn down(&mut self, node: NodeId) {
        let epoch = self.state.node(node).expect("the node exists").session_epoch;
        self.run(Body::SetNodeState {
            node,
            epoch,
            state: NodeState::Down,
            message: "silent".into(),
            grace_until: TimestampMs(0),
        })
        .expect("accepted");
    }

    pub fn task(&self, id: TaskId) -> &Task {
        self.state.task(id).expect("the task exists")
    }
}

pub fn spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        task: TaskSpec {
            container: ContainerSpec { image: "nginx:1.27".into(), ..ContainerSpec::default() },
            ..TaskSpec::default()
        },
        mode: ServiceMode::Replicated { replicas: 1 },
        ..ServiceSpec::default()
    }
}

pub fn spec_on(name: &str, networks: &[&str]) -> ServiceSpec {
    let mut spec = spec(name);
    let attach = |target: &&str| NetworkAttachment { target: (*target).into(), ..NetworkAttachment::default() };
    spec.task.networks = networks.iter().map(attach).collect();
    spec
}

pub fn port(target: u16, published: u16) -> PortConfig {
    PortConfig { target, published, ..PortConfig::default() }
}
