//! Workers die, are cut off and come back; daemons are restarted under running containers.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::time::Duration;

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, load, start};
use rswarm_cluster_tests::lab::{Host, until};

/// At most one task of a slot lives, and desired and actual agree.
fn has_one_per_slot(cluster: &Cluster, service: &str, slots: usize) -> bool {
    let living: Vec<_> = cluster.tasks(service).into_iter().filter(|t| !t.has_ended()).collect();
    let names: BTreeSet<&str> = living.iter().map(|t| t.name.as_str()).collect();
    living.len() == slots && names.len() == slots
}

#[test]
fn what_a_dead_worker_ran_is_replaced_elsewhere_and_its_return_starts_nothing_twice() {
    let cluster = Cluster::new(1, 2);
    cluster
        .create(&format!("--name web --replicas 4 --publish 8080:80 --constraint node.role==worker {BUSYBOX} {HTTPD}"));
    let on_w1 = cluster.running("web").iter().filter(|t| t.node == "w1").count();
    assert_eq!(on_w1, 2);
    cluster.host("w1").power_off().unwrap();
    cluster.until("w1 is Down", || cluster.is_down("w1"));
    cluster.until("four run on w2", || {
        let running = cluster.running("web");
        running.len() == 4 && running.iter().all(|t| t.node == "w2")
    });
    let survivors = cluster.processes("httpd");
    for host in ["m1", "w2"] {
        for _ in 0..20 {
            assert!(cluster.visit(host, 8080, "").is_some(), "{host} sends nobody to the dead");
        }
    }
    cluster.host("w1").power_on().unwrap();
    start(cluster.host("w1")).unwrap();
    cluster.until("w1 is Ready", || cluster.is_ready("w1"));
    cluster.until("nothing runs twice", || has_one_per_slot(&cluster, "web", 4));
    assert!(cluster.host("w1").container_processes("httpd").is_empty());
    cluster.throughout("so it stays", Duration::from_secs(3), || {
        cluster.processes("httpd") == survivors && has_one_per_slot(&cluster, "web", 4)
    });
    cluster.run("service scale web=6");
    assert_eq!(cluster.running("web").iter().filter(|t| t.node == "w1").count(), 2, "w1 takes tasks again");
}

#[test]
fn a_worker_cut_from_its_managers_keeps_its_containers_and_gives_them_up_when_it_is_back() {
    let cluster = Cluster::new(1, 2);
    cluster
        .create(&format!("--name web --replicas 2 --publish 8080:80 --constraint node.role==worker {BUSYBOX} {HTTPD}"));
    let before = cluster.host("w1").container_processes("httpd");
    assert_eq!(before.len(), 1);
    cluster.lab.cut("m1", "w1").unwrap();
    cluster.until("w1 is Down", || cluster.is_down("w1"));
    cluster.until("w2 runs both", || {
        let running = cluster.running("web");
        running.len() == 2 && running.iter().all(|t| t.node == "w2")
    });
    assert_eq!(cluster.host("w1").container_processes("httpd"), before, "without a manager nothing is stopped");
    assert!(cluster.visit("w1", 8080, "").is_some(), "and its port is answered");
    let kept = cluster.host("w2").container_processes("httpd");
    cluster.lab.heal().unwrap();
    cluster.until("w1 is Ready", || cluster.is_ready("w1"));
    cluster.until("nothing lives twice in a slot", || {
        has_one_per_slot(&cluster, "web", 2) && cluster.host("w1").container_processes("httpd").is_empty()
    });
    cluster.throughout("and the new ones stay", Duration::from_secs(2), || {
        cluster.host("w2").container_processes("httpd") == kept && has_one_per_slot(&cluster, "web", 2)
    });
    cluster.until("all answer", || ["m1", "w1", "w2"].iter().all(|h| cluster.visit(h, 8080, "").is_some()));

    // One way is enough to be lost, and a short cut costs nothing.
    cluster.run("service update --force web");
    cluster.await_running("web", 2);
    let before = cluster.processes("httpd");
    cluster.lab.cut("m1", "w2").unwrap();
    std::thread::sleep(Duration::from_millis(800));
    cluster.lab.heal().unwrap();
    cluster.until("w2 is Ready", || cluster.is_ready("w2"));
    cluster.throughout("nothing was replaced", Duration::from_secs(2), || cluster.processes("httpd") == before);
    let other = "w1";
    cluster.lab.cut_oneway(other, "m1").unwrap();
    cluster.until("it is Down", || cluster.is_down(other));
    cluster.lab.heal().unwrap();
    cluster.until("it is back", || cluster.is_ready(other) && has_one_per_slot(&cluster, "web", 2));
    cluster.until("kernel and cluster agree", || cluster.processes("httpd").len() == 2);
}

