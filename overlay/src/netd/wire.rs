//! DNS messages: what to do with a query's bytes. Pure.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use rswarm_types::limits::DNS_TTL_SECONDS;

use super::limits::{UDP_ANSWER_BYTES_MAX, UDP_ANSWER_BYTES_MIN};
use super::names::{Answer, Names, Target, Wanted};

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Udp,
    Tcp,
}

/// What to do with a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Reply(Vec<u8>),
    /// Pass the bytes on to a server outside; its answer over UDP has at most so many bytes.
    Forward {
        answer_bytes_max: u16,
    },
    /// Not a query: an answer to it could make a loop.
    Ignore,
}

const HEADER_BYTES: usize = 12;
/// The beginning of every message.
pub const ID_BYTES: usize = 2;
/// A compressed owner name.
const POINTER_BYTES: usize = 2;
/// Type, class, TTL and length.
const RECORD_HEAD_BYTES: usize = 10;
/// Priority, weight and port.
const SRV_HEAD_BYTES: usize = 6;
/// An OPT record without options.
const OPT_BYTES: usize = 11;
/// In the third byte: an answer; not all of it.
const RESPONSE_BIT: u8 = 0x80;
const TRUNCATION_BIT: u8 = 0x02;
/// In the fourth byte: the response code.
const CODE_BITS: u8 = 0x0f;
/// More is no label but a pointer to one (RFC 1035 §4.1.4).
const LABEL_BYTES_MAX: u8 = 63;
/// The type and class after a question's name.
const QUESTION_TAIL_BYTES: usize = 4;

/// Decides about the bytes of one query. `turn`: see [`Names::answer`].
pub fn decide(query: &[u8], names: &Names, transport: Transport, turn: u64) -> Decision {
    let Some(asked) = Asked::read(query) else {
        return Decision::Ignore;
    };
    let refuse = |code| asked.reply(code, Records::default(), transport);
    let question = match (&asked.question, asked.metadata.op_code) {
        (_, code) if code != OpCode::Query => return refuse(ResponseCode::NotImp),
        (None, _) => return refuse(ResponseCode::FormErr),
        (Some(question), _) => question,
    };
    if asked.edns.as_ref().is_some_and(|e| e.version() > 0) {
        return refuse(ResponseCode::BADVERS);
    }
    if !matches!(question.query_class(), DNSClass::IN | DNSClass::ANY) {
        return refuse(ResponseCode::Refused);
    }
    let wanted = match question.query_type() {
        RecordType::A => Wanted::V4,
        RecordType::AAAA => Wanted::V6,
        RecordType::PTR => Wanted::Pointer,
        RecordType::SRV => Wanted::Service,
        RecordType::ANY => Wanted::Any,
        RecordType::AXFR | RecordType::IXFR => return refuse(ResponseCode::Refused),
        _ => Wanted::Other,
    };
    let found = match key(question.name()) {
        Some(name) => names.answer(&name, wanted, turn),
        None => names.answer("", wanted, turn),
    };
    let owner = question.name();
    let records = match found {
        // Its answer could not be told from a forged one.
        Answer::Forward if question_end(query).is_none() => return refuse(ResponseCode::FormErr),
        Answer::Forward => return Decision::Forward { answer_bytes_max: asked.offered_bytes() },
        Answer::Missing => return refuse(ResponseCode::NXDomain),
        Answer::Empty => Records::default(),
        Answer::Addresses(list) => Records::of(list.into_iter().map(|ip| address_record(owner, ip))),
        Answer::Pointers(list) => {
            let names = list.iter().filter_map(|name| host(name));
            Records::of(names.map(|name| record(owner, RData::PTR(PTR(name)))))
        }
        Answer::Service { port, targets } => Records::of_service(owner, port, &targets),
    };
    asked.reply(ResponseCode::NoError, records, transport)
}

/// What an answer holds.
#[derive(Default)]
struct Records {
    answers: Vec<Record>,
    /// Worth knowing besides; left out where they do not fit.
    additionals: Vec<Record>,
}

