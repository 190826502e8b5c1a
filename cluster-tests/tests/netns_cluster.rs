//! The first cluster: joining, being seen, being refused.

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, must, refused, rswarm, start};

#[test]
fn five_hosts_join_by_tokens_and_every_manager_sees_them_all() {
    let cluster = Cluster::new(3, 2);
    for manager in ["m1", "m2", "m3"] {
        let mut nodes = cluster.nodes_as_seen_by(manager);
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<&str> = nodes.iter().map(|n| n.name.as_str()).collect();
        assert_eq!(names, ["m1", "m2", "m3", "w1", "w2"]);
        assert!(nodes.iter().all(|n| n.status == "Ready" && n.availability == "Active"), "{nodes:?}");
        let count = |status: &str| nodes.iter().filter(|n| n.manager == status).count();
        assert_eq!((count("Leader"), count("Reachable"), count("")), (1, 2, 2), "{nodes:?}");
        let own = must(cluster.host(manager), "node ls --format '{{.Self}} {{.Hostname}}'");
        assert!(own.contains(&format!("true {manager}\n")), "{own}");
        assert_eq!(
            must(cluster.host(manager), "node inspect --format {{.Description.Hostname}} self"),
            format!("{manager}\n")
        );
    }
    let table = cluster.run("node ls");
    let header = table.lines().next().unwrap();
    for column in ["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "ENGINE VERSION"] {
        assert!(header.contains(column), "{column}: {table}");
    }
    let m1 = table.lines().find(|l| l.contains(" m1 ")).unwrap();
    assert!(m1.split_whitespace().nth(1) == Some("*"), "{m1}");

    // A worker opens its one stream to a manager; only managers listen for the cluster.
    let listeners = |name: &str| {
        let said = cluster.host(name).exec(&["ss", "-Hlnt"]).unwrap().text().unwrap();
        said.lines().filter_map(|line| line.split_whitespace().nth(3)).map(str::to_owned).collect::<Vec<_>>()
    };
    assert!(listeners("m1").iter().any(|address| address.ends_with(":2377")), "{:?}", listeners("m1"));
    assert_eq!(listeners("w1"), [""; 0]);

    // A worker's command line gives no orders, until a manager allows it.
    let w1 = cluster.host("w1");
    refused(w1, "node ls").says(7, &["w1", "rswarm node update --control"]);
    must(w1, "info");
    must(w1, "ps");
    must(w1, "image ls");
    cluster.run("node update --control read w1");
    cluster.until("w1 may read", || rswarm(w1, "node ls").is_success());
    refused(w1, &format!("service create --name web {BUSYBOX}")).says(7, &["read"]);
    cluster.run("node update --control full w1");
    cluster.until("w1 may order", || {
        rswarm(w1, &format!("service create --name web --constraint node.hostname==w2 {BUSYBOX} {HTTPD}")).is_success()
    });
    assert_eq!(must(w1, "service ls --format '{{.Name}} {{.Replicas}}'"), "web 1/1\n");
    assert_eq!(cluster.nodes_of("web").into_iter().collect::<Vec<_>>(), ["w2"]);
    cluster.run("node update --control none w1");
    cluster.until("w1 may not any more", || !rswarm(w1, "service ls").is_success());

    // Roles change one at a time, and never below a majority.
    cluster.run("node promote w1");
    cluster.until("w1 is a manager", || cluster.node("w1").is_some_and(|n| n.manager == "Reachable"));
    assert!(must(w1, "node ls").contains("w2"), "a manager may be asked");
    cluster.run("node demote w1 m3");
    cluster.until("both are workers", || {
        ["w1", "m3"].iter().all(|name| cluster.node(name).is_some_and(|n| n.manager.is_empty() && n.status == "Ready"))
    });
    refused(cluster.host("m3"), "node ls").says(7, &["m3"]);
    assert_eq!(cluster.running("web").len(), 1);

    // A worker leaves; it is Down, and may then be removed.
    refused(cluster.host("m1"), "node rm w2").says(4, &["w2"]);
    must(cluster.host("w2"), "leave");
    cluster.until("w2 is Down", || cluster.is_down("w2"));
    cluster.run("node rm w2");
    assert_eq!(cluster.node("w2"), None);
    cluster.join("w2").unwrap();
    cluster.until("w2 is Ready again, as a new node", || cluster.is_ready("w2"));
    cluster.await_running("web", 1);
}

