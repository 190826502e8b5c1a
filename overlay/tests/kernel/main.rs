//! The overlay on real kernels: hosts as network namespaces, observed with `ip`, `nft`, `curl`,
//! `ping` and `dig`. Needs root, iproute2, nftables, util-linux, curl, iputils-ping and dnsutils.
#![allow(clippy::unwrap_used, reason = "tests")]

mod dual;
mod filters;
#[path = "../../src/fixture.rs"]
#[allow(dead_code, reason = "shared with the unit tests")]
mod fixture;
mod lab;
mod sctp;

use std::collections::BTreeSet;

use fixture::{Cluster, tcp};
use lab::{
    BIG, CLIENT, Host, Server, alone, ask_udp, connect, connect_from, converge_all, echoes, eventually, get, serve_udp,
    sh, sh_in, try_in,
};
use rswarm_types::spec::{PortConfig, Protocol, PublishMode};
use rswarm_types::task::EndpointState;
use rswarm_types::{NetworkId, ServiceId, TaskId};

fn hosts(count: usize) -> (Vec<Host>, Cluster) {
    let hosts: Vec<_> = (0..count).map(Host::new).collect();
    let addresses: Vec<_> = hosts.iter().map(|host| host.address().into()).collect();
    (hosts, Cluster::new(&addresses))
}

/// A service on one network, published on 8080 → 80, with tasks on these nodes.
fn web(cluster: &mut Cluster, nodes: &[usize]) -> (NetworkId, ServiceId, Vec<TaskId>) {
    let network = cluster.network("back");
    let web = cluster.service("web", &[network], &[tcp(PublishMode::Ingress, 8080, 80)]);
    let tasks = nodes.iter().map(|n| cluster.task(web, *n)).collect();
    (network, web, tasks)
}

#[test]
fn containers_on_two_hosts_meet_by_address_and_by_name() {
    alone("containers_on_two_hosts_meet_by_address_and_by_name", || {
        let (hosts, mut cluster) = hosts(2);
        let (_, _, tasks) = web(&mut cluster, &[0, 1]);
        converge_all(&hosts, &cluster);
        let here = hosts[0].sandbox(tasks[0]);
        let there = hosts[1].sandbox(tasks[1]);
        sh_in(&here, "ping -c 2 -i 0.2 -W 2 10.1.1.11");
        // The largest packet that fits 1450.
        sh_in(&here, "ping -c 1 -W 2 -M do -s 1422 10.1.1.11");
        assert!(!try_in(&here, "ping -c 1 -W 1 -M do -s 1423 10.1.1.11").status.success());
        let _server = Server::start(&there, "there", 80);
        assert_eq!(get(Some(&here), "10.1.1.11"), "there 10.1.1.10");
        assert_eq!(sh_in(&here, "dig +short web @127.0.0.11").trim(), "10.1.1.200");
        let mut all: Vec<_> =
            sh_in(&here, "dig +short +tcp tasks.web @127.0.0.11").lines().map(str::to_owned).collect();
        all.sort();
        assert_eq!(all, ["10.1.1.10", "10.1.1.11"]);
        // A container may have port 53 for itself.
        let _own = Server::start(&here, "own", 53);
        // The bridge answers for addresses elsewhere: nothing is flooded.
        let network = sh(&format!("ls {}", hosts[0].run_dir.join("netns").display()));
        assert_eq!(network.lines().count(), 2, "{network}");
    });
}

