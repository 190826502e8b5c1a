//! A netlink socket; it keeps the network namespace that it was opened in.

use std::io;

use netlink_sys::Socket as RawSocket;
use nix::sys::socket::{setsockopt, sockopt};

use super::attribute::attribute;

/// Requests in one datagram: their acknowledgements must fit the receive buffer.
const BATCH_MESSAGES: usize = 64;
/// Bytes of one datagram to us; the kernel fills at most 32 KiB of a dump.
const RECEIVE_BYTES: usize = 128 * 1024;
/// Room for one transaction with tens of thousands of elements, in bytes.
const SEND_BUFFER_BYTES: usize = 64 * 1024 * 1024;
/// A dump that others keep changing is read again so often.
const DUMP_ATTEMPTS: usize = 10;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTERRUPTED: u16 = 0x10;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// A request or an answer: the family's header, then attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub kind: u16,
    /// Beside `NLM_F_REQUEST` and `NLM_F_ACK`, which the socket sets.
    pub flags: u16,
    pub body: Vec<u8>,
}

/// The kernel said no, or could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("netlink socket")]
    Socket(#[source] io::Error),
    /// `position` counts the messages of the batch from 0.
    #[error("the kernel refused: {source}{}", if text.is_empty() { String::new() } else { format!(" ({text})") })]
    Refused { position: usize, text: String, source: io::Error },
    #[error("the kernel's answer is not understood: {0}")]
    Malformed(&'static str),
    #[error("others keep changing what is being read")]
    Interrupted,
}

impl NetlinkError {
    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket(source) => source.raw_os_error(),
            Self::Malformed(_) | Self::Interrupted => None,
        }
    }
}

/// One answer of the kernel.
struct Answer {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: Vec<u8>,
}

