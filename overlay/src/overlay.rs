//! The handle that the worker drives.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use netlink_sys::{Socket as RawSocket, SocketAddr};
use rswarm_types::TaskId;
use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::spec::PortConfig;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::desired::Subject;
use crate::dns;
use crate::model::{NamespaceKey, names};
use crate::net::execute::Chain;
use crate::net::kernel::{Kernel, KernelError};
use crate::net::namespaces;
use crate::netd::{Client, ClientError, Launch, NetdTable, Reply};
use crate::netlink::notifications;
use crate::nfnl::transaction::NEW_GENERATION;
use crate::nfnl::{GROUP_NFTABLES, NETLINK_NETFILTER};
use crate::ports::{self, PortPlan, PortProblem};
use crate::shell::{Shell, numbers};
use crate::sys::watch_socket;

/// Where namespaces are mounted, below the run folder.
const PINS: &str = "netns";
/// A burst of foreign changes (a firewall that starts) is one disturbance.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// Numbers that others hold are skipped so often before a host-mode port is given up.
const PORT_ATTEMPTS: usize = 8;
/// The kernel takes namespaces down in the background; so long `teardown` waits for it.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(3);
const SWEEP_POLL: Duration = Duration::from_millis(20);

/// Where and as whom the overlay works.
#[derive(Clone, Debug)]
pub struct OverlayConfig {
    /// Holds `netns/` and `netd/`.
    pub run_dir: PathBuf,
    /// The address of this host that carries VXLAN frames.
    pub data_path_address: IpAddr,
    /// The program that runs as `netd`.
    pub exe: PathBuf,
    /// Cgroup folders that netd moves to; empty: it stays in the daemon's.
    pub netd_cgroups: Vec<PathBuf>,
    /// The gateway's IPv4 address and subnet, if nothing is in the way.
    pub gateway_hint: Option<Ipv4Net>,
}

/// Why the overlay cannot work at all.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error("data path address is {0}, which no interface of this host has")]
    NotHere(IpAddr),
    #[error("cannot use the folder of network namespaces")]
    Pins(#[source] io::Error),
    #[error(
        "every subnet for the gateway meets a route of this host: allowed are 172.18-31.0.0/16 and 192.168.0.0/16 in blocks of /20"
    )]
    NoGatewaySubnet,
    #[error("kernel state of container networks")]
    Kernel(#[from] KernelError),
    #[error("netd")]
    Netd(#[from] ClientError),
    #[error("cannot listen for changes of the ruleset")]
    Listen(#[source] io::Error),
    #[error("the overlay's work ended early")]
    Ended,
    /// From `teardown`.
    #[error("{0} is left in the host's network namespace")]
    Left(String),
    /// From `teardown`.
    #[error("{subject:?}: {reason}")]
    NotRemoved { subject: Subject, reason: String },
}

/// What a call of [`Overlay::converge`] came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Converged {
    /// Log index of the assignments.
    pub index: u64,
    /// Published ports that this node does not answer.
    pub port_problems: Vec<PortProblem>,
    /// What is not as it should be. What it does not name is.
    pub failures: Vec<(Subject, String)>,
}

/// What [`Overlay::watch`] noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// netd died and another was started.
    Netd,
    /// Somebody else changed the host's ruleset.
    Ruleset,
}

/// The container networks of this node. Cheap to clone; calls are done one after the other.
#[derive(Clone)]
pub struct Overlay {
    inner: Arc<Inner>,
}

struct Inner {
    pins: PathBuf,
    netd: Client,
    state: Arc<Mutex<State>>,
    /// Tells of changed rulesets in the host's namespace.
    changes: AsyncFd<RawSocket>,
}

struct State {
    shell: Shell,
    /// The table that netd serves, and its answer.
    served: Option<(NetdTable, Reply)>,
    plan: PortPlan,
    /// The last orders, if all that they say was done.
    settled: Option<(Arc<Assignments>, BTreeSet<TaskId>)>,
}

