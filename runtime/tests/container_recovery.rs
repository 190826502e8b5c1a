//! Containers outlive the daemon; shims that die take theirs along; nothing is lost from sight.
#![allow(clippy::unwrap_used, reason = "tests")]

mod container_support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use container_support::Lab;
use futures::StreamExt;
use rswarm_runtime::{Backend, ContainerState, LogPlan, LogQuery, Outcome, Runtime};
use rustix::process::{Pid, Signal, kill_process};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

async fn a_new_daemon_adopts_what_runs_and_learns_what_ended(mut lab: Lab) {
    let wait = |code: u32| format!("echo begun; while [ ! -e /go ]; do sleep 0.02; done; echo ended; exit {code}");
    for (id, code) in [("a", 42), ("b", 43)] {
        lab.runtime().start(lab.plan(id, &["sh", "-c", &wait(code)])).await.unwrap();
        lab.said(id, "begun").await;
    }
    let started = lab.state("a");
    let go = |lab: &Lab, id: &str| fs::write(format!("/proc/{}/root/go", lab.pid_in(id, "init")), "").unwrap();
    // `b` ends while nobody looks.
    if let Some(old) = lab.runtime.take() {
        old.close().await;
    }
    go(&lab, "b");
    let exit = lab.config.containers_dir.join("b/exit");
    lab.until("the reaper writes the exit", async || exit.exists()).await;
    lab.reopen().await;
    assert_eq!(lab.state("a"), started);
    let Some(ContainerState::Exited(exit)) = lab.state("b") else { panic!("{:?}", lab.state("b")) };
    assert_eq!(exit.code, 43);
    assert_eq!(lab.output("b").await.0, ["begun", "ended"]);
    let mut exits = lab.runtime().exits();
    go(&lab, "a");
    let event = exits.recv().await.unwrap();
    assert!(matches!(event.outcome, Outcome::Exited(exit) if event.id == "a" && exit.code == 42), "{event:?}");
    for id in ["a", "b"] {
        lab.runtime().delete(id, true).await.unwrap();
    }
    assert_eq!(lab.leftovers(), [""; 0]);
}

async fn a_dead_shim_loses_its_container_and_nothing_survives(lab: Lab) {
    lab.runtime().start(lab.plan("t", &["sh", "-c", "sleep 600 & sleep 601 & wait"])).await.unwrap();
    let init = lab.pid_in("t", "init");
    kill(lab.pid_in("t", "shim"));
    let Outcome::Lost(why) = lab.ended("t").await else { panic!("not lost") };
    assert!(why.contains("shim died without an exit code"), "{why}");
    // Dead, or a zombie that process 1 has yet to reap.
    let stat = fs::read_to_string(format!("/proc/{init}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z"), "{stat}");
    lab.runtime().delete("t", true).await.unwrap();
    assert_eq!(lab.leftovers(), [""; 0]);
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Lab::embedded()).await; })*
        }
        mod runc {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(super::Lab::new(super::Backend::Oci(super::PathBuf::from("runc")))).await;
            })*
        }
    };
}

