//! Newest status per task until a manager has it in the replicated state.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rswarm_types::TaskId;
use rswarm_types::task::TaskStatus;
use tokio::sync::Notify;

/// Statuses in one message: as many as fit a batch of the log well.
const BATCH_STATUSES: usize = 500;

/// Statuses to be told. One batch is under way at a time, so that what comes meanwhile travels together.
#[derive(Debug, Default)]
pub struct Reports {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Of the last batch.
    number: u64,
    is_under_way: bool,
    /// With the number of the batch that carries it; 0 = none does.
    pending: BTreeMap<TaskId, (TaskStatus, u64)>,
}

impl Reports {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is to be said of a task.
    pub fn put(&self, task: TaskId, status: TaskStatus) {
        self.lock().pending.insert(task, (status, 0));
        self.changed.notify_one();
    }

    /// Nothing more is to be said of a task.
    pub fn forget(&self, task: TaskId) {
        self.lock().pending.remove(&task);
    }

    /// The next batch with its number; none while one is under way.
    pub fn batch(&self) -> Option<(u64, Vec<(TaskId, TaskStatus)>)> {
        let mut inner = self.lock();
        if inner.is_under_way || inner.pending.is_empty() {
            return None;
        }
        inner.number += 1;
        inner.is_under_way = true;
        let number = inner.number;
        let carried = inner.pending.iter_mut().take(BATCH_STATUSES).map(|(task, (status, batch))| {
            *batch = number;
            (*task, status.clone())
        });
        Some((number, carried.collect()))
    }

    /// A batch is in the replicated state.
    pub fn acknowledge(&self, number: u64) {
        let mut inner = self.lock();
        inner.pending.retain(|_, (_, batch)| *batch != number);
        if inner.number == number {
            inner.is_under_way = false;
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Whatever is under way may be lost: it is sent again.
    pub fn resend(&self) {
        let mut inner = self.lock();
        inner.is_under_way = false;
        inner.pending.values_mut().for_each(|(_, batch)| *batch = 0);
        drop(inner);
        self.changed.notify_one();
    }

    pub fn is_under_way(&self) -> bool {
        self.lock().is_under_way
    }

    /// Waits until [`Reports::batch`] may have something.
    ///
    /// # Cancel safety
    /// No notice is lost.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rswarm_types::task_state::TaskState;

    fn status(state: TaskState) -> TaskStatus {
        TaskStatus { state, ..Default::default() }
    }

    #[test]
    fn a_status_stays_until_the_batch_that_carried_it_is_acknowledged() {
        let reports = Reports::default();
        assert_eq!(reports.batch(), None);
        reports.put(TaskId(1), status(TaskState::Preparing));
        let (first, carried) = reports.batch().unwrap();
        assert_eq!(carried, [(TaskId(1), status(TaskState::Preparing))]);
        // A newer one waits for its own batch.
        reports.put(TaskId(1), status(TaskState::Running));
        assert_eq!(reports.batch(), None);
        reports.acknowledge(first);
        let (second, carried) = reports.batch().unwrap();
        assert_eq!(carried, [(TaskId(1), status(TaskState::Running))]);
        reports.resend();
        let (third, again) = reports.batch().unwrap();
        assert_eq!(again, carried);
        // A late word about the lost batch does not end the newer one.
        reports.acknowledge(second);
        assert!(reports.is_under_way());
        reports.acknowledge(third);
        assert_eq!(reports.batch(), None);
    }
}
