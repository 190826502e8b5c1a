//! What dig sees in a sandbox.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::lab::{FRONT, Host, Namespace, Upstream, sandbox, table, until};
use rswarm_overlay::netd::{Reply, SandboxDns};

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// The ports of the only sandbox.
fn ports(reply: &Reply) -> (u16, u16) {
    assert_eq!(reply.failures, []);
    let [only] = reply.sandboxes[..] else { panic!("{reply:?}") };
    (only.udp_port, only.tcp_port)
}

#[tokio::test]
async fn names_of_the_table_are_answered_over_udp_and_tcp() {
    let (host, space) = (Host::new(""), Namespace::new());
    let client = host.client().await;
    let (udp, tcp) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    for (port, transport) in [(udp, "+notcp"), (tcp, "+tcp")] {
        let dig = |args: &[&str]| space.dig(port, &[args, &[transport]].concat());
        assert_eq!(dig(&["web"]), ["10.0.1.2"]);
        assert_eq!(dig(&["WEB."]), ["10.0.1.2"]);
        assert_eq!(dig(&["site"]), ["10.0.1.2"]);
        assert_eq!(dig(&["web.front"]), ["10.0.1.2"]);
        assert_eq!(dig(&["tasks.web"]), ["10.0.1.11", "10.0.1.12"]);
        assert_eq!(dig(&["web.2.id"]), ["10.0.1.12"]);
        assert_eq!(dig(&["web-container-1"]), ["10.0.1.11"]);
        assert_eq!(dig(&["myself"]), ["10.0.1.99"]);
        assert_eq!(dig(&["-x", "10.0.1.12"]), ["web.2.id.front."]);
        assert_eq!(dig(&["rr"]).len(), 40);
        let status = |args: &[&str]| space.dig_status(port, &[args, &[transport]].concat());
        let pair = |status: &str, count: &str| (status.to_owned(), count.to_owned());
        assert_eq!(dig(&["web", "AAAA"]), ["fd00::2"]);
        assert_eq!(dig(&["tasks.web", "AAAA"]), ["fd00::11", "fd00::12"]);
        assert_eq!(dig(&["-x", "fd00::12"]), ["web.2.id.front."]);
        assert_eq!(dig(&["myself", "AAAA"]), ["fd00::99"]);
        assert_eq!(dig(&["web", "ANY"]), ["10.0.1.2", "fd00::2"]);
        assert_eq!(dig(&["_80._tcp.site", "SRV"]), ["0 0 80 web.front."]);
        assert_eq!(dig(&["_80._tcp.tasks.web", "SRV"]), ["0 0 80 web.1.id.front.", "0 0 80 web.2.id.front."]);
        assert_eq!(status(&["web", "MX"]), pair("NOERROR", "0"));
        assert_eq!(status(&["web", "SRV"]), pair("NOERROR", "0"));
        assert_eq!(status(&["web", "CH", "TXT"]), pair("REFUSED", "0"));
        assert_eq!(status(&["web", "+opcode=notify"]), pair("NOTIMP", "0"));
        assert_eq!(status(&["-x", "10.0.1.77"]), pair("NXDOMAIN", "0"));
        assert_eq!(status(&["outside.example"]), pair("SERVFAIL", "0"));
    }
    // Without EDNS not all fit, and dig asks again by TCP if it may, at the same port.
    let (_, count) = space.dig_status(udp, &["rr", "+noedns", "+ignore"]);
    assert_eq!(count, "30");
    assert_eq!(space.dig_status(udp, &["rr", "+bufsize=600", "+ignore"]).1, "35");
    assert!(space.run("dig", &["@127.0.0.11", "-p", &tcp.to_string(), "+tcp", "web", "AXFR"]).contains("failed"));
    // Every order comes: none of 40 is always the first.
    let first = |_| {
        let port = udp.to_string();
        let text = space.run("dig", &["@127.0.0.11", "-p", &port, "+short", "rr"]);
        text.lines().next().unwrap().to_owned()
    };
    let firsts: BTreeSet<String> = (0..20).map(first).collect();
    assert!(firsts.len() > 5, "{firsts:?}");
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_changed_table_changes_the_answers_and_not_the_ports() {
    let (host, space) = (Host::new(""), Namespace::new());
    let client = host.client().await;
    let mut table = table(vec![sandbox(1, &space)]);
    let first = client.load(&table).await.unwrap();
    let (udp, _) = ports(&first);
    table.networks[0].services[0].tasks[0].ready = false;
    assert_eq!(client.load(&table).await.unwrap(), first);
    assert_eq!(space.dig(udp, &["tasks.web"]), ["10.0.1.12"]);
    assert_eq!(space.dig(udp, &["web"]), ["10.0.1.2"]);
    table.networks[0].services[0].tasks[1].ready = false;
    client.load(&table).await.unwrap();
    let nothing = ("NOERROR".to_owned(), "0".to_owned());
    assert_eq!(space.dig_status(udp, &["tasks.web"]), nothing);
    assert_eq!(space.dig_status(udp, &["web"]), nothing);
    table.networks[0].services.clear();
    client.load(&table).await.unwrap();
    assert_eq!(space.dig_status(udp, &["web"]).0, "SERVFAIL");
    client.stop().await.unwrap();
}

#[tokio::test]
async fn unknown_names_are_asked_outside_as_they_came() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let outside = Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    let client = host.client().await;
    let (udp, tcp) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    assert_eq!(space.dig(udp, &["example.com"]), ["192.0.2.1"]);
    assert_eq!(space.dig(udp, &["single"]), ["192.0.2.1"]);
    assert_eq!(space.dig(tcp, &["+tcp", "example.com"]), ["192.0.2.1"]);
    assert_eq!(outside.questions(), 3);
    // The mark that an answer was cut goes through: the client comes again by TCP.
    let text = space.run("dig", &["@127.0.0.11", "-p", &udp.to_string(), "+ignore", "+tries=1", "truncated.example"]);
    assert!(text.contains("flags: qr tc"), "{text}");
    assert_eq!(space.dig(tcp, &["+tcp", "truncated.example"]), ["192.0.2.1"]);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn the_next_server_is_asked_when_one_fails_or_is_silent() {
    let resolv = "nameserver 127.0.0.51\nnameserver 127.0.0.52\nnameserver 127.0.0.53\n";
    let (host, space) = (Host::new(resolv), Namespace::new());
    // Nobody is at 127.0.0.51. 127.0.0.52 is silent or fails for names that begin so.
    let broken = Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 52), OUTSIDE);
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    assert_eq!(space.dig(udp, &["plain.example"]), ["192.0.2.1"]);
    assert_eq!(space.dig_status(udp, &["trouble.example"]).0, "SERVFAIL");
    let since = Instant::now();
    assert_eq!(space.dig_status(udp, &["silent.example"]).0, "SERVFAIL");
    // Within the time that a resolver waits, and dig's own.
    let took = since.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
    assert!((4..=6).contains(&broken.questions()), "{}", broken.questions());
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_question_that_is_lost_outside_is_asked_again() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let outside = Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    let since = Instant::now();
    assert_eq!(space.dig(udp, &["lossy.example"]), ["192.0.2.1"]);
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(outside.questions(), 2);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn answers_to_another_question_or_from_another_address_are_passed_over() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    assert_eq!(space.dig(udp, &["forged.example"]), ["192.0.2.1"]);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_stays_silent_is_not_waited_for_each_time() {
    let resolv = "nameserver 127.0.0.51\nnameserver 127.0.0.52\n";
    let (host, space) = (Host::new(resolv), Namespace::new());
    let _silent = host.space.within(|| UdpSocket::bind("127.0.0.51:53").unwrap());
    Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 52), OUTSIDE);
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    let took = |name: &str| {
        let since = Instant::now();
        assert_eq!(space.dig(udp, &[name]), ["192.0.2.1"]);
        since.elapsed()
    };
    for name in ["a.example", "b.example", "c.example"] {
        assert!(took(name) >= Duration::from_secs(1), "{name}");
    }
    let later = ["d.example", "e.example", "f.example"].map(took);
    assert!(later.iter().any(|time| *time < Duration::from_secs(1)), "{later:?}");
    client.stop().await.unwrap();
}

