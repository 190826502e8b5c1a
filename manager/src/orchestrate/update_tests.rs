//! Rolling updates, their failures, and rollbacks.

use std::collections::BTreeSet;
use std::time::Duration;

use rswarm_types::service::UpdateState;
use rswarm_types::spec::{RestartCondition, ServiceSpec, UpdateConfig, UpdateOrder};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{NodeId, ServiceId};

use super::harness::{Fate, Lab, global, replicated};

const SECOND: Duration = Duration::from_secs(1);

fn lab(spec: ServiceSpec) -> (Lab, ServiceId) {
    let mut lab = Lab::new(3);
    let service = lab.create(50, spec);
    lab.settle();
    (lab, service)
}

fn with_update(replicas: u64, update: UpdateConfig) -> ServiceSpec {
    ServiceSpec { update: Some(update), rollback: Some(update), ..replicated("web", replicas) }
}

fn bump(lab: &mut Lab, id: ServiceId) {
    lab.update(id, |spec| spec.task.force_update += 1);
}

/// The least and the most tasks of any version that ran at once, over an update.
fn extremes(lab: &mut Lab, id: ServiceId) -> (usize, usize) {
    let (mut least, mut most) = (usize::MAX, 0);
    for _ in 0..10_000 {
        lab.pass();
        lab.agents();
        let runs = |task: &&std::sync::Arc<rswarm_types::task::Task>| task.status.state == TaskState::Running;
        let running = lab.state.tasks_of_service(id).filter(runs).count();
        (least, most) = (least.min(running), most.max(running));
        lab.now += 20;
        if lab.status(id).state == UpdateState::Completed {
            return (least, most);
        }
    }
    panic!("the update never completes: {:?}", lab.status(id));
}

#[test]
fn parallelism_and_order_bound_what_is_missing_and_what_is_too_much() {
    let case = |parallelism, order| {
        let (mut lab, web) = lab(with_update(6, UpdateConfig { parallelism, order, ..UpdateConfig::default() }));
        bump(&mut lab, web);
        let out = extremes(&mut lab, web);
        assert_eq!(lab.running_slots(web), [1, 2, 3, 4, 5, 6]);
        assert!(lab.running(web).iter().all(|task| task.spec.task.force_update == 1));
        lab.is_converged();
        out
    };
    assert_eq!(case(1, UpdateOrder::StopFirst), (5, 6));
    assert_eq!(case(2, UpdateOrder::StopFirst), (4, 6));
    assert_eq!(case(0, UpdateOrder::StopFirst), (0, 6));
    assert_eq!(case(1, UpdateOrder::StartFirst), (6, 7));
    assert_eq!(case(3, UpdateOrder::StartFirst), (6, 9));
}

#[test]
fn the_delay_separates_slots_and_the_monitor_the_end() {
    let delay = 10 * SECOND;
    let (mut lab, web) = lab(with_update(3, UpdateConfig { delay, ..UpdateConfig::default() }));
    bump(&mut lab, web);
    let new = |lab: &Lab| lab.running(web).iter().filter(|task| task.spec.task.force_update == 1).count();
    lab.settle();
    assert_eq!(new(&lab), 1);
    lab.run_for(delay - SECOND);
    assert_eq!(new(&lab), 1);
    lab.new_leader();
    lab.run_for(2 * SECOND);
    assert_eq!(new(&lab), 2);
    lab.run_for(delay);
    assert_eq!(new(&lab), 3);
    assert_eq!(lab.status(web).state, UpdateState::Updating, "the last task is watched");
    lab.run_for(6 * SECOND);
    let status = lab.status(web);
    assert_eq!((status.state, &*status.message), (UpdateState::Completed, "update completed"));
    let wall = 1_700_000_000_000 + lab.now;
    assert!(status.completed_at.0 <= wall && wall - status.completed_at.0 < 7_000, "{status:?}");
    lab.is_converged();
}

#[test]
fn what_does_not_concern_tasks_replaces_none() {
    let (mut lab, web) = lab(replicated("web", 3));
    let before: Vec<_> = lab.running(web).iter().map(|task| task.id).collect();
    lab.update(web, |spec| {
        spec.labels.insert("a".into(), "b".into());
        spec.update = Some(UpdateConfig { parallelism: 2, ..UpdateConfig::default() });
    });
    lab.settle();
    assert_eq!(lab.running(web).iter().map(|task| task.id).collect::<Vec<_>>(), before);
    assert_eq!(lab.service(web).update, None);
}

