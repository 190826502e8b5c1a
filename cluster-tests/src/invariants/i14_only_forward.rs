//! I14: a task only moves forward, what is final is final, and no container is started again after it ended.

use std::collections::{BTreeMap, BTreeSet};

use rswarm_store::State;
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{NodeId, TaskId};

use super::Violation;

const NAME: &str = "I14";

#[derive(Clone, Copy, Debug)]
struct Seen {
    state: TaskState,
    desired: DesiredState,
    node: Option<NodeId>,
    sandbox_gone: bool,
}

/// The life of every task, as states and hosts show it.
#[derive(Clone, Debug, Default)]
pub struct Lives {
    tasks: BTreeMap<TaskId, Seen>,
    /// Tasks whose record went: they must not come back.
    removed: BTreeSet<TaskId>,
    /// Containers that ended.
    ended: BTreeSet<TaskId>,
}

impl Lives {
    /// Compares a state with the one before it.
    pub fn observe(&mut self, state: &State) -> Vec<Violation> {
        let mut violations = Vec::new();
        let mut now = BTreeMap::new();
        for task in state.tasks() {
            let seen = Seen {
                state: task.status.state,
                desired: task.desired,
                node: task.node,
                sandbox_gone: task.status.sandbox_gone,
            };
            let fault = match self.tasks.get(&task.id) {
                _ if self.removed.contains(&task.id) => Some("came back after its record was removed".to_owned()),
                Some(before) => backward(before, &seen),
                None => None,
            };
            if let Some(fault) = fault {
                let text = format!("after entry {} task {} {fault}", state.index(), task.name());
                violations.push(Violation::new(NAME, text));
            }
            now.insert(task.id, seen);
        }
        self.removed.extend(self.tasks.keys().filter(|id| !now.contains_key(id)));
        self.tasks = now;
        violations
    }

    /// A host starts the container of a task.
    pub fn started(&mut self, task: TaskId) -> Option<Violation> {
        let again = self.ended.contains(&task);
        again.then(|| Violation::new(NAME, format!("the container of task {task} is started again after it ended")))
    }

    /// The container of a task ended.
    pub fn ended(&mut self, task: TaskId) {
        self.ended.insert(task);
    }
}

fn backward(before: &Seen, now: &Seen) -> Option<String> {
    if before.state != now.state && (before.state.is_terminal() || now.state < before.state) {
        return Some(format!("went from {} to {}", before.state, now.state));
    }
    if now.desired < before.desired {
        return Some(format!("was wanted {} and is now wanted {}", before.desired, now.desired));
    }
    if before.state >= TaskState::Assigned && before.node != now.node {
        return Some("moved to another node".to_owned());
    }
    (before.sandbox_gone && !now.sandbox_gone).then(|| "has a sandbox again after it was gone".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::fixture::{Cluster, spec};

    /// What the checker says when a task goes from one state to the other.
    fn step(from: (TaskState, DesiredState), to: (TaskState, DesiredState)) -> usize {
        let mut lives = Lives::default();
        let mut said = 0;
        for (state, desired) in [from, to] {
            let mut cluster = Cluster::new();
            cluster.service(10, spec("s"));
            cluster.task_as(TaskId(500), 10, 1, |task| {
                task.status.state = state;
                task.desired = desired;
            });
            said = lives.observe(&cluster.state).len();
        }
        said
    }

    #[test]
    fn every_step_back_is_caught_and_no_step_forward() {
        use DesiredState as D;
        use TaskState as S;
        for (from, to, expected) in [
            ((S::New, D::Ready), (S::Running, D::Running), 0),
            ((S::Running, D::Running), (S::Failed, D::Shutdown), 0),
            ((S::Running, D::Running), (S::Orphaned, D::Shutdown), 0),
            ((S::Running, D::Running), (S::Starting, D::Running), 1),
            ((S::Complete, D::Running), (S::Failed, D::Running), 1),
            ((S::Failed, D::Shutdown), (S::Orphaned, D::Shutdown), 1),
            ((S::Running, D::Shutdown), (S::Running, D::Running), 1),
            ((S::Shutdown, D::Shutdown), (S::Running, D::Shutdown), 1),
        ] {
            assert_eq!(step(from, to), expected, "{from:?} {to:?}");
        }
    }

    #[test]
    fn a_record_that_comes_back_is_caught() {
        let mut lives = Lives::default();
        let mut cluster = Cluster::new();
        cluster.service(10, spec("s"));
        let without = cluster.state.clone();
        cluster.task_as(TaskId(500), 10, 1, |_| {});
        assert_eq!(lives.observe(&cluster.state).len(), 0);
        assert_eq!(lives.observe(&without).len(), 0);
        assert_eq!(lives.observe(&cluster.state).len(), 1);
    }

    #[test]
    fn a_container_that_is_started_after_it_ended_is_caught() {
        let mut lives = Lives::default();
        assert_eq!(lives.started(TaskId(1)), None);
        assert_eq!(lives.started(TaskId(1)), None, "a start may be repeated");
        lives.ended(TaskId(1));
        assert!(lives.started(TaskId(1)).is_some());
    }
}