/// Sends a query of type A to the sandbox's server. Its namespace is the caller's.
fn send_query(socket: &UdpSocket, port: u16, id: u16, name: &str) {
    let labels = name.split('.').flat_map(|label| std::iter::once(label.len() as u8).chain(label.bytes()));
    let labels: Vec<u8> = labels.collect();
    let query = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], &labels, &[0, 0, 1, 0, 1]].concat();
    socket.send_to(&query, ("127.0.0.11", port)).unwrap();
}

/// A socket in the sandbox with room for thousands of answers.
fn socket(space: &Namespace) -> UdpSocket {
    let socket = space.within(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    socket
}

#[tokio::test]
async fn equal_questions_at_once_are_one_outside_and_each_is_answered_by_its_own_id() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let outside = Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    let socket = socket(&space);
    // The first is lost, so that all come while it is on its way.
    (0..500).for_each(|id| send_query(&socket, udp, id, "lossy.example"));
    let mut ids = BTreeSet::new();
    for _ in 0..500 {
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).unwrap();
        assert!(answer[..length].ends_with(&OUTSIDE.octets()));
        ids.insert(u16::from_be_bytes([answer[0], answer[1]]));
    }
    assert_eq!(ids.len(), 500);
    assert_eq!(outside.questions(), 2);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn too_many_questions_that_wait_are_refused_at_once_and_names_of_the_table_do_not_wait() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let _silent = host.space.within(|| UdpSocket::bind("127.0.0.53:53").unwrap());
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    let socket = socket(&space);
    let since = Instant::now();
    (0..1100).for_each(|id| send_query(&socket, udp, id, &format!("n{id}.example")));
    send_query(&socket, udp, 2000, "web");
    let mut answer = [0; 512];
    let mut next = || {
        socket.recv(&mut answer).unwrap();
        (u16::from_be_bytes([answer[0], answer[1]]), answer[3] & 0x0f)
    };
    let mut at_once: BTreeMap<u16, u8> = (0..1101 - 1024).map(|_| next()).collect();
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(at_once.remove(&2000), Some(0));
    assert!(at_once.values().all(|code| *code == 2), "{at_once:?}");
    for _ in 0..1024 {
        assert_eq!(next().1, 2);
    }
    assert!((4..6).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
    // Those are over, and there is room again.
    send_query(&socket, udp, 3000, "after.example");
    assert_eq!(next(), (3000, 2));
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_names_its_own_resolver_asks_the_hosts_servers() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    let client = host.client().await;
    let own = SandboxDns { servers: vec![[127, 0, 0, 11].into()], ..sandbox(1, &space) };
    let (udp, _) = ports(&client.load(&table(vec![own])).await.unwrap());
    assert_eq!(space.dig(udp, &["example.com"]), ["192.0.2.1"]);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_outside_that_asks_us_in_turn_makes_no_storm() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    // Such as a filter of advertisements that runs in a container and serves the host.
    let outside = host.space.within(|| UdpSocket::bind("127.0.0.53:53").unwrap());
    let inside = space.within(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    let laps = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&laps);
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok(length) = outside.recv(&mut query) {
            count.fetch_add(1, Ordering::SeqCst);
            inside.send_to(&query[..length], ("127.0.0.11", udp)).unwrap();
        }
    });
    assert_eq!(space.dig_status(udp, &["example.com"]).0, "SERVFAIL");
    assert!((1..=6).contains(&laps.load(Ordering::SeqCst)), "{laps:?}");
    client.stop().await.unwrap();
}

