//! Times of placements, beside the reach that the design sets:
//! `cargo run --release -p rswarm-scheduler --example place`.
#![expect(clippy::print_stdout, clippy::disallowed_methods, clippy::disallowed_types, reason = "a measurement")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use rswarm_scheduler::{Cluster, Group, Outcome};
use rswarm_types::node::{Node, NodeDescription, NodeState, NodeStatus};
use rswarm_types::spec::ServiceSpec;
use rswarm_types::{Bytes, NanoCpus, NodeId, ServiceId, TaskId, TimestampMs};

/// Ids spread as random ones are.
fn mixed(n: u64) -> u128 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        x
    };
    u128::from(next()) << 64 | u128::from(next())
}

fn cluster(nodes: u64) -> Cluster {
    let node = |n: u64| {
        let mut node = Node {
            id: NodeId(mixed(n)),
            status: NodeStatus { state: NodeState::Ready, ..NodeStatus::default() },
            description: NodeDescription {
                hostname: format!("node{n}"),
                cpus: NanoCpus(64_000_000_000),
                memory: Bytes(256 << 30),
                ..NodeDescription::default()
            },
            ..Node::default()
        };
        node.spec.labels.insert("zone".into(), format!("z{}", n % 3));
        node.spec.labels.insert("disk".into(), if n.is_multiple_of(2) { "ssd" } else { "hdd" }.into());
        Arc::new(node)
    };
    let nodes: Vec<_> = (0..nodes).map(node).collect();
    Cluster::from_scratch(&nodes, [])
}

fn group(service: u64, spec: &ServiceSpec, tasks: u64) -> Group {
    Group {
        service: ServiceId(mixed(1 << 40 | service)),
        spec: Arc::new(spec.clone()),
        tasks: (0..tasks).map(|n| TaskId(mixed(1 << 50 | service << 24 | n))).collect(),
        preassigned: vec![],
        failures: vec![],
    }
}

/// The time of the best of some runs: other work on the machine only adds.
fn measure(what: &str, reach: &str, nodes: u64, groups: &[Group]) {
    let mut best = Duration::MAX;
    let tasks: usize = groups.iter().map(|g| g.tasks.len()).sum();
    for _ in 0..if tasks > 10_000 { 3 } else { 15 } {
        let mut cluster = cluster(nodes);
        let start = Instant::now();
        let decisions = cluster.schedule(groups, TimestampMs(0));
        best = best.min(start.elapsed());
        assert!(decisions.iter().all(|d| matches!(d.outcome, Outcome::Node(_))), "every task finds a node");
        assert_eq!(decisions.len(), tasks);
    }
    row(what, best, reach);
}

fn row(what: &str, took: Duration, reach: &str) {
    println!("| {what} | {:.2} ms | {reach} |", took.as_secs_f64() * 1e3);
}

fn main() {
    let plain = ServiceSpec::default();
    println!("| what | took | reach |\n|---|---|---|");
    for (nodes, tasks, reach) in [
        (1_000, 10_000, ""),
        (1_000, 100_000, ""),
        (1_000, 1_000_000, ""),
        (10_000, 10_000, "26 ms"),
        (10_000, 100_000, ""),
        (10_000, 1_000_000, "10 s"),
        (100_000, 10_000, ""),
        (100_000, 100_000, ""),
        (100_000, 1_000_000, ""),
    ] {
        measure(&format!("{tasks} tasks of one service on {nodes} nodes"), reach, nodes, &[group(1, &plain, tasks)]);
    }

    let mut bound = plain.clone();
    bound.task.placement.constraints = vec!["node.labels.zone != z0".into(), "node.labels.disk == ssd".into()];
    bound.task.resources.reserve_cpu = NanoCpus(500_000_000);
    bound.task.resources.reserve_memory = Bytes(1 << 30);
    let what = "10000 tasks on 5000 nodes, 2 constraints and reservations";
    measure(what, "50 ms", 5_000, &[group(1, &bound, 10_000)]);

    let mut spread = plain.clone();
    spread.task.placement.preferences =
        vec![rswarm_types::spec::SpreadPreference { descriptor: "node.labels.zone".into() }];
    measure("10000 tasks on 10000 nodes, spread over 3 zones", "", 10_000, &[group(1, &spread, 10_000)]);

    let many: Vec<Group> = (0..1_000).map(|n| group(n, &plain, 10)).collect();
    measure("1000 services of 10 tasks on 5000 nodes", "300 ms", 5_000, &many);
    let single: Vec<Group> = (0..1_000).map(|n| group(n, &plain, 1)).collect();
    measure("1000 services of 1 task on 130000 nodes", "100 ms", 130_000, &single);
    let single: Vec<Group> = (0..1_000).map(|n| group(n, &bound, 1)).collect();
    measure("1000 services of 1 task on 130000 nodes, constrained", "", 130_000, &single);

    let mut huge = plain.clone();
    huge.task.resources.reserve_memory = Bytes(1 << 40);
    let waiting: Vec<Group> = (0..1_000).map(|n| group(n, &huge, 1)).collect();
    let mut cluster = cluster(1_000);
    let start = Instant::now();
    cluster.schedule(&waiting, TimestampMs(0));
    row("1000 services that fit nowhere, first look, 1000 nodes", start.elapsed(), "");
    let mut best = Duration::MAX;
    for n in 0..100 {
        cluster.schedule(
            &[group(5_000 + n, &plain, 1)].into_iter().chain(waiting.clone()).collect::<Vec<_>>(),
            TimestampMs(0),
        );
        let start = Instant::now();
        cluster.remove_task(TaskId(mixed(1 << 50 | (5_000 + n) << 24)));
        cluster.schedule(&waiting, TimestampMs(0));
        best = best.min(start.elapsed());
    }
    row("1000 services that fit nowhere, a node changed", best, "1 ms");
}
