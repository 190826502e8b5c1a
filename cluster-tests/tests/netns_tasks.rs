//! Tasks that fail, and specs that cannot be: every reason reaches the one who asked.

use std::time::{Duration, Instant};

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, load, must, refused, rswarm};

#[test]
fn health_gates_running_and_the_sick_are_replaced() {
    let cluster = Cluster::new(1, 0);
    let m1 = cluster.host("m1");
    load(m1, "busybox-health").unwrap();
    // The image's own check: healthy until somebody makes /tmp/sick.
    cluster.create("--name sick --restart-delay 1s busybox-health:1.35 sleep 100000");
    let first = cluster.running("sick")[0].id.clone();
    assert!(must(m1, "ps --format {{.Status}}").contains("(healthy)"));
    assert!(cluster.inside("m1", "sleep", &["touch", "/tmp/sick"]).is_success());
    cluster.until("the sick one failed and another runs", || {
        let tasks = cluster.tasks("sick");
        tasks.iter().any(|t| t.id == first && t.state == "Failed" && t.error.contains("unhealthy"))
            && cluster.running("sick").iter().any(|t| t.id != first)
    });
    cluster.run("service rm sick");

    // A check by flags holds RUNNING back until it passes.
    cluster.create(&format!(
        "--detach --name late --health-cmd 'test -e /tmp/well' --health-interval 300ms --health-retries 1000 {BUSYBOX} sleep 100000"
    ));
    cluster.until("it is starting", || cluster.tasks("late").iter().any(|t| t.state == "Starting"));
    cluster.until("its process is there", || m1.container_processes("sleep").len() == 1);
    cluster.throughout("it is not RUNNING", Duration::from_secs(2), || cluster.running("late").is_empty());
    assert!(cluster.inside("m1", "sleep", &["touch", "/tmp/well"]).is_success());
    cluster.await_running("late", 1);
    assert_eq!(cluster.tasks("late").len(), 1);
    // Switched off.
    cluster.create("--name off --no-healthcheck busybox-health:1.35 sh -c 'touch /tmp/sick; exec sleep 100000'");
    cluster.throughout("nobody minds", Duration::from_secs(3), || cluster.running("off").len() == 1);
}

#[test]
fn a_failing_update_pauses_within_seconds_and_is_rolled_back_by_hand() {
    let cluster = Cluster::new(1, 1);
    cluster.create(&format!("--name web --replicas 3 --publish 8080:80 {BUSYBOX} {HTTPD}"));
    let began = Instant::now();
    let failed = refused(cluster.manager(), "service update --args /no/such/program web");
    let took = began.elapsed();
    failed.says(1, &["update paused due to failure or early termination of task"]);
    assert!(failed.text.contains("/no/such/program"), "the task's own reason: {}", failed.text);
    eprintln!("lab: paused: after {:.3} s", took.as_secs_f64());
    assert!(took < Duration::from_secs(30), "{took:?}");
    let status = cluster.run("service inspect --format '{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}' web");
    assert!(status.starts_with("paused: update paused due to failure or early termination of task "), "{status}");
    assert!(cluster.run("service inspect --pretty web").contains("paused"));
    assert_eq!(cluster.running("web").len(), 2, "two of three were not touched");
    cluster.run("service rollback web");
    cluster.await_running("web", 3);
    let status = cluster.run("service inspect --format {{.UpdateStatus.State}} web");
    assert_eq!(status, "rollback_completed\n");
    // One at a time, the new one first: never fewer than three answer.
    cluster.run("service update --detach --update-order start-first --update-parallelism 1 --env-add A=1 web");
    let mut lowest = usize::MAX;
    cluster.until("it is rolled out", || {
        lowest = lowest.min(cluster.running("web").len());
        cluster.run("service inspect --format {{.UpdateStatus.State}} web") == "completed\n"
    });
    assert!(lowest >= 3, "{lowest}");
}

