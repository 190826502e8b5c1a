use rswarm_api::pb;

use super::*;

const RUNNING: u32 = 512;
const PREPARING: u32 = 320;

fn id(number: u8) -> bytes::Bytes {
    let mut id = [0; 16];
    id[15] = number;
    bytes::Bytes::copy_from_slice(&id)
}

fn spec(replicas: u64, condition: i32) -> pb::ServiceSpec {
    pb::ServiceSpec {
        name: "web".into(),
        task: Some(pb::TaskSpec {
            container: Some(pb::ContainerSpec {
                image: "nginx".into(),
                privileges: Some(Default::default()),
                dns: Some(Default::default()),
                ..Default::default()
            }),
            resources: Some(Default::default()),
            restart: Some(pb::RestartPolicy { condition, ..Default::default() }),
            placement: Some(Default::default()),
            ..Default::default()
        }),
        mode: Some(pb::ServiceMode { mode: Some(pb::service_mode::Mode::Replicated(pb::Replicated { replicas })) }),
        endpoint: Some(Default::default()),
        ..Default::default()
    }
}

/// A task: number, slot, state, desired, version of its spec, error.
type T<'a> = (u8, u64, u32, i32, u64, &'a str);

fn message(replicas: u64, condition: i32, update: Option<(i32, &str)>, tasks: &[T<'_>]) -> Progress {
    let service = pb::Service {
        id: id(1),
        meta: Some(pb::Meta::default()),
        spec: Some(spec(replicas, condition)),
        spec_version: 7,
        update: update.map(|(state, message)| pb::UpdateStatus {
            state,
            message: message.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let tasks = tasks.iter().map(|(number, slot, state, desired, spec_version, error)| pb::Task {
        id: id(*number),
        meta: Some(pb::Meta::default()),
        service: id(1),
        slot: Some(pb::Slot { number: *slot, node: Default::default() }),
        spec: Some(spec(replicas, condition)),
        spec_version: *spec_version,
        status: Some(pb::TaskStatus { state: *state, error: (*error).into(), ..Default::default() }),
        desired: *desired,
        created: u64::from(*number),
        ..Default::default()
    });
    Progress::read(pb::ServiceProgress {
        service: Some(pb::ServiceView { service: Some(service), running: 0, desired: replicas, completed: 0 }),
        tasks: tasks.collect(),
        removed: false,
    })
    .unwrap()
}

/// Plays messages, each at its second, and returns what a file would get, and the end.
fn play(messages: Vec<(u64, Progress)>) -> (String, Verdict) {
    let (mut tracker, mut plain, mut out) = (Tracker::default(), Plain::default(), String::new());
    let mut verdict = Verdict::Wait(None);
    for (second, message) in messages {
        tracker.take(message);
        let (frame, next) = tracker.look(&NodeNames::new(), TimestampMs(second * 1_000));
        out.push_str(&plain.lines(&frame, ""));
        verdict = next;
    }
    (out, verdict)
}

const ANY: i32 = 2;
const NEVER: i32 = 0;

#[test]
fn a_service_that_comes_up_prints_dockers_lines() {
    let half = [(1, 1, RUNNING, 1, 7, ""), (2, 2, PREPARING, 1, 7, "")];
    let all = [(1, 1, RUNNING, 1, 7, ""), (2, 2, RUNNING, 1, 7, "")];
    let (out, verdict) = play(vec![
        (0, message(2, ANY, None, &[])),
        (1, message(2, ANY, None, &half)),
        (2, message(2, ANY, None, &all)),
        (4, message(2, ANY, None, &all)),
        (7, message(2, ANY, None, &all)),
    ]);
    assert_eq!(
        out,
        "\
overall progress: 0 out of 2 tasks
overall progress: 1 out of 2 tasks
1/2: running
2/2: preparing
overall progress: 2 out of 2 tasks
2/2: running
verify: Waiting 5 seconds to verify that tasks are stable...
verify: Service 0000000000000000000000001 converged
"
    );
    assert_eq!(verdict, Verdict::Converged);
}

#[test]
fn the_countdown_says_when_to_look_again() {
    let all = [(1, 1, RUNNING, 1, 7, "")];
    let mut tracker = Tracker::default();
    tracker.take(message(1, ANY, None, &all));
    assert_eq!(tracker.look(&NodeNames::new(), TimestampMs(100)).1, Verdict::Wait(Some(TimestampMs(101))));
    let (frame, verdict) = tracker.look(&NodeNames::new(), TimestampMs(1_350));
    assert_eq!(frame.verify.unwrap(), "verify: Waiting 4 seconds to verify that tasks are stable...");
    assert_eq!(verdict, Verdict::Wait(Some(TimestampMs(2_100))));
}

#[test]
fn a_task_that_fails_while_it_is_verified_starts_the_wait_again_and_says_why_in_full() {
    let why = "task: non-zero exit (1): the configuration file /etc/app.conf names a host that does not exist";
    let good = [(1, 1, RUNNING, 1, 7, "")];
    let bad = [(1, 1, 704, 2, 7, why), (2, 1, 384, 0, 7, "")];
    let back = [(1, 1, 704, 2, 7, why), (2, 1, RUNNING, 1, 7, "")];
    let (out, verdict) = play(vec![
        (0, message(1, ANY, None, &good)),
        (3, message(1, ANY, None, &bad)),
        (4, message(1, ANY, None, &back)),
        (8, message(1, ANY, None, &back)),
    ]);
    assert!(out.contains(&format!("1/1: ready ({why})\n")), "{out}");
    assert_eq!(out.matches("verify: Waiting 5 seconds").count(), 2, "{out}");
    assert!(matches!(verdict, Verdict::Wait(Some(_))), "4 s are not enough: {verdict:?}");
}

#[test]
fn tasks_of_the_old_spec_do_not_count() {
    let old = [(1, 1, RUNNING, 1, 6, ""), (2, 2, RUNNING, 1, 7, "")];
    let (out, verdict) = play(vec![(0, message(2, ANY, Some((0, "update in progress")), &old))]);
    assert!(out.starts_with("overall progress: 1 out of 2 tasks\n"), "{out}");
    assert_eq!(verdict, Verdict::Wait(None));
}

#[test]
fn a_paused_update_is_a_failure_with_its_message() {
    let tasks = [(1, 1, 704, 2, 7, "boom")];
    let (_, verdict) = play(vec![(0, message(1, ANY, Some((1, "update paused due to failure of task x")), &tasks))]);
    assert_eq!(verdict, Verdict::Failed("service update paused: update paused due to failure of task x".into()));
    let (_, verdict) = play(vec![(0, message(1, ANY, Some((4, "")), &tasks))]);
    assert_eq!(verdict, Verdict::Failed("service rollback paused: a task failed".into()));
}

#[test]
fn a_rollback_is_told() {
    let tasks = [(1, 1, PREPARING, 1, 7, "")];
    let (out, _) = play(vec![(0, message(1, ANY, Some((3, "manual")), &tasks))]);
    assert!(out.starts_with("overall progress: rolling back update: 0 out of 1 tasks\n"), "{out}");
}

#[test]
fn a_task_that_was_to_end_and_did_is_done() {
    let (out, verdict) = play(vec![
        (0, message(1, NEVER, None, &[(1, 1, 576, 1, 7, "")])),
        (5, message(1, NEVER, None, &[(1, 1, 576, 1, 7, "")])),
    ]);
    assert!(out.contains("1/1: complete"), "{out}");
    assert_eq!(verdict, Verdict::Converged);
}

#[test]
fn a_task_that_failed_and_is_not_restarted_ends_the_wait() {
    let (_, verdict) = play(vec![(0, message(1, NEVER, None, &[(1, 1, 768, 1, 7, "No such image: nginx")]))]);
    let Verdict::Failed(text) = verdict else { panic!("{verdict:?}") };
    assert!(text.starts_with("task web.1 is rejected: No such image: nginx"), "{text}");
}

#[test]
fn scaling_down_waits_for_the_rest_only() {
    let tasks = [(1, 1, RUNNING, 1, 7, ""), (2, 2, RUNNING, 2, 7, ""), (3, 3, 640, 2, 7, "")];
    let (out, verdict) = play(vec![(0, message(1, ANY, None, &tasks)), (5, message(1, ANY, None, &tasks))]);
    assert!(out.starts_with("overall progress: 1 out of 1 tasks\n1/1: running\n"), "{out}");
    assert_eq!(verdict, Verdict::Converged);
    let (_, verdict) = play(vec![(0, message(0, ANY, None, &[])), (5, message(0, ANY, None, &[]))]);
    assert_eq!(verdict, Verdict::Converged);
}

#[test]
fn a_service_that_is_removed_ends_the_wait() {
    let gone = Progress::read(pb::ServiceProgress { removed: true, ..Default::default() }).unwrap();
    let (out, verdict) = play(vec![(0, gone)]);
    assert_eq!(out, "");
    assert!(matches!(verdict, Verdict::Failed(text) if text.contains("removed")));
}

#[test]
fn several_services_have_their_names_before_their_lines() {
    let frame = Frame { overall: "overall progress: 0 out of 1 tasks".into(), ..Frame::default() };
    assert_eq!(Plain::default().lines(&frame, "web: "), "web: overall progress: 0 out of 1 tasks\n");
}

#[test]
fn a_screen_is_drawn_over_itself() {
    let frame = Frame {
        overall: "overall progress: 0 out of 1 tasks".into(),
        bars: vec![Bar { name: "1/1".into(), state: "ready".into(), step: 6, error: "why".into() }],
        verify: None,
    };
    let mut screen = Screen::default();
    let first = screen.draw(&[(String::new(), frame.clone())], 100, false);
    let arrow = format!("[{}>{}]", "=".repeat(33), " ".repeat(16));
    assert_eq!(first, format!("\x1b[Joverall progress: 0 out of 1 tasks\n1/1: ready     {arrow}\n     why\n"));
    assert!(screen.draw(&[(String::new(), frame)], 100, false).starts_with("\x1b[3A\x1b[J"));
}
