//! Opening a log: what is whole is read, a torn end is cut, damage anywhere else is refused.
//!
//! A bad group followed by a whole one with a later number had been flushed, so it may have been acknowledged: refuse.
//! A bad group that nothing follows is a write that was under way when the process or the power went: cut. Behind the
//! cut only zeros are left, or an older, longer group could one day look like a later one.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::index::Index;
use super::record::{ALIGNMENT, Record, parse};
use super::writer::{Segment, Tail, Writer};
use super::{Identity, LOG_FOLDER, LogError, segment_name, segment_number};
use crate::crypt::{KEYS_FILE, Keys, new_salt};
use crate::disk::{self, Disk, explain};
use crate::limits::{CACHE_BYTES, SEGMENT_BYTES};
use crate::types::LogId;

/// A log that is ready to be written.
pub(crate) struct Opened {
    pub writer: Writer,
    pub index: Index,
    pub keys: Arc<Keys>,
}

/// Opens the log of `identity`, or begins one in an empty folder.
pub(crate) fn open(disk: &Arc<dyn Disk>, identity: Identity) -> Result<Opened, LogError> {
    open_with(disk, identity, Sizes { segment_bytes: SEGMENT_BYTES, cache_bytes: CACHE_BYTES })
}

/// How large a log's parts become.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub segment_bytes: u64,
    pub cache_bytes: usize,
}

/// As [`open`], with other sizes.
pub(super) fn open_with(disk: &Arc<dyn Disk>, identity: Identity, sizes: Sizes) -> Result<Opened, LogError> {
    let fail = |name: &str, error: &io::Error| LogError::Io(explain(disk.as_ref(), name, error));
    disk.create_folder(LOG_FOLDER).map_err(|error| fail(LOG_FOLDER, &error))?;
    let names = disk.list(LOG_FOLDER).map_err(|error| fail(LOG_FOLDER, &error))?;
    let numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    match Keys::load(disk.as_ref())? {
        Some(keys) => Recovery::new(disk, identity, Arc::new(keys), sizes).run(&numbers),
        None => begin(disk, identity, &numbers, sizes),
    }
}

/// Begins a log. The keys are stored last: a folder without them has never been used.
fn begin(disk: &Arc<dyn Disk>, identity: Identity, leftovers: &[u64], sizes: Sizes) -> Result<Opened, LogError> {
    for number in leftovers {
        let name = segment_name(*number);
        let fail = |error: &io::Error| LogError::Io(explain(disk.as_ref(), &name, error));
        let data = disk.open(&name).and_then(|file| disk::read(file.as_ref())).map_err(|error| fail(&error))?;
        // An interrupted first start leaves one group; more means that the keys were lost, and with them the log.
        let first = parse(&data).map_or(0, |group| group.bytes());
        if *number != 1 || parse(data.get(first..).unwrap_or_default()).is_some() {
            let reason = format!("{} is missing, so nothing in the log can be read", disk.describe(KEYS_FILE));
            return Err(LogError::Damaged { path: disk.describe(&name), offset: 0, reason });
        }
        disk.remove(&name).map_err(|error| fail(&error))?;
    }
    let io = LogError::Io;
    let keys = Arc::new(Keys::generate().map_err(io)?);
    let mut writer =
        Writer::new(Arc::clone(disk), Arc::clone(&keys), identity, new_salt().map_err(io)?, sizes.segment_bytes);
    writer.begin(Tail::default()).map_err(io)?;
    keys.store(disk.as_ref())?;
    Ok(Opened { writer, index: Index::new(sizes.cache_bytes), keys })
}

struct Recovery<'a> {
    disk: &'a Arc<dyn Disk>,
    identity: Identity,
    keys: Arc<Keys>,
    sizes: Sizes,
    index: Index,
    segments: VecDeque<Segment>,
    /// The number that the next group must have; `None` before the first.
    next_seq: Option<u64>,
    /// The last entry before the oldest segment.
    before: Option<LogId>,
    /// The end of the whole groups in the newest segment, and the last of them.
    end: u64,
    last_group: Vec<u8>,
}

/// One segment as read: its whole groups end at `end`; behind them there is nothing but zeros if `clean`.
struct Scan {
    end: usize,
    clean: bool,
    last_group: Vec<u8>,
}

