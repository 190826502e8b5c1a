//! One running member.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::error::{ClientWriteError, Fatal, ForwardToLeader, InitializeError, LinearizableReadError, RaftError};
use openraft::type_config::alias::{InstantOf, JoinHandleOf};
use openraft::{AsyncRuntime, BasicNode, ReadPolicy};
use tokio::sync::Semaphore;

use crate::TokioRuntime;
use crate::applier::{Applier, Halted, blocking};
use crate::config::{Config, ConfigError};
use crate::limits::{COMMAND_BYTES, MARKER_IDLE_MS, PROPOSALS, SNAPSHOT_RETRY_MS};
use crate::log::{self, LogError, LogStore, WriterMode};
use crate::machine::StateMachine;
use crate::member::{LogPosition, MemberId};
use crate::network::Network;
use crate::snapshot::{Receiver, SnapshotError, SnapshotStore};
use crate::status::{Role, Status};
use crate::transport::Transport;
use crate::types::{Command, TypeConfig, position};

/// A member of a cluster. Clones are handles to the same one.
///
/// `R` is the runtime: tokio, or [`crate::SimRuntime`] for runs that a seed repeats.
pub struct Raft<R: AsyncRuntime = TokioRuntime> {
    pub(crate) inner: Arc<Inner<R>>,
}

impl<R: AsyncRuntime> Clone for Raft<R> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

/// A member that comes up; behind generics, callers could not see that it may move between threads.
pub type Starting<T> = Pin<Box<dyn Future<Output = Result<T, StartError>> + Send>>;

pub(crate) type Engine<R> = openraft::Raft<TypeConfig<R>, Applier>;

pub(crate) struct Inner<R: AsyncRuntime> {
    pub config: Arc<Config>,
    pub engine: Engine<R>,
    pub receiver: Arc<Mutex<Receiver>>,
    log: LogStore,
    halted: Halted,
    proposals: Semaphore,
    /// When the leader was last heard.
    heard: Mutex<Option<InstantOf<TypeConfig<R>>>>,
    /// The last installation of a snapshot.
    pub installation: Mutex<Option<JoinHandleOf<TypeConfig<R>, ()>>>,
    /// Ends the engine when writing fails; and in the inline mode keeps the marker groups coming.
    tasks: Mutex<Vec<JoinHandleOf<TypeConfig<R>, ()>>>,
}

/// Why a member cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log cannot be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The snapshots cannot be opened.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// What was stored cannot be used.
    #[error("cannot start the raft member: {0}")]
    Engine(String),
}

/// Why a cluster cannot begin here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootstrapError {
    /// The folder is in use.
    #[error("this member is part of a cluster already")]
    InUse,
    /// The member has stopped; the reason.
    #[error("the raft member has stopped: {0}")]
    Stopped(String),
}

/// A command that is committed and applied here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// Its place in the log.
    pub at: LogPosition,
    /// What the state machine returned.
    pub answer: Bytes,
}

/// Why a command was not applied, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This member does not lead, or has no majority just now: the command was not accepted, and never will be.
    /// Try again, with the leader if there is one; a fresh leader may refuse for some milliseconds.
    #[error("this member does not lead{}", named(.leader.as_ref()))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<(MemberId, String)>,
    },
    /// The command may or may not be applied, now or later: only a retry that the state machine recognises is safe.
    #[error("the outcome is unknown: {reason}")]
    Uncertain {
        /// What happened.
        reason: String,
    },
    /// The command is too long, and was not accepted.
    #[error("the command has {bytes} bytes, allowed: {limit}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The longest allowed.
        limit: usize,
    },
    /// The member has stopped, and did not accept the command.
    #[error("the raft member has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a read cannot be linearizable here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This member does not lead.
    #[error("this member does not lead{}", named(.leader.as_ref()))]
    NotLeader {
        /// Who leads, if known.
        leader: Option<(MemberId, String)>,
    },
    /// No majority confirmed that this member still leads.
    #[error("no majority of the managers answers")]
    NoQuorum,
    /// The entry was not applied in time.
    #[error("entry {index} was not applied within {within:?}")]
    Late {
        /// What was waited for.
        index: u64,
        /// How long.
        within: Duration,
    },
    /// The member has stopped; the reason.
    #[error("the raft member has stopped: {0}")]
    Stopped(String),
}

fn named(leader: Option<&(MemberId, String)>) -> String {
    leader.map_or_else(String::new, |(id, address)| format!(", member {id} at {address} does"))
}

/// The leader that the engine points to.
pub(crate) fn leader<R: AsyncRuntime>(forward: ForwardToLeader<TypeConfig<R>>) -> Option<(MemberId, String)> {
    forward.leader_id.map(|id| (MemberId(id), forward.leader_node.map(|node| node.addr).unwrap_or_default()))
}