/// A netlink socket of one family in one network namespace.
#[derive(Debug)]
pub struct Socket {
    raw: RawSocket,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// When the kernel lacks the family or we lack the right.
    pub fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let open = || -> io::Result<RawSocket> {
            let mut raw = RawSocket::new(protocol)?;
            raw.bind_auto()?;
            // Errors name what was wrong and do not echo the request.
            raw.set_ext_ack(true)?;
            raw.set_cap_ack(true)?;
            // Without the right to force it the default stays, and only large transactions fail.
            let _ = setsockopt(&raw, sockopt::SndBufForce, &SEND_BUFFER_BYTES);
            Ok(raw)
        };
        let raw = open().map_err(NetlinkError::Socket)?;
        Ok(Self { raw, sequence: 0, buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Sends requests in batches; all are tried, and the first refusal is returned.
    ///
    /// # Errors
    /// The refusals, each with its position.
    pub fn request(&mut self, messages: &[Message]) -> Result<(), Vec<NetlinkError>> {
        let mut refusals = Vec::new();
        for (batch, chunk) in messages.chunks(BATCH_MESSAGES).enumerate() {
            let first = self.sequence.wrapping_add(1);
            self.send(chunk, |_| NLM_F_ACK).map_err(|e| vec![e])?;
            let mut waiting = chunk.len();
            while waiting > 0 {
                let answers = self.receive(0).map_err(|e| vec![e])?;
                for answer in answers.iter().filter(|a| a.kind == NLMSG_ERROR) {
                    let position = answer.sequence.wrapping_sub(first) as usize;
                    if position >= chunk.len() {
                        continue;
                    }
                    waiting -= 1;
                    if let Some(error) = refusal(answer, batch * BATCH_MESSAGES + position) {
                        refusals.push(error);
                    }
                }
            }
        }
        if refusals.is_empty() { Ok(()) } else { Err(refusals) }
    }

    /// Asks for one object.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because there is none.
    pub fn get(&mut self, message: &Message) -> Result<Vec<u8>, NetlinkError> {
        self.send(std::slice::from_ref(message), |_| 0)?;
        let sequence = self.sequence;
        loop {
            for answer in self.receive(0)? {
                if answer.sequence != sequence {
                    continue;
                }
                if answer.kind != NLMSG_ERROR {
                    return Ok(answer.body);
                }
                if let Some(error) = refusal(&answer, 0) {
                    return Err(error);
                }
            }
        }
    }

    /// Asks for all objects of a kind.
    ///
    /// # Errors
    /// When the kernel refuses, or others change the objects ten times while they are read.
    pub fn dump(&mut self, message: &Message) -> Result<Vec<Vec<u8>>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            match self.dump_once(message) {
                Ok(Some(bodies)) => return Ok(bodies),
                Ok(None) => {}
                Err(e) if e.errno() == Some(libc::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
        Err(NetlinkError::Interrupted)
    }

    fn dump_once(&mut self, message: &Message) -> Result<Option<Vec<Vec<u8>>>, NetlinkError> {
        self.send(std::slice::from_ref(message), |_| NLM_F_DUMP)?;
        let sequence = self.sequence;
        let mut bodies = Vec::new();
        let mut is_interrupted = false;
        loop {
            for answer in self.receive(0)? {
                if answer.sequence != sequence {
                    continue;
                }
                is_interrupted |= answer.flags & NLM_F_DUMP_INTERRUPTED != 0;
                match answer.kind {
                    NLMSG_DONE => {
                        let code = answer.body.first_chunk().map_or(0, |c| i32::from_ne_bytes(*c));
                        if code < 0 {
                            let source = io::Error::from_raw_os_error(-code);
                            return Err(NetlinkError::Refused { position: 0, text: String::new(), source });
                        }
                        return Ok((!is_interrupted).then_some(bodies));
                    }
                    NLMSG_ERROR => {
                        return match refusal(&answer, 0) {
                            Some(error) => Err(error),
                            None => Ok(Some(bodies)),
                        };
                    }
                    _ => bodies.push(answer.body),
                }
            }
        }
    }

    /// Sends messages as one datagram that takes effect as a whole, or not at all (nfnetlink).
    ///
    /// # Errors
    /// The first refusal.
    pub fn transact(&mut self, messages: &[Message]) -> Result<(), NetlinkError> {
        let first = self.sequence.wrapping_add(1);
        // One acknowledgement, of the last message before the end marker.
        let last = messages.len().saturating_sub(2);
        self.send(messages, |position| if position == last { NLM_F_ACK } else { 0 })?;
        let mut worst: Option<(usize, NetlinkError)> = None;
        let mut is_acknowledged = false;
        loop {
            let answers = match self.receive(libc::MSG_DONTWAIT) {
                Ok(answers) => answers,
                Err(NetlinkError::Socket(e)) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            };
            for answer in answers.iter().filter(|a| a.kind == NLMSG_ERROR) {
                let position = answer.sequence.wrapping_sub(first) as usize;
                match refusal(answer, position) {
                    Some(error) if worst.as_ref().is_none_or(|(p, _)| position < *p) => {
                        worst = Some((position, error));
                    }
                    Some(_) => {}
                    None => is_acknowledged |= position == last,
                }
            }
        }
        match worst {
            Some((_, error)) => Err(error),
            None if is_acknowledged => Ok(()),
            None => Err(NetlinkError::Malformed("a transaction was not acknowledged")),
        }
    }

    fn send(&mut self, messages: &[Message], flags: impl Fn(usize) -> u16) -> Result<(), NetlinkError> {
        let mut bytes = Vec::with_capacity(messages.iter().map(|m| HEADER + m.body.len() + 4).sum());
        for (position, message) in messages.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let length = u32::try_from(HEADER + message.body.len())
                .map_err(|_| NetlinkError::Malformed("a message above 4 GiB"))?;
            bytes.extend_from_slice(&length.to_ne_bytes());
            bytes.extend_from_slice(&message.kind.to_ne_bytes());
            let all_flags = NLM_F_REQUEST | message.flags | flags(position);
            bytes.extend_from_slice(&all_flags.to_ne_bytes());
            bytes.extend_from_slice(&self.sequence.to_ne_bytes());
            bytes.extend_from_slice(&0u32.to_ne_bytes());
            bytes.extend_from_slice(&message.body);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        loop {
            match self.raw.send(&bytes, 0) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(NetlinkError::Socket(e)),
            }
        }
    }

    fn receive(&mut self, flags: libc::c_int) -> Result<Vec<Answer>, NetlinkError> {
        self.buffer.clear();
        loop {
            match self.raw.recv(&mut self.buffer, flags) {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(NetlinkError::Socket(e)),
            }
        }
        split(&self.buffer)
    }
}

/// Cuts a datagram into its messages.
fn split(mut bytes: &[u8]) -> Result<Vec<Answer>, NetlinkError> {
    const CUT: NetlinkError = NetlinkError::Malformed("a message is cut");
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let head: &[u8; HEADER] = bytes.first_chunk().ok_or(CUT)?;
        let word = |at: usize| u32::from_ne_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let length = word(0) as usize;
        answers.push(Answer {
            kind: u16::from_ne_bytes([head[4], head[5]]),
            flags: u16::from_ne_bytes([head[6], head[7]]),
            sequence: word(8),
            body: bytes.get(HEADER..length).ok_or(CUT)?.to_vec(),
        });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(answers)
}

/// The error in an `NLMSG_ERROR`; `None` is an acknowledgement.
fn refusal(answer: &Answer, position: usize) -> Option<NetlinkError> {
    let code = answer.body.first_chunk().map_or(-libc::EPROTO, |c| i32::from_ne_bytes(*c));
    if code == 0 {
        return None;
    }
    // The error is followed by the request (its header only, when capped), then by attributes.
    let echoed = if answer.flags & NLM_F_CAPPED != 0 {
        HEADER
    } else {
        let length = answer.body.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
        (length.unwrap_or(HEADER as u32) as usize).next_multiple_of(4)
    };
    let text = (answer.flags & NLM_F_ACK_TLVS != 0)
        .then(|| answer.body.get(4 + echoed..))
        .flatten()
        .and_then(|attributes| attribute(attributes, NLMSGERR_ATTR_MSG))
        .map(|text| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
        .unwrap_or_default();
    Some(NetlinkError::Refused { position, text, source: io::Error::from_raw_os_error(-code) })
}

/// What a subscriber of a multicast group hears: kind and body of each message.
pub fn notifications(datagram: &[u8]) -> Vec<(u16, Vec<u8>)> {
    split(datagram).unwrap_or_default().into_iter().map(|a| (a.kind, a.body)).collect()
}