impl Records {
    fn of(answers: impl Iterator<Item = Record>) -> Self {
        Self { answers: answers.collect(), additionals: Vec::new() }
    }

    fn of_service(owner: &Name, port: u16, targets: &[Target]) -> Self {
        let mut records = Self::default();
        for target in targets {
            let Some(name) = host(&target.name) else { continue };
            records.additionals.extend(target.addresses.iter().map(|ip| address_record(&name, *ip)));
            records.answers.push(record(owner, RData::SRV(SRV::new(0, 0, port, name))));
        }
        records
    }
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), DNS_TTL_SECONDS, data)
}

fn address_record(owner: &Name, address: IpAddr) -> Record {
    record(
        owner,
        match address {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        },
    )
}

/// `None` for what DNS cannot hold, such as an empty label.
fn host(name: &str) -> Option<Name> {
    Name::from_labels(name.split('.').map(str::as_bytes)).ok()
}

/// A name that is written out, with the empty label at its end, which hickory does not count.
fn name_bytes(name: &Name) -> usize {
    name.len() + 1
}

/// What a record of ours takes at most in the answer to a question about `asked`.
fn bytes_of(record: &Record, asked: Option<&Name>) -> usize {
    let owner = if asked == Some(&record.name) { POINTER_BYTES } else { name_bytes(&record.name) };
    let data = match &record.data {
        RData::A(_) => size_of::<A>(),
        RData::AAAA(_) => size_of::<AAAA>(),
        RData::PTR(PTR(name)) => name_bytes(name),
        RData::SRV(srv) => SRV_HEAD_BYTES + name_bytes(&srv.target),
        // We make no others.
        _ => usize::from(u16::MAX),
    };
    owner + RECORD_HEAD_BYTES + data
}

/// Keeps the first records that fit, and takes them off `room`. Whether all did.
fn cut(records: &mut Vec<Record>, asked: Option<&Name>, room: &mut usize) -> bool {
    let fits = records.iter().take_while(|record| {
        let rest = room.checked_sub(bytes_of(record, asked));
        *room = rest.unwrap_or(*room);
        rest.is_some()
    });
    let count = fits.count();
    let all = count == records.len();
    records.truncate(count);
    all
}

/// The answer to a query that nobody outside answered. `None` if it is no query.
pub fn server_failure(query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    match Asked::read(query)?.reply(ResponseCode::ServFail, Records::default(), transport) {
        Decision::Reply(bytes) => Some(bytes),
        Decision::Forward { .. } | Decision::Ignore => None,
    }
}

/// A query that is too long to be read: `start` is its beginning.
pub fn format_error(start: &[u8], transport: Transport) -> Option<Vec<u8>> {
    match Asked::read(start)?.reply(ResponseCode::FormErr, Records::default(), transport) {
        Decision::Reply(bytes) => Some(bytes),
        Decision::Forward { .. } | Decision::Ignore => None,
    }
}

/// Whether `answer` may be passed to whoever sent `query`: a response with its id, to its question
/// (RFC 5452 §9.1). A server that could not read the question may leave it out.
pub fn is_answer_to(query: &[u8], answer: &[u8]) -> bool {
    let (Some(end), Some(head)) = (question_end(query), answer.get(..HEADER_BYTES)) else {
        return false;
    };
    if head[..ID_BYTES] != query[..ID_BYTES] || head[2] & RESPONSE_BIT == 0 {
        return false;
    }
    match head[4..6] {
        [0, 1] => answer.get(HEADER_BYTES..end).is_some_and(|q| q.eq_ignore_ascii_case(&query[HEADER_BYTES..end])),
        [0, 0] => head[3] & CODE_BITS != 0,
        _ => false,
    }
}

/// The answer without records and with the mark that it was cut. `query` is what it answers.
pub fn cut_short(query: &[u8], mut answer: Vec<u8>) -> Vec<u8> {
    answer.truncate(question_end(query).unwrap_or(HEADER_BYTES));
    answer[2] |= TRUNCATION_BIT;
    answer[6..HEADER_BYTES].fill(0);
    answer
}