impl Overlay {
    /// Finds what an earlier daemon left, and netd, or starts one. The network namespace of the
    /// calling thread is the host's.
    ///
    /// # Errors
    /// When the address is not ours, the kernel lacks nftables, or netd cannot be started.
    pub async fn open(config: OverlayConfig) -> Result<Self, OverlayError> {
        let data_path = config.data_path_address;
        if !namespaces::has_address(data_path) {
            return Err(OverlayError::NotHere(data_path));
        }
        let pins = config.run_dir.join(PINS);
        let kernel = Kernel::open(&pins).map_err(OverlayError::Pins)?;
        let changes = listen().map_err(OverlayError::Listen)?;
        let launch = Launch { run_dir: config.run_dir, exe: config.exe, cgroups: config.netd_cgroups };
        let netd = Client::ensure(launch).await?;
        let shell = Shell::new(kernel, data_path, config.gateway_hint);
        let state = State { shell, served: None, plan: PortPlan::default(), settled: None };
        let state = Arc::new(Mutex::new(state));
        Ok(Self { inner: Arc::new(Inner { pins, netd, state, changes }) })
    }

    /// Makes the kernel and netd as the assignments say, with these sandboxes and no others.
    /// Incremental: it knows what it did last.
    ///
    /// # Errors
    /// When the kernel cannot be read or netd does not answer; kernel state is then as far as it
    /// got, and the next call goes on.
    ///
    /// # Cancel safety
    /// A step under way is finished; the next call goes on.
    pub async fn converge(
        &self,
        assignments: &Arc<Assignments>,
        sandboxes: &BTreeSet<TaskId>,
    ) -> Result<Converged, OverlayError> {
        let mut state = self.inner.state.clone().lock_owned().await;
        if let Some((known, with)) = &state.settled
            && with == sandboxes
            && says_the_same(known, assignments)
        {
            return Ok(Converged { index: assignments.log_id.index, ..Converged::default() });
        }
        state.settled = None;
        let (assignments, sandboxes) = (assignments.clone(), sandboxes.clone());
        let (state, _) = blocking(state, move |state| {
            state.shell.take_orders(assignments, sandboxes)?;
            // Routes and load balancers do not wait for netd; its ports come in the second round.
            state.shell.converge()
        })
        .await?;
        self.finish(state).await.map(|(converged, _)| converged)
    }

    /// Looks at what is in the kernel and puts right what is not as last ordered. Returns whether
    /// there was something.
    ///
    /// # Errors
    /// As [`Overlay::converge`].
    ///
    /// # Cancel safety
    /// As [`Overlay::converge`].
    pub async fn repair(&self) -> Result<bool, OverlayError> {
        let mut state = self.inner.state.clone().lock_owned().await;
        if state.shell.facts.is_none() {
            return Ok(false);
        }
        state.settled = None;
        let (state, first) = blocking(state, |state| {
            state.shell.look_again()?;
            state.shell.converge()
        })
        .await?;
        let (_, second) = self.finish(state).await?;
        let steps = first.steps + second;
        if steps > 0 {
            tracing::info!(steps, "container networks repaired");
        }
        Ok(steps > 0)
    }

    /// netd's part, then the kernel's that depends on it. Returns also how many steps it took.
    async fn finish(&self, mut state: OwnedMutexGuard<State>) -> Result<(Converged, usize), OverlayError> {
        let mut refused = BTreeSet::new();
        let mut reply = Reply::default();
        for _ in 0..PORT_ATTEMPTS {
            let given = state.shell.facts.as_ref().map(|f| f.host_ports.clone()).unwrap_or_default();
            let tasks = state.shell.tasks();
            state.plan = ports::plan(&state.shell.assignments, &tasks, &given, &refused, namespaces::has_address);
            reply = self.serve(&mut state).await?;
            let problems = reply.published.iter().filter(|p| p.problem.is_some());
            let numbers = problems.map(|p| p.port);
            let before = refused.len();
            refused.extend(numbers.filter(|n| state.plan.is_chosen(*n)));
            if refused.len() == before {
                break;
            }
        }
        for port in &reply.published {
            if let Some(reason) = &port.problem {
                state.plan.refuse(port.port, reason.clone());
            }
        }
        let (state, round) = blocking(state, move |state| {
            state.shell.take_reply(&reply);
            if let Some(facts) = &mut state.shell.facts {
                facts.host_ports.clone_from(&state.plan.host_ports);
            }
            let mut round = state.shell.converge()?;
            let failures = reply.failures.iter();
            let failures = failures.map(|f| (Subject::Task(f.task), format!("DNS: {}", f.problem)));
            round.failures.extend(failures);
            Ok(round)
        })
        .await?;
        let mut state = state;
        if state.plan.problems.is_empty() && round.failures.is_empty() {
            state.settled = Some((state.shell.assignments.clone(), state.shell.sandboxes.clone()));
        }
        let converged = Converged {
            index: state.shell.assignments.log_id.index,
            port_problems: state.plan.problems.clone(),
            failures: round.failures,
        };
        Ok((converged, round.steps))
    }

