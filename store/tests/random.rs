//! Random histories: whatever is proposed, in whatever order, nothing is held twice, indexes agree
//! with tables, states move only forward, and equal histories give equal digests.

mod common;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use common::{Cell, description, init_body, port, spec_on};
use ipnet::IpNet;
use proptest::prelude::*;
use rswarm_store::State;
use rswarm_types::command::{Body, Change, Command, NewTask, StackChange, StackService};
use rswarm_types::node::NodeState;
use rswarm_types::spec::{
    Availability, ClusterSpec, EndpointMode, Ipam, NetworkSpec, NodeSpec, PortConfig, PublishMode, Role, ServiceSpec,
    SubnetSpec,
};
use rswarm_types::task::{Slot, Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{Bytes, MemberId, NetworkId, NodeId, RequestId, ServiceId, TaskId, TimestampMs};

/// One step, with small numbers in place of ids so that steps meet. Versions and epochs are
/// looked up when the step is taken: `stale` takes them one too low.
#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    a: u8,
    b: u8,
    c: u8,
    stale: bool,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0u8..34, 0u8..6, 0u8..6, any::<u8>(), prop::bool::weighted(0.1));
    let step = step.prop_map(|(kind, a, b, c, stale)| Step { kind, a, b, c, stale });
    // Mostly what moves tasks on: kinds from 18.
    let weighted = step.prop_map(|step: Step| {
        if step.kind < 18 && !step.c.is_multiple_of(3) { Step { kind: 18 + step.kind % 14, ..step } } else { step }
    });
    prop::collection::vec(weighted, 1..300)
}

/// Small subnets, so that networks fill up.
fn cluster_spec() -> ClusterSpec {
    ClusterSpec { subnet_bits: 29, ..ClusterSpec::default() }
}

fn service_spec(name: u8, c: u8) -> ServiceSpec {
    let networks: &[&str] = match c % 4 {
        0 => &[],
        1 => &["net0"],
        2 => &["net0", "net1"],
        _ => &["net2"],
    };
    let mut spec = spec_on(&format!("s{name}"), networks);
    if c & 4 != 0 {
        let mode = if c & 64 != 0 { PublishMode::Host } else { PublishMode::Ingress };
        let published = if c & 8 != 0 { 0 } else { 8080 + u16::from(c % 3) };
        let address = [None, Some([127, 0, 0, 1].into()), Some(Ipv6Addr::LOCALHOST.into())][usize::from(c / 8 % 3)];
        spec.endpoint.ports = vec![PortConfig { mode, address, ..port(80, published) }];
    }
    if c & 16 != 0 {
        spec.endpoint.mode = EndpointMode::DnsRr;
    }
    if c & 32 != 0 {
        spec.task.resources.reserve_memory = Bytes(3 << 30);
    }
    spec.task.force_update = u64::from(c % 5);
    spec
}

