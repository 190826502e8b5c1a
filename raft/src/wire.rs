//! The messages between members: our own layout, versioned, naming cluster, sender and receiver.
//!
//! ```text
//! version u8 · kind u8 · cluster 16 · from u64 · to u64 · body
//! ```

use bytes::Bytes;
use openraft::AsyncRuntime;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse,
    VoteRequest, VoteResponse,
};

use crate::codec::{Decoder, Encoder, Malformed};
use crate::log::Identity;
use crate::member::{ClusterTag, MemberId};
use crate::snapshot::{Chunk, TransferId};
use crate::types::{TypeConfig, Vote};

const VERSION: u8 = 1;

/// What one member asks another.
pub(crate) enum Request<R: AsyncRuntime> {
    Append(AppendEntriesRequest<TypeConfig<R>>),
    Vote(VoteRequest<TypeConfig<R>>),
    PreVote(VoteRequest<TypeConfig<R>>),
    Snapshot { vote: Vote, chunk: Chunk },
    TransferLeader(TransferLeaderRequest<TypeConfig<R>>),
}

/// What it is answered.
pub(crate) enum Answer<R: AsyncRuntime> {
    Append(AppendEntriesResponse<TypeConfig<R>>),
    Vote(VoteResponse<TypeConfig<R>>),
    /// The receiver's vote, and where the next piece should begin; `None` once the snapshot is installed.
    Snapshot {
        vote: Vote,
        next: Option<u64>,
    },
    TransferLeader(TransferLeaderResponse<TypeConfig<R>>),
    Refused(Refusal),
}

/// Why a message got no answer of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the message is malformed: {0}")]
    Malformed(String),
    #[error("the message is for cluster {asked}, this is cluster {here}")]
    OtherCluster { asked: ClusterTag, here: ClusterTag },
    #[error("the message is for member {asked}, this is member {here}")]
    OtherMember { asked: MemberId, here: MemberId },
    #[error("the member has stopped: {0}")]
    Stopped(String),
    #[error("the snapshot could not be stored: {0}")]
    NotStored(String),
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error.to_string())
    }
}

/// The kinds of messages; answers have the high bit set.
mod kind {
    pub const APPEND: u8 = 1;
    pub const VOTE: u8 = 2;
    pub const PRE_VOTE: u8 = 3;
    pub const SNAPSHOT: u8 = 4;
    pub const TRANSFER_LEADER: u8 = 5;
    pub const ANSWER: u8 = 0x80;
    pub const REFUSED: u8 = 0xff;
}

fn header(kind: u8, from: Identity, to: MemberId, capacity: usize) -> Encoder {
    let mut out = Encoder::with_capacity(64 + capacity);
    out.u8(VERSION);
    out.u8(kind);
    out.raw(&from.cluster.0);
    out.u64(from.member.0);
    out.u64(to.0);
    out
}

/// Reads a header; the kind and the sender of a message that is for `here`.
fn open(input: &mut Decoder, here: Identity) -> Result<(u8, MemberId), Refusal> {
    let version = input.u8("version")?;
    if version != VERSION {
        return Err(Refusal::Malformed(format!("version is {version}, allowed: {VERSION}")));
    }
    let kind = input.u8("kind")?;
    let mut asked = ClusterTag([0; 16]);
    asked.0.copy_from_slice(&input.raw(16, "cluster")?);
    let from = MemberId(input.u64("sender")?);
    let to = MemberId(input.u64("receiver")?);
    if asked != here.cluster {
        return Err(Refusal::OtherCluster { asked, here: here.cluster });
    }
    if to != here.member {
        return Err(Refusal::OtherMember { asked: to, here: here.member });
    }
    Ok((kind, from))
}

