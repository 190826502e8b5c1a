//! I10: in each slot at most one task is wanted running; two while a start-first update replaces one by the other.

use std::collections::BTreeMap;

use rswarm_store::State;
use rswarm_types::service::Service;
use rswarm_types::spec::{ServiceSpec, UpdateOrder};
use rswarm_types::task::{Slot, Task};
use rswarm_types::task_state::DesiredState;

use super::Violation;

const NAME: &str = "I10";

/// Looks at every slot of a state.
pub fn check(state: &State) -> Vec<Violation> {
    let mut violations = Vec::new();
    for service in state.services() {
        let mut slots: BTreeMap<Slot, Vec<&Task>> = BTreeMap::new();
        for task in state.tasks_of_service(service.id).filter(|t| is_wanted_running(t)) {
            slots.entry(task.slot).or_default().push(task);
        }
        for (slot, tasks) in slots {
            let allowed = if may_overlap(service, &tasks) { 2 } else { 1 };
            if tasks.len() > allowed {
                let tasks: Vec<String> = tasks
                    .iter()
                    .map(|t| format!("{} ({}, version {})", t.id.short(), t.status.state, t.spec_version))
                    .collect();
                let text = format!(
                    "after entry {} slot {slot} of service {} has {} tasks that should run, allowed: {allowed}: {}",
                    state.index(),
                    service.spec.name,
                    tasks.len(),
                    tasks.join(", "),
                );
                violations.push(Violation::new(NAME, text));
            }
        }
    }
    violations
}

fn is_wanted_running(task: &Task) -> bool {
    task.desired == DesiredState::Running && !task.status.state.is_terminal()
}

/// The order that counts may be that of an update or rollback begun before the newest spec.
fn may_overlap(service: &Service, tasks: &[&Task]) -> bool {
    let starts_first = |spec: &ServiceSpec| {
        [spec.update, spec.rollback].into_iter().flatten().any(|config| config.order == UpdateOrder::StartFirst)
    };
    starts_first(&service.spec)
        || service.previous.as_deref().is_some_and(starts_first)
        || tasks.iter().any(|task| starts_first(&task.spec))
}

#[cfg(test)]
mod tests {
    use rswarm_types::spec::UpdateConfig;
    use rswarm_types::task_state::TaskState;

    use super::*;
    use crate::invariants::fixture::{Cluster, spec};

    #[test]
    fn a_second_wanted_task_in_a_slot_is_caught() {
        let mut cluster = Cluster::new();
        cluster.service(10, spec("s"));
        cluster.task(10, 1, |_| {});
        cluster.task(10, 1, |task| task.desired = DesiredState::Shutdown);
        cluster.task(10, 1, |task| task.status.state = TaskState::Failed);
        cluster.task(10, 2, |_| {});
        assert_eq!(check(&cluster.state), []);
        cluster.task(10, 2, |_| {});
        assert_eq!(check(&cluster.state).len(), 1);
    }

    #[test]
    fn start_first_allows_two_and_not_three() {
        let mut cluster = Cluster::new();
        let update = UpdateConfig { order: UpdateOrder::StartFirst, ..UpdateConfig::default() };
        cluster.service(10, ServiceSpec { update: Some(update), ..spec("s") });
        cluster.task(10, 1, |_| {});
        cluster.task(10, 1, |_| {});
        assert_eq!(check(&cluster.state), []);
        cluster.task(10, 1, |_| {});
        assert_eq!(check(&cluster.state).len(), 1);
    }
}