/// Where the only question of a query ends, if its name is written out.
fn question_end(query: &[u8]) -> Option<usize> {
    if query.get(4..6)? != [0, 1] {
        return None;
    }
    let mut place = HEADER_BYTES;
    loop {
        let length = *query.get(place)?;
        if length > LABEL_BYTES_MAX {
            return None;
        }
        place += 1 + usize::from(length);
        if length == 0 {
            let end = place + QUESTION_TAIL_BYTES;
            return (end <= query.len()).then_some(end);
        }
    }
}

/// Whether another server may know better than this answer.
pub fn is_server_trouble(answer: &[u8]) -> bool {
    let code = answer.get(3).map_or(0, |b| b & CODE_BITS);
    [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp].iter().any(|c| c.low() == code)
}

struct Asked {
    metadata: Metadata,
    /// `None` where there is not exactly one, or it cannot be read.
    question: Option<Query>,
    edns: Option<Edns>,
}

impl Asked {
    fn read(bytes: &[u8]) -> Option<Self> {
        if let Ok(message) = Message::from_vec(bytes) {
            let mut queries = message.queries;
            let question = if queries.len() == 1 { queries.pop() } else { None };
            let metadata = message.metadata;
            return (metadata.message_type == MessageType::Query).then_some(Self {
                metadata,
                question,
                edns: message.edns,
            });
        }
        // Something after the question is strange to us. A server outside may understand it.
        let mut decoder = BinDecoder::new(bytes);
        let header = hickory_proto::op::Header::read(&mut decoder).ok()?;
        let question = (header.counts.queries == 1).then(|| Query::read(&mut decoder).ok()).flatten();
        (header.metadata.message_type == MessageType::Query).then_some(Self {
            metadata: header.metadata,
            question,
            edns: None,
        })
    }

    /// What the client takes over UDP.
    fn offered_bytes(&self) -> u16 {
        self.edns.as_ref().map_or(UDP_ANSWER_BYTES_MIN, Edns::max_payload).max(UDP_ANSWER_BYTES_MIN)
    }

    fn reply(&self, code: ResponseCode, mut records: Records, transport: Transport) -> Decision {
        let bytes_max = match transport {
            Transport::Udp => self.offered_bytes().min(UDP_ANSWER_BYTES_MAX),
            Transport::Tcp => u16::MAX,
        };
        let mut message = Message::new(self.metadata.id, MessageType::Response, self.metadata.op_code);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.metadata.response_code = code;
        message.metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        let mut room = usize::from(bytes_max) - HEADER_BYTES;
        if let Some(question) = &self.question {
            room -= name_bytes(question.name()) + QUESTION_TAIL_BYTES;
            message.add_query(question.clone());
        }
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_ANSWER_BYTES_MAX);
            message.set_edns(edns);
            room -= OPT_BYTES;
        }
        let asked = self.question.as_ref().map(Query::name);
        // Some of the tasks now are better than none: not every client asks again by TCP.
        if cut(&mut records.answers, asked, &mut room) {
            cut(&mut records.additionals, asked, &mut room);
        } else {
            message.metadata.truncation = true;
            records.additionals.clear();
        }
        message.answers = records.answers;
        message.additionals = records.additionals;
        let mut bytes = Vec::with_capacity(usize::from(UDP_ANSWER_BYTES_MIN));
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(bytes_max);
        match message.emit(&mut encoder) {
            Ok(()) => Decision::Reply(bytes),
            Err(_) => Decision::Ignore,
        }
    }
}

