//! Sessions of workers, on whichever manager they opened them.

mod relay;
mod session;
mod streams;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rswarm_types::NodeId;
use rswarm_types::session::{Down, Leaving, Settled};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

use crate::peers::SessionFact;

pub use relay::relay;
pub use session::{Arrival, serve};
pub use streams::{StreamError, Streams};

/// Messages to a worker that wait to be sent.
pub const DOWN_QUEUE: usize = 64;

/// One open (or just closed) session on this manager.
struct Entry {
    epoch: u64,
    boot_id: String,
    heard: Instant,
    applied: u64,
    leaving: Option<Leaving>,
    is_open: bool,
    down: mpsc::Sender<Down>,
}

/// All sessions of this manager. Cheap to clone.
#[derive(Clone, Default)]
pub struct Sessions {
    table: Arc<Mutex<BTreeMap<NodeId, Entry>>>,
    /// Something that the leader should hear at once.
    urgent: Arc<Notify>,
    settled: watch::Sender<Settled>,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, node: NodeId, epoch: u64, boot_id: String, applied: u64, down: mpsc::Sender<Down>) {
        let entry = Entry { epoch, boot_id, heard: Instant::now(), applied, leaving: None, is_open: true, down };
        self.lock().insert(node, entry);
        self.urgent.notify_one();
    }

    /// Changes the entry of this epoch; a newer session's entry is left alone.
    fn update(&self, node: NodeId, epoch: u64, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().get_mut(&node).filter(|e| e.epoch == epoch) {
            change(entry);
        }
    }

    fn heard(&self, node: NodeId, epoch: u64) {
        self.update(node, epoch, |e| e.heard = Instant::now());
    }

    fn applied(&self, node: NodeId, epoch: u64, index: u64) {
        self.update(node, epoch, |e| e.applied = e.applied.max(index));
        self.urgent.notify_one();
    }

    fn leaves(&self, node: NodeId, epoch: u64, leaving: Leaving) {
        self.update(node, epoch, |e| e.leaving = Some(leaving));
        self.urgent.notify_one();
    }

    fn close(&self, node: NodeId, epoch: u64) {
        self.update(node, epoch, |e| e.is_open = false);
        self.urgent.notify_one();
    }

    /// Whether a session of this node from another boot was heard within `alive_ms`.
    fn is_alive_elsewhere(&self, node: NodeId, boot_id: &str, alive_ms: u128) -> bool {
        self.lock().get(&node).is_some_and(|e| {
            e.is_open && e.leaving.is_none() && e.boot_id != boot_id && e.heard.elapsed().as_millis() < alive_ms
        })
    }

    /// What the leader should know of every session here.
    pub fn facts(&self) -> Vec<SessionFact> {
        self.lock()
            .iter()
            .map(|(node, e)| SessionFact {
                node: *node,
                epoch: e.epoch,
                applied: e.applied,
                silent_ms: u64::try_from(e.heard.elapsed().as_millis()).unwrap_or(u64::MAX),
                leaving: e.leaving,
                is_open: e.is_open,
            })
            .collect()
    }

    /// Forgets sessions that closed long ago.
    fn sweep(&self, keep_ms: u128) {
        self.lock().retain(|_, e| e.is_open || e.heard.elapsed().as_millis() < keep_ms);
    }

    /// Sends a message down the session of a node, if it is open here.
    pub fn send(&self, node: NodeId, message: Down) -> bool {
        let down = self.lock().get(&node).filter(|e| e.is_open).map(|e| e.down.clone());
        down.is_some_and(|down| down.try_send(message).is_ok())
    }

    /// How far the cluster has settled.
    pub fn settled(&self) -> watch::Receiver<Settled> {
        self.settled.subscribe()
    }

    /// Learns how far the cluster has settled.
    pub fn set_settled(&self, settled: Settled) {
        self.settled.send_if_modified(|current| {
            let changed = *current != settled;
            *current = settled;
            changed
        });
    }
}
