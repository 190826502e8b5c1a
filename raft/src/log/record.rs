//! The layout of the log: groups of sealed records, each group one write and one flush.
//!
//! ```text
//! group  = magic u32 · body bytes u32 · seq u64 · key u32 · records u32 · salt 12 · 0 u32 · body crc u32 · header crc u32
//!          record · record · … · zeros up to a multiple of 8
//! record = kind u8 · 0 0 0 · bytes u32 · index u64 · term u64 · sealed bytes
//! ```
//!
//! Votes, cuts and purges are records of the same stream, so that the order of the file is the order of events.

use bytes::Bytes;
use openraft::EntryPayload;

use crate::codec::{Decoder, Encoder, Malformed, PayloadKind};
use crate::crypt::{Keys, Salt};
use crate::member::{ClusterTag, MemberId};
use crate::types::{Command, Entry, LogId, Payload, Vote, log_id};

const MAGIC: u32 = 0x474c_5352; // "RSLG"
pub(crate) const HEADER_BYTES: usize = 48;
const RECORD_BYTES: usize = 24;

/// The groups of a file start at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;

/// One event of the log.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// The first of every segment: whose log it is, and the last entry before it.
    Start {
        cluster: ClusterTag,
        member: MemberId,
        last: Option<LogId>,
    },
    Entry(Entry),
    Vote(Vote),
    /// Entries after this one are gone; `None` = all.
    Cut(Option<LogId>),
    /// Entries up to this one, inclusive, are in a snapshot and gone.
    Purge(LogId),
    /// What was known to be committed. Never flushed for its own sake.
    Committed(LogId),
}

const KIND_START: u8 = 16;
const KIND_VOTE: u8 = 17;
const KIND_CUT: u8 = 18;
const KIND_PURGE: u8 = 19;
const KIND_COMMITTED: u8 = 20;

impl Record {
    /// Kind, index and term, which stay readable, and what is sealed.
    fn parts(&self) -> (u8, u64, u64, Bytes) {
        let mut plain = Encoder::default();
        let (kind, index, term) = match self {
            Self::Entry(entry) => {
                let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
                match &entry.payload {
                    EntryPayload::Blank => {}
                    EntryPayload::Normal(command) => {
                        return (PayloadKind::Normal as u8, index, term, command.0.clone());
                    }
                    EntryPayload::Membership(membership) => plain.membership(membership),
                }
                (PayloadKind::of(&entry.payload) as u8, index, term)
            }
            Self::Start { cluster, member, last } => {
                plain.raw(&cluster.0);
                plain.u64(member.0);
                plain.optional_log_id(last.as_ref());
                (KIND_START, 0, 0)
            }
            Self::Vote(vote) => {
                plain.flag(vote.committed);
                (KIND_VOTE, vote.leader_id.voted_for, vote.leader_id.term)
            }
            Self::Cut(after) => {
                plain.flag(after.is_some());
                after.map_or((KIND_CUT, 0, 0), |id| (KIND_CUT, id.index, id.leader_id.term))
            }
            Self::Purge(id) => (KIND_PURGE, id.index, id.leader_id.term),
            Self::Committed(id) => (KIND_COMMITTED, id.index, id.leader_id.term),
        };
        (kind, index, term, plain.finish())
    }

    fn from_parts(kind: u8, index: u64, term: u64, plain: Bytes) -> Result<Self, Malformed> {
        if let Some(kind) = PayloadKind::from_byte(kind) {
            return Ok(Self::Entry(entry_from_parts(kind, index, term, plain)?));
        }
        let mut plain = Decoder::new(plain);
        let record = match kind {
            KIND_START => {
                let mut cluster = ClusterTag([0; 16]);
                cluster.0.copy_from_slice(&plain.raw(16, "start")?);
                let member = MemberId(plain.u64("start")?);
                Self::Start { cluster, member, last: plain.optional_log_id()? }
            }
            KIND_VOTE if plain.flag("vote")? => Self::Vote(Vote::new_committed(term, index)),
            KIND_VOTE => Self::Vote(Vote::new(term, index)),
            KIND_CUT => Self::Cut(plain.flag("cut")?.then(|| log_id(term, index))),
            KIND_PURGE => Self::Purge(log_id(term, index)),
            KIND_COMMITTED => Self::Committed(log_id(term, index)),
            _ => return Err(Malformed { field: "record" }),
        };
        plain.end("record")?;
        Ok(record)
    }

