use rswarm_types::assignment::{AssignedTask, Assignments, LogId};
use rswarm_types::delta::Delta;
use rswarm_types::session::{Leaving, StreamRequest};
use rswarm_types::spec::{Control, Role};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{MemberId, TaskId};

use super::*;
use crate::WorkerEvent;
use crate::fake::{Bench, FakeHost, manager};
use crate::ledger::MemoryLedger;

fn at(index: u64) -> LogId {
    LogId { era: 0, term: 1, index }
}

fn orders(index: u64) -> Assignments {
    let task = AssignedTask { id: TaskId(1), desired: DesiredState::Ready, ..Default::default() };
    Assignments { log_id: at(index), tasks: vec![task], managers: vec![manager(1), manager(2)], ..Default::default() }
}

fn statuses(up: Up) -> Option<(u64, Vec<TaskState>)> {
    match up {
        Up::Statuses { number, statuses } => Some((number, statuses.iter().map(|(_, s)| s.state).collect())),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_says_what_it_has_and_beats() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 1).await;
    let mut session = bench.session().await;
    assert_eq!((session.open.node.0, session.open.boot_id.as_str()), (5, "boot"));
    assert_eq!(session.open.description.hostname, "n5");
    assert_eq!(bench.event().await, WorkerEvent::Connected(manager(1)));
    assert_eq!(bench.worker.connected(), Some(manager(1)));
    let before = Instant::now();
    for _ in 0..5 {
        session.next(|up| matches!(up, Up::Heartbeat).then_some(())).await;
    }
    assert!(before.elapsed() <= Duration::from_millis(4 * HEARTBEAT_PERIOD_MS));
    session.orders(orders(4)).await;
    let applied = session.next(|up| if let Up::Applied { index } = up { Some(index) } else { None }).await;
    assert_eq!(applied, 4);
    session.send(Down::Node { role: Role::Manager, member: MemberId(3), control: Control::Read }).await;
    let told = WorkerEvent::Orders { role: Role::Manager, member: MemberId(3), control: Control::Read };
    assert_eq!(bench.event().await, told);
    assert_eq!(bench.worker.managers(), [manager(1), manager(2)]);
}

#[tokio::test(start_paused = true)]
async fn changes_follow_the_table_that_was_told_and_no_other() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 2).await;
    let mut session = bench.session().await;
    session.orders(orders(4)).await;
    let mut next = orders(5);
    next.managers.push(manager(7));
    session.send(Down::Changes(Box::new(Delta::between(&orders(4), &next)))).await;
    let applied = session.next(|up| if let Up::Applied { index: 5 } = up { Some(5) } else { None }).await;
    assert_eq!(applied, 5);
    assert_eq!(bench.worker.managers(), [manager(1), manager(2), manager(7)]);
    // Of a table that it never got: the session ends, and the next one begins with a whole table.
    let stray = Delta::between(&orders(6), &orders(7));
    session.send(Down::Changes(Box::new(stray))).await;
    let session = bench.session().await;
    assert_eq!(session.open.applied, at(5));
    session.orders(orders(8)).await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_session_moves_to_the_next_manager_at_once_and_resends() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 2).await;
    let mut session = bench.session().await;
    session.orders(orders(4)).await;
    // Taken and never acknowledged.
    session.next(statuses).await;
    let before = Instant::now();
    drop(session);
    let mut session = bench.session().await;
    assert_eq!(session.manager, manager(2));
    assert!(before.elapsed() < RETRY_PAUSE_MIN);
    session.orders(orders(5)).await;
    session.state(TaskId(1), TaskState::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_status_that_nobody_confirms_is_sent_again() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 1).await;
    let mut session = bench.session().await;
    session.orders(orders(4)).await;
    let (first, _) = session.next(statuses).await;
    let (second, states) = session.next(statuses).await;
    assert!(second > first);
    assert_eq!(states, [TaskState::Ready]);
    session.send(Down::Reported { number: second }).await;
    tokio::time::sleep(3 * RESEND_AFTER).await;
    while let Ok(up) = session.up.try_recv() {
        assert!(!matches!(up, Up::Statuses { .. }), "it was confirmed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_behind_or_brings_older_orders_is_left() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 2).await;
    let session = bench.arrival().await;
    session.send(Down::Behind { at: at(1) }).await;
    let mut session = bench.session().await;
    assert_eq!(session.manager, manager(2));
    session.orders(orders(9)).await;
    session.next(|up| matches!(up, Up::Applied { index: 9 }).then_some(())).await;
    session.orders(orders(8)).await;
    let session = bench.session().await;
    assert_eq!((session.manager, session.open.applied), (manager(1), at(9)));
}

#[tokio::test(start_paused = true)]
async fn a_removed_node_tries_no_more() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 2).await;
    let session = bench.arrival().await;
    session.send(Down::Closed { reason: CloseReason::Removed, message: "node rm".into() }).await;
    assert_eq!(bench.event().await, WorkerEvent::Removed("node rm".into()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.link.tried.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_says_why_and_ends_the_session() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 1).await;
    let mut session = bench.session().await;
    bench.event().await;
    let worker = bench.worker.clone();
    let stopping = async move { worker.stop(Leaving::Restart).await };
    let hearing = async move {
        let leaving = session.next(|up| if let Up::GoingAway(leaving) = up { Some(leaving) } else { None }).await;
        // Our half has ended.
        while session.up.recv().await.is_some() {}
        leaving
    };
    let ((), leaving) = tokio::join!(stopping, hearing);
    assert_eq!(leaving, Leaving::Restart);
    assert_eq!(bench.worker.connected(), None);
}

#[tokio::test(start_paused = true)]
async fn logs_that_a_manager_asks_for_are_carried_to_it() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 1).await;
    let session = bench.session().await;
    session.send(Down::Stream(StreamRequest { id: 77, task: TaskId(1), ..Default::default() })).await;
    let (id, lines) = bench.lines.recv().await.unwrap();
    assert_eq!((id, lines.len()), (77, 1));
    assert_eq!(lines[0].as_ref().unwrap()[0].text, b"hello");
}

#[test]
fn managers_are_tried_round_and_round_with_growing_pauses() {
    let all = [manager(1), manager(2), manager(3)];
    let mut last = None;
    let mut order = Vec::new();
    for _ in 0..4 {
        last = next(&all, last);
        order.extend(last);
    }
    assert_eq!(order, [manager(1), manager(2), manager(3), manager(1)]);
    assert_eq!(next(&all, Some(manager(9))), Some(manager(1)));
    assert_eq!(next(&[], None), None);
    let pauses = |managers: usize, tries: usize| {
        let mut pauses = Pauses::default();
        let all = (0..tries).map(|_| pauses.after_try(managers, 0).map_or(0, |p| p.as_millis()));
        all.collect::<Vec<_>>()
    };
    assert_eq!(pauses(1, 7), [0, 100, 200, 400, 800, 1_000, 1_000]);
    assert_eq!(pauses(3, 7), [0, 0, 100, 0, 0, 200, 0]);
    let mut contested = Pauses::default();
    contested.longest();
    assert_eq!(contested.after_try(3, 0), Some(RETRY_PAUSE_MAX));
}