fn body(state: &State, step: &Step) -> Body {
    let Step { kind, a, b, c, stale } = step.clone();
    let (node, network, service, task) = (
        NodeId(u128::from(a) + 1),
        NetworkId(u128::from(a) + 10),
        ServiceId(u128::from(a) + 1),
        TaskId(u128::from(a) * 6 + u128::from(b) + 1),
    );
    // Tasks that exist are met more often than those that do not.
    let known = state.tasks().nth(usize::from(a) * 6 + usize::from(b)).map(|task| task.id);
    let existing = state.tasks().nth((usize::from(a) + usize::from(b)) % state.task_count().max(1)).map(|t| t.id);
    let met = known.or(existing).unwrap_or(task);
    let less = u64::from(stale);
    let node_record = state.node(node).map(|n| n.as_ref().clone()).unwrap_or_default();
    let epoch = node_record.session_epoch.saturating_sub(less);
    let service_version = state.service(service).map_or(0, |s| s.meta.version).saturating_sub(less);
    let task_version = state.task(met).map_or(0, |t| t.meta.version).saturating_sub(less);
    let node_states = [NodeState::Down, NodeState::Ready, NodeState::Unknown, NodeState::Disconnected];
    let one = |change| Body::Reconcile(vec![change]);
    match kind {
        0 => Body::Admit {
            node,
            role: if c % 4 == 0 { Role::Manager } else { Role::Worker },
            key_hash: [b + 2; 32],
            address: None,
            availability: Availability::Active,
        },
        1 | 2 => Body::OpenSession {
            node,
            boot_id: format!("boot{c}"),
            description: Box::new(description("host")),
            address: None,
            raft_lost: c % 2 == 0,
            sandboxes: (0..c % 8).map(|n| TaskId(u128::from(n) * 3)).collect(),
        },
        3 => Body::SetNodeState {
            node,
            epoch,
            state: node_states[usize::from(c % 4)],
            message: "m".into(),
            grace_until: TimestampMs(u64::from(c)),
        },
        4 => Body::RemoveNode { node, force: c % 2 == 0 },
        5 => Body::SetMembership {
            node,
            role: if c % 2 == 0 { Role::Manager } else { Role::Worker },
            member: MemberId(u64::from(c % 5)),
            is_voter: c % 3 == 0,
        },
        6 => Body::UpdateNode {
            node,
            version: node_record.meta.version.saturating_sub(less),
            spec: NodeSpec {
                role: if c % 5 == 0 { Role::Manager } else { Role::Worker },
                availability: if c % 3 == 0 { Availability::Drain } else { Availability::Active },
                ..NodeSpec::default()
            },
        },
        7 | 8 => {
            let subnet = |address: IpAddr, length| SubnetSpec::from(IpNet::new(address, length).expect("a prefix"));
            let four = subnet([10, 0, 0, c].into(), 30 - c % 3);
            // Tiny, and in the cluster's own prefix, where cuts are too.
            let six = subnet([0xfd00, 0, 7, u16::from(c % 8), 0, 0, 0, 0].into(), 125 - c % 64);
            let subnets = match c % 4 {
                0 => vec![four],
                1 if c & 16 != 0 => vec![six, four],
                2 if c & 16 != 0 => vec![six],
                _ => vec![],
            };
            let name = format!("net{b}");
            let (ingress, ipv6) = (c % 16 == 15, c & 16 != 0);
            Body::CreateNetwork {
                id: network,
                spec: NetworkSpec { name, ipam: Ipam { subnets }, ingress, ipv6, ..NetworkSpec::default() },
            }
        }
        9 => Body::RemoveNetwork { id: if c % 16 == 0 { NetworkId(1) } else { network } },
        10..=12 => Body::CreateService { id: service, spec: Arc::new(service_spec(b, c)), auth: Default::default() },
        13 | 14 => {
            let name = state.service(service).map_or(0, |s| s.spec.name.as_bytes()[1] - b'0');
            Body::UpdateService {
                id: service,
                version: service_version,
                spec: Arc::new(service_spec(name, c)),
                auth: None,
                rollback: c % 5 == 0,
            }
        }
        15 => Body::RemoveService { id: service },
        16 => Body::DeployStack(Box::new(StackChange {
            name: "st".into(),
            networks: vec![],
            services: [a, b]
                .map(|n| {
                    let mut spec = service_spec(n, c.wrapping_add(n));
                    spec.labels.insert("com.docker.stack.namespace".into(), "st".into());
                    StackService { id: ServiceId(u128::from(n) + 20), spec: Arc::new(spec), auth: Default::default() }
                })
                .to_vec(),
            prune: c % 2 == 0,
        })),
        17 => Body::RemoveStack { name: "st".into() },
        18..=20 => {
            let owner = ServiceId(u128::from(b) + 1);
            let new = NewTask {
                id: task,
                service: owner,
                spec_version: state.service(owner).map_or(0, |s| s.spec_version).saturating_sub(less),
                slot: if c % 8 == 0 { Slot::Node(node) } else { Slot::Number(u64::from(c % 3)) },
                node: (c % 8 == 0).then_some(node),
                desired: DesiredState::Running,
                replaces: (c % 4 == 1).then(|| TaskId(u128::from(c % 36))),
                is_restart: c % 4 == 1,
                ..NewTask::default()
            };
            Body::Reconcile(vec![Change::CreateTask(Box::new(new)), Change::AllocateTask { task }])
        }
        21 => one(Change::AllocateTask { task: met }),
        22..=24 => one(Change::AssignTask { task: met, version: task_version, node: NodeId(u128::from(c % 6) + 1) }),
        25 => one(Change::SetDesired {
            task: met,
            version: task_version,
            desired: [DesiredState::Running, DesiredState::Shutdown, DesiredState::Remove][usize::from(c % 3)],
            reason: "r".into(),
        }),
        26 => one(Change::OrphanTask { task: met, reason: "r".into() }),
        27 => one(Change::RemoveTask { task: met }),
        28 => Body::Reconcile(vec![
            Change::ForgetService { service: ServiceId(u128::from(b) + 1) },
            Change::ForgetNetwork { network },
        ]),
        _ => {
            let owner = state.task(met).and_then(|t| t.node).unwrap_or(node);
            let epoch = state.node(owner).map_or(0, |n| n.session_epoch).saturating_sub(less);
            let status = TaskStatus {
                state: TaskState::ALL[2 + usize::from(c) % (TaskState::ALL.len() - 2)],
                sandbox_gone: c & 16 != 0,
                ..TaskStatus::default()
            };
            Body::Report { node: owner, epoch, statuses: vec![(met, status)] }
        }
    }
}

