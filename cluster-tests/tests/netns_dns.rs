//! Names as containers see them, on two hosts: their files, the real resolver, and what leaves a host.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, refused};
use rswarm_cluster_tests::lab::{NameServer, Process, within};

/// Within which names are right again after a change (RELIABILITY I22).
const RIGHT_WITHIN: Duration = Duration::from_secs(5);

fn outside(cluster: &Cluster) -> NameServer {
    let client = cluster.lab.client();
    NameServer::start(&client.network(), format!("{}:53", client.address()).parse().unwrap()).unwrap()
}

/// Asks the resolver of the only container on a host whose process is called `process`.
struct Asker<'a> {
    cluster: &'a Cluster,
    process: Process,
}

impl Asker<'_> {
    fn new<'a>(cluster: &'a Cluster, host: &str, process: &str) -> Asker<'a> {
        let found: Vec<_> = cluster.host(host).container_processes(process).into_iter().collect();
        let [process] = found[..] else { panic!("{} processes called {process} on {host}", found.len()) };
        Asker { cluster, process }
    }

    fn dig(&self, args: &[&str]) -> String {
        let pid = self.process.pid.to_string();
        let line = ["nsenter", "--target", &pid, "--net", "--", "dig", "@127.0.0.11", "+tries=1", "+time=8"];
        self.cluster.lab.client().exec(&[&line[..], args].concat()).unwrap().text().unwrap()
    }

    /// The answers.
    fn ask(&self, args: &[&str]) -> BTreeSet<String> {
        self.dig(&[args, &["+short"]].concat()).lines().map(str::to_owned).collect()
    }

    /// NOERROR and its like.
    fn status(&self, args: &[&str]) -> String {
        let text = self.dig(args);
        text.split_once("status: ").unwrap_or_else(|| panic!("{text}")).1.split(',').next().unwrap().to_owned()
    }
}

fn set<const N: usize>(list: [&str; N]) -> BTreeSet<String> {
    list.map(str::to_owned).into()
}