    /// Has netd serve the table for what was ordered, unless it does.
    async fn serve(&self, state: &mut OwnedMutexGuard<State>) -> Result<Reply, OverlayError> {
        let shell = &state.shell;
        let pin = |task| shell.pin(task);
        let table = dns::table(&shell.assignments, &shell.made_tasks(), &state.plan, pin);
        if let Some((served, reply)) = &state.served {
            let same = NetdTable { version: table.version, ..served.clone() } == table;
            let is_whole = reply.failures.is_empty() && reply.published.iter().all(|p| p.problem.is_none());
            if same && is_whole {
                return Ok(reply.clone());
            }
        }
        state.served = None;
        let reply = self.inner.netd.load(&table).await?;
        state.served = Some((table, reply.clone()));
        Ok(reply)
    }

    /// Waits until something happens that [`Overlay::repair`] must put right.
    ///
    /// # Errors
    /// When netd cannot be started again or the kernel's news cannot be read; wait a little and
    /// call `repair`.
    ///
    /// # Cancel safety
    /// Nothing is lost: `repair` looks for itself.
    pub async fn watch(&self) -> Result<Disturbance, OverlayError> {
        // Both branches only wait, so that either may be dropped.
        tokio::select! {
            reply = self.inner.netd.watch() => {
                reply?;
                let mut state = self.inner.state.lock().await;
                (state.served, state.settled) = (None, None);
                Ok(Disturbance::Netd)
            }
            changed = self.foreign_change() => changed.map(|()| Disturbance::Ruleset),
        }
    }

    async fn foreign_change(&self) -> Result<(), OverlayError> {
        loop {
            let mut ready = self.inner.changes.readable().await.map_err(OverlayError::Listen)?;
            let has_news = drain(ready.get_inner()).map_err(OverlayError::Listen)?;
            ready.clear_ready();
            if !has_news {
                continue;
            }
            tokio::time::sleep(DEBOUNCE).await;
            drain(self.inner.changes.get_ref()).map_err(OverlayError::Listen)?;
            // Most news is of our own doing: a converge under way ends first.
            let state = self.inner.state.clone().lock_owned().await;
            if state.shell.facts.is_none() {
                continue;
            }
            let (_, is_ours) = blocking(state, |state| state.shell.is_ruleset_ours().map_err(Into::into)).await?;
            if !is_ours {
                return Ok(());
            }
        }
    }

    /// The network namespace of a task's sandbox, for the runtime. It exists after a
    /// [`Overlay::converge`] with the task that names no failure of it.
    pub fn sandbox_path(&self, task: TaskId) -> PathBuf {
        self.inner.pins.join(names::pin(NamespaceKey::Sandbox(task)).unwrap_or_default())
    }

