//! Packets between real hosts: published ports, names, virtual addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, refused, words};

#[test]
fn every_node_answers_on_a_published_port_and_the_container_sees_the_true_client() {
    let cluster = Cluster::new(1, 2);
    cluster.create(&format!("--name web --publish 8080:80 --constraint node.hostname==w2 {BUSYBOX} {HTTPD}"));
    let client = cluster.lab.client().address();
    for host in ["m1", "w1", "w2"] {
        // `service create` waits for the task, not for the tables of all nodes.
        cluster.until(&format!("{host} answers"), || cluster.visit(host, 8080, "").is_some());
        for _ in 0..5 {
            assert_eq!(cluster.visit(host, 8080, "cgi-bin/client").as_deref(), Some(client.as_str()), "through {host}");
        }
    }
    // One node asks another, and itself.
    for (from, to) in [("m1", "w1"), ("w1", "w1"), ("w2", "m1"), ("w2", "w2"), ("m1", "w2")] {
        let url = format!("http://{}:8080/cgi-bin/client", cluster.host(to).address());
        let seen = cluster.host(from).curl(&url).unwrap_or_else(|e| panic!("{from} to {to}: {e}"));
        // To itself and through others alike; what a node is called towards its own containers is its own affair.
        if to == "w2" && from != "w2" {
            assert_eq!(seen.trim(), cluster.host(from).address(), "{from} to {to}");
        }
    }

    // Spread over replicas on different hosts, from any entry.
    cluster.run("service update --constraint-rm node.hostname==w2 --replicas 3 web");
    let names: BTreeSet<String> = cluster.nodes_of("web");
    assert_eq!(names.len(), 3, "spread over all hosts: {names:?}");
    for host in ["m1", "w1", "w2"] {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        cluster.until(&format!("all three answer through {host}"), || {
            if let Some(name) = cluster.visit(host, 8080, "cgi-bin/hostname") {
                *seen.entry(name).or_default() += 1;
            }
            seen.len() == 3
        });
    }

    // A port in host mode: only its own node answers that.
    cluster.create(&format!(
        "--name host --publish published=8090,target=80,mode=host --constraint node.hostname==w1 {BUSYBOX} {HTTPD}"
    ));
    cluster.until("w1 answers on its own port", || cluster.visit("w1", 8090, "").is_some());
    assert_eq!(cluster.visit("w1", 8090, "cgi-bin/client").as_deref(), Some(client.as_str()));
    assert!(cluster.visit("m1", 8090, "").is_none() && cluster.visit("w2", 8090, "").is_none());
    assert!(cluster.running("host")[0].ports.contains("*:8090->80/tcp"), "{:?}", cluster.running("host"));

    // A port that is taken is refused, with its holder's name, and changing the port moves it.
    let clash = refused(cluster.manager(), &format!("service create --name other --publish 8080:80 {BUSYBOX} {HTTPD}"));
    clash.says(4, &["8080/tcp is already published by service \"web\""]);
    cluster.run("service update --publish-rm 80 --publish-add 8085:80 web");
    cluster.until("the new port answers everywhere", || {
        ["m1", "w1", "w2"].iter().all(|host| cluster.visit(host, 8085, "").is_some())
    });
    cluster.until("the old port is closed everywhere", || {
        ["m1", "w1", "w2"].iter().all(|host| cluster.visit(host, 8080, "").is_none())
    });
}

