//! The network between hosts: messages are late, lost, or cut off, one way or both.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rswarm_types::limits::CONTROL_PORT;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::dice::Dice;
use super::manager::Serving;
use super::trace::{Event, Trace};

/// A host by its number, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub u8);

impl HostId {
    pub fn ip(self) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, self.0 + 1).into()
    }

    pub fn address(self) -> SocketAddr {
        (self.ip(), CONTROL_PORT).into()
    }

    /// The host with an address.
    pub fn at(address: SocketAddr) -> Option<Self> {
        match address.ip() {
            IpAddr::V4(ip) if ip.octets()[..3] == [192, 0, 2] => ip.octets()[3].checked_sub(1).map(Self),
            _ => None,
        }
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its kernel closed its connections.
    Killed,
    /// Nobody was told.
    Power,
}

/// One life of the daemon of one host.
pub struct Process {
    pub host: HostId,
    /// Cancelled when it dies: from then on nothing that it sends arrives, and nothing reaches it.
    pub dead: CancellationToken,
    death: OnceLock<Death>,
    serving: Mutex<Option<Arc<Serving>>>,
}

impl Process {
    pub fn new(host: HostId) -> Arc<Self> {
        Arc::new(Self { host, dead: CancellationToken::new(), death: OnceLock::new(), serving: Mutex::default() })
    }

    pub fn die(&self, death: Death) {
        // The first death counts.
        let _ = self.death.set(death);
        self.dead.cancel();
    }

    pub fn is_dead(&self) -> bool {
        self.dead.is_cancelled()
    }

    pub fn death(&self) -> Option<Death> {
        self.death.get().copied()
    }

    /// The manager of this daemon.
    pub fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn serve(&self, serving: Option<Arc<Serving>>) {
        *self.serving.lock().unwrap_or_else(PoisonError::into_inner) = serving;
    }
}

/// How messages fare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    pub loss_percent: u64,
    pub slow_percent: u64,
    /// What a slow message may take, in milliseconds.
    pub slow_ms: u64,
}

impl Weather {
    pub const FINE: Self = Self { loss_percent: 0, slow_percent: 2, slow_ms: 10 };
}

/// The network. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

struct Inner {
    dice: Dice,
    trace: Trace,
    weather: Mutex<Weather>,
    /// From whom nothing reaches whom.
    cuts: Mutex<BTreeSet<(HostId, HostId)>>,
    changed: watch::Sender<u64>,
    processes: Mutex<BTreeMap<HostId, Arc<Process>>>,
    tasks: TaskTracker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    Refused,
    Timeout,
}

impl Network {
    pub fn new(dice: Dice, trace: Trace) -> Self {
        let inner = Inner {
            dice,
            trace,
            weather: Mutex::new(Weather::FINE),
            cuts: Mutex::default(),
            changed: watch::Sender::new(0),
            processes: Mutex::default(),
            tasks: TaskTracker::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    pub fn trace(&self) -> &Trace {
        &self.inner.trace
    }

    /// Tasks of connections.
    pub fn tasks(&self) -> &TaskTracker {
        &self.inner.tasks
    }

    pub fn set_weather(&self, weather: Weather) {
        *lock(&self.inner.weather) = weather;
    }

    /// Nothing from `from` reaches `to` any more.
    pub fn cut(&self, from: HostId, to: HostId) {
        if lock(&self.inner.cuts).insert((from, to)) {
            self.inner.trace.count(Event::LinkCut);
        }
    }

    pub fn mend(&self, from: HostId, to: HostId) {
        lock(&self.inner.cuts).remove(&(from, to));
        self.inner.changed.send_modify(|count| *count += 1);
    }

    pub fn mend_all(&self) {
        lock(&self.inner.cuts).clear();
        self.inner.changed.send_modify(|count| *count += 1);
    }

    pub fn is_cut(&self, from: HostId, to: HostId) -> bool {
        lock(&self.inner.cuts).contains(&(from, to))
    }

    /// Resolves when a cut was mended.
    pub fn mended(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// The daemon of a host from now on.
    pub fn register(&self, process: Arc<Process>) {
        lock(&self.inner.processes).insert(process.host, process);
    }

    pub fn process(&self, host: HostId) -> Option<Arc<Process>> {
        lock(&self.inner.processes).get(&host).filter(|p| !p.is_dead()).cloned()
    }

    /// What a message takes now; `None` = it is lost.
    pub fn delay(&self, from: HostId, to: HostId) -> Option<Duration> {
        if from == to {
            return Some(Duration::ZERO);
        }
        let weather = *lock(&self.inner.weather);
        let dice = &self.inner.dice;
        if dice.chance(weather.loss_percent) {
            self.inner.trace.count(Event::MessageLost);
            return None;
        }
        Some(if dice.chance(weather.slow_percent) { dice.millis(1, weather.slow_ms) } else { dice.millis(1, 4) })
    }

    /// Sends a datagram; whether it arrives.
    pub async fn travel(&self, from: HostId, to: HostId) -> bool {
        let Some(delay) = self.delay(from, to) else { return false };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let arrives = !self.is_cut(from, to);
        if !arrives {
            self.inner.trace.count(Event::MessageLost);
        }
        arrives
    }

    /// A call and its answer; what is lost on the way shows as a timeout.
    pub async fn call<T, F>(
        &self,
        from: &Process,
        to: SocketAddr,
        limit: Duration,
        work: impl FnOnce(Arc<Serving>) -> F,
    ) -> Result<T, CallError>
    where
        F: Future<Output = T>,
    {
        let lost = std::future::pending::<()>;
        let Some(host) = HostId::at(to) else { return Err(CallError::Refused) };
        let exchange = async {
            if from.is_dead() || !self.travel(from.host, host).await {
                lost().await;
            }
            let process = self.process(host);
            let answer = match process.as_ref().and_then(|p| Some((p, p.serving()?))) {
                Some((process, serving)) => tokio::select! {
                    biased;
                    () = process.dead.cancelled() => None,
                    answer = work(serving) => Some(answer),
                },
                // The host answers for a daemon that is not there; a host without power does not.
                None if self.has_power(host) => None,
                None => {
                    lost().await;
                    None
                }
            };
            if !self.travel(host, from.host).await || from.is_dead() {
                lost().await;
            }
            answer.ok_or(CallError::Refused)
        };
        tokio::time::timeout(limit, exchange).await.unwrap_or(Err(CallError::Timeout))
    }

    fn has_power(&self, host: HostId) -> bool {
        lock(&self.inner.processes).get(&host).is_none_or(|p| p.death() != Some(Death::Power))
    }
}