#[test]
fn a_task_says_why_it_does_not_run() {
    let cluster = Cluster::new(1, 1);
    let error_of = |service: &str, wanted: &[&str]| {
        let mut seen = Vec::new();
        cluster.until(&format!("{service} says {wanted:?}"), || {
            seen = cluster.tasks(service);
            seen.iter().any(|t| wanted.iter().all(|word| t.error.contains(word)))
        });
        seen
    };
    // Out of memory, as such.
    cluster.create(&format!(
        "--detach --name greedy --restart-condition none --limit-memory 16M {BUSYBOX} sh -c 'x=a; while true; do x=$x$x; done'"
    ));
    let tasks = error_of("greedy", &["out of memory"]);
    assert_eq!(tasks.len(), 1, "restart condition none: {tasks:?}");
    assert_eq!(tasks[0].state, "Failed");

    // The exit code; on-failure restarts with its history; success stays Complete.
    cluster.create(&format!(
        "--detach --name fails --restart-delay 100ms --restart-max-attempts 2 {BUSYBOX} sh -c 'exit 3'"
    ));
    error_of("fails", &["task: non-zero exit (3)"]);
    cluster.until("three attempts in all", || {
        let tasks = cluster.tasks("fails");
        tasks.len() == 3 && tasks.iter().all(|t| t.state == "Failed")
    });
    cluster.throughout("and no more", Duration::from_secs(2), || cluster.tasks("fails").len() == 3);
    cluster.create(&format!("--detach --name once --restart-condition on-failure {BUSYBOX} true"));
    cluster.until("it is Complete", || cluster.tasks("once").iter().any(|t| t.state == "Complete"));
    cluster.throughout("and stays", Duration::from_secs(1), || cluster.tasks("once").len() == 1);

    // A program that is not there.
    cluster.create(&format!("--detach --name absent --restart-condition none {BUSYBOX} /no/such/program"));
    error_of("absent", &["/no/such/program"]);

    // An image that cannot be pulled: the registry's address and its answer, in full.
    cluster.create("--detach --name unpulled --restart-delay 60s 10.99.0.100:5999/none/such:1");
    error_of("unpulled", &["10.99.0.100:5999", "refused"]);
    let shown = cluster.run("service ps unpulled");
    let full = cluster.run("service ps --no-trunc unpulled");
    assert!(shown.len() < full.len(), "cut unless --no-trunc:\n{shown}\n{full}");
    // One that nobody knows; names from outside cannot be resolved here.
    let output =
        rswarm(cluster.manager(), "service create --detach --name unknown --restart-delay 60s nowhere.example/none:1");
    assert!(output.is_success() && output.stderr.contains("could not be accessed on a registry"), "{}", output.stderr);
    error_of("unknown", &["nowhere.example"]);

    // No node fits, and why each does not.
    cluster.create(&format!("--detach --name big --reserve-memory 900G {BUSYBOX} sleep 1000"));
    error_of("big", &["no suitable node", "insufficient memory on 2 nodes", "need 900"]);
    cluster.create(&format!("--detach --name wide --replicas-max-per-node 1 --replicas 3 {BUSYBOX} sleep 1000"));
    error_of("wide", &["no suitable node", "max replicas per node limit exceed"]);
    assert_eq!(cluster.tasks("wide").iter().filter(|t| t.state == "Pending").count(), 1);
    cluster.create(&format!("--detach --name far --constraint node.hostname==nowhere {BUSYBOX} sleep 1000"));
    error_of("far", &["no suitable node", "scheduling constraints not satisfied on 2 nodes", "node.hostname==nowhere"]);
    // A bind mount of a folder that is not there.
    cluster.create(&format!(
        "--detach --name bound --restart-condition none --mount type=bind,source=/no/folder,target=/x {BUSYBOX} sleep 1000"
    ));
    error_of("bound", &["bind source path does not exist", "/no/folder"]);
}

#[test]
fn a_wrong_spec_is_refused_with_all_that_is_wrong_and_changes_nothing() {
    let cluster = Cluster::new(1, 0);
    let m1 = cluster.host("m1");
    let several = refused(
        m1,
        &format!(
            "service create --name 'bad name' --replicas 2 --constraint 'node.role=worker' --publish 8080:99999 --limit-memory 1 --network missing {BUSYBOX}"
        ),
    );
    assert_eq!(several.code, 2, "{}", several.text);
    let all = several.text.matches("error: ").count();
    assert!(all >= 3, "all at once: {}", several.text);
    for word in ["bad name", "node.role=worker", "99999", "network \"missing\" not found"] {
        assert!(several.text.contains(word), "{word}: {}", several.text);
    }
    for (line, code, said) in [
        ("service create --no-such-flag busybox:1.35".to_owned(), Some(2), "--no-such-flag"),
        (format!("service create --network missing {BUSYBOX}"), Some(2), "missing"),
        (format!("service create --mount type=wrong,target=/x {BUSYBOX}"), Some(2), "wrong"),
        (format!("service create --secret s {BUSYBOX}"), Some(2), "--secret"),
        (format!("service create --update-failure-action rollback {BUSYBOX}"), Some(2), "rollback"),
        ("service create --name web UPPER/Case".to_owned(), Some(2), "UPPER/Case"),
        ("service scale nothing=1".to_owned(), Some(3), "nothing"),
        ("service scale web".to_owned(), Some(2), "web"),
        ("service rm nothing".to_owned(), Some(3), "nothing"),
        ("node update --availability lazy self".to_owned(), Some(2), "lazy"),
        ("node demote self".to_owned(), None, "manager"),
        ("node rm self".to_owned(), None, "m1"),
        ("network create --driver overlay --subnet 10.0.0.0/24 ingress2".to_owned(), None, "10.0.0.0/24"),
        ("network rm host".to_owned(), None, "host"),
        ("network inspect nothing".to_owned(), Some(3), "nothing"),
        ("volume inspect nothing".to_owned(), Some(3), "nothing"),
        ("image rm nothing".to_owned(), Some(3), "nothing"),
        ("join-token boss".to_owned(), Some(2), "boss"),
    ] {
        let refusal = refused(m1, &line);
        assert!(refusal.text.contains(said), "{line}: {}", refusal.text);
        if let Some(code) = code {
            assert_eq!(refusal.code, code, "{line}: {}", refusal.text);
        }
    }
    assert_eq!(must(m1, "service ls --quiet"), "");
    cluster.create(&format!("--name web {BUSYBOX} {HTTPD}"));
    refused(m1, &format!("service create --name web {BUSYBOX}")).says(4, &["web"]);
    let id = cluster.run("service ls --quiet").trim().to_owned();
    assert_eq!(
        cluster.run(&format!("service inspect --format {{{{.Spec.Name}}}} {}", &id[..4])),
        "web\n",
        "a prefix of an id"
    );
}
