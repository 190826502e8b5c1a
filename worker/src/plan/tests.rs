use std::net::Ipv4Addr;
use std::sync::Arc;

use rswarm_types::spec::{NetworkAttachment, PublishMode, ServiceSpec};

use rswarm_types::NetworkId;
use rswarm_types::network::Addresses;
use rswarm_types::task::Attachment;

use super::*;

const TASK: TaskId = TaskId(1);
const NOW: u64 = 100_000;

fn task(desired: DesiredState) -> AssignedTask {
    AssignedTask { id: TASK, desired, ..Default::default() }
}

fn local(state: TaskState) -> Local {
    Local { status: TaskStatus { state, message: "as it was".into(), ..Default::default() }, ..Local::default() }
}

fn up(state: TaskState) -> Local {
    let container = Some(Container::Running { pid: 9, started_at_ms: 1 });
    let mut local = Local { container, sandbox: SandboxState::Present, wellness: Wellness::Unchecked, ..local(state) };
    if state == TaskState::Running {
        local.status.pid = 9;
    }
    local
}

fn exited(code: i32) -> Local {
    Local { container: Some(Container::Exited { code, oom: false, at_ms: 5 }), ..up(TaskState::Running) }
}

fn decide(task: Option<AssignedTask>, local: Local, orders: Orders, settled: u64) -> Plan {
    let assignments = Assignments { tasks: task.into_iter().collect(), ..Default::default() };
    let settled = Settled { everywhere: settled, networks: vec![(NetworkId(1), 5), (NetworkId(2), 9)] };
    let moment = Moment { orders, now_ms: NOW, settled: &settled };
    plan(&assignments, &BTreeMap::from([(TASK, local)]), moment)
}

/// Steps in short: what is done, or the state, the error and the exit code that are said.
fn words(plan: &Plan) -> String {
    let steps = plan.steps.iter().map(|step| match step {
        Step::Report(_, status) => {
            let code = status.exit_code.map(|c| format!(" code {c}")).unwrap_or_default();
            let error = if status.error.is_empty() { String::new() } else { format!(" ({})", status.error) };
            let gone = if status.sandbox_gone { " gone" } else { "" };
            format!("{}{code}{error}{gone}", status.state)
        }
        Step::Prepare(_) => "Prepare".into(),
        Step::Abort(_) => "Abort".into(),
        Step::Start(_) => "Start".into(),
        Step::Stop(_) => "Stop".into(),
        Step::Kill(_) => "Kill".into(),
        Step::Remove(_) => "Remove".into(),
    });
    steps.collect::<Vec<String>>().join(", ")
}

#[test]
fn a_task_goes_from_assigned_to_running_one_step_after_another() {
    use DesiredState::{Ready, Running};
    use TaskState as S;
    let prepared = |state| Local { prepared: true, ..local(state) };
    let boxed = |state| Local { sandbox: SandboxState::Present, ..prepared(state) };
    for (name, desired, local, expected) in [
        ("new", Ready, local(S::Assigned), "preparing, Prepare"),
        ("being prepared", Ready, Local { work: Some(Work::Prepare), ..local(S::Preparing) }, ""),
        ("prepared", Ready, prepared(S::Preparing), "ready"),
        ("ready, not yet wanted", Ready, prepared(S::Ready), ""),
        ("ready, an earlier daemon prepared it", Ready, local(S::Ready), "Prepare"),
        ("wanted, no sandbox yet", Running, prepared(S::Ready), ""),
        ("wanted, with sandbox", Running, boxed(S::Ready), "starting, Start"),
        ("start that a dead daemon announced", Running, boxed(S::Starting), "Start"),
        ("up", Running, up(S::Starting), "running"),
        ("up and said", Running, up(S::Running), ""),
        ("up, said nothing", Running, Local { wellness: Wellness::Unknown, ..up(S::Ready) }, "starting"),
        ("up, not known how it is", Running, Local { wellness: Wellness::Unknown, ..up(S::Starting) }, ""),
        ("up, not healthy yet", Running, Local { wellness: Wellness::Starting, ..up(S::Starting) }, ""),
        ("up and healthy", Running, Local { wellness: Wellness::Healthy, ..up(S::Starting) }, "running"),
    ] {
        assert_eq!(words(&decide(Some(task(desired)), local, Orders::Fresh, 0)), expected, "{name}");
    }
}

