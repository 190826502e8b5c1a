//! Tasks: births, placement, reports, the end.

mod common;

use std::time::Duration;

use common::{Cell, port, spec, spec_on};
use rswarm_types::command::{Body, Change, NewTask};
use rswarm_types::node::NodeState;
use rswarm_types::spec::{Availability, NodeSpec, PortConfig, Protocol, PublishMode, ServiceSpec};
use rswarm_types::task::{Slot, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{Bytes, NodeId, TaskId, TimestampMs};

#[test]
fn a_batch_may_make_allocate_and_place_a_task_at_once() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let service = cell.service(50, spec("web"));
    let task = TaskId(100);
    let new = Box::new(cell.new_task(100, service, 1));
    cell.reconcile(vec![
        Change::CreateTask(new),
        Change::AllocateTask { task },
        Change::AssignTask { task, version: 0, node },
    ]);
    assert_eq!(cell.task(task).status.state, TaskState::Assigned);
    assert_eq!(cell.state.tasks_on_node(node).count(), 1);
    assert!(cell.changed.task_nodes.contains(&node));
}

#[test]
fn a_slot_never_gets_a_second_live_task_except_its_replacement() {
    let mut cell = Cell::new();
    let service = cell.service(50, spec("web"));
    let first = cell.pending(100, service, 1);
    cell.pending(101, service, 1);
    assert_eq!(cell.state.task_count(), 1);
    let replacing = |cell: &Cell, id| {
        Change::CreateTask(Box::new(NewTask { replaces: Some(first), ..cell.new_task(id, service, 1) }))
    };
    let changes = vec![replacing(&cell, 102), replacing(&cell, 103)];
    cell.reconcile(changes);
    assert_eq!(cell.state.task_count(), 2, "one replacement, started first");
}

#[test]
fn a_task_of_an_older_spec_is_not_made() {
    let mut cell = Cell::new();
    let service = cell.service(50, spec("web"));
    let stale = cell.new_task(100, service, 1);
    cell.update(service, |spec| spec.task.force_update += 1).expect("accepted");
    cell.reconcile(vec![Change::CreateTask(Box::new(stale))]);
    assert_eq!(cell.state.task_count(), 0);
    cell.run(Body::RemoveService { id: service }).expect("it exists");
    let late = cell.new_task(101, service, 1);
    cell.reconcile(vec![Change::CreateTask(Box::new(late))]);
    assert_eq!(cell.state.task_count(), 0);
}

#[test]
fn a_stale_change_is_dropped_and_the_rest_of_the_batch_is_not() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let service = cell.service(50, spec("web"));
    let [a, b] = [cell.pending(100, service, 1), cell.pending(101, service, 2)];
    let [version_a, version_b] = [a, b].map(|t| cell.task(t).meta.version);
    cell.reconcile(vec![Change::ExplainTask { task: a, version: version_a, error: "no suitable node".into() }]);
    cell.reconcile(vec![
        Change::AssignTask { task: a, version: version_a, node },
        Change::AssignTask { task: b, version: version_b, node },
    ]);
    assert_eq!(cell.task(a).status.state, TaskState::Pending);
    assert_eq!(cell.task(a).status.error, "no suitable node");
    assert_eq!(cell.task(b).status.state, TaskState::Assigned);
}

/// Assigns a task of this spec to a node after `prepare`; whether it was taken.
fn is_taken(edit: impl Fn(&mut ServiceSpec), prepare: impl Fn(&mut Cell, NodeId)) -> bool {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let mut spec = spec("web");
    edit(&mut spec);
    let service = cell.service(50, spec);
    prepare(&mut cell, node);
    let task = cell.assigned(100, service, 1, node);
    cell.task(task).status.state == TaskState::Assigned
}

