//! Nodes, membership, the cluster object, requests and time.

mod common;

use common::{Cell, MANAGER, description, spec, spec_on};
use rswarm_store::State;
use rswarm_types::cluster::JoinTokens;
use rswarm_types::command::{Answer, Body, Caller};
use rswarm_types::node::NodeState;
use rswarm_types::spec::{Availability, ClusterSpec, NodeSpec, Role};
use rswarm_types::task_state::TaskState;
use rswarm_types::{MemberId, NodeId, Refusal, RequestId, TimestampMs};

fn admit(node: u128, key: u8, role: Role) -> Body {
    Body::Admit { node: NodeId(node), role, key_hash: [key; 32], address: None, availability: Availability::Active }
}

#[test]
fn a_key_admitted_twice_is_one_node_within_an_hour() {
    let mut cell = Cell::new();
    assert_eq!(cell.run(admit(2, 9, Role::Worker)), Ok(Answer::Node(NodeId(2))));
    assert_eq!(cell.run(admit(3, 9, Role::Worker)), Ok(Answer::Node(NodeId(2))));
    let text = cell.refused(admit(3, 9, Role::Manager));
    assert!(text.contains("with role worker"), "{text}");
    cell.at += 3_600_001;
    let text = cell.refused(admit(3, 9, Role::Worker));
    assert!(text.contains("more than an hour ago"), "{text}");
    assert_eq!(cell.state.nodes().count(), 2);
}

#[test]
fn node_numbers_go_on_and_rest_an_hour() {
    let mut cell = Cell::new();
    let number = |cell: &Cell, id| cell.state.node(NodeId(id)).expect("it exists").number;
    cell.worker(2);
    cell.worker(3);
    assert_eq!((number(&cell, 1), number(&cell, 2), number(&cell, 3)), (1, 2, 3));
    cell.run(Body::RemoveNode { node: NodeId(2), force: true }).expect("a worker");
    cell.worker(4);
    assert_eq!(number(&cell, 4), 4);
    let mut early = cell.state.clone();
    let mut command = cell.command(Body::Tick);
    command.at = TimestampMs(cell.at + 3_600_000);
    early.apply(early.index() + 1, &command, [0; 32]).result.expect("a tick");
    assert_eq!(early.records().filter(|r| matches!(r, rswarm_types::command::Record::Retired(_))).count(), 0);
    assert_eq!(cell.state.records().filter(|r| matches!(r, rswarm_types::command::Record::Retired(_))).count(), 1);
}

#[test]
fn no_node_number_free_is_said_with_the_reason() {
    let mut cell = Cell::new();
    // Quick, without the harness's audit: fill all numbers.
    for n in 2..=65_535u128 {
        let mut key_hash = [0xff; 32];
        key_hash[..16].copy_from_slice(&n.to_be_bytes());
        let body = Body::Admit {
            node: NodeId(n),
            role: Role::Worker,
            key_hash,
            address: None,
            availability: Availability::Active,
        };
        let command = cell.command(body);
        let applied = cell.state.apply(cell.state.index() + 1, &command, [0; 32]);
        assert!(applied.result.is_ok(), "{n}: {:?}", applied.result);
    }
    let command = cell.command(admit(70_000, 3, Role::Worker));
    let refusal = cell.state.apply(cell.state.index() + 1, &command, [0; 32]).result.expect_err("full");
    assert_eq!(
        refusal.to_string(),
        "no node number is free: 65535 nodes have one and 0 rest for an hour after node rm"
    );
    assert!(cell.state.ingress_network().expect("there").blocks.len() > 200, "the ingress network grew");
}

#[test]
fn a_node_is_removed_when_down_or_by_force_and_never_a_manager() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let text = cell.refused(Body::RemoveNode { node, force: false });
    assert!(text.starts_with("node n2 is ready and not down"), "{text}");
    cell.down(node);
    cell.run(Body::RemoveNode { node, force: false }).expect("it is down");
    for force in [false, true] {
        let text = cell.refused(Body::RemoveNode { node: MANAGER, force });
        assert!(text.contains("is a cluster manager"), "{text}");
    }
}