impl<'a> Recovery<'a> {
    fn new(disk: &'a Arc<dyn Disk>, identity: Identity, keys: Arc<Keys>, sizes: Sizes) -> Self {
        Self {
            disk,
            identity,
            keys,
            sizes,
            index: Index::new(sizes.cache_bytes),
            segments: VecDeque::new(),
            next_seq: None,
            before: None,
            end: 0,
            last_group: Vec::new(),
        }
    }

    fn damaged(&self, number: u64, offset: usize, reason: impl Into<String>) -> LogError {
        let path = self.disk.describe(&segment_name(number));
        LogError::Damaged { path, offset: offset as u64, reason: reason.into() }
    }

    fn run(mut self, numbers: &[u64]) -> Result<Opened, LogError> {
        let (Some(first), Some(newest)) = (numbers.first(), numbers.last()) else {
            return Err(self.damaged(1, 0, "there are keys, but no segment"));
        };
        let mut cut = None;
        for (wanted, number) in (*first..).zip(numbers) {
            if *number != wanted {
                return Err(self.damaged(wanted, 0, "the segment is missing"));
            }
            cut = self.segment(*number, number == newest)?;
        }
        self.check_whole(*first)?;
        let fail = |name: &str, error: &io::Error| LogError::Io(explain(self.disk.as_ref(), name, error));
        if let Some((number, offset)) = cut {
            self.cut(number, offset).map_err(|error| fail(&segment_name(number), &error))?;
        }

        // What a killed process wrote may be in the page cache only, and after a failed flush its pages may be marked
        // clean without having reached the disk: write the last group again, and flush, before it counts.
        let (Some(current), Some(next_seq)) = (self.segments.back(), self.next_seq) else {
            return Err(self.damaged(*first, 0, "it has no whole group"));
        };
        let start = self.end - self.last_group.len() as u64;
        let rewrite = current.file.write_at(start, &self.last_group).and_then(|()| current.file.sync());
        rewrite.map_err(|error| fail(&segment_name(current.number), &error))?;
        self.disk.sync_folder(LOG_FOLDER).map_err(|error| fail(LOG_FOLDER, &error))?;

        self.index.shrink();
        let salt = new_salt().map_err(LogError::Io)?;
        let mut writer =
            Writer::new(Arc::clone(self.disk), Arc::clone(&self.keys), self.identity, salt, self.sizes.segment_bytes);
        let tail = Tail {
            segments: self.segments,
            end: self.end,
            next_seq,
            vote: self.index.vote,
            purged: self.index.purged,
            last: self.index.last(),
        };
        writer.begin(tail).map_err(LogError::Io)?;
        Ok(Opened { writer, index: self.index, keys: self.keys })
    }

    /// Reads a segment; where it must be cut, if so.
    fn segment(&mut self, number: u64, newest: bool) -> Result<Option<(u64, usize)>, LogError> {
        let name = segment_name(number);
        let fail = |error: &io::Error| LogError::Io(explain(self.disk.as_ref(), &name, error));
        let file = self.disk.open(&name).map_err(|error| fail(&error))?;
        let data = disk::read(file.as_ref()).map_err(|error| fail(&error))?;

        let expected = self.next_seq;
        if parse(&data).is_none() {
            // A new segment whose first group is not whole was never in use, so it can only be the newest.
            if newest && expected.is_some() && later_group(&data, 0, 0).is_none() {
                return Ok(Some((number, 0)));
            }
            return Err(self.damaged(number, 0, "its first group is not whole"));
        }
        self.segments.push_back(Segment { number, file: Arc::clone(&file), max_index: None });
        let scan = self.groups(number, &file, &data)?;
        self.end = scan.end as u64;
        self.last_group = scan.last_group;
        if !newest || scan.clean {
            // An older segment may have anything behind its end: the next segment's number shows that nothing is missing.
            return Ok(None);
        }
        let next_seq = self.next_seq.unwrap_or(0);
        if let Some((offset, seq)) = later_group(&data, scan.end, next_seq) {
            let reason = format!("the group is not whole, but group {seq} at byte {offset} is");
            return Err(self.damaged(number, scan.end, reason));
        }
        Ok(Some((number, scan.end)))
    }