#[test]
fn a_placement_is_judged_again_when_it_is_applied() {
    let nothing = |_: &mut Cell, _| ();
    let set_availability = |cell: &mut Cell, node, availability| {
        let version = cell.state.node(node).expect("it exists").meta.version;
        let spec = NodeSpec { availability, ..NodeSpec::default() };
        cell.run(Body::UpdateNode { node, version, spec }).expect("accepted");
    };
    assert!(is_taken(|_| (), nothing));
    assert!(!is_taken(|_| (), |cell, node| cell.down(node)));
    assert!(!is_taken(|_| (), |cell, node| set_availability(cell, node, Availability::Drain)));
    assert!(!is_taken(|_| (), |cell, node| set_availability(cell, node, Availability::Pause)));
    let constrained = |text: &'static str| move |s: &mut ServiceSpec| s.task.placement.constraints = vec![text.into()];
    assert!(is_taken(constrained("node.hostname == n2"), nothing));
    assert!(!is_taken(constrained("node.labels.zone == b"), nothing));
    assert!(is_taken(|s| s.task.resources.reserve_memory = Bytes(8 << 30), nothing));
    assert!(!is_taken(|s| s.task.resources.reserve_memory = Bytes((8 << 30) + 1), nothing));
}

#[test]
fn reservations_and_host_ports_are_never_given_twice() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let mut big = spec("big");
    big.task.resources.reserve_memory = Bytes(5 << 30);
    let big = cell.service(50, big);
    let mut host = spec("host");
    host.endpoint.ports = vec![PortConfig { mode: PublishMode::Host, ..port(80, 8080) }];
    let host = cell.service(51, host);
    for (service, id) in [(big, 100), (host, 200)] {
        let first = cell.assigned(id, service, 1, node);
        let second = cell.assigned(id + 1, service, 2, node);
        assert_eq!(cell.task(first).status.state, TaskState::Assigned);
        assert_eq!(cell.task(second).status.state, TaskState::Pending);
        cell.report(first, TaskState::Failed, false);
        let version = cell.task(second).meta.version;
        cell.reconcile(vec![Change::AssignTask { task: second, version, node }]);
        assert_eq!(cell.task(second).status.state, TaskState::Assigned, "free when the first has finished");
    }
    assert_eq!(cell.state.load(node).memory, Bytes(5 << 30));
    assert!(cell.state.is_host_port_used(node, (8080, Protocol::Tcp, None)));
}

#[test]
fn host_ports_on_different_addresses_are_given_on_one_node() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    for (n, address, expected) in [
        (1, Some("127.0.0.1"), TaskState::Assigned),
        (2, Some("::1"), TaskState::Assigned),
        (3, Some("127.0.0.1"), TaskState::Pending),
        (4, None, TaskState::Pending),
    ] {
        let mut host = spec(&format!("host{n}"));
        let address = address.map(|text| text.parse().expect("an address"));
        host.endpoint.ports = vec![PortConfig { mode: PublishMode::Host, address, ..port(80, 8080) }];
        let service = cell.service(50 + n, host);
        let task = cell.assigned(100 + n, service, 1, node);
        assert_eq!(cell.task(task).status.state, expected, "{n}");
    }
}

#[test]
fn a_node_never_gets_more_of_a_service_than_one_node_may_have() {
    let mut cell = Cell::new();
    let (node, other) = (cell.worker(2), cell.worker(3));
    let mut limited = spec("web");
    limited.task.placement.max_replicas_per_node = 2;
    let service = cell.service(50, limited);
    let another = cell.service(51, spec("db"));
    cell.assigned(99, another, 1, node);
    let first = cell.assigned(100, service, 1, node);
    let second = cell.assigned(101, service, 2, node);
    assert_eq!(cell.task(second).status.state, TaskState::Assigned);
    let third = cell.assigned(102, service, 3, node);
    assert_eq!(cell.task(third).status.state, TaskState::Pending, "two are there");
    let place = |cell: &mut Cell, node| {
        let version = cell.task(third).meta.version;
        cell.reconcile(vec![Change::AssignTask { task: third, version, node }]);
        cell.task(third).node
    };
    assert_eq!(place(&mut cell, node), None);
    // One that is on its way out does not count, as in the scheduler.
    cell.desire(first, DesiredState::Shutdown);
    assert_eq!(place(&mut cell, node), Some(node));
    let fourth = cell.assigned(103, service, 4, other);
    assert_eq!(cell.task(fourth).node, Some(other));
}

