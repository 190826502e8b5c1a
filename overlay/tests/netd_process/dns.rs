//! What dig sees in a sandbox.

use std::net::Ipv4Addr;
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
        assert_eq!(status(&["web", "AAAA"]), pair("NOERROR", "0"));
        assert_eq!(status(&["web", "SRV"]), pair("NOERROR", "0"));
        assert_eq!(status(&["-x", "10.0.1.77"]), pair("NXDOMAIN", "0"));
        assert_eq!(status(&["outside.example"]), pair("SERVFAIL", "0"));
    }
    // Without EDNS not all fit, and dig asks again by TCP if it may, at the same port.
    let (_, count) = space.dig_status(udp, &["rr", "+noedns", "+ignore"]);
    assert_eq!(count, "30");
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
    assert!(since.elapsed() > Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(broken.questions(), 3);
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
