//! Nodes, specs and groups for tests.
#![allow(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;

use rswarm_scheduler::{Cluster, Decision, Group, Outcome};
use rswarm_types::node::{Node, NodeDescription, NodeState, NodeStatus};
use rswarm_types::spec::{NodeSpec, PortConfig, PublishMode, ServiceSpec, SpreadPreference};
use rswarm_types::task::{Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{Bytes, NanoCpus, NodeId, ServiceId, TaskId, TimestampMs};

pub const NOW: TimestampMs = TimestampMs(10_000_000);

/// A ready node `n<id>` with 4 CPUs and 8 GiB.
pub fn node(id: u128) -> Node {
    Node {
        id: NodeId(id),
        status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
        description: NodeDescription {
            hostname: format!("n{id}"),
            cpus: NanoCpus(4_000_000_000),
            memory: Bytes(8 << 30),
            ..NodeDescription::default()
        },
        ..Node::default()
    }
}

pub fn labelled(id: u128, zone: &str) -> Node {
    let mut node = node(id);
    node.spec.labels.insert("zone".into(), zone.into());
    node
}

pub fn cluster(nodes: impl IntoIterator<Item = Node>) -> Cluster {
    let nodes: Vec<Arc<Node>> = nodes.into_iter().map(Arc::new).collect();
    Cluster::from_scratch(&nodes, [])
}

pub fn group(service: u128, spec: ServiceSpec, tasks: impl IntoIterator<Item = u128>) -> Group {
    Group {
        service: ServiceId(service),
        spec: Arc::new(spec),
        tasks: tasks.into_iter().map(TaskId).collect(),
        preassigned: vec![],
        failures: vec![],
    }
}

/// A task of the group that runs on the node.
pub fn running(id: u128, group: &Group, node: u128) -> Task {
    Task {
        id: TaskId(id),
        service: group.service,
        spec: Arc::clone(&group.spec),
        node: Some(NodeId(node)),
        status: TaskStatus { state: TaskState::Running, ..TaskStatus::default() },
        desired: DesiredState::Running,
        ..Task::default()
    }
}

pub fn spread(descriptors: &[&str]) -> ServiceSpec {
    let mut spec = ServiceSpec::default();
    spec.task.placement.preferences =
        descriptors.iter().map(|text| SpreadPreference { descriptor: (*text).into() }).collect();
    spec
}

pub fn host_port(published: u16) -> ServiceSpec {
    let mut spec = ServiceSpec::default();
    spec.endpoint.ports = vec![PortConfig { target: 80, published, mode: PublishMode::Host, ..PortConfig::default() }];
    spec
}

pub fn constrained(constraints: &[&str]) -> ServiceSpec {
    let mut spec = ServiceSpec::default();
    spec.task.placement.constraints = constraints.iter().map(|text| (*text).into()).collect();
    spec
}

pub fn reserving(cpu: u64, memory: u64) -> ServiceSpec {
    let mut spec = ServiceSpec::default();
    spec.task.resources.reserve_cpu = NanoCpus(cpu);
    spec.task.resources.reserve_memory = Bytes(memory);
    spec
}

pub fn with_spec(mut node: Node, edit: impl FnOnce(&mut NodeSpec)) -> Node {
    edit(&mut node.spec);
    node
}

/// The node per task, 0 = none.
pub fn nodes_of(decisions: &[Decision]) -> Vec<u128> {
    let node = |decision: &Decision| match &decision.outcome {
        Outcome::Node(node) => node.0,
        Outcome::Unplaced { .. } => 0,
    };
    decisions.iter().map(node).collect()
}

/// Why the last task found no node.
pub fn explanation(decisions: &[Decision]) -> String {
    match decisions.last().map(|decision| &decision.outcome) {
        Some(Outcome::Unplaced { explanation }) => explanation.to_string(),
        other => panic!("{other:?}"),
    }
}