#[test]
fn a_join_that_cannot_be_is_refused_with_its_reason_and_nothing_half_done() {
    let cluster = Cluster::new(1, 0);
    let m1 = cluster.host("m1");
    let token = |role: &str| cluster.run(&format!("join-token --quiet {role}")).trim().to_owned();
    let (worker, manager) = (token("worker"), token("manager"));
    assert_ne!(worker, manager);
    let remote = format!("{}:2377", m1.address());
    refused(m1, &format!("join --token {worker} {remote}")).says(4, &["already part of a swarm", "rswarm leave"]);

    let stranger = cluster.lab.client();
    start(stranger).unwrap();
    let join = |token: &str, remote: &str| refused(stranger, &format!("join --token {token} {remote}"));
    join("SWMTKN-1-rubbish", &remote).says(2, &["malformed", "SWMTKN-1-<50 characters>-<25 characters>"]);
    let (front, secret) = worker.rsplit_once('-').unwrap();
    let wrong_secret = format!("{front}-{}", "0".repeat(secret.len()));
    join(&wrong_secret, &remote).says(7, &["secret is wrong or was rotated", "rswarm join-token worker"]);
    let wrong_root = format!("SWMTKN-1-{}-{secret}", "1".repeat(50));
    join(&wrong_root, &remote).says(7, &["belongs to another cluster"]);
    join(&worker, "10.99.0.77:2377").says(5, &["10.99.0.77:2377", "cannot be reached"]);
    join(&worker, &format!("{}:2399", m1.address())).says(5, &["10.99.0.1:2399", "cannot be reached"]);
    join(&worker, "'no such host'").says(2, &["no such host"]);
    assert_eq!(must(stranger, "info --format {{.Swarm.LocalNodeState}}"), "inactive\n");
    assert_eq!(cluster.nodes_as_seen_by("m1").len(), 1, "nobody was added");

    // A rotated token admits nobody, and those who are in stay.
    let fresh = cluster.run("join-token --quiet --rotate worker").trim().to_owned();
    assert_ne!(fresh, worker);
    join(&worker, &remote).says(7, &["secret is wrong or was rotated"]);
    must(stranger, &format!("join --token {fresh} {remote}"));
    cluster.until("the stranger is in", || cluster.is_ready("client"));
    join(&fresh, &remote).says(4, &["already part of a swarm"]);
    cluster.run("join-token --rotate worker");
    assert!(cluster.is_ready("client"), "rotation does not touch nodes that are in");
}

#[test]
fn a_node_removed_while_it_was_cut_off_hears_of_it_and_can_join_again() {
    let cluster = Cluster::new(1, 1);
    cluster.create(&format!("--name web --constraint node.hostname==w1 {BUSYBOX} {HTTPD}"));
    cluster.lab.cut("m1", "w1").unwrap();
    cluster.until("w1 is Down", || cluster.is_down("w1"));
    cluster.run("node rm w1");
    cluster.lab.heal().unwrap();
    let w1 = cluster.host("w1");
    cluster.until("w1 knows", || rswarm(w1, "node ls").stderr.contains("this node was removed from the cluster"));
    refused(w1, "node ls").says(5, &["rswarm leave --force"]);
    must(w1, "leave --force");
    assert!(w1.container_processes("httpd").is_empty());
    cluster.join("w1").unwrap();
    cluster.until("w1 is Ready as a new node", || cluster.is_ready("w1"));
    cluster.await_running("web", 1);
}
