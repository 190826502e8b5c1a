//! Random clusters: the quick choice is the plain one, and a view kept up to date is the one from
//! scratch.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{NOW, group, host_port, node, nodes_of, running, spread};
use proptest::prelude::*;
use rswarm_scheduler::{Cluster, Decision, Group, Outcome};
use rswarm_types::node::{Node, NodeState};
use rswarm_types::spec::{Availability, PublishMode, ServiceSpec};
use rswarm_types::task::Task;
use rswarm_types::{Bytes, NodeId, ServiceId, TaskId, TimestampMs};

type Nodes = BTreeMap<NodeId, Arc<Node>>;
type Tasks = BTreeMap<TaskId, Arc<Task>>;

fn some_node(id: u8, c: u8) -> Arc<Node> {
    let mut node = node(u128::from(id) + 1);
    if !c.is_multiple_of(4) {
        node.spec.labels.insert("zone".into(), format!("z{}", c % 4));
    }
    if c & 8 != 0 {
        node.spec.availability = Availability::Drain;
    }
    if c & 16 != 0 {
        node.status.state = NodeState::Down;
    }
    if c & 32 != 0 {
        node.description.memory = Bytes(4 << 30);
    }
    Arc::new(node)
}

fn some_spec(c: u8) -> ServiceSpec {
    let mut spec = if c & 1 != 0 { spread(&["node.labels.zone"]) } else { ServiceSpec::default() };
    if c & 2 != 0 {
        spec.endpoint = host_port(8080).endpoint;
    }
    if c & 4 != 0 {
        spec.task.placement.constraints = vec!["node.labels.zone != z1".into()];
    }
    if c & 8 != 0 {
        spec.task.resources.reserve_memory = Bytes(u64::from(c % 5) << 30);
    }
    if c & 16 != 0 {
        spec.task.placement.max_replicas_per_node = 2;
    }
    spec
}

fn some_group(service: u8, c: u8, count: u8, first: u128) -> Group {
    let mut group = group(u128::from(service) + 1, some_spec(c), (0..u128::from(count)).map(|n| first + n));
    let failures = usize::from(c / 32);
    group.failures = vec![(NodeId(u128::from(c % 4) + 1), TimestampMs(NOW.0 - 1)); failures];
    group
}

/// Swarm's rules, one task and one node at a time.
struct Plain<'a> {
    nodes: &'a Nodes,
    tasks: Tasks,
}

impl Plain<'_> {
    fn wanted(&self, node: NodeId, service: Option<ServiceId>) -> usize {
        let here = self.tasks.values().filter(|t| t.node == Some(node) && t.is_live());
        here.filter(|t| service.is_none_or(|service| t.service == service)).count()
    }

    fn takes(&self, node: &Node, group: &Group) -> bool {
        let spec = &group.spec;
        let here = || self.tasks.values().filter(|t| t.node == Some(node.id) && !t.status.state.is_terminal());
        let reserved: u64 = here().map(|t| t.spec.task.resources.reserve_memory.0).sum();
        let need = spec.task.resources.reserve_memory.0;
        let is_host = |spec: &ServiceSpec| spec.endpoint.ports.iter().any(|p| p.mode == PublishMode::Host);
        let max = spec.task.placement.max_replicas_per_node;
        node.is_schedulable()
            && (need == 0 || reserved + need <= node.description.memory.0)
            && (spec.task.placement.constraints.is_empty()
                || node.spec.labels.get("zone").is_none_or(|zone| zone != "z1"))
            && !(is_host(spec) && here().any(|t| is_host(&t.spec)))
            && (max == 0 || (self.wanted(node.id, Some(group.service)) as u64) < max)
    }

    fn place(&mut self, group: &Group) -> Vec<u128> {
        let mut out = Vec::new();
        for id in &group.tasks {
            let zone = |node: &Node| node.spec.labels.get("zone").cloned().unwrap_or_default();
            let in_zone = |wanted: &str| -> usize {
                let mates = self.nodes.values().filter(|n| zone(n) == wanted);
                mates.map(|n| self.wanted(n.id, Some(group.service))).sum()
            };
            let is_spread = !group.spec.task.placement.preferences.is_empty();
            let rank = |node: &Arc<Node>| {
                let failures = group.failures.iter().filter(|(on, _)| *on == node.id).count();
                let zone_rank = if is_spread { (in_zone(&zone(node)), zone(node)) } else { (0, String::new()) };
                let failures = if failures >= 5 { failures } else { 0 };
                (zone_rank, failures, self.wanted(node.id, Some(group.service)), self.wanted(node.id, None), node.id)
            };
            let best = self.nodes.values().filter(|node| self.takes(node, group)).min_by_key(|node| rank(node));
            let Some(best) = best.map(|node| node.id) else {
                out.push(0);
                continue;
            };
            self.tasks.insert(*id, Arc::new(running(id.0, group, best.0)));
            out.push(best.0);
        }
        out
    }
}

