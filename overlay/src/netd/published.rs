//! The sockets of published ports: bound, so that nobody else takes the port and wonders why
//! connections go elsewhere.
//!
//! Address translation comes before the socket look-up, so nothing arrives here while the node's
//! rules are in place. TCP is bound without listening: what comes is refused. A UDP socket is never
//! read: it has the smallest buffer there is, and the kernel drops the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rswarm_types::spec::Protocol;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

use super::protocol::HeldPort;
use crate::ports::PublishedPort;

/// The ports that are held.
#[derive(Debug, Default)]
pub struct Holder {
    held: BTreeMap<PublishedPort, Sockets>,
}

/// One for each version of the Internet protocol, as far as the host has it; none of a transport that
/// the kernel has no sockets of, which nobody can take then.
#[derive(Debug)]
#[expect(dead_code, reason = "held")]
struct Sockets(Vec<OwnedFd>);

impl Holder {
    /// Holds these ports and no others. Those that cannot be held say why.
    pub async fn hold(&mut self, ports: &[PublishedPort]) -> Vec<HeldPort> {
        let wanted: BTreeSet<PublishedPort> = ports.iter().copied().collect();
        self.held.retain(|port, _| wanted.contains(port));
        let mut failures: BTreeMap<PublishedPort, io::Error> = BTreeMap::new();
        for port in wanted {
            if self.held.contains_key(&port) {
                continue;
            }
            match Sockets::open(port) {
                Ok(sockets) => {
                    tracing::info!(port = port.port, protocol = %port.protocol, "published port held");
                    self.held.insert(port, sockets);
                }
                Err(error) => {
                    failures.insert(port, error);
                }
            }
        }
        let mut problems = if failures.is_empty() {
            BTreeMap::new()
        } else {
            // It reads all of /proc.
            tokio::task::spawn_blocking(move || explain(&failures)).await.unwrap_or_default()
        };
        let held = |port: &PublishedPort| {
            let problem = problems
                .remove(port)
                .or_else(|| (!self.held.contains_key(port)).then(|| format!("{port} cannot be held")));
            HeldPort { port: *port, problem }
        };
        ports.iter().map(held).collect()
    }
}

impl Sockets {
    fn open(port: PublishedPort) -> io::Result<Self> {
        let open = |address: IpAddr| open(port.protocol, SocketAddr::new(address, port.port));
        let Some(address) = port.address else {
            let v4 = open(Ipv4Addr::UNSPECIFIED.into())?;
            // IPv6 is off, or another process has only its side.
            let v6 = open(Ipv6Addr::UNSPECIFIED.into()).ok().flatten();
            return Ok(Self(v4.into_iter().chain(v6).collect()));
        };
        Ok(Self(open(address)?.into_iter().collect()))
    }
}

/// `None`: the kernel has no such sockets.
fn open(protocol: Protocol, address: SocketAddr) -> io::Result<Option<OwnedFd>> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    let socket = match socket_with(family, kind, SocketFlags::CLOEXEC, number) {
        Err(Errno::PROTONOSUPPORT) if protocol == Protocol::Sctp => return Ok(None),
        socket => socket?,
    };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // The kernel rounds it up to its least.
    sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    bind(&socket, &address)?;
    Ok(Some(socket))
}

/// Why each port could not be bound, in words for the user.
fn explain(failures: &BTreeMap<PublishedPort, io::Error>) -> BTreeMap<PublishedPort, String> {
    let in_use = |e: &io::Error| e.kind() == io::ErrorKind::AddrInUse;
    let taken = failures.iter().filter(|(_, error)| in_use(error));
    let taken: BTreeMap<PublishedPort, Vec<Entry>> = taken.map(|(port, _)| (*port, entries(*port))).collect();
    let inodes = taken.values().flatten().map(|entry| entry.inode).filter(|i| *i != 0).collect();
    let owners = socket_owners(&inodes);
    let explain = |(port, error): (&PublishedPort, &io::Error)| {
        let problem = match taken.get(port) {
            None => format!("{port} cannot be bound: {error}"),
            Some(entries) => match entries.iter().find_map(|entry| owners.get(&entry.inode)) {
                Some(owner) => format!("{port} is held by {owner}"),
                None if entries.iter().any(|e| e.inode == 0) => {
                    format!("{port} is held by connections of an ended process for up to 60 s")
                }
                None => format!("{port} is held by another process"),
            },
        };
        (*port, problem)
    };
    failures.iter().map(explain).collect()
}

