//! Services become tasks, tasks are replaced, records are reaped.

use std::time::Duration;

use rswarm_store::Changed;
use rswarm_types::command::Body;
use rswarm_types::limits::{OLD_TASK_WAIT_MS, ORPHAN_AFTER_MS};
use rswarm_types::node::NodeState;
use rswarm_types::spec::{
    Availability, NetworkSpec, PortConfig, PublishMode, RestartCondition, ServiceMode, SubnetSpec,
};
use rswarm_types::task::Slot;
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{NanoCpus, NetworkId, NodeId, ServiceId, TimestampMs};

use super::harness::{Fate, Lab, global, join_network, replicated};
use crate::feed::everything;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn lab(workers: u128, spec: rswarm_types::spec::ServiceSpec) -> (Lab, ServiceId) {
    let mut lab = Lab::new(workers);
    let service = lab.create(50, spec);
    lab.settle();
    (lab, service)
}

#[test]
fn a_new_service_runs_in_slots_from_one_spread_over_the_nodes() {
    let (mut lab, web) = lab(3, replicated("web", 6));
    assert_eq!(lab.running_slots(web), [1, 2, 3, 4, 5, 6]);
    assert_eq!(lab.running_nodes(web), [2, 2, 3, 3, 4, 4]);
    lab.is_converged();
}

#[test]
fn one_pass_makes_allocates_and_places() {
    let mut lab = Lab::new(2);
    let web = lab.create(50, replicated("web", 2));
    assert!(lab.pass());
    assert!(lab.tasks(web).iter().all(|task| task.status.state == TaskState::Assigned));
    assert!(!lab.pass(), "nothing is left to decide");
}

#[test]
fn batches_of_any_size_lead_to_the_same_end() {
    for batch in [1, 2, 3, 5, 7, 200] {
        let mut lab = Lab::new(3);
        lab.batch = batch;
        let web = lab.create(50, replicated("web", 7));
        lab.settle();
        assert_eq!(lab.running_slots(web), [1, 2, 3, 4, 5, 6, 7], "batches of {batch}");
        lab.update(web, |spec| spec.task.force_update = 1);
        lab.run_for(MINUTE);
        assert_eq!(lab.status(web).message, "update completed", "batches of {batch}");
        lab.is_converged();
    }
}

#[test]
fn scaling_down_takes_crowded_nodes_and_what_does_not_run_first() {
    let (mut lab, web) = lab(2, replicated("web", 4));
    lab.scale(web, 2);
    lab.settle();
    assert_eq!(lab.running_nodes(web), [2, 3], "one is left on each node");
    assert_eq!(lab.tasks(web).len(), 2, "what was scaled away leaves no record");
    lab.is_converged();

    lab.scale(web, 3);
    lab.settle();
    lab.fate =
        Box::new(|task| if task.slot == Slot::Number(1) { Fate::Ends(0, TaskState::Failed) } else { Fate::Runs });
    lab.settle();
    assert_eq!(lab.running_slots(web), [2, 3]);
    lab.scale(web, 2);
    lab.settle();
    assert_eq!(lab.running_slots(web), [2, 3], "the slots that run stay");
    assert_eq!(lab.tasks(web).len(), 2);
    lab.is_converged();
}

#[test]
fn scaling_up_reuses_the_lowest_free_slots() {
    let (mut lab, web) = lab(3, replicated("web", 5));
    lab.scale(web, 2);
    lab.settle();
    lab.scale(web, 4);
    lab.settle();
    assert_eq!(lab.running_slots(web), [1, 2, 3, 4]);
    lab.scale(web, 0);
    lab.settle();
    assert!(lab.tasks(web).is_empty());
    lab.is_converged();
}