    /// About how much room it takes.
    pub fn weight(&self) -> usize {
        RECORD_BYTES + crate::crypt::TAG_BYTES + if let Self::Entry(entry) = self { weight(&entry.payload) } else { 64 }
    }
}

/// About how many bytes a payload takes, in memory and on disk.
pub(crate) fn weight(payload: &Payload) -> usize {
    match payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(command) => command.0.len(),
        EntryPayload::Membership(membership) => 256 + 64 * membership.nodes().count(),
    }
}

fn entry_from_parts(kind: PayloadKind, index: u64, term: u64, plain: Bytes) -> Result<Entry, Malformed> {
    let payload = match kind {
        PayloadKind::Blank => EntryPayload::Blank,
        PayloadKind::Normal => EntryPayload::Normal(Command(plain)),
        PayloadKind::Membership => {
            let mut plain = Decoder::new(plain);
            let membership = plain.membership()?;
            plain.end("membership")?;
            EntryPayload::Membership(membership)
        }
    };
    Ok(Entry { log_id: log_id(term, index), payload })
}

/// Where a record's sealed bytes lie, and all that is needed to open them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// From the start of the group, until the reader of the file adds the group's own offset.
    pub offset: u64,
    pub bytes: u32,
    pub kind: PayloadKind,
    pub seq: u64,
    pub ordinal: u32,
    pub key: u32,
    pub salt: Salt,
}

impl Place {
    /// Opens the entry whose sealed bytes were read back.
    pub fn open(&self, keys: &Keys, index: u64, term: u64, sealed: &[u8]) -> Option<Entry> {
        let about = about(self.kind as u8, index, term);
        let plain = keys.open(self.key, &self.salt, self.seq, self.ordinal, &about, sealed)?;
        entry_from_parts(self.kind, index, term, plain.into()).ok()
    }
}

/// What is bound to the sealed bytes without being sealed.
fn about(kind: u8, index: u64, term: u64) -> [u8; 17] {
    let mut about = [0; 17];
    about[0] = kind;
    about[1..9].copy_from_slice(&index.to_le_bytes());
    about[9..].copy_from_slice(&term.to_le_bytes());
    about
}

/// Lays out one group. The places of its entries are in their order.
pub(crate) fn encode(keys: &Keys, salt: &Salt, seq: u64, records: &[Record]) -> (Vec<u8>, Vec<Place>) {
    let mut out = Vec::with_capacity(HEADER_BYTES + records.iter().map(Record::weight).sum::<usize>());
    out.resize(HEADER_BYTES, 0);
    let mut places = Vec::new();
    for (ordinal, record) in records.iter().enumerate() {
        let (kind, index, term, plain) = record.parts();
        let ordinal = u32::try_from(ordinal).expect("a group's bytes bound its records");
        let bytes = u32::try_from(plain.len() + crate::crypt::TAG_BYTES).expect("a command's bytes are bounded");
        out.extend_from_slice(&[kind, 0, 0, 0]);
        out.extend_from_slice(&bytes.to_le_bytes());
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&term.to_le_bytes());
        if let Some(kind) = PayloadKind::from_byte(kind) {
            let offset = out.len() as u64;
            places.push(Place { offset, bytes, kind, seq, ordinal, key: keys.current(), salt: *salt });
        }
        keys.seal_into(&mut out, salt, seq, ordinal, &about(kind, index, term), &plain);
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);

    let body_bytes = u32::try_from(out.len() - HEADER_BYTES).expect("a group is bounded");
    let count = u32::try_from(records.len()).expect("a group's bytes bound its records");
    let body_crc = crc32c::crc32c(&out[HEADER_BYTES..]);
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(&MAGIC.to_le_bytes());
    header.extend_from_slice(&body_bytes.to_le_bytes());
    header.extend_from_slice(&seq.to_le_bytes());
    header.extend_from_slice(&keys.current().to_le_bytes());
    header.extend_from_slice(&count.to_le_bytes());
    header.extend_from_slice(salt);
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&body_crc.to_le_bytes());
    let header_crc = crc32c::crc32c(&header);
    header.extend_from_slice(&header_crc.to_le_bytes());
    out[..HEADER_BYTES].copy_from_slice(&header);
    (out, places)
}

