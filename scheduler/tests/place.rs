//! Which node is chosen.

mod common;

use std::sync::Arc;

use common::{
    NOW, cluster, constrained, group, host_port, labelled, node, nodes_of, reserving, running, spread, with_spec,
};
use rswarm_scheduler::Cluster;
use rswarm_types::node::NodeState;
use rswarm_types::spec::{Availability, Platform, ServiceSpec};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{NodeId, TaskId, TimestampMs};

#[test]
fn tasks_go_around_the_nodes_and_ties_go_by_id() {
    let mut cluster = cluster([3, 1, 2].map(node));
    let decisions = cluster.schedule(&[group(1, ServiceSpec::default(), 1..=7)], NOW);
    assert_eq!(nodes_of(&decisions), [1, 2, 3, 1, 2, 3, 1]);
}

#[test]
fn fewest_tasks_of_the_service_come_before_fewest_tasks() {
    let mut cluster = cluster([1, 2].map(node));
    let web = group(1, ServiceSpec::default(), [100]);
    let other = group(2, ServiceSpec::default(), []);
    cluster.upsert_task(&running(10, &web, 1));
    for id in 20..25 {
        cluster.upsert_task(&running(id, &other, 2));
    }
    assert_eq!(nodes_of(&cluster.schedule(&[web], NOW)), [2]);
    let third = group(3, ServiceSpec::default(), [200]);
    assert_eq!(nodes_of(&cluster.schedule(&[third], NOW)), [1]);
}

#[test]
fn five_failures_in_five_minutes_make_a_node_the_last_choice() {
    let mut web = group(1, ServiceSpec::default(), [1, 2, 3]);
    let failed = |node, age: u64| (NodeId(node), TimestampMs(NOW.0 - age));
    web.failures = vec![failed(1, 1_000); 5];
    assert_eq!(nodes_of(&cluster([1, 2].map(node)).schedule(&[web.clone()], NOW)), [2, 2, 2]);
    assert_eq!(nodes_of(&cluster([1].map(node)).schedule(&[web.clone()], NOW)), [1, 1, 1], "but a choice");
    web.failures[0] = failed(1, 5 * 60 * 1_000 + 1);
    assert_eq!(nodes_of(&cluster([1, 2].map(node)).schedule(&[web.clone()], NOW)), [1, 2, 1]);
    web.failures = [vec![failed(1, 1); 6], vec![failed(2, 1); 5]].concat();
    assert_eq!(nodes_of(&cluster([1, 2].map(node)).schedule(&[web], NOW)), [2, 2, 2], "the fewest, if all failed");
}

#[test]
fn nodes_that_are_not_ready_or_not_active_get_nothing() {
    let mut down = node(1);
    down.status.state = NodeState::Down;
    let drained = with_spec(node(2), |spec| spec.availability = Availability::Drain);
    let paused = with_spec(node(3), |spec| spec.availability = Availability::Pause);
    let mut cluster = cluster([down, drained, paused, node(4)]);
    let decisions = cluster.schedule(&[group(1, ServiceSpec::default(), 1..=2)], NOW);
    assert_eq!(nodes_of(&decisions), [4, 4]);
}

#[test]
fn reservations_never_exceed_a_node() {
    let mut cluster = cluster([1, 2].map(node));
    let decisions = cluster.schedule(&[group(1, reserving(0, 3 << 30), 1..=5)], NOW);
    assert_eq!(nodes_of(&decisions), [1, 2, 1, 2, 0]);
    let decisions = cluster.schedule(&[group(2, reserving(4_000_000_000, 0), 11..=13)], NOW);
    assert_eq!(nodes_of(&decisions), [1, 2, 0], "CPUs are still free");
}

#[test]
fn a_finished_task_frees_what_it_took_and_a_stopping_one_does_not() {
    let mut cluster = cluster([node(1)]);
    let web = group(1, reserving(0, 8 << 30), [1]);
    let mut old = running(9, &web, 1);
    cluster.upsert_task(&old);
    old.desired = DesiredState::Shutdown;
    cluster.upsert_task(&old);
    assert_eq!(nodes_of(&cluster.schedule(std::slice::from_ref(&web), NOW)), [0]);
    old.status.state = TaskState::Shutdown;
    cluster.upsert_task(&old);
    assert_eq!(nodes_of(&cluster.schedule(&[web], NOW)), [1]);
}

