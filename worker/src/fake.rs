//! A host and managers in memory, for tests of the agent and the session.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::node::NodeDescription;
use rswarm_types::session::{Down, LogLine, Open, StreamRequest, Up};
use rswarm_types::task::TaskStatus;
use rswarm_types::task_state::TaskState;
use rswarm_types::units::TimestampMs;
use rswarm_types::{NodeId, TaskId};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::{ReceiverStream, WatchStream};

use crate::WorkerEvent;
use crate::health::{Check, ProbeResult};
use crate::host::{Host, Networks, PrepareError, StartFailure, StopSignal};
use crate::ledger::{LedgerPlace, MemoryLedger};
use crate::link::{Connection, Link};
use crate::plan::Container;
use crate::worker::{Parts, Worker};

/// Nothing in these tests takes longer, in virtual time.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct World {
    pub containers: BTreeMap<TaskId, Container>,
    pub sandboxes: BTreeSet<TaskId>,
    /// What was done, with the milliseconds since the beginning.
    pub log: Vec<(u64, String)>,
    pub prepare: Option<PrepareError>,
    pub ignores_stop: bool,
    pub check: Option<Check>,
    pub is_healthy: bool,
    pub converge_error: Option<String>,
}

pub struct FakeHost {
    world: Mutex<World>,
    changes: watch::Sender<()>,
    began: Instant,
}

impl FakeHost {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { world: Mutex::default(), changes: watch::Sender::new(()), began: Instant::now() })
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn note(&self, what: impl Into<String>) {
        let at = u64::try_from(self.began.elapsed().as_millis()).unwrap();
        self.world().log.push((at, what.into()));
    }

    /// What was done, in order.
    pub fn done(&self) -> Vec<String> {
        self.world().log.iter().map(|(_, what)| what.clone()).collect()
    }

    /// When something was done.
    pub fn at(&self, what: &str) -> Option<u64> {
        self.world().log.iter().find(|(_, w)| w == what).map(|(at, _)| *at)
    }

    pub fn end(&self, id: TaskId, code: i32) {
        self.world().containers.insert(id, Container::Exited { code, oom: false, at_ms: 2 });
        self.changes.send_replace(());
    }
}

#[async_trait]
impl Host for FakeHost {
    fn wall(&self) -> TimestampMs {
        TimestampMs(u64::try_from(self.began.elapsed().as_millis()).unwrap())
    }

    fn random(&self) -> u64 {
        0
    }

    async fn prepare(&self, task: &AssignedTask) -> Result<(), PrepareError> {
        self.note(format!("prepare {}", task.id.0));
        tokio::time::sleep(Duration::from_millis(50)).await;
        self.world().prepare.clone().map_or(Ok(()), Err)
    }

    async fn start(&self, task: &AssignedTask, _: &Assignments) -> Result<(), StartFailure> {
        self.note(format!("start {}", task.id.0));
        assert!(self.world().sandboxes.contains(&task.id), "a container starts in its sandbox");
        self.world().containers.insert(task.id, Container::Running { pid: 7, started_at_ms: 1 });
        Ok(())
    }

    async fn check(&self, _: &AssignedTask) -> Option<Check> {
        self.world().check.clone()
    }

    async fn signal(&self, id: TaskId, _: Option<&AssignedTask>, signal: StopSignal) -> Result<(), String> {
        self.note(format!("{signal:?} {}", id.0));
        if signal == StopSignal::Kill {
            self.end(id, 137);
        } else if !self.world().ignores_stop {
            self.end(id, 143);
        }
        Ok(())
    }

    async fn remove(&self, id: TaskId) -> Result<(), String> {
        self.note(format!("remove {}", id.0));
        self.world().containers.remove(&id);
        Ok(())
    }

    fn containers(&self) -> BTreeMap<TaskId, Container> {
        self.world().containers.clone()
    }

    fn argv(&self, id: TaskId) -> Vec<String> {
        if self.world().containers.contains_key(&id) { vec!["of".into(), "the image".into()] } else { Vec::new() }
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        WatchStream::new(self.changes.subscribe()).boxed()
    }

    async fn converge(&self, _: &Arc<Assignments>, sandboxes: &BTreeSet<TaskId>) -> Result<Networks, String> {
        tokio::time::sleep(Duration::from_millis(2)).await;
        let mut world = self.world();
        if let Some(error) = &world.converge_error {
            return Err(error.clone());
        }
        world.sandboxes.clone_from(sandboxes);
        Ok(Networks { is_whole: true, sandboxes: sandboxes.clone(), ..Networks::default() })
    }

    async fn repair(&self) -> Result<bool, String> {
        Ok(false)
    }

    async fn disturbed(&self) {
        std::future::pending().await
    }

    fn sandboxes(&self) -> BTreeSet<TaskId> {
        self.world().sandboxes.clone()
    }

    async fn probe(&self, _: TaskId, _: &[String], _: Duration) -> ProbeResult {
        if self.world().is_healthy { ProbeResult::Healthy } else { ProbeResult::Unhealthy("no answer".into()) }
    }

    fn logs(&self, request: &StreamRequest) -> BoxStream<'static, Result<Vec<LogLine>, String>> {
        let line = LogLine { task: request.task, text: b"hello".to_vec(), ..LogLine::default() };
        stream::iter([Ok(vec![line])]).boxed()
    }

    async fn teardown(&self) -> Vec<String> {
        self.note("teardown");
        Vec::new()
    }
}

