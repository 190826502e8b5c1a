//! The fixed layout of values on disk and on the wire: little-endian integers, and lengths before bytes.
//!
//! It is ours alone: a new version of the engine cannot change what is stored or sent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use openraft::EntryPayload;
use openraft::impls::BasicNode;

use crate::types::{Command, EngineMembership, Entry, LogId, Payload, SnapshotMeta, StoredMembership, Vote, log_id};

/// Bytes that do not have the layout they should have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {field}")]
pub(crate) struct Malformed {
    pub field: &'static str,
}

/// Lays values out one after the other.
#[derive(Default)]
pub(crate) struct Encoder {
    out: BytesMut,
}

impl Encoder {
    pub fn with_capacity(bytes: usize) -> Self {
        Self { out: BytesMut::with_capacity(bytes) }
    }

    pub fn finish(self) -> Bytes {
        self.out.freeze()
    }

    pub fn u8(&mut self, value: u8) {
        self.out.put_u8(value);
    }

    pub fn flag(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub fn u32(&mut self, value: u32) {
        self.out.put_u32_le(value);
    }

    pub fn u64(&mut self, value: u64) {
        self.out.put_u64_le(value);
    }

    pub fn count(&mut self, value: usize) {
        self.u32(u32::try_from(value).expect("lengths are bounded by the message and command limits"));
    }

    pub fn raw(&mut self, value: &[u8]) {
        self.out.put_slice(value);
    }

    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.raw(value);
    }

    pub fn vote(&mut self, vote: &Vote) {
        self.u64(vote.leader_id.term);
        self.u64(vote.leader_id.voted_for);
        self.flag(vote.committed);
    }

    pub fn log_id(&mut self, id: &LogId) {
        self.u64(id.leader_id.term);
        self.u64(id.index);
    }

    pub fn optional_log_id(&mut self, id: Option<&LogId>) {
        self.flag(id.is_some());
        if let Some(id) = id {
            self.log_id(id);
        }
    }

    pub fn membership(&mut self, membership: &EngineMembership) {
        let configs = membership.get_joint_config();
        self.count(configs.len());
        for config in configs {
            self.count(config.len());
            config.iter().for_each(|id| self.u64(*id));
        }
        self.count(membership.nodes().count());
        for (id, node) in membership.nodes() {
            self.u64(*id);
            self.bytes(node.addr.as_bytes());
        }
    }

    pub fn snapshot_meta(&mut self, meta: &SnapshotMeta) {
        self.optional_log_id(meta.last_log_id.as_ref());
        self.optional_log_id(meta.last_membership.log_id().as_ref());
        self.membership(meta.last_membership.membership());
    }

    pub fn entry(&mut self, entry: &Entry) {
        self.log_id(&entry.log_id);
        self.u8(PayloadKind::of(&entry.payload) as u8);
        match &entry.payload {
            EntryPayload::Blank => {}
            EntryPayload::Normal(command) => self.bytes(&command.0),
            EntryPayload::Membership(membership) => self.membership(membership),
        }
    }
}

/// Reads back what an [`Encoder`] laid out. Byte strings share the input's memory.
pub(crate) struct Decoder {
    input: Bytes,
}

impl Decoder {
    pub fn new(input: Bytes) -> Self {
        Self { input }
    }

    /// Refuses bytes that nothing asked for.
    pub fn end(self, field: &'static str) -> Result<(), Malformed> {
        if self.input.is_empty() { Ok(()) } else { Err(Malformed { field }) }
    }

    fn need(&self, bytes: usize, field: &'static str) -> Result<(), Malformed> {
        if self.input.len() >= bytes { Ok(()) } else { Err(Malformed { field }) }
    }

