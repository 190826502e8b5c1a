//! The log in memory: which entries there are, the newest of them whole, the others by their place on disk.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::record::{Place, weight};
use crate::crypt::{Keys, TAG_BYTES};
use crate::disk::DiskFile;
use crate::types::{Entry, LogId, Vote, log_id};

/// What readers see. An appended entry is here at once; it is durable later.
pub(crate) struct Index {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub committed: Option<LogId>,
    slots: VecDeque<Slot>,
    /// The index of the first slot.
    first: u64,
    cached_bytes: usize,
    /// Slots before this one hold no entry.
    cached_from: u64,
    cache_limit: usize,
}

struct Slot {
    term: u64,
    entry: Option<Entry>,
    place: Option<(Arc<dyn DiskFile>, Place)>,
}

/// An entry, or where to find it.
pub(crate) enum Found {
    Entry(Entry),
    OnDisk { id: LogId, file: Arc<dyn DiskFile>, place: Place },
}

impl Found {
    /// About how many bytes the entry has.
    pub fn weight(&self) -> usize {
        match self {
            Self::Entry(entry) => weight(&entry.payload),
            Self::OnDisk { place, .. } => (place.bytes as usize).saturating_sub(TAG_BYTES),
        }
    }

    /// The entry, read back if need be.
    pub fn load(self, keys: &Keys) -> io::Result<Entry> {
        let (id, file, place) = match self {
            Self::Entry(entry) => return Ok(entry),
            Self::OnDisk { id, file, place } => (id, file, place),
        };
        let mut sealed = vec![0; place.bytes as usize];
        file.read_at(place.offset, &mut sealed)?;
        place
            .open(keys, id.index, id.leader_id.term, &sealed)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("log entry {id} is damaged on disk")))
    }
}

impl Index {
    /// An empty log that keeps up to `cache_limit` bytes of entries in memory.
    pub fn new(cache_limit: usize) -> Self {
        Self {
            vote: None,
            purged: None,
            committed: None,
            slots: VecDeque::new(),
            first: 0,
            cached_bytes: 0,
            cached_from: 0,
            cache_limit,
        }
    }

    /// The last entry, or the purge point when there is none.
    pub fn last(&self) -> Option<LogId> {
        let last = self.slots.back().map(|slot| log_id(slot.term, self.next_slot() - 1));
        last.or(self.purged)
    }

    fn next_slot(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Adds an entry after the last one.
    ///
    /// # Errors
    /// When it would leave a hole.
    pub fn append(&mut self, entry: Entry) -> io::Result<()> {
        let index = entry.log_id.index;
        match self.last() {
            Some(last) if last.index + 1 != index => {
                let text = format!("entry {} does not follow {last}", entry.log_id);
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            _ if self.slots.is_empty() => {
                self.first = index;
                self.cached_from = index;
            }
            _ => {}
        }
        self.cached_bytes += weight(&entry.payload);
        self.slots.push_back(Slot { term: entry.log_id.leader_id.term, entry: Some(entry), place: None });
        Ok(())
    }

    /// Says where an entry has become durable; one that was cut meanwhile is ignored.
    pub fn set_place(&mut self, id: &LogId, file: &Arc<dyn DiskFile>, place: Place) {
        let term = id.leader_id.term;
        let slot = id.index.checked_sub(self.first).and_then(|at| self.slots.get_mut(usize::try_from(at).ok()?));
        if let Some(slot) = slot.filter(|slot| slot.term == term) {
            slot.place = Some((Arc::clone(file), place));
        }
    }

    /// Forgets the oldest entries beyond the cache's limit; they can be read back.
    pub fn shrink(&mut self) {
        while self.cached_bytes > self.cache_limit && self.cached_from < self.next_slot() {
            let at = usize::try_from(self.cached_from - self.first).expect("slots are counted by usize");
            let slot = &mut self.slots[at];
            if slot.place.is_none() {
                return;
            }
            self.cached_bytes -= slot.entry.take().map_or(0, |entry| weight(&entry.payload));
            self.cached_from += 1;
        }
    }

    /// Drops the entries after `keep`, or all.
    pub fn cut(&mut self, keep: Option<&LogId>) {
        let end = keep.map_or(0, |id| id.index + 1);
        while self.next_slot() > end {
            let Some(slot) = self.slots.pop_back() else { break };
            self.forget(slot);
        }
        self.cached_from = self.cached_from.min(self.next_slot());
    }

    /// Drops the entries up to `id`, inclusive.
    pub fn purge(&mut self, id: LogId) {
        if self.purged.is_some_and(|purged| purged >= id) {
            return;
        }
        while self.first <= id.index {
            let Some(slot) = self.slots.pop_front() else { break };
            self.first += 1;
            self.forget(slot);
        }
        self.cached_from = self.cached_from.max(self.first);
        self.purged = Some(id);
    }

    fn forget(&mut self, slot: Slot) {
        self.cached_bytes -= slot.entry.map_or(0, |entry| weight(&entry.payload));
    }

    /// The entries from `start` up to `end`, exclusive, as far as there are any.
    pub fn find(&self, start: u64, end: u64) -> Vec<Found> {
        let start = start.max(self.first);
        let end = end.min(self.next_slot());
        (start..end).map(|index| self.found(index)).collect()
    }

    /// As [`Self::find`], stopping before `bytes` are exceeded, but never before the first.
    pub fn find_within(&self, start: u64, end: u64, bytes: usize) -> Vec<Found> {
        let mut left = bytes;
        let mut out = Vec::new();
        for index in start.max(self.first)..end.min(self.next_slot()) {
            let found = self.found(index);
            if found.weight() > left && !out.is_empty() {
                break;
            }
            left = left.saturating_sub(found.weight());
            out.push(found);
        }
        out
    }

    fn found(&self, index: u64) -> Found {
        let slot = &self.slots[usize::try_from(index - self.first).expect("slots are counted by usize")];
        match (&slot.entry, &slot.place) {
            (Some(entry), _) => Found::Entry(entry.clone()),
            (None, Some((file, place))) => {
                Found::OnDisk { id: log_id(slot.term, index), file: Arc::clone(file), place: *place }
            }
            (None, None) => unreachable!("an entry is forgotten only once it has a place"),
        }
    }
}
