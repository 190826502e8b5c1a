//! What the log survives, and what it refuses.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft::{EntryPayload, RaftLogReader};

use super::record::parse;
use super::recover::{Sizes, open_with};
use super::{Identity, LogError, LogStore, WriterMode, segment_name};
use crate::TokioRuntime;
use crate::crypt::KEYS_FILE;
use crate::disk::{Disk, Fault, MemoryDisk, Operation};
use crate::limits::{APPEND_BYTES, SEGMENT_BYTES};
use crate::member::{ClusterTag, MemberId};
use crate::types::{Command, Entry, TypeConfig, Vote, log_id};

type C = TypeConfig<TokioRuntime>;

const ME: Identity = Identity { cluster: ClusterTag([1; 16]), member: MemberId(1) };
const SMALL_SEGMENT: u64 = 4096;
const CACHE_BYTES: usize = 64 << 10;

fn open(disk: &MemoryDisk, segment_bytes: u64) -> Result<LogStore, LogError> {
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let sizes = Sizes { segment_bytes, cache_bytes: CACHE_BYTES };
    Ok(LogStore::start(open_with(&disk, ME, sizes)?, WriterMode::Inline).unwrap())
}

fn entry(term: u64, index: u64) -> Entry {
    let command = Command(Bytes::from(format!("command {index} of term {term}")));
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(command) }
}

async fn append(store: &mut LogStore, entries: impl IntoIterator<Item = Entry>) -> Result<(), String> {
    let entries: Vec<Entry> = entries.into_iter().collect();
    RaftLogStorageExt::<C>::blocking_append(store, entries).await.map_err(|error| error.to_string())
}

async fn entries(store: &mut LogStore) -> Vec<Entry> {
    RaftLogReader::<C>::try_get_log_entries(store, ..).await.unwrap()
}

async fn vote(store: &mut LogStore) -> Option<Vote> {
    RaftLogReader::<C>::read_vote(store).await.unwrap()
}

async fn state(store: &mut LogStore) -> (Option<u64>, Option<u64>) {
    let state = RaftLogStorage::<C>::get_log_state(store).await.unwrap();
    (state.last_purged_log_id.map(|id| id.index), state.last_log_id.map(|id| id.index))
}

/// The places and lengths of the groups of a segment.
fn groups(content: &[u8]) -> Vec<(usize, usize)> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(group) = parse(&content[at..]) {
        out.push((at, group.bytes()));
        at += group.bytes();
    }
    out
}

/// Numbers that look random, the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// A log of ten groups, an entry each.
async fn ten_entries() -> (MemoryDisk, LogStore) {
    let disk = MemoryDisk::new();
    let mut store = open(&disk, 65536).unwrap();
    RaftLogStorage::<C>::save_vote(&mut store, &Vote::new_committed(1, 1)).await.unwrap();
    for index in 0..10 {
        append(&mut store, [entry(1, index)]).await.unwrap();
    }
    (disk, store)
}

#[tokio::test]
async fn a_restart_finds_entries_votes_cuts_and_purges() {
    let (disk, mut store) = ten_entries().await;
    RaftLogStorage::<C>::truncate_after(&mut store, Some(log_id(1, 7))).await.unwrap();
    RaftLogStorage::<C>::save_vote(&mut store, &Vote::new(3, 2)).await.unwrap();
    append(&mut store, [entry(3, 8)]).await.unwrap();
    RaftLogStorage::<C>::save_committed(&mut store, Some(log_id(1, 6))).await.unwrap();
    RaftLogStorage::<C>::purge(&mut store, log_id(1, 3)).await.unwrap();

    let mut store = open(&disk.kill(), 65536).unwrap();
    let expected: Vec<Entry> = (4..8).map(|index| entry(1, index)).chain([entry(3, 8)]).collect();
    assert_eq!(entries(&mut store).await, expected);
    assert_eq!(vote(&mut store).await, Some(Vote::new(3, 2)));
    assert_eq!(state(&mut store).await, (Some(3), Some(8)));
    let committed = RaftLogStorage::<C>::read_committed(&mut store).await.unwrap();
    assert_eq!(committed, Some(log_id(1, 6)));
}

