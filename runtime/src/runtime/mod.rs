//! The worker's handle on containers: starts them, watches them, and finds them again after a daemon's restart.

mod adopt;
mod exec;
mod remove;
mod start;
mod watch;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{BoxStream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::cgroup::Hierarchies;
use crate::logs::{self, LogLine, LogQuery};
use crate::plan::ContainerPlan;
use crate::spec::Defaults;
use crate::state::{Backend, Order, ProcessId, StateDir};
use crate::sys;

pub use exec::{ExecError, ExecOutcome};
pub use start::{StartError, StartErrorKind, Started};

/// Ends that a slow listener may lag behind before it must ask [`Runtime::observe`] again.
const EXIT_EVENTS: usize = 4_096;

/// Where a node keeps its containers.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// A folder per container; not on overlayfs.
    pub containers_dir: PathBuf,
    /// State that may vanish at a reboot; its path is short (sockets live there).
    pub run_dir: PathBuf,
    /// Above all containers' cgroups, e.g. `/rswarm`.
    pub cgroup_parent: String,
    pub backend: Backend,
    /// What plans for this runtime start from; it does not look at it itself.
    pub defaults: Defaults,
    /// The program whose `shim` verb is [`crate::shim_main`]; usually `/proc/self/exe`.
    pub exe: PathBuf,
}

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerState {
    Running {
        pid: u32,
        /// Nanoseconds since 1970.
        started_at_ns: u64,
    },
    Exited(Exit),
    /// Gone without an exit code, and why.
    Lost(String),
}

/// How a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// 128 + N after signal N.
    pub code: i32,
    pub signal: Option<i32>,
    /// The kernel killed something in it for lack of memory, and it failed.
    pub oom: bool,
    /// Nanoseconds since 1970.
    pub at_ns: u64,
}

/// One container that this node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub id: String,
    pub state: ContainerState,
}

/// The end of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitEvent {
    pub id: String,
    pub outcome: Outcome,
}

/// What [`ExitEvent`] says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exited(Exit),
    Lost(String),
}

/// The runtime cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the cgroup hierarchies cannot be read")]
    Cgroups(#[source] io::Error),
    #[error("the runtime must be opened inside a tokio runtime")]
    NoExecutor,
    #[error("cgroup parent \"{0}\" is not allowed: allowed are absolute paths below \"/\" without \"..\"")]
    CgroupParent(String),
}

/// Something cannot be done to a container.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    #[error("no such container: {0}")]
    NotFound(String),
    #[error("container {0} is running")]
    Running(String),
    #[error("container {id}")]
    Io { id: String, source: io::Error },
}

/// All containers of this node; cheap to clone. Dropping the last one stops watching, and no container.
#[derive(Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
    _stop_watching: Arc<DropGuard>,
}

struct Inner {
    config: RuntimeConfig,
    hierarchies: Hierarchies,
    table: Mutex<BTreeMap<String, Entry>>,
    exits: broadcast::Sender<ExitEvent>,
    tasks: TaskTracker,
    stop: CancellationToken,
    executor: Handle,
}

struct Entry {
    state: ContainerState,
    init: ProcessId,
    argv: Vec<String>,
    volumes: Vec<String>,
}

impl Entry {
    fn of(plan: Option<&ContainerPlan>, state: ContainerState, init: ProcessId) -> Self {
        let volumes = plan.into_iter().flat_map(ContainerPlan::volumes).map(str::to_owned).collect();
        Self { state, init, argv: plan.map(|plan| plan.argv.clone()).unwrap_or_default(), volumes }
    }
}

impl Runtime {
    /// What this node's containers have where their service does not say.
    #[must_use]
    pub fn defaults(&self) -> Defaults {
        self.inner.config.defaults
    }