/// A group that is whole: both checksums fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'a> {
    pub seq: u64,
    pub key: u32,
    pub records: u32,
    pub salt: Salt,
    body: &'a [u8],
}

/// The whole group at the start of `data`, if there is one.
pub(crate) fn parse(data: &[u8]) -> Option<Group<'_>> {
    let header = data.get(..HEADER_BYTES)?;
    if u32_at(header, 0) != MAGIC || u32_at(header, 44) != crc32c::crc32c(&header[..44]) {
        return None;
    }
    let body = data.get(HEADER_BYTES..HEADER_BYTES + u32_at(header, 4) as usize)?;
    if u32_at(header, 40) != crc32c::crc32c(body) {
        return None;
    }
    let mut salt = Salt::default();
    salt.copy_from_slice(&header[24..36]);
    Some(Group { seq: u64_at(header, 8), key: u32_at(header, 16), records: u32_at(header, 20), salt, body })
}

impl Group<'_> {
    /// How many bytes of the file it takes.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// Its records, and for entries where their sealed bytes lie.
    pub fn open(&self, keys: &Keys) -> Result<Vec<(Record, Option<Place>)>, Malformed> {
        const FIELD: &str = "record";
        let mut records = Vec::new();
        let mut at = 0;
        for ordinal in 0..self.records {
            let head = self.body.get(at..at + RECORD_BYTES).ok_or(Malformed { field: FIELD })?;
            let (kind, bytes, index, term) = (head[0], u32_at(head, 4), u64_at(head, 8), u64_at(head, 16));
            at += RECORD_BYTES;
            let sealed = self.body.get(at..at + bytes as usize).ok_or(Malformed { field: FIELD })?;
            let plain = keys.open(self.key, &self.salt, self.seq, ordinal, &about(kind, index, term), sealed);
            let plain = plain.ok_or(Malformed { field: "seal of a record" })?;
            let place = PayloadKind::from_byte(kind).map(|kind| Place {
                offset: (HEADER_BYTES + at) as u64,
                bytes,
                kind,
                seq: self.seq,
                ordinal,
                key: self.key,
                salt: self.salt,
            });
            records.push((Record::from_parts(kind, index, term, plain.into())?, place));
            at += bytes as usize;
        }
        Ok(records)
    }
}

fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]])
}

fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from(u32_at(data, at)) | u64::from(u32_at(data, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::tests::sample_entries;

    fn sample_records() -> Vec<Record> {
        let mut records = vec![
            Record::Start { cluster: ClusterTag([7; 16]), member: MemberId(9), last: Some(log_id(2, 8)) },
            Record::Vote(Vote::new(3, 9)),
            Record::Vote(Vote::new_committed(3, 9)),
            Record::Cut(None),
            Record::Cut(Some(log_id(3, 8))),
            Record::Purge(log_id(2, 5)),
            Record::Committed(log_id(2, 7)),
        ];
        records.extend(sample_entries().into_iter().map(Record::Entry));
        records
    }

    #[test]
    fn a_group_comes_back_as_it_went_and_its_entries_open_from_their_places() {
        let keys = Keys::generate().unwrap();
        let (bytes, places) = encode(&keys, &[1; 12], 42, &sample_records());
        assert_eq!(bytes.len() % ALIGNMENT, 0);
        let group = parse(&bytes).unwrap();
        assert_eq!((group.seq, group.bytes()), (42, bytes.len()));
        let opened = group.open(&keys).unwrap();
        assert_eq!(opened.iter().map(|(record, _)| record.clone()).collect::<Vec<_>>(), sample_records());
        for (entry, place) in sample_entries().iter().zip(&places) {
            let sealed = &bytes[place.offset as usize..][..place.bytes as usize];
            assert_eq!(&place.open(&keys, entry.log_id.index, 3, sealed).unwrap(), entry);
            assert!(place.open(&keys, entry.log_id.index + 1, 3, sealed).is_none());
        }
    }

    #[test]
    fn every_flipped_bit_of_a_group_is_noticed() {
        let keys = Keys::generate().unwrap();
        let (mut bytes, _) = encode(&keys, &[1; 12], 42, &sample_records());
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(parse(&bytes).is_none(), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn commands_are_not_readable_in_the_file() {
        let keys = Keys::generate().unwrap();
        let (bytes, _) = encode(&keys, &[1; 12], 1, &sample_records());
        assert!(!bytes.windows(5).any(|window| window == b"hello"));
    }
}
