//! One host alone: what the README shows of one machine, and that leaving leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, load, must, refused, rswarm, start};
use rswarm_cluster_tests::lab::{Host, Lab, until};

/// All that the kernel shows of a host's networks, mounts, cgroups and processes.
fn kernel(host: &Host) -> Vec<(String, String)> {
    let parent = host.cgroup_parent();
    let cgroups = format!("find /sys/fs/cgroup -path '*{parent}/*' -type d | sort");
    let processes = format!(
        "for g in $(find /sys/fs/cgroup -path '*{parent}*' -name cgroup.procs); do cat $g; done | sort -u | while read p; do tr '\\0' ' ' < /proc/$p/cmdline; echo; done 2>/dev/null | grep rswarm | grep -v ' -H ' | sort"
    );
    let commands = [
        "ip -oneline link | sed 's/ qlen .*//'",
        "ip -oneline address | sed 's/ valid_lft .*//'",
        "ip rule",
        "ip -6 rule",
        // A host goes on forwarding after it left, and a host that forwards answers as a router of its IPv6 subnets.
        "ip route show table all | grep -v ^anycast | sort",
        "nft list ruleset",
        "ip netns",
        "ls /run/rswarm/netns 2>/dev/null",
        "cut -d' ' -f2-4 /proc/self/mounts | sort",
        "ss -Hlntu | awk '{ print $1, $5 }' | sort",
        "ls /var/lib/rswarm/containers",
        &cgroups,
        &processes,
    ];
    let said = |line: &str| host.exec(&["sh", "-c", line]).unwrap().stdout;
    commands.iter().map(|line| ((*line).to_owned(), said(line))).collect()
}

