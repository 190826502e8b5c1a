//! IPv6 beside IPv4, everywhere.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rswarm_types::spec::{PortConfig, Protocol, PublishMode};
use rswarm_types::task::EndpointState;

use crate::fixture::{Cluster, tcp};
use crate::lab::{
    BIG, CLIENT_V6, Host, Server, alone, ask_udp, connect, connect_from, converge_all, echoes, get, serve_udp, sh,
    sh_in, try_in,
};
use crate::{hosts, web};

fn url(host: &Host) -> String {
    format!("[{}]:8080", host.address_v6())
}

fn first_word(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().to_owned()
}

#[test]
fn containers_meet_by_ipv6_address() {
    alone("dual::containers_meet_by_ipv6_address", || {
        let (hosts, mut cluster) = hosts(2);
        let (_, _, tasks) = web(&mut cluster, &[0, 1, 0]);
        converge_all(&hosts, &cluster);
        let here = hosts[0].sandbox(tasks[0]);
        let _there = Server::start(&hosts[1].sandbox(tasks[1]), "there", 80);
        let _near = Server::start(&hosts[0].sandbox(tasks[2]), "near", 80);
        sh_in(&here, "ping -6 -c 2 -i 0.2 -W 2 fd00:a:1:1::b");
        sh_in(&here, "ping -6 -c 1 -W 2 -M do -s 1402 fd00:a:1:1::b");
        assert!(!try_in(&here, "ping -6 -c 1 -W 1 -M do -s 1403 fd00:a:1:1::b").status.success());
        assert_eq!(get(Some(&here), "[fd00:a:1:1::b]"), "there fd00:a:1:1::a");
        assert_eq!(get(Some(&here), "[fd00:a:1:1::c]"), "near fd00:a:1:1::a");
        // What it was given and no more: nothing that a router or the kernel made up.
        let addresses = sh_in(&here, "ip -6 -o addr show scope link; ip -6 route show proto ra");
        assert_eq!(addresses, "");
    });
}

