//! Times of the store, beside the reach that the design sets:
//! `cargo run --release -p rswarm-store --example measure`.
#![expect(clippy::print_stdout, reason = "a measurement")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use rswarm_store::State;
use rswarm_types::cluster::{Cluster, JoinTokens, RootCa};
use rswarm_types::command::{Body, Caller, Change, Command, NetworkSpecWithId, NewTask};
use rswarm_types::node::NodeDescription;
use rswarm_types::spec::{Availability, NetworkAttachment, NetworkSpec, Role, ServiceSpec};
use rswarm_types::task::{Slot, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{Bytes, ClusterId, NanoCpus, NetworkId, NodeId, RequestId, ServiceId, TaskId, TimestampMs};

const NODES: u64 = 100;
const TASKS: u64 = 10_000;
const BATCH: u64 = 200;
/// The clock is coarse: what is short is done often.
const REPEATS: u64 = 100;

/// CPU time of this thread so far: other work on the machine does not count.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux with schedstat");
    let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanos.expect("the first field is a number"))
}

/// Ids spread as random ones are.
fn mixed(n: u64) -> u128 {
    let spread = u128::from(n).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    spread ^ (spread >> 61)
}

fn apply(state: &mut State, body: Body) {
    let command = Command {
        at: TimestampMs(1),
        wall: TimestampMs(1),
        request: RequestId(0),
        caller: Caller::default(),
        needs_level: 1,
        body,
    };
    let applied = state.apply(state.index() + 1, &command, [0; 32]);
    assert!(applied.result.is_ok(), "{:?}", applied.result);
    black_box(applied);
}

fn row(what: &str, count: u64, start: Duration, reach: &str) {
    let each = (cpu_time() - start).as_secs_f64() * 1e6 / count as f64;
    println!("| {what} | {each:.2} us | {reach} |");
}

fn main() {
    let mut state = State::empty();
    let network = |id, name: &str, ingress| NetworkSpecWithId {
        id: NetworkId(id),
        spec: NetworkSpec { name: name.into(), ingress, ..NetworkSpec::default() },
    };
    let cluster = Cluster {
        id: ClusterId(1),
        meta: Default::default(),
        spec: rswarm_types::spec::ClusterSpec { subnet_bits: 16, ..Default::default() },
        root: RootCa { certificate: String::new(), key: String::new() },
        tokens: JoinTokens::default(),
        era: 0,
        feature_level: 1,
    };
    let networks = vec![network(1, "ingress", true), network(2, "net", false)];
    apply(&mut state, Body::Init { cluster: Box::new(cluster), node: Box::default(), networks });
    for n in 1..=NODES {
        let node = NodeId(mixed(n));
        let mut key_hash = [0; 32];
        key_hash[..8].copy_from_slice(&n.to_be_bytes());
        apply(
            &mut state,
            Body::Admit { node, role: Role::Worker, key_hash, address: None, availability: Availability::Active },
        );
        let description = NodeDescription {
            cpus: NanoCpus(1 << 50),
            memory: Bytes(1 << 50),
            hostname: format!("n{n}"),
            ..NodeDescription::default()
        };
        apply(
            &mut state,
            Body::OpenSession {
                node,
                boot_id: String::new(),
                description: Box::new(description),
                address: None,
                raft_lost: false,
                sandboxes: vec![],
            },
        );
    }
    let service = ServiceId(mixed(1 << 40));
    let mut spec = ServiceSpec { name: "web".into(), ..ServiceSpec::default() };
    spec.task.container.image = "nginx:1.27".into();
    spec.task.networks = vec![NetworkAttachment { target: "net".into(), ..NetworkAttachment::default() }];
    apply(&mut state, Body::CreateService { id: service, spec: Arc::new(spec), auth: Default::default() });
    let spec_version = state.service(service).map_or(0, |service| service.spec_version);

    println!("| what ({TASKS} tasks on {NODES} nodes) | each | reach |\n|---|---|---|");
    let task = |n: u64| TaskId(mixed(1 << 50 | n));
    let node = |n: u64| NodeId(mixed(n % NODES + 1));
    let batches = || (0..TASKS / BATCH).map(|batch| batch * BATCH..(batch + 1) * BATCH);
    let start = cpu_time();
    for batch in batches() {
        let birth = |n: u64| {
            let new = NewTask {
                id: task(n),
                service,
                spec_version,
                slot: Slot::Number(n + 1),
                desired: DesiredState::Running,
                ..NewTask::default()
            };
            let place = Change::AssignTask { task: task(n), version: 0, node: node(n) };
            [Change::CreateTask(Box::new(new)), Change::AllocateTask { task: task(n) }, place]
        };
        apply(&mut state, Body::Reconcile(batch.flat_map(birth).collect()));
    }
    row("make, allocate and place a task, in batches", TASKS, start, "");

    let start = cpu_time();
    for n in 0..TASKS {
        let epoch = state.node(node(n)).map_or(0, |node| node.session_epoch);
        let status = TaskStatus { state: TaskState::Running, ..TaskStatus::default() };
        // A reader holds the state before, as reconcilers do.
        let reader = state.clone();
        apply(&mut state, Body::Report { node: node(n), epoch, statuses: vec![(task(n), status)] });
        black_box(reader);
    }
    row("one status as an entry of its own, with a snapshot held", TASKS, start, "5 us a transaction");

    let start = cpu_time();
    for _ in 0..REPEATS {
        for n in 0..TASKS {
            black_box(state.task(task(n)));
        }
    }
    row("point read", REPEATS * TASKS, start, "0.1 us");

    let start = cpu_time();
    for _ in 0..REPEATS {
        black_box(state.tasks().filter(|task| task.status.state == TaskState::Running).count());
    }
    row("scan of all tasks", REPEATS, start, "1000 us");

    let start = cpu_time();
    for n in 0..NODES * REPEATS {
        black_box(state.tasks_on_node(node(n)).count());
    }
    row("the tasks of a node", NODES * REPEATS, start, "");

    let start = cpu_time();
    let restored = State::from_records(state.records()).map(|state| state.digest());
    row("a snapshot out and in, per task", TASKS, start, "");
    assert_eq!(restored, Ok(state.digest()));
}
