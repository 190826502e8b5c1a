//! A host's kernel and containers, as far as a daemon sees them. They outlive the daemon, not the power.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::session::{LogLine, StreamRequest};
use rswarm_types::spec::{PortConfig, Protocol, PublishMode};
use rswarm_types::units::TimestampMs;
use rswarm_types::{NetworkId, TaskId};
use rswarm_worker::host::{Check, Container, Host, Networks, PrepareError, ProbeResult, StartFailure, StopSignal};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::task::TaskTracker;

use super::dice::Dice;
use super::network::Process;
use super::trace::{Event, Trace};
use super::witness::Witness;
use crate::invariants::i12_convergence::Actual;
use crate::invariants::i20_unique_addresses::InUse;

/// Wall time at which every run begins.
const BEGAN: TimestampMs = TimestampMs(1_790_000_000_000);
/// First host port of those that a host chooses.
const CHOSEN_PORTS: u16 = 40_000;

/// The machine under the daemons of one host. Cheap to clone.
#[derive(Clone)]
pub struct Kernel {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    dice: Dice,
    trace: Trace,
    witness: Witness,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
    tasks: TaskTracker,
}

#[derive(Default)]
struct State {
    containers: BTreeMap<TaskId, Unit>,
    sandboxes: BTreeMap<TaskId, Vec<(NetworkId, IpAddr)>>,
    next_pid: u32,
    next_port: u16,
    /// Things go wrong now and then.
    is_troubled: bool,
}

struct Unit {
    container: Container,
    ports: Vec<(u16, Protocol)>,
    /// It ignores the stop signal.
    is_deaf: bool,
}

/// Wall time in the simulation.
pub fn wall(trace: &Trace) -> TimestampMs {
    BEGAN.after(trace.elapsed())
}

