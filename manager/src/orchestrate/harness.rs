//! A cluster without processes: the state, the reconcilers, and agents that do as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rswarm_store::{Changed, State};
use rswarm_types::cluster::{Cluster, JoinTokens, RootCa};
use rswarm_types::command::{Answer, Body, Caller, Command, NetworkSpecWithId};
use rswarm_types::limits::BATCH_CHANGES_MAX;
use rswarm_types::node::{Membership, Node, NodeDescription, NodeState};
use rswarm_types::service::{Service, UpdateStatus};
use rswarm_types::spec::{
    Availability, ClusterSpec, ContainerSpec, NetworkAttachment, NetworkDriver, NetworkSpec, NodeSpec, Role,
    ServiceMode, ServiceSpec, TaskSpec, UpdateOrder,
};
use rswarm_types::task::{Slot, Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{
    Bytes, ClusterId, MemberId, NanoCpus, NetworkId, NodeId, Refusal, RequestId, ServiceId, TaskId, TimestampMs,
};

use super::{Memory, Scope, reconcile};
use crate::feed::everything;

/// What becomes of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Runs,
    /// It never gets to RUNNING.
    FailsAtOnce,
    /// It cannot be made ready.
    Rejected,
    /// So many milliseconds after RUNNING.
    Ends(u64, TaskState),
}

/// Who decides on the fate of a task.
pub(crate) type Oracle = Box<dyn Fn(&Task) -> Fate>;

pub(crate) struct Lab {
    pub state: State,
    pub now: u64,
    pub fate: Oracle,
    pub memory: Memory,
    pub dirty: Changed,
    /// Nodes that hear nothing and are not heard.
    pub cut: BTreeSet<NodeId>,
    /// Nodes whose containers do not stop.
    pub stubborn: BTreeSet<NodeId>,
    /// Changes of one entry.
    pub batch: usize,
    /// Changes proposed so far.
    pub proposed: usize,
    pub wake_at: Option<TimestampMs>,
    next_id: u128,
    seen: BTreeMap<TaskId, TaskState>,
}

pub(crate) const MANAGER: NodeId = NodeId(1);

impl Lab {
    /// A cluster whose manager takes no tasks, and these workers.
    pub fn new(workers: u128) -> Self {
        let mut lab = Self {
            state: State::empty(),
            now: 1_000,
            fate: Box::new(|_| Fate::Runs),
            memory: Memory::default(),
            dirty: Changed::default(),
            cut: BTreeSet::new(),
            stubborn: BTreeSet::new(),
            batch: BATCH_CHANGES_MAX,
            proposed: 0,
            wake_at: None,
            next_id: 1 << 64,
            seen: BTreeMap::new(),
        };
        lab.run(init()).expect("a first entry is accepted");
        for id in 2..2 + workers {
            lab.join(id);
        }
        lab
    }

    pub fn join(&mut self, id: u128) -> NodeId {
        let key_hash = std::array::from_fn(|at| id.to_be_bytes()[at % 16]);
        let node = NodeId(id);
        let availability = Availability::Active;
        self.run(Body::Admit { node, role: Role::Worker, key_hash, address: None, availability }).expect("admitted");
        self.connect(node);
        node
    }

    /// Opens a session: what is not running any more is not listed.
    pub fn connect(&mut self, node: NodeId) {
        self.cut.remove(&node);
        let sandboxes = self.state.tasks_on_node(node).filter(|t| !t.status.sandbox_gone).map(|t| t.id).collect();
        let hostname = format!("n{}", node.0);
        let description = NodeDescription {
            hostname,
            cpus: NanoCpus(4_000_000_000),
            memory: Bytes(8 << 30),
            ..NodeDescription::default()
        };
        let (description, boot_id) = (Box::new(description), "boot".into());
        let body = Body::OpenSession { node, boot_id, description, address: None, raft_lost: false, sandboxes };
        self.run(body).expect("a session opens");
    }