/// An open connection from the client to a published port, that echoes.
struct Conversation(Child);

impl Conversation {
    fn open(client: &Host, address: &str, port: u16) -> Conversation {
        let port = port.to_string();
        let mut command = client.command(&["busybox", "nc", address, &port]).unwrap();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        Conversation(child)
    }

    /// Whether what is said comes back.
    fn echoes(&mut self, word: &str) -> bool {
        let line = format!("{word}\n");
        if self.0.stdin.as_mut().unwrap().write_all(line.as_bytes()).is_err() {
            return false;
        }
        let mut back = vec![0; line.len()];
        self.0.stdout.as_mut().unwrap().read_exact(&mut back).is_ok() && back == line.as_bytes()
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn connections_and_containers_outlive_daemons_and_netd_and_exits_are_known_after() {
    let cluster = Cluster::new(1, 2);
    cluster.run("network create --driver overlay back");
    cluster.create(&format!(
        "--name echo --network back --publish 9000:9000 --constraint node.hostname==w1 {BUSYBOX} nc -ll -p 9000 -e cat"
    ));
    cluster.create(&format!("--name web --replicas 2 --network back --constraint node.hostname==w1 {BUSYBOX} {HTTPD}"));
    cluster.create(&format!("--name ask --network back --constraint node.hostname==w1 {BUSYBOX} sleep 100000"));
    let (w1, w2) = (cluster.host("w1"), cluster.host("w2"));
    let before = (w1.container_processes("nc"), w1.container_processes("httpd"), w1.container_processes("sleep"));
    assert_eq!((before.0.len(), before.1.len(), before.2.len()), (1, 2, 1));
    let is_as_before = || {
        // `nc` makes a process for each connection; the one that listens stays.
        before.0.is_subset(&w1.container_processes("nc"))
            && before.1 == w1.container_processes("httpd")
            && before.2 == w1.container_processes("sleep")
    };
    let client = cluster.lab.client();
    cluster.until("w2 leads to the echo", || Conversation::open(client, &w2.address(), 9000).echoes("hello"));
    let mut near = Conversation::open(client, &w1.address(), 9000);
    let mut far = Conversation::open(client, &w2.address(), 9000);
    assert!(near.echoes("one") && far.echoes("one"));
    let resolve = || cluster.inside("w1", "sleep", &["nslookup", "web"]).stdout.contains("Name:");

    // Killed: everything goes on, names too.
    w1.sigkill_daemon().unwrap();
    w2.sigkill_daemon().unwrap();
    assert!(near.echoes("two") && far.echoes("two"));
    assert!(resolve(), "names are answered while the daemon is dead");
    assert!(cluster.inside("w1", "sleep", &["wget", "-q", "-O", "-", "http://web/"]).is_success());
    for host in ["w1", "w2"] {
        cluster.host(host).restart().unwrap();
        cluster.host(host).await_socket(Duration::from_secs(30)).unwrap();
    }
    cluster.until("both are Ready", || cluster.is_ready("w1") && cluster.is_ready("w2"));
    assert!(near.echoes("three") && far.echoes("three"), "through the restart");
    cluster.throughout("no container was restarted", Duration::from_secs(3), is_as_before);
    // Stopped with SIGTERM, as by an upgrade.
    w1.stop_daemon(Duration::from_secs(15)).unwrap();
    start(w1).unwrap();
    assert!(near.echoes("four") && far.echoes("four"));

    // netd killed: names are answered again, connections stay.
    let netd = netd_of(w1);
    assert_eq!(netd.len(), 1, "{netd:?}");
    kill(netd[0]);
    until("another netd", Duration::from_secs(30), || netd_of(w1).iter().any(|pid| *pid != netd[0])).unwrap();
    cluster.until("names are answered again", resolve);
    assert!(near.echoes("five") && far.echoes("five"));
    assert!(cluster.inside("w1", "sleep", &["wget", "-q", "-O", "-", "http://web/"]).is_success());
    assert!(is_as_before(), "no container was restarted");
    assert_eq!(cluster.tasks("web").len(), 2, "no task was replaced");

    // A container that ends while the daemon is dead is found ended, and replaced.
    w1.sigkill_daemon().unwrap();
    let victim = *before.1.first().unwrap();
    kill(victim.pid);
    start(w1).unwrap();
    cluster.until("it is replaced", || {
        let tasks = cluster.tasks("web");
        tasks.iter().any(|t| t.state == "Failed" && t.error.contains("137")) && cluster.running("web").len() == 2
    });
    let after = w1.container_processes("httpd");
    assert!(after.len() == 2 && before.1.iter().filter(|p| after.contains(p)).count() == 1, "only that one");

    // A shim killed: its container is known to be lost, and replaced; no second one lives on.
    let shims = shims_of(w1);
    assert!(!shims.is_empty());
    let (shim, task) = shims.first().unwrap().clone();
    kill(shim);
    cluster.until("the task of the killed shim is replaced", || {
        ["web", "echo", "ask"].iter().flat_map(|s| cluster.tasks(s)).any(|t| task.contains(&t.id) && t.has_ended())
            && cluster.running("web").len() == 2
            && cluster.running("echo").len() == 1
            && cluster.running("ask").len() == 1
    });
    cluster.until("as many containers as tasks", || w1.container_processes("httpd").len() == 2);
}

fn command_lines(host: &Host) -> Vec<(u32, String)> {
    // The process ids are the machine's own: the hosts share its process namespace.
    let parent = host.cgroup_parent();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let cgroups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if cgroups.contains(&format!("{parent}/")) || cgroups.contains(&format!("{parent}\n")) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push((pid, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    found
}

fn netd_of(host: &Host) -> Vec<u32> {
    command_lines(host).into_iter().filter(|(_, line)| line.contains(" netd ")).map(|(pid, _)| pid).collect()
}

/// What stays of a shim is the reaper, which is told its container's first process; with the container's cgroups.
fn shims_of(host: &Host) -> Vec<(u32, String)> {
    let cgroups = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let reapers = command_lines(host).into_iter().filter(|(_, line)| line.starts_with("rswarm-reaper "));
    reapers.filter_map(|(pid, line)| Some((pid, cgroups(line.split(' ').nth(1)?)))).collect()
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_node_that_joins_gets_its_global_task_and_one_that_drains_keeps_none() {
    let cluster = Cluster::new(1, 2);
    cluster.create(&format!("--name every --mode global {BUSYBOX} {HTTPD}"));
    assert_eq!(cluster.nodes_of("every").len(), 3);
    assert_eq!(cluster.run("service ls --format '{{.Mode}} {{.Replicas}}'"), "global 3/3\n");
    // The client's host becomes a node.
    let new = cluster.lab.client();
    start(new).unwrap();
    load(new, "busybox").unwrap();
    cluster.join("client").unwrap();
    cluster.until("the new node runs one", || cluster.nodes_of("every").contains("client"));
    assert_eq!(cluster.running("every").len(), 4);

    cluster.create(&format!("--name web --replicas 4 --constraint node.role==worker {BUSYBOX} {HTTPD}"));
    let elsewhere: BTreeSet<String> =
        cluster.running("web").iter().filter(|t| t.node != "w1").map(|t| t.id.clone()).collect();
    cluster.run("node update --availability drain w1");
    cluster.until("w1 is empty", || cluster.host("w1").container_processes("httpd").is_empty());
    cluster.await_running("web", 4);
    assert!(!cluster.nodes_of("web").contains("w1") && !cluster.nodes_of("every").contains("w1"));
    let after: BTreeSet<String> = cluster.running("web").into_iter().map(|t| t.id).collect();
    assert!(elsewhere.is_subset(&after), "other nodes' tasks stay");
    assert_eq!(cluster.node("w1").unwrap().availability, "Drain");
    cluster.run("node update --availability active w1");
    cluster.until("w1 runs its global task again", || cluster.nodes_of("every").contains("w1"));
    assert!(!cluster.nodes_of("web").contains("w1"), "nothing is moved back");

    // Paused: what runs stays, nothing new comes.
    cluster.run("node update --availability pause w2");
    let on_w2 = cluster.host("w2").container_processes("httpd");
    cluster.run("service scale web=8");
    assert_eq!(cluster.host("w2").container_processes("httpd"), on_w2);
    // A label that a constraint wants.
    cluster.create(&format!("--detach --name picky --constraint node.labels.disk==ssd {BUSYBOX} sleep 100000"));
    cluster.until("no node fits, and it says so", || {
        cluster
            .tasks("picky")
            .iter()
            .any(|t| t.error.contains("no suitable node") && t.error.contains("node.labels.disk==ssd"))
    });
    cluster.run("node update --label-add disk=ssd w1");
    cluster.await_running("picky", 1);
    assert_eq!(cluster.nodes_of("picky").into_iter().collect::<Vec<_>>(), ["w1"]);
    cluster.run("node update --label-rm disk w1");
    cluster.until("it stops where it may not be", || cluster.running("picky").is_empty());
}

#[test]
fn a_published_port_that_something_else_holds_is_said_where_people_look() {
    let cluster = Cluster::new(1, 1);
    let w1 = cluster.host("w1");
    w1.spawn("holder", &["busybox", "nc", "-ll", "-p", "8080", "-e", "true"]).unwrap();
    w1.spawn("other", &["busybox", "nc", "-ll", "-p", "8091", "-e", "true"]).unwrap();
    let holds = |port: &str| w1.exec(&["ss", "-Hlnt", &format!("sport = :{port}")]).unwrap().stdout.contains(port);
    until("both listen", Duration::from_secs(10), || holds("8080") && holds("8091")).unwrap();
    cluster.create(&format!("--name web --publish 8080:80 --constraint node.role==manager {BUSYBOX} {HTTPD}"));
    cluster.until("m1 answers", || cluster.visit("m1", 8080, "").is_some());
    cluster.until("node inspect says it", || {
        let text = cluster.run("node inspect --pretty w1");
        text.contains("8080/tcp") && text.contains("held by")
    });
    let json = cluster.run("node inspect w1");
    assert!(json.contains("8080"), "{json}");
    // A port in host mode: the task cannot start there, and says why.
    cluster.create(&format!(
        "--detach --name host --publish published=8091,target=80,mode=host --constraint node.hostname==w1 {BUSYBOX} {HTTPD}"
    ));
    cluster.until("service ps says it", || {
        cluster.tasks("host").iter().any(|t| t.error.contains("8091") && t.error.contains("held by"))
    });
    w1.kill("holder").unwrap();
    cluster.until("w1 answers once the port is free", || cluster.visit("w1", 8080, "").is_some());
    cluster.until("nothing is said any more", || !cluster.run("node inspect --pretty w1").contains("8080/tcp"));
    w1.kill("other").unwrap();
    cluster.await_running("host", 1);
}