#[test]
fn a_stopping_task_no_longer_counts_for_the_spread() {
    let mut cluster = cluster([1, 2].map(node));
    let web = group(1, ServiceSpec::default(), [1]);
    let mut old = running(9, &web, 1);
    old.desired = DesiredState::Shutdown;
    cluster.upsert_task(&old);
    assert_eq!(nodes_of(&cluster.schedule(&[web], NOW)), [1]);
}

#[test]
fn a_host_port_is_given_once_per_node() {
    let mut cluster = cluster([1, 2].map(node));
    assert_eq!(nodes_of(&cluster.schedule(&[group(1, host_port(8080), 1..=3)], NOW)), [1, 2, 0]);
    assert_eq!(nodes_of(&cluster.schedule(&[group(2, host_port(8080), [4])], NOW)), [0]);
    assert_eq!(nodes_of(&cluster.schedule(&[group(3, host_port(0), [5, 6, 7])], NOW)), [1, 2, 1], "the node chooses");
}

#[test]
fn a_host_port_is_given_once_per_node_and_address() {
    let on = |address: &str| {
        let mut spec = host_port(8080);
        spec.endpoint.ports[0].address = address.parse().ok();
        spec
    };
    let mut cluster = cluster([1, 2].map(node));
    assert_eq!(nodes_of(&cluster.schedule(&[group(1, on("127.0.0.1"), 1..=3)], NOW)), [1, 2, 0]);
    assert_eq!(nodes_of(&cluster.schedule(&[group(2, on("::1"), [4])], NOW)), [1]);
    assert_eq!(nodes_of(&cluster.schedule(&[group(3, on(""), [5])], NOW)), [0], "it needs every address");
    let mut cluster = common::cluster([node(1)]);
    assert_eq!(nodes_of(&cluster.schedule(&[group(1, on(""), [1])], NOW)), [1]);
    assert_eq!(nodes_of(&cluster.schedule(&[group(2, on("::1"), [2])], NOW)), [0]);
}

#[test]
fn constraints_platforms_and_the_replica_limit_hold() {
    let mut cluster = cluster([labelled(1, "a"), labelled(2, "b"), labelled(3, "b")]);
    let wants_b = constrained(&["node.labels.zone == b", "node.hostname != n3"]);
    assert_eq!(nodes_of(&cluster.schedule(&[group(1, wants_b, 1..=2)], NOW)), [2, 2]);

    let mut limited = ServiceSpec::default();
    limited.task.placement.max_replicas_per_node = 1;
    assert_eq!(nodes_of(&cluster.schedule(&[group(2, limited, 11..=14)], NOW)), [1, 3, 2, 0]);
}

#[test]
fn platforms_match_under_both_of_their_names_and_empty_matches_all() {
    let with = |id, architecture: &str| {
        let mut node = node(id);
        node.description.platform = Platform { os: "linux".into(), architecture: architecture.into() };
        node
    };
    let image = |architectures: &[&str]| {
        let mut spec = ServiceSpec::default();
        spec.task.placement.platforms = architectures
            .iter()
            .map(|architecture| Platform { os: "linux".into(), architecture: (*architecture).into() })
            .collect();
        spec
    };
    let placed = |spec| {
        let mut cluster = cluster([with(1, "x86_64"), with(2, "aarch64")]);
        nodes_of(&cluster.schedule(&[group(1, spec, 1..=2)], NOW))
    };
    assert_eq!(placed(image(&["amd64"])), [1, 1]);
    assert_eq!(placed(image(&["arm64"])), [2, 2]);
    assert_eq!(placed(image(&["amd64", "arm64"])), [1, 2]);
    assert_eq!(placed(image(&[""])), [1, 2]);
    assert_eq!(placed(image(&["s390x"])), [0, 0]);
}

#[test]
fn a_global_task_is_checked_on_its_own_node_only() {
    let drained = with_spec(node(1), |spec| spec.availability = Availability::Drain);
    let mut cluster = cluster([drained, node(2)]);
    let mut agent = group(1, ServiceSpec::default(), []);
    agent.preassigned = vec![(TaskId(1), NodeId(1)), (TaskId(2), NodeId(2)), (TaskId(3), NodeId(3))];
    assert_eq!(nodes_of(&cluster.schedule(&[agent], NOW)), [0, 2, 0]);
}

