//! Random histories: whatever happened, the cluster ends as it was asked to be.

use std::time::Duration;

use proptest::prelude::*;
use rswarm_types::spec::{Availability, ServiceMode, UpdateConfig, UpdateOrder};
use rswarm_types::task_state::TaskState;
use rswarm_types::{NodeId, ServiceId};

use super::harness::{Fate, Lab, global, replicated};

const NODES: u128 = 4;
const WEB: ServiceId = ServiceId(50);
const AGENT: ServiceId = ServiceId(51);

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass,
    Agents,
    Wait(u64),
    Scale(u64),
    Update(bool),
    Rollback,
    Lose(u128),
    Connect(u128),
    Avail(u128, Availability),
    Label(u128, bool),
    Constrain(bool),
    Crash(u8),
    NewLeader,
    Batch(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 2..2 + NODES;
    let availability = prop_oneof![Just(Availability::Active), Just(Availability::Pause), Just(Availability::Drain)];
    prop_oneof![
        8 => Just(Step::Pass),
        12 => Just(Step::Agents),
        4 => (1u64..8_000).prop_map(Step::Wait),
        1 => (0u64..7).prop_map(Step::Scale),
        1 => any::<bool>().prop_map(Step::Update),
        1 => Just(Step::Rollback),
        2 => node().prop_map(Step::Lose),
        2 => node().prop_map(Step::Connect),
        1 => (node(), availability).prop_map(|(node, availability)| Step::Avail(node, availability)),
        1 => (node(), any::<bool>()).prop_map(|(node, is_in)| Step::Label(node, is_in)),
        1 => any::<bool>().prop_map(Step::Constrain),
        2 => (0u8..5).prop_map(Step::Crash),
        1 => Just(Step::NewLeader),
        1 => prop_oneof![Just(1usize), Just(2), Just(3), Just(200)].prop_map(Step::Batch),
    ]
}

fn take(lab: &mut Lab, step: Step) {
    match step {
        Step::Pass => drop(lab.pass()),
        Step::Agents => drop(lab.agents()),
        Step::Wait(by) => lab.now += by,
        Step::Scale(replicas) => lab.scale(WEB, replicas),
        Step::Update(is_start_first) => {
            let order = if is_start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
            lab.update(WEB, |spec| {
                spec.task.force_update += 1;
                // Once a service may start first, the invariant allows two for good.
                let was = spec.update.map_or(UpdateOrder::StopFirst, |update| update.order);
                spec.update = Some(UpdateConfig { order: order.max(was), ..UpdateConfig::default() });
            });
            lab.update(AGENT, |spec| spec.task.force_update += 1);
        }
        Step::Rollback => {
            // Two start-first tasks may still be there when the spec goes back to stop-first.
            let is_start_first =
                |lab: &Lab| lab.service(WEB).spec.update.is_some_and(|u| u.order == UpdateOrder::StartFirst);
            if lab.service(WEB).previous.is_some() && !is_start_first(lab) {
                lab.rollback(WEB);
            }
        }
        Step::Lose(node) => lab.lose(NodeId(node)),
        Step::Connect(node) => lab.connect(NodeId(node)),
        Step::Avail(node, availability) => lab.avail(NodeId(node), availability),
        Step::Label(node, is_in) => lab.update_node(NodeId(node), |spec| {
            spec.labels.insert("in".into(), if is_in { "yes" } else { "no" }.into());
        }),
        Step::Constrain(is_on) => lab.update(WEB, |spec| {
            let constraint = is_on.then(|| "node.labels.in != no".to_owned());
            spec.task.placement.constraints = constraint.into_iter().collect();
        }),
        Step::Crash(kind) => {
            lab.fate = Box::new(move |task| match kind {
                0 | 1 => Fate::Runs,
                2 if task.id.0 % 3 == 0 => Fate::FailsAtOnce,
                3 if task.id.0 % 3 == 0 => Fate::Ends(2_000, TaskState::Failed),
                4 if task.id.0 % 3 == 0 => Fate::Ends(9_000, TaskState::Complete),
                _ => Fate::Runs,
            });
        }
        Step::NewLeader => lab.new_leader(),
        Step::Batch(size) => lab.batch = size,
    }
}

/// Everything is well again; then all that was asked for is there, and nothing else.
fn heal_and_check(lab: &mut Lab) {
    lab.fate = Box::new(|_| Fate::Runs);
    for node in 2..2 + NODES {
        lab.connect(NodeId(node));
        lab.avail(NodeId(node), Availability::Active);
        lab.update_node(NodeId(node), |spec| spec.labels.clear());
    }
    lab.run_for(Duration::from_secs(120));
    // A paused update waits for somebody: say it again.
    lab.update(WEB, |_| {});
    lab.update(AGENT, |_| {});
    lab.run_for(Duration::from_secs(120));
    let ServiceMode::Replicated { replicas } = lab.service(WEB).spec.mode else { panic!("it is replicated") };
    assert_eq!(lab.running(WEB).len() as u64, replicas);
    assert_eq!(lab.running_nodes(AGENT), (2..2 + NODES).collect::<Vec<_>>());
    for id in [WEB, AGENT] {
        let version = lab.service(id).spec_version;
        assert!(lab.running(id).iter().all(|task| task.spec_version == version), "no task is outdated");
        let live = lab.tasks(id).iter().filter(|task| !task.status.state.is_terminal()).count();
        assert_eq!(live, lab.running(id).len(), "nothing else runs");
    }
    lab.is_converged();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_converged(steps in proptest::collection::vec(step(), 1..120)) {
        let mut lab = Lab::new(NODES);
        lab.create(WEB.0, replicated("web", 3));
        lab.create(AGENT.0, global("agent"));
        for step in steps {
            take(&mut lab, step);
        }
        heal_and_check(&mut lab);
    }
}