#[test]
fn a_slot_that_is_reopened_waits_for_its_old_task_to_stop() {
    let (mut lab, web) = lab(1, replicated("web", 2));
    lab.stubborn.insert(NodeId(2));
    lab.scale(web, 1);
    lab.settle();
    lab.scale(web, 2);
    lab.settle();
    let new = lab.tasks(web).into_iter().find(|task| task.desired == DesiredState::Ready).expect("it is made ready");
    assert_eq!(new.status.state, TaskState::Ready);
    lab.stubborn.clear();
    lab.settle();
    assert_eq!(lab.running_slots(web), [1, 2]);
    lab.is_converged();
}

#[test]
fn a_failed_task_is_replaced_at_once_and_started_after_the_delay() {
    let (mut lab, web) = lab(2, replicated("web", 1));
    let first = lab.running(web)[0].id;
    lab.fate = Box::new(move |task| if task.id == first { Fate::Ends(0, TaskState::Failed) } else { Fate::Runs });
    lab.settle();
    let tasks = lab.tasks(web);
    let second = tasks.iter().find(|task| task.id != first).expect("a replacement is there");
    assert_eq!((second.desired, second.status.state), (DesiredState::Ready, TaskState::Ready));
    assert_eq!(second.replaces, Some(first));
    let old = tasks.iter().find(|task| task.id == first).expect("kept as history");
    assert_eq!(old.desired, DesiredState::Shutdown, "as Docker shows it");
    assert_eq!(lab.wake_at, Some(second.start_after));
    assert_eq!(second.start_after, old.status.applied.after(5 * SECOND));

    lab.now = second.start_after.0 - 2;
    lab.agents();
    assert!(lab.running(web).is_empty());
    lab.new_leader();
    lab.run_for(SECOND);
    assert_eq!(lab.running(web)[0].id, second.id, "the delay survives a leader change");
    lab.is_converged();
}

#[test]
fn a_timer_is_heard_though_nothing_was_touched() {
    let (mut lab, web) = lab(1, replicated("web", 1));
    let first = lab.running(web)[0].id;
    lab.fate = Box::new(move |task| if task.id == first { Fate::Ends(0, TaskState::Failed) } else { Fate::Runs });
    lab.settle();
    lab.now = lab.wake_at.expect("the delay runs").0;
    lab.dirty = Changed::default();
    assert!(lab.pass());
    lab.settle();
    assert_eq!(lab.running(web).len(), 1);
}

/// How often a slot's tasks were replaced within 5 minutes.
fn restarts(condition: RestartCondition, max_attempts: u64, window: Duration, fate: Fate) -> u64 {
    let mut spec = replicated("web", 1);
    spec.task.restart.condition = condition;
    spec.task.restart.max_attempts = max_attempts;
    spec.task.restart.window = window;
    let (mut lab, web) = lab(1, spec);
    let mut ids = std::collections::BTreeSet::new();
    lab.fate = Box::new(move |_| fate);
    for second in 0..300 {
        lab.run_for(SECOND);
        if second % 40 == 7 {
            lab.new_leader();
        }
        ids.extend(lab.tasks(web).iter().map(|task| task.id));
    }
    lab.fate = Box::new(|_| Fate::Runs);
    ids.len() as u64 - 1
}

#[test]
fn restart_policies_say_what_follows() {
    use RestartCondition::{Any, None, OnFailure};
    use TaskState::{Complete, Failed};
    let ever = Duration::ZERO;
    let short = Fate::Ends(1_000, Failed);
    assert_eq!(restarts(None, 0, ever, short), 0);
    assert_eq!(restarts(None, 0, ever, Fate::Ends(0, Complete)), 0);
    assert_eq!(restarts(OnFailure, 0, ever, Fate::Ends(0, Complete)), 0);
    assert_eq!(restarts(OnFailure, 3, ever, short), 3);
    assert_eq!(restarts(Any, 3, ever, Fate::Ends(1_000, Complete)), 3);
    assert_eq!(restarts(Any, 1, ever, Fate::FailsAtOnce), 0, "it ran before: the fate changes later");
    assert!((45..=50).contains(&restarts(Any, 0, ever, short)), "every 6 seconds");
    assert_eq!(restarts(Any, 3, MINUTE, short), 3, "the window is full at the fourth end");
    assert!(restarts(Any, 3, 10 * SECOND, short) > 30, "attempts leave a short window");
}

