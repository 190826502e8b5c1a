//! What a container is, on each backend: the same cases must hold for the embedded runtime and for runc.
#![allow(clippy::unwrap_used, reason = "tests")]

mod container_support;

use std::path::PathBuf;
use std::time::Duration;

use container_support::{Lab, status_fields};
use rswarm_runtime::{Backend, ContainerState, ExecError, NetNs, Outcome, StartErrorKind};
use rswarm_types::units::Bytes;

fn runc() -> Backend {
    assert!(
        std::process::Command::new("runc").arg("--version").output().is_ok(),
        "runc is missing: apt-get install -y runc"
    );
    Backend::Oci(PathBuf::from("runc"))
}

/// One test per case and backend.
macro_rules! on_both {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Lab::embedded()).await; })*
        }
        mod runc {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Lab::new(super::runc())).await; })*
        }
    };
}

on_both! {
    an_exit_code_is_told_and_nothing_is_left
    the_process_is_who_and_where_the_spec_says
    init_and_exec_are_confined_alike
    privileges_can_be_given_and_taken
    a_missing_program_is_said_in_clear
    a_stop_signal_and_a_kill_end_it
    out_of_memory_is_told_apart
    too_many_processes_are_refused
    exec_answers_with_code_and_output_and_ends_in_time
    a_terminal_is_a_terminal
    its_own_init_hands_on_signals_and_codes
}

async fn an_exit_code_is_told_and_nothing_is_left(lab: Lab) {
    let mut exits = lab.runtime().exits();
    let ended = lab.shell("t1", "echo out; echo err >&2; exit 42", |_| {}).await;
    assert_eq!((ended.exit.code, ended.exit.signal, ended.exit.oom), (42, None, false));
    assert_eq!((ended.stdout, ended.stderr), (vec!["out".to_owned()], vec!["err".to_owned()]));
    let event = exits.recv().await.unwrap();
    assert_eq!((event.id.as_str(), event.outcome), ("t1", Outcome::Exited(ended.exit)));
    lab.runtime().delete("t1", false).await.unwrap();
    assert_eq!(lab.output("t1").await.0, ["out"]);
    lab.runtime().delete("t1", true).await.unwrap();
    assert_eq!(lab.leftovers(), [""; 0]);
    assert_eq!(lab.shell("t2", "exit 0", |_| {}).await.exit.code, 0);
    lab.runtime().delete("t2", true).await.unwrap();
    assert_eq!(lab.leftovers(), [""; 0]);
}

async fn the_process_is_who_and_where_the_spec_says(lab: Lab) {
    let line = "id -u; id -g; id -G; pwd; echo $A-$HOME-$HOSTNAME; hostname; cat /etc/hosts /etc/resolv.conf; ulimit -n; \
                cat /proc/self/oom_score_adj; ip -o link | wc -l; ip -o link | grep -c LOWER_UP; \
                cat /proc/sys/net/ipv4/ping_group_range";
    let ended = lab
        .shell("t", line, |service| {
            let spec = &mut service.task.container;
            spec.user = "web".to_owned();
            spec.dir = "/made/for/it".to_owned();
            spec.env = vec!["A=b c".to_owned()];
            spec.groups = vec!["7".to_owned()];
            spec.oom_score_adj = 123;
            spec.ulimits.push(rswarm_types::spec::Ulimit { name: "nofile".into(), soft: 77, hard: 88 });
            spec.hosts.push(rswarm_types::spec::HostEntry { name: "db".into(), address: "10.1.2.3".parse().unwrap() });
        })
        .await;
    assert_eq!(
        ended.stdout,
        [
            "33",
            "34",
            "34 4 7",
            "/made/for/it",
            "b c-/home/web-box",
            "box",
            "127.0.0.1\tlocalhost",
            "10.1.2.3\tdb",
            "nameserver 127.0.0.11",
            "77",
            "123",
            "1",
            "1",
            "0\t2147483647",
        ],
        "stderr: {:?}",
        ended.stderr
    );
}

