//! Who may send what, and which backend a client gets.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use rswarm_types::spec::{PortConfig, PublishMode};
use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};

use crate::fixture::tcp;
use crate::lab::{CLIENT, CLIENT_V6, Server, alone, connect, converge_all, echoes, get, sh, sh_in, try_in};
use crate::{hosts, web};

/// Octets that the last rule of a chain counted.
fn dropped(namespace: &Path, chain: &str) -> u64 {
    let rules = sh_in(namespace, &format!("nft list chain {chain}"));
    let last = rules.lines().rfind(|l| l.contains("drop")).unwrap();
    last.split("bytes ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap()
}

#[test]
fn a_container_cannot_pass_for_its_neighbour() {
    alone("filters::a_container_cannot_pass_for_its_neighbour", || {
        let (hosts, mut cluster) = hosts(2);
        let (network, _, tasks) = web(&mut cluster, &[0, 0, 1]);
        converge_all(&hosts, &cluster);
        let (liar, neighbour) = (hosts[0].sandbox(tasks[0]), hosts[0].sandbox(tasks[1]));
        let of_network = hosts[0].run_dir.join("netns").join(format!("net-{network}"));
        let far = hosts[1].sandbox(tasks[2]);
        sh_in(&liar, "ping -c 1 -W 2 10.1.1.11; ping -c 1 -W 2 10.1.1.12; ping -6 -c 1 -W 2 fd00:a:1:1::b");
        let before = dropped(&of_network, "bridge rswarm pre");
        // The neighbour's address, IPv4 and IPv6.
        sh_in(&liar, "ip addr add 10.1.1.11/32 dev lo; ip -6 addr add fd00:a:1:1::b/128 dev lo nodad");
        for target in ["-I 10.1.1.11 10.1.1.12", "-6 -I fd00:a:1:1::b fd00:a:1:1::c"] {
            assert!(!try_in(&liar, &format!("ping -c 1 -W 1 {target}")).status.success(), "{target}");
        }
        let after = dropped(&of_network, "bridge rswarm pre");
        assert!(after > before);
        // It announces another's address as its own, and answers for it.
        sh_in(&liar, "echo 1 > /proc/sys/net/ipv4/conf/eth0/arp_notify; ip addr add 10.1.1.12/32 dev eth0");
        // The kernel announces addresses when the hardware address changes: here back to what it was.
        sh_in(&liar, "ip link set eth0 address 02:42:0a:01:01:0b; ip link set eth0 address 02:42:0a:01:01:0a");
        assert!(dropped(&of_network, "bridge rswarm pre") > after);
        let learned = sh_in(&neighbour, "ip neigh flush dev eth0; ping -c 1 -W 2 10.1.1.12; ip neigh show 10.1.1.12");
        assert!(learned.contains("02:42:0a:01:01:0c"), "{learned}");
        sh_in(&liar, "ip addr del 10.1.1.12/32 dev eth0");
        // Its hardware address.
        sh_in(&liar, "ip link set eth0 address 02:42:0a:01:01:0b");
        assert!(!try_in(&liar, "ping -c 1 -W 1 10.1.1.12").status.success());
        sh_in(&liar, "ip link set eth0 address 02:42:0a:01:01:0a");
        // On the gateway: address and hardware address.
        let _host = Server::start(&hosts[0].namespace, "host", 8090);
        let own = sh_in(&liar, "ip -4 -o addr show eth1 | grep -o '172[0-9.]*/16'");
        let other = sh_in(&neighbour, "ip -4 -o addr show eth1 | grep -o '172[0-9.]*/16'");
        let call = "curl -s --max-time 1 http://172.18.0.1:8090";
        assert!(sh_in(&liar, call).starts_with("host"));
        sh_in(&liar, &format!("ip addr add {} dev eth1", other.trim()));
        let as_other = format!("{call} --interface {}", other.trim().trim_end_matches("/16"));
        assert!(!try_in(&liar, &as_other).status.success());
        sh_in(&liar, &format!("ip addr del {} dev eth1", other.trim()));
        assert!(sh_in(&liar, call).starts_with("host"), "{own}");
        sh_in(&liar, "ip link set eth1 address 02:42:ac:12:00:63");
        assert!(!try_in(&liar, call).status.success());
        // The others go on.
        sh_in(&far, "ping -c 1 -W 2 10.1.1.11");
    });
}

/// Sends a Router Advertisement (RFC 4861, 4.2) for fdba:d::/64 to all nodes on the link.
fn advertise(namespace: &Path, device: &'static str) {
    let namespace = File::open(namespace).unwrap();
    let sent = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
        let index = nix::net::if_::if_nametoindex(device).unwrap();
        sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
        let mut message = vec![134, 0, 0, 0, 64, 0];
        message.extend(1800u16.to_be_bytes());
        message.extend([0; 8]);
        // Prefix information: on link, for addresses.
        message.extend([3, 4, 64, 0xc0]);
        message.extend([[0, 0, 14, 16], [0, 0, 14, 16], [0; 4]].concat());
        message.extend("fdba:d::".parse::<Ipv6Addr>().unwrap().octets());
        let to = SocketAddrV6::new("ff02::1".parse().unwrap(), 0, 0, index);
        sendto(&socket, &message, SendFlags::empty(), &to).unwrap();
    });
    sent.join().unwrap();
}

