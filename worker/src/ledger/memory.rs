//! The simulator's ledger: it outlives a daemon, and a power cut takes what was not flushed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use rswarm_types::TaskId;
use rswarm_types::assignment::Assignments;
use rswarm_types::task::TaskStatus;

use super::Remembered;

/// A ledger in memory, shared by its clones.
#[derive(Clone, Debug, Default)]
pub struct MemoryLedger {
    files: Arc<Mutex<Files>>,
    /// A daemon that was killed has an older one, and writes nothing any more.
    generation: u64,
}

#[derive(Debug, Default)]
struct Files {
    generation: u64,
    current: Content,
    durable: Content,
}

#[derive(Clone, Debug, Default)]
struct Content {
    orders: Option<Assignments>,
    statuses: BTreeMap<TaskId, TaskStatus>,
    gateway: Option<Ipv4Net>,
}

impl MemoryLedger {
    /// Kills the daemon that writes here; the ledger that comes back is for the next one.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut files = self.lock();
        files.generation += 1;
        Self { files: Arc::clone(&self.files), generation: files.generation }
    }

    /// As [`Self::kill`], and what was not flushed is lost.
    #[must_use]
    pub fn power_cut(&self) -> Self {
        let next = self.kill();
        let mut files = self.lock();
        files.current = files.durable.clone();
        drop(files);
        next
    }

    pub(super) fn read(&self) -> Remembered {
        let Content { orders, statuses, gateway } = self.lock().current.clone();
        Remembered { orders, statuses: statuses.into_iter().collect(), gateway }
    }

    pub(super) fn put_orders(&self, orders: Assignments) {
        self.write(|content| content.orders = Some(orders));
    }

    pub(super) fn put_status(&self, task: TaskId, status: TaskStatus) {
        self.write(|content| drop(content.statuses.insert(task, status)));
    }

    pub(super) fn forget(&self, task: TaskId) {
        self.write(|content| drop(content.statuses.remove(&task)));
    }

    pub(super) fn put_gateway(&self, gateway: Ipv4Net) {
        self.write(|content| content.gateway = Some(gateway));
    }

    pub(super) fn flush(&self) {
        let mut files = self.lock();
        if files.generation == self.generation {
            files.durable = files.current.clone();
        }
    }

    pub(super) fn clear(&self) {
        self.write(|content| *content = Content::default());
        self.flush();
    }

    fn write(&self, change: impl FnOnce(&mut Content)) {
        let mut files = self.lock();
        if files.generation == self.generation {
            change(&mut files.current);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kill_keeps_what_was_written_and_a_power_cut_what_was_flushed() {
        let first = MemoryLedger::default();
        first.put_status(TaskId(1), TaskStatus::default());
        first.flush();
        first.put_status(TaskId(2), TaskStatus::default());
        let second = first.kill();
        first.put_status(TaskId(3), TaskStatus::default());
        let ids = |ledger: &MemoryLedger| ledger.read().statuses.iter().map(|(id, _)| id.0).collect::<Vec<_>>();
        assert_eq!(ids(&second), [1, 2], "a dead daemon writes nothing");
        assert_eq!(ids(&second.power_cut()), [1]);
    }
}
