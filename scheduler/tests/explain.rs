//! Why no node is chosen.

mod common;

use std::sync::Arc;

use common::{NOW, cluster, constrained, explanation, group, host_port, labelled, node, reserving, running, with_spec};
use rswarm_scheduler::Cluster;
use rswarm_types::node::{Node, NodeState};
use rswarm_types::spec::{Availability, Platform, ServiceSpec};
use rswarm_types::{Bytes, NodeId, TaskId};

fn check(nodes: impl IntoIterator<Item = Node>, spec: ServiceSpec, tasks: u128, expected: &str) {
    let decisions = cluster(nodes).schedule(&[group(1, spec, 1..=tasks)], NOW);
    assert_eq!(explanation(&decisions), expected);
}

#[test]
fn an_empty_cluster_says_so() {
    check([], ServiceSpec::default(), 1, "no suitable node (the cluster has no nodes)");
}

#[test]
fn nodes_that_are_not_available_are_named_with_their_state() {
    let mut down = node(1);
    down.status.state = NodeState::Down;
    let drained = with_spec(node(3), |spec| spec.availability = Availability::Drain);
    let paused = with_spec(node(2), |spec| spec.availability = Availability::Pause);
    let expected = "no suitable node (3 nodes not available for new tasks (n1 is down, n2 is paused, n3 is drained))";
    check([paused, down, drained], ServiceSpec::default(), 1, expected);
}

#[test]
fn missing_memory_names_the_need_and_the_best_node() {
    let mut small = node(2);
    small.description.memory = Bytes((12 << 30) / 10);
    let mut tiny = node(1);
    tiny.description.memory = Bytes(1 << 20);
    let expected = "no suitable node (insufficient memory on 2 nodes (need 4GiB, best: n2 with 1.1GiB free))";
    check([tiny, small], reserving(0, 4 << 30), 1, expected);
    let expected = "no suitable node (insufficient CPU on 1 node (need 1.5, best: n1 with 1 free))";
    check([node(1)], reserving(1_500_000_000, 0), 3, expected);
}

#[test]
fn a_constraint_is_quoted_with_the_nodes_that_fail_it() {
    let nodes = || [labelled(1, "a"), labelled(2, "b"), labelled(3, "a"), labelled(4, "a"), labelled(5, "a")];
    let spec = constrained(&["node.labels.zone == b", "node.role == manager"]);
    let expected = "no suitable node (scheduling constraints not satisfied on 5 nodes \
                    (\"node.labels.zone == b\": n1, n3, n4 and 1 more, \"node.role == manager\": n2))";
    check(nodes(), spec, 1, expected);
    let expected = "no suitable node (scheduling constraints not satisfied on 5 nodes \
                    (\"nonsense\": n1, n2, n3 and 2 more))";
    check(nodes(), constrained(&["nonsense"]), 1, expected);
}

#[test]
fn ports_platforms_and_the_replica_limit_are_told() {
    let expected = "no suitable node (host-mode port already in use on 2 nodes (8080/tcp on n1, 8080/tcp on n2))";
    check([1, 2].map(node), host_port(8080), 3, expected);

    let mut arm = node(1);
    arm.description.platform = Platform { os: "linux".into(), architecture: "aarch64".into() };
    let mut spec = ServiceSpec::default();
    spec.task.placement.platforms = vec![Platform { os: "linux".into(), architecture: "amd64".into() }];
    let expected = "no suitable node (unsupported platform on 1 node (image is for linux/amd64, n1 is linux/aarch64))";
    check([arm], spec, 1, expected);

    let mut spec = ServiceSpec::default();
    spec.task.placement.max_replicas_per_node = 2;
    let expected = "no suitable node (max replicas per node limit exceed on 1 node (at most 2 per node))";
    check([node(1)], spec, 3, expected);
}

#[test]
fn what_refuses_the_most_nodes_is_said_first() {
    let mut down = node(1);
    down.status.state = NodeState::Down;
    let expected = "no suitable node (insufficient memory on 2 nodes (need 9GiB, best: n2 with 8GiB free); \
                    1 node not available for new tasks (n1 is down))";
    check([down, node(2), node(3)], reserving(0, 9 << 30), 1, expected);
}

#[test]
fn a_global_task_names_its_node() {
    let mut cluster = cluster([node(1)]);
    let mut agent = group(1, reserving(0, 9 << 30), []);
    agent.preassigned = vec![(TaskId(1), NodeId(1))];
    assert_eq!(
        explanation(&cluster.schedule(&[agent], NOW)),
        "no suitable node (insufficient memory on 1 node (need 9GiB, best: n1 with 8GiB free))"
    );
}

/// The explanation kept over these changes is the one that a fresh look gives.
fn check_kept(edit: impl Fn(&mut Cluster)) -> String {
    let web = group(1, reserving(0, 6 << 30), [1]);
    let other = group(2, reserving(0, 3 << 30), []);
    let tasks = [running(11, &other, 1), running(12, &other, 2), running(13, &other, 2)].map(Arc::new);
    let nodes = [1, 2].map(|id| Arc::new(node(id)));
    let mut kept = Cluster::from_scratch(&nodes, &tasks);
    kept.schedule(std::slice::from_ref(&web), NOW);
    edit(&mut kept);
    let mut fresh = Cluster::from_scratch(&nodes, &tasks);
    edit(&mut fresh);
    let [kept, fresh] = [&mut kept, &mut fresh].map(|cluster| cluster.schedule(std::slice::from_ref(&web), NOW));
    assert_eq!(kept, fresh);
    explanation(&kept)
}

#[test]
fn a_kept_explanation_follows_the_nodes() {
    let other = group(3, reserving(0, 1 << 30), []);
    let best = |text: &str| text.contains("best: n1 with 5GiB");
    assert!(best(&check_kept(|_| ())));
    let text = check_kept(|cluster| cluster.upsert_task(&running(20, &other, 1)));
    assert!(text.contains("best: n1 with 4GiB"), "{text}");
    let text = check_kept(|cluster| {
        cluster.upsert_task(&running(20, &other, 1));
        cluster.remove_task(TaskId(12));
    });
    assert!(text.contains("best: n2 with 5GiB"), "{text}");
    let text = check_kept(|cluster| {
        let mut down = node(1);
        down.status.state = NodeState::Down;
        cluster.upsert_node(&Arc::new(down));
    });
    assert!(text.contains("n1 is down") && text.contains("best: n2 with 2GiB"), "{text}");
    let text = check_kept(|cluster| cluster.remove_node(NodeId(1)));
    assert!(text.contains("on 1 node (") && text.contains("best: n2"), "{text}");
    let text = check_kept(|cluster| {
        let mut renamed = node(1);
        renamed.description.hostname = "big".into();
        cluster.upsert_node(&Arc::new(renamed));
    });
    assert!(text.contains("best: big with 5GiB"), "{text}");
    assert!(
        !check_kept(|cluster| cluster.upsert_node(&Arc::new(with_spec(node(3), |spec| {
            spec.availability = Availability::Drain;
        }))))
        .is_empty()
    );
}