fn framed(id: u8, name: &[u8]) -> Vec<u8> {
    let query = [&[0, id, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, 0, 1, 0, 1]].concat();
    [&u16::try_from(query.len()).unwrap().to_be_bytes()[..], &query].concat()
}

/// The id and the code of the next answer.
fn next_answer(stream: &mut TcpStream) -> std::io::Result<(u8, u8)> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut answer)?;
    Ok((answer[1], answer[3] & 0x0f))
}

fn connect(space: &Namespace, port: u16) -> TcpStream {
    let stream = space.within(move || TcpStream::connect(("127.0.0.11", port)).unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
    stream
}

#[tokio::test]
async fn questions_behind_a_slow_one_on_the_same_connection_do_not_wait() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let _silent = host.space.within(|| std::net::TcpListener::bind("127.0.0.53:53").unwrap());
    let client = host.client().await;
    let (_, tcp) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    let mut stream = connect(&space, tcp);
    // In pieces that are no messages.
    let all = [framed(1, b"\x07example"), framed(2, b"\x03web"), framed(3, b"\x04site")].concat();
    let (one, other) = all.split_at(7);
    stream.write_all(one).unwrap();
    stream.write_all(other).unwrap();
    assert_eq!(next_answer(&mut stream).unwrap(), (2, 0));
    assert_eq!(next_answer(&mut stream).unwrap(), (3, 0));
    assert_eq!(next_answer(&mut stream).unwrap(), (1, 2));
    client.stop().await.unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out() {
    let (host, space) = (Host::new(""), Namespace::new());
    let client = host.client().await;
    let (udp, tcp) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    let mut idle: Vec<TcpStream> = (0..70).map(|_| connect(&space, tcp)).collect();
    let since = Instant::now();
    assert_eq!(space.dig(tcp, &["+tcp", "web"]), ["10.0.1.2"]);
    assert!(since.elapsed() < Duration::from_secs(8), "{:?}", since.elapsed());
    assert_eq!(space.dig(udp, &["web"]), ["10.0.1.2"]);
    // A message that never comes to its end is not waited for.
    let mut slow = connect(&space, tcp);
    slow.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    slow.write_all(&framed(1, b"\x03web")[..9]).unwrap();
    assert_eq!(next_answer(&mut slow).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    // Nor is one that says nothing.
    idle[0].set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    assert_eq!(next_answer(&mut idle[0]).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_no_question_is_told_so_or_not_answered_and_does_no_harm() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let outside = Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    let client = host.client().await;
    let (udp, tcp) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    let datagrams = socket(&space);
    let long = [&framed(7, b"\x07example")[2..], &vec![0; 5000]].concat();
    datagrams.send_to(&long, ("127.0.0.11", udp)).unwrap();
    let mut answer = [0; 512];
    datagrams.recv(&mut answer).unwrap();
    assert_eq!((answer[1], answer[3] & 0x0f), (7, 1));
    let mut stream = connect(&space, tcp);
    stream.write_all(&[&u16::try_from(long.len()).unwrap().to_be_bytes()[..], &long].concat()).unwrap();
    stream.write_all(&framed(8, b"\x03web")).unwrap();
    assert_eq!(next_answer(&mut stream).unwrap(), (7, 1));
    assert_eq!(next_answer(&mut stream).unwrap(), (8, 0));
    assert_eq!(outside.questions(), 0);
    // Packets of any bytes, the same each time.
    let mut state = 1_u64;
    for length in (0..3000_usize).map(|n| n % 600) {
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .take(length)
        .collect();
        datagrams.send_to(&noise, ("127.0.0.11", udp)).unwrap();
        let mut stream = connect(&space, tcp);
        if length % 50 == 0 {
            let _ = stream.write_all(&noise);
        }
    }
    assert_eq!(space.dig(udp, &["web"]), ["10.0.1.2"]);
    assert_eq!(space.dig(tcp, &["+tcp", "web"]), ["10.0.1.2"]);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn the_hosts_servers_are_read_again_when_their_file_changes() {
    let (host, space) = (Host::new("nameserver 127.0.0.51\n"), Namespace::new());
    Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 51), OUTSIDE);
    Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 52), Ipv4Addr::new(192, 0, 2, 2));
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    assert_eq!(space.dig(udp, &["example.com"]), ["192.0.2.1"]);
    std::fs::write(host.resolv_conf(), "nameserver 127.0.0.52\n").unwrap();
    until("the second server answers", || space.dig(udp, &["example.com"]) == ["192.0.2.2"]).await;
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_with_servers_of_its_own_asks_them_from_inside() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let outside = Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    Upstream::start(&space, Ipv4Addr::new(127, 0, 0, 77), Ipv4Addr::new(192, 0, 2, 7));
    let client = host.client().await;
    let own = SandboxDns { servers: vec![[127, 0, 0, 77].into()], ..sandbox(1, &space) };
    let (udp, tcp) = ports(&client.load(&table(vec![own])).await.unwrap());
    assert_eq!(space.dig(udp, &["example.com"]), ["192.0.2.7"]);
    assert_eq!(space.dig(tcp, &["+tcp", "example.com"]), ["192.0.2.7"]);
    assert_eq!(outside.questions(), 0);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn no_name_leaves_a_sandbox_that_is_internal() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    let outside = Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    let client = host.client().await;
    let internal = SandboxDns { internal_only: true, servers: vec![[127, 0, 0, 53].into()], ..sandbox(1, &space) };
    let (udp, tcp) = ports(&client.load(&table(vec![internal])).await.unwrap());
    assert_eq!(space.dig(udp, &["web"]), ["10.0.1.2"]);
    for name in ["example.com", "single", "web.other", "4.3.2.1.in-addr.arpa"] {
        for kind in ["A", "AAAA", "PTR", "TXT", "ANY"] {
            assert_eq!(space.dig_status(udp, &[name, kind, "+notcp"]).0, "NXDOMAIN", "{name}");
            assert_eq!(space.dig_status(tcp, &[name, kind, "+tcp"]).0, "NXDOMAIN", "{name}");
        }
    }
    assert_eq!(outside.questions.load(Ordering::SeqCst), 0);
    client.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_questions_at_once_are_all_answered() {
    let (host, space) = (Host::new("nameserver 127.0.0.53\n"), Namespace::new());
    Upstream::start(&host.space, Ipv4Addr::new(127, 0, 0, 53), OUTSIDE);
    let client = host.client().await;
    let (udp, _) = ports(&client.load(&table(vec![sandbox(1, &space)])).await.unwrap());
    // Half of them are asked outside. 1,000 sockets are sent to before any is read from.
    let missing: Vec<u16> = space.within(move || {
        let sockets: Vec<_> = (0..1000u16)
            .map(|id| {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.connect(("127.0.0.11", udp)).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let name: &[u8] = if id.is_multiple_of(2) { b"\x03web\0" } else { b"\x07example\0" };
                let header = [0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                let mut query = [&header[..], name, &[0, 1, 0, 1]].concat();
                query[..2].copy_from_slice(&id.to_be_bytes());
                socket.send(&query).unwrap();
                socket
            })
            .collect();
        let answered = |id: u16| {
            let mut answer = [0; 512];
            let expected: &[u8] = if id.is_multiple_of(2) { &[10, 0, 1, 2] } else { &[192, 0, 2, 1] };
            sockets[usize::from(id)]
                .recv(&mut answer)
                .is_ok_and(|length| answer[..2] == id.to_be_bytes() && answer[..length].ends_with(expected))
        };
        (0..1000).filter(|id| !answered(*id)).collect()
    });
    assert!(missing.is_empty(), "{missing:?}");
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_leaves_the_table_keeps_no_socket_and_another_under_its_path_is_found() {
    let (host, first, other) = (Host::new(""), Namespace::new(), Namespace::new());
    let client = host.client().await;
    let path = host.folder.path().join("netns");
    std::os::unix::fs::symlink(first.path(), &path).unwrap();
    let one = SandboxDns { netns: path.clone(), ..sandbox(1, &first) };
    let two = sandbox(2, &other);
    let reply = client.load(&table(vec![one.clone(), two.clone()])).await.unwrap();
    assert_eq!(reply.sandboxes.len(), 2);
    let sockets = |space: &Namespace| space.run("ss", &["-Hanut"]).lines().count();
    assert_eq!((sockets(&first), sockets(&other)), (2, 2));
    // The same task at the same path, in another namespace.
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(other.path(), &path).unwrap();
    let reply = client.load(&table(vec![one])).await.unwrap();
    assert_eq!((sockets(&first), sockets(&other)), (0, 2));
    assert_eq!(other.dig(ports(&reply).0, &["web"]), ["10.0.1.2"]);
    client.load(&table(vec![])).await.unwrap();
    assert_eq!((sockets(&first), sockets(&other)), (0, 0));
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_served_is_named_and_the_others_are_served() {
    let (host, space, late) = (Host::new(""), Namespace::new(), Namespace::new());
    let client = host.client().await;
    let path = host.folder.path().join("late");
    let absent = SandboxDns { netns: path.clone(), ..sandbox(2, &late) };
    let plain_file = SandboxDns { netns: host.exe(), ..sandbox(3, &space) };
    let mut all = table(vec![sandbox(1, &space), absent, plain_file]);
    let reply = client.load(&all).await.unwrap();
    assert_eq!(reply.sandboxes.len(), 1);
    assert_eq!(space.dig(reply.sandboxes[0].udp_port, &["web"]), ["10.0.1.2"]);
    let tasks: Vec<u128> = reply.failures.iter().map(|f| f.task.0).collect();
    assert_eq!(tasks, [2, 3]);
    let problem = &reply.failures[0].problem;
    assert!(problem.contains(path.to_str().unwrap()), "{problem}");
    // Once the cause is gone, the next table finds it well.
    std::os::unix::fs::symlink(late.path(), &path).unwrap();
    all.sandboxes.pop();
    let reply = client.load(&all).await.unwrap();
    assert_eq!(reply.failures, []);
    let port = reply.sandboxes[1].udp_port;
    assert_eq!(late.dig(port, &["web"]), ["10.0.1.2"]);
    // A table that contradicts itself changes nothing.
    all.networks.clear();
    let error = client.load(&all).await.unwrap_err().to_string();
    assert!(error.contains(&format!("in network {FRONT}, which is not in the table")), "{error}");
    assert_eq!(late.dig(port, &["web"]), ["10.0.1.2"]);
    client.stop().await.unwrap();
}