#[test]
fn a_removed_node_orphans_its_tasks_and_frees_their_addresses() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let web = cell.network(10, "web");
    let service = cell.service(50, spec_on("api", &["web"]));
    let running = cell.assigned(100, service, 1, node);
    cell.report(running, TaskState::Running, false);
    let failed = cell.assigned(101, service, 2, node);
    cell.report(failed, TaskState::Failed, false);
    assert_eq!(cell.state.addresses(web).count(), 4);
    cell.run(Body::RemoveNode { node, force: true }).expect("a worker");
    assert_eq!(cell.task(running).status.state, TaskState::Orphaned);
    assert_eq!(cell.task(failed).status.state, TaskState::Failed, "what the agent said stays");
    assert_eq!(cell.state.addresses(web).count(), 2, "gateway and VIP");
    assert!(cell.changed.task_services.contains(&service) && cell.changed.task_nodes.contains(&node));
}

#[test]
fn the_last_manager_is_never_demoted() {
    let mut cell = Cell::new();
    let node = cell.state.node(MANAGER).expect("it exists").clone();
    let spec = NodeSpec { role: Role::Worker, ..node.spec.clone() };
    let text = cell.refused(Body::UpdateNode { node: MANAGER, version: node.meta.version, spec });
    assert!(text.contains("is the last manager"), "{text}");
    let demote = Body::SetMembership { node: MANAGER, role: Role::Worker, member: MemberId(0), is_voter: false };
    let text = cell.refused(demote.clone());
    assert!(text.contains("is the last manager"), "{text}");

    let other = cell.worker(2);
    let taken = Body::SetMembership { node: other, role: Role::Manager, member: MemberId(11), is_voter: false };
    let text = cell.refused(taken);
    assert!(text.contains("member id b belongs to node"), "{text}");
    cell.run(Body::SetMembership { node: other, role: Role::Manager, member: MemberId(12), is_voter: true })
        .expect("a free id");
    cell.run(demote).expect("another manager is there");
}

#[test]
fn health_of_an_older_session_is_ignored_and_grace_is_noted() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let old = cell.state.node(node).expect("it exists").session_epoch;
    let version = cell.state.node(node).expect("it exists").meta.version;
    cell.session(node, vec![]);
    let set = |epoch, state, grace| Body::SetNodeState {
        node,
        epoch,
        state,
        message: "m".into(),
        grace_until: TimestampMs(grace),
    };
    cell.run(set(old, NodeState::Down, 0)).expect("accepted");
    assert_eq!(cell.state.node(node).expect("it exists").status.state, NodeState::Ready);
    let epoch = cell.state.node(node).expect("it exists").session_epoch;
    let until = cell.at + 30_000;
    cell.run(set(epoch, NodeState::Unknown, until)).expect("accepted");
    let status = cell.state.node(node).expect("it exists").status.clone();
    assert_eq!((status.grace_until.0, status.grace_at.0, status.since.0), (until, cell.at, cell.at));
    cell.session(node, vec![]);
    let record = cell.state.node(node).expect("it exists");
    assert_eq!((record.status.grace_until.0, record.status.grace_at.0 > 0), (0, true));
    assert_eq!(record.meta.version, version, "health and sessions are not versions");
}