#[test]
fn a_container_that_ends_says_why() {
    use DesiredState::{Running, Shutdown};
    let oom = Local { container: Some(Container::Exited { code: 137, oom: true, at_ms: 5 }), ..exited(0) };
    let lost = Local { container: Some(Container::Lost("power cut".into())), ..exited(0) };
    let unhealthy = Local { wellness: Wellness::Unhealthy("no answer".into()), ..exited(143) };
    for (desired, local, expected) in [
        (Running, exited(0), "complete code 0"),
        (Running, exited(1), "failed code 1 (task: non-zero exit (1))"),
        (Running, oom, "failed code 137 (task: non-zero exit (137): container was killed: out of memory)"),
        (Running, lost.clone(), "failed (container lost: power cut)"),
        (Running, unhealthy, "failed code 143 (unhealthy container: no answer)"),
        (Shutdown, exited(143), "shutdown code 143"),
        (Shutdown, lost, "shutdown"),
        (Running, local(TaskState::Running), "failed (container lost: it is not on this node any more) gone"),
    ] {
        assert_eq!(words(&decide(Some(task(desired)), local, Orders::Fresh, 0)), expected);
    }
}

#[test]
fn a_stop_waits_for_load_balancers_then_for_the_container_then_no_longer() {
    let in_mesh = Addresses::from(Ipv4Addr::new(10, 0, 0, 9));
    let stopping = |stop_at| AssignedTask { stop_at, ingress: in_mesh, ..task(DesiredState::Shutdown) };
    let on = |networks: &[u128]| {
        let attachment = |id: &u128| {
            let addresses = Ipv4Addr::new(10, 0, 1, 2).into();
            Attachment { network: NetworkId(*id), addresses, aliases: Vec::new() }
        };
        AssignedTask {
            attachments: networks.iter().map(attachment).collect(),
            ingress: Addresses::default(),
            ..stopping(7)
        }
    };
    let heard = |at: u64| Local { stop_heard_ms: Some(at), ..up(TaskState::Running) };
    let sent = |at: u64| Local { stop_sent_ms: Some(at), ..heard(NOW - 90_000) };
    let killed = |at: u64| Local { killed_ms: Some(at), ..sent(NOW - 60_000) };
    for (name, task, local, settled, expected, wake) in [
        ("at once", stopping(0), heard(NOW), 0, "Stop", None),
        ("not settled", stopping(7), heard(NOW), 6, "", Some(NOW + DRAIN_WAIT_MS)),
        ("settled", stopping(7), heard(NOW), 7, "Stop", None),
        ("in no kernel", on(&[]), heard(NOW), 0, "Stop", None),
        ("settled on its network", on(&[2]), heard(NOW), 0, "Stop", None),
        ("not on another one", on(&[1, 2]), heard(NOW), 9, "", Some(NOW + DRAIN_WAIT_MS)),
        ("on one not told of", on(&[3]), heard(NOW), 6, "", Some(NOW + DRAIN_WAIT_MS)),
        ("but everywhere", on(&[3]), heard(NOW), 7, "Stop", None),
        ("waited enough", stopping(7), heard(NOW - DRAIN_WAIT_MS), 6, "Stop", None),
        ("in grace", stopping(7), sent(NOW - 1), 0, "", Some(NOW - 1 + STOP_GRACE_MS)),
        ("grace is over", stopping(7), sent(NOW - STOP_GRACE_MS), 0, "Kill", Some(NOW + KILL_AGAIN_MS)),
        ("killed a moment ago", stopping(7), killed(NOW - 1), 0, "", Some(NOW - 1 + KILL_AGAIN_MS)),
        ("killed and still there", stopping(7), killed(NOW - KILL_AGAIN_MS), 0, "Kill", Some(NOW + KILL_AGAIN_MS)),
        (
            "unhealthy",
            task(DesiredState::Running),
            Local { wellness: Wellness::Unhealthy(String::new()), ..up(TaskState::Running) },
            0,
            "Stop",
            None,
        ),
    ] {
        let plan = decide(Some(task), local, Orders::Fresh, settled);
        assert_eq!(words(&plan), expected, "{name}");
        assert_eq!(plan.wake_ms, wake, "{name}");
        assert!(plan.sandboxes.contains(&TASK), "{name}: a running container keeps its network");
    }
}

#[test]
fn a_stop_before_the_start_takes_nothing_to_stop() {
    for (local, expected) in [
        (local(TaskState::Assigned), "shutdown gone"),
        (Local { work: Some(Work::Prepare), ..local(TaskState::Preparing) }, "Abort"),
        (Local { sandbox: SandboxState::Present, prepared: true, ..local(TaskState::Ready) }, "shutdown"),
    ] {
        assert_eq!(words(&decide(Some(task(DesiredState::Shutdown)), local, Orders::Fresh, 0)), expected);
    }
}

#[test]
fn remembered_orders_start_nothing_stop_nothing_and_still_see_the_end() {
    use DesiredState::{Running, Shutdown};
    for (task, local, expected) in [
        (Some(task(Running)), local(TaskState::Assigned), ""),
        (Some(task(Shutdown)), local(TaskState::Assigned), ""),
        (Some(task(Shutdown)), up(TaskState::Running), ""),
        (Some(task(Running)), up(TaskState::Running), ""),
        (Some(task(Running)), exited(3), "failed code 3 (task: non-zero exit (3))"),
        (None, up(TaskState::Running), ""),
        (None, exited(0), ""),
    ] {
        let is_running = local.is_running();
        let plan = decide(task, local, Orders::Remembered, 0);
        assert_eq!(words(&plan), expected);
        assert_eq!(plan.sandboxes.contains(&TASK), is_running);
    }
}