    pub fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.need(1, field)?;
        Ok(self.input.get_u8())
    }

    pub fn flag(&mut self, field: &'static str) -> Result<bool, Malformed> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed { field }),
        }
    }

    pub fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.need(4, field)?;
        Ok(self.input.get_u32_le())
    }

    pub fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.need(8, field)?;
        Ok(self.input.get_u64_le())
    }

    /// A number of items of at least `item_bytes` each; one that cannot fit is refused before memory is set aside for it.
    pub fn count(&mut self, item_bytes: usize, field: &'static str) -> Result<usize, Malformed> {
        let count = self.u32(field)? as usize;
        self.need(count.saturating_mul(item_bytes), field)?;
        Ok(count)
    }

    pub fn raw(&mut self, bytes: usize, field: &'static str) -> Result<Bytes, Malformed> {
        self.need(bytes, field)?;
        Ok(self.input.split_to(bytes))
    }

    pub fn bytes(&mut self, field: &'static str) -> Result<Bytes, Malformed> {
        let len = self.count(1, field)?;
        self.raw(len, field)
    }

    pub fn string(&mut self, field: &'static str) -> Result<String, Malformed> {
        String::from_utf8(self.bytes(field)?.to_vec()).map_err(|_| Malformed { field })
    }

    pub fn vote(&mut self) -> Result<Vote, Malformed> {
        let (term, voted_for) = (self.u64("vote")?, self.u64("vote")?);
        let vote = if self.flag("vote")? { Vote::new_committed(term, voted_for) } else { Vote::new(term, voted_for) };
        Ok(vote)
    }

    pub fn log_id(&mut self) -> Result<LogId, Malformed> {
        let (term, index) = (self.u64("log id")?, self.u64("log id")?);
        Ok(log_id(term, index))
    }

    pub fn optional_log_id(&mut self) -> Result<Option<LogId>, Malformed> {
        if self.flag("log id")? { Ok(Some(self.log_id()?)) } else { Ok(None) }
    }

    pub fn membership(&mut self) -> Result<EngineMembership, Malformed> {
        const FIELD: &str = "membership";
        let mut configs = Vec::new();
        for _ in 0..self.count(4, FIELD)? {
            let mut config = BTreeSet::new();
            for _ in 0..self.count(8, FIELD)? {
                config.insert(self.u64(FIELD)?);
            }
            configs.push(config);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.count(12, FIELD)? {
            let id = self.u64(FIELD)?;
            nodes.insert(id, BasicNode { addr: self.string(FIELD)? });
        }
        if configs.is_empty() && nodes.is_empty() {
            return Ok(EngineMembership::default());
        }
        EngineMembership::new(configs, nodes).map_err(|_| Malformed { field: FIELD })
    }

    pub fn snapshot_meta(&mut self) -> Result<SnapshotMeta, Malformed> {
        let last_log_id = self.optional_log_id()?;
        let membership_at = self.optional_log_id()?;
        let last_membership = StoredMembership::new(membership_at, self.membership()?);
        Ok(SnapshotMeta { last_log_id, last_membership })
    }

    pub fn entry(&mut self) -> Result<Entry, Malformed> {
        let log_id = self.log_id()?;
        let payload = match PayloadKind::from_byte(self.u8("entry")?) {
            Some(PayloadKind::Blank) => EntryPayload::Blank,
            Some(PayloadKind::Normal) => EntryPayload::Normal(Command(self.bytes("command")?)),
            Some(PayloadKind::Membership) => EntryPayload::Membership(self.membership()?),
            None => return Err(Malformed { field: "entry" }),
        };
        Ok(Entry { log_id, payload })
    }
}

/// What an entry carries, as one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadKind {
    Blank = 1,
    Normal = 2,
    Membership = 3,
}

impl PayloadKind {
    pub fn of(payload: &Payload) -> Self {
        match payload {
            EntryPayload::Blank => Self::Blank,
            EntryPayload::Normal(_) => Self::Normal,
            EntryPayload::Membership(_) => Self::Membership,
        }
    }

    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Blank, Self::Normal, Self::Membership].into_iter().find(|kind| *kind as u8 == byte)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample_membership() -> EngineMembership {
        let node = |id: u64| (id, BasicNode { addr: format!("10.0.0.{id}:2377") });
        EngineMembership::new(
            vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])],
            BTreeMap::from([node(1), node(2), node(3), node(4), node(5)]),
        )
        .unwrap()
    }

    pub(crate) fn sample_entries() -> Vec<Entry> {
        vec![
            Entry { log_id: log_id(3, 9), payload: EntryPayload::Blank },
            Entry { log_id: log_id(3, 10), payload: EntryPayload::Normal(Command(Bytes::from_static(b"hello"))) },
            Entry { log_id: log_id(3, 11), payload: EntryPayload::Membership(sample_membership()) },
        ]
    }

    #[test]
    fn entries_and_snapshot_metas_come_back_as_they_went() {
        for entry in sample_entries() {
            let mut encoder = Encoder::default();
            encoder.entry(&entry);
            let mut decoder = Decoder::new(encoder.finish());
            assert_eq!(decoder.entry().unwrap(), entry);
            decoder.end("entry").unwrap();
        }
        let meta = SnapshotMeta {
            last_log_id: Some(log_id(4, 20)),
            last_membership: StoredMembership::new(Some(log_id(3, 11)), sample_membership()),
        };
        for meta in [meta, SnapshotMeta::default()] {
            let mut encoder = Encoder::default();
            encoder.snapshot_meta(&meta);
            assert_eq!(Decoder::new(encoder.finish()).snapshot_meta().unwrap(), meta);
        }
    }

    #[test]
    fn every_shortened_entry_is_malformed_and_none_panics() {
        for entry in sample_entries() {
            let mut encoder = Encoder::default();
            encoder.entry(&entry);
            let whole = encoder.finish();
            for len in 0..whole.len() {
                assert!(Decoder::new(whole.slice(..len)).entry().is_err(), "{len} of {} bytes", whole.len());
            }
        }
    }

    #[test]
    fn a_count_beyond_the_input_is_refused_before_memory_is_set_aside() {
        let mut encoder = Encoder::default();
        encoder.u32(u32::MAX);
        assert!(Decoder::new(encoder.finish()).membership().is_err());
    }
}
