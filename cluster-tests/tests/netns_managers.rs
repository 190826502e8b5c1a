//! Managers die and come back; containers know nothing of it.

use std::time::Duration;

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, must, rswarm};
use rswarm_cluster_tests::lab::until;

const MANAGERS: [&str; 3] = ["m1", "m2", "m3"];
/// How long an election and everything after it may take.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn a_killed_leader_costs_no_write_and_no_container_and_catches_up_when_it_is_back() {
    let cluster = Cluster::new(3, 2);
    cluster
        .create(&format!("--name web --replicas 4 --publish 8080:80 --constraint node.role==worker {BUSYBOX} {HTTPD}"));
    let before = cluster.processes("httpd");
    assert_eq!(before.len(), 4);
    let leader = cluster.leader().unwrap();
    let others: Vec<&str> = MANAGERS.into_iter().filter(|name| *name != leader).collect();
    cluster.host(&leader).sigkill_daemon().unwrap();
    // The very next command waits for the next leader; it does not fail.
    must(cluster.host(others[0]), "service update --label-add round=1 --detach web");
    must(
        cluster.host(others[1]),
        &format!("service create --name late --constraint node.role==worker {BUSYBOX} sleep 100000"),
    );
    let next = cluster.leader().unwrap();
    assert_ne!(next, leader);
    cluster.until("the old leader is Down", || cluster.is_down(&leader));
    assert_eq!(cluster.node(&leader).unwrap().manager, "Unreachable");
    assert_eq!(cluster.processes("httpd"), before, "no container was restarted");
    for host in others.iter().copied().chain(["w1", "w2"]) {
        cluster.until(&format!("{host} answers"), || cluster.visit(host, 8080, "").is_some());
    }

    // A follower dies too: no majority, no writes, but containers go on. With one back, all goes on.
    let follower = *others.iter().find(|name| **name != next).unwrap();
    cluster.host(follower).sigkill_daemon().unwrap();
    let alone = rswarm(cluster.host(&next), "service update --label-add round=2 --detach web");
    let code = alone.status.code();
    assert!(code == Some(5) || code == Some(6), "{code:?} {}{}", alone.stdout, alone.stderr);
    assert_eq!(cluster.processes("httpd"), before);
    assert!(cluster.visit("w1", 8080, "").is_some());
    cluster.host(&leader).restart().unwrap();
    until("there is a leader again", DEADLINE, || {
        rswarm(cluster.host(&next), "service update --label-add round=3 --detach web").is_success()
    })
    .unwrap();
    cluster.host(follower).restart().unwrap();
    cluster.until("all are back", || {
        MANAGERS.iter().all(|name| {
            cluster
                .node(name)
                .is_some_and(|n| n.status == "Ready" && (n.manager == "Reachable" || n.manager == "Leader"))
        })
    });
    // The one that missed most answers with what it missed.
    let labels = must(cluster.host(&leader), "service inspect --format '{{json .Spec.Labels}}' web");
    assert!(labels.contains("\"round\":\"3\""), "{labels}");
    assert_eq!(must(cluster.host(&leader), "service ls --format '{{.Name}} {{.Replicas}}'"), "late 1/1\nweb 4/4\n");
    assert_eq!(cluster.processes("httpd"), before, "no container was restarted");
    assert_eq!(cluster.tasks("web").len(), 4, "no task was replaced");

    // And it leads again, if the others go one after the other.
    for name in others {
        cluster.host(name).sigkill_daemon().unwrap();
        cluster.until("writes are accepted", || {
            rswarm(cluster.host(&leader), &format!("service update --label-add gone={name} --detach web")).is_success()
        });
        cluster.host(name).restart().unwrap();
        cluster.until(&format!("{name} is back"), || cluster.node(name).is_some_and(|n| n.manager == "Reachable"));
    }
    assert_eq!(cluster.processes("httpd"), before);
}

#[test]
fn a_leader_that_is_cut_off_or_stopped_leads_no_more_and_follows_after() {
    let cluster = Cluster::new(3, 0);
    cluster.create(&format!("--name web --replicas 3 {BUSYBOX} {HTTPD}"));
    let before = cluster.processes("httpd");
    let first = cluster.leader().unwrap();
    let others: Vec<&str> = MANAGERS.into_iter().filter(|name| *name != first).collect();
    let kept: Vec<_> = before.iter().filter(|(host, _)| *host != first).cloned().collect();
    for other in &others {
        cluster.lab.cut(&first, other).unwrap();
    }
    until("the others have a leader", DEADLINE, || {
        cluster.nodes_as_seen_by(others[0]).iter().any(|n| n.manager == "Leader" && n.name != first)
    })
    .unwrap();
    must(cluster.host(others[0]), "service update --label-add side=many --detach web");
    let cut_off = rswarm(cluster.host(&first), "service update --label-add side=one --detach web");
    assert!(!cut_off.is_success(), "without a majority nothing is written");
    // Long enough for what is really lost to be replaced, and for what is wrongly thought lost.
    until("the one cut off is Down", DEADLINE, || {
        cluster.nodes_as_seen_by(others[0]).iter().any(|n| n.name == first && n.status == "Down")
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    cluster.lab.heal().unwrap();
    until("the first leader follows", DEADLINE, || {
        let nodes = cluster.nodes_as_seen_by(&first);
        nodes.iter().any(|n| n.name == first && n.manager == "Reachable" && n.status == "Ready")
    })
    .unwrap();
    let labels = must(cluster.host(&first), "service inspect --format '{{json .Spec.Labels}}' web");
    assert!(labels.contains("\"side\":\"many\""), "{labels}");
    cluster.await_running("web", 3);
    let after = cluster.processes("httpd");
    assert!(kept.iter().all(|process| after.contains(process)), "who was in touch kept its containers");

    let leader = cluster.nodes_as_seen_by(&first).into_iter().find(|n| n.manager == "Leader").unwrap().name;
    cluster.host(&leader).pause().unwrap();
    let awake = MANAGERS.into_iter().find(|name| *name != leader).unwrap();
    must(cluster.host(awake), "service update --label-add side=awake --detach web");
    cluster.host(&leader).resume().unwrap();
    let labels = must(cluster.host(&leader), "service inspect --format '{{json .Spec.Labels}}' web");
    assert!(labels.contains("\"side\":\"awake\""), "a read on one that slept sees what was written: {labels}");
    cluster.await_running("web", 3);
}