#[test]
fn no_router_advertisement_is_heard_or_carried() {
    alone("filters::no_router_advertisement_is_heard_or_carried", || {
        let (hosts, mut cluster) = hosts(1);
        let (_, _, tasks) = web(&mut cluster, &[0, 0]);
        converge_all(&hosts, &cluster);
        let (router, victim) = (hosts[0].sandbox(tasks[0]), hosts[0].sandbox(tasks[1]));
        // A router in a container: on its network, and towards the host.
        for device in ["eth0", "eth1"] {
            sh_in(&router, &format!("ip -6 addr add fe80::1/64 dev {device} nodad"));
            advertise(&router, device);
        }
        std::thread::sleep(std::time::Duration::from_millis(300));
        for namespace in [&victim, &hosts[0].namespace] {
            let routes = sh_in(namespace, "ip -6 route; ip -6 addr");
            assert!(!routes.contains("fdba:d") && !routes.contains("proto ra"), "{routes}");
        }
    });
}

#[test]
fn a_client_keeps_its_backend_whichever_node_it_asks() {
    alone("filters::a_client_keeps_its_backend_whichever_node_it_asks", || {
        let (hosts, mut cluster) = hosts(3);
        let (_, _, tasks) = web(&mut cluster, &[0, 1, 2, 1]);
        cluster.services[0].balance.by_client = true;
        converge_all(&hosts, &cluster);
        let serve = |(index, task): (usize, &rswarm_types::TaskId)| {
            Server::start(&hosts[cluster.tasks[index].node].sandbox(*task), &format!("task{index}"), 80)
        };
        let _servers: Vec<_> = tasks.iter().enumerate().map(serve).collect();
        let mut met = BTreeSet::new();
        // Clients with many addresses: each has one backend, and together they have several.
        for last in 100..116 {
            sh(&format!("ip addr add 10.99.0.{last}/32 dev lan; ip -6 addr add fd99::1:{last}/128 dev lan nodad"));
            for (from, urls) in [
                (format!("10.99.0.{last}"), ["10.99.0.1:8080", "10.99.0.2:8080", "10.99.0.3:8080"]),
                (format!("fd99::1:{last}"), ["[fd99::1]:8080", "[fd99::2]:8080", "[fd99::3]:8080"]),
            ] {
                let ask = |url: &str| sh(&format!("curl -s -S --max-time 3 --interface {from} http://{url}"));
                let seen: BTreeSet<_> = urls.iter().flat_map(|url| [ask(url), ask(url)]).collect();
                assert_eq!(seen.len(), 1, "{seen:?}");
                met.extend(seen.into_iter().map(|answer| answer.split(' ').next().unwrap().to_owned()));
            }
        }
        assert!(met.len() >= 3, "{met:?}");
        // By its name too: a container keeps its backend.
        let inside = hosts[0].sandbox(tasks[0]);
        let seen: BTreeSet<_> = (0..12).map(|_| get(Some(&inside), "10.1.1.200")).collect();
        assert_eq!(seen.len(), 1, "{seen:?}");
    });
}

#[test]
fn local_tasks_are_preferred_where_there_are_any() {
    alone("filters::local_tasks_are_preferred_where_there_are_any", || {
        let (hosts, mut cluster) = hosts(3);
        let (_, _, tasks) = web(&mut cluster, &[0, 1]);
        cluster.services[0].balance.prefers_local = true;
        converge_all(&hosts, &cluster);
        let _one = Server::start(&hosts[0].sandbox(tasks[0]), "one", 80);
        let _two = Server::start(&hosts[1].sandbox(tasks[1]), "two", 80);
        let seen = |url: &str| -> BTreeSet<String> { (0..20).map(|_| get(None, url)).collect() };
        assert_eq!(seen("10.99.0.1:8080"), BTreeSet::from([format!("one {CLIENT}")]));
        assert_eq!(seen("[fd99::2]:8080"), BTreeSet::from([format!("two {CLIENT_V6}")]));
        assert_eq!(seen("10.99.0.3:8080").len(), 2);
    });
}