async fn init_and_exec_are_confined_alike(lab: Lab) {
    // The eleven default capabilities.
    let caps = "00000000800405fb";
    let look = "grep -E '^(Cap|Seccomp:|NoNewPrivs|SigIgn|SigBlk)' /proc/self/status; unshare -n true && echo loose; \
                mount -t tmpfs x /tmp && echo loose; yes | head -1; ls /proc/self/fd | wc -l";
    let check = |lines: Vec<String>, what: &str, caps: &str| {
        let fields = status_fields(&lines);
        let field = |name: &str| fields.get(name).map(String::as_str).unwrap_or("missing");
        for name in ["CapPrm", "CapEff"] {
            assert_eq!(field(name), caps, "{what} {name}");
        }
        for (name, value) in [
            ("CapBnd", "00000000800405fb"),
            ("CapInh", "0000000000000000"),
            ("CapAmb", "0000000000000000"),
            ("Seccomp", "2"),
            ("NoNewPrivs", "0"),
            ("SigIgn", "0000000000000000"),
            ("SigBlk", "0000000000000000"),
        ] {
            assert_eq!(field(name), value, "{what} {name}");
        }
        assert!(!lines.iter().any(|l| l == "loose"), "{what}: {lines:?}");
        // 0, 1, 2 and the folder that ls reads.
        assert_eq!(lines[lines.len() - 2..], ["y", "4"], "{what}");
    };
    check(lab.shell("root", look, |_| {}).await.stdout, "init of root", caps);
    let web = lab.shell("web", look, |service| service.task.container.user = "web".to_owned()).await;
    check(web.stdout, "init of web", "0000000000000000");

    lab.runtime().start(lab.plan("host", &["sleep", "600"])).await.unwrap();
    for (user, caps) in [(None, caps), (Some("web".to_owned()), "0000000000000000")] {
        let argv = ["sh", "-c", look].map(str::to_owned).to_vec();
        let outcome =
            lab.runtime().exec("host", argv, Vec::new(), user.clone(), Duration::from_secs(30)).await.unwrap();
        let lines: Vec<String> = String::from_utf8(outcome.output).unwrap().lines().map(str::to_owned).collect();
        let lines =
            lines.into_iter().filter(|l| !l.contains("Operation not permitted") && !l.contains("permission denied"));
        check(lines.collect(), &format!("exec of {user:?}"), caps);
    }
}

async fn privileges_can_be_given_and_taken(lab: Lab) {
    type Change = fn(&mut rswarm_types::spec::ContainerSpec);
    let cases: [(&str, Change, [&str; 4]); 4] = [
        ("nnp", |spec| spec.privileges.no_new_privileges = true, ["800405fb", "1", "2", "no"]),
        ("open", |spec| spec.privileges.seccomp_unconfined = true, ["800405fb", "0", "0", "no"]),
        ("admin", |spec| spec.cap_add = vec!["SYS_ADMIN".to_owned()], ["802405fb", "0", "2", "yes"]),
        ("bare", |spec| spec.cap_drop = vec!["ALL".to_owned()], ["00000000", "0", "2", "no"]),
    ];
    for (id, change, [caps, no_new_privileges, seccomp, mounts]) in cases {
        let line = "grep -E '^(CapEff|CapBnd|Seccomp:|NoNewPrivs)' /proc/self/status; mount -t tmpfs x /tmp && echo mounted; true";
        let mut service = lab.service(&["sh", "-c", &format!("{line}; sleep 600")]);
        change(&mut service.task.container);
        lab.runtime().start(lab.plan_of(id, &service, NetNs::None)).await.unwrap();
        let exec = lab.runtime().exec(
            id,
            ["sh", "-c", line].map(str::to_owned).to_vec(),
            Vec::new(),
            None,
            Duration::from_secs(30),
        );
        let said = String::from_utf8(exec.await.unwrap().output).unwrap();
        let added: Vec<String> = said.lines().map(str::to_owned).collect();
        lab.until("it looked", async || lab.output(id).await.0.iter().any(|l| l.starts_with("Seccomp"))).await;
        if mounts == "yes" {
            lab.said(id, "mounted").await;
        }
        for lines in [lab.output(id).await.0, added] {
            let fields = status_fields(&lines);
            assert_eq!(fields["CapEff"], format!("00000000{caps}"), "{id} {lines:?}");
            assert_eq!(fields["CapBnd"], format!("00000000{caps}"), "{id}");
            assert_eq!(
                (fields["NoNewPrivs"].as_str(), fields["Seccomp"].as_str()),
                (no_new_privileges, seccomp),
                "{id}"
            );
            assert_eq!(lines.iter().any(|l| l == "mounted"), mounts == "yes", "{id}");
        }
    }
}