#[test]
fn a_virtual_address_spreads_drains_and_ends_connections_of_the_dead() {
    alone("a_virtual_address_spreads_drains_and_ends_connections_of_the_dead", || {
        let (hosts, mut cluster) = hosts(2);
        let (network, _, tasks) = web(&mut cluster, &[0, 1]);
        let client = cluster.service("client", &[network], &[]);
        let client = cluster.task(client, 0);
        converge_all(&hosts, &cluster);
        let from = hosts[0].sandbox(client);
        let one = Server::start(&hosts[0].sandbox(tasks[0]), "one", 80);
        let _two = Server::start(&hosts[1].sandbox(tasks[1]), "two", 80);
        let names = || -> BTreeSet<String> { (0..30).map(|_| get(Some(&from), "10.1.1.200")).collect() };
        // Both are met, and they see the client itself.
        let both = BTreeSet::from(["one 10.1.1.12".to_owned(), "two 10.1.1.12".to_owned()]);
        assert_eq!(names(), both);
        // A container meets itself too.
        assert!(get(Some(&hosts[0].sandbox(tasks[0])), "10.1.1.200").contains(' '));

        let mut held: Vec<_> = (0..10).map(|_| connect(&from, ([10, 1, 1, 200], 80)).unwrap()).collect();
        assert!(held.iter_mut().all(|s| echoes(s).unwrap()));
        cluster.set_state(tasks[0], EndpointState::Draining);
        converge_all(&hosts, &cluster);
        assert_eq!(names(), BTreeSet::from(["two 10.1.1.12".to_owned()]));
        // Who was connected stays so.
        assert!(held.iter_mut().all(|s| echoes(s).unwrap()));
        let to_one = sh_in(&from, "conntrack -L -p tcp --reply-src 10.1.1.10 --state ESTABLISHED 2>/dev/null");
        let to_one = to_one.lines().count();
        assert!(to_one > 0);

        drop(one);
        cluster.set_state(tasks[0], EndpointState::Dead);
        converge_all(&hosts, &cluster);
        let left = sh_in(&from, "conntrack -L --reply-src 10.1.1.10 2>/dev/null");
        assert_eq!(left, "");
        cluster.set_state(tasks[1], EndpointState::Draining);
        converge_all(&hosts, &cluster);
        // Nobody takes connections: refused at once, not a hang.
        let refused = connect(&from, ([10, 1, 1, 200], 80)).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
}

#[test]
fn a_published_port_answers_on_every_node_and_shows_the_clients_address() {
    alone("a_published_port_answers_on_every_node_and_shows_the_clients_address", || {
        let (hosts, mut cluster) = hosts(3);
        let (_, _, tasks) = web(&mut cluster, &[0, 1]);
        converge_all(&hosts, &cluster);
        let _one = Server::start(&hosts[0].sandbox(tasks[0]), "one", 80);
        let _two = Server::start(&hosts[1].sandbox(tasks[1]), "two", 80);
        let both = BTreeSet::from([format!("one {CLIENT}"), format!("two {CLIENT}")]);
        for host in &hosts {
            let url = format!("{}:8080", host.address());
            let seen: BTreeSet<_> = (0..30).map(|_| get(None, &url)).collect();
            assert_eq!(seen, both, "through {}", host.address());
        }
        // The same client port through two nodes at once.
        for _ in 0..6 {
            let mut flows: Vec<_> = hosts.iter().map(|h| connect_from(40_001, (h.address(), 8080)).unwrap()).collect();
            assert!(flows.iter_mut().all(|s| echoes(s).unwrap()));
            assert!(flows.iter_mut().all(|s| echoes(s).unwrap()));
        }
        // From the node itself, and from a container through its own node.
        for url in ["127.0.0.1:8080", "10.99.0.1:8080"] {
            let seen: BTreeSet<_> =
                (0..12).map(|_| get(Some(&hosts[0].namespace), url).split(' ').next().unwrap().to_owned()).collect();
            assert_eq!(seen, BTreeSet::from(["one".into(), "two".into()]), "{url}");
        }
        let inside = hosts[0].sandbox(tasks[0]);
        for node in ["10.99.0.1:8080", "10.99.0.2:8080", "10.99.0.3:8080"] {
            let seen: BTreeSet<_> =
                (0..12).map(|_| get(Some(&inside), node).split(' ').next().unwrap().to_owned()).collect();
            assert_eq!(seen, BTreeSet::from(["one".into(), "two".into()]), "{node}");
        }
        // A node as the client of another node, whose backend may be on the first.
        for _ in 0..6 {
            let seen = get(Some(&hosts[0].namespace), "10.99.0.3:8080");
            assert!(seen.starts_with("one") || seen.starts_with("two"), "{seen}");
        }
        // Outward, a container is its host.
        let _outside = Server::start("/proc/self/ns/net".as_ref(), "outside", 9000);
        assert_eq!(get(Some(&inside), &format!("{CLIENT}:9000")), "outside 10.99.0.1");
    });
}

#[test]
fn datagrams_and_large_answers_cross_the_mesh() {
    alone("datagrams_and_large_answers_cross_the_mesh", || {
        let (hosts, mut cluster) = hosts(3);
        let udp = PortConfig { protocol: Protocol::Udp, ..tcp(PublishMode::Ingress, 5353, 53) };
        let network = cluster.network("back");
        let service = cluster.service("web", &[network], &[udp, tcp(PublishMode::Ingress, 8080, 80)]);
        let tasks = [cluster.task(service, 0), cluster.task(service, 1)];
        converge_all(&hosts, &cluster);
        let _servers: Vec<_> = [(0, "one"), (1, "two")]
            .into_iter()
            .flat_map(|(index, name)| {
                let sandbox = hosts[index].sandbox(tasks[index]);
                [serve_udp(&sandbox, name, 53), Server::start(&sandbox, name, 80)]
            })
            .collect();
        let both = BTreeSet::from([format!("one {CLIENT}"), format!("two {CLIENT}")]);
        for host in &hosts {
            let seen: BTreeSet<_> = (0..30).map(|_| ask_udp((host.address(), 5353))).collect();
            assert_eq!(seen, both, "through {}", host.address());
            for _ in 0..4 {
                let size = sh(&format!("curl -s --max-time 20 http://{}:8080/big | wc -c", host.address()));
                assert_eq!(size.trim(), BIG.to_string(), "through {}", host.address());
            }
        }
        // Between containers, over the tunnel.
        let size = sh_in(&hosts[0].sandbox(tasks[0]), "curl -s --max-time 20 http://10.1.1.11/big | wc -c");
        assert_eq!(size.trim(), BIG.to_string());
    });
}

#[test]
fn a_sandbox_that_comes_back_at_once_works() {
    alone("a_sandbox_that_comes_back_at_once_works", || {
        let (hosts, mut cluster) = hosts(2);
        let (_, _, tasks) = web(&mut cluster, &[0, 1]);
        converge_all(&hosts, &cluster);
        for _ in 0..5 {
            assert_eq!(hosts[0].converge_with(&cluster, BTreeSet::new()).failures, vec![]);
            assert_eq!(hosts[0].converge(&cluster).failures, vec![]);
            sh_in(&hosts[0].sandbox(tasks[0]), "ping -c 1 -W 2 10.1.1.11");
        }
        assert!(!hosts[0].repair());
        // Its address at another node: frames follow.
        cluster.tasks[1].node = 0;
        converge_all(&hosts, &cluster);
        sh_in(&hosts[0].sandbox(tasks[0]), "ping -c 1 -W 2 10.1.1.11");
    });
}

#[test]
fn what_is_not_published_is_not_reached() {
    alone("what_is_not_published_is_not_reached", || {
        let (hosts, mut cluster) = hosts(2);
        let (_, _, tasks) = web(&mut cluster, &[0, 1]);
        let other = cluster.network("other");
        let other = cluster.service("other", &[other], &[]);
        let other = cluster.task(other, 0);
        converge_all(&hosts, &cluster);
        let web = hosts[0].sandbox(tasks[0]);
        let _secret = Server::start(&web, "secret", 81);
        let gateway = sh_in(&web, "ip -4 -o addr show eth1 | grep -o '172[0-9.]*' | head -1");
        let gateway = gateway.trim();
        // Another container of the host, over the gateway; the LAN, by a route; another node.
        let sibling = hosts[0].sandbox(other);
        assert!(get(Some(&sibling), &format!("{gateway}:81")).contains("curl"));
        sh_in(&sibling, &format!("ip route add {gateway}/32 via 172.18.0.1"));
        assert!(get(Some(&sibling), &format!("{gateway}:81")).contains("curl"));
        sh("ip route add 172.18.0.0/16 via 10.99.0.1");
        assert!(get(None, &format!("{gateway}:81")).contains("curl"));
        assert!(get(Some(&hosts[1].namespace), "10.0.0.100:81").contains("curl"));
        // Frames from a host that is no member.
        sh("echo x > /dev/udp/10.99.0.1/4789 2>/dev/null || bash -c 'echo x > /dev/udp/10.99.0.1/4789'");
        let rules = sh_in(&hosts[0].namespace, "nft list chain inet rswarm raw");
        let dropped = rules.lines().find(|l| l.contains("4789") && l.contains("drop")).unwrap();
        assert!(!dropped.contains("packets 0"), "{rules}");
        // Loopback from outside, although it is routed.
        let _local = Server::start(&hosts[0].namespace, "local", 82);
        sh("ip route add 127.0.0.9/32 via 10.99.0.1 || true");
        assert!(!get(Some(&web), "127.0.0.9:82").contains("local"));
    });
}

#[test]
fn a_flushed_ruleset_and_lost_interfaces_come_back() {
    alone("a_flushed_ruleset_and_lost_interfaces_come_back", || {
        let (hosts, mut cluster) = hosts(2);
        let (_, _, tasks) = web(&mut cluster, &[0, 1]);
        converge_all(&hosts, &cluster);
        let (one, two) = (&hosts[0], &hosts[1]);
        let _one = Server::start(&one.sandbox(tasks[0]), "one", 80);
        let _two = Server::start(&two.sandbox(tasks[1]), "two", 80);
        let before = one.dump();
        let inside = sh_in(
            &one.sandbox(tasks[0]),
            "nft list ruleset; ip route; ip addr | grep -v valid_lft | sed s/@if[0-9]*//",
        );
        assert!(!one.repair());
        let damage = [
            "nft flush ruleset",
            "nft delete table netdev rswarm",
            "nft delete element inet rswarm in4 { 10.0.0.100 }",
            "nft delete element inet rswarm in6 { fd00:a:0:0::64 }",
            "ip link delete rswarm_gw",
            "ip -6 rule del pref 100",
            "ip -6 neigh flush dev rswarm_gw nud permanent",
            "nft flush chain inet rswarm filt",
            "ip link delete rswarm_vxi",
            "ip rule del pref 100",
            "ip link set rswarm_gw down",
            "ip route del 10.0.0.3",
            "ip neigh del 10.0.0.3 dev rswarm_vxi",
            "bridge fdb del 02:42:fe:00:00:02 dev rswarm_vxi dst 10.99.0.2 self",
            "echo 0 > /proc/sys/net/ipv4/ip_forward",
            "ip addr flush dev rswarm_vxi",
        ];
        for command in damage {
            sh_in(&one.namespace, command);
            assert!(one.repair(), "{command}");
            // A bridge takes a moment to have a carrier again.
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
            while lines(&one.dump()) != lines(&before) && std::time::Instant::now() < deadline {}
            assert_same(command, &one.dump(), &before);
            assert!(!one.repair(), "{command}");
        }
        let sandbox = one.sandbox(tasks[0]);
        for command in ["nft flush ruleset", "ip route del default"] {
            sh_in(&sandbox, command);
            assert!(one.repair(), "{command}");
            let after = sh_in(&sandbox, "nft list ruleset; ip route; ip addr | grep -v valid_lft | sed s/@if[0-9]*//");
            assert_same(command, &after, &inside);
        }
        // A pair that is gone is made anew, addresses and all.
        sh_in(&sandbox, "ip link delete eth0");
        assert!(one.repair());
        assert!(get(Some(&two.sandbox(tasks[1])), "10.1.1.10").starts_with("one"));
        let seen: BTreeSet<_> = (0..20).map(|_| get(None, "10.99.0.1:8080")).collect();
        assert_eq!(seen.len(), 2, "{seen:?}");
        assert!(!one.repair());
    });
}

fn lines(text: &str) -> BTreeSet<String> {
    let unnumbered = |l: &str| l.trim_start_matches(|c: char| c.is_ascii_digit()).to_owned();
    text.lines().map(unnumbered).collect()
}

/// The same lines in any order: the kernel lists in order of creation, and an interface that was
/// made anew has another index.
#[track_caller]
fn assert_same(what: &str, one: &str, other: &str) {
    let (one, other) = (lines(one), lines(other));
    let new: Vec<_> = one.difference(&other).collect();
    let lost: Vec<_> = other.difference(&one).collect();
    assert!(new.is_empty() && lost.is_empty(), "{what}: new {new:#?} lost {lost:#?}");
}

#[test]
fn foreign_changes_and_a_dead_netd_are_noticed() {
    alone("foreign_changes_and_a_dead_netd_are_noticed", || {
        let (hosts, mut cluster) = hosts(1);
        let (_, _, tasks) = web(&mut cluster, &[0]);
        converge_all(&hosts, &cluster);
        let host = &hosts[0];
        let watch = |command: String| {
            let namespace = host.namespace.clone();
            host.with(|overlay| {
                Box::pin(async move {
                    let damage = async {
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        sh_in(&namespace, &command);
                        std::future::pending::<()>().await;
                    };
                    tokio::select! {
                        noticed = overlay.watch() => format!("{noticed:?}"),
                        () = damage => unreachable!(),
                        () = tokio::time::sleep(std::time::Duration::from_secs(5)) => "nothing".into(),
                    }
                })
            })
        };
        assert_eq!(watch("nft flush ruleset".into()), "Ok(Ruleset)");
        assert!(host.repair());
        let query = "dig +short +tries=2 +time=2 web @127.0.0.11";
        assert_eq!(sh_in(&host.sandbox(tasks[0]), query).trim(), "10.1.1.200");
        let lock = host.run_dir.join("netd");
        let pid = sh(&format!(
            "fuser {}/lock 2>/dev/null || pgrep -f 'netd netd --run-dir {}'",
            lock.display(),
            host.run_dir.display()
        ));
        let pid = pid.split_whitespace().next().unwrap().to_owned();
        assert_eq!(watch(format!("kill -9 {pid}")), "Ok(Netd)");
        host.repair();
        assert_eq!(sh_in(&host.sandbox(tasks[0]), query).trim(), "10.1.1.200");
    });
}

#[test]
fn the_next_daemon_takes_up_what_it_finds() {
    alone("the_next_daemon_takes_up_what_it_finds", || {
        let (mut hosts, mut cluster) = hosts(2);
        let (_, _, tasks) = web(&mut cluster, &[0, 1]);
        let any = tcp(PublishMode::Host, 0, 80);
        let network = cluster.networks[1].id;
        let service = cluster.service("host", &[network], &[any]);
        let published = cluster.task(service, 0);
        converge_all(&hosts, &cluster);
        let _one = Server::start(&hosts[0].sandbox(tasks[0]), "one", 80);
        let _two = Server::start(&hosts[1].sandbox(tasks[1]), "two", 80);
        let _host = Server::start(&hosts[0].sandbox(published), "host", 80);
        assert_eq!(get(None, "10.99.0.1:30000"), format!("host {CLIENT}"));
        let mut held = connect("/proc/self/ns/net".as_ref(), ([10, 99, 0, 1], 30_000)).unwrap();
        assert!(echoes(&mut held).unwrap());
        let before = hosts[0].dump();
        let inside = |hosts: &[Host]| sh_in(&hosts[0].sandbox(tasks[0]), "nft -a list ruleset; ip addr; ip route");
        let inside_before = inside(&hosts);
        hosts[0].kill_daemon();
        assert!(echoes(&mut held).unwrap());
        assert!(get(None, "10.99.0.1:8080").ends_with("254"));
        hosts[0].start();
        converge_all(&hosts, &cluster);
        assert_same("restart", &hosts[0].dump(), &before);
        assert_eq!(inside(&hosts), inside_before);
        assert!(echoes(&mut held).unwrap());
        assert!(!hosts[0].repair());
        let ports = hosts[0].with(move |o| Box::pin(async move { o.host_ports(published).await }));
        assert_eq!(ports.iter().map(|p| p.published).collect::<Vec<_>>(), [30_000]);
    });
}

#[test]
fn leaving_restores_the_kernel_as_it_was() {
    alone("leaving_restores_the_kernel_as_it_was", || {
        let (hosts, mut cluster) = hosts(2);
        let before = hosts[0].dump();
        web(&mut cluster, &[0, 0, 1]);
        converge_all(&hosts, &cluster);
        assert_ne!(hosts[0].dump(), before);
        // A sandbox that is no longer wanted goes, alone.
        let one = BTreeSet::from([cluster.tasks[0].task.id]);
        assert_eq!(hosts[0].converge_with(&cluster, one.clone()).failures, []);
        assert!(!hosts[0].sandbox(cluster.tasks[1].task.id).exists());
        let found = hosts[0].with(|o| Box::pin(async move { o.sandboxes().unwrap() }));
        assert_eq!(found, one);
        eventually("what led to it goes with it", || {
            let neighbours = sh_in(&hosts[0].namespace, "ip neigh show dev rswarm_gw nud permanent");
            neighbours.lines().count() == 2
        });
        for host in &hosts {
            host.with(|o| Box::pin(async move { o.teardown().await.unwrap() }));
        }
        assert_same("leave", &hosts[0].dump(), &before);
        assert_eq!(sh("ps ax | grep -c '[n]etd netd' || true").trim(), "0");
        // And back.
        converge_all(&hosts, &cluster);
    });
}

#[test]
fn a_port_that_something_else_holds_is_left_to_it_and_named() {
    alone("a_port_that_something_else_holds_is_left_to_it_and_named", || {
        let (hosts, mut cluster) = hosts(1);
        let foreign = Server::start(&hosts[0].namespace, "foreign", 8080);
        let lowest = Server::start(&hosts[0].namespace, "lowest", 30_000);
        let (_, web, tasks) = web(&mut cluster, &[0]);
        let service = cluster.service("host", &[], &[tcp(PublishMode::Host, 0, 80)]);
        let host = cluster.task(service, 0);
        let done = hosts[0].converge(&cluster);
        assert_eq!(done.failures, []);
        assert_eq!(done.port_problems.len(), 1, "{:?}", done.port_problems);
        assert_eq!(done.port_problems[0].service, web);
        assert!(done.port_problems[0].reason.contains("8080/tcp is held by"), "{:?}", done.port_problems);
        let mut held = connect("/proc/self/ns/net".as_ref(), ([10, 99, 0, 1], 8080)).unwrap();
        assert!(echoes(&mut held).unwrap());
        drop(held);
        let ports = hosts[0].with(move |o| Box::pin(async move { o.host_ports(host).await }));
        assert_eq!(ports[0].published, 30_001);
        let _task = Server::start(&hosts[0].sandbox(tasks[0]), "task", 80);
        drop((foreign, lowest));
        hosts[0].repair();
        assert_eq!(get(None, "10.99.0.1:8080"), format!("task {CLIENT}"));
    });
}

#[test]
fn a_firewall_that_drops_what_is_forwarded_is_opened_for_us_and_closed_again() {
    alone("a_firewall_that_drops_what_is_forwarded_is_opened_for_us_and_closed_again", || {
        let (hosts, mut cluster) = hosts(2);
        let firewall = "nft add table ip filter && nft add chain ip filter FORWARD \
                        '{ type filter hook forward priority 0; policy drop; }'";
        sh_in(&hosts[1].namespace, firewall);
        let before = hosts[1].dump();
        let (_, _, tasks) = web(&mut cluster, &[1]);
        converge_all(&hosts, &cluster);
        let _server = Server::start(&hosts[1].sandbox(tasks[0]), "one", 80);
        for node in ["10.99.0.1:8080", "10.99.0.2:8080"] {
            assert_eq!(get(None, node), format!("one {CLIENT}"));
        }
        // One that comes later is met by the repair.
        sh_in(&hosts[0].namespace, firewall);
        assert!(!get(None, "10.99.0.1:8080").starts_with("one"));
        assert!(hosts[0].repair());
        assert_eq!(get(None, "10.99.0.1:8080"), format!("one {CLIENT}"));
        assert!(!hosts[0].repair());
        drop(_server);
        hosts[1].with(|o| Box::pin(async move { o.teardown().await.unwrap() }));
        assert_same("leave", &hosts[1].dump(), &before);
    });
}

#[test]
fn an_attachment_costs_milliseconds() {
    alone("an_attachment_costs_milliseconds", || {
        let (hosts, mut cluster) = hosts(1);
        let (_, web, tasks) = web(&mut cluster, &[0]);
        let first = tasks[0];
        converge_all(&hosts, &cluster);
        // Wall time is the machine's affair: what judges is the processor time, ours and the kernel's.
        let measured = |what: &str, count: u32, work: &mut dyn FnMut()| {
            let (start, cpu) = (std::time::Instant::now(), cpu_time());
            for _ in 0..count {
                work();
            }
            let spent = (cpu_time() - cpu) / count;
            eprintln!("{what}: {spent:?} of processor time, {:?} in all", start.elapsed() / count);
        };
        measured("attach", 60, &mut || {
            cluster.task(web, 0);
            converge_all(&hosts, &cluster);
        });
        measured("nothing to do, 61 sandboxes", 50, &mut || converge_all(&hosts, &cluster));
        let mut is_ready = false;
        measured("one backend changed, 61 sandboxes", 50, &mut || {
            is_ready = !is_ready;
            let state = if is_ready { EndpointState::Ready } else { EndpointState::Draining };
            cluster.set_state(first, state);
            converge_all(&hosts, &cluster);
        });
        measured("repair of nothing, 61 sandboxes", 50, &mut || assert!(!hosts[0].repair()));
    });
}

/// Of this process, with a resolution of 10 ms.
fn cpu_time() -> std::time::Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    std::time::Duration::from_millis(ticks * 10)
}

#[test]
fn an_old_iptables_that_drops_is_recognised_until_ours_is_let_through() {
    alone("an_old_iptables_that_drops_is_recognised_until_ours_is_let_through", || {
        let is_dropping = rswarm_overlay::net::namespaces::drops_by_old_iptables;
        assert!(!is_dropping());
        sh("iptables-legacy -P FORWARD DROP");
        assert!(is_dropping());
        sh("iptables-legacy -I FORWARD -i rswarm_+ -j ACCEPT");
        assert!(!is_dropping());
    });
}
