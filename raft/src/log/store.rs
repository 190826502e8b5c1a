//! The log as the engine uses it.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures::channel::oneshot;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{AsyncRuntime, OptionalSend, RaftLogReader};

use super::index::{Found, Index};
use super::recover::Opened;
use super::writer::{Done, Request, Writer, WriterMode, Written};
use crate::crypt::Keys;
use crate::limits::{APPEND_BYTES, MARKER_IDLE_MS};
use crate::types::{Entry, LogId, TypeConfig, Vote};

/// A handle to the log. The writer ends with the last one.
#[derive(Clone)]
pub(crate) struct LogStore {
    shared: Arc<Shared>,
    _closes: Arc<CloseOnDrop>,
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Shared {
    keys: Arc<Keys>,
    index: Mutex<Index>,
    queue: Mutex<Queue>,
    queued: Condvar,
    /// The writer, where there is no thread that owns it.
    inline: Option<Mutex<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    failure: Mutex<Failure>,
}

#[derive(Default)]
struct Queue {
    requests: Vec<Request>,
    /// Set under the same lock as requests are added, so that it never names an entry of a later group.
    committed: Option<LogId>,
    closed: bool,
}

/// The first write that failed. There is none after it.
#[derive(Default)]
struct Failure {
    text: Option<(io::ErrorKind, String)>,
    told: Option<oneshot::Sender<()>>,
}

/// Nothing here panics while it holds a lock, but for the panics of the standard library.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LogStore {
    /// Takes over an opened log.
    pub fn start(opened: Opened, mode: WriterMode) -> io::Result<Self> {
        let Opened { writer, index, keys } = opened;
        let queue = Queue { committed: index.committed, ..Queue::default() };
        let mut writer = Some(writer);
        let shared = Arc::new(Shared {
            keys,
            index: Mutex::new(index),
            queue: Mutex::new(queue),
            queued: Condvar::new(),
            inline: if mode == WriterMode::Inline { writer.take().map(Mutex::new) } else { None },
            thread: Mutex::default(),
            failure: Mutex::default(),
        });
        if let Some(writer) = writer {
            let owned = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name("raft-log".to_owned()).spawn(move || owned.run(writer))?;
            *lock(&shared.thread) = Some(thread);
        }
        let closes = Arc::new(CloseOnDrop(Arc::clone(&shared)));
        Ok(Self { shared, _closes: closes })
    }

    /// The error that ended writing, with the file's path.
    pub fn failure(&self) -> Option<String> {
        lock(&self.shared.failure).text.as_ref().map(|(_, text)| text.clone())
    }

    /// Resolves at the first failure; to an error if the log is closed without one.
    pub fn failed(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut failure = lock(&self.shared.failure);
        if failure.text.is_none() {
            failure.told = Some(sender);
        } else {
            // The receiver is right here.
            let _ = sender.send(());
        }
        receiver
    }

    /// Writes the marker group, if one is due: for the inline mode, which has no clock.
    pub fn mark(&self) {
        if let Some(writer) = &self.shared.inline {
            let committed = lock(&self.shared.queue).committed;
            self.shared.mark(&mut lock(writer), committed);
        }
    }

    /// Ends writing once all that was asked for is done.
    pub fn close(&self) {
        self.shared.close();
        let thread = lock(&self.shared.thread).take();
        if let Some(thread) = thread {
            // It reports its own panic as a failure.
            let _ = thread.join();
        }
        lock(&self.shared.failure).told = None;
    }
}

impl Shared {
    fn close(&self) {
        lock(&self.queue).closed = true;
        self.queued.notify_all();
    }

    fn check(&self) -> io::Result<()> {
        match &lock(&self.failure).text {
            Some((kind, text)) => Err(io::Error::new(*kind, text.clone())),
            None => Ok(()),
        }
    }

    fn fail(&self, error: &io::Error) {
        tracing::error!(error = %error, "writing the raft log failed, this member stops");
        let mut failure = lock(&self.failure);
        failure.text.get_or_insert_with(|| (error.kind(), error.to_string()));
        if let Some(told) = failure.told.take() {
            // Nobody listens during shutdown.
            let _ = told.send(());
        }
    }

    /// Queues a request, or in the inline mode performs it. Its callback is called in any case.
    fn submit(&self, request: Request) -> io::Result<()> {
        if let Some(writer) = &self.inline {
            let committed = lock(&self.queue).committed;
            self.write(&mut lock(writer), vec![request], committed);
            return self.check();
        }
        self.check()?;
        let mut queue = lock(&self.queue);
        if queue.closed {
            return Err(io::Error::other("the raft log is closed"));
        }
        queue.requests.push(request);
        drop(queue);
        self.queued.notify_one();
        Ok(())
    }