#[test]
fn a_service_comes_changes_and_goes_and_leaving_leaves_no_trace_in_the_kernel() {
    let lab = Lab::builder().hosts(["m1"]).build().unwrap();
    let host = lab.host("m1");
    start(host).unwrap();
    load(host, "busybox").unwrap();
    refused(host, "service ls").says(5, &["this node is not part of a swarm", "rswarm init", "rswarm join"]);
    until("its addresses are settled", Duration::from_secs(30), || {
        !host.exec(&["ip", "address"]).unwrap().stdout.contains("tentative")
    })
    .unwrap();
    let before = kernel(host);

    let said = must(host, &format!("init --advertise-addr {}", host.address()));
    assert!(said.contains("rswarm join --token SWMTKN-1-"), "{said}");
    refused(host, "init").says(4, &["already part of a swarm", "rswarm leave"]);
    let create = format!(
        "service create --update-monitor 1s --rollback-monitor 1s --name web --publish 8080:80 --replicas 2 --env COLOUR=red {BUSYBOX} {HTTPD}"
    );
    let output = rswarm(host, &create);
    assert!(output.is_success(), "{}{}", output.stdout, output.stderr);
    let visit = |path: &str| {
        let url = format!("http://{}:8080/{path}", host.address());
        lab.client().exec(&["curl", "--silent", "--fail", "--max-time", "1", &url]).unwrap().text().ok()
    };
    assert_eq!(visit("").as_deref(), Some("it works\n"), "it answers as soon as `service create` says so");
    assert_eq!(visit("cgi-bin/client").unwrap().trim(), lab.client().address());

    let listed = must(host, "service ls");
    let header: Vec<&str> = listed.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(header, ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]);
    let line: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[1..], ["web", "replicated", "2/2", BUSYBOX, "*:8080->80/tcp"]);
    let ps = must(host, "service ps web");
    assert!(ps.lines().next().unwrap().starts_with("ID "), "{ps}");
    for column in ["NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR", "PORTS"] {
        assert!(ps.lines().next().unwrap().contains(column), "{column}: {ps}");
    }
    assert_eq!(ps.lines().filter(|l| l.contains(" m1 ") && l.contains("Running")).count(), 2, "{ps}");
    assert_eq!(must(host, "service inspect --format {{.Spec.Name}} web"), "web\n");
    refused(host, "service inspect nothing").says(3, &["nothing"]);

    must(host, "service scale web=3");
    assert_eq!(must(host, "service ls --format {{.Replicas}}"), "3/3\n");
    let first = host.container_processes("httpd");
    assert_eq!(first.len(), 3);
    must(host, "service update --env-add COLOUR=blue web");
    let second = host.container_processes("httpd");
    assert_eq!(second.len(), 3, "three after the update");
    assert!(first.is_disjoint(&second), "every task was replaced");
    let environment = |pid: u32| String::from_utf8(std::fs::read(format!("/proc/{pid}/environ")).unwrap()).unwrap();
    assert!(second.iter().all(|p| environment(p.pid).contains("COLOUR=blue\0")));
    let status = must(host, "service inspect --format '{{.UpdateStatus.State}} {{.UpdateStatus.Message}}' web");
    assert_eq!(status, "completed update completed\n");
    must(host, "service rollback web");
    let third = host.container_processes("httpd");
    assert!(third.len() == 3 && third.iter().all(|p| environment(p.pid).contains("COLOUR=red\0")));
    let status = must(host, "service inspect --format {{.UpdateStatus.State}} web");
    assert_eq!(status, "rollback_completed\n");
    let labelled = host.container_processes("httpd");
    must(host, "service update --label-add note=x web");
    assert_eq!(labelled, host.container_processes("httpd"), "a label of the service restarts nothing");

    // Somebody else's hand on the rules is put right.
    host.exec(&["nft", "flush", "ruleset"]).unwrap();
    until("the port answers again", Duration::from_secs(30), || visit("").is_some()).unwrap();

    let first_line = must(host, "service logs --tail 1 web");
    assert!(first_line.is_empty() || first_line.contains("web."), "{first_line}");
    assert_eq!(must(host, "service rm web"), "web\n");
    until("the containers are gone", Duration::from_secs(60), || host.container_processes("httpd").is_empty()).unwrap();
    assert!(visit("").is_none(), "the port is free");
    assert_eq!(must(host, "service ls --quiet"), "");

    // Leaving takes what still runs along.
    must(host, "network create --driver overlay back");
    must(host, &format!("service create --name left --network back --publish 8081:80 {BUSYBOX} {HTTPD}"));
    refused(host, "leave").says(4, &["only manager", "removes the swarm's whole state", "rswarm leave --force"]);
    must(host, "leave --force");
    assert!(host.container_processes("httpd").is_empty());
    let after = kernel(host);
    for ((what, before), (_, after)) in before.iter().zip(&after) {
        assert_eq!(before, after, "`{what}` before init and after leave");
    }
    assert_eq!(must(host, "info --format {{.Swarm.LocalNodeState}}"), "inactive\n");
    // And nothing hinders a new beginning.
    must(host, &format!("init --advertise-addr {}", host.address()));
    must(host, &format!("service create --name web --publish 8080:80 {BUSYBOX} {HTTPD}"));
    assert!(visit("").is_some());
}