    /// The node is silent, and the leader has noticed.
    pub fn lose(&mut self, node: NodeId) {
        self.cut.insert(node);
        self.set_node_state(node, NodeState::Down);
    }

    pub fn set_node_state(&mut self, node: NodeId, state: NodeState) {
        let epoch = self.node(node).session_epoch;
        let (message, grace_until) = ("silent".into(), TimestampMs(0));
        self.run(Body::SetNodeState { node, epoch, state, message, grace_until }).expect("accepted");
    }

    pub fn update_node(&mut self, node: NodeId, change: impl FnOnce(&mut NodeSpec)) {
        let record = self.node(node);
        let (version, mut spec) = (record.meta.version, record.spec.clone());
        change(&mut spec);
        self.run(Body::UpdateNode { node, version, spec }).expect("the node is updated");
    }

    pub fn avail(&mut self, node: NodeId, availability: Availability) {
        self.update_node(node, |spec| spec.availability = availability);
    }

    pub fn create(&mut self, id: u128, spec: ServiceSpec) -> ServiceId {
        let id = ServiceId(id);
        self.run(Body::CreateService { id, spec: Arc::new(spec), auth: Default::default() })
            .unwrap_or_else(|refusal| panic!("{refusal}"));
        id
    }

    pub fn update(&mut self, id: ServiceId, change: impl FnOnce(&mut ServiceSpec)) {
        let service = self.service(id);
        let (version, mut spec) = (service.meta.version, service.spec.as_ref().clone());
        change(&mut spec);
        self.run(Body::UpdateService { id, version, spec: Arc::new(spec), auth: None, rollback: false })
            .unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    pub fn rollback(&mut self, id: ServiceId) {
        let version = self.service(id).meta.version;
        self.run(Body::UpdateService { id, version, spec: Default::default(), auth: None, rollback: true })
            .unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    pub fn scale(&mut self, id: ServiceId, replicas: u64) {
        self.update(id, |spec| spec.mode = ServiceMode::Replicated { replicas });
    }

    pub fn network(&mut self, id: u128, spec: NetworkSpec) {
        self.run(Body::CreateNetwork { id: NetworkId(id), spec }).unwrap_or_else(|refusal| panic!("{refusal}"));
    }

    pub fn run(&mut self, body: Body) -> Result<Answer, Refusal> {
        let command = Command {
            at: TimestampMs(self.now),
            wall: TimestampMs(1_700_000_000_000 + self.now),
            request: RequestId(0),
            caller: Caller { node: MANAGER, role: Role::Manager },
            needs_level: 1,
            body,
        };
        let applied = self.state.apply(self.state.index() + 1, &command, [0; 32]);
        self.check(&applied.changed);
        self.dirty.merge(applied.changed);
        applied.result
    }

    /// I10 and I14 after every entry.
    fn check(&mut self, changed: &Changed) {
        for id in &changed.tasks {
            let Some(task) = self.state.task(*id) else {
                self.seen.remove(id);
                continue;
            };
            let state = task.status.state;
            let before = self.seen.insert(*id, state).unwrap_or(state);
            assert!(state == before || (state > before && !before.is_terminal()), "task {id}: {before} → {state}");
            if state == TaskState::Assigned && before < state {
                let node = task.node.and_then(|node| self.state.node(node)).expect("it was assigned to a node");
                assert!(node.is_schedulable(), "task {id} was assigned to a node that takes none");
            }
            let wanted = |task: &&Arc<Task>| task.desired == DesiredState::Running && !task.status.state.is_terminal();
            let wanted = self.state.tasks_of_slot(task.service, task.slot).filter(wanted).count();
            let is_start_first = |service: &Service| {
                let configs = [service.spec.update, service.spec.rollback];
                configs.iter().flatten().any(|config| config.order == UpdateOrder::StartFirst)
            };
            let most = 1 + usize::from(self.state.service(task.service).is_some_and(|s| is_start_first(s)));
            assert!(wanted <= most, "slot {} has {wanted} tasks that are to run", task.slot);
        }
    }

    /// One pass of the leader; whether it decided anything.
    pub fn pass(&mut self) -> bool {
        let scope = std::mem::take(&mut self.dirty);
        let next_id = &mut self.next_id;
        let mut ids = || {
            // Spread like random ids, so that no rule leans on their order.
            *next_id += 1;
            next_id.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)
        };
        let plan = reconcile(&self.state, &Scope::Dirty(&scope), TimestampMs(self.now), &mut ids, &mut self.memory);
        self.wake_at = plan.wake_at;
        self.proposed += plan.changes.len();
        for batch in plan.changes.chunks(self.batch) {
            self.run(Body::Reconcile(batch.to_vec())).expect("reconcilers are never refused");
        }
        self.dirty.merge(plan.again);
        !plan.changes.is_empty()
    }

    /// Every agent that is connected takes a step; whether any had something to say.
    pub fn agents(&mut self) -> bool {
        self.now += 1;
        let heard = self.state.nodes().filter(|node| !self.cut.contains(&node.id));
        let nodes: Vec<(NodeId, u64)> = heard.map(|node| (node.id, node.session_epoch)).collect();
        let mut spoke = false;
        for (node, epoch) in nodes {
            let statuses: Vec<(TaskId, TaskStatus)> =
                self.state.tasks_on_node(node).filter_map(|task| Some((task.id, self.step(task)?))).collect();
            if !statuses.is_empty() {
                self.run(Body::Report { node, epoch, statuses }).expect("reports are never refused");
                spoke = true;
            }
        }
        spoke
    }

    fn step(&self, task: &Task) -> Option<TaskStatus> {
        let status = |state, sandbox_gone| Some(TaskStatus { state, sandbox_gone, ..TaskStatus::default() });
        let state = task.status.state;
        if state < TaskState::Assigned || task.status.sandbox_gone {
            return None;
        }
        if state.is_terminal() {
            return status(state, true);
        }
        if task.desired >= DesiredState::Shutdown {
            let is_stubborn = task.node.is_some_and(|node| self.stubborn.contains(&node));
            return if is_stubborn { None } else { status(TaskState::Shutdown, false) };
        }
        let fate = (self.fate)(task);
        match state {
            TaskState::Assigned if fate == Fate::Rejected => status(TaskState::Rejected, false),
            TaskState::Assigned => status(TaskState::Preparing, false),
            TaskState::Preparing => status(TaskState::Ready, false),
            TaskState::Ready if task.desired == DesiredState::Running && fate == Fate::FailsAtOnce => {
                status(TaskState::Failed, false)
            }
            TaskState::Ready if task.desired == DesiredState::Running => status(TaskState::Running, false),
            TaskState::Running => match fate {
                Fate::Ends(after, end) if self.now >= task.running_since.0 + after => status(end, false),
                _ => None,
            },
            _ => None,
        }
    }

    /// When the next container ends.
    fn next_end(&self) -> Option<u64> {
        let ends = self.state.tasks().filter(|task| {
            task.status.state == TaskState::Running
                && task.desired <= DesiredState::Running
                && !task.node.is_some_and(|node| self.cut.contains(&node))
        });
        ends.filter_map(|task| match (self.fate)(task) {
            Fate::Ends(after, _) => Some(task.running_since.0 + after),
            _ => None,
        })
        .min()
    }

    /// Until nobody has anything to do now.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let decided = self.pass();
            let spoke = self.agents();
            if !decided && !spoke {
                return;
            }
        }
        panic!("the cluster never comes to rest");
    }

    /// So much cluster time goes by.
    pub fn run_for(&mut self, by: Duration) {
        let end = self.now + u64::try_from(by.as_millis()).expect("a short time");
        loop {
            self.settle();
            let next = [self.wake_at.map(|at| at.0), self.next_end()].into_iter().flatten().min();
            match next.filter(|next| *next < end) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
            if self.now >= end {
                break;
            }
        }
        self.now = self.now.max(end);
        self.settle();
    }

    /// Another leader, which knows nothing but the state, finds nothing to do.
    pub fn is_converged(&mut self) {
        self.settle();
        self.memory = Memory::default();
        self.dirty = everything(&self.state);
        let before = self.state.digest();
        assert!(!self.pass(), "a new leader changes something");
        assert_eq!(before, self.state.digest());
        let problems = self.state.audit();
        assert!(problems.is_empty(), "{problems:#?}");
    }

    pub fn new_leader(&mut self) {
        self.memory = Memory::default();
        self.dirty = everything(&self.state);
    }

    pub fn node(&self, id: NodeId) -> &Arc<Node> {
        self.state.node(id).expect("the node exists")
    }

    pub fn service(&self, id: ServiceId) -> &Arc<Service> {
        self.state.service(id).expect("the service exists")
    }

    pub fn status(&self, id: ServiceId) -> &UpdateStatus {
        self.service(id).update.as_ref().expect("the service was updated")
    }

    /// Tasks that run and are to run, by slot.
    pub fn running(&self, id: ServiceId) -> Vec<Arc<Task>> {
        let runs = |task: &&Arc<Task>| {
            task.status.state == TaskState::Running
                && task.desired == DesiredState::Running
                && !task.node.is_some_and(|node| self.cut.contains(&node))
        };
        self.state.tasks_of_service(id).filter(runs).cloned().collect()
    }

    pub fn running_slots(&self, id: ServiceId) -> Vec<u64> {
        let number = |slot| match slot {
            Slot::Number(n) => n,
            Slot::Node(node) => u64::try_from(node.0).expect("small node ids"),
        };
        self.running(id).iter().map(|task| number(task.slot)).collect()
    }

    /// The nodes of [`Self::running`], in order.
    pub fn running_nodes(&self, id: ServiceId) -> Vec<u128> {
        let mut nodes: Vec<u128> = self.running(id).iter().filter_map(|task| Some(task.node?.0)).collect();
        nodes.sort_unstable();
        nodes
    }

    pub fn tasks(&self, id: ServiceId) -> Vec<Arc<Task>> {
        self.state.tasks_of_service(id).cloned().collect()
    }
}