#[test]
fn networks_know_their_nodes_and_whether_a_task_stops_on_them() {
    let mut cell = Cell::new();
    let (node, other) = (cell.worker(2), cell.worker(3));
    let back = cell.network(70, "back");
    let service = cell.service(50, spec_on("web", &["back"]));
    cell.pending(99, service, 9);
    let (first, second) = (cell.assigned(100, service, 1, node), cell.assigned(101, service, 2, node));
    cell.assigned(102, service, 3, other);
    let nodes = |cell: &Cell| cell.state.nodes_on_network(back).map(|n| n.id).collect::<Vec<_>>();
    assert_eq!(nodes(&cell), [node, other]);
    assert_eq!(cell.state.stopping_networks().count(), 0);
    cell.desire(first, DesiredState::Shutdown);
    cell.desire(second, DesiredState::Shutdown);
    assert!(cell.state.stopping_networks().eq([back]));
    cell.report(first, TaskState::Shutdown, false);
    assert!(cell.state.stopping_networks().eq([back]), "the second one still runs");
    assert_eq!(nodes(&cell), [node, other]);
    cell.report(second, TaskState::Shutdown, true);
    assert_eq!(cell.state.stopping_networks().count(), 0);
    assert_eq!(nodes(&cell), [other]);
}

#[test]
fn reports_move_only_forward_and_only_in_the_newest_session() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let service = cell.service(50, spec("web"));
    let task = cell.assigned(100, service, 1, node);
    let old = cell.state.node(node).expect("it exists").session_epoch;
    let epoch = cell.session(node, vec![task]);
    let report = |cell: &mut Cell, node, epoch, state| {
        let status = TaskStatus { state, ..TaskStatus::default() };
        cell.run(Body::Report { node, epoch, statuses: vec![(task, status)] }).expect("accepted");
        cell.task(task).status.state
    };
    assert_eq!(report(&mut cell, node, old, TaskState::Running), TaskState::Assigned);
    assert_eq!(report(&mut cell, NodeId(1), 0, TaskState::Running), TaskState::Assigned);
    assert_eq!(report(&mut cell, node, epoch, TaskState::Orphaned), TaskState::Assigned);
    assert_eq!(report(&mut cell, node, epoch, TaskState::Running), TaskState::Running);
    assert_eq!(cell.task(task).running_since, TimestampMs(cell.at));
    assert_eq!(report(&mut cell, node, epoch, TaskState::Preparing), TaskState::Running);
    assert_eq!(report(&mut cell, node, epoch, TaskState::Failed), TaskState::Failed);
    assert_eq!(report(&mut cell, node, epoch, TaskState::Rejected), TaskState::Failed);
}

#[test]
fn the_same_state_again_is_news_only_if_something_else_differs() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let service = cell.service(50, spec("web"));
    let task = cell.assigned(100, service, 1, node);
    let epoch = cell.state.node(node).expect("it exists").session_epoch;
    let say = |cell: &mut Cell, message: &str, at| {
        let status = TaskStatus {
            state: TaskState::Preparing,
            message: message.into(),
            at: TimestampMs(at),
            ..TaskStatus::default()
        };
        cell.run(Body::Report { node, epoch, statuses: vec![(task, status)] }).expect("accepted");
        !cell.changed.is_empty()
    };
    assert!(say(&mut cell, "pulling", 1));
    assert!(!say(&mut cell, "pulling", 2));
    assert!(say(&mut cell, "unpacking", 3));
}

#[test]
fn desired_state_moves_only_forward_and_remembers_the_entry() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let service = cell.service(50, spec("web"));
    let task = cell.assigned(100, service, 1, node);
    cell.desire(task, DesiredState::Shutdown);
    assert_eq!(cell.task(task).stop_at, cell.state.index());
    assert_eq!(cell.task(task).desired_reason, "because");
    let stop_at = cell.task(task).stop_at;
    cell.desire(task, DesiredState::Remove);
    cell.desire(task, DesiredState::Running);
    assert_eq!((cell.task(task).desired, cell.task(task).stop_at), (DesiredState::Remove, stop_at));
}

