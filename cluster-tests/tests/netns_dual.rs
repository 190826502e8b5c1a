//! IPv6 beside IPv4 on five real hosts: published ports, networks, names; ports of one address, and who gets which
//! backend.

use std::collections::BTreeSet;

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, must, rswarm, words};

const HOSTS: [&str; 5] = ["m1", "w1", "w2", "w3", "w4"];

/// What a host answers to the client under one of its addresses, each an URL's host.
fn visit(cluster: &Cluster, at: &str, path: &str) -> Option<String> {
    let answer = cluster.lab.client().curl(&format!("http://{at}/{path}")).ok()?;
    Some(answer.trim().to_owned())
}

/// The addresses of a host as URLs want them.
fn addresses(cluster: &Cluster, host: &str) -> [String; 2] {
    let host = cluster.host(host);
    [host.address(), format!("[{}]", host.address_v6())]
}

fn inside(cluster: &Cluster, host: &str, name: &str, line: &str) -> Option<String> {
    let words = words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = cluster.inside(host, name, &words);
    output.is_success().then(|| output.stdout.trim().to_owned())
}

#[test]
fn a_published_port_answers_on_five_nodes_in_both_families_with_the_clients_address() {
    let cluster = Cluster::new(1, 4);
    cluster.create(&format!(
        "--name web --replicas 2 --publish 8080:80 --constraint node.hostname!=m1 --constraint node.hostname!=w1 \
         --constraint node.hostname!=w2 {BUSYBOX} {HTTPD}"
    ));
    let client = cluster.lab.client();
    let own = [client.address(), client.address_v6()];
    for host in HOSTS {
        for (at, own) in addresses(&cluster, host).iter().zip(&own) {
            let at = format!("{at}:8080");
            cluster.until(&format!("{at} answers"), || visit(&cluster, &at, "").is_some());
            for _ in 0..5 {
                assert_eq!(visit(&cluster, &at, "cgi-bin/client").as_ref(), Some(own), "through {at}");
            }
            let mut seen = BTreeSet::new();
            cluster.until(&format!("both replicas answer at {at}"), || {
                seen.extend(visit(&cluster, &at, "cgi-bin/hostname"));
                seen.len() == 2
            });
        }
    }
    // Nodes as clients: of each other, of themselves, of their loopback; with a replica and without.
    for from in ["m1", "w3", "w4"] {
        for to in HOSTS {
            for at in addresses(&cluster, to) {
                let answer = cluster.host(from).curl(&format!("http://{at}:8080/cgi-bin/hostname"));
                assert!(answer.is_ok(), "{from} to {at}: {answer:?}");
            }
        }
        cluster.host(from).curl("http://127.0.0.1:8080/").unwrap();
    }
    // A container of the service calls its own node, and so perhaps itself.
    for at in addresses(&cluster, "w3") {
        for _ in 0..4 {
            let line = format!("timeout 3 wget -q -O - http://{at}:8080/cgi-bin/hostname");
            assert!(inside(&cluster, "w3", "httpd", &line).is_some(), "w3's container to {at}");
        }
    }
    // A daemon that was killed finds the kernel as it left it, and goes on.
    cluster.host("w3").sigkill_daemon().unwrap();
    for (at, own) in addresses(&cluster, "w3").iter().zip(&own) {
        assert_eq!(visit(&cluster, &format!("{at}:8080"), "cgi-bin/client").as_ref(), Some(own));
    }
    cluster.host("w3").start_daemon(&[]).unwrap();
    cluster.until("w3 is back", || cluster.is_ready("w3"));
    cluster.run("service scale web=1");
    for host in HOSTS {
        for at in addresses(&cluster, host) {
            cluster.until(&format!("one replica answers at {at}"), || {
                let seen: BTreeSet<_> =
                    (0..6).map(|_| visit(&cluster, &format!("{at}:8080"), "cgi-bin/hostname")).collect();
                seen.len() == 1 && !seen.contains(&None)
            });
        }
    }
}