async fn a_missing_program_is_said_in_clear(lab: Lab) {
    for (id, program, kind, text) in [
        ("a", "/nope", StartErrorKind::CommandNotFound, "no such file or directory"),
        ("b", "nope", StartErrorKind::CommandNotFound, "executable file not found in $PATH"),
        ("c", "/etc/notes", StartErrorKind::CommandNotExecutable, "permission denied"),
        ("d", "/bin/junk", StartErrorKind::CommandNotExecutable, "exec format error"),
    ] {
        if id == "d" && lab.config.backend != Backend::Embedded {
            // runc looks at the file's bits only; its init says the rest after the start.
            let ended = lab.run(lab.plan(id, &[program])).await;
            assert!(ended.exit.code == 1 && ended.stderr.concat().contains(text), "{:?}", ended.stderr);
            lab.runtime().delete(id, true).await.unwrap();
            continue;
        }
        let error = lab.runtime().start(lab.plan(id, &[program])).await.unwrap_err();
        assert_eq!(error.kind, kind, "{program}: {error}");
        assert!(error.text.contains(text) && error.text.contains(program), "{program}: {error}");
        assert_eq!(lab.state(id), None);
    }
    assert_eq!(lab.leftovers(), [""; 0]);
}

async fn a_stop_signal_and_a_kill_end_it(lab: Lab) {
    let line = "trap 'echo got it; exit 7' USR1; echo ready; while :; do sleep 0.1; done";
    let plan = |id| lab.plan(id, &["sh", "-c", line]);
    lab.runtime().start(plan("a")).await.unwrap();
    lab.said("a", "ready").await;
    lab.runtime().signal("a", libc::SIGUSR1).unwrap();
    let Outcome::Exited(exit) = lab.ended("a").await else { panic!("lost") };
    assert_eq!((exit.code, exit.signal), (7, None));
    assert_eq!(lab.output("a").await.0.last().map(String::as_str), Some("got it"));
    lab.runtime().start(plan("b")).await.unwrap();
    lab.runtime().kill("b").unwrap();
    let Outcome::Exited(exit) = lab.ended("b").await else { panic!("lost") };
    assert_eq!((exit.code, exit.signal, exit.oom), (137, Some(9), false));
    lab.runtime().kill("b").unwrap();
    assert!(lab.runtime().kill("c").is_err());
}

async fn out_of_memory_is_told_apart(lab: Lab) {
    let ended =
        lab.shell("t", "exec tail /dev/zero", |service| service.task.resources.limit_memory = Bytes(16 << 20)).await;
    assert_eq!((ended.exit.code, ended.exit.signal, ended.exit.oom), (137, Some(9), true));
    lab.runtime().delete("t", true).await.unwrap();
    assert_eq!(lab.leftovers(), [""; 0]);
}

async fn too_many_processes_are_refused(lab: Lab) {
    let line = "sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & echo all";
    let ended = lab.shell("t", line, |service| service.task.resources.limit_pids = 3).await;
    assert!(ended.exit.code != 0 && ended.stdout.is_empty(), "{:?} {:?}", ended.exit, ended.stdout);
    assert!(ended.stderr.iter().any(|l| l.contains("can't fork")), "{:?}", ended.stderr);
}