#[test]
fn a_lost_node_is_replaced_at_once_and_heals_without_a_second_task() {
    let (mut lab, web) = lab(3, replicated("web", 6));
    let lost = NodeId(2);
    lab.lose(lost);
    assert!(lab.pass());
    let replaced = lab.tasks(web).iter().filter(|t| t.node != Some(lost) && t.desired == DesiredState::Running).count();
    assert_eq!(replaced, 6, "one pass places every replacement");
    lab.settle();
    assert_eq!(lab.running_nodes(web), [3, 3, 3, 4, 4, 4]);
    let left: Vec<_> = lab.tasks(web).into_iter().filter(|task| task.node == Some(lost)).collect();
    assert!(left.iter().all(|t| t.status.state == TaskState::Running && t.desired == DesiredState::Shutdown));
    assert_eq!(left[0].desired_reason, "node n2 is down");
    assert_eq!(lab.state.restarts_of_service(web).count(), 0, "a loss is no restart");

    lab.connect(lost);
    lab.settle();
    let left: Vec<_> = lab.tasks(web).into_iter().filter(|task| task.node == Some(lost)).collect();
    assert!(left.iter().all(|task| task.status.state == TaskState::Shutdown));
    assert_eq!(lab.running_slots(web), [1, 2, 3, 4, 5, 6]);
    lab.is_converged();
}

#[test]
fn a_restarting_daemon_keeps_its_tasks() {
    let (mut lab, web) = lab(2, replicated("web", 4));
    let before: Vec<_> = lab.running(web).iter().map(|task| task.id).collect();
    lab.set_node_state(NodeId(2), NodeState::Unknown);
    lab.settle();
    lab.connect(NodeId(2));
    lab.settle();
    assert_eq!(lab.running(web).iter().map(|task| task.id).collect::<Vec<_>>(), before);
    lab.is_converged();
}

#[test]
fn tasks_of_a_lost_node_are_given_up_after_a_day() {
    let (mut lab, web) = lab(2, replicated("web", 2));
    lab.lose(NodeId(2));
    lab.run_for(Duration::from_millis(ORPHAN_AFTER_MS) - MINUTE);
    let on_lost = |lab: &Lab| lab.tasks(web).into_iter().find(|task| task.node == Some(NodeId(2)));
    assert_eq!(on_lost(&lab).expect("it is kept").status.state, TaskState::Running);
    lab.new_leader();
    lab.run_for(2 * MINUTE);
    let orphan = on_lost(&lab).expect("it is history");
    assert_eq!(orphan.status.state, TaskState::Orphaned);
    assert_eq!(orphan.status.error, "node n2 has been down for 24 hours");
    lab.connect(NodeId(2));
    lab.settle();
    assert_eq!(lab.running_slots(web), [1, 2]);
    lab.is_converged();
}

#[test]
fn a_drained_node_is_emptied_without_a_delay_and_gets_nothing() {
    let (mut lab, web) = lab(2, replicated("web", 4));
    let start = lab.now;
    lab.avail(NodeId(2), Availability::Drain);
    lab.settle();
    assert_eq!(lab.running_nodes(web), [3, 3, 3, 3]);
    assert!(lab.now - start < 1_000);
    let drained = lab.tasks(web).into_iter().find(|task| task.node == Some(NodeId(2))).expect("history");
    assert_eq!(drained.desired_reason, "node n2 is drained");
    lab.avail(NodeId(2), Availability::Active);
    lab.settle();
    assert_eq!(lab.running_nodes(web), [3, 3, 3, 3], "what runs is not moved");
    lab.is_converged();
}