#[test]
fn a_virtual_ipv6_address_spreads_drains_and_ends_connections_of_the_dead() {
    alone("dual::a_virtual_ipv6_address_spreads_drains_and_ends_connections_of_the_dead", || {
        let (hosts, mut cluster) = hosts(2);
        let (network, _, tasks) = web(&mut cluster, &[0, 1]);
        let client = cluster.service("client", &[network], &[]);
        let client = cluster.task(client, 0);
        converge_all(&hosts, &cluster);
        let from = hosts[0].sandbox(client);
        let one = Server::start(&hosts[0].sandbox(tasks[0]), "one", 80);
        let _two = Server::start(&hosts[1].sandbox(tasks[1]), "two", 80);
        let names = || -> BTreeSet<String> { (0..30).map(|_| get(Some(&from), "[fd00:a:1:1::c8]")).collect() };
        let both = BTreeSet::from(["one fd00:a:1:1::c".to_owned(), "two fd00:a:1:1::c".to_owned()]);
        assert_eq!(names(), both);
        let vip: IpAddr = "fd00:a:1:1::c8".parse().unwrap();
        let mut held: Vec<_> = (0..10).map(|_| connect(&from, (vip, 80)).unwrap()).collect();
        assert!(held.iter_mut().all(|s| echoes(s).unwrap()));
        cluster.set_state(tasks[0], EndpointState::Draining);
        converge_all(&hosts, &cluster);
        assert_eq!(names(), BTreeSet::from(["two fd00:a:1:1::c".to_owned()]));
        assert!(held.iter_mut().all(|s| echoes(s).unwrap()));
        drop(one);
        cluster.set_state(tasks[0], EndpointState::Dead);
        converge_all(&hosts, &cluster);
        assert_eq!(sh_in(&from, "conntrack -L -f ipv6 --reply-src fd00:a:1:1::a 2>/dev/null"), "");
        cluster.set_state(tasks[1], EndpointState::Draining);
        converge_all(&hosts, &cluster);
        let refused = connect(&from, (vip, 80)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_published_port_answers_on_every_node_and_shows_the_clients_ipv6_address() {
    alone("dual::a_published_port_answers_on_every_node_and_shows_the_clients_ipv6_address", || {
        let (hosts, mut cluster) = hosts(5);
        let udp = PortConfig { protocol: Protocol::Udp, ..tcp(PublishMode::Ingress, 5353, 53) };
        let network = cluster.network("back");
        let service = cluster.service("web", &[network], &[udp, tcp(PublishMode::Ingress, 8080, 80)]);
        let tasks = [cluster.task(service, 0), cluster.task(service, 1)];
        converge_all(&hosts, &cluster);
        let serve = |index: usize, name: &str| {
            let sandbox = hosts[index].sandbox(tasks[index]);
            [Server::start(&sandbox, name, 80), serve_udp(&sandbox, name, 53)]
        };
        let _servers = [serve(0, "one"), serve(1, "two")];
        let both = BTreeSet::from([format!("one {CLIENT_V6}"), format!("two {CLIENT_V6}")]);
        for host in &hosts {
            let seen: BTreeSet<_> = (0..30).map(|_| get(None, &url(host))).collect();
            assert_eq!(seen, both, "through {}", host.address_v6());
            let seen: BTreeSet<_> = (0..30).map(|_| ask_udp((host.address_v6(), 5353))).collect();
            assert_eq!(seen, both, "datagrams through {}", host.address_v6());
            let size = sh(&format!("curl -s --max-time 20 http://{}/big | wc -c", url(host)));
            assert_eq!(size.trim(), BIG.to_string(), "through {}", host.address_v6());
        }
        // The same client port through all nodes at once.
        for _ in 0..4 {
            let to = |h: &Host| (h.address_v6(), 8080);
            let mut flows: Vec<_> = hosts.iter().map(|h| connect_from(40_001, to(h)).unwrap()).collect();
            assert!(flows.iter_mut().all(|s| echoes(s).unwrap()));
            assert!(flows.iter_mut().all(|s| echoes(s).unwrap()));
        }
        // A node calls itself and others; a container calls its own node, where it may meet itself.
        let names = BTreeSet::from(["one".to_owned(), "two".to_owned()]);
        let inside = hosts[0].sandbox(tasks[0]);
        for from in [&hosts[0].namespace, &inside] {
            for host in &hosts[..3] {
                let seen: BTreeSet<_> = (0..12).map(|_| first_word(&get(Some(from), &url(host)))).collect();
                assert_eq!(seen, names, "{} to {}", from.display(), host.address_v6());
            }
        }
        let _outside = Server::start("/proc/self/ns/net".as_ref(), "outside", 9000);
        assert_eq!(get(Some(&inside), &format!("[{CLIENT_V6}]:9000")), "outside fd99::1");
    });
}

#[test]
fn frames_travel_over_ipv6_as_over_ipv4() {
    alone("dual::frames_travel_over_ipv6_as_over_ipv4", || {
        let (mut hosts, _) = hosts(3);
        for host in &mut hosts {
            host.kill_daemon();
            host.start_at(host.address_v6().into());
        }
        let addresses: Vec<IpAddr> = hosts.iter().map(|host| host.address_v6().into()).collect();
        let mut cluster = Cluster::new(&addresses);
        let (_, _, tasks) = web(&mut cluster, &[0, 1]);
        converge_all(&hosts, &cluster);
        let here = hosts[0].sandbox(tasks[0]);
        let _one = Server::start(&here, "one", 80);
        let _two = Server::start(&hosts[1].sandbox(tasks[1]), "two", 80);
        // 20 octets less than over IPv4.
        sh_in(&here, "ping -c 1 -W 2 -M do -s 1402 10.1.1.11");
        assert!(!try_in(&here, "ping -c 1 -W 1 -M do -s 1403 10.1.1.11").status.success());
        assert_eq!(get(Some(&here), "[fd00:a:1:1::b]"), "two fd00:a:1:1::a");
        for (url, client) in [("10.99.0.3:8080", "10.99.0.254"), ("[fd99::3]:8080", "fd99::fe")] {
            let seen: BTreeSet<_> = (0..30).map(|_| get(None, url)).collect();
            assert_eq!(seen, BTreeSet::from([format!("one {client}"), format!("two {client}")]), "{url}");
        }
        assert!(!hosts[0].repair());
        // Frames from a host that is no member.
        sh("bash -c 'echo x > /dev/udp/fd99::1/4789'");
        let rules = sh_in(&hosts[0].namespace, "nft list chain inet rswarm raw");
        let dropped = rules.lines().find(|l| l.contains("vteps6") && l.contains("drop")).unwrap();
        assert!(!dropped.contains("packets 0"), "{rules}");
        hosts[0].with(|o| Box::pin(async move { o.teardown().await.unwrap() }));
    });
}