/// The name as [`Names::answer`] wants it. `None` for one that no table can hold.
fn key(name: &Name) -> Option<String> {
    let mut key = String::with_capacity(name.len());
    for label in name.iter() {
        if !key.is_empty() {
            key.push('.');
        }
        if label.contains(&b'.') {
            return None;
        }
        key.push_str(str::from_utf8(label).ok()?);
    }
    key.make_ascii_lowercase();
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::names::NetworkIndex;
    use super::super::protocol::{NetworkNames, SandboxDns, ServiceNames, TaskNames};
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn names(tasks: u8) -> Names {
        let tasks = (0..tasks).map(|n| TaskNames {
            name: format!("rr.{n}.x"),
            others: vec![],
            addresses: vec![[10, 0, 1, n].into(), [0xfd00, 0, 0, 0, 0, 0, 0, n.into()].into()],
            ready: true,
        });
        let network = NetworkNames {
            name: "net".into(),
            services: vec![ServiceNames { name: "rr".into(), tasks: tasks.collect(), ..ServiceNames::default() }],
            ..NetworkNames::default()
        };
        Names::new(&SandboxDns::default(), vec![Arc::new(NetworkIndex::new(network))])
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(0xbeef, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        message
    }

    fn ask(message: &Message, tasks: u8, transport: Transport) -> Message {
        match decide(&message.to_vec().unwrap(), &names(tasks), transport, 5) {
            Decision::Reply(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_answer_repeats_the_question_as_it_was_written() {
        let reply = ask(&query("Rr.", RecordType::A), 2, Transport::Udp);
        assert_eq!(reply.metadata.id, 0xbeef);
        assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
        assert!(reply.queries[0].name().eq_case(&Name::from_ascii("Rr.").unwrap()));
        assert_eq!(reply.answers.len(), 2);
        assert!(reply.answers.iter().all(|r| r.ttl == DNS_TTL_SECONDS));
        assert!(reply.edns.is_none());
    }

    #[test]
    fn more_addresses_than_fit_are_cut_and_marked_and_tcp_has_them_all() {
        let plain = query("rr.", RecordType::A);
        let mut offers = plain.clone();
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        offers.set_edns(edns);
        for (message, transport, count, cut) in [
            (&plain, Transport::Udp, (512 - 12 - 8) / 16, true),
            (&offers, Transport::Udp, (1232 - 12 - 8 - 11) / 16, true),
            (&plain, Transport::Tcp, 200, false),
            (&offers, Transport::Tcp, 200, false),
        ] {
            let reply = ask(message, 200, transport);
            assert_eq!(reply.answers.len(), count);
            assert_eq!(reply.metadata.truncation, cut);
            assert_eq!(reply.edns.is_some(), message.edns.is_some());
        }
    }

    #[test]
    fn what_is_cut_fits_whatever_the_type() {
        for (name, kind) in [
            ("rr.", RecordType::A),
            ("rr.", RecordType::AAAA),
            ("rr.", RecordType::ANY),
            ("_80._tcp.rr.", RecordType::SRV),
        ] {
            for offer in [None, Some(512), Some(1232), Some(4096), Some(60_000)] {
                let mut message = query(name, kind);
                if let Some(offer) = offer {
                    let mut edns = Edns::new();
                    edns.set_max_payload(offer);
                    message.set_edns(edns);
                }
                let max = usize::from(offer.unwrap_or(512).min(UDP_ANSWER_BYTES_MAX));
                let bytes = message.to_vec().unwrap();
                let Decision::Reply(bytes) = decide(&bytes, &names(255), Transport::Udp, 5) else { panic!("{name}") };
                let reply = Message::from_vec(&bytes).unwrap();
                assert!(bytes.len() <= max && bytes.len() + 64 > max, "{kind} {offer:?}: {} bytes", bytes.len());
                assert!(reply.metadata.truncation, "{kind} {offer:?}");
                assert!(reply.additionals.is_empty(), "{kind} {offer:?}");
                assert_eq!(reply.edns.is_some(), offer.is_some(), "{kind} {offer:?}");
                let whole = ask(&message, 255, Transport::Tcp);
                let expected = if kind == RecordType::ANY { 510 } else { 255 };
                assert_eq!((whole.answers.len(), whole.metadata.truncation), (expected, false), "{kind}");
            }
        }
    }

    #[test]
    fn a_port_is_answered_with_the_tasks_and_their_addresses() {
        let reply = ask(&query("_80._tcp.rr.", RecordType::SRV), 2, Transport::Udp);
        let mut answers: Vec<String> = reply.answers.iter().map(|r| r.data.to_string()).collect();
        answers.sort();
        assert_eq!(answers, ["0 0 80 rr.0.x.net.", "0 0 80 rr.1.x.net."]);
        let mut besides: Vec<String> = reply.additionals.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
        besides.sort();
        assert_eq!(
            besides,
            ["rr.0.x.net. 10.0.1.0", "rr.0.x.net. fd00::", "rr.1.x.net. 10.0.1.1", "rr.1.x.net. fd00::1"]
        );
        // As many addresses as fit: without them nothing is marked as cut.
        let reply = ask(&query("_80._tcp.rr.", RecordType::SRV), 9, Transport::Udp);
        assert_eq!((reply.answers.len(), reply.metadata.truncation), (9, false));
        assert!(reply.additionals.len() < 18);
    }

    #[test]
    fn pointers_name_the_task_in_its_network() {
        let reply = ask(&query("1.1.0.10.in-addr.arpa.", RecordType::PTR), 2, Transport::Udp);
        assert_eq!(reply.answers[0].data.to_string(), "rr.1.x.net.");
    }

    #[test]
    fn what_is_no_plain_question_is_refused_with_its_code() {
        let names = names(1);
        let code = |bytes: &[u8]| -> Option<u16> {
            match decide(bytes, &names, Transport::Udp, 1) {
                Decision::Reply(bytes) => Some(Message::from_vec(&bytes).unwrap().response_code.into()),
                _ => None,
            }
        };
        let bytes = |change: fn(&mut Message)| {
            let mut message = query("rr.", RecordType::A);
            change(&mut message);
            message.to_vec().unwrap()
        };
        assert_eq!(code(&bytes(|_| ())), Some(ResponseCode::NoError.into()));
        assert_eq!(code(&bytes(|m| m.metadata.op_code = OpCode::Notify)), Some(ResponseCode::NotImp.into()));
        assert_eq!(code(&bytes(|m| m.queries.clear())), Some(ResponseCode::FormErr.into()));
        assert_eq!(code(&bytes(|m| m.queries.push(m.queries[0].clone()))), Some(ResponseCode::FormErr.into()));
        let chaos = bytes(|m| {
            m.queries[0].set_query_class(DNSClass::CH);
        });
        assert_eq!(code(&chaos), Some(ResponseCode::Refused.into()));
        let newer = bytes(|m| {
            let mut edns = Edns::new();
            edns.set_version(1);
            m.set_edns(edns);
        });
        assert_eq!(code(&newer), Some(ResponseCode::BADVERS.into()));
        assert_eq!(code(&bytes(|m| m.metadata.message_type = MessageType::Response)), None);
        assert_eq!(code(b"short"), None);
        let loops = [&bytes(|_| ())[..HEADER_BYTES], &[0xc0, 12, 0, 1, 0, 1]].concat();
        assert_eq!(code(&loops), Some(ResponseCode::FormErr.into()));
    }

    #[test]
    fn a_label_with_a_dot_inside_is_not_a_service_name() {
        let name = Name::from_labels([&b"tasks.rr"[..]]).unwrap();
        let mut message = query("rr.", RecordType::A);
        message.queries[0].set_name(name);
        let decision = decide(&message.to_vec().unwrap(), &names(1), Transport::Udp, 1);
        assert_eq!(decision, Decision::Forward { answer_bytes_max: 512 });
    }

    #[test]
    fn random_bytes_never_panic() {
        let names = names(3);
        let valid = query("rr.", RecordType::A).to_vec().unwrap();
        let mut state = 1u64;
        for round in 0..20_000usize {
            let mut bytes = valid.clone();
            for _ in 0..3 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(round as u64 | 1);
                let place = (state >> 33) as usize % bytes.len();
                bytes[place] = (state >> 20) as u8;
            }
            bytes.truncate(bytes.len() - round % 7);
            decide(&bytes, &names, Transport::Udp, state);
            server_failure(&bytes, Transport::Udp);
        }
    }

    #[test]
    fn only_a_response_with_the_same_id_and_question_is_passed_on() {
        let sent = query("Some.example.", RecordType::A).to_vec().unwrap();
        let failure = server_failure(&sent, Transport::Udp).unwrap();
        assert!(is_answer_to(&sent, &failure));
        assert!(is_server_trouble(&failure));
        assert!(!is_answer_to(&sent, &sent));
        assert!(!is_answer_to(&sent, &[0; 12]));
        assert!(!is_answer_to(&sent, &failure[..11]));
        let answer_to =
            |name: &str, kind| server_failure(&query(name, kind).to_vec().unwrap(), Transport::Udp).unwrap();
        assert!(is_answer_to(&sent, &answer_to("some.EXAMPLE.", RecordType::A)));
        assert!(!is_answer_to(&sent, &answer_to("none.example.", RecordType::A)));
        assert!(!is_answer_to(&sent, &answer_to("Some.example.", RecordType::AAAA)));
        let without_question = |flags| [&failure[..3], &[flags, 0, 0, 0, 0, 0, 0, 0, 0][..]].concat();
        assert!(is_answer_to(&sent, &without_question(1)));
        assert!(!is_answer_to(&sent, &without_question(0)));
        let mut other_id = failure.clone();
        other_id[0] ^= 1;
        assert!(!is_answer_to(&sent, &other_id));
    }

    #[test]
    fn an_answer_that_is_cut_short_keeps_its_question() {
        let message = query("rr.", RecordType::A);
        let sent = message.to_vec().unwrap();
        let Decision::Reply(whole) = decide(&sent, &names(9), Transport::Tcp, 1) else { panic!() };
        let reply = Message::from_vec(&cut_short(&sent, whole)).unwrap();
        assert!(reply.metadata.truncation && reply.answers.is_empty());
        assert_eq!(reply.queries, message.queries);
    }

    fn any_query() -> impl Strategy<Value = Vec<u8>> {
        let header = (any::<[u8; 12]>(), any::<bool>()).prop_map(|(mut header, is_plain)| {
            if is_plain {
                header[2..].copy_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
            }
            header.to_vec()
        });
        let known = prop_oneof![Just("rr"), Just("_80._tcp.rr"), Just("1.1.0.10.in-addr.arpa"), Just("example.com")];
        let name = known.prop_map(|name| {
            let labels = name.split('.').flat_map(|l| std::iter::once(l.len() as u8).chain(l.bytes()));
            labels.chain([0]).collect::<Vec<u8>>()
        });
        let name = prop_oneof![4 => name, 1 => vec(any::<u8>(), 0..40)];
        let tail = (any::<[u8; 4]>(), vec(any::<u8>(), 0..80));
        (header, name, tail).prop_map(|(header, name, (tail, more))| [header, name, tail.to_vec(), more].concat())
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered_by_its_id_or_not_at_all(
            bytes in prop_oneof![any_query(), vec(any::<u8>(), 0..600)],
            turn: u64,
            by_udp: bool,
        ) {
            let transport = if by_udp { Transport::Udp } else { Transport::Tcp };
            let decision = decide(&bytes, &names(200), transport, turn);
            let late = server_failure(&bytes, transport);
            let long = format_error(&bytes, transport);
            let replies = [late, long].into_iter().flatten();
            let now = if let Decision::Reply(reply) = decision { Some(reply) } else { None };
            for reply in replies.chain(now) {
                let message = Message::from_vec(&reply).unwrap();
                prop_assert_eq!(&reply[..2], &bytes[..2]);
                prop_assert_eq!(message.metadata.message_type, MessageType::Response);
                prop_assert!(!by_udp || reply.len() <= usize::from(UDP_ANSWER_BYTES_MAX));
            }
            is_answer_to(&bytes, &bytes);
        }
    }
}
