//! What agents report: only forward, only of their own tasks, only in their newest session.

use rswarm_types::limits::{FAULT_THRESHOLD, FAULT_WINDOW_MS};
use rswarm_types::task::{Task, TaskStatus};
use rswarm_types::task_state::TaskState;
use rswarm_types::{NodeId, TaskId};

use super::Draft;

/// Failures remembered per slot: more than the scheduler's rule needs of one slot.
const FAILURES_KEPT: usize = 2 * FAULT_THRESHOLD;

impl Draft {
    pub(super) fn report(&mut self, node: NodeId, epoch: u64, statuses: &[(TaskId, TaskStatus)]) {
        if !self.state.node(node).is_some_and(|record| record.session_epoch == epoch && epoch != 0) {
            return;
        }
        for (id, status) in statuses {
            if let Some(task) = self.task(*id).filter(|task| task.node == Some(node)) {
                self.take_status(node, task, status);
            }
        }
    }

    fn take_status(&mut self, node: NodeId, mut task: Task, reported: &TaskStatus) {
        let known = &task.status;
        if known.state.agent_may_report(reported.state) {
            let mut status = reported.clone();
            status.applied = self.at;
            status.sandbox_gone &= status.state.is_terminal();
            let becomes = status.state;
            task.status = status;
            if becomes == TaskState::Running {
                task.running_since = self.at;
            }
            if matches!(becomes, TaskState::Failed | TaskState::Rejected) {
                self.count_failure(node, &task);
            }
        } else if known.state.is_terminal() {
            // A final state is final: all that can still follow is that the sandbox goes.
            if known.sandbox_gone || !reported.sandbox_gone || !reported.state.is_terminal() {
                return;
            }
            task.status.sandbox_gone = true;
        } else if known.state == reported.state && known.state >= TaskState::Assigned {
            let mut status = reported.clone();
            status.applied = known.applied;
            status.sandbox_gone = false;
            let is_news = TaskStatus { at: known.at, ..status.clone() } != *known;
            if !is_news {
                return;
            }
            task.status = status;
        } else {
            return;
        }
        self.put_task(task);
    }

    fn count_failure(&mut self, node: NodeId, task: &Task) {
        let is_old = |version: u64| task.spec_version < version;
        if self.state.restarts(task.service, task.slot).is_some_and(|history| is_old(history.spec_version)) {
            return;
        }
        let mut history = self.history(task.service, task.slot, task.spec_version);
        let now = self.at;
        history.failures.retain(|(_, at)| now.0.saturating_sub(at.0) <= FAULT_WINDOW_MS);
        history.failures.push((node, now));
        let surplus = history.failures.len().saturating_sub(FAILURES_KEPT);
        history.failures.drain(..surplus);
        self.state.put_restarts(history);
    }
}