#[tokio::test]
async fn a_vote_and_an_entry_are_durable_when_they_are_acknowledged() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk, 65536).unwrap();
    RaftLogStorage::<C>::save_vote(&mut store, &Vote::new(7, 1)).await.unwrap();
    append(&mut store, [entry(7, 0)]).await.unwrap();
    let mut store = open(&disk.power_cut(|| false), 65536).unwrap();
    assert_eq!(vote(&mut store).await, Some(Vote::new(7, 1)));
    assert_eq!(entries(&mut store).await, [entry(7, 0)]);
}

#[tokio::test]
async fn a_last_group_torn_at_any_byte_is_cut_and_the_log_goes_on() {
    let (disk, _store) = ten_entries().await;
    let name = segment_name(1);
    let whole = disk.content(&name).unwrap();
    let (at, bytes) = *groups(&whole).last().unwrap();
    for kept in 0..bytes {
        // The rest of the group is zeros, as in a preallocated file; or the file ends; or only the end was written.
        let mut zeros = whole.clone();
        zeros[at + kept..at + bytes].fill(0);
        let short = whole[..at + kept].to_vec();
        let mut tail = whole.clone();
        tail[at..at + kept.max(1)].fill(0);
        for (shape, torn) in [("zeros", zeros), ("short", short), ("tail", tail)] {
            let copy = disk.copy();
            copy.set_content(&name, &torn);
            let mut store = open(&copy, 65536).unwrap_or_else(|error| panic!("{shape}, {kept} bytes kept: {error}"));
            let expected = if torn.get(at..at + bytes) == Some(&whole[at..at + bytes]) { 10 } else { 9 };
            assert_eq!(entries(&mut store).await.len(), expected, "{shape}, {kept} bytes kept");
            append(&mut store, [entry(2, expected as u64)]).await.unwrap();
            let mut store = open(&copy.kill(), 65536).unwrap();
            assert_eq!(entries(&mut store).await.len(), expected + 1, "{shape}, {kept} bytes kept");
        }
    }
}

#[tokio::test]
async fn a_flipped_bit_before_the_last_group_is_refused_and_nothing_is_changed() {
    let (disk, _store) = ten_entries().await;
    let name = segment_name(1);
    let whole = disk.content(&name).unwrap();
    let (last, _) = *groups(&whole).last().unwrap();
    let mut numbers = Numbers(1);
    for _ in 0..400 {
        let bit = numbers.below(last * 8);
        let mut bad = whole.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let copy = disk.copy();
        copy.set_content(&name, &bad);
        let error = open(&copy, 65536).map(drop).unwrap_err();
        assert!(matches!(error, LogError::Damaged { .. }), "bit {bit}: {error}");
        assert_eq!(copy.content(&name).unwrap(), bad, "bit {bit}");
    }
}

#[tokio::test]
async fn after_the_marker_a_flip_in_the_last_entry_is_refused_too() {
    let (disk, store) = ten_entries().await;
    store.mark();
    let name = segment_name(1);
    let whole = disk.content(&name).unwrap();
    let all = groups(&whole);
    let (last_entry, marker) = (all[all.len() - 2], all[all.len() - 1]);
    for at in last_entry.0..marker.0 {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        let copy = disk.copy();
        copy.set_content(&name, &bad);
        assert!(open(&copy, 65536).is_err(), "byte {at}");
    }
    store.mark();
    assert_eq!(disk.content(&name).unwrap(), whole, "one marker is enough");
}