#[test]
fn a_replacement_waits_for_the_old_task_but_not_for_ever() {
    let (mut lab, web) = lab(2, replicated("web", 2));
    lab.stubborn.insert(NodeId(2));
    lab.avail(NodeId(2), Availability::Drain);
    lab.run_for(MINUTE / 2);
    assert_eq!(lab.running(web).len(), 1);
    let new = lab.tasks(web).into_iter().find(|t| t.desired == DesiredState::Ready).expect("made ready elsewhere");
    assert_eq!(new.node, Some(NodeId(3)));
    lab.run_for(Duration::from_millis(OLD_TASK_WAIT_MS));
    assert_eq!(lab.running(web).len(), 2);
}

#[test]
fn who_asked_for_no_restart_gets_none_when_a_node_is_drained() {
    let mut spec = replicated("web", 2);
    spec.task.restart.condition = RestartCondition::None;
    let (mut lab, web) = lab(2, spec);
    lab.avail(NodeId(2), Availability::Drain);
    lab.run_for(MINUTE);
    assert_eq!(lab.running_nodes(web), [3]);
    lab.is_converged();
    lab.scale(web, 3);
    lab.settle();
    assert_eq!(lab.running_slots(web).len(), 2, "a new slot is filled, the ended one stays");
    lab.is_converged();
}

#[test]
fn what_cannot_be_made_ready_is_tried_again_once_per_restart_delay() {
    let (mut lab, web) = lab(2, replicated("web", 1));
    let first = lab.running(web)[0].id;
    lab.fate = Box::new(move |task| match task.id == first {
        true => Fate::Ends(0, TaskState::Failed),
        false => Fate::Rejected,
    });
    let mut rejected = std::collections::BTreeMap::new();
    for second in 0..120 {
        lab.run_for(SECOND);
        if second % 40 == 7 {
            lab.new_leader();
        }
        let tasks = lab.tasks(web);
        let found = tasks.iter().filter(|task| task.status.state == TaskState::Rejected);
        rejected.extend(found.map(|task| (task.id, task.status.applied)));
    }
    let mut times: Vec<TimestampMs> = rejected.into_values().collect();
    times.sort_unstable();
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    assert!(gaps.iter().all(|gap| *gap >= 5 * SECOND), "{gaps:?}");
    assert!(gaps.len() >= 20, "{gaps:?}");
    lab.fate = Box::new(|_| Fate::Runs);
    lab.run_for(6 * SECOND);
    assert_eq!(lab.running(web).len(), 1);
    lab.is_converged();
}

#[test]
fn a_spec_that_was_put_right_does_not_wait_for_the_delay_of_the_wrong_one() {
    let (mut lab, web) = lab(1, replicated("web", 1));
    lab.fate = Box::new(|_| Fate::Rejected);
    lab.update(web, |spec| spec.task.container.image = "typo".into());
    lab.run_for(20 * SECOND);
    assert_eq!(lab.running(web).len(), 0);
    lab.fate = Box::new(|_| Fate::Runs);
    lab.update(web, |spec| spec.task.container.image = "nginx:1.28".into());
    lab.run_for(6 * SECOND);
    assert_eq!(lab.running(web).len(), 1);
    lab.is_converged();
}

#[test]
fn a_restart_delay_goes_on_when_its_node_is_drained() {
    let (mut lab, web) = lab(2, replicated("web", 1));
    let first = lab.running(web)[0].clone();
    let id = first.id;
    lab.fate = Box::new(move |task| if task.id == id { Fate::Ends(0, TaskState::Failed) } else { Fate::Runs });
    lab.settle();
    let second = lab.tasks(web).into_iter().find(|task| task.id != id).expect("made ready");
    lab.avail(second.node.expect("it was placed"), Availability::Drain);
    lab.settle();
    let third = lab.tasks(web).into_iter().find(|task| task.is_live()).expect("made ready elsewhere");
    assert_ne!(third.id, second.id);
    assert_eq!((third.start_after, third.desired), (second.start_after, DesiredState::Ready));
    lab.run_for(6 * SECOND);
    assert_eq!(lab.running(web)[0].id, third.id);
    lab.is_converged();
}

