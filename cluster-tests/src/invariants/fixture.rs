//! States for the checkers' own tests: some that a correct manager makes, and some that it never would.

use rswarm_store::State;
use rswarm_types::cluster::{JoinTokens, Meta, RootCa};
use rswarm_types::command::{Body, Caller, Command, NetworkSpecWithId, Record};
use rswarm_types::limits::FEATURE_LEVEL;
use rswarm_types::node::{Membership, Node, NodeDescription, NodeState, NodeStatus};
use rswarm_types::service::Service;
use rswarm_types::spec::{ClusterSpec, NetworkDriver, NetworkSpec, NodeSpec, Role, ServiceSpec};
use rswarm_types::task::{Slot, Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::units::{Bytes, NanoCpus, TimestampMs};
use rswarm_types::{ClusterId, MemberId, NetworkId, NodeId, RequestId, ServiceId, TaskId};

/// The one node: 4 CPUs, 4 GiB.
pub const NODE: NodeId = NodeId(0x100);

pub struct Cluster {
    pub state: State,
    next_task: u128,
}

/// A valid service.
pub fn spec(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec { name: name.into(), ..ServiceSpec::default() };
    spec.task.container.image = "image".into();
    spec
}

impl Cluster {
    pub fn new() -> Self {
        let cluster = rswarm_types::cluster::Cluster {
            id: ClusterId(1),
            meta: Meta::default(),
            spec: ClusterSpec::default(),
            root: RootCa { certificate: "root".into(), key: "key".into() },
            tokens: JoinTokens::default(),
            era: 0,
            feature_level: FEATURE_LEVEL,
        };
        let node = Node {
            id: NODE,
            spec: NodeSpec { role: Role::Manager, ..NodeSpec::default() },
            description: NodeDescription {
                cpus: NanoCpus(4_000_000_000),
                memory: Bytes(4 << 30),
                ..Default::default()
            },
            status: NodeStatus { state: NodeState::Ready, ..Default::default() },
            membership: Membership { role: Role::Manager, member: MemberId(1), is_voter: true, raft_lost: false },
            ..Node::default()
        };
        let ingress =
            NetworkSpec { name: "ingress".into(), driver: NetworkDriver::Overlay, ingress: true, ..Default::default() };
        let networks = vec![NetworkSpecWithId { id: NetworkId(0x200), spec: ingress }];
        let mut made = Self { state: State::empty(), next_task: 1_000 };
        made.request(NODE, RequestId(0), Body::Init { cluster: Box::new(cluster), node: Box::new(node), networks });
        made
    }

    /// Applies a command; its index.
    pub fn request(&mut self, caller: NodeId, request: RequestId, body: Body) -> u64 {
        let index = self.state.index() + 1;
        let command = Command {
            at: TimestampMs(index),
            wall: TimestampMs(index),
            request,
            caller: Caller { node: caller, role: Role::Manager },
            needs_level: FEATURE_LEVEL,
            body,
        };
        let applied = self.state.apply(index, &command, [0; 32]);
        assert!(applied.result.is_ok(), "{:?}", applied.result);
        index
    }

    /// Puts a service into the state, past all rules.
    pub fn service(&mut self, id: u128, spec: ServiceSpec) {
        self.put(Record::Service(Box::new(Service {
            id: ServiceId(id),
            spec: spec.into(),
            spec_version: 1,
            ..Service::default()
        })));
    }

    /// Puts a running task into the state, past all rules.
    pub fn task(&mut self, service: u128, slot: u64, change: impl FnOnce(&mut Task)) {
        self.next_task += 1;
        self.task_as(TaskId(self.next_task), service, slot, change);
    }

    /// As [`Self::task`], with an id.
    pub fn task_as(&mut self, id: TaskId, service: u128, slot: u64, change: impl FnOnce(&mut Task)) {
        let spec = self.state.service(ServiceId(service)).expect("the service was put before").spec.clone();
        let mut task = Task {
            id,
            service: ServiceId(service),
            slot: Slot::Number(slot),
            node: Some(NODE),
            spec,
            status: TaskStatus { state: TaskState::Running, ..TaskStatus::default() },
            desired: DesiredState::Running,
            ..Task::default()
        };
        change(&mut task);
        self.put(Record::Task(Box::new(task)));
    }

    fn put(&mut self, record: Record) {
        let mut records: Vec<Record> = self.state.records().collect();
        let place = |record: &Record| match record {
            Record::Cluster(_) => 0,
            Record::Node(_) => 1,
            Record::Network(_) => 2,
            Record::Service(_) => 3,
            Record::Task(_) => 4,
            Record::Restarts(_) | Record::Request(_) | Record::Retired(_) => 5,
            Record::Cursor(_) => 6,
        };
        records.push(record);
        records.sort_by_key(place);
        self.state = State::from_records(records).expect("records of a state and one more");
    }
}