#[test]
fn a_port_of_one_address_answers_there_only() {
    alone("filters::a_port_of_one_address_answers_there_only", || {
        let (hosts, mut cluster) = hosts(2);
        sh_in(&hosts[0].namespace, "ip addr add 10.99.0.77/24 dev eth0");
        sh("ip route add 10.99.0.77/32 via 10.99.0.1");
        let at = |address: IpAddr| PortConfig { address: Some(address), ..tcp(PublishMode::Ingress, 8080, 80) };
        let [first, second] = [at([10, 99, 0, 77].into()), at("fd99::1".parse().unwrap())];
        let network = cluster.network("back");
        let one = cluster.service("one", &[network], &[first]);
        let two = cluster.service("two", &[network], &[second]);
        let (one, two) = (cluster.task(one, 0), cluster.task(two, 1));
        converge_all(&hosts, &cluster);
        let _one = Server::start(&hosts[0].sandbox(one), "one", 80);
        let _two = Server::start(&hosts[1].sandbox(two), "two", 80);
        assert_eq!(get(None, "10.99.0.77:8080"), format!("one {CLIENT}"));
        assert_eq!(get(None, "[fd99::1]:8080"), format!("two {CLIENT_V6}"));
        for url in ["10.99.0.1:8080", "10.99.0.2:8080", "[fd99::2]:8080"] {
            assert!(get(None, url).contains("curl"), "{url}");
        }
        // Somebody else may have the port at another address.
        let namespace = File::open(&hosts[0].namespace).unwrap();
        let bound = std::thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            ["10.99.0.1:8080", "10.99.0.77:8080"].map(|at| std::net::TcpListener::bind(at).is_ok())
        });
        assert_eq!(bound.join().unwrap(), [true, false]);
    });
}

#[test]
fn a_client_whose_address_is_also_in_a_containers_network_is_answered() {
    alone("filters::a_client_whose_address_is_also_in_a_containers_network_is_answered", || {
        let (hosts, mut cluster) = hosts(2);
        let (_, _, tasks) = web(&mut cluster, &[0]);
        converge_all(&hosts, &cluster);
        let _one = Server::start(&hosts[0].sandbox(tasks[0]), "one", 80);
        sh("ip addr add 10.1.1.99/32 dev lan");
        for host in &hosts {
            sh_in(&host.namespace, "ip route add 10.1.1.99/32 via 10.99.0.254");
            let url = format!("{}:8080", host.address());
            let seen = sh(&format!("curl -s -S --max-time 3 --interface 10.1.1.99 http://{url}"));
            // Its address cannot be shown: the container would look for it on its network.
            assert_eq!(seen, "one 172.18.0.1", "through {}", host.address());
            assert_eq!(get(None, &url), format!("one {CLIENT}"));
        }
    });
}

#[test]
fn idle_connections_are_remembered_for_longer_than_a_quarter_of_an_hour() {
    alone("filters::idle_connections_are_remembered_for_longer_than_a_quarter_of_an_hour", || {
        let (hosts, mut cluster) = hosts(2);
        let (network, _, tasks) = web(&mut cluster, &[1]);
        let client = cluster.service("client", &[network], &[]);
        let client = cluster.task(client, 0);
        converge_all(&hosts, &cluster);
        let _one = Server::start(&hosts[1].sandbox(tasks[0]), "one", 80);
        let inside = hosts[0].sandbox(client);
        let mut by_mesh = connect("/proc/self/ns/net".as_ref(), (hosts[0].address(), 8080)).unwrap();
        let mut by_name = connect(&inside, ([10, 1, 1, 200], 80)).unwrap();
        assert!(echoes(&mut by_mesh).unwrap() && echoes(&mut by_name).unwrap());
        for namespace in [&hosts[0].namespace, &hosts[1].namespace, &inside] {
            let entries = sh_in(namespace, "conntrack -L -p tcp --state ESTABLISHED 2>/dev/null");
            // `tcp      6 431999 ESTABLISHED src=…`: the third word is the time left, in seconds.
            let left: Vec<u32> = entries.lines().filter_map(|l| l.split_whitespace().nth(2)?.parse().ok()).collect();
            assert!(!left.is_empty() && left.iter().all(|seconds| *seconds > 900), "{entries}");
        }
    });
}