#[test]
fn tasks_of_a_removed_node_are_replaced_at_once() {
    let (mut lab, web) = lab(3, replicated("web", 3));
    lab.cut.insert(NodeId(2));
    lab.run(Body::RemoveNode { node: NodeId(2), force: true }).expect("forced");
    lab.settle();
    assert_eq!(lab.running_slots(web), [1, 2, 3]);
    assert!(lab.running(web).iter().all(|task| task.node != Some(NodeId(2))));
    lab.is_converged();
}

#[test]
fn a_cluster_that_lost_every_node_waits_for_one() {
    let (mut lab, web) = lab(2, replicated("web", 2));
    lab.lose(NodeId(2));
    lab.lose(NodeId(3));
    lab.settle();
    lab.is_converged();
    let explained = lab.tasks(web).into_iter().filter(|task| task.status.error.starts_with("no suitable node"));
    assert_eq!(explained.count(), 2);
    lab.connect(NodeId(3));
    lab.settle();
    assert_eq!(lab.running_nodes(web), [3, 3]);
    lab.is_converged();
}

#[test]
fn a_global_service_is_not_started_on_a_node_not_seen_yet() {
    let (mut lab, agent) = lab(1, global("agent"));
    lab.set_node_state(NodeId(2), NodeState::Unknown);
    let late = lab.create(51, global("late"));
    lab.settle();
    assert_eq!((lab.running(agent).len(), lab.tasks(late).len()), (1, 0));
    lab.connect(NodeId(2));
    lab.settle();
    assert_eq!(lab.running_nodes(late), [2]);
    lab.is_converged();
}

#[test]
fn who_waited_longer_is_placed_first() {
    let mut lab = Lab::new(0);
    let mut spec = replicated("b", 1);
    spec.task.resources.reserve_cpu = NanoCpus(3_000_000_000);
    let first = lab.create(60, spec.clone());
    lab.settle();
    lab.now += 10;
    spec.name = "a".into();
    let second = lab.create(50, spec);
    lab.settle();
    lab.join(2);
    lab.settle();
    assert_eq!((lab.running(first).len(), lab.running(second).len()), (1, 0));
    lab.is_converged();
}

#[test]
fn a_paused_node_keeps_its_tasks_and_gets_no_more() {
    let (mut lab, web) = lab(2, replicated("web", 2));
    lab.avail(NodeId(2), Availability::Pause);
    lab.scale(web, 4);
    lab.settle();
    assert_eq!(lab.running_nodes(web), [2, 3, 3, 3]);
    lab.is_converged();
}

#[test]
fn global_services_follow_the_nodes() {
    let (mut lab, agent) = lab(2, global("agent"));
    assert_eq!(lab.running_nodes(agent), [2, 3]);
    lab.join(4);
    lab.settle();
    assert_eq!(lab.running_nodes(agent), [2, 3, 4], "a joining node gets its task");
    lab.avail(NodeId(3), Availability::Drain);
    lab.settle();
    assert_eq!(lab.running_nodes(agent), [2, 4]);
    lab.avail(NodeId(3), Availability::Active);
    lab.settle();
    assert_eq!(lab.running_nodes(agent), [2, 3, 4]);
    lab.lose(NodeId(4));
    lab.settle();
    assert_eq!(lab.running_nodes(agent), [2, 3]);
    lab.connect(NodeId(4));
    lab.settle();
    assert_eq!(lab.running_nodes(agent), [2, 3, 4]);
    lab.is_converged();
    lab.lose(NodeId(4));
    lab.settle();
    lab.run(Body::RemoveNode { node: NodeId(4), force: false }).expect("a node that is down may go");
    lab.settle();
    assert!(lab.tasks(agent).iter().all(|task| task.node != Some(NodeId(4))), "no record is left of it");
    lab.is_converged();
}