#[test]
fn tasks_are_spread_evenly_over_zones_whatever_their_size() {
    let zones = [(1, "a"), (2, "b"), (3, "b"), (4, "b"), (5, "b")];
    let mut cluster = cluster(zones.map(|(id, zone)| labelled(id, zone)));
    let decisions = cluster.schedule(&[group(1, spread(&["node.labels.zone"]), 1..=8)], NOW);
    assert_eq!(nodes_of(&decisions), [1, 2, 1, 3, 1, 4, 1, 5]);
}

#[test]
fn zones_with_tasks_wait_for_the_others_and_a_missing_label_is_a_zone() {
    let mut cluster = cluster([labelled(1, "a"), labelled(2, "b"), node(3)]);
    let web = group(1, spread(&["node.labels.zone"]), 1..=5);
    for id in 20..22 {
        cluster.upsert_task(&running(id, &web, 1));
    }
    assert_eq!(nodes_of(&cluster.schedule(&[web], NOW)), [3, 2, 3, 2, 3]);
}

#[test]
fn a_full_zone_leaves_its_share_to_the_others() {
    let mut cluster = cluster([labelled(1, "a"), labelled(2, "b")]);
    let mut spec = spread(&["node.labels.zone"]);
    spec.task.resources.reserve_memory = rswarm_types::Bytes(3 << 30);
    let mut large = labelled(2, "b");
    large.description.memory = rswarm_types::Bytes(30 << 30);
    cluster.upsert_node(&Arc::new(large));
    assert_eq!(nodes_of(&cluster.schedule(&[group(1, spec, 1..=7)], NOW)), [1, 2, 1, 2, 2, 2, 2]);
}

#[test]
fn preferences_nest() {
    let rack = |id, zone: &str, rack: &str| {
        let mut node = labelled(id, zone);
        node.description.engine_labels.insert("rack".into(), rack.into());
        node
    };
    let nodes = [rack(1, "a", "r1"), rack(2, "a", "r1"), rack(3, "a", "r2"), rack(4, "b", "r1")];
    let mut cluster = cluster(nodes);
    let spec = spread(&["node.labels.zone", "engine.labels.rack"]);
    let mut per_node = [0; 5];
    for node in nodes_of(&cluster.schedule(&[group(1, spec, 1..=8)], NOW)) {
        per_node[usize::try_from(node).expect("small ids")] += 1;
    }
    assert_eq!(per_node, [0, 1, 1, 2, 4]);
}

#[test]
fn groups_of_one_call_see_each_other_and_a_decision_under_way_is_not_repeated() {
    let mut cluster = cluster([1, 2].map(node));
    let [a, b] = [1u128, 2].map(|id| group(id, reserving(0, 8 << 30), [id]));
    assert_eq!(nodes_of(&cluster.schedule(&[a.clone(), b], NOW)), [1, 2]);
    assert_eq!(cluster.schedule(std::slice::from_ref(&a), NOW), []);
    // The entry was given up: the task is still pending in the state.
    let mut pending = running(1, &a, 1);
    pending.node = None;
    pending.status.state = TaskState::Pending;
    cluster.upsert_task(&pending);
    assert_eq!(nodes_of(&cluster.schedule(&[a], NOW)), [1]);
}

#[test]
fn a_removed_node_takes_nothing_and_may_come_back() {
    let mut cluster = cluster([1, 2].map(node));
    let web = group(1, ServiceSpec::default(), [1]);
    let task = running(9, &web, 1);
    cluster.upsert_task(&task);
    cluster.remove_node(NodeId(1));
    assert_eq!(nodes_of(&cluster.schedule(&[group(2, ServiceSpec::default(), [20])], NOW)), [2]);
    cluster.remove_task(TaskId(9));
    cluster.upsert_node(&Arc::new(node(1)));
    assert_eq!(nodes_of(&cluster.schedule(&[group(3, ServiceSpec::default(), [30])], NOW)), [1]);
    assert_eq!(nodes_of(&Cluster::new().schedule(&[web], NOW)), [0]);
}