impl Kernel {
    pub fn new(name: &str, dice: Dice, witness: Witness, trace: Trace) -> Self {
        let inner = Inner {
            name: name.to_owned(),
            dice,
            trace,
            witness,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// What a daemon may do here while it lives.
    pub fn handle(&self, process: Arc<Process>) -> Handle {
        Handle { kernel: self.clone(), process }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.inner.changed.send_modify(|count| *count += 1);
    }

    fn note(&self, text: &str, task: TaskId) {
        self.inner.trace.note(format!("{} {text} {}", self.inner.name, task.short()));
    }

    /// Whether preparations, starts and checks fail now and then.
    pub fn trouble(&self, is_troubled: bool) {
        self.lock().is_troubled = is_troubled;
    }

    fn goes_wrong(&self, percent: u64) -> bool {
        let goes_wrong = self.lock().is_troubled && self.inner.dice.chance(percent);
        if goes_wrong {
            self.inner.trace.count(Event::WorkFailed);
        }
        goes_wrong
    }

    /// A running container dies by itself.
    pub fn crash_one(&self, dice: &Dice) {
        let running: Vec<TaskId> = self.actual().running.into_iter().collect();
        if let Some(task) = dice.pick(&running) {
            self.inner.trace.count(Event::ContainerDied);
            self.end(*task, if dice.chance(50) { 1 } else { 137 });
        }
    }

    /// Everything that only lived in memory is gone.
    pub fn cut_power(&self) {
        let mut state = self.lock();
        state.sandboxes.clear();
        let mut lost = Vec::new();
        for (task, unit) in &mut state.containers {
            if unit.container.is_running() {
                unit.container = Container::Lost("the host was restarted".to_owned());
                unit.ports.clear();
                lost.push(*task);
            }
        }
        drop(state);
        lost.into_iter().for_each(|task| self.inner.witness.ended(task));
        self.inner.witness.uses(&self.inner.name, Vec::new());
        self.tell();
    }

    /// What is there.
    pub fn actual(&self) -> Actual {
        let state = self.lock();
        let running = state.containers.iter().filter(|(_, unit)| unit.container.is_running());
        Actual {
            running: running.map(|(task, _)| *task).collect(),
            containers: state.containers.keys().copied().collect(),
            sandboxes: state.sandboxes.keys().copied().collect(),
        }
    }

    fn wall(&self) -> TimestampMs {
        wall(&self.inner.trace)
    }

    fn end(&self, task: TaskId, code: i32) {
        let at_ms = self.wall().0;
        let mut state = self.lock();
        let Some(unit) = state.containers.get_mut(&task).filter(|unit| unit.container.is_running()) else { return };
        unit.container = Container::Exited { code, oom: false, at_ms };
        unit.ports.clear();
        drop(state);
        self.inner.witness.ended(task);
        self.note(&format!("exit {code}"), task);
        self.tell();
    }

    fn end_later(&self, task: TaskId, code: i32, after: Duration) {
        let kernel = self.clone();
        self.inner.tasks.spawn(async move {
            tokio::time::sleep(after).await;
            kernel.end(task, code);
        });
    }

    fn begin(&self, task: &AssignedTask) {
        let ports: Vec<(u16, Protocol)> = task
            .ports
            .iter()
            .filter(|p| p.mode == PublishMode::Host && p.published != 0)
            .map(|p| (p.published, p.protocol))
            .collect();
        let is_deaf = self.inner.dice.chance(5);
        let started_at_ms = self.wall().0;
        let mut state = self.lock();
        if state.containers.get(&task.id).is_some_and(|unit| unit.container.is_running()) {
            return;
        }
        state.next_pid += 1;
        let container = Container::Running { pid: state.next_pid, started_at_ms };
        state.containers.insert(task.id, Unit { container, ports, is_deaf });
        let all = state.containers.iter().flat_map(|(id, unit)| unit.ports.iter().map(|(port, p)| (*port, *p, *id)));
        let all: Vec<_> = all.collect();
        drop(state);
        self.note("start", task.id);
        self.inner.witness.started(&self.inner.name, task.id, &all);
        self.tell();
    }
}

/// What one daemon may do; once it is dead, nothing.
pub struct Handle {
    kernel: Kernel,
    process: Arc<Process>,
}

impl Handle {
    /// Takes some time; never comes back to a daemon that died meanwhile.
    async fn take_time(&self, low_ms: u64, high_ms: u64) {
        tokio::time::sleep(self.kernel.inner.dice.millis(low_ms, high_ms)).await;
        if self.process.is_dead() {
            std::future::pending::<()>().await;
        }
    }
}

/// Addresses that a task's sandbox gets.
fn addresses(task: &AssignedTask, assignments: &Assignments) -> Vec<(NetworkId, IpAddr)> {
    let ingress = assignments.networks.iter().find(|n| n.ingress).map(|n| n.id);
    let own = task.attachments.iter().map(|a| (a.network, a.addresses));
    let all = own.chain(ingress.map(|network| (network, task.ingress)));
    all.flat_map(|(network, addresses)| addresses.iter().map(move |address| (network, address))).collect()
}

#[async_trait]
impl Host for Handle {
    fn wall(&self) -> TimestampMs {
        self.kernel.wall()
    }

    fn random(&self) -> u64 {
        self.kernel.inner.dice.number()
    }

    async fn prepare(&self, _: &AssignedTask) -> Result<(), PrepareError> {
        self.take_time(1, 120).await;
        if self.kernel.goes_wrong(3) {
            return Err(PrepareError::Failed("the registry hung up".to_owned()));
        }
        Ok(())
    }

    async fn start(&self, task: &AssignedTask, _: &Assignments) -> Result<(), StartFailure> {
        self.take_time(5, 50).await;
        if self.kernel.goes_wrong(3) {
            return Err(StartFailure { text: "the shim did not come up".to_owned(), exit_code: None });
        }
        self.kernel.begin(task);
        // A daemon may die between the start and its word of it.
        self.take_time(1, 30).await;
        Ok(())
    }

    async fn check(&self, task: &AssignedTask) -> Option<Check> {
        let wanted = task.spec.task.container.healthcheck.as_ref()?;
        let time = |given: Option<Duration>| given.unwrap_or(Duration::from_secs(1));
        Some(Check {
            argv: wanted.test.iter().skip(1).cloned().collect(),
            interval: time(wanted.interval),
            timeout: time(wanted.timeout),
            start_period: Duration::ZERO,
            start_interval: time(wanted.start_interval),
            retries: wanted.retries.max(1),
        })
    }

    async fn signal(&self, id: TaskId, _: Option<&AssignedTask>, signal: StopSignal) -> Result<(), String> {
        self.take_time(1, 5).await;
        let is_deaf = self.kernel.lock().containers.get(&id).is_none_or(|unit| unit.is_deaf);
        match signal {
            StopSignal::Stop if is_deaf => {}
            StopSignal::Stop => self.kernel.end_later(id, 143, self.kernel.inner.dice.millis(5, 200)),
            StopSignal::Kill => self.kernel.end_later(id, 137, self.kernel.inner.dice.millis(1, 10)),
        }
        Ok(())
    }

    async fn remove(&self, id: TaskId) -> Result<(), String> {
        self.take_time(1, 20).await;
        let mut state = self.kernel.lock();
        if state.containers.get(&id).is_some_and(|unit| unit.container.is_running()) {
            return Err("the container still runs".to_owned());
        }
        state.containers.remove(&id);
        drop(state);
        self.kernel.note("remove", id);
        Ok(())
    }

    fn containers(&self) -> BTreeMap<TaskId, Container> {
        self.kernel.lock().containers.iter().map(|(task, unit)| (*task, unit.container.clone())).collect()
    }

    fn argv(&self, _: TaskId) -> Vec<String> {
        Vec::new()
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        WatchStream::new(self.kernel.inner.changed.subscribe()).map(|_| ()).boxed()
    }

    async fn converge(&self, assignments: &Arc<Assignments>, wanted: &BTreeSet<TaskId>) -> Result<Networks, String> {
        self.take_time(1, 15).await;
        if self.kernel.goes_wrong(3) {
            return Err("the kernel is busy".to_owned());
        }
        let name = &self.kernel.inner.name;
        let mut state = self.kernel.lock();
        state.sandboxes.retain(|task, _| wanted.contains(task));
        let mut host_ports = BTreeMap::new();
        for task in assignments.tasks.iter().filter(|t| wanted.contains(&t.id)) {
            state.sandboxes.entry(task.id).or_insert_with(|| addresses(task, assignments));
            let ports: Vec<PortConfig> = task.ports.iter().filter(|p| p.mode == PublishMode::Host).copied().collect();
            if !ports.is_empty() {
                let mut number = |port: &PortConfig| {
                    state.next_port += 1;
                    let chosen = CHOSEN_PORTS + state.next_port;
                    PortConfig { published: if port.published == 0 { chosen } else { port.published }, ..*port }
                };
                host_ports.insert(task.id, ports.iter().map(&mut number).collect());
            }
        }
        let sandboxes = state.sandboxes.keys().copied().collect();
        let in_use = state.sandboxes.iter().flat_map(|(task, all)| {
            all.iter().map(|(network, address)| InUse {
                host: name.clone(),
                task: *task,
                network: *network,
                address: *address,
            })
        });
        let in_use = in_use.collect();
        drop(state);
        self.kernel.inner.witness.uses(name, in_use);
        Ok(Networks { is_whole: true, sandboxes, host_ports, ..Networks::default() })
    }

    async fn repair(&self) -> Result<bool, String> {
        Ok(false)
    }

    async fn disturbed(&self) {
        std::future::pending().await
    }

    fn sandboxes(&self) -> BTreeSet<TaskId> {
        self.kernel.lock().sandboxes.keys().copied().collect()
    }

    async fn probe(&self, _: TaskId, _: &[String], _: Duration) -> ProbeResult {
        self.take_time(1, 20).await;
        if self.kernel.goes_wrong(5) { ProbeResult::Unhealthy("no answer".to_owned()) } else { ProbeResult::Healthy }
    }

    fn logs(&self, _: &StreamRequest) -> BoxStream<'static, Result<Vec<LogLine>, String>> {
        stream::empty().boxed()
    }

    async fn teardown(&self) -> Vec<String> {
        Vec::new()
    }
}