#[test]
fn an_update_pauses_at_the_first_failure_and_says_which() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        for fate in [Fate::FailsAtOnce, Fate::Ends(3_000, TaskState::Failed), Fate::Ends(3_000, TaskState::Complete)] {
            let (mut lab, web) = lab(with_update(3, UpdateConfig { order, ..UpdateConfig::default() }));
            lab.fate = Box::new(move |task| if task.spec.task.force_update == 1 { fate } else { Fate::Runs });
            bump(&mut lab, web);
            let mut failed = None;
            for _ in 0..4_000 {
                lab.pass();
                lab.agents();
                lab.now += 10;
                let ended = |task: &&std::sync::Arc<rswarm_types::task::Task>| {
                    task.spec_version == lab.service(web).spec_version && task.status.state.is_terminal()
                };
                failed = failed.or_else(|| lab.state.tasks_of_service(web).find(ended).map(|task| task.id));
            }
            let status = lab.status(web);
            assert_eq!(status.state, UpdateState::Paused, "{order} {fate:?}");
            let id = failed.expect("one failed");
            assert_eq!(status.message, format!("update paused due to failure or early termination of task {id}"));
            let old = lab.running(web).iter().filter(|task| task.spec.task.force_update == 0).count();
            let untouched = if order == UpdateOrder::StartFirst { 3 } else { 2 };
            assert!(fate != Fate::FailsAtOnce || old == untouched, "{order}: {old} old tasks run");
        }
    }
}

#[test]
fn a_failure_after_the_monitor_does_not_pause() {
    let (mut lab, web) = lab(with_update(1, UpdateConfig::default()));
    lab.fate =
        Box::new(
            |task| {
                if task.spec.task.force_update == 1 { Fate::Ends(8_000, TaskState::Failed) } else { Fate::Runs }
            },
        );
    bump(&mut lab, web);
    lab.run_for(60 * SECOND);
    assert_eq!(lab.status(web).state, UpdateState::Completed);
}

#[test]
fn a_paused_update_goes_on_when_it_is_updated_again() {
    let (mut lab, web) = lab(with_update(3, UpdateConfig::default()));
    lab.fate = Box::new(|task| if task.spec.task.force_update == 1 { Fate::FailsAtOnce } else { Fate::Runs });
    bump(&mut lab, web);
    lab.run_for(2 * SECOND);
    assert_eq!(lab.status(web).state, UpdateState::Paused);
    lab.fate = Box::new(|_| Fate::Runs);
    lab.run_for(20 * SECOND);
    assert_eq!(lab.status(web).state, UpdateState::Paused, "it stays paused until somebody says otherwise");
    assert_eq!(lab.running(web).iter().filter(|task| task.spec.task.force_update == 0).count(), 2);
    lab.update(web, |_| {});
    lab.run_for(30 * SECOND);
    assert_eq!(lab.status(web).state, UpdateState::Completed, "old failures do not count again");
    assert!(lab.running(web).iter().all(|task| task.spec.task.force_update == 1));
    lab.is_converged();
}

#[test]
fn a_rollback_brings_the_former_tasks_back() {
    let (mut lab, web) = lab(with_update(3, UpdateConfig::default()));
    lab.fate = Box::new(|task| if task.spec.task.force_update == 1 { Fate::FailsAtOnce } else { Fate::Runs });
    bump(&mut lab, web);
    lab.run_for(5 * SECOND);
    lab.rollback(web);
    lab.run_for(60 * SECOND);
    let status = lab.status(web);
    assert_eq!((status.state, &*status.message), (UpdateState::RollbackCompleted, "rollback completed"));
    assert_eq!(lab.running_slots(web), [1, 2, 3]);
    assert!(lab.running(web).iter().all(|task| task.spec.task.force_update == 0));
    lab.is_converged();
}

#[test]
fn a_rollback_that_fails_is_paused_as_such() {
    let (mut lab, web) = lab(with_update(3, UpdateConfig::default()));
    bump(&mut lab, web);
    lab.run_for(30 * SECOND);
    lab.fate = Box::new(|task| if task.spec.task.force_update == 0 { Fate::FailsAtOnce } else { Fate::Runs });
    lab.rollback(web);
    lab.run_for(5 * SECOND);
    assert_eq!(lab.status(web).state, UpdateState::RollbackPaused);
    let message = &lab.status(web).message;
    assert!(message.starts_with("rollback paused due to failure or early termination of task "), "{message}");
    assert_eq!(lab.running(web).len(), 2);
}

#[test]
fn an_update_overtaken_by_another_ends_at_the_last() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let (mut lab, web) = lab(with_update(4, UpdateConfig { order, parallelism: 2, ..UpdateConfig::default() }));
        for step in 0..30 {
            if step % 3 == 0 {
                bump(&mut lab, web);
            }
            lab.pass();
            lab.agents();
        }
        lab.run_for(60 * SECOND);
        assert_eq!(lab.status(web).state, UpdateState::Completed);
        assert!(lab.running(web).iter().all(|task| task.spec.task.force_update == 10));
        assert_eq!(lab.running_slots(web), [1, 2, 3, 4]);
        lab.is_converged();
    }
}

#[test]
fn an_update_waits_for_a_task_that_finds_no_node() {
    let (mut lab, web) = lab(with_update(3, UpdateConfig::default()));
    lab.update(web, |spec| {
        spec.task.force_update = 1;
        spec.task.placement.constraints = vec!["node.hostname == nowhere".into()];
    });
    lab.run_for(60 * SECOND);
    assert_eq!(lab.status(web).state, UpdateState::Updating);
    lab.update(web, |spec| spec.task.placement.constraints.clear());
    lab.run_for(60 * SECOND);
    assert_eq!(lab.status(web).state, UpdateState::Completed);
    assert_eq!(lab.running_slots(web), [1, 2, 3]);
    lab.is_converged();
}