/// What may never happen to a task from one entry to the next.
fn check_tasks(before: &BTreeMap<TaskId, Arc<Task>>, state: &State) -> Result<(), TestCaseError> {
    for task in state.tasks() {
        let Some(old) = before.get(&task.id).filter(|old| old.created == task.created) else { continue };
        prop_assert!(task.status.state >= old.status.state, "state went back: {old:?} {task:?}");
        prop_assert!(!old.status.state.is_terminal() || task.status.state == old.status.state, "final is final");
        prop_assert!(task.desired >= old.desired);
        prop_assert!(old.node.is_none() || task.node == old.node, "a task never changes its node");
        prop_assert!(Arc::ptr_eq(&task.spec, &old.spec), "the spec of a task is never written");
    }
    Ok(())
}

fn check_slots(state: &State) -> Result<(), TestCaseError> {
    let mut live: BTreeMap<(ServiceId, Slot), usize> = BTreeMap::new();
    for task in state.tasks().filter(|task| task.is_live()) {
        *live.entry((task.service, task.slot)).or_default() += 1;
    }
    prop_assert!(live.values().all(|count| *count <= 2), "{live:?}");
    Ok(())
}

/// A cluster with three ready workers, three networks and a service, so that histories go far.
fn preamble() -> Vec<Body> {
    let mut bodies = vec![init_body(cluster_spec())];
    for n in 2..5u8 {
        let node = NodeId(u128::from(n));
        bodies.push(Body::Admit {
            node,
            role: Role::Worker,
            key_hash: [n + 20; 32],
            address: None,
            availability: Availability::Active,
        });
        bodies.push(Body::OpenSession {
            node,
            boot_id: "boot".into(),
            description: Box::new(description("host")),
            address: None,
            raft_lost: false,
            sandboxes: vec![],
        });
        let spec = NetworkSpec { name: format!("net{}", n - 2), ipv6: n > 2, ..NetworkSpec::default() };
        bodies.push(Body::CreateNetwork { id: NetworkId(u128::from(n) + 8), spec });
    }
    bodies.push(Body::CreateService { id: ServiceId(1), spec: Arc::new(service_spec(0, 6)), auth: Default::default() });
    bodies
}