impl<R: AsyncRuntime> Request<R> {
    pub fn encode(&self, from: Identity, to: MemberId) -> Bytes {
        match self {
            Self::Append(request) => {
                let weight = request.entries.iter().map(|entry| 64 + crate::log::weight(&entry.payload)).sum();
                let mut out = header(kind::APPEND, from, to, weight);
                out.vote(&request.vote);
                out.optional_log_id(request.prev_log_id.as_ref());
                out.optional_log_id(request.leader_commit.as_ref());
                out.count(request.entries.len());
                request.entries.iter().for_each(|entry| out.entry(entry));
                out.finish()
            }
            Self::Vote(request) => Self::encode_vote(kind::VOTE, request, from, to),
            Self::PreVote(request) => Self::encode_vote(kind::PRE_VOTE, request, from, to),
            Self::Snapshot { vote, chunk } => {
                let mut out = header(kind::SNAPSHOT, from, to, 512 + chunk.data.len());
                out.vote(vote);
                out.snapshot_meta(&chunk.meta);
                out.u64(chunk.id.bytes);
                out.u32(chunk.id.crc);
                out.u64(chunk.offset);
                out.bytes(&chunk.data);
                out.finish()
            }
            Self::TransferLeader(request) => {
                let mut out = header(kind::TRANSFER_LEADER, from, to, 64);
                out.vote(request.from_leader());
                out.u64(*request.to_node_id());
                out.optional_log_id(request.last_log_id());
                out.finish()
            }
        }
    }

    fn encode_vote(kind: u8, request: &VoteRequest<TypeConfig<R>>, from: Identity, to: MemberId) -> Bytes {
        let mut out = header(kind, from, to, 64);
        out.vote(&request.vote);
        out.optional_log_id(request.last_log_id.as_ref());
        out.flag(request.leadership_transfer);
        out.finish()
    }

    /// Reads a message that must be for `here`, and who sent it.
    pub fn decode(message: Bytes, here: Identity) -> Result<(MemberId, Self), Refusal> {
        let mut input = Decoder::new(message);
        let (kind, from) = open(&mut input, here)?;
        let request = match kind {
            kind::APPEND => {
                let vote = input.vote()?;
                let prev_log_id = input.optional_log_id()?;
                let leader_commit = input.optional_log_id()?;
                let count = input.count(17, "entries")?;
                let entries = (0..count).map(|_| input.entry()).collect::<Result<_, _>>()?;
                Self::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
            }
            kind::VOTE | kind::PRE_VOTE => {
                let mut request = VoteRequest::new(input.vote()?, input.optional_log_id()?);
                request.leadership_transfer = input.flag("leadership transfer")?;
                if kind == kind::VOTE { Self::Vote(request) } else { Self::PreVote(request) }
            }
            kind::SNAPSHOT => {
                let vote = input.vote()?;
                let meta = input.snapshot_meta()?;
                let id = TransferId { bytes: input.u64("snapshot")?, crc: input.u32("snapshot")? };
                let offset = input.u64("snapshot")?;
                Self::Snapshot { vote, chunk: Chunk { meta, id, offset, data: input.bytes("snapshot")? } }
            }
            kind::TRANSFER_LEADER => {
                let (vote, to) = (input.vote()?, input.u64("leadership transfer")?);
                Self::TransferLeader(TransferLeaderRequest::new(vote, to, input.optional_log_id()?))
            }
            other => return Err(Refusal::Malformed(format!("kind is {other}"))),
        };
        input.end("message")?;
        Ok((from, request))
    }
}