#[test]
fn a_node_lost_during_an_update_does_not_stop_it() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let (mut lab, web) = lab(with_update(6, UpdateConfig { order, ..UpdateConfig::default() }));
        bump(&mut lab, web);
        for _ in 0..6 {
            lab.pass();
            lab.agents();
        }
        lab.lose(NodeId(2));
        lab.run_for(60 * SECOND);
        assert_eq!(lab.status(web).state, UpdateState::Completed, "{order}");
        assert_eq!(lab.running_slots(web), [1, 2, 3, 4, 5, 6]);
        lab.connect(NodeId(2));
        lab.settle();
        lab.is_converged();
    }
}

#[test]
fn the_old_task_runs_until_the_new_one_does_when_that_starts_first() {
    let (mut lab, web) =
        lab(with_update(1, UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() }));
    let old = lab.running(web)[0].id;
    bump(&mut lab, web);
    loop {
        lab.pass();
        let [first, second] = &lab.tasks(web)[..] else { panic!("two tasks are there") };
        let (old, new) = if first.id == old { (first, second) } else { (second, first) };
        let is_wanted = old.desired == DesiredState::Running;
        assert_eq!(is_wanted, new.status.state < TaskState::Running);
        if !is_wanted {
            break;
        }
        lab.agents();
    }
}

#[test]
fn tasks_that_ended_for_good_are_made_anew_by_an_update() {
    let mut spec = replicated("job", 3);
    spec.task.restart.condition = RestartCondition::None;
    let (mut lab, job) = lab(spec);
    lab.fate =
        Box::new(|task| if task.spec.task.force_update == 0 { Fate::Ends(0, TaskState::Complete) } else { Fate::Runs });
    lab.run_for(SECOND);
    assert!(lab.running(job).is_empty());
    lab.is_converged();
    bump(&mut lab, job);
    lab.run_for(30 * SECOND);
    assert_eq!(lab.running_slots(job), [1, 2, 3]);
    lab.is_converged();
}

#[test]
fn a_global_service_is_updated_node_by_node_and_a_paused_node_is_left_alone() {
    let mut lab = Lab::new(4);
    let agent = lab.create(50, global("agent"));
    lab.settle();
    lab.avail(NodeId(3), rswarm_types::spec::Availability::Pause);
    bump(&mut lab, agent);
    let (least, most) = extremes(&mut lab, agent);
    assert_eq!((least, most), (3, 4));
    let old: BTreeSet<_> =
        lab.running(agent).iter().filter(|t| t.spec.task.force_update == 0).map(|t| t.node).collect();
    assert_eq!(old, [Some(NodeId(3))].into());
    lab.is_converged();
}

#[test]
fn scaling_during_an_update_keeps_to_both() {
    let (mut lab, web) = lab(with_update(6, UpdateConfig::default()));
    bump(&mut lab, web);
    for _ in 0..4 {
        lab.pass();
        lab.agents();
    }
    lab.scale(web, 3);
    lab.run_for(SECOND);
    lab.scale(web, 5);
    lab.run_for(60 * SECOND);
    assert_eq!(lab.running_slots(web), [1, 2, 3, 4, 5]);
    assert!(lab.running(web).iter().all(|task| task.spec.task.force_update == 1));
    assert_eq!(lab.status(web).state, UpdateState::Completed);
    lab.is_converged();
}

#[test]
fn what_fails_while_an_update_is_paused_does_not_count_when_it_is_resumed() {
    let (mut lab, web) = lab(with_update(2, UpdateConfig::default()));
    lab.fate = Box::new(|task| if task.spec.task.force_update == 1 { Fate::FailsAtOnce } else { Fate::Runs });
    bump(&mut lab, web);
    lab.run_for(30 * SECOND);
    let failed = lab.tasks(web).iter().filter(|task| task.status.state == TaskState::Failed).count();
    assert!(failed > 3, "the restart policy goes on meanwhile");
    let message = lab.status(web).message.clone();
    lab.run_for(30 * SECOND);
    assert_eq!(lab.status(web).message, message, "the first failure stays the one that is named");
    lab.fate = Box::new(|_| Fate::Runs);
    lab.run_for(SECOND / 2);
    lab.update(web, |_| {});
    lab.run_for(30 * SECOND);
    assert_eq!(lab.status(web).state, UpdateState::Completed);
    lab.is_converged();
}

#[test]
fn updated_tasks_stay_spread() {
    let (mut lab, web) = lab(with_update(6, UpdateConfig { parallelism: 2, ..UpdateConfig::default() }));
    for _ in 0..4 {
        bump(&mut lab, web);
        lab.run_for(30 * SECOND);
        assert_eq!(lab.running_nodes(web), [2, 2, 3, 3, 4, 4]);
    }
}