    /// Finds every container of this node again, and watches those that run. Blocks while it looks.
    ///
    /// # Errors
    /// When the folders cannot be made or read, or outside a tokio runtime.
    pub fn open(config: RuntimeConfig) -> Result<Self, OpenError> {
        let parent = &config.cgroup_parent;
        if !parent.starts_with('/') || parent.trim_matches('/').is_empty() || parent.split('/').any(|p| p == "..") {
            return Err(OpenError::CgroupParent(parent.clone()));
        }
        let executor = Handle::try_current().map_err(|_| OpenError::NoExecutor)?;
        let hierarchies = Hierarchies::of_this_machine().map_err(OpenError::Cgroups)?;
        for path in [&config.containers_dir, &config.run_dir] {
            let io = |source| OpenError::Io { path: path.clone(), source };
            std::fs::create_dir_all(path).map_err(io)?;
            // Plans hold variables, and variables hold secrets.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            config,
            hierarchies,
            table: Mutex::new(BTreeMap::new()),
            exits: broadcast::channel(EXIT_EVENTS).0,
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            executor,
        });
        adopt::adopt_all(&inner)?;
        Ok(Self { inner, _stop_watching: Arc::new(stop.drop_guard()) })
    }

    /// Makes and starts a container, and returns once its program runs.
    ///
    /// # Errors
    /// Says what cannot be done; nothing is left behind then.
    ///
    /// # Cancel safety
    /// Dropped, the start goes on, and the container appears in [`Runtime::observe`].
    pub async fn start(&self, plan: ContainerPlan) -> Result<Started, StartError> {
        let inner = Arc::clone(&self.inner);
        let started = self.inner.tasks.spawn_blocking(move || start::start(&inner, plan));
        started.await.unwrap_or_else(|error| Err(StartError::other(error.to_string())))
    }

    /// What this node has, by id.
    pub fn observe(&self) -> Vec<Observed> {
        let table = self.inner.table();
        table.iter().map(|(id, entry)| Observed { id: id.clone(), state: entry.state.clone() }).collect()
    }

    /// Program and arguments of a container; empty = there is none, or its plan cannot be read.
    pub fn argv(&self, id: &str) -> Vec<String> {
        self.inner.table().get(id).map(|entry| entry.argv.clone()).unwrap_or_default()
    }

    /// Ends of containers from now on. A listener that lags must [`observe`](Runtime::observe) again.
    pub fn exits(&self) -> broadcast::Receiver<ExitEvent> {
        self.inner.exits.subscribe()
    }

    /// Sends a signal to the container's first process. One that has ended is no error.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn signal(&self, id: &str, signal: i32) -> Result<(), OperateError> {
        let init = {
            let table = self.inner.table();
            let entry = table.get(id).ok_or_else(|| OperateError::NotFound(id.to_owned()))?;
            if !matches!(entry.state, ContainerState::Running { .. }) {
                return Ok(());
            }
            entry.init
        };
        let io = |source| OperateError::Io { id: id.to_owned(), source };
        match init.open().map_err(io)? {
            Some(pidfd) => sys::send_signal(&pidfd, signal).map_err(io),
            None => Ok(()),
        }
    }

    /// Kills the container's first process and with it, by the kernel, all others.
    ///
    /// # Errors
    /// When there is no such container.
    pub fn kill(&self, id: &str) -> Result<(), OperateError> {
        self.signal(id, libc::SIGKILL)
    }

    /// Removes what is left of a container that has ended: cgroup, files, anonymous volumes, and its logs if asked.
    /// Nothing to remove is no error.
    ///
    /// # Errors
    /// When it still runs, or something cannot be removed.
    pub async fn delete(&self, id: &str, with_logs: bool) -> Result<(), OperateError> {
        let (inner, name) = (Arc::clone(&self.inner), id.to_owned());
        let done = self.inner.tasks.spawn_blocking(move || remove::delete(&inner, &name, with_logs));
        done.await.unwrap_or_else(|e| Err(OperateError::Io { id: id.to_owned(), source: io::Error::other(e) }))
    }

    /// Runs one more process in a container and waits for it. Its output (both streams) is kept up to 4 KiB.
    ///
    /// # Errors
    /// When the process cannot be started.
    ///
    /// # Cancel safety
    /// Dropped, the process is killed.
    pub async fn exec(
        &self,
        id: &str,
        argv: Vec<String>,
        env: Vec<String>,
        user: Option<String>,
        timeout: std::time::Duration,
    ) -> Result<ExecOutcome, ExecError> {
        exec::exec(&self.inner, id, argv, env, user, timeout).await
    }

    /// The output of a container, of an ended one too until its logs are deleted.
    pub fn logs(&self, id: &str, query: LogQuery) -> BoxStream<'static, io::Result<LogLine>> {
        let inner = Arc::clone(&self.inner);
        let path = self.inner.dir(id).join("logs");
        let id = id.to_owned();
        let has_ended = move || !matches!(inner.state_of(&id), Some(ContainerState::Running { .. }));
        logs::stream(path, query, has_ended).boxed()
    }

    /// Containers that mount a named volume.
    pub fn volume_users(&self, name: &str) -> Vec<String> {
        let table = self.inner.table();
        table.iter().filter(|(_, entry)| entry.volumes.iter().any(|v| v == name)).map(|(id, _)| id.clone()).collect()
    }

    /// Stops watching and waits for what is under way. Containers go on.
    pub async fn close(&self) {
        self.inner.stop.cancel();
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Every change is one insert or assignment: a panic leaves nothing half-done.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state_of(&self, id: &str) -> Option<ContainerState> {
        self.table().get(id).map(|entry| entry.state.clone())
    }

    fn dir(&self, id: &str) -> StateDir {
        StateDir(self.config.containers_dir.join(id))
    }

    fn run_dir(&self, id: &str) -> PathBuf {
        self.config.run_dir.join(id)
    }

    fn cgroup(&self, id: &str) -> String {
        format!("{}/{id}", self.config.cgroup_parent.trim_end_matches('/'))
    }

    /// Enters a running container into the table and watches its shim.
    fn watch(self: &Arc<Self>, order: &Order, init: ProcessId, started_at_ns: u64, shim: OwnedFd) {
        let id = order.plan.id.clone();
        let state = ContainerState::Running { pid: init.pid, started_at_ns };
        self.table().insert(id.clone(), Entry::of(Some(&order.plan), state, init));
        let watching = watch::watch(Arc::clone(self), id, shim);
        self.tasks.spawn_on(watching, &self.executor);
    }
}

/// Whether `id` may name a folder and a cgroup.
fn is_good_id(id: &str) -> bool {
    (1..=100).contains(&id.len())
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c))
}
