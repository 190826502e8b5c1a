//! Writing the log: one group after the other, each flushed before the next begins.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::record::{Place, Record, encode};
use super::{Identity, LOG_FOLDER, segment_name};
use crate::crypt::{Keys, Salt};
use crate::disk::{Disk, DiskFile, explain};
use crate::limits::GROUP_BYTES;
use crate::types::{Entry, LogId, Vote};

/// Where the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriterMode {
    /// By a thread of its own, so that a slow disk holds nobody up. For daemons.
    Thread,
    /// Where it is asked for, before the call returns. For the simulator, which has one thread and virtual time.
    Inline,
}

/// What is called once a request is durable, or will never be.
pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// Something to make durable. Order is kept.
pub(super) enum Request {
    Append { entries: Vec<Entry>, done: Done },
    Vote { vote: Vote, done: Done },
    Cut(Option<LogId>),
    Purge(LogId),
}

/// A file of the log.
pub(super) struct Segment {
    pub number: u64,
    pub file: Arc<dyn DiskFile>,
    /// The largest index of any entry ever written to it.
    pub max_index: Option<u64>,
}

/// Where a log ends, and what each new segment begins with.
#[derive(Default)]
pub(super) struct Tail {
    pub segments: VecDeque<Segment>,
    /// The end of the last group in the newest segment.
    pub end: u64,
    pub next_seq: u64,
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
}

/// A group that is durable: where its entries are.
pub(super) struct Written {
    pub file: Arc<dyn DiskFile>,
    pub entries: Vec<(LogId, Place)>,
}

/// The only one who writes the segments.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    keys: Arc<Keys>,
    identity: Identity,
    salt: Salt,
    segment_bytes: u64,
    tail: Tail,
    /// What the newest `Committed` record says.
    committed: Option<LogId>,
    /// Whether the last group is a marker, so that damage to all before it would show.
    marked: bool,
}

