use std::sync::Arc;
use std::time::Duration;

use rswarm_types::TaskId;
use rswarm_types::assignment::{AssignedTask, Assignments, LogId};
use rswarm_types::limits::{DRAIN_WAIT_MS, STOP_GRACE_MS};
use rswarm_types::session::{Down, Leaving, Settled};
use rswarm_types::task_state::{DesiredState, TaskState};

use crate::fake::{Bench, FakeHost, Session};
use crate::health::Check;
use crate::host::PrepareError;
use crate::ledger::{Ledger, MemoryLedger, Remembered};
use crate::plan::Container;

const TASK: TaskId = TaskId(1);

fn orders(index: u64, desired: DesiredState) -> Assignments {
    let task = AssignedTask { id: TASK, desired, state: TaskState::Assigned, ..Default::default() };
    Assignments { log_id: LogId { era: 0, term: 1, index }, tasks: vec![task], ..Default::default() }
}

fn stop_at(index: u64, stop_at: u64) -> Assignments {
    let mut orders = orders(index, DesiredState::Shutdown);
    orders.tasks[0].stop_at = stop_at;
    orders.tasks[0].ingress = std::net::Ipv4Addr::new(10, 0, 0, 9).into();
    orders
}

async fn up_and_running(ledger: &MemoryLedger) -> (Bench, Session) {
    let mut bench = Bench::start(ledger, FakeHost::new(), 1).await;
    let mut session = bench.session().await;
    session.orders(orders(1, DesiredState::Running)).await;
    session.state(TASK, TaskState::Running).await;
    (bench, session)
}