on_both! {
    a_new_daemon_adopts_what_runs_and_learns_what_ended
    a_dead_shim_loses_its_container_and_nothing_survives
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shim_that_died_with_the_daemon_is_found_lost() {
    let mut lab = Lab::embedded();
    lab.runtime().start(lab.plan("t", &["sleep", "600"])).await.unwrap();
    if let Some(old) = lab.runtime.take() {
        old.close().await;
    }
    kill(lab.pid_in("t", "shim"));
    // Half-made and half-deleted ones are tidied up.
    let containers = &lab.config.containers_dir;
    fs::create_dir_all(containers.join("half/logs")).unwrap();
    fs::write(containers.join("half/plan.json"), "{}").unwrap();
    fs::create_dir_all(containers.join("deleted/logs")).unwrap();
    fs::create_dir_all(containers.join("deleted/upper/x")).unwrap();
    lab.until("the shim is dead", async || {
        let reopened = Runtime::open(lab.config.clone()).unwrap();
        let lost = matches!(reopened.observe()[..], [ref one] if matches!(one.state, ContainerState::Lost(_)));
        reopened.close().await;
        lost
    })
    .await;
    lab.reopen().await;
    assert!(!lab.config.containers_dir.join("half").exists());
    assert!(!lab.config.containers_dir.join("deleted/upper").exists());
    assert!(lab.config.containers_dir.join("deleted/logs").exists());
    assert_eq!(lab.runtime().argv("t"), ["sleep", "600"], "what ran is known, whoever started it");
    lab.runtime().delete("t", true).await.unwrap();
    lab.runtime().delete("deleted", true).await.unwrap();
    assert_eq!(lab.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_changed_its_user_does_not_survive_its_shim_either() {
    let lab = Lab::embedded();
    // A change of user clears the signal that the kernel would send at the shim's death.
    let argv = ["start-stop-daemon", "-S", "-c", "web", "-x", "/bin/sleep", "--", "600"];
    lab.runtime().start(lab.plan("t", &argv)).await.unwrap();
    let init = lab.pid_in("t", "init");
    let status = || fs::read_to_string(format!("/proc/{init}/status")).unwrap_or_default();
    lab.until("it is another user's", async || status().contains("Uid:\t33")).await;
    kill(lab.pid_in("t", "shim"));
    assert!(matches!(lab.ended("t").await, Outcome::Lost(_)));
    assert!(status().is_empty() || status().contains("State:\tZ"), "{}", status());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaper_shrugs_at_a_machine_s_sigterm() {
    let lab = Lab::embedded();
    lab.runtime().start(lab.plan("t", &["sh", "-c", "while [ ! -e /go ]; do sleep 0.02; done; exit 5"])).await.unwrap();
    for signal in [Signal::TERM, Signal::HUP, Signal::INT] {
        kill_process(Pid::from_raw(lab.pid_in("t", "shim")).unwrap(), signal).unwrap();
    }
    fs::write(format!("/proc/{}/root/go", lab.pid_in("t", "init")), "").unwrap();
    assert!(matches!(lab.ended("t").await, Outcome::Exited(exit) if exit.code == 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reaper_is_small() {
    let lab = Lab::embedded();
    lab.runtime().start(lab.plan("t", &["sh", "-c", "seq 1 50000; echo done; sleep 600"])).await.unwrap();
    lab.said("t", "done").await;
    let shim = lab.pid_in("t", "shim");
    let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
    let pss = rollup.lines().find_map(|l| l.strip_prefix("Pss:")).unwrap();
    let kib: u32 = pss.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib <= 64, "{kib} KiB");
    assert!(fs::read_to_string(format!("/proc/{shim}/comm")).unwrap().starts_with("rswarm-reaper"));
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_starts_at_once_all_end_and_leave_nothing() {
    let lab = Lab::embedded();
    let all: Vec<_> = (0..20).map(|i| (format!("t{i}"), i)).collect();
    let plans = all.iter().map(|(id, i)| lab.plan(id, &["sh", "-c", &format!("echo {i}; exit {i}")]));
    let started = futures::future::join_all(plans.map(|plan| lab.runtime().start(plan))).await;
    assert!(started.iter().all(Result::is_ok), "{started:?}");
    for (id, i) in &all {
        assert!(matches!(lab.ended(id).await, Outcome::Exited(exit) if exit.code == *i), "{id}");
        assert_eq!(lab.output(id).await.0, [i.to_string()]);
    }
    futures::future::join_all(all.iter().map(|(id, _)| lab.runtime().delete(id, true))).await;
    assert_eq!(lab.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_container_is_neither_deleted_nor_started_again() {
    let lab = Lab::embedded();
    lab.runtime().start(lab.plan("t", &["sleep", "600"])).await.unwrap();
    assert_eq!(lab.runtime().delete("t", true).await.unwrap_err().to_string(), "container t is running");
    assert_eq!(lab.runtime().start(lab.plan("t", &["true"])).await.unwrap_err().text, "container t exists already");
    assert!(lab.runtime().start(lab.plan("../t", &["true"])).await.unwrap_err().text.contains("is not allowed"));
    assert!(matches!(lab.state("t"), Some(ContainerState::Running { .. })));
    lab.runtime().delete("never", true).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_rotate_and_a_follower_misses_nothing() {
    let lab = Lab::embedded();
    let mut plan = lab.plan("t", &["sh", "-c", "echo first; while [ ! -e /go ]; do sleep 0.02; done; seq 1 20000"]);
    plan.log = LogPlan { file_bytes: 1 << 20, files: 3 };
    lab.runtime().start(plan).await.unwrap();
    let mut follower = lab.runtime().logs("t", LogQuery { follow: true, ..LogQuery::default() });
    let first = follower.next().await.unwrap().unwrap();
    assert_eq!((first.text.as_slice(), first.is_stderr), (b"first".as_slice(), false));
    fs::write(format!("/proc/{}/root/go", lab.pid_in("t", "init")), "").unwrap();
    let rest: Vec<u32> =
        follower.map(|l| String::from_utf8(l.unwrap().text).unwrap().parse::<u32>().unwrap()).collect().await;
    assert_eq!(rest, (1..=20_000).collect::<Vec<_>>());
    let tail: Vec<String> = lab
        .runtime()
        .logs("t", LogQuery { tail: Some(2), ..LogQuery::default() })
        .map(|l| String::from_utf8(l.unwrap().text).unwrap())
        .collect()
        .await;
    assert_eq!(tail, ["19999", "20000"]);
    let since = LogQuery { since_ns: first.at_ns + 1, ..LogQuery::default() };
    let later = lab.runtime().logs("t", since).next().await.unwrap().unwrap();
    assert_eq!(later.text, b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_files_are_dropped_and_long_lines_are_whole() {
    let lab = Lab::embedded();
    let line =
        "seq 1 30000; head -c 20000 /dev/zero | { while read -r l; do :; done; printf %020000d 7; echo; }; printf end";
    let mut plan = lab.plan("t", &["sh", "-c", line]);
    plan.log = LogPlan { file_bytes: 64 * 1024, files: 2 };
    lab.run(plan).await;
    let logs = lab.config.containers_dir.join("t/logs");
    let mut files: Vec<String> =
        fs::read_dir(&logs).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["0", "1"]);
    for file in files {
        assert!(fs::metadata(logs.join(&file)).unwrap().len() <= 64 * 1024, "{file}");
    }
    let (lines, _) = lab.output("t").await;
    let end = lines.len();
    assert!(end > 1_000 && end < 30_000, "{end}");
    assert_eq!((lines[end - 1].as_str(), lines[end - 2].len(), lines[end - 3].as_str()), ("end", 20_000, "30000"));
    let mut plan = lab.plan("n", &["sh", "-c", "seq 1 100000; exit 3"]);
    plan.log = LogPlan { file_bytes: 4_096, files: 0 };
    assert_eq!(lab.run(plan).await.exit.code, 3);
    assert_eq!(lab.output("n").await.0, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_log_lines_and_nothing_else() {
    let lab = Lab::embedded();
    // The log's folder becomes a full file system: the reaper's view of it is the container's state folder.
    let small = lab.dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let _mounted = Mounted::tmpfs(&small, "size=64k");
    let mut config = lab.config.clone();
    config.containers_dir = small.join("containers");
    let runtime = Runtime::open(config).unwrap();
    let mut plan = lab.plan("t", &["sh", "-c", "seq 1 50000; exit 6"]);
    plan.read_only = true;
    runtime.start(plan).await.unwrap();
    let mut code = None;
    lab.until("it ends", async || {
        code = runtime.observe().into_iter().find_map(|o| match o.state {
            ContainerState::Running { .. } => None,
            ended => Some(ended),
        });
        code.is_some()
    })
    .await;
    // With no room for the exit file either, it is lost and says so; it never hangs.
    match code {
        Some(ContainerState::Exited(exit)) => assert_eq!(exit.code, 6),
        Some(ContainerState::Lost(why)) => assert!(why.contains("without an exit code"), "{why}"),
        other => panic!("{other:?}"),
    }
    let lines: Vec<_> = runtime.logs("t", LogQuery::default()).map(|l| l.unwrap().text).collect::<Vec<_>>().await;
    for (i, line) in lines.iter().enumerate().take(100) {
        assert_eq!(String::from_utf8_lossy(line), (i + 1).to_string());
    }
    runtime.delete("t", true).await.unwrap();
    runtime.close().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// A file system that goes away with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn tmpfs(path: &std::path::Path, options: &str) -> Self {
        let done = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "none"])
            .arg(path)
            .status()
            .unwrap();
        assert!(done.success());
        Self(path.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