async fn exec_answers_with_code_and_output_and_ends_in_time(lab: Lab) {
    let runtime = lab.runtime();
    runtime.start(lab.plan("t", &["sleep", "600"])).await.unwrap();
    let exec = |argv: &[&str], timeout: u64| {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        runtime.exec("t", argv, vec!["B=2".to_owned()], None, Duration::from_millis(timeout))
    };
    let outcome = exec(&["sh", "-c", "echo $B $HOSTNAME; echo e >&2; exit 3"], 30_000).await.unwrap();
    assert_eq!((outcome.code, outcome.timed_out), (Some(3), false));
    let text = String::from_utf8(outcome.output).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    // runc copies the two streams by threads of its own.
    lines.sort_unstable();
    assert_eq!(lines, ["2 box", "e"]);
    let outcome = exec(&["seq", "1", "100000"], 30_000).await.unwrap();
    assert_eq!((outcome.code, outcome.output.len()), (Some(0), 4_096));
    let outcome = exec(&["sh", "-c", "echo begun; sleep 100"], 500).await.unwrap();
    assert_eq!((outcome.code, outcome.timed_out, outcome.output), (None, true, b"begun\n".to_vec()));
    let outcome = exec(&["sh", "-c", "kill -9 $$"], 30_000).await.unwrap();
    assert_eq!(outcome.code, Some(137));
    let error = exec(&["/nope"], 30_000).await.unwrap_err();
    assert!(matches!(&error, ExecError::CommandNotFound(text) if text.contains("/nope")), "{error:?}");
    let user = runtime.exec("t", vec!["id".into()], Vec::new(), Some("nobody".into()), Duration::from_secs(30)).await;
    assert!(user.unwrap_err().to_string().contains("user \"nobody\" is not in the image's /etc/passwd"));
    // The killed one's sleep is gone too: only the container's own is left.
    let outcome = exec(&["sh", "-c", "cat /proc/[0-9]*/comm | grep -c sleep"], 30_000).await.unwrap();
    assert_eq!(String::from_utf8(outcome.output).unwrap(), "1\n");
    runtime.kill("t").unwrap();
    lab.ended("t").await;
    let error = exec(&["true"], 1_000).await.unwrap_err();
    assert_eq!(error, ExecError::NotRunning("t".to_owned()));
}

async fn a_terminal_is_a_terminal(lab: Lab) {
    let ended = lab
        .shell("t", "tty; test -t 0 && test -t 1 && test -t 2 && echo $TERM; exit 5", |service| {
            service.task.container.tty = true;
        })
        .await;
    assert_eq!(ended.exit.code, 5);
    let said: Vec<&str> = ended.stdout.iter().map(|l| l.trim_end_matches('\r')).collect();
    assert_eq!((said[0].starts_with("/dev/"), said[1]), (true, "xterm"), "{said:?}");
}

async fn its_own_init_hands_on_signals_and_codes(lab: Lab) {
    let with_init = |service: &mut rswarm_types::spec::ServiceSpec| service.task.container.init = Some(true);
    let ended = lab.shell("a", "cat /proc/1/comm; (sleep 0.2 &); echo $$; exit 9", with_init).await;
    assert_eq!((ended.exit.code, ended.stdout[0].as_str()), (9, ".rswarm-init"));
    assert_ne!(ended.stdout[1], "1");
    let mut service = lab.service(&["sleep", "600"]);
    with_init(&mut service);
    let plan = lab.plan_of("b", &service, NetNs::None);
    lab.runtime().start(plan).await.unwrap();
    // Without an init, process 1 would ignore it. The child takes a moment to be there.
    lab.until("the signal arrives", async || {
        lab.runtime().signal("b", libc::SIGTERM).unwrap();
        !matches!(lab.state("b"), Some(ContainerState::Running { .. }))
    })
    .await;
    let Outcome::Exited(exit) = lab.ended("b").await else { panic!("lost") };
    assert_eq!(exit.code, 143);
    let mut service = lab.service(&["nope"]);
    with_init(&mut service);
    if lab.config.backend == Backend::Embedded {
        let error = lab.runtime().start(lab.plan_of("c", &service, NetNs::None)).await.unwrap_err();
        assert_eq!(error.kind, StartErrorKind::CommandNotFound);
    } else {
        // runc looks up only its own first program.
        assert_eq!(lab.run(lab.plan_of("c", &service, NetNs::None)).await.exit.code, 127);
    }
}