#[test]
fn what_nobody_asked_for_is_stopped_and_removed() {
    let sent = Local { stop_sent_ms: Some(NOW - STOP_GRACE_MS), ..up(TaskState::New) };
    let failed = |at| Local { remove_failed_ms: Some(at), ..exited(0) };
    for (local, expected) in [
        (up(TaskState::New), "Stop"),
        (sent, "Kill"),
        (exited(0), "Remove"),
        (Local::default(), "Remove"),
        (Local { work: Some(Work::Other), ..exited(0) }, ""),
        (Local { work: Some(Work::Prepare), ..Local::default() }, "Abort"),
        (failed(NOW), ""),
        (failed(NOW - REMOVE_AGAIN_MS), "Remove"),
    ] {
        assert_eq!(words(&decide(None, local, Orders::Fresh, 0)), expected);
    }
}

#[test]
fn a_finished_task_loses_its_sandbox_and_keeps_its_container_s_files() {
    let finished = |sandbox, sandbox_gone| {
        let mut local = Local { sandbox, ..exited(0) };
        local.status = TaskStatus { state: TaskState::Complete, sandbox_gone, ..Default::default() };
        local
    };
    for (local, expected) in [
        (finished(SandboxState::Present, false), ""),
        (finished(SandboxState::Unsettled, false), ""),
        (finished(SandboxState::Absent, false), "complete gone"),
        (finished(SandboxState::Absent, true), ""),
    ] {
        let plan = decide(Some(task(DesiredState::Running)), local, Orders::Fresh, 0);
        assert_eq!(words(&plan), expected);
        assert!(plan.sandboxes.is_empty());
    }
    // Managers say that it is over, and it is not.
    let wrong = Local { container: Some(Container::Running { pid: 1, started_at_ms: 0 }), ..local(TaskState::Failed) };
    assert_eq!(words(&decide(Some(task(DesiredState::Running)), wrong, Orders::Fresh, 0)), "Kill");
}

#[test]
fn a_network_that_cannot_be_made_fails_the_task_after_a_while_or_at_once() {
    let waiting = |since_ms, is_final| {
        let problem = Some(SandboxProblem { text: "no such device".into(), is_final, since_ms });
        Local { prepared: true, problem, sandbox: SandboxState::Present, ..local(TaskState::Ready) }
    };
    for (local, expected, wake) in [
        (waiting(NOW, false), "", Some(NOW + NETWORK_PATIENCE_MS)),
        (waiting(NOW - NETWORK_PATIENCE_MS, false), "failed (no such device)", None),
        (waiting(NOW, true), "failed (no such device)", None),
    ] {
        let plan = decide(Some(task(DesiredState::Running)), local, Orders::Fresh, 0);
        assert_eq!((words(&plan).as_str(), plan.wake_ms), (expected, wake));
    }
}

#[test]
fn a_task_on_the_host_s_network_needs_no_sandbox() {
    let mut on_host = task(DesiredState::Running);
    let mut spec = ServiceSpec::default();
    spec.task.networks = vec![NetworkAttachment { target: "host".into(), ..Default::default() }];
    on_host.spec = Arc::new(spec);
    let ready = Local { prepared: true, ..local(TaskState::Ready) };
    let plan = decide(Some(on_host), ready, Orders::Fresh, 0);
    assert_eq!(words(&plan), "starting, Start");
    assert!(plan.sandboxes.is_empty());
}

#[test]
fn chosen_host_ports_are_said_when_they_are_known() {
    let port = PortConfig { target: 80, published: 30_001, mode: PublishMode::Host, ..Default::default() };
    let with_port = Local { host_ports: vec![port], ..up(TaskState::Running) };
    let plan = decide(Some(task(DesiredState::Running)), with_port, Orders::Fresh, 0);
    let [Step::Report(_, status)] = &plan.steps[..] else { panic!("{plan:?}") };
    assert_eq!((status.state, &status.host_ports[..]), (TaskState::Running, &[port][..]));
}

#[test]
fn states_only_go_forward() {
    for state in TaskState::ALL {
        for desired in [DesiredState::Ready, DesiredState::Running, DesiredState::Shutdown, DesiredState::Remove] {
            for container in [None, up(state).container, exited(0).container, Some(Container::Lost(String::new()))] {
                for prepared in [false, true] {
                    let local = Local { container: container.clone(), prepared, ..up(state) };
                    for step in decide(Some(task(desired)), local, Orders::Fresh, 0).steps {
                        if let Step::Report(_, status) = step {
                            let is_same = status.state == state;
                            assert!(is_same || state < status.state && !state.is_terminal(), "{state} {status:?}");
                        }
                    }
                }
            }
        }
    }
}