    fn groups(&mut self, number: u64, file: &Arc<dyn disk::DiskFile>, data: &[u8]) -> Result<Scan, LogError> {
        let mut at = 0;
        let mut last_group = Vec::new();
        while let Some(group) = parse(&data[at..]) {
            let expected = self.next_seq.unwrap_or(group.seq);
            if group.seq != expected {
                let reason = format!("group {} where {expected} should be", group.seq);
                return Err(self.damaged(number, at, reason));
            }
            let records = group.open(&self.keys).map_err(|error| self.damaged(number, at, error.to_string()))?;
            if at == 0 && !matches!(records.first(), Some((Record::Start { .. }, _))) {
                return Err(self.damaged(number, at, "the segment does not begin with its owner"));
            }
            for (record, place) in records {
                self.replay(number, at, record)?;
                if let (Some(mut place), Some(last)) = (place, self.index.last()) {
                    place.offset += at as u64;
                    self.index.set_place(&last, file, place);
                }
            }
            self.index.shrink();
            self.next_seq = Some(expected + 1);
            last_group = data[at..at + group.bytes()].to_vec();
            at += group.bytes();
        }
        Ok(Scan { end: at, clean: all_zero(&data[at..]), last_group })
    }

    fn replay(&mut self, number: u64, at: usize, record: Record) -> Result<(), LogError> {
        match record {
            Record::Start { cluster, member, last } => {
                let Identity { cluster: wanted_cluster, member: wanted } = self.identity;
                if (cluster, member) != (wanted_cluster, wanted) {
                    let path = self.disk.describe(&segment_name(number));
                    return Err(LogError::Foreign {
                        path,
                        found: member,
                        found_cluster: cluster,
                        wanted,
                        wanted_cluster,
                    });
                }
                if self.segments.len() == 1 {
                    self.before = last;
                    if let Some(last) = last {
                        // Stands for the entries of segments that were deleted; checked once the last purge is known.
                        self.index.purge(last);
                    }
                } else if self.index.last() != last {
                    return Err(self.damaged(number, at, "the segment does not follow the one before"));
                }
            }
            Record::Entry(entry) => {
                if let Some(segment) = self.segments.back_mut() {
                    segment.max_index = segment.max_index.max(Some(entry.log_id.index));
                }
                let appended = self.index.append(entry);
                appended.map_err(|error| self.damaged(number, at, error.to_string()))?;
            }
            Record::Vote(vote) => self.index.vote = Some(vote),
            Record::Cut(keep) => {
                self.index.cut(keep.as_ref());
                if self.index.last() != keep {
                    // The entries before the cut are in segments that were deleted.
                    self.index.purged = keep;
                    self.before = self.before.and(keep);
                }
            }
            Record::Purge(id) => {
                self.before = self.before.filter(|before| before.index > id.index);
                self.index.purge(id);
            }
            Record::Committed(id) => self.index.committed = Some(id),
        }
        Ok(())
    }

    /// Refuses a log whose oldest entries are missing without having been purged.
    fn check_whole(&mut self, first: u64) -> Result<(), LogError> {
        if let Some(before) = self.before {
            let reason = format!("entries up to {before} are missing, and were not purged");
            return Err(self.damaged(first, 0, reason));
        }
        // What is committed is in the log, or in a snapshot that says so itself.
        self.index.committed = self.index.committed.min(self.index.last());
        Ok(())
    }

    fn cut(&self, number: u64, offset: usize) -> io::Result<()> {
        let name = segment_name(number);
        tracing::warn!(file = %self.disk.describe(&name), offset, "cut a write that was never acknowledged");
        if offset == 0 {
            self.disk.remove(&name)?;
            return self.disk.sync_folder(LOG_FOLDER);
        }
        let file = self.disk.open(&name)?;
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        file.write_at(offset as u64, &vec![0; len - offset])?;
        file.sync()
    }
}

fn all_zero(data: &[u8]) -> bool {
    // By the block: segments are mostly zeros.
    const ZEROS: [u8; 4096] = [0; 4096];
    data.chunks(ZEROS.len()).all(|chunk| chunk == &ZEROS[..chunk.len()])
}

/// A whole group numbered at least `seq` anywhere from `from` on: its place and number.
fn later_group(data: &[u8], from: usize, seq: u64) -> Option<(usize, u64)> {
    let starts = (from.next_multiple_of(ALIGNMENT)..data.len()).step_by(ALIGNMENT);
    starts.into_iter().find_map(|at| parse(&data[at..]).filter(|group| group.seq >= seq).map(|group| (at, group.seq)))
}
