//! Disks: shared, damaged, full. Each with a clear error and nothing half-done.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster, HTTPD, load, must, rswarm, start};
use rswarm_cluster_tests::lab::{Host, Lab, until};

const DEADLINE: Duration = Duration::from_secs(30);

fn log_of(host: &Host) -> String {
    std::fs::read_to_string(host.log("daemon")).unwrap_or_default()
}

#[test]
fn a_second_daemon_on_the_same_data_folder_is_refused_and_the_first_goes_on() {
    let lab = Lab::builder().hosts(["m1"]).build().unwrap();
    let m1 = lab.host("m1");
    start(m1).unwrap();
    let second = m1.exec(&["rswarm", "daemon", "--data-dir", "/var/lib/rswarm", "--run-dir", "/run/other"]).unwrap();
    assert_eq!(second.status.code(), Some(1));
    let pid = m1.daemon_pid().unwrap().to_string();
    for word in ["/var/lib/rswarm", "in use by another daemon", &pid, "--data-dir"] {
        assert!(second.stderr.contains(word), "{word}: {}", second.stderr);
    }
    must(m1, "version");
    let wrong = m1.exec(&["rswarm", "daemon", "--runtime", "no-such-runtime"]).unwrap();
    assert!(wrong.status.code() == Some(2) && wrong.stderr.contains("no-such-runtime"), "{}", wrong.stderr);
    let no_daemon = m1.exec(&["rswarm", "-H", "unix:///run/nothing.sock", "node", "ls"]).unwrap();
    assert_eq!(no_daemon.status.code(), Some(5));
    assert!(
        no_daemon.stderr.contains("/run/nothing.sock") && no_daemon.stderr.contains("rswarm daemon"),
        "{}",
        no_daemon.stderr
    );
}

/// The newest segment of a manager's log.
fn segment(host: &Host) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut open = vec![host.data_dir().join("raft")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "seg") {
                found.push(path);
            }
        }
    }
    found.into_iter().max().unwrap()
}

/// Where the written part of a segment ends: the rest is zeros.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

#[test]
fn a_torn_end_of_the_log_is_cut_and_damage_before_it_is_named_and_never_cut() {
    let cluster = Cluster::new(1, 0);
    let m1 = cluster.host("m1");
    cluster.create(&format!("--name web {BUSYBOX} {HTTPD}"));
    let before = cluster.processes("httpd");
    m1.sigkill_daemon().unwrap();
    let path = segment(m1);
    let whole = std::fs::read(&path).unwrap();
    let end = written(&whole);
    // What a crash in the middle of a write leaves: a piece of a group after the last whole one.
    let mut torn = whole.clone();
    let piece: Vec<u8> = (0..100_u8).map(|n| n | 1).collect();
    let at = end.next_multiple_of(4096).min(torn.len() - piece.len());
    torn[at..at + piece.len()].copy_from_slice(&piece);
    std::fs::write(&path, &torn).unwrap();
    start(m1).unwrap();
    cluster.until("it goes on", || cluster.running("web").len() == 1);
    assert_eq!(cluster.processes("httpd"), before);
    cluster.run("service update --label-add after=tear web");

    m1.sigkill_daemon().unwrap();
    let path = segment(m1);
    let good = std::fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = written(&bad) / 2;
    bad[middle] ^= 0xff;
    std::fs::write(&path, &bad).unwrap();
    m1.start_daemon(&[]).unwrap();
    until("it says that the log is damaged", DEADLINE, || log_of(m1).contains("the raft log is damaged")).unwrap();
    let line = log_of(m1);
    let line = line.lines().find(|l| l.contains("the raft log is damaged")).unwrap();
    assert!(line.contains("at byte") && line.contains(".seg"), "{line}");
    until("the command line says it too", DEADLINE, || {
        let output = rswarm(m1, "node ls");
        !output.is_success() && output.stderr.contains("damaged")
    })
    .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), bad, "nothing was cut");
    assert_eq!(cluster.processes("httpd"), before, "containers go on");
    if m1.is_daemon_running() {
        m1.sigkill_daemon().unwrap();
    }
    std::fs::write(&path, &good).unwrap();
    start(m1).unwrap();
    cluster.until("with the good file it goes on", || cluster.running("web").len() == 1);
}

#[test]
fn a_full_disk_under_the_log_refuses_writes_by_name_and_is_forgotten_once_there_is_room() {
    let lab = Lab::builder().hosts(["m1"]).build().unwrap();
    let m1 = lab.host("m1");
    let said = m1.exec(&["mount", "-t", "tmpfs", "-o", "size=96m", "small", "/var/lib/rswarm"]).unwrap();
    assert!(said.is_success(), "{}", said.stderr);
    start(m1).unwrap();
    load(m1, "busybox").unwrap();
    must(m1, &format!("init --advertise-addr {}", m1.address()));
    must(m1, &format!("service create --name web {BUSYBOX} {HTTPD}"));
    let before = m1.container_processes("httpd");
    assert!(m1.exec(&["sh", "-c", "cat /dev/zero > /var/lib/rswarm/filler; true"]).unwrap().is_success());
    // Labels of 100 kB each, until the log needs a new segment.
    let big = "x".repeat(100_000);
    let mut refusal = None;
    for round in 0..400 {
        let output =
            m1.rswarm(&["service", "update", "--detach", "--label-add", &format!("big={round}{big}"), "web"]).unwrap();
        if !output.is_success() {
            refusal = Some(output);
            break;
        }
    }
    let refusal = refusal.expect("the log fits on a full disk");
    assert!(refusal.stderr.contains("no space left on device"), "{}", refusal.stderr);
    assert_eq!(m1.container_processes("httpd"), before, "containers go on");
    m1.exec(&["rm", "/var/lib/rswarm/filler"]).unwrap();
    if m1.is_daemon_running() {
        m1.stop_daemon(Duration::from_secs(15)).unwrap();
    }
    start(m1).unwrap();
    until("with room again it goes on", DEADLINE, || rswarm(m1, "service scale web=2").is_success()).unwrap();
    assert!(before.is_subset(&m1.container_processes("httpd")), "the first one was never restarted");
}