impl<R: AsyncRuntime> Raft<R> {
    /// Opens the folder, recovers what is there, and runs. An empty folder waits to be bootstrapped, or added by a leader.
    ///
    /// Runs on the runtime `R`; with [`crate::SimRuntime`], inside a seed's scope.
    ///
    /// # Errors
    /// When a setting is refused, or what is stored cannot be trusted.
    pub fn start(config: Config, transport: Arc<dyn Transport>, machine: impl StateMachine) -> Starting<Self> {
        Box::pin(Self::start_boxed(config, transport, Box::new(machine)))
    }

    pub(crate) async fn start_boxed(
        config: Config,
        transport: Arc<dyn Transport>,
        machine: Box<dyn StateMachine>,
    ) -> Result<Self, StartError> {
        let settings = config.engine()?;
        let (disk, mode) = (Arc::clone(&config.disk), config.writer);
        let identity = config.identity();
        let opened = blocking::<R, _>(mode, move || {
            let opened = log::open(&disk, identity)?;
            let snapshots = SnapshotStore::open(&disk, Arc::clone(&opened.keys))?;
            snapshots.check_reaches(opened.index.purged.as_ref().map(position))?;
            Ok::<_, StartError>((opened, Arc::new(snapshots)))
        });
        let (opened, snapshots) = opened.await.map_err(|error| StartError::Log(LogError::Io(error)))??;
        let log = LogStore::start(opened, mode).map_err(|error| StartError::Log(LogError::Io(error)))?;

        let config = Arc::new(config);
        let applier = Applier::new(machine, Arc::clone(&snapshots), mode);
        let halted = applier.halted();
        let network = Network { config: Arc::clone(&config), transport };
        let engine = Engine::<R>::new(config.member.0, settings, network, log.clone(), applier).await;
        let engine = engine.map_err(|error| StartError::Engine(reason(&halted, &log, &error)))?;

        let failed = log.failed();
        let stops = engine.clone();
        let mut tasks = vec![R::spawn(async move {
            if failed.await.is_ok() {
                // Without its disk it must neither vote nor acknowledge; its peers elect another leader.
                let _ = stops.shutdown().await;
            }
        })];
        if mode == WriterMode::Inline {
            let (marks, engine) = (log.clone(), engine.clone());
            tasks.push(R::spawn(async move {
                while engine.metrics().borrow_watched().running_state.is_ok() {
                    R::sleep(Duration::from_millis(MARKER_IDLE_MS)).await;
                    marks.mark();
                }
            }));
        }
        let inner = Inner {
            config,
            engine,
            receiver: Arc::new(Mutex::new(Receiver::new(snapshots))),
            log,
            halted,
            proposals: Semaphore::new(PROPOSALS),
            heard: Mutex::new(None),
            installation: Mutex::new(None),
            tasks: Mutex::new(tasks),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// This member.
    pub fn member(&self) -> MemberId {
        self.inner.config.member
    }

    /// Begins a cluster of this one member, reached at `address`.
    ///
    /// # Errors
    /// When there is a cluster here already, or the member has stopped.
    pub async fn bootstrap(&self, address: String) -> Result<(), BootstrapError> {
        let members = BTreeMap::from([(self.inner.config.member.0, BasicNode { addr: address })]);
        match self.inner.engine.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(InitializeError::NotAllowed(_) | InitializeError::NotInMembers(_))) => {
                Err(BootstrapError::InUse)
            }
            Err(RaftError::Fatal(fatal)) => Err(BootstrapError::Stopped(self.reason(&fatal))),
        }
    }

    /// Proposes a command, and waits until it is committed and applied here.
    ///
    /// # Errors
    /// See [`ProposeError`]; all but `Uncertain` mean that the command has no effect.
    ///
    /// # Cancel safety
    /// A call that is dropped has an unknown outcome.
    pub async fn propose(&self, command: Bytes) -> Result<Proposed, ProposeError> {
        if command.len() > COMMAND_BYTES {
            return Err(ProposeError::TooLarge { bytes: command.len(), limit: COMMAND_BYTES });
        }
        let permit = self.inner.proposals.acquire().await;
        let _permit = permit.map_err(|_| ProposeError::Stopped { reason: "it was shut down".to_owned() })?;
        if let Some(reason) = self.stopped() {
            return Err(ProposeError::Stopped { reason });
        }
        match self.inner.engine.client_write(Command(command)).await {
            Ok(done) => Ok(Proposed { at: position(&done.log_id), answer: done.data.0 }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                Err(ProposeError::NotLeader { leader: leader(forward) })
            }
            Err(RaftError::APIError(error)) => Err(ProposeError::Uncertain { reason: error.to_string() }),
            Err(RaftError::Fatal(fatal)) => Err(ProposeError::Uncertain { reason: self.reason(&fatal) }),
        }
    }