    /// Tasks whose sandbox exists, an earlier daemon's included.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn sandboxes(&self) -> Result<BTreeSet<TaskId>, OverlayError> {
        sandboxes_in(&self.inner.pins).map_err(OverlayError::Pins)
    }

    /// A task's host-mode ports with their numbers, as of the last converge.
    pub async fn host_ports(&self, task: TaskId) -> Vec<PortConfig> {
        let state = self.inner.state.lock().await;
        let chosen = numbers(&state.plan.host_ports, task);
        chosen.into_iter().map(|(p, published)| PortConfig { published, ..p }).collect()
    }

    /// The gateway's IPv4 address and subnet, once there is one: a hint for the next start.
    pub async fn gateway(&self) -> Option<Ipv4Net> {
        self.inner.state.lock().await.shell.facts.as_ref().map(|f| f.gateway.v4)
    }

    /// Removes every interface, rule, route, namespace and mount of ours, and ends netd. Containers
    /// must be gone.
    ///
    /// # Errors
    /// All that is left; the rest is removed.
    pub async fn teardown(&self) -> Result<(), Vec<OverlayError>> {
        let mut errors = Vec::new();
        let mut state = self.inner.state.clone().lock_owned().await;
        if let Err(error) = self.inner.netd.stop().await {
            errors.push(error.into());
        }
        (state.served, state.settled) = (None, None);
        state.plan = PortPlan::default();
        match blocking(state, |state| state.shell.remove_all()).await {
            Ok((state, failures)) => {
                let failed = |(subject, reason)| OverlayError::NotRemoved { subject, reason };
                errors.extend(failures.into_iter().map(failed));
                errors.extend(self.wait_until_swept(state).await);
            }
            Err(error) => errors.push(error),
        }
        match std::fs::remove_dir(&self.inner.pins) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                errors.push(OverlayError::Pins(error));
            }
            _ => {}
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    async fn wait_until_swept(&self, mut state: OwnedMutexGuard<State>) -> Vec<OverlayError> {
        let deadline = tokio::time::Instant::now() + SWEEP_TIMEOUT;
        loop {
            let left = match blocking(state, |state| state.shell.leftovers()).await {
                Ok((guard, left)) => {
                    state = guard;
                    left
                }
                Err(error) => return vec![error],
            };
            if left.is_empty() || tokio::time::Instant::now() > deadline {
                return left.into_iter().map(OverlayError::Left).collect();
            }
            tokio::time::sleep(SWEEP_POLL).await;
        }
    }
}

/// Whether nothing differs that concerns the network.
fn says_the_same(one: &Arc<Assignments>, other: &Arc<Assignments>) -> bool {
    let substance = |a: &Assignments| {
        let task = |t: &AssignedTask| (t.id, t.spec.clone(), t.attachments.clone(), t.ingress, t.ports.clone());
        a.tasks.iter().map(task).collect::<Vec<_>>()
    };
    Arc::ptr_eq(one, other)
        || (one.node == other.node
            && one.networks == other.networks
            && one.services == other.services
            && one.peers == other.peers
            && one.endpoints == other.endpoints
            && substance(one) == substance(other))
}

/// Tasks with a file in the folder of namespaces.
fn sandboxes_in(pins: &Path) -> io::Result<BTreeSet<TaskId>> {
    let mut found = BTreeSet::new();
    let entries = match std::fs::read_dir(pins) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let key = entry.file_name().to_str().and_then(names::unpin);
        if let Some(NamespaceKey::Sandbox(task)) = key
            && namespaces::is_mounted(&entry.path())
        {
            found.insert(task);
        }
    }
    Ok(found)
}

/// Runs kernel work off the async threads; the guard moves with it, so that a cancelled caller
/// leaves nothing half-remembered.
async fn blocking<T: Send + 'static>(
    mut state: OwnedMutexGuard<State>,
    work: impl FnOnce(&mut State) -> Result<T, OverlayError> + Send + 'static,
) -> Result<(OwnedMutexGuard<State>, T), OverlayError> {
    let done = tokio::task::spawn_blocking(move || {
        let result = work(&mut state);
        (state, result)
    });
    let (state, result) = done.await.map_err(|_| OverlayError::Ended)?;
    result.map(|value| (state, value))
}

/// A socket that hears of changed rulesets.
fn listen() -> io::Result<AsyncFd<RawSocket>> {
    let mut socket = RawSocket::new(NETLINK_NETFILTER)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket.add_membership(GROUP_NFTABLES)?;
    // Lost news is news: whatever comes says that something changed.
    socket.set_no_enobufs(true)?;
    socket.set_non_blocking(true)?;
    watch_socket(socket)
}

/// Reads all news; says whether a transaction was among it.
fn drain(socket: &RawSocket) -> io::Result<bool> {
    const NFTABLES: u16 = 10;
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut has_news = false;
    loop {
        buffer.clear();
        match socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
            Ok(_) => {
                let kind = NFTABLES << 8 | NEW_GENERATION;
                has_news |= notifications(&buffer).iter().any(|(k, _)| *k == kind);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(has_news),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("pins", &self.inner.pins).finish_non_exhaustive()
    }
}

impl OverlayError {
    /// The error and its causes on one line.
    pub fn report(&self) -> String {
        Chain(self).to_string()
    }
}