#[test]
fn a_network_of_both_families_carries_names_and_virtual_addresses_of_both() {
    let cluster = Cluster::new(1, 2);
    cluster.run(
        "network create --driver overlay --ipv6 --subnet 10.5.0.0/24 --gateway 10.5.0.254 --ip-range 10.5.0.64/26 \
         --subnet fd05::/64 both",
    );
    let ipam = cluster.run("network inspect --format '{{.EnableIPv6}} {{json .IPAM.Config}}' both");
    for part in ["true", "10.5.0.0/24", "10.5.0.254", "10.5.0.64/26", "fd05::/64"] {
        assert!(ipam.contains(part), "{part}: {ipam}");
    }
    // Without a subnet, of each family one is cut from the pools.
    cluster.run("network create --driver overlay --ipv6 pooled");
    let pooled = cluster.run("network inspect --format '{{json .IPAM.Config}}' pooled");
    assert!(pooled.contains("/24") && pooled.contains("\"fd"), "{pooled}");
    cluster.create(&format!("--name web --replicas 2 --network both --constraint node.role==worker {BUSYBOX} {HTTPD}"));
    cluster.create(&format!("--name ask --network both --constraint node.hostname==m1 {BUSYBOX} sleep 100000"));
    let ask = |line: &str| inside(&cluster, "m1", "sleep", line);
    let vips = cluster.run("service inspect --format '{{json .Endpoint.VirtualIPs}}' web");
    assert!(vips.contains("10.5.0.") && vips.contains("fd05::"), "{vips}");
    cluster.until("the name has both addresses", || {
        let both = ask("nslookup web").unwrap_or_default();
        both.contains("10.5.0.") && both.contains("fd05::")
    });
    let answer = ask("nslookup web").unwrap();
    let v6 = answer.split_whitespace().find(|word| word.starts_with("fd05::")).unwrap().to_owned();
    let v4 = answer.split_whitespace().find(|word| word.starts_with("10.5.0.")).unwrap().to_owned();
    assert!(vips.contains(&v6) && vips.contains(&v4), "{vips}: {answer}");
    for at in [v4, format!("[{v6}]"), "web".to_owned()] {
        let mut seen = BTreeSet::new();
        cluster.until(&format!("both backends answer at {at}"), || {
            let name = ask(&format!("timeout 3 wget -q -O - http://{at}/cgi-bin/hostname"));
            assert!(name.is_some(), "{at}");
            seen.extend(name);
            seen.len() == 2
        });
    }
    let own = ask("ip -6 -o address show eth0").unwrap();
    assert!(own.contains("fd05::") && !own.contains("fe80"), "{own}");
}

#[test]
fn ports_of_one_address_and_clients_that_stay_with_their_backend() {
    let cluster = Cluster::new(1, 2);
    let (w1, w2) = (cluster.host("w1"), cluster.host("w2"));
    let (at_w1, at_w2) = (w1.address(), w2.address_v6());
    cluster.create(&format!(
        "--name one --publish {at_w1}:8088:80 --publish [{at_w2}]:8088:80 --constraint node.hostname==m1 \
         {BUSYBOX} {HTTPD}"
    ));
    cluster.until("the address answers", || visit(&cluster, &format!("{at_w1}:8088"), "").is_some());
    cluster.until("the other answers", || visit(&cluster, &format!("[{at_w2}]:8088"), "").is_some());
    for host in ["m1", "w1", "w2"] {
        for at in addresses(&cluster, host) {
            let is_it = at == at_w1 || at == format!("[{at_w2}]");
            assert_eq!(visit(&cluster, &format!("{at}:8088"), "").is_some(), is_it, "{at}");
        }
    }
    let listed = must(cluster.manager(), "service ls --format '{{.Ports}}'");
    assert!(listed.contains(&format!("{at_w1}:8088->80/tcp")), "{listed}");
    // The same port at all addresses meets it.
    let clash = rswarm(cluster.manager(), &format!("service create --name two --publish 8088:80 {BUSYBOX} {HTTPD}"));
    assert_eq!(clash.code, 4, "{}", clash.stderr);

    cluster.create(&format!(
        "--name sticky --replicas 4 --publish 8090:80 --endpoint-affinity client-ip {BUSYBOX} {HTTPD}"
    ));
    let all: Vec<String> =
        ["m1", "w1", "w2"].iter().flat_map(|h| addresses(&cluster, h)).map(|at| format!("{at}:8090")).collect();
    let v4 = || all.iter().filter(|at| !at.starts_with('['));
    let v6 = || all.iter().filter(|at| at.starts_with('['));
    let seen = |at: &mut dyn Iterator<Item = &String>| -> BTreeSet<Option<String>> {
        at.flat_map(|at| [at, at]).map(|at| visit(&cluster, at, "cgi-bin/hostname")).collect()
    };
    cluster.until("one backend for the client, whichever node it asks", || {
        let (four, six) = (seen(&mut v4()), seen(&mut v6()));
        four.len() == 1 && six.len() == 1 && !four.contains(&None) && !six.contains(&None)
    });
    cluster.run("service update --endpoint-affinity none --endpoint-prefer local sticky");
    // At least two nodes have tasks; each leads to its own.
    for host in cluster.nodes_of("sticky") {
        let own = cluster.tasks("sticky").into_iter().filter(|t| t.is_running() && t.node == host).count();
        let at = format!("{}:8090", cluster.host(&host).address());
        cluster.until(&format!("{host} leads to its own {own}"), || {
            let seen: BTreeSet<_> = (0..20).map(|_| visit(&cluster, &at, "cgi-bin/hostname")).collect();
            seen.len() == own && !seen.contains(&None)
        });
    }
}