#[test]
fn a_global_task_that_fails_is_restarted_on_its_node() {
    let (mut lab, agent) = lab(2, global("agent"));
    let first = lab.running(agent)[0].clone();
    let id = first.id;
    lab.fate = Box::new(move |task| if task.id == id { Fate::Ends(0, TaskState::Failed) } else { Fate::Runs });
    lab.run_for(10 * SECOND);
    assert_eq!(lab.running_nodes(agent), [2, 3]);
    assert!(lab.running(agent).iter().all(|task| task.id != id));
    lab.is_converged();
}

#[test]
fn a_paused_node_gets_no_global_task_but_keeps_the_one_it_has() {
    let (mut lab, agent) = lab(1, global("agent"));
    let node = lab.join(3);
    lab.avail(node, Availability::Pause);
    lab.avail(NodeId(2), Availability::Pause);
    lab.settle();
    assert_eq!(lab.running_nodes(agent), [2]);
    lab.avail(node, Availability::Active);
    lab.settle();
    assert_eq!(lab.running_nodes(agent), [2, 3]);
    lab.is_converged();
}

#[test]
fn constraints_hold_when_labels_change() {
    let mut lab = Lab::new(2);
    for (node, zone) in [(NodeId(2), "a"), (NodeId(3), "b")] {
        lab.update_node(node, |spec| drop(spec.labels.insert("zone".into(), zone.into())));
    }
    let mut spec = replicated("web", 2);
    spec.task.placement.constraints = vec!["node.labels.zone == a".into()];
    let web = lab.create(50, spec.clone());
    let agent = lab.create(51, rswarm_types::spec::ServiceSpec { mode: ServiceMode::Global, name: "g".into(), ..spec });
    lab.settle();
    assert_eq!(lab.running_nodes(web), [2, 2]);
    assert_eq!(lab.running_nodes(agent), [2]);
    lab.update_node(NodeId(3), |spec| drop(spec.labels.insert("zone".into(), "a".into())));
    lab.update_node(NodeId(2), |spec| drop(spec.labels.insert("zone".into(), "c".into())));
    lab.settle();
    assert_eq!(lab.running_nodes(web), [3, 3]);
    assert_eq!(lab.running_nodes(agent), [3]);
    let stopped = lab.tasks(web).into_iter().find(|task| task.node == Some(NodeId(2))).expect("history");
    assert_eq!(stopped.desired_reason, "node n2 no longer satisfies constraint \"node.labels.zone == a\"");
    lab.is_converged();
}

#[test]
fn a_placement_change_moves_only_what_no_longer_fits() {
    let (mut lab, web) = lab(3, replicated("web", 3));
    let before = lab.running(web);
    lab.update(web, |spec| spec.task.placement.constraints = vec!["node.hostname != n4".into()]);
    lab.settle();
    let after = lab.running(web);
    assert_eq!(lab.running_nodes(web).iter().filter(|node| **node == 4).count(), 0);
    let kept = after.iter().filter(|task| before.iter().any(|old| old.id == task.id)).count();
    assert_eq!(kept, 2);
    lab.is_converged();
}

#[test]
fn a_task_that_fits_nowhere_says_why_and_is_placed_when_the_placement_changes() {
    let mut spec = replicated("web", 1);
    spec.task.placement.constraints = vec!["node.hostname == nowhere".into()];
    let (mut lab, web) = lab(2, spec);
    let task = lab.tasks(web)[0].clone();
    assert_eq!(task.status.state, TaskState::Pending);
    assert!(task.status.error.starts_with("no suitable node (scheduling constraints"), "{}", task.status.error);
    lab.is_converged();
    let proposed = lab.proposed;
    lab.join(4);
    lab.avail(NodeId(4), Availability::Pause);
    lab.settle();
    assert!(lab.proposed - proposed <= 2, "the text changed at most twice");
    lab.update(web, |spec| spec.task.placement.constraints.clear());
    lab.settle();
    assert_eq!(lab.running(web).len(), 1);
    lab.is_converged();
}