impl<R: AsyncRuntime> Answer<R> {
    pub fn encode(&self, from: Identity, to: MemberId) -> Bytes {
        let answer = |kind: u8| header(kind::ANSWER | kind, from, to, 64);
        match self {
            Self::Append(response) => {
                let mut out = answer(kind::APPEND);
                match response {
                    AppendEntriesResponse::Success => out.u8(0),
                    AppendEntriesResponse::PartialSuccess(id) => {
                        out.u8(1);
                        out.optional_log_id(id.as_ref());
                    }
                    AppendEntriesResponse::Conflict => out.u8(2),
                    AppendEntriesResponse::HigherVote(vote) => {
                        out.u8(3);
                        out.vote(vote);
                    }
                }
                out.finish()
            }
            Self::Vote(response) => {
                let mut out = answer(kind::VOTE);
                out.vote(&response.vote);
                out.flag(response.vote_granted);
                out.optional_log_id(response.last_log_id.as_ref());
                out.finish()
            }
            Self::Snapshot { vote, next } => {
                let mut out = answer(kind::SNAPSHOT);
                out.vote(vote);
                out.flag(next.is_some());
                out.u64(next.unwrap_or(0));
                out.finish()
            }
            Self::TransferLeader(response) => {
                let mut out = answer(kind::TRANSFER_LEADER);
                match response {
                    Ok(()) => out.u8(0),
                    Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                        out.u8(1);
                        out.vote(expected);
                        out.vote(actual);
                    }
                    Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                        out.u8(2);
                        out.optional_log_id(expected.as_ref());
                        out.optional_log_id(actual.as_ref());
                    }
                }
                out.finish()
            }
            Self::Refused(refusal) => {
                let mut out = header(kind::REFUSED, from, to, 128);
                match refusal {
                    Refusal::Malformed(text) => {
                        out.u8(1);
                        out.bytes(text.as_bytes());
                    }
                    Refusal::OtherCluster { asked, here } => {
                        out.u8(2);
                        out.raw(&asked.0);
                        out.raw(&here.0);
                    }
                    Refusal::OtherMember { asked, here } => {
                        out.u8(3);
                        out.u64(asked.0);
                        out.u64(here.0);
                    }
                    Refusal::Stopped(text) => {
                        out.u8(4);
                        out.bytes(text.as_bytes());
                    }
                    Refusal::NotStored(text) => {
                        out.u8(5);
                        out.bytes(text.as_bytes());
                    }
                }
                out.finish()
            }
        }
    }

    /// Reads the answer to a message that `here` sent to `peer`.
    ///
    /// A refusal may come from somebody else than was asked, and says so itself; every other answer must be the peer's.
    pub fn decode(message: Bytes, here: Identity, peer: MemberId) -> Result<Self, Refusal> {
        let mut input = Decoder::new(message.clone());
        if message.get(1) == Some(&kind::REFUSED) {
            input.raw(34, "header")?;
            return Ok(Self::Refused(refusal(&mut input)?));
        }
        let (kind, from) = open(&mut input, here)?;
        if from != peer {
            return Err(Refusal::OtherMember { asked: peer, here: from });
        }
        let answer = match kind & !kind::ANSWER {
            kind::APPEND => Self::Append(match input.u8("answer")? {
                0 => AppendEntriesResponse::Success,
                1 => AppendEntriesResponse::PartialSuccess(input.optional_log_id()?),
                2 => AppendEntriesResponse::Conflict,
                3 => AppendEntriesResponse::HigherVote(input.vote()?),
                other => return Err(Refusal::Malformed(format!("answer is {other}"))),
            }),
            kind::VOTE => {
                let (vote, granted) = (input.vote()?, input.flag("answer")?);
                Self::Vote(VoteResponse::new(vote, input.optional_log_id()?, granted))
            }
            kind::SNAPSHOT => {
                let (vote, more) = (input.vote()?, input.flag("answer")?);
                let next = input.u64("answer")?;
                Self::Snapshot { vote, next: more.then_some(next) }
            }
            kind::TRANSFER_LEADER => Self::TransferLeader(match input.u8("answer")? {
                0 => Ok(()),
                1 => Err(TransferLeaderError::VoteChanged { expected: input.vote()?, actual: input.vote()? }),
                2 => {
                    let (expected, actual) = (input.optional_log_id()?, input.optional_log_id()?);
                    Err(TransferLeaderError::LogNotFlushed { expected, actual })
                }
                other => return Err(Refusal::Malformed(format!("answer is {other}"))),
            }),
            other => return Err(Refusal::Malformed(format!("kind is {other}"))),
        };
        input.end("message")?;
        Ok(answer)
    }
}

fn refusal(input: &mut Decoder) -> Result<Refusal, Malformed> {
    Ok(match input.u8("refusal")? {
        1 => Refusal::Malformed(input.string("refusal")?),
        2 => {
            let mut cluster = || -> Result<ClusterTag, Malformed> {
                let mut tag = ClusterTag([0; 16]);
                tag.0.copy_from_slice(&input.raw(16, "refusal")?);
                Ok(tag)
            };
            Refusal::OtherCluster { asked: cluster()?, here: cluster()? }
        }
        3 => Refusal::OtherMember { asked: MemberId(input.u64("refusal")?), here: MemberId(input.u64("refusal")?) },
        4 => Refusal::Stopped(input.string("refusal")?),
        5 => Refusal::NotStored(input.string("refusal")?),
        _ => return Err(Malformed { field: "refusal" }),
    })
}
