//! SCTP through the mesh. This kernel may lack its sockets: the packets are made by hand.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use rswarm_types::spec::{PortConfig, Protocol, PublishMode};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recvfrom, sendto, socket};

use crate::fixture::tcp;
use crate::hosts;
use crate::lab::{CLIENT, CLIENT_V6, alone, converge_all};

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// CRC-32C (RFC 3309).
fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    !bytes.iter().fold(!0, step)
}

/// A packet with an INIT or INIT ACK chunk (RFC 9260, 3.3.2).
fn packet(from: u16, to: u16, tag: u32, kind: u8) -> Vec<u8> {
    let mut bytes = [from.to_be_bytes(), to.to_be_bytes()].concat();
    bytes.extend(tag.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([kind, 0, 0, 20]);
    for field in [7u32, 65_536] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend([0, 1, 0, 1]);
    bytes.extend(1u32.to_be_bytes());
    let sum = checksum(&bytes).to_le_bytes();
    bytes[8..12].copy_from_slice(&sum);
    bytes
}

/// Source port, destination port and chunk of a packet whose checksum holds.
fn parse(packet: &[u8]) -> Option<(u16, u16, u8)> {
    let mut bytes = packet.to_vec();
    let sum: [u8; 4] = bytes.get(8..12)?.try_into().ok()?;
    bytes[8..12].fill(0);
    let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    (checksum(&bytes).to_le_bytes() == sum).then_some((port(0)?, port(2)?, *packet.get(12)?))
}

fn raw_socket(namespace: &Path, is_v4: bool) -> OwnedFd {
    let namespace = File::open(namespace).unwrap();
    let opened = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let family = if is_v4 { AddressFamily::INET } else { AddressFamily::INET6 };
        socket(family, SocketType::RAW, Some(ipproto::SCTP)).unwrap()
    });
    let socket = opened.join().unwrap();
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(5))).unwrap();
    socket
}

fn send(socket: &OwnedFd, packet: &[u8], to: IpAddr) {
    sendto(socket, packet, SendFlags::empty(), &SocketAddr::new(to, 0)).unwrap();
}

/// The next packet and who sent it; of IPv4 a raw socket tells the header too.
fn receive(socket: &OwnedFd, is_v4: bool) -> (Vec<u8>, IpAddr) {
    let mut buffer = [0; 2048];
    let (length, _, from) = recvfrom(socket, &mut buffer, RecvFlags::empty()).expect("a packet");
    let header = if is_v4 { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
    (buffer[header..length].to_vec(), SocketAddr::try_from(from.unwrap()).unwrap().ip())
}

#[test]
fn associations_reach_a_container_through_any_node_with_the_clients_address() {
    alone("sctp::associations_reach_a_container_through_any_node_with_the_clients_address", || {
        let (hosts, mut cluster) = hosts(2);
        let port = PortConfig { protocol: Protocol::Sctp, ..tcp(PublishMode::Ingress, 3868, 38) };
        let network = cluster.network("back");
        let service = cluster.service("diameter", &[network], &[port]);
        let task = cluster.task(service, 1);
        converge_all(&hosts, &cluster);
        let calls = hosts.iter().flat_map(|h| [(IpAddr::from(h.address()), 4), (h.address_v6().into(), 6)]);
        for (number, (node, version)) in (5000u16..).zip(calls) {
            let is_v4 = version == 4;
            let server = raw_socket(&hosts[1].sandbox(task), is_v4);
            let client = raw_socket("/proc/self/ns/net".as_ref(), is_v4);
            send(&client, &packet(number, 3868, 0, INIT), node);
            let (heard, from) = receive(&server, is_v4);
            assert_eq!(parse(&heard), Some((number, 38, INIT)), "through {node}");
            let expected: IpAddr = if is_v4 { CLIENT.into() } else { CLIENT_V6.into() };
            assert_eq!(from, expected, "through {node}");
            send(&server, &packet(38, number, 7, INIT_ACK), from);
            let (answer, by) = receive(&client, is_v4);
            assert_eq!((parse(&answer), by), (Some((3868, number, INIT_ACK)), node));
        }
    });
}