#[test]
fn tasks_are_removed_before_assignment_and_after_the_end_only() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let service = cell.service(50, spec("web"));
    let pending = cell.pending(100, service, 1);
    let running = cell.assigned(101, service, 2, node);
    cell.report(running, TaskState::Running, false);
    cell.reconcile(vec![Change::RemoveTask { task: pending }, Change::RemoveTask { task: running }]);
    assert!(cell.state.task(pending).is_none());
    assert!(cell.state.task(running).is_some());
    cell.report(running, TaskState::Shutdown, false);
    cell.reconcile(vec![Change::RemoveTask { task: running }]);
    assert!(cell.state.task(running).is_none(), "it holds no address");
}

#[test]
fn restarts_are_counted_in_the_store_and_begin_anew_with_a_new_spec() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let mut web = spec("web");
    web.task.restart.max_attempts = 2;
    web.task.restart.window = Duration::from_secs(60);
    let service = cell.service(50, web);
    let mut last = cell.assigned(100, service, 1, node);
    for n in 1..=3u128 {
        cell.report(last, TaskState::Failed, true);
        let new = NewTask { is_restart: true, replaces: Some(last), ..cell.new_task(100 + n, service, 1) };
        last = new.id;
        let node_of = Change::AssignTask { task: last, version: 0, node };
        cell.reconcile(vec![Change::CreateTask(Box::new(new)), Change::AllocateTask { task: last }, node_of]);
    }
    let history = cell.state.restarts(service, Slot::Number(1)).expect("kept").clone();
    assert_eq!((history.attempts, history.times.len(), history.failures.len()), (3, 2, 3));
    assert!(history.failures.iter().all(|(on, _)| *on == node));
    assert_eq!(cell.state.restarts_of_service(service).count(), 1);

    cell.update(service, |spec| spec.task.force_update += 1).expect("accepted");
    cell.report(last, TaskState::Failed, true);
    let new = NewTask { is_restart: true, replaces: Some(last), ..cell.new_task(200, service, 1) };
    cell.reconcile(vec![Change::CreateTask(Box::new(new))]);
    let history = cell.state.restarts(service, Slot::Number(1)).expect("kept").clone();
    assert_eq!((history.attempts, history.failures.len()), (1, 0));
    for id in [100, 101, 102, 103, 200] {
        cell.reconcile(vec![Change::RemoveTask { task: TaskId(id) }]);
    }
    assert!(cell.state.restarts(service, Slot::Number(1)).is_none(), "it goes with the slot's last task");
}

#[test]
fn a_global_task_is_bound_to_its_node_at_birth() {
    let mut cell = Cell::new();
    let [two, three] = [cell.worker(2), cell.worker(3)];
    let mut agent = spec("agent");
    agent.mode = rswarm_types::spec::ServiceMode::Global;
    let service = cell.service(50, agent);
    let task = TaskId(100);
    let new = NewTask { slot: Slot::Node(two), node: Some(two), ..cell.new_task(100, service, 0) };
    cell.reconcile(vec![Change::CreateTask(Box::new(new)), Change::AllocateTask { task }]);
    assert_eq!(cell.state.load(two).tasks, 0, "not assigned yet");
    let assign = |cell: &mut Cell, node| {
        let version = cell.task(task).meta.version;
        cell.reconcile(vec![Change::AssignTask { task, version, node }]);
        cell.task(task).status.state
    };
    assert_eq!(assign(&mut cell, three), TaskState::Pending);
    assert_eq!(assign(&mut cell, two), TaskState::Assigned);
    assert_eq!(cell.state.load(two).tasks, 1);
    cell.down(two);
    assert_eq!(cell.state.node(two).expect("it exists").status.state, NodeState::Down);
    cell.reconcile(vec![Change::OrphanTask { task, reason: "down for a day".into() }]);
    assert_eq!(cell.task(task).status.state, TaskState::Orphaned);
}
