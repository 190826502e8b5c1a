//! Forgetting connections whose backend is gone, so that clients are told at once.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::{header, subsystem};
use crate::netlink::{Attributes, Message, NetlinkError, Socket, Writer, attribute};

const GET: u16 = 1;
const DELETE: u16 = 2;

const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
const TUPLE_IP: u16 = 1;
const IPV4_SOURCE: u16 = 1;

/// Deletes the connections that are answered by one of these addresses; returns how many.
///
/// # Errors
/// When the kernel refuses the dump. A connection that ended meanwhile is no error.
pub fn flush(socket: &mut Socket, backends: &BTreeSet<Ipv4Addr>) -> Result<usize, NetlinkError> {
    let get = message(GET, &[]);
    let doomed: Vec<Message> =
        socket.dump(&get)?.iter().filter_map(|body| deletion(body.get(4..)?, backends)).collect();
    match socket.request(&doomed) {
        Ok(()) => Ok(doomed.len()),
        Err(refusals) => refusals.into_iter().find(|e| e.errno() != Some(libc::ENOENT)).map_or(Ok(doomed.len()), Err),
    }
}

/// The request that deletes this entry, if one of the backends answers it.
fn deletion(entry: &[u8], backends: &BTreeSet<Ipv4Addr>) -> Option<Message> {
    let addresses = attribute(attribute(entry, TUPLE_REPLY)?, TUPLE_IP)?;
    let source: [u8; 4] = attribute(addresses, IPV4_SOURCE)?.try_into().ok()?;
    if !backends.contains(&Ipv4Addr::from(source)) {
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
    Some(message(DELETE, &which.0))
}

fn message(kind: u16, attributes: &[u8]) -> Message {
    let mut body = header(libc::AF_INET as u8, 0).to_vec();
    body.extend_from_slice(attributes);
    Message { kind: subsystem::CTNETLINK << 8 | kind, flags: 0, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_entries_answered_by_the_backend_are_deleted_and_keep_their_zone() {
        let backend = Ipv4Addr::new(10, 0, 1, 9);
        let mut entry = Writer::default();
        entry.nest(TUPLE_ORIGINAL, |t| {
            t.bytes(3, &[0, 7]);
        });
        entry.nest(TUPLE_REPLY, |t| {
            t.nest(TUPLE_IP, |ip| {
                ip.bytes(IPV4_SOURCE, &backend.octets());
            });
        });
        entry.be32(ID, 5);
        let message = deletion(&entry.0, &BTreeSet::from([backend])).unwrap();
        let body = &message.body[4..];
        assert_eq!(attribute(attribute(body, TUPLE_ORIGINAL).unwrap(), 3), Some(&[0, 7][..]));
        assert_eq!(attribute(body, ID), Some(&[0, 0, 0, 5][..]));
        let other = Ipv4Addr::new(10, 0, 1, 8);
        assert_eq!(deletion(&entry.0, &BTreeSet::from([other])), None);
    }
}