/// Stands for the hash of the body's bytes.
fn hash(command: &Command) -> [u8; 32] {
    let text = format!("{:?}", command.body);
    let sum = text.bytes().fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte)));
    let mut out = [0; 32];
    out[..8].copy_from_slice(&sum.to_le_bytes());
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_keep_every_promise(steps in steps()) {
        let cell = Cell::new();
        let mut log: Vec<Command> = Vec::new();
        let mut state = State::empty();
        for body in preamble() {
            let command = Command { at: TimestampMs(1), ..cell.command(body) };
            state.apply(log.len() as u64 + 1, &command, hash(&command)).result.expect("the preamble");
            log.push(command);
        }
        for (n, step) in steps.iter().enumerate() {
            let command = Command {
                at: TimestampMs(1 + n as u64 * 700),
                request: RequestId(if step.c % 13 == 0 { u128::from(step.c) } else { 0 }),
                ..cell.command(body(&state, step))
            };
            let before = state.tasks().map(|task| (task.id, Arc::clone(task))).collect();
            let applied = state.apply(log.len() as u64 + 1, &command, hash(&command));
            prop_assert!(applied.result.is_ok() || applied.changed.is_empty());
            let problems = state.audit();
            prop_assert!(problems.is_empty(), "step {n} {step:?}: {problems:#?}");
            check_tasks(&before, &state)?;
            check_slots(&state)?;
            log.push(command);
        }

        // The same history gives the same digest at every index.
        let mut again = State::empty();
        for (n, command) in log.iter().enumerate() {
            again.apply(n as u64 + 1, command, hash(command));
        }
        prop_assert_eq!(again.digest(), state.digest());

        // A snapshot in the middle changes nothing.
        let half = log.len() / 2;
        let mut restored = State::empty();
        for (n, command) in log.iter().enumerate() {
            if n == half {
                restored = State::from_records(restored.records()).expect("a snapshot of a good state");
            }
            restored.apply(n as u64 + 1, command, hash(command));
        }
        prop_assert_eq!(restored.digest(), state.digest());
    }
}

#[test]
fn snapshots_that_no_state_wrote_are_refused() {
    let mut cell = Cell::new();
    cell.network(10, "web");
    let records: Vec<_> = cell.state.records().collect();
    let cut = State::from_records(records[..records.len() - 1].iter().cloned()).expect_err("cut");
    assert_eq!(cut.to_string(), "the snapshot has no cursor record: it is cut short");
    let mut twice = records.clone();
    twice.insert(1, records[1].clone());
    let text = State::from_records(twice).expect_err("twice").to_string();
    assert!(text.starts_with("the snapshot has two records for"), "{text}");
    let mut overlapping = records.clone();
    for record in &mut overlapping {
        if let rswarm_types::command::Record::Network(network) = record {
            network.vni = 5_000;
        }
    }
    let text = State::from_records(overlapping).expect_err("one VNI twice").to_string();
    assert!(text.contains("VNI 5000 is held by"), "{text}");
}

#[test]
fn tasks_share_their_spec_again_after_a_snapshot() {
    let mut cell = Cell::new();
    let service = cell.service(50, common::spec("web"));
    cell.pending(100, service, 1);
    cell.pending(101, service, 2);
    let state = State::from_records(cell.state.records().map(unshared)).expect("a good snapshot");
    let spec = &state.service(service).expect("it exists").spec;
    assert!(state.tasks().all(|task| Arc::ptr_eq(&task.spec, spec)));
    assert_eq!(state.digest(), cell.state.digest());
}

/// As decoded from bytes: every task with a spec of its own.
fn unshared(record: rswarm_types::command::Record) -> rswarm_types::command::Record {
    match record {
        rswarm_types::command::Record::Task(mut task) => {
            task.spec = Arc::new(task.spec.as_ref().clone());
            rswarm_types::command::Record::Task(task)
        }
        other => other,
    }
}