    fn write(&self, writer: &mut Writer, requests: Vec<Request>, committed: Option<LogId>) {
        let written = |written: Written| {
            let mut index = lock(&self.index);
            for (id, place) in written.entries {
                index.set_place(&id, &written.file, place);
            }
            index.shrink();
        };
        let result = match self.check() {
            Ok(()) => writer.write(requests, committed, written),
            Err(error) => {
                for request in requests {
                    if let Request::Append { done, .. } | Request::Vote { done, .. } = request {
                        done(Err(io::Error::new(error.kind(), error.to_string())));
                    }
                }
                return;
            }
        };
        if let Err(error) = result {
            self.fail(&error);
        }
    }

    fn mark(&self, writer: &mut Writer, committed: Option<LogId>) {
        if self.check().is_err() || !writer.needs_marker(committed) {
            return;
        }
        if let Err(error) = writer.mark(committed) {
            self.fail(&error);
        }
    }

    /// The writer thread: takes whatever waits, writes it together.
    fn run(&self, mut writer: Writer) {
        let body = std::panic::AssertUnwindSafe(|| self.run_until_closed(&mut writer));
        if std::panic::catch_unwind(body).is_err() {
            self.fail(&io::Error::other("the raft log's writer panicked"));
            // Callbacks that are dropped here end their waiting.
            lock(&self.queue).requests.clear();
        }
    }

    fn run_until_closed(&self, writer: &mut Writer) {
        let idle = Duration::from_millis(MARKER_IDLE_MS);
        let mut queue = lock(&self.queue);
        loop {
            let mut waited = false;
            while queue.requests.is_empty() && !queue.closed {
                if self.check().is_ok() && writer.needs_marker(queue.committed) {
                    let (guard, timeout) =
                        self.queued.wait_timeout(queue, idle).unwrap_or_else(PoisonError::into_inner);
                    queue = guard;
                    if timeout.timed_out() {
                        waited = true;
                        break;
                    }
                } else {
                    queue = self.queued.wait(queue).unwrap_or_else(PoisonError::into_inner);
                }
            }
            let requests = std::mem::take(&mut queue.requests);
            let (committed, closed) = (queue.committed, queue.closed);
            drop(queue);
            if !requests.is_empty() {
                self.write(writer, requests, committed);
            } else if closed || waited {
                self.mark(writer, committed);
            }
            queue = lock(&self.queue);
            if closed && queue.requests.is_empty() {
                return;
            }
        }
    }

    fn load(&self, found: Vec<Found>) -> io::Result<Vec<Entry>> {
        found.into_iter().map(|found| found.load(&self.keys)).collect()
    }
}

impl<R: AsyncRuntime> RaftLogReader<TypeConfig<R>> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<Entry>> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let found = lock(&self.shared.index).find(start, end);
        self.shared.load(found)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(lock(&self.shared.index).vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        let found = lock(&self.shared.index).find_within(start, end, APPEND_BYTES);
        self.shared.load(found)
    }
}

impl<R: AsyncRuntime> RaftLogStorage<TypeConfig<R>> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig<R>>> {
        let index = lock(&self.shared.index);
        Ok(LogState { last_purged_log_id: index.purged, last_log_id: index.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        lock(&self.shared.index).vote = Some(*vote);
        let done: Done = Box::new(move |result| {
            // The engine may have stopped waiting.
            let _ = sender.send(result);
        });
        self.shared.submit(Request::Vote { vote: *vote, done })?;
        receiver.await.unwrap_or_else(|_| Err(io::Error::other("the raft log's writer is gone")))
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        lock(&self.shared.index).committed = committed;
        lock(&self.shared.queue).committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(lock(&self.shared.index).committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut index = lock(&self.shared.index);
            entries.iter().try_for_each(|entry| index.append(entry.clone()))?;
        }
        self.shared.submit(Request::Append { entries, done: Box::new(|result| callback.io_completed(result)) })
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let kept = {
            let mut index = lock(&self.shared.index);
            index.cut(last_log_id.as_ref());
            index.last()
        };
        self.shared.submit(Request::Cut(kept))
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        lock(&self.shared.index).purge(log_id);
        self.shared.submit(Request::Purge(log_id))
    }
}