/// A new cluster with one manager.
pub(crate) fn init() -> Body {
    let network = |id, name: &str, driver, ingress| NetworkSpecWithId {
        id: NetworkId(id),
        spec: NetworkSpec { name: name.into(), driver, ingress, ..NetworkSpec::default() },
    };
    Body::Init {
        cluster: Box::new(Cluster {
            id: ClusterId(7),
            meta: Default::default(),
            spec: ClusterSpec::default(),
            root: RootCa { certificate: "cert".into(), key: "key".into() },
            tokens: JoinTokens { worker: "w".into(), manager: "m".into() },
            era: 0,
            feature_level: 1,
        }),
        node: Box::new(Node {
            id: MANAGER,
            spec: NodeSpec { role: Role::Manager, availability: Availability::Drain, ..NodeSpec::default() },
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

/// A replicated service.
pub(crate) fn replicated(name: &str, replicas: u64) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        task: TaskSpec {
            container: ContainerSpec { image: "nginx:1.27".into(), ..ContainerSpec::default() },
            ..TaskSpec::default()
        },
        mode: ServiceMode::Replicated { replicas },
        ..ServiceSpec::default()
    }
}

pub(super) fn global(name: &str) -> ServiceSpec {
    ServiceSpec { mode: ServiceMode::Global, ..replicated(name, 0) }
}

/// The service joins this network.
pub(crate) fn join_network(spec: &mut ServiceSpec, name: &str) {
    spec.task.networks = vec![NetworkAttachment { target: name.into(), ..NetworkAttachment::default() }];
}