#[test]
fn logs_volumes_mounts_users_and_limits_of_a_service_are_as_ordered() {
    let cluster = Cluster::new(1, 0);
    cluster.run("volume create kept");
    cluster.create(&format!(
        "--name box --user 33:33 --workdir /tmp --hostname boxer --read-only --env 'A=b c' \
         --mount type=volume,source=kept,target=/kept --mount type=tmpfs,target=/scratch,tmpfs-size=1048576 \
         --limit-memory 64M --limit-cpu 0.5 --limit-pids 50 --label a=b --container-label c=d \
         {BUSYBOX} sh -c 'id -u; pwd; hostname; echo $A; echo to stderr >&2; touch /x 2>&1; touch /scratch/y && echo wrote; exec sleep 1000'"
    ));
    cluster.await_running("box", 1);
    let logs = || cluster.run("service logs --raw box");
    let mut text = String::new();
    cluster.until("everything is in the logs", || {
        text = logs();
        text.contains("wrote")
    });
    for word in ["33\n", "/tmp\n", "boxer\n", "b c\n", "Read-only file system"] {
        assert!(text.contains(word), "{word:?}: {text}");
    }
    let box_ = cluster.host("m1");
    // Both streams as they were; between them there is no order.
    assert_eq!(rswarm(box_, "service logs --raw box").stderr, "to stderr\n");
    let last = |flags: &str| {
        let output = rswarm(box_, &format!("service logs --tail 1 {flags} box"));
        let both = output.stdout + &output.stderr;
        assert_eq!(both.lines().count(), 1, "{both}");
        both
    };
    let prefixed = last("");
    assert!(prefixed.starts_with("box.1.") && prefixed.contains("@m1    | "), "{prefixed}");
    let stamped = last("--raw --timestamps");
    assert!(stamped.starts_with("20") && stamped.contains("Z "), "{stamped}");
    let sleeper = *box_.container_processes("sleep").first().unwrap();
    let cgroups = std::fs::read_to_string(format!("/proc/{}/cgroup", sleeper.pid)).unwrap();
    let memory = cgroups.lines().find_map(|l| l.split_once(":memory:")).unwrap().1.to_owned();
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup/memory{memory}/memory.limit_in_bytes")).unwrap();
    assert_eq!(limit.trim(), "67108864");
    let status = std::fs::read_to_string(format!("/proc/{}/status", sleeper.pid)).unwrap();
    assert!(status.contains("Seccomp:\t2"), "{status}");
    assert!(cluster.run("volume ls --quiet").contains("kept"));
    refused(box_, "volume rm kept").says(4, &["kept"]);
    let ps = must(box_, "ps --format '{{.Names}}|{{.Image}}|{{.Status}}'");
    assert!(ps.starts_with("box.1.") && ps.contains(&format!("|{BUSYBOX}|Up ")), "{ps}");
    cluster.run("service rm box");
    cluster.until("the volume can be removed", || rswarm(box_, "volume rm kept").is_success());
}

/// Nothing of a cluster is on this host.
fn is_outside(host: &Host) {
    assert_eq!(must(host, "info --format {{.Swarm.LocalNodeState}}"), "inactive\n");
    refused(host, "node ls").says(5, &["not part of a swarm"]);
    let listening = host.exec(&["ss", "-Hlnt"]).unwrap().stdout;
    assert!(!listening.contains(":2377"), "{listening}");
    for name in ["node.json", "raft", "certificates", "ledger"] {
        assert!(!host.data_dir().join(name).exists(), "{name} is left");
    }
}

#[test]
fn an_init_or_join_that_is_refused_or_fails_leaves_nothing_and_the_next_one_works() {
    let lab = Lab::builder().hosts(["m1", "w1"]).build().unwrap();
    let (manager, worker) = (lab.host("m1"), lab.host("w1"));
    start(manager).unwrap();
    start(worker).unwrap();
    let own = manager.address();
    refused(manager, "init --advertise-addr 1.2.3.4")
        .says(2, &["--advertise-addr", "1.2.3.4", "--data-path-addr", &own]);
    let line = format!("init --advertise-addr {own} --data-path-addr 1.2.3.4");
    refused(manager, &line).says(2, &["--data-path-addr", "1.2.3.4", &own]);
    is_outside(manager);
    // A worker that cannot begin: a file stands where its folder of namespaces has to be.
    let shell = |line: &str| manager.exec(&["sh", "-c", line]).unwrap().text().unwrap();
    shell("rm -rf /run/rswarm/netns && touch /run/rswarm/netns");
    refused(manager, &format!("init --advertise-addr {own}")).says(1, &["the worker does not start"]);
    is_outside(manager);
    shell("rm /run/rswarm/netns");
    must(manager, &format!("init --advertise-addr {own}"));

    let token = must(manager, "join-token --quiet worker");
    let token = token.trim();
    let advertise = worker.address();
    let line = format!("join --token {token} --advertise-addr {advertise} --data-path-addr 1.2.3.4 {own}:2377");
    refused(worker, &line).says(2, &["--data-path-addr", "1.2.3.4"]);
    is_outside(worker);
    assert_eq!(must(manager, "node ls --format {{.Hostname}}"), "m1\n", "nobody was admitted");
    must(worker, &format!("join --token {token} --advertise-addr {advertise} {own}:2377"));
    assert_eq!(must(manager, "node ls --format {{.Hostname}}").lines().count(), 2);

    manager.stop_daemon(Duration::from_secs(30)).unwrap();
    let log = std::fs::read_to_string(manager.log("daemon")).unwrap();
    assert!(!log.contains("did not end in time") && !log.contains("left behind"), "everything ends by itself: {log}");
}