#[tokio::test]
async fn damage_in_an_older_segment_and_a_missing_one_are_refused() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk, SMALL_SEGMENT).unwrap();
    for index in 0..200 {
        append(&mut store, [entry(1, index)]).await.unwrap();
    }
    let names = disk.list("log").unwrap();
    assert!(names.len() > 3, "{names:?}");
    let mut again = open(&disk.copy(), SMALL_SEGMENT).unwrap();
    assert_eq!(entries(&mut again).await.len(), 200);

    let mut numbers = Numbers(2);
    for _ in 0..200 {
        let name = format!("log/{}", names[numbers.below(names.len() - 1)]);
        let mut bad = disk.content(&name).unwrap();
        let (at, bytes) = *groups(&bad).last().unwrap();
        let bit = numbers.below((at + bytes) * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        let copy = disk.copy();
        copy.set_content(&name, &bad);
        let error = open(&copy, SMALL_SEGMENT).map(drop).unwrap_err();
        assert!(matches!(error, LogError::Damaged { .. }), "{name} bit {bit}: {error}");
    }
    for name in &names[..names.len() - 1] {
        let copy = disk.copy();
        copy.remove(&format!("log/{name}")).unwrap();
        assert!(open(&copy, SMALL_SEGMENT).is_err(), "without {name}");
    }
}

#[tokio::test]
async fn a_purge_gives_space_back_and_survives_a_restart() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk, SMALL_SEGMENT).unwrap();
    RaftLogStorage::<C>::save_vote(&mut store, &Vote::new_committed(1, 1)).await.unwrap();
    for index in 0..200 {
        append(&mut store, [entry(1, index)]).await.unwrap();
    }
    let before = disk.list("log").unwrap();
    RaftLogStorage::<C>::purge(&mut store, log_id(1, 150)).await.unwrap();
    let after = disk.list("log").unwrap();
    assert!(after.len() < before.len(), "{before:?} {after:?}");

    for life in 0..3 {
        let mut store = open(&disk.copy(), SMALL_SEGMENT).unwrap();
        assert_eq!(state(&mut store).await, (Some(150), Some(199)), "life {life}");
        assert_eq!(vote(&mut store).await, Some(Vote::new_committed(1, 1)));
        assert_eq!(entries(&mut store).await[0], entry(1, 151));
    }
    RaftLogStorage::<C>::purge(&mut store, log_id(4, 500)).await.unwrap();
    append(&mut store, [entry(4, 501)]).await.unwrap();
    let mut store = open(&disk.kill(), SMALL_SEGMENT).unwrap();
    assert_eq!(state(&mut store).await, (Some(500), Some(501)));
}

#[tokio::test]
async fn cuts_across_segments_and_purges_replay_as_they_happened() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk, SMALL_SEGMENT).unwrap();
    let mut expected: Vec<Entry> = Vec::new();
    let mut purged = None;
    let mut numbers = Numbers(3);
    let (mut disk, mut term) = (disk, 1);
    for step in 0..400 {
        match numbers.below(10) {
            0 if !expected.is_empty() => {
                let keep = numbers.below(expected.len());
                let id = expected[keep].log_id;
                RaftLogStorage::<C>::truncate_after(&mut store, Some(id)).await.unwrap();
                expected.truncate(keep + 1);
                term += 1;
            }
            1 if expected.len() > 5 => {
                let last = numbers.below(expected.len() / 2);
                purged = Some(expected[last].log_id);
                RaftLogStorage::<C>::purge(&mut store, expected[last].log_id).await.unwrap();
                expected.drain(..=last);
            }
            2 => {
                disk = if numbers.below(2) == 0 { disk.kill() } else { disk.power_cut(|| numbers.below(2) == 0) };
                store = open(&disk, SMALL_SEGMENT).unwrap_or_else(|error| panic!("step {step}: {error}"));
            }
            _ => {
                let next = expected.last().map(|entry| entry.log_id).or(purged).map_or(0, |id| id.index + 1);
                let new: Vec<Entry> = (next..next + 8).map(|index| entry(term, index)).collect();
                append(&mut store, new.clone()).await.unwrap();
                expected.extend(new);
            }
        }
        assert_eq!(entries(&mut store).await, expected, "step {step}");
        let log_state = RaftLogStorage::<C>::get_log_state(&mut store).await.unwrap();
        assert_eq!(log_state.last_purged_log_id, purged, "step {step}");
    }
}