/// Nodes and tasks as random bytes say.
fn world(nodes: &[u8], tasks: &[(u8, u8, u8)]) -> (Nodes, Tasks) {
    let nodes: Nodes = (0u8..).zip(nodes).map(|(id, c)| some_node(id, *c)).map(|node| (node.id, node)).collect();
    let count = u8::try_from(nodes.len()).expect("few nodes").max(1);
    let task = |(n, (service, c, node)): (u128, &(u8, u8, u8))| {
        let owner = some_group(*service, *c, 0, 0);
        // What was placed by hand may break rules: only the load matters here.
        let mut task = running(1_000 + n, &owner, u128::from(node % count) + 1);
        if c & 64 != 0 {
            task.desired = rswarm_types::task_state::DesiredState::Shutdown;
        }
        (task.id, Arc::new(task))
    };
    (nodes, (0..).zip(tasks).map(task).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_quick_choice_is_the_plain_one(
        nodes in prop::collection::vec(any::<u8>(), 0..8),
        tasks in prop::collection::vec((0u8..4, any::<u8>(), any::<u8>()), 0..20),
        groups in prop::collection::vec((0u8..4, any::<u8>(), 0u8..9), 1..4),
    ) {
        let (nodes, tasks) = world(&nodes, &tasks);
        let mut cluster = Cluster::from_scratch(nodes.values(), tasks.values());
        let mut plain = Plain { nodes: &nodes, tasks };
        let groups: Vec<Group> =
            (0u128..).zip(&groups).map(|(n, (service, c, count))| some_group(*service, *c, *count, n * 100 + 1)).collect();
        for group in &groups {
            let decisions = cluster.schedule(std::slice::from_ref(group), NOW);
            prop_assert_eq!(nodes_of(&decisions), plain.place(group));
        }
    }

    #[test]
    fn a_view_that_was_kept_decides_as_one_from_scratch(
        nodes in prop::collection::vec(any::<u8>(), 0..8),
        steps in prop::collection::vec((0u8..8, any::<u8>(), any::<u8>(), any::<u8>()), 1..60),
    ) {
        let (mut nodes, mut tasks) = world(&nodes, &[]);
        let mut kept = Cluster::from_scratch(nodes.values(), tasks.values());
        // Per service the pending group, with tasks that no other group has.
        let mut groups: BTreeMap<ServiceId, Group> = BTreeMap::new();
        let mut next = 1;
        for (kind, a, b, c) in steps {
            let id = NodeId(u128::from(a % 8) + 1);
            match kind {
                0 => {
                    let node = some_node(a % 8, b);
                    kept.upsert_node(&node);
                    nodes.insert(node.id, node);
                }
                1 => {
                    kept.remove_node(id);
                    nodes.remove(&id);
                    let orphans: Vec<TaskId> =
                        tasks.values().filter(|t| t.node == Some(id)).map(|t| t.id).collect();
                    for task in orphans {
                        tasks.remove(&task);
                        kept.remove_task(task);
                    }
                }
                2 => {
                    if let Some(task) = tasks.keys().nth(usize::from(b)).copied() {
                        tasks.remove(&task);
                        kept.remove_task(task);
                    }
                }
                3 | 4 => {
                    next += 100;
                    let group = some_group(a % 4, c, b % 5, next);
                    groups.insert(group.service, group);
                }
                _ => {
                    let all: Vec<Group> = groups.values().cloned().collect();
                    let mut fresh = Cluster::from_scratch(nodes.values(), tasks.values());
                    let decisions = kept.schedule(&all, NOW);
                    prop_assert_eq!(&decisions, &fresh.schedule(&all, NOW));
                    settle(&decisions, c, &mut groups, &mut tasks, &mut kept);
                }
            }
        }
    }
}

/// The entry is applied, but for the task that `drop` names.
fn settle(
    decisions: &[Decision],
    drop: u8,
    groups: &mut BTreeMap<ServiceId, Group>,
    tasks: &mut Tasks,
    kept: &mut Cluster,
) {
    for (n, decision) in decisions.iter().enumerate() {
        let Outcome::Node(node) = decision.outcome else { continue };
        let owner = groups.values_mut().find(|g| g.tasks.contains(&decision.task)).expect("a task has a group");
        if n == usize::from(drop % 16) {
            kept.upsert_task(&Task { id: decision.task, ..Task::default() });
            continue;
        }
        owner.tasks.retain(|task| *task != decision.task);
        let task = Arc::new(running(decision.task.0, owner, node.0));
        kept.upsert_task(&task);
        tasks.insert(task.id, task);
    }
    groups.retain(|_, group| !group.tasks.is_empty());
}