#[tokio::test(start_paused = true)]
async fn a_task_is_prepared_started_and_reported() {
    let ledger = MemoryLedger::default();
    let mut bench = Bench::start(&ledger, FakeHost::new(), 1).await;
    let mut session = bench.session().await;
    session.orders(orders(1, DesiredState::Ready)).await;
    session.state(TASK, TaskState::Ready).await;
    assert_eq!(bench.host.done(), ["prepare 1"]);
    session.orders(orders(2, DesiredState::Running)).await;
    let status = session.state(TASK, TaskState::Running).await;
    assert_eq!((status.message.as_str(), status.pid), ("started", 7));
    assert_eq!(bench.host.done(), ["prepare 1", "start 1"]);
    let views = bench.worker.containers().await;
    assert_eq!((views.len(), views[0].state.as_str()), (1, "running"));
    assert_eq!(views[0].command, "of the image");
    assert!(bench.worker.has_running().await);
    bench.host.end(TASK, 3);
    let status = session.until(TASK, |s| s.sandbox_gone).await;
    assert_eq!((status.state, status.error.as_str()), (TaskState::Failed, "task: non-zero exit (3)"));
    assert!(bench.host.world().sandboxes.is_empty());
    // Files and logs stay until the record goes.
    assert!(bench.host.at("remove 1").is_none());
    session.orders(Assignments { tasks: Vec::new(), ..orders(3, DesiredState::Running) }).await;
    while bench.host.at("remove 1").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_whose_image_does_not_exist_is_rejected_in_full_words() {
    let ledger = MemoryLedger::default();
    let host = FakeHost::new();
    host.world().prepare = Some(PrepareError::Rejected("No such image: nginx:nope".into()));
    let mut bench = Bench::start(&ledger, host, 1).await;
    let mut session = bench.session().await;
    session.orders(orders(1, DesiredState::Running)).await;
    let status = session.state(TASK, TaskState::Rejected).await;
    assert_eq!((status.error.as_str(), status.sandbox_gone), ("No such image: nginx:nope", true));
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_until_settled_and_kills_after_the_grace() {
    let ledger = MemoryLedger::default();
    let (bench, mut session) = up_and_running(&ledger).await;
    bench.host.world().ignores_stop = true;
    session.orders(stop_at(5, 5)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(bench.host.at("Stop 1"), None, "load balancers still send here");
    session.send(Down::Settled(Settled { everywhere: 5, networks: Vec::new() })).await;
    let status = session.state(TASK, TaskState::Shutdown).await;
    assert_eq!(status.exit_code, Some(137));
    let (stop, kill) = (bench.host.at("Stop 1").unwrap(), bench.host.at("Kill 1").unwrap());
    assert!(kill - stop >= STOP_GRACE_MS && kill - stop < STOP_GRACE_MS + 100, "{stop} {kill}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_that_never_settles_waits_no_longer_than_allowed() {
    let ledger = MemoryLedger::default();
    let (bench, mut session) = up_and_running(&ledger).await;
    let before = tokio::time::Instant::now();
    session.orders(stop_at(5, 5)).await;
    session.state(TASK, TaskState::Shutdown).await;
    let waited = u64::try_from(before.elapsed().as_millis()).unwrap();
    assert!((DRAIN_WAIT_MS..DRAIN_WAIT_MS + 500).contains(&waited), "{waited}");
    assert!(bench.host.at("Stop 1").is_some());
}

#[tokio::test(start_paused = true)]
async fn without_a_manager_nothing_is_stopped() {
    let ledger = MemoryLedger::default();
    let (bench, session) = up_and_running(&ledger).await;
    drop(session);
    bench.link.refuses.lock().unwrap().insert(crate::fake::manager(1));
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bench.host.done(), ["prepare 1", "start 1"]);
    assert!(bench.worker.has_running().await);
}

#[tokio::test(start_paused = true)]
async fn the_next_daemon_adopts_containers_and_says_how_they_ended_meanwhile() {
    let ledger = MemoryLedger::default();
    let (bench, session) = up_and_running(&ledger).await;
    let host = Arc::clone(&bench.host);
    bench.worker.stop(Leaving::Restart).await;
    drop((session, bench));
    host.world().containers.insert(TaskId(2), Container::Running { pid: 8, started_at_ms: 1 });
    let mut bench = Bench::start(&ledger, Arc::clone(&host), 1).await;
    // No manager speaks: even a container that nobody knows goes on.
    let arrival = bench.arrival().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(host.done(), ["prepare 1", "start 1"]);
    assert!(host.world().sandboxes.contains(&TASK));
    drop(arrival);
    host.end(TASK, 4);
    let mut session = bench.session().await;
    assert_eq!(session.open.applied.index, 1);
    session.orders(orders(9, DesiredState::Running)).await;
    let status = session.state(TASK, TaskState::Failed).await;
    assert_eq!(status.exit_code, Some(4));
    // Now it is known that nobody asked for the other one.
    while host.at("remove 2").is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(host.at("Stop 2").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_once_it_is_healthy_and_fails_when_it_is_not_any_more() {
    let ledger = MemoryLedger::default();
    let host = FakeHost::new();
    host.world().check = Some(Check {
        argv: vec!["true".into()],
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(1),
        retries: 2,
    });
    host.world().is_healthy = true;
    let mut bench = Bench::start(&ledger, Arc::clone(&host), 1).await;
    let mut session = bench.session().await;
    session.orders(orders(1, DesiredState::Running)).await;
    session.state(TASK, TaskState::Starting).await;
    let before = tokio::time::Instant::now();
    session.state(TASK, TaskState::Running).await;
    assert!(before.elapsed() >= Duration::from_secs(2));
    host.world().is_healthy = false;
    let status = session.state(TASK, TaskState::Failed).await;
    assert_eq!(status.error, "unhealthy container: no answer");
    assert!(host.at("Stop 1").is_some());
}

#[tokio::test(start_paused = true)]
async fn a_network_that_cannot_be_made_fails_the_task() {
    let ledger = MemoryLedger::default();
    let host = FakeHost::new();
    host.world().converge_error = Some("no such device".into());
    let mut bench = Bench::start(&ledger, host, 1).await;
    let mut session = bench.session().await;
    session.orders(orders(1, DesiredState::Running)).await;
    let status = session.state(TASK, TaskState::Failed).await;
    assert_eq!(status.error, "no such device");
    assert!(bench.host.at("start 1").is_none());
}

#[tokio::test(start_paused = true)]
async fn leaving_ends_and_removes_everything() {
    let ledger = MemoryLedger::default();
    let (bench, session) = up_and_running(&ledger).await;
    bench.host.world().ignores_stop = true;
    drop(session);
    assert_eq!(bench.worker.leave().await, Ok(()));
    assert_eq!(bench.host.done(), ["prepare 1", "start 1", "Stop 1", "Kill 1", "remove 1", "teardown"]);
    // What is in it now is for the next cluster.
    assert_eq!(Ledger::in_memory(ledger).1, Remembered::default());
    assert!(bench.worker.containers().await.is_empty());
}
