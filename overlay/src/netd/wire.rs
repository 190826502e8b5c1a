//! DNS messages: what to do with a query's bytes. Pure.

use std::net::Ipv4Addr;

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, BinEncodable, BinEncoder};
use rswarm_types::limits::DNS_TTL_SECONDS;

use super::limits::{UDP_ANSWER_BYTES_MAX, UDP_ANSWER_BYTES_MIN};
use super::names::{Answer, Names, Wanted};

/// How a query came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
/// A compressed owner name, type, class, TTL, length and address.
const A_RECORD_BYTES: usize = 16;
/// An OPT record without options.
const OPT_BYTES: usize = 11;
/// The type and class after a question's name.
const QUESTION_TAIL_BYTES: usize = 4;

/// Decides about the bytes of one query. `turn`: see [`Names::answer`].
pub fn decide(query: &[u8], names: &Names, transport: Transport, turn: u64) -> Decision {
    let Some(asked) = Asked::read(query) else {
        return Decision::Ignore;
    };
    let refuse = |code| asked.reply(code, Vec::new(), transport);
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
        RecordType::A | RecordType::ANY => Wanted::Address,
        RecordType::PTR => Wanted::Pointer,
        RecordType::AXFR | RecordType::IXFR => return refuse(ResponseCode::Refused),
        _ => Wanted::Other,
    };
    let found = match key(question.name()) {
        Some(name) => names.answer(&name, wanted, turn),
        None => names.answer("", wanted, turn),
    };
    let owner = question.name();
    let record = |data| Record::from_rdata(owner.clone(), DNS_TTL_SECONDS, data);
    match found {
        Answer::Forward => Decision::Forward { answer_bytes_max: asked.offered_bytes() },
        Answer::Missing => refuse(ResponseCode::NXDomain),
        Answer::Empty => refuse(ResponseCode::NoError),
        Answer::Addresses(list) => {
            let records = list.into_iter().map(|ip: Ipv4Addr| record(RData::A(A(ip)))).collect();
            asked.reply(ResponseCode::NoError, records, transport)
        }
        Answer::Pointers(list) => {
            let names = list.iter().filter_map(|name| Name::from_labels(name.split('.').map(str::as_bytes)).ok());
            let records = names.map(|name| record(RData::PTR(PTR(name)))).collect();
            asked.reply(ResponseCode::NoError, records, transport)
        }
    }
}

/// The answer to a query that nobody outside answered. `None` if it is no query.
pub fn server_failure(query: &[u8], transport: Transport) -> Option<Vec<u8>> {
    match Asked::read(query)?.reply(ResponseCode::ServFail, Vec::new(), transport) {
        Decision::Reply(bytes) => Some(bytes),
        Decision::Forward { .. } | Decision::Ignore => None,
    }
}

/// Whether `answer` may be passed to whoever sent `query`: a response with its id.
pub fn is_answer_to(query: &[u8], answer: &[u8]) -> bool {
    answer.len() >= HEADER_BYTES && answer[..2] == query[..2] && answer[2] & 0x80 != 0
}

/// Whether another server may know better than this answer.
pub fn is_server_trouble(answer: &[u8]) -> bool {
    let code = answer.get(3).map_or(0, |b| b & 0x0f);
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

    fn reply(&self, code: ResponseCode, mut records: Vec<Record>, transport: Transport) -> Decision {
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
            room -= question.name().len() + QUESTION_TAIL_BYTES;
            message.add_query(question.clone());
        }
        if self.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_ANSWER_BYTES_MAX);
            message.set_edns(edns);
            room -= OPT_BYTES;
        }
        // Some of the tasks now are better than none: not every client asks again by TCP.
        if records.len() > room / A_RECORD_BYTES && records[0].record_type() == RecordType::A {
            records.truncate(room / A_RECORD_BYTES);
            message.metadata.truncation = true;
        }
        message.answers = records;
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

    fn names(tasks: u8) -> Names {
        let tasks = (0..tasks).map(|n| TaskNames {
            name: format!("rr.{n}.x"),
            others: vec![],
            address: Ipv4Addr::new(10, 0, 1, n),
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
    fn only_a_response_with_the_same_id_is_passed_on() {
        let sent = query("x.", RecordType::A).to_vec().unwrap();
        let failure = server_failure(&sent, Transport::Udp).unwrap();
        assert!(is_answer_to(&sent, &failure));
        assert!(is_server_trouble(&failure));
        assert!(!is_answer_to(&sent, &sent));
        assert!(!is_answer_to(&sent, &[0; 12]));
    }
}