/// The addresses in an answer of busybox's nslookup, without the server's own.
fn answers(text: &str) -> BTreeSet<String> {
    let after = text.split("Name:").skip(1).collect::<String>();
    let lines = after.lines().filter_map(|line| line.strip_prefix("Address"));
    lines.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

#[test]
fn services_on_one_network_find_each_other_by_name_and_share_work_across_hosts() {
    let cluster = Cluster::new(1, 2);
    cluster.run("network create --driver overlay --label a=b back");
    let listed = cluster.run("network ls --format '{{.Name}} {{.Driver}} {{.Scope}}'");
    assert!(listed.contains("back overlay swarm\n") && listed.contains("ingress overlay swarm\n"), "{listed}");
    cluster.create(&format!(
        "--name web --replicas 4 --network name=back,alias=site --constraint node.role==worker {BUSYBOX} {HTTPD}"
    ));
    cluster.create(&format!("--name ask --network back --constraint node.hostname==m1 {BUSYBOX} sleep 100000"));
    assert_eq!(cluster.nodes_of("web").len(), 2);
    let ask = |line: &str| {
        let words = words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        cluster.inside("m1", "sleep", &words)
    };
    let resolve = |name: &str| answers(&ask(&format!("nslookup {name}")).stdout);
    cluster.until("the name is known", || resolve("web").len() == 1);
    let vip = resolve("web").pop_first().unwrap();
    let inspected = cluster.run("service inspect --format '{{json .Endpoint.VirtualIPs}}' web");
    assert!(inspected.contains(&format!("\"{vip}/24\"")), "{vip}: {inspected}");
    assert_eq!(resolve("site"), [vip.clone()].into(), "the alias is the same address");
    let tasks = resolve("tasks.web");
    assert!(tasks.len() == 4 && !tasks.contains(&vip), "{tasks:?}");
    assert!(resolve("nothing").is_empty());

    // Every backend is reached through the one address, on both hosts; none fails.
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..40 {
        let output = ask("timeout 2 wget -q -O - http://web/cgi-bin/hostname");
        assert!(output.is_success(), "{}", output.stderr);
        *seen.entry(output.stdout.trim().to_owned()).or_default() += 1;
    }
    assert_eq!(seen.len(), 4, "{seen:?}");
    for address in &tasks {
        assert!(ask(&format!("timeout 2 wget -q -O - http://{address}/")).is_success(), "{address}");
    }
    let address = ask("timeout 2 wget -q -O - http://web/cgi-bin/client").stdout.trim().to_owned();
    let own = ask("ip -4 -o address show eth0").stdout;
    assert!(own.contains(&format!("inet {address}/24")), "the caller's own overlay address is seen: {address} {own}");

    // The way out, by masquerade; and names from outside are asked outside.
    let client = cluster.lab.client();
    client.spawn("outside", &["busybox", "httpd", "-f", "-p", "8000", "-h", "/etc"]).unwrap();
    let outside = format!("timeout 2 wget -q -O - http://{}:8000/hostname", client.address());
    cluster.until("the outside is reached", || ask(&outside).is_success());

    // Other networks are out of reach.
    cluster.run("network create --driver overlay --internal front");
    cluster.create(&format!(
        "--name alone --network front --constraint node.hostname==w1 {BUSYBOX} sh -c 'exec tail -f /dev/null'"
    ));
    assert!(cluster.inside("w1", "tail", &["nslookup", "web"]).stdout.split("Name:").nth(1).is_none());
    let reach = cluster.inside("w1", "tail", &["timeout", "2", "wget", "-q", "-O", "-", &format!("http://{vip}/")]);
    assert!(!reach.is_success());
    let out =
        cluster.inside("w1", "tail", &["timeout", "2", "wget", "-q", "-O", "-", "http://10.99.0.100:8000/hostname"]);
    assert!(!out.is_success(), "an internal network has no way out");

    // Backends that go are forgotten, ones that come are found.
    cluster.run("service scale web=1");
    cluster.until("one is left", || resolve("tasks.web").len() == 1);
    for _ in 0..10 {
        assert!(ask("timeout 2 wget -q -O - http://web/").is_success());
    }
    cluster.run("service scale web=6");
    cluster.until("six are found", || resolve("tasks.web").len() == 6);
    assert_eq!(resolve("web"), [vip].into(), "the address stays");
    refused(cluster.manager(), "network rm back").says(4, &["back"]);
    cluster.run("service rm web ask alone");
    cluster.until("the network is free", || {
        rswarm_cluster_tests::lab::cluster::rswarm(cluster.manager(), "network rm back front").is_success()
    });
    cluster.until("no device of it is left", || {
        ["m1", "w1", "w2"].iter().all(|host| {
            let pins = cluster.host(host).exec(&["sh", "-c", "ls /run/rswarm/netns"]).unwrap().stdout;
            !pins.contains("task-") && pins.lines().count() <= 1
        })
    });
}

#[test]
fn without_a_virtual_address_a_name_is_all_its_tasks_and_the_host_network_is_the_hosts() {
    let cluster = Cluster::new(1, 1);
    cluster.run("network create --driver overlay back");
    cluster.create(&format!("--name db --endpoint-mode dnsrr --replicas 2 --network back {BUSYBOX} {HTTPD}"));
    cluster.create(&format!("--name ask --network back --constraint node.hostname==m1 {BUSYBOX} sleep 100000"));
    let resolve = |name: &str| answers(&cluster.inside("m1", "sleep", &["nslookup", name]).stdout);
    cluster.until("both are named", || resolve("db").len() == 2);
    assert_eq!(resolve("db"), resolve("tasks.db"));

    cluster.create(&format!(
        "--name bare --network host --constraint node.hostname==w1 {BUSYBOX} httpd -f -p 7000 -h /www"
    ));
    let url = format!("http://{}:7000/", cluster.host("w1").address());
    cluster.until("it answers at the host's own address", || cluster.lab.client().curl(&url).is_ok());
    cluster.create(&format!("--name cell --network none --constraint node.hostname==w1 {BUSYBOX} tail -f /dev/null"));
    let links = cluster.inside("w1", "tail", &["ip", "-o", "link"]).stdout;
    assert!(links.lines().count() == 1 && links.contains("lo"), "{links}");
    cluster.throughout("nothing restarts", Duration::from_secs(2), || {
        cluster.tasks("bare").len() == 1 && cluster.tasks("cell").len() == 1
    });
    for (flags, word) in [
        ("network create --driver overlay --subnet fd00::/200 six", "fd00::/200"),
        ("network create --driver macvlan lan", "macvlan"),
        ("service create --publish published=1,target=1,protocol=icmp busybox:1.35", "icmp"),
        ("service create --endpoint-mode dnsrr --publish 80:80 busybox:1.35", "dnsrr"),
        ("service create --network missing busybox:1.35", "missing"),
    ] {
        assert!(refused(cluster.manager(), flags).text.contains(word), "{flags}");
    }
}

#[test]
fn the_routing_mesh_is_removed_when_that_is_meant_and_made_anew() {
    let cluster = Cluster::new(1, 1);
    let m1 = cluster.manager();
    let web = format!("--name web --publish 8080:80 --constraint node.hostname==m1 {BUSYBOX} {HTTPD}");
    cluster.create(&web);
    refused(m1, "network rm --force ingress").says(4, &["ingress", "web"]);
    cluster.run("service rm web");
    refused(m1, "network rm ingress").says(2, &["no service can publish ports", "[y/N]", "--force"]);
    assert!(cluster.run("network ls").contains("ingress"), "nobody said yes");
    cluster.until("it is removed", || {
        rswarm_cluster_tests::lab::cluster::rswarm(m1, "network rm --force ingress").is_success()
    });
    cluster.until("it is gone", || !cluster.run("network ls").contains("ingress"));
    cluster.run("network create --driver overlay --ingress --subnet 10.77.0.0/24 mesh");
    cluster.create(&web);
    for host in ["m1", "w1"] {
        cluster.until(&format!("{host} answers"), || cluster.visit(host, 8080, "").is_some());
    }
}
