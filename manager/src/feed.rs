//! What changed since a subscriber last looked: where to look, never what to do.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use rswarm_store::{Changed, State};
use tokio::sync::Notify;

/// Collects changes for one subscriber until it takes them.
#[derive(Debug, Default)]
pub struct Inbox {
    pending: Mutex<Changed>,
    woken: Notify,
}

impl Inbox {
    /// Waits until something changed, and takes all of it.
    ///
    /// # Cancel safety
    /// Nothing is lost: what was not taken stays.
    pub async fn changed(&self) -> Changed {
        loop {
            let taken = self.take();
            if !taken.is_empty() {
                return taken;
            }
            self.woken.notified().await;
        }
    }

    /// What has changed, without waiting.
    pub fn take(&self) -> Changed {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, changed: &Changed) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).merge(changed.clone());
        self.woken.notify_one();
    }
}

/// Every row of a state: what a new leader, or a state that came whole, must look at.
pub fn everything(state: &State) -> Changed {
    Changed {
        cluster: true,
        nodes: state.nodes().map(|n| n.id).collect(),
        networks: state.networks().map(|n| n.id).collect(),
        services: state.services().map(|s| s.id).collect(),
        tasks: state.tasks().map(|t| t.id).collect(),
        task_services: state.tasks().map(|t| t.service).collect(),
        task_nodes: state.tasks().filter_map(|t| t.node).collect(),
    }
}

/// Tells every subscriber what each entry changed.
#[derive(Clone, Debug, Default)]
pub struct Feed {
    subscribers: Arc<Mutex<Vec<Weak<Inbox>>>>,
}

impl Feed {
    /// A new subscriber, which sees everything from now on; dropped = unsubscribed.
    pub fn subscribe(&self) -> Arc<Inbox> {
        let inbox = Arc::new(Inbox::default());
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&inbox));
        inbox
    }

    /// Called by the state machine after each entry.
    pub fn publish(&self, changed: &Changed) {
        if changed.is_empty() {
            return;
        }
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner).retain(|inbox| match inbox.upgrade() {
            Some(inbox) => {
                inbox.put(changed);
                true
            }
            None => false,
        });
    }
}
