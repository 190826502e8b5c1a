//! The only place where bytes become commands: the state machine that Raft drives.

use std::io;

use bytes::Bytes;
use prost::Message;
use rswarm_api::{Wire, pb};
use rswarm_raft::{Halt, LogPosition, Membership, SnapshotSource, StateMachine};
use rswarm_store::{Changed, State};
use rswarm_types::assignment::LogId;
use rswarm_types::command::Command;
use rswarm_types::limits::FEATURE_LEVEL;
use tokio::sync::watch;

use crate::feed::{Feed, everything};
use crate::records;

/// The replicated state at one place in the log. Cloning costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub state: State,
    /// The last entry applied.
    pub at: LogPosition,
    /// Term of the last leader whose blank entry was applied, i.e. that may propose.
    pub led_by: u64,
    /// Who votes and who learns.
    pub membership: Membership,
}

impl Snapshot {
    /// The place that assignments are stamped with.
    pub fn log_id(&self) -> LogId {
        LogId { era: self.state.cluster().map_or(0, |c| c.era), term: self.at.term, index: self.at.index }
    }
}

/// Drives the store from the log, and publishes each state.
pub struct Machine {
    current: watch::Sender<Snapshot>,
    feed: Feed,
}

impl Machine {
    /// A machine with an empty state, the state it publishes, and the feed of its changes.
    pub fn new() -> (Self, watch::Receiver<Snapshot>, Feed) {
        let (current, receiver) = watch::channel(Snapshot::default());
        let feed = Feed::default();
        (Self { current, feed: feed.clone() }, receiver, feed)
    }
}

/// The bytes of a command in the log.
pub fn encode(command: &Command) -> Bytes {
    command.to_pb().encode_to_vec().into()
}

fn decode(bytes: &[u8]) -> Result<(Command, [u8; 32]), Halt> {
    let pb = pb::Command::decode(bytes).map_err(|e| unreadable(&e.to_string()))?;
    let hash =
        ring::digest::digest(&ring::digest::SHA256, &pb.body.as_ref().map(Message::encode_to_vec).unwrap_or_default());
    let mut body_hash = [0; 32];
    body_hash.copy_from_slice(hash.as_ref());
    let command = Command::from_pb(pb).map_err(|e| unreadable(&e.to_string()))?;
    Ok((command, body_hash))
}

fn unreadable(why: &str) -> Halt {
    Halt(format!(
        "an entry of the log cannot be read by this build (feature level {FEATURE_LEVEL}): {why}; \
         install the version that the other managers run and start this node again"
    ))
}

impl StateMachine for Machine {
    fn apply(&mut self, at: LogPosition, bytes: &[u8]) -> Result<Bytes, Halt> {
        let (command, body_hash) = decode(bytes)?;
        let mut changed = Changed::default();
        let mut answer = None;
        self.current.send_modify(|snapshot| {
            let applied = snapshot.state.apply(at.index, &command, body_hash);
            snapshot.at = at;
            changed = applied.changed;
            answer = Some(applied.result);
        });
        self.feed.publish(&changed);
        let answer = answer.ok_or_else(|| Halt("the store gave no answer".into()))?;
        Ok(answer.to_pb().encode_to_vec().into())
    }

    fn applied_blank(&mut self, at: LogPosition) {
        self.current.send_modify(|snapshot| {
            snapshot.at = at;
            snapshot.led_by = at.term;
        });
    }

    fn applied_membership(&mut self, at: LogPosition, membership: &Membership) {
        self.current.send_modify(|snapshot| {
            snapshot.at = at;
            snapshot.membership = membership.clone();
        });
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        let current = self.current.borrow();
        Box::new(Source { state: current.state.clone(), led_by: current.led_by })
    }

    fn restore(&mut self, at: LogPosition, membership: &Membership, input: &mut dyn io::Read) -> io::Result<()> {
        let mut number = [0; 8];
        input.read_exact(&mut number)?;
        let led_by = u64::from_be_bytes(number);
        let state =
            State::from_records(records::read(input)?).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let changed = everything(&state);
        self.current.send_replace(Snapshot { state, at, led_by, membership: membership.clone() });
        self.feed.publish(&changed);
        Ok(())
    }
}

/// A state on its way to disk or to a peer: the term, then the records.
struct Source {
    state: State,
    led_by: u64,
}

impl SnapshotSource for Source {
    fn write(self: Box<Self>, out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(&self.led_by.to_be_bytes())?;
        records::write(&self.state, out)
    }
}