/// A session as its manager sees it.
pub struct Session {
    pub manager: SocketAddr,
    pub open: Open,
    pub up: mpsc::Receiver<Up>,
    pub down: mpsc::Sender<Down>,
}

/// What a log stream brought.
pub type Lines = (u128, Vec<Result<Vec<LogLine>, String>>);

pub struct FakeLink {
    arrivals: mpsc::Sender<(SocketAddr, mpsc::Receiver<Up>, mpsc::Sender<Down>)>,
    lines: mpsc::Sender<Lines>,
    /// Managers that refuse connections.
    pub refuses: Mutex<BTreeSet<SocketAddr>>,
    pub tried: Mutex<Vec<(Instant, SocketAddr)>>,
}

#[async_trait]
impl Link for FakeLink {
    async fn connect(&self, manager: SocketAddr) -> Result<Connection, String> {
        self.tried.lock().unwrap().push((Instant::now(), manager));
        if self.refuses.lock().unwrap().contains(&manager) {
            return Err("connection refused".into());
        }
        let (up, up_receiver) = mpsc::channel(64);
        let (down_sender, down) = mpsc::channel(64);
        self.arrivals.send((manager, up_receiver, down_sender)).await.map_err(|_| "the test has ended".to_owned())?;
        Ok(Connection { up, down: ReceiverStream::new(down).map(Ok).boxed() })
    }

    async fn stream(
        &self,
        _: SocketAddr,
        id: u128,
        lines: BoxStream<'static, Result<Vec<LogLine>, String>>,
    ) -> Result<(), String> {
        let lines = lines.collect().await;
        self.lines.send((id, lines)).await.map_err(|e| e.to_string())
    }
}

/// A worker with everything around it.
pub struct Bench {
    pub host: Arc<FakeHost>,
    pub link: Arc<FakeLink>,
    pub worker: Worker,
    pub events: mpsc::Receiver<WorkerEvent>,
    pub lines: mpsc::Receiver<Lines>,
    arrivals: mpsc::Receiver<(SocketAddr, mpsc::Receiver<Up>, mpsc::Sender<Down>)>,
    epoch: u64,
}

pub fn manager(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 2377))
}

impl Bench {
    pub async fn start(ledger: &MemoryLedger, host: Arc<FakeHost>, managers: usize) -> Self {
        let (arrivals_sender, arrivals) = mpsc::channel(8);
        let (lines_sender, lines) = mpsc::channel(8);
        let link = Arc::new(FakeLink {
            arrivals: arrivals_sender,
            lines: lines_sender,
            refuses: Mutex::default(),
            tried: Mutex::default(),
        });
        let managers = (1..=managers).map(|n| manager(u8::try_from(n).unwrap())).collect();
        let (worker, events) = Worker::start_with(Parts {
            node: NodeId(5),
            host: Arc::clone(&host) as Arc<dyn Host>,
            link: Arc::clone(&link) as Arc<dyn Link>,
            ledger: LedgerPlace::Memory(ledger.clone()),
            managers,
            description: NodeDescription { hostname: "n5".into(), ..Default::default() },
            boot_id: "boot".into(),
            raft_lost: false,
        })
        .await
        .unwrap();
        Self { host, link, worker, events, lines, arrivals, epoch: 0 }
    }

    /// The next session; not opened yet.
    pub async fn arrival(&mut self) -> Session {
        let (manager, mut up, down) = timeout(PATIENCE, self.arrivals.recv()).await.unwrap().unwrap();
        let Some(Up::Open(open)) = up.recv().await else { panic!("a session begins with Open") };
        Session { manager, open: *open, up, down }
    }

    /// The next session, opened.
    pub async fn session(&mut self) -> Session {
        let session = self.arrival().await;
        self.epoch += 1;
        session.down.send(Down::Opened { epoch: self.epoch }).await.unwrap();
        session
    }

    pub async fn event(&mut self) -> WorkerEvent {
        timeout(PATIENCE, self.events.recv()).await.unwrap().unwrap()
    }
}

impl Session {
    pub async fn send(&self, message: Down) {
        self.down.send(message).await.unwrap();
    }

    pub async fn orders(&self, orders: Assignments) {
        self.send(Down::Assignments(Box::new(orders))).await;
    }

    /// The next message that `wanted` takes; heartbeats and others are let go.
    pub async fn next<T>(&mut self, mut wanted: impl FnMut(Up) -> Option<T>) -> T {
        let found = async {
            loop {
                let message = self.up.recv().await.expect("the session goes on");
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
        };
        timeout(PATIENCE, found).await.unwrap()
    }

    /// Acknowledges statuses until one of the task fits.
    pub async fn until(&mut self, id: TaskId, fits: impl Fn(&TaskStatus) -> bool) -> TaskStatus {
        loop {
            let (number, statuses) = self
                .next(|up| match up {
                    Up::Statuses { number, statuses } => Some((number, statuses)),
                    _ => None,
                })
                .await;
            self.send(Down::Reported { number }).await;
            let found = statuses.into_iter().find(|(task, status)| *task == id && fits(status));
            if let Some((_, status)) = found {
                return status;
            }
        }
    }

    pub async fn state(&mut self, id: TaskId, state: TaskState) -> TaskStatus {
        self.until(id, |status| status.state == state).await
    }
}