/// A line of /proc/net/tcp and the like. Inode 0: no process has it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    is_listening: bool,
    inode: u64,
}

/// The sockets on a port, listening ones first.
fn entries(port: PublishedPort) -> Vec<Entry> {
    let files = match port.protocol {
        Protocol::Tcp => ["/proc/self/net/tcp", "/proc/self/net/tcp6"],
        Protocol::Udp => ["/proc/self/net/udp", "/proc/self/net/udp6"],
        // Its table has other columns.
        Protocol::Sctp => return Vec::new(),
    };
    let texts = files.iter().filter_map(|file| std::fs::read_to_string(file).ok());
    let mut found: Vec<Entry> = texts.flat_map(|text| parse_entries(&text, port.port)).collect();
    found.sort_by_key(|entry| !entry.is_listening);
    found
}

/// Columns (proc(5)): slot, local `address:port` in hexadecimal, remote, state, queues, timer,
/// retransmits, uid, timeout, inode.
fn parse_entries(text: &str, port: u16) -> Vec<Entry> {
    const LISTEN: &str = "0A";
    let parse = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (_, local) = columns.get(1)?.rsplit_once(':')?;
        let inode = columns.get(9)?.parse().ok()?;
        (u16::from_str_radix(local, 16).ok()? == port).then_some(Entry { is_listening: columns[3] == LISTEN, inode })
    };
    text.lines().skip(1).filter_map(parse).collect()
}

/// `nginx (pid 1234)` for each socket that some process has open.
fn socket_owners(inodes: &BTreeSet<u64>) -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return owners;
    };
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        // Processes end while we look: each read may fail.
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        for descriptor in descriptors.flatten() {
            let inode = std::fs::read_link(descriptor.path())
                .ok()
                .and_then(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                let comm = std::fs::read_to_string(process.path().join("comm"));
                let comm = comm.unwrap_or_else(|_| "a process".into());
                owners.entry(inode).or_insert_with(|| format!("{} (pid {pid})", comm.trim_end()));
            }
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_found_by_port() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0 100 0 0 10 0
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4243 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 06 00000000:00000000 03:00001768 00000000     0        0 0 3 0
   3: broken
";
        let listening = Entry { is_listening: true, inode: 4242 };
        let closing = Entry { is_listening: false, inode: 0 };
        assert_eq!(parse_entries(text, 8080), [listening, closing]);
        assert_eq!(parse_entries(text, 80), []);
    }

    #[tokio::test]
    async fn a_port_that_a_process_has_is_refused_with_its_name_and_held_once_it_is_free() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let ports = [
            PublishedPort { port: tcp.local_addr().unwrap().port(), protocol: Protocol::Tcp, address: None },
            PublishedPort { port: udp.local_addr().unwrap().port(), protocol: Protocol::Udp, address: None },
        ];
        let mut holder = Holder::default();
        let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
        for held in holder.hold(&ports).await {
            let owner = format!("{} (pid {})", comm.trim_end(), std::process::id());
            assert_eq!(held.problem, Some(format!("{} is held by {owner}", held.port)));
        }
        drop((tcp, udp));
        for _ in 0..2 {
            assert!(holder.hold(&ports).await.iter().all(|held| held.problem.is_none()));
        }
        for port in ports {
            let address = ("127.0.0.1", port.port);
            let taken = match port.protocol {
                Protocol::Tcp => std::net::TcpListener::bind(address).map(drop),
                Protocol::Udp | Protocol::Sctp => std::net::UdpSocket::bind(address).map(drop),
            };
            assert_eq!(taken.unwrap_err().kind(), io::ErrorKind::AddrInUse, "{port}");
        }
        assert!(std::net::TcpStream::connect(("127.0.0.1", ports[0].port)).is_err());
        // Another address of the same port is free while one is held.
        holder.hold(&[]).await;
        let at = |address: [u8; 4]| PublishedPort { address: Some(address.into()), ..ports[0] };
        assert_eq!(holder.hold(&[at([127, 0, 0, 1])]).await[0].problem, None);
        assert!(std::net::TcpListener::bind(("127.0.0.1", ports[0].port)).is_err());
        std::net::TcpListener::bind(("127.0.0.2", ports[0].port)).unwrap();
        holder.hold(&[]).await;
        std::net::TcpListener::bind(("127.0.0.1", ports[0].port)).unwrap();
    }
}