impl Writer {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        keys: Arc<Keys>,
        identity: Identity,
        salt: Salt,
        segment_bytes: u64,
    ) -> Self {
        Self { disk, keys, identity, salt, segment_bytes, tail: Tail::default(), committed: None, marked: false }
    }

    /// Goes on after `tail`, or makes the first segment.
    pub(super) fn begin(&mut self, tail: Tail) -> io::Result<()> {
        self.tail = tail;
        self.write_group(&[])?;
        self.marked = true;
        Ok(())
    }

    /// Whether [`Self::mark`] has something to do.
    pub(super) fn needs_marker(&self, committed: Option<LogId>) -> bool {
        !self.marked || committed > self.committed
    }

    /// Puts a marker group behind the last one, which so ceases to be the last.
    pub(super) fn mark(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let record = self.committed_record(committed);
        self.write_group(record.as_slice())?;
        self.marked = true;
        Ok(())
    }

    /// What is worth recording of `committed`.
    fn committed_record(&self, committed: Option<LogId>) -> Option<Record> {
        committed.filter(|id| Some(*id) > self.committed).map(Record::Committed)
    }

    /// Writes requests in order, tells `written` of each durable group, and calls each request's `done`.
    ///
    /// # Errors
    /// The first one ends it: nothing may be written after it. All the callbacks have been called.
    pub(super) fn write(
        &mut self,
        requests: Vec<Request>,
        committed: Option<LogId>,
        mut written: impl FnMut(Written),
    ) -> io::Result<()> {
        let mut requests = requests.into_iter();
        let mut group = Group::default();
        let result = (|| {
            for request in requests.by_ref() {
                let mut flush = |group: &mut Group| -> io::Result<()> {
                    if group.weight < GROUP_BYTES {
                        return Ok(());
                    }
                    written(self.write_group(&group.take())?);
                    group.done.drain(..).for_each(|done| done(Ok(())));
                    Ok(())
                };
                match request {
                    Request::Append { entries, done } => {
                        for entry in entries {
                            group.push(Record::Entry(entry));
                            if let Err(error) = flush(&mut group) {
                                group.done.push(done);
                                return Err(error);
                            }
                        }
                        group.done.push(done);
                    }
                    Request::Vote { vote, done } => {
                        group.push(Record::Vote(vote));
                        group.done.push(done);
                    }
                    Request::Cut(keep) => group.push(Record::Cut(keep)),
                    Request::Purge(id) => group.push(Record::Purge(id)),
                }
            }
            if let Some(record) = self.committed_record(committed).filter(|_| !group.records.is_empty()) {
                group.push(record);
            }
            if !group.records.is_empty() {
                written(self.write_group(&group.take())?);
            }
            self.drop_segments()
        })();
        let outcome = || match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        };
        group.done.into_iter().for_each(|done| done(outcome()));
        for request in requests {
            if let Request::Append { done, .. } | Request::Vote { done, .. } = request {
                done(outcome());
            }
        }
        result
    }

    /// One group: one write, one flush.
    fn write_group(&mut self, records: &[Record]) -> io::Result<Written> {
        let seq = self.tail.next_seq;
        let (mut bytes, mut places) = encode(&self.keys, &self.salt, seq, records);
        let fits = |bytes: &[u8]| self.tail.end + bytes.len() as u64 <= self.segment_bytes;
        let new = match self.tail.segments.back() {
            Some(_) if fits(&bytes) => None,
            newest => Some(newest.map_or(1, |segment| segment.number + 1)),
        };
        if let Some(number) = new {
            let mut all = self.segment_start();
            all.extend_from_slice(records);
            (bytes, places) = encode(&self.keys, &self.salt, seq, &all);
            self.new_segment(number, bytes.len() as u64)?;
        }

        let end = self.tail.end;
        let segment = self.tail.segments.back_mut().expect("a segment was made if there was none");
        let name = segment_name(segment.number);
        let done = segment.file.write_at(end, &bytes).and_then(|()| segment.file.sync());
        done.map_err(|error| explain(self.disk.as_ref(), &name, &error))?;
        if new.is_some() {
            // Before its name is durable, nothing in it counts.
            let synced = self.disk.sync_folder(LOG_FOLDER);
            synced.map_err(|error| explain(self.disk.as_ref(), LOG_FOLDER, &error))?;
        }

        let ids = records
            .iter()
            .filter_map(|record| if let Record::Entry(entry) = record { Some(entry.log_id) } else { None });
        let in_file = |place: Place| Place { offset: place.offset + end, ..place };
        let entries: Vec<(LogId, Place)> = ids.zip(places.into_iter().map(in_file)).collect();
        segment.max_index = entries.iter().map(|(id, _)| id.index).chain(segment.max_index).max();
        let file = Arc::clone(&segment.file);
        self.tail.end = end + bytes.len() as u64;
        self.tail.next_seq = seq + 1;
        self.marked = false;
        records.iter().for_each(|record| self.note(record));
        Ok(Written { file, entries })
    }

    /// The records that make the segments before superfluous, but for their entries.
    fn segment_start(&self) -> Vec<Record> {
        let Identity { cluster, member } = self.identity;
        let mut records = vec![Record::Start { cluster, member, last: self.tail.last }];
        records.extend(self.tail.vote.map(Record::Vote));
        records.extend(self.tail.purged.map(Record::Purge));
        records.extend(self.committed.map(Record::Committed));
        records
    }

    fn new_segment(&mut self, number: u64, bytes: u64) -> io::Result<()> {
        let name = segment_name(number);
        let file = self.disk.create(&name).and_then(|file| {
            file.allocate(self.segment_bytes.max(bytes))?;
            Ok(file)
        });
        let file = file.map_err(|error| explain(self.disk.as_ref(), &name, &error))?;
        self.tail.segments.push_back(Segment { number, file, max_index: None });
        self.tail.end = 0;
        Ok(())
    }

    /// Keeps in mind what the next segment must begin with.
    fn note(&mut self, record: &Record) {
        match record {
            Record::Entry(entry) => self.tail.last = Some(entry.log_id),
            Record::Vote(vote) => self.tail.vote = Some(*vote),
            Record::Cut(keep) => self.tail.last = *keep,
            Record::Purge(id) => {
                self.tail.purged = Some(*id);
                if self.tail.last.is_none_or(|last| last.index <= id.index) {
                    self.tail.last = Some(*id);
                }
            }
            Record::Committed(id) => self.committed = Some(*id),
            Record::Start { .. } => {}
        }
    }

    /// Removes the oldest segments that hold only purged entries, one durably gone before the next, so that a crash
    /// leaves no gap.
    fn drop_segments(&mut self) -> io::Result<()> {
        let Some(purged) = self.tail.purged else { return Ok(()) };
        while self.tail.segments.len() > 1 {
            let oldest = &self.tail.segments[0];
            if oldest.max_index.is_some_and(|index| index > purged.index) {
                break;
            }
            let name = segment_name(oldest.number);
            let removed = self.disk.remove(&name).and_then(|()| self.disk.sync_folder(LOG_FOLDER));
            removed.map_err(|error| explain(self.disk.as_ref(), &name, &error))?;
            self.tail.segments.pop_front();
        }
        Ok(())
    }
}

/// Records that will be written together.
#[derive(Default)]
struct Group {
    records: Vec<Record>,
    weight: usize,
    done: Vec<Done>,
}

impl Group {
    fn push(&mut self, record: Record) {
        self.weight += record.weight();
        self.records.push(record);
    }

    fn take(&mut self) -> Vec<Record> {
        self.weight = 0;
        std::mem::take(&mut self.records)
    }
}