#[test]
fn a_task_that_waits_for_room_gets_it_when_another_goes() {
    let mut spec = replicated("big", 2);
    spec.task.resources.reserve_cpu = NanoCpus(3_000_000_000);
    let (mut lab, big) = lab(1, spec.clone());
    assert_eq!(lab.running(big).len(), 1);
    let waiting = lab.tasks(big).into_iter().find(|t| t.status.state == TaskState::Pending).expect("one waits");
    assert!(waiting.status.error.contains("insufficient CPU"), "{}", waiting.status.error);
    lab.join(3);
    lab.settle();
    assert_eq!(lab.running_nodes(big), [2, 3]);
    lab.is_converged();
}

#[test]
fn a_node_that_lost_resources_loses_its_youngest_tasks() {
    let mut spec = replicated("big", 2);
    spec.task.resources.reserve_cpu = NanoCpus(2_000_000_000);
    let (mut lab, big) = lab(1, spec);
    assert_eq!(lab.running(big).len(), 2);
    let mut description = lab.node(NodeId(2)).description.clone();
    description.cpus = NanoCpus(2_000_000_000);
    lab.run(Body::DescribeNode { node: NodeId(2), description: Box::new(description) }).expect("accepted");
    lab.settle();
    assert_eq!(lab.running(big).len(), 1);
    assert!(lab.tasks(big).iter().any(|task| task.desired_reason.contains("no longer has the resources")));
    lab.is_converged();
}

#[test]
fn history_is_kept_to_the_limit_of_each_slot() {
    let (mut lab, web) = lab(1, replicated("web", 2));
    lab.fate = Box::new(|_| Fate::Ends(1_000, TaskState::Failed));
    lab.run_for(2 * MINUTE);
    assert_eq!(lab.tasks(web).iter().filter(|task| task.status.state.is_terminal()).count(), 10);
    let mut spec = lab.state.cluster().expect("there is one").spec.clone();
    spec.task_history_limit = 0;
    let version = lab.state.cluster().expect("there is one").meta.version;
    lab.run(Body::UpdateCluster { version, spec }).expect("accepted");
    lab.settle();
    assert_eq!(lab.tasks(web).len(), 2, "one task per slot is left");
}

#[test]
fn a_task_that_holds_an_address_is_not_reaped() {
    let mut lab = Lab::new(2);
    lab.network(9, NetworkSpec { name: "net".into(), ..NetworkSpec::default() });
    let mut spec = replicated("web", 2);
    join_network(&mut spec, "net");
    let web = lab.create(50, spec);
    lab.settle();
    lab.lose(NodeId(2));
    lab.run(Body::RemoveService { id: web }).expect("it exists");
    lab.settle();
    let left = lab.tasks(web);
    assert_eq!(left.len(), 1, "the task on the lost node is kept");
    assert_eq!((left[0].node, left[0].desired), (Some(NodeId(2)), DesiredState::Remove));
    lab.is_converged();
    lab.connect(NodeId(2));
    lab.settle();
    assert!(lab.state.service(web).is_none(), "the service is forgotten with its last task");
    lab.is_converged();
}

#[test]
fn a_removed_service_is_forgotten_with_its_network() {
    let mut lab = Lab::new(2);
    let label = |labels: &mut std::collections::BTreeMap<String, String>| {
        labels.insert("com.docker.stack.namespace".into(), "shop".into());
    };
    let mut net = NetworkSpec { name: "shop_net".into(), ..NetworkSpec::default() };
    label(&mut net.labels);
    lab.network(9, net);
    let mut spec = replicated("shop_web", 3);
    label(&mut spec.labels);
    join_network(&mut spec, "shop_net");
    let web = lab.create(50, spec);
    lab.settle();
    assert_eq!(lab.running(web).len(), 3);
    lab.run(Body::RemoveStack { name: "shop".into() }).expect("it exists");
    lab.settle();
    assert!(lab.state.service(web).is_none());
    assert!(lab.state.network(NetworkId(9)).is_none());
    lab.is_converged();
}