#[tokio::test]
async fn entries_beyond_the_cache_are_read_back_from_their_segments() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk, SEGMENT_BYTES).unwrap();
    let large = |index| {
        let bytes = Bytes::from(vec![index as u8; APPEND_BYTES / 8]);
        Entry { log_id: log_id(1, index), payload: EntryPayload::Normal(Command(bytes)) }
    };
    for index in 0..30 {
        append(&mut store, [large(index)]).await.unwrap();
    }
    assert_eq!(entries(&mut store).await, (0..30).map(large).collect::<Vec<_>>());
    let some = RaftLogReader::<C>::limited_get_log_entries(&mut store, 3, 30).await.unwrap();
    assert_eq!(some, (3..11).map(large).collect::<Vec<_>>(), "a message's worth");
    let mut store = open(&disk.kill(), SEGMENT_BYTES).unwrap();
    assert_eq!(entries(&mut store).await.len(), 30);
}

#[tokio::test]
async fn after_a_failed_write_or_flush_nothing_is_acknowledged_and_the_file_is_named() {
    for operation in [Operation::Write, Operation::Sync] {
        let (disk, mut store) = ten_entries().await;
        let failed = store.failed();
        disk.set_fault(Some(Fault { operation, skip: 0, kind: io::ErrorKind::StorageFull }));
        let error = append(&mut store, [entry(1, 10)]).await.unwrap_err();
        let expected = format!("no space left on device (memory:{})", segment_name(1));
        assert!(error.contains(&expected), "{error}");
        assert_eq!(store.failure(), Some(expected));
        failed.await.unwrap();
        // The disk is well again, and still nothing may be acknowledged.
        assert!(RaftLogStorage::<C>::save_vote(&mut store, &Vote::new(9, 9)).await.is_err());
        let late: IOFlushed<C> = IOFlushed::noop();
        assert!(RaftLogStorage::<C>::append(&mut store, [entry(1, 11)], late).await.is_err());
        let mut store = open(&disk.kill(), 65536).unwrap();
        assert_eq!(vote(&mut store).await, Some(Vote::new_committed(1, 1)));
    }
}

#[tokio::test]
async fn a_full_disk_at_a_new_segment_is_refused_with_its_name_and_a_restart_goes_on() {
    let disk = MemoryDisk::new();
    let mut store = open(&disk, SMALL_SEGMENT).unwrap();
    disk.set_fault(Some(Fault { operation: Operation::Allocate, skip: 0, kind: io::ErrorKind::StorageFull }));
    let mut appended = 0;
    let error = loop {
        match append(&mut store, [entry(1, appended)]).await {
            Ok(()) => appended += 1,
            Err(error) => break error,
        }
    };
    assert!(error.contains(&format!("no space left on device (memory:{})", segment_name(2))), "{error}");
    let mut store = open(&disk.kill(), SMALL_SEGMENT).unwrap();
    assert_eq!(entries(&mut store).await.len() as u64, appended);
    append(&mut store, [entry(1, appended)]).await.unwrap();
}

#[tokio::test]
async fn a_folder_of_another_member_or_without_its_keys_is_refused() {
    let (disk, _store) = ten_entries().await;
    let shared: Arc<dyn Disk> = Arc::new(disk.copy());
    let other = Identity { member: MemberId(2), ..ME };
    let error = super::open(&shared, other).map(drop).unwrap_err();
    assert!(matches!(error, LogError::Foreign { .. }), "{error}");

    disk.remove(KEYS_FILE).unwrap();
    let error = open(&disk, 65536).map(drop).unwrap_err().to_string();
    assert!(error.contains("keys.json is missing"), "{error}");
}

#[tokio::test]
async fn an_interrupted_first_start_begins_again() {
    for skip in 0.. {
        let disk = MemoryDisk::new();
        disk.set_fault(Some(Fault { operation: Operation::Sync, skip, kind: io::ErrorKind::Other }));
        let began = open(&disk, 65536).is_ok();
        let disk = disk.power_cut(|| true);
        let mut store = open(&disk, 65536).unwrap();
        append(&mut store, [entry(1, 0)]).await.unwrap();
        if began {
            assert!(skip >= 3, "segment, folder and keys were flushed");
            break;
        }
    }
}
