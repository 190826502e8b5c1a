//! Between the engine and the [`StateMachine`].

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{AsyncRuntime, EntryPayload, OptionalSend, RaftSnapshotBuilder};

use crate::log::WriterMode;
use crate::machine::{Halt, SnapshotSource, StateMachine};
use crate::snapshot::{SnapshotFile, SnapshotStore};
use crate::types::{Answer, Committed, Entry, LogId, SnapshotMeta, StoredMembership, TypeConfig, membership, position};

/// A snapshot on its way through the engine.
pub(crate) enum SnapshotData {
    /// The one that counts.
    Kept(Arc<SnapshotFile>),
    /// One that just arrived, and counts once it is installed.
    Fresh(Box<SnapshotFile>),
}

pub(crate) type EngineSnapshot = Snapshot<Committed, u64, openraft::BasicNode, SnapshotData>;

/// Why the state machine ended, if it did.
pub(crate) type Halted = Arc<Mutex<Option<String>>>;

/// Applies entries in order, takes and installs snapshots.
pub(crate) struct Applier {
    machine: Mutex<Box<dyn StateMachine>>,
    applied: Option<LogId>,
    membership: StoredMembership,
    snapshots: Arc<SnapshotStore>,
    mode: WriterMode,
    halted: Halted,
}

impl Applier {
    pub fn new(machine: Box<dyn StateMachine>, snapshots: Arc<SnapshotStore>, mode: WriterMode) -> Self {
        Self {
            machine: Mutex::new(machine),
            applied: None,
            membership: StoredMembership::default(),
            snapshots,
            mode,
            halted: Halted::default(),
        }
    }

    /// Where the reason appears if the state machine ends.
    pub fn halted(&self) -> Halted {
        Arc::clone(&self.halted)
    }

    fn machine(&self) -> MutexGuard<'_, Box<dyn StateMachine>> {
        // After a panic the member halts, so that a half-changed state is never used.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies one entry; what its proposer is told.
    fn apply_entry(&mut self, entry: &Entry) -> io::Result<Bytes> {
        let at = position(&entry.log_id);
        let answer = self.guarded(at, |machine| match &entry.payload {
            EntryPayload::Blank => {
                machine.applied_blank(at);
                Ok(Bytes::new())
            }
            EntryPayload::Normal(command) => machine.apply(at, &command.0),
            EntryPayload::Membership(changed) => {
                machine.applied_membership(at, &membership(changed));
                Ok(Bytes::new())
            }
        })?;
        if let EntryPayload::Membership(changed) = &entry.payload {
            self.membership = StoredMembership::new(Some(entry.log_id), changed.clone());
        }
        self.applied = Some(entry.log_id);
        Ok(answer)
    }

    /// Runs the state machine; its end is the end of this member.
    fn guarded<T>(
        &self,
        at: crate::member::LogPosition,
        run: impl FnOnce(&mut dyn StateMachine) -> Result<T, Halt>,
    ) -> io::Result<T> {
        let mut machine = self.machine();
        let halt = match catch_unwind(AssertUnwindSafe(|| run(machine.as_mut()))) {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(Halt(reason))) => reason,
            Err(panic) => match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
                (Some(text), _) => format!("it panicked: {text}"),
                (_, Some(text)) => format!("it panicked: {text}"),
                _ => "it panicked".to_owned(),
            },
        };
        let text = format!("the entry {at} cannot be applied: {halt}");
        tracing::error!(reason = %text, "the replicated state is impossible, this member stops");
        self.halted.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| text.clone());
        Err(io::Error::other(text))
    }
}

impl<R: AsyncRuntime> RaftStateMachine<TypeConfig<R>> for Applier {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig<R>>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let answer = self.apply_entry(&entry)?;
            if let Some(responder) = responder {
                responder.send(Answer(answer));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            meta: SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() },
            source: Mutex::new(Some(self.machine().snapshot())),
            snapshots: Arc::clone(&self.snapshots),
            mode: self.mode,
        }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: SnapshotData) -> io::Result<()> {
        let current = self.snapshots.current();
        let file = match snapshot {
            SnapshotData::Fresh(file) => self.snapshots.adopt(*file)?,
            SnapshotData::Kept(file) if current.is_some_and(|current| Arc::ptr_eq(&current, &file)) => file,
            SnapshotData::Kept(file) => self.snapshots.build(meta.clone(), Box::new(Copy(file)))?,
        };
        let at = meta.last_log_id.as_ref().map(position).unwrap_or_default();
        let members = membership(meta.last_membership.membership());
        let restore = |machine: &mut dyn StateMachine| {
            let restored = machine.restore(at, &members, &mut file.reader());
            restored.map_err(|error| Halt(format!("the snapshot {} cannot be restored: {error}", file.name())))
        };
        self.guarded(at, restore)?;
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<EngineSnapshot>> {
        Ok(self.snapshots.current().map(in_engine))
    }
}

fn in_engine(file: Arc<SnapshotFile>) -> EngineSnapshot {
    Snapshot { meta: file.meta.clone(), snapshot: SnapshotData::Kept(file) }
}

/// A snapshot file as the source of another one.
struct Copy(Arc<SnapshotFile>);

impl SnapshotSource for Copy {
    fn write(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        io::copy(&mut self.0.reader(), out).map(drop)
    }
}

/// A view of the state, about to be written.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    source: Mutex<Option<Box<dyn SnapshotSource>>>,
    snapshots: Arc<SnapshotStore>,
    mode: WriterMode,
}

impl<R: AsyncRuntime> RaftSnapshotBuilder<TypeConfig<R>> for Builder {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> io::Result<EngineSnapshot> {
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner).take();
        let source = source.ok_or_else(|| io::Error::other("this view was written already"))?;
        let (snapshots, meta) = (Arc::clone(&self.snapshots), self.meta.clone());
        let file = blocking::<R, _>(self.mode, move || snapshots.build(meta, source)).await??;
        Ok(in_engine(file))
    }
}

/// Runs what may wait for the disk: on a thread for such work, or in the simulator, where it never waits, in place.
pub(crate) async fn blocking<R: AsyncRuntime, T: Send + 'static>(
    mode: WriterMode,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    match mode {
        WriterMode::Thread => R::spawn_blocking(work).await,
        WriterMode::Inline => Ok(work()),
    }
}