#[test]
fn a_service_that_never_ran_is_removed_at_once() {
    let mut spec = replicated("web", 3);
    spec.task.placement.constraints = vec!["node.hostname == nowhere".into()];
    let (mut lab, web) = lab(1, spec);
    lab.run(Body::RemoveService { id: web }).expect("it exists");
    assert!(lab.pass());
    assert!(lab.state.service(web).is_none());
}

#[test]
fn tasks_wait_for_addresses_and_say_so() {
    let mut lab = Lab::new(1);
    let subnet = "10.9.0.0/29".parse().expect("a subnet");
    let subnet = SubnetSpec { subnet, gateway: None, range: None, aux_addresses: Default::default() };
    let mut net = NetworkSpec { name: "tiny".into(), ..NetworkSpec::default() };
    net.ipam.subnets = vec![subnet];
    lab.network(9, net);
    let mut spec = replicated("web", 6);
    join_network(&mut spec, "tiny");
    let web = lab.create(50, spec);
    lab.settle();
    let running = lab.running(web).len();
    assert!(running < 6);
    let waiting = lab.tasks(web).into_iter().find(|task| task.status.state == TaskState::New).expect("some wait");
    assert!(!waiting.status.error.is_empty());
    lab.is_converged();
    lab.scale(web, running as u64);
    lab.settle();
    assert_eq!(lab.running(web).len(), running);
    lab.is_converged();
}

#[test]
fn a_host_port_is_used_once_per_node() {
    let mut spec = replicated("web", 3);
    spec.endpoint.ports =
        vec![PortConfig { target: 80, published: 8080, mode: PublishMode::Host, ..PortConfig::default() }];
    let (mut lab, web) = lab(2, spec);
    assert_eq!(lab.running_nodes(web), [2, 3]);
    lab.is_converged();
    lab.join(4);
    lab.settle();
    assert_eq!(lab.running_nodes(web), [2, 3, 4]);
}

#[test]
fn a_leader_change_after_every_step_changes_nothing() {
    let run = |changes_leaders: bool| {
        let mut lab = Lab::new(3);
        let web = lab.create(50, replicated("web", 5));
        let mut trace = Vec::new();
        for step in 0..200 {
            match step {
                40 => lab.update(web, |spec| spec.task.force_update = 1),
                90 => lab.lose(NodeId(2)),
                120 => lab.connect(NodeId(2)),
                130 => lab.scale(web, 3),
                _ => {}
            }
            if changes_leaders {
                lab.new_leader();
            }
            lab.pass();
            lab.agents();
            lab.now += 50;
            trace.push(lab.state.digest());
        }
        trace
    };
    // Waking is all that a leader without a memory does earlier: it looks at everything.
    let (steady, changing) = (run(false), run(true));
    let first_difference = steady.iter().zip(&changing).position(|(a, b)| a != b);
    assert_eq!(first_difference, None);
}

#[test]
fn ten_thousand_tasks_are_looked_at_quickly() {
    let mut lab = Lab::new(50);
    let web = lab.create(50, replicated("web", 10_000));
    let started = std::time::Instant::now();
    lab.pass();
    let placed = started.elapsed();
    lab.settle();
    assert_eq!(lab.running(web).len(), 10_000);
    lab.dirty = everything(&lab.state);
    let started = std::time::Instant::now();
    assert!(!lab.pass());
    let looked = started.elapsed();
    println!("10,000 tasks: made and placed (with the state's own work) in {placed:?}, looked at in {looked:?}");
    assert!(looked < Duration::from_secs(5), "{looked:?}: far more than a debug build needs");
}