    /// Confirms with a majority that this member leads (ReadIndex), and returns the entry whose state a linearizable
    /// read must see at least. Any member may serve the read once it has applied that entry: [`Self::wait_applied`].
    ///
    /// # Errors
    /// When this member does not lead, or cannot confirm it.
    pub async fn read_index(&self) -> Result<LogPosition, ReadError> {
        match self.inner.engine.get_read_linearizer(ReadPolicy::ReadIndex).await {
            Ok(linearizer) => Ok(position(linearizer.read_log_id().log_id())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Err(ReadError::NotLeader { leader: leader(forward) })
            }
            Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_))) => Err(ReadError::NoQuorum),
            Err(RaftError::Fatal(fatal)) => Err(ReadError::Stopped(self.reason(&fatal))),
        }
    }

    /// Waits until the entry at `index` is applied here.
    ///
    /// # Errors
    /// When it is not within `within`, or the member stops.
    pub async fn wait_applied(&self, index: u64, within: Duration) -> Result<(), ReadError> {
        let mut watch = self.watch();
        let applied = watch.until(|status| status.applied.is_some_and(|applied| applied.index >= index));
        match R::timeout(within, applied).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(ReadError::Stopped(self.stopped().unwrap_or_default())),
            Err(_) => Err(ReadError::Late { index, within }),
        }
    }

    /// Takes a snapshot of all that is applied, and waits until it is durable.
    ///
    /// # Errors
    /// When nothing is applied yet, it takes longer than `within`, or the member stops.
    pub async fn snapshot_now(&self, within: Duration) -> Result<LogPosition, ReadError> {
        let index = self.status().applied.map_or(0, |applied| applied.index);
        let reached = |status: &Status| status.snapshot.filter(|snapshot| snapshot.index >= index);
        let taking = async {
            loop {
                // Ignored while another one is being taken, which may lack the last entries: so ask again.
                if let Err(fatal) = self.inner.engine.trigger().snapshot().await {
                    return Err(ReadError::Stopped(self.reason(&fatal)));
                }
                let mut watch = self.watch();
                let pause = Duration::from_millis(SNAPSHOT_RETRY_MS);
                match R::timeout(pause, watch.until(|status| reached(status).is_some())).await {
                    Ok(Some(status)) => return reached(&status).ok_or(ReadError::Late { index, within }),
                    Ok(None) => return Err(ReadError::Stopped(self.stopped().unwrap_or_default())),
                    Err(_) => {}
                }
            }
        };
        R::timeout(within, taking).await.unwrap_or(Err(ReadError::Late { index, within }))
    }

    /// Stops the member: no more votes, no more acknowledgements, and what was asked to be written is durable.
    pub async fn shutdown(&self) {
        self.inner.proposals.close();
        // An engine that panicked has stopped too.
        let _ = self.inner.engine.shutdown().await;
        let log = self.inner.log.clone();
        if let Err(error) = blocking::<R, _>(self.inner.config.writer, move || log.close()).await {
            tracing::warn!(error = %error, "the raft log's writer did not end in order");
        }
        let mut tasks = std::mem::take(&mut *lock(&self.inner.tasks));
        tasks.extend(lock(&self.inner.installation).take());
        for task in tasks {
            // They end with the engine and the log.
            let _ = task.await;
        }
    }

    /// Why it has stopped, if it has.
    pub(crate) fn stopped(&self) -> Option<String> {
        let status = self.status();
        let reason = || status.fatal.clone().unwrap_or_else(|| "it was shut down".to_owned());
        (status.role == Role::Stopped).then(reason)
    }

    /// The reason behind an end of the engine.
    pub(crate) fn reason(&self, fatal: &Fatal<TypeConfig<R>>) -> String {
        reason(&self.inner.halted, &self.inner.log, fatal)
    }

    /// Why it has failed for good; a shutdown is no failure.
    pub(crate) fn fatal(&self, ended: Option<&Fatal<TypeConfig<R>>>) -> Option<String> {
        let known = failure(&self.inner.halted, &self.inner.log);
        known.or_else(|| ended.filter(|fatal| !matches!(fatal, Fatal::Stopped)).map(ToString::to_string))
    }

    /// Notes that the leader spoke.
    pub(crate) fn heard_leader(&self) {
        let now = <InstantOf<TypeConfig<R>> as openraft::Instant>::now();
        *lock(&self.inner.heard) = Some(now);
    }

    pub(crate) fn last_heard(&self) -> Option<InstantOf<TypeConfig<R>>> {
        *lock(&self.inner.heard)
    }
}

/// What is locked here stays whole even if somebody panics.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What went wrong in the state machine or the log: they know more than the engine.
fn failure(halted: &Halted, log: &LogStore) -> Option<String> {
    log.failure().or_else(|| lock(halted).clone())
}

fn reason<R: AsyncRuntime>(halted: &Halted, log: &LogStore, fatal: &Fatal<TypeConfig<R>>) -> String {
    failure(halted, log).unwrap_or_else(|| fatal.to_string())
}