#[test]
fn nodes_are_found_by_hostname_and_two_of_a_name_are_told_apart() {
    let mut cell = Cell::new();
    let two = cell.worker(2);
    assert_eq!(cell.state.find_node("n2").map(|n| n.id), Ok(two));
    let three = cell.worker(3);
    cell.run(Body::DescribeNode { node: three, description: Box::new(description("n2")) }).expect("accepted");
    let text = cell.state.find_node("n2").expect_err("two").to_string();
    assert!(text.contains("ambiguous: 2 match"), "{text}");
    assert_eq!(cell.state.find_node(&three.to_string()).map(|n| n.id), Ok(three));
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_another_body_is_refused() {
    let mut cell = Cell::new();
    let body = Body::CreateService { id: 50.into_id(), spec: spec("web").into(), auth: Default::default() };
    let mut command = cell.command(body);
    command.request = RequestId(5);
    let first = cell.run_command(&command, [1; 32]);
    assert!(first.is_ok());
    assert_eq!(cell.run_command(&command, [1; 32]), first);
    assert_eq!(cell.state.services().count(), 1);
    let other = cell.run_command(&command, [2; 32]).expect_err("another body").to_string();
    assert!(other.contains("was already made with another body"), "{other}");
    command.caller = Caller { node: NodeId(99), role: Role::Worker };
    let text = cell.run_command(&command, [1; 32]).expect_err("another caller, the name is taken").to_string();
    assert!(text.contains("already in use"), "{text}");
    assert_eq!(cell.run_command(&command, [1; 32]).expect_err("remembered").to_string(), text);
}

trait IntoId {
    fn into_id(self) -> rswarm_types::ServiceId;
}

impl IntoId for u128 {
    fn into_id(self) -> rswarm_types::ServiceId {
        rswarm_types::ServiceId(self)
    }
}

#[test]
fn requests_are_kept_thirty_seconds_and_never_fewer_than_ten_thousand() {
    let mut cell = Cell::new();
    let request = |cell: &mut Cell, n: u128, at: u64| {
        let mut command = cell.command(Body::Tick);
        command.request = RequestId(n);
        command.at = TimestampMs(at);
        cell.state.apply(cell.state.index() + 1, &command, [0; 32]).result.expect("a tick");
    };
    let kept =
        |cell: &Cell| cell.state.records().filter(|r| matches!(r, rswarm_types::command::Record::Request(_))).count();
    let start = cell.at;
    for n in 1..=10_010 {
        request(&mut cell, n, start);
    }
    assert_eq!(kept(&cell), 10_010, "younger than 30 s");
    request(&mut cell, 20_000, start + 1_000_000);
    assert_eq!(kept(&cell), 10_001, "old ones go down to ten thousand");
    assert!(cell.state.audit().is_empty());
}

#[test]
fn time_never_goes_back_and_an_unknown_level_is_refused() {
    let mut cell = Cell::new();
    let mut command = cell.command(Body::Tick);
    command.at = TimestampMs(5);
    let text = cell.run_command(&command, [0; 32]).expect_err("time would go back").to_string();
    assert_eq!(text, "cluster time would go back: the entry says 5 ms, the state is at 1001 ms");
    assert_eq!(cell.state.now(), TimestampMs(1_001));
    command.at = TimestampMs(2_000);
    command.needs_level = 2;
    let text = cell.run_command(&command, [0; 32]).expect_err("too new").to_string();
    assert!(text.starts_with("the command needs feature level 2, the cluster is at 1"), "{text}");
}

#[test]
fn nothing_but_init_comes_first_and_init_comes_once() {
    let mut state = State::empty();
    let cell = Cell::new();
    let refusal = state.apply(1, &cell.command(admit(2, 2, Role::Worker)), [0; 32]).result.expect_err("no cluster");
    assert!(refusal.to_string().contains("rswarm init"));
    let mut cell = cell;
    let text = cell.refused(common::init_body(ClusterSpec::default()));
    assert!(text.starts_with("this is already cluster"), "{text}");
}

#[test]
fn tokens_rotate_apart_and_what_init_fixed_stays() {
    let mut cell = Cell::new();
    let tokens = JoinTokens { worker: "w2".into(), manager: "m2".into() };
    let answer = cell.run(Body::RotateTokens { tokens, worker: true, manager: false });
    assert_eq!(answer, Ok(Answer::Tokens(JoinTokens { worker: "w2".into(), manager: "m".into() })));
    let cluster = cell.state.cluster().expect("there").clone();
    let spec = ClusterSpec { subnet_bits: 20, ..cluster.spec.clone() };
    let text = cell.refused(Body::UpdateCluster { version: cluster.meta.version, spec });
    assert!(text.contains("fixed at init"), "{text}");
    let spec = ClusterSpec { task_history_limit: 1, ..cluster.spec.clone() };
    cell.run(Body::UpdateCluster { version: cluster.meta.version, spec: spec.clone() }).expect("accepted");
    let stale = cell.run(Body::UpdateCluster { version: cluster.meta.version, spec });
    assert!(matches!(stale, Err(Refusal::Stale { .. })), "{stale:?}");
}