#[test]
fn a_service_s_dns_settings_are_what_its_containers_see_and_can_be_changed() {
    let cluster = Cluster::new(1, 1);
    let outside = outside(&cluster);
    cluster.run("network create --driver overlay back");
    cluster.create(&format!(
        "--name ask --network back --constraint node.hostname==w1 --dns-search example --dns-option timeout:3 \
         --host db:10.1.2.3 --host six:fd00::5 {BUSYBOX} sleep 100000"
    ));
    let inside = |args: &[&str]| cluster.inside("w1", "sleep", args).stdout;
    let resolv_conf = || inside(&["cat", "/etc/resolv.conf"]);
    assert_eq!(resolv_conf(), "search example\nnameserver 127.0.0.11\noptions ndots:0 timeout:3\n");
    let hosts = inside(&["cat", "/etc/hosts"]);
    assert!(hosts.contains("\n10.1.2.3\tdb\n") && hosts.contains("\nfd00::5\tsix\n"), "{hosts}");
    let resolves = |name: &str| {
        let text = inside(&["timeout", "4", "ping", "-c", "1", "-W", "1", name]);
        text.split(['(', ')']).nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(resolves("db"), "10.1.2.3");
    assert_eq!(resolves("web.example"), "192.0.2.1");
    // The resolver in the container puts the search list behind.
    assert_eq!(resolves("single"), "192.0.2.1");
    assert!(outside.asked().contains(&"single.example".to_owned()));
    let spec = r"{{json .Spec.TaskTemplate.ContainerSpec.DNSConfig}} {{json .Spec.TaskTemplate.ContainerSpec.Hosts}}";
    let inspected = || cluster.run(&format!("service inspect --format '{spec}' ask"));
    assert_eq!(inspected().trim(), r#"{"Options":["timeout:3"],"Search":["example"]} ["10.1.2.3 db","fd00::5 six"]"#);

    let update = |line: &str| cluster.run(&format!("service update --update-monitor 300ms {line} ask"));
    update(
        "--dns-add 10.99.0.100 --dns-search-rm example --dns-search-add other.example --dns-option-rm timeout:3 \
         --dns-option-add ndots:2 --host-rm db --host-add db:10.9.9.9",
    );
    assert_eq!(resolv_conf(), "search other.example\nnameserver 127.0.0.11\noptions ndots:2\n");
    assert_eq!(resolves("db"), "10.9.9.9");
    assert_eq!(resolves("x.y"), "192.0.2.1", "fewer than two dots: the search list comes first");
    assert_eq!(
        inspected().trim(),
        r#"{"Nameservers":["10.99.0.100"],"Options":["ndots:2"],"Search":["other.example"]} ["fd00::5 six","10.9.9.9 db"]"#
    );

    // Without any, it is as the host's file says.
    update("--dns-rm 10.99.0.100 --dns-search-rm other.example --dns-option-rm ndots:2 --host-rm db --host-rm six");
    assert_eq!(resolv_conf(), "nameserver 127.0.0.11\noptions ndots:0 timeout:1 attempts:1\n");
    assert!(!inside(&["cat", "/etc/hosts"]).contains("db"));
    for (flag, word) in [("--dns nowhere", "nowhere"), ("--dns-search a..b", "a..b"), ("--host db", "db")] {
        let line = format!("service create {flag} {BUSYBOX} true");
        assert!(refused(cluster.manager(), &line).text.contains(word), "{flag}");
    }
}

#[test]
fn every_name_of_a_service_is_answered_in_every_form_on_every_host() {
    let cluster = Cluster::new(1, 1);
    let _outside = outside(&cluster);
    cluster.run("network create --driver overlay back");
    for host in ["m1", "w1"] {
        cluster.create(&format!(
            "--name on-{host} --network back --constraint node.hostname=={host} {BUSYBOX} sleep 100000"
        ));
    }
    cluster.create(&format!("--name web --replicas 12 --network name=back,alias=site {BUSYBOX} {HTTPD}"));
    let tasks = cluster.await_running("web", 12);
    for asker in ["m1", "w1"].map(|host| Asker::new(&cluster, host, "sleep")) {
        cluster.until("all tasks are named", || asker.ask(&["tasks.web"]).len() == 12);
        let vip = asker.ask(&["web"]);
        assert_eq!(vip.len(), 1);
        for name in ["WEB", "site", "web.back", "Site.Back."] {
            assert_eq!(asker.ask(&[name]), vip, "{name}");
            assert_eq!(asker.ask(&["+tcp", name]), vip, "{name}");
        }
        let mut all = BTreeSet::new();
        for task in &tasks {
            let name = format!("{}.{}", task.name, task.id);
            let address = asker.ask(&[&name]);
            assert_eq!(address.len(), 1, "{name}");
            assert_eq!(asker.ask(&[&task.id]), address);
            assert_eq!(asker.ask(&["-x", address.first().unwrap()]), set([&format!("{name}.back.")]));
            all.extend(address);
        }
        assert_eq!(asker.ask(&["tasks.web"]), all);
        assert_eq!(asker.ask(&["-x", vip.first().unwrap()]), set(["web.back."]));
        for kind in ["AAAA", "MX", "TXT", "SRV"] {
            assert_eq!(asker.status(&["web", kind]), "NOERROR", "{kind}");
        }
        assert_eq!(asker.status(&["nothing"]), "NXDOMAIN");
        assert_eq!(asker.ask(&["web.example"]), set(["192.0.2.1"]));

        assert_eq!(asker.ask(&["_80._tcp.web", "SRV"]), set(["0 0 80 web.back."]));
        // Too much for a plain datagram: it is cut, and asked again by TCP.
        let cut = asker.dig(&["+noedns", "+ignore", "_80._tcp.tasks.web", "SRV"]);
        assert!(cut.contains("flags: qr aa tc rd ra"), "{cut}");
        let whole = asker.dig(&["+noedns", "_80._tcp.tasks.web", "SRV"]);
        assert!(whole.contains("ANSWER: 12,") && whole.contains("ADDITIONAL: 12"), "{whole}");
        let roomy = asker.dig(&["+bufsize=4096", "_80._tcp.tasks.web", "SRV"]);
        assert!(roomy.contains("ANSWER: 12,") && roomy.contains("(UDP)"), "{roomy}");
        let firsts: BTreeSet<String> =
            (0..12).filter_map(|_| asker.dig(&["+short", "tasks.web"]).lines().next().map(str::to_owned)).collect();
        assert!(firsts.len() > 3, "{firsts:?}");
    }

    // Through the container's own port 53: a thousand clients at once, half of whose questions go outside.
    let asker = Asker::new(&cluster, "w1", "sleep");
    let missing: Vec<u16> = within(&asker.process.network(), || {
        let ask = |id: u16| {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.connect("127.0.0.11:53").unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
            let name = if id.is_multiple_of(2) { "\x03web".into() } else { format!("\x05n{id:04}\x07example") };
            let header = [&id.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
            socket.send(&[&header, name.as_bytes(), &[0, 0, 1, 0, 1]].concat()).unwrap();
            (id, socket)
        };
        let sockets: Vec<_> = (0..1000).map(ask).collect();
        let is_answered = |(id, socket): &(u16, UdpSocket)| {
            let mut answer = [0; 512];
            socket.recv(&mut answer).is_ok() && answer[..2] == id.to_be_bytes() && answer[3] & 15 == 0 && answer[7] == 1
        };
        Ok(sockets.iter().filter(|s| !is_answered(s)).map(|(id, _)| *id).collect())
    })
    .unwrap();
    assert!(missing.is_empty(), "questions without an answer: {missing:?}");
}

#[test]
fn names_are_those_of_running_tasks_through_scaling_and_a_partition_and_never_unknown() {
    let cluster = Cluster::new(1, 1);
    let _outside = outside(&cluster);
    cluster.run("network create --driver overlay back");
    for host in ["m1", "w1"] {
        cluster.create(&format!(
            "--name on-{host} --network back --constraint node.hostname=={host} {BUSYBOX} sleep 100000"
        ));
    }
    cluster.create(&format!("--name web --replicas 4 --network back {BUSYBOX} {HTTPD}"));
    let askers = ["m1", "w1"].map(|host| Asker::new(&cluster, host, "sleep"));
    let are_right = |askers: &[Asker<'_>]| {
        let running: BTreeSet<String> = cluster.running("web").iter().map(|t| format!("{}.{}", t.name, t.id)).collect();
        askers.iter().all(|asker| {
            let found = asker.ask(&["tasks.web"]);
            let names: BTreeSet<String> =
                found.iter().flat_map(|address| asker.ask(&["-x", address])).map(|n| n.replace(".back.", "")).collect();
            names == running
        })
    };
    cluster.until("all are named", || are_right(&askers));
    for count in [1, 6, 3] {
        cluster.run(&format!("service scale web={count}"));
        let took = cluster.until(&format!("{count} are named"), || are_right(&askers));
        assert!(took < RIGHT_WITHIN, "{count} after {took:?}");
    }
    assert_eq!(cluster.nodes_of("web").len(), 2);

    cluster.lab.isolate("w1").unwrap();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        for asker in &askers {
            assert_eq!(asker.status(&["web"]), "NOERROR", "after {:?}", began.elapsed());
            assert_eq!(asker.status(&["tasks.web"]), "NOERROR");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    cluster.until("its tasks run elsewhere", || {
        cluster.running("web").len() == 3 && cluster.nodes_of("web") == set(["m1"])
    });
    assert!(are_right(&askers[..1]));
    cluster.lab.heal().unwrap();
    let took = cluster.until("w1 is back", || cluster.is_ready("w1"));
    // The container there was replaced in the meantime, or comes again.
    cluster.await_running("on-w1", 1);
    cluster.until("it runs", || cluster.host("w1").container_processes("sleep").len() == 1);
    let askers = ["m1", "w1"].map(|host| Asker::new(&cluster, host, "sleep"));
    let right = cluster.until("names are right again", || are_right(&askers));
    assert!(right < RIGHT_WITHIN, "{right:?} after the {took:?} until the node was back");
}

#[test]
fn no_question_leaves_an_internal_network() {
    let cluster = Cluster::new(1, 1);
    let outside = outside(&cluster);
    cluster.run("network create --driver overlay --internal cell");
    cluster.run("network create --driver overlay open");
    let service = |name: &str, networks: &str, command: &str| {
        let line =
            format!("--name {name} {networks} --dns 10.99.0.100 --constraint node.hostname==w1 {BUSYBOX} {command}");
        cluster.create(&line);
    };
    service("prisoner", "--network cell", "sleep 100000");
    service("both", "--network cell --network open", "tail -f /dev/null");
    let wires = ["m1", "w1"];
    for host in wires {
        let line = ["tcpdump", "-i", "eth0", "-n", "-l", "port 53"];
        cluster.host(host).spawn("capture", &line).unwrap();
    }
    cluster.until("the captures listen", || {
        let is_listening =
            |host| std::fs::read_to_string(cluster.host(host).log("capture")).unwrap().contains("listening");
        wires.into_iter().all(is_listening)
    });
    let seen = || -> String {
        let log = |host| std::fs::read_to_string(cluster.host(host).log("capture")).unwrap();
        wires.map(log).concat().lines().filter(|line| line.contains(".53: ")).collect()
    };
    let prisoner = Asker::new(&cluster, "w1", "sleep");
    assert_eq!(prisoner.ask(&["both"]).len(), 1);
    let names: Vec<String> = (0..500).map(|n| format!("secret-{n}.example")).collect();
    for transport in ["+notcp", "+tcp"] {
        let names: Vec<&str> = std::iter::once(transport).chain(names.iter().map(String::as_str)).collect();
        let text = prisoner.dig(&names);
        assert_eq!(text.matches("status: NXDOMAIN").count(), 500, "{transport}");
    }
    // One that is in an open network too may ask: its question is the first that the wire sees.
    let both = Asker::new(&cluster, "w1", "tail");
    assert_eq!(both.ask(&["open.example"]), set(["192.0.2.1"]));
    cluster.until("the open question is seen", || seen().contains("open.example"));
    assert!(!seen().contains("secret"), "{}", seen());
    let asked = outside.asked();
    assert!(asked.contains(&"open.example".to_owned()) && !asked.iter().any(|n| n.contains("secret")), "{asked:?}");
}

/// A network of both families; the hosts' own link has both.
const DUAL: &str = "
services:
  web:
    image: busybox:1.35
    command: httpd -f -p 80 -h /www
    networks: [back]
    deploy: {replicas: 2}
  ask:
    image: busybox:1.35
    command: sleep 100000
    networks: [back]
    deploy: {mode: global}
networks:
  back: {driver: overlay, enable_ipv6: true}
";

#[test]
fn a_network_with_both_families_answers_both() {
    let cluster = Cluster::new(1, 1);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dual.yaml");
    std::fs::write(&file, DUAL).unwrap();
    cluster.run(&format!("stack deploy --compose-file {} dual", file.display()));
    cluster.await_running("dual_web", 2);
    cluster.await_running("dual_ask", 2);
    for host in ["m1", "w1"] {
        let asker = Asker::new(&cluster, host, "sleep");
        cluster.until("both tasks have both", || {
            ["A", "AAAA"].iter().all(|kind| asker.ask(&["tasks.web", kind]).len() == 2)
        });
        let both: Vec<String> = ["A", "AAAA"].iter().flat_map(|kind| asker.ask(&["dual_web", kind])).collect();
        assert_eq!(both.len(), 2, "{both:?}");
        assert!(!both[0].contains(':') && both[1].contains(':'), "{both:?}");
        for address in &both {
            assert_eq!(asker.ask(&["-x", address]), set(["dual_web.dual_back."]), "{address}");
        }
        let service = asker.dig(&["_80._tcp.web", "SRV"]);
        assert!(service.contains("ANSWER: 1,") && both.iter().all(|address| service.contains(address)), "{service}");
        for address in asker.ask(&["tasks.web", "AAAA"]) {
            let name = asker.ask(&["-x", &address]);
            assert_eq!(asker.ask(&[name.first().unwrap(), "AAAA"]), set([&address]));
        }
    }
}
