//! Forgetting connections whose backend is gone, so that clients are told at once.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{header, subsystem};
use crate::model::from_octets;
use crate::netlink::{Attributes, Message, NetlinkError, Socket, Writer, attribute};

const GET: u16 = 1;
const DELETE: u16 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const IPV4_SOURCE: u16 = 1;
const IPV6_SOURCE: u16 = 3;

/// Deletes the connections that are answered by one of these addresses; returns how many.
///
/// # Errors
/// When the kernel refuses the dump. A connection that ended meanwhile is no error.
pub fn flush(socket: &mut Socket, backends: &BTreeSet<IpAddr>) -> Result<usize, NetlinkError> {
    let get = message(GET, libc::AF_UNSPEC, &[]);
    let doomed: Vec<Message> = socket.dump(&get)?.iter().filter_map(|body| deletion(body, backends)).collect();
    match socket.request(&doomed) {
        Ok(()) => Ok(doomed.len()),
        Err(refusals) => refusals.into_iter().find(|e| e.errno() != Some(libc::ENOENT)).map_or(Ok(doomed.len()), Err),
    }
}

/// The request that deletes this entry, if one of the backends answers it.
fn deletion(body: &[u8], backends: &BTreeSet<IpAddr>) -> Option<Message> {
    let (family, entry) = (*body.first()?, body.get(4..)?);
    let addresses = attribute(attribute(entry, TUPLE_REPLY)?, TUPLE_IP)?;
    let source = attribute(addresses, IPV4_SOURCE).or_else(|| attribute(addresses, IPV6_SOURCE))?;
    if !backends.contains(&from_octets(source)?) {
        return None;
    }
    // The original tuple, its zone and the id name the entry; they go back as they came.
    let mut which = Writer::default();
    for (kind, value) in Attributes(entry) {
        match kind {
            TUPLE_ORIGINAL => {
                which.nest(kind, |w| w.0.extend_from_slice(value));
            }
            ID | ZONE => {
                which.bytes(kind, value);
            }
            _ => {}
        }
    }
    Some(message(DELETE, i32::from(family), &which.0))
}

fn message(kind: u16, family: i32, attributes: &[u8]) -> Message {
    let mut body = header(u8::try_from(family).unwrap_or_default(), 0).to_vec();
    body.extend_from_slice(attributes);
    Message { kind: subsystem::CTNETLINK << 8 | kind, flags: 0, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of a connection that `source` answers.
    fn entry(family: i32, source: (u16, &[u8])) -> Vec<u8> {
        let mut entry = Writer::default();
        entry.nest(TUPLE_ORIGINAL, |t| {
            t.bytes(3, &[0, 7]);
        });
        entry.nest(TUPLE_REPLY, |t| {
            t.nest(TUPLE_IP, |ip| {
                ip.bytes(source.0, source.1);
            });
        });
        entry.be32(ID, 5);
        message(0, family, &entry.0).body
    }

    #[test]
    fn only_entries_answered_by_the_backend_are_deleted_and_keep_their_zone() {
        let v4 = IpAddr::from([10, 0, 1, 9]);
        let v6: IpAddr = "fd00::9".parse().unwrap();
        for (backend, family, kind) in [(v4, libc::AF_INET, IPV4_SOURCE), (v6, libc::AF_INET6, IPV6_SOURCE)] {
            let found = entry(family, (kind, &crate::model::octets(backend)));
            let message = deletion(&found, &BTreeSet::from([backend])).unwrap();
            assert_eq!(i32::from(message.body[0]), family);
            let body = &message.body[4..];
            assert_eq!(attribute(attribute(body, TUPLE_ORIGINAL).unwrap(), 3), Some(&[0, 7][..]));
            assert_eq!(attribute(body, ID), Some(&[0, 0, 0, 5][..]));
            assert_eq!(deletion(&found, &BTreeSet::from([[10, 0, 1, 8].into()])), None);
        }
    }
}
