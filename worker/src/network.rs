//! Keeps container networks as last ordered: one converge at a time, a look at the kernel now and then.

use std::collections::BTreeSet;
use std::sync::Arc;

use rswarm_types::TaskId;
use rswarm_types::assignment::Assignments;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::agent::Event;
use crate::host::Host;
use crate::limits::{CONVERGE_RETRY, REPAIR_PERIOD};

/// What the kernel should be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkOrder {
    pub assignments: Arc<Assignments>,
    pub sandboxes: BTreeSet<TaskId>,
}

/// Runs until `stop`. Orders that a newer one overtook are skipped.
pub async fn keep(
    host: Arc<dyn Host>,
    mut orders: watch::Receiver<Option<NetworkOrder>>,
    results: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let mut wants_retry = false;
    let mut last_error = String::new();
    loop {
        let pause = if wants_retry { CONVERGE_RETRY } else { REPAIR_PERIOD };
        // Every branch only waits.
        let must_converge = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = orders.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            () = host.disturbed() => wants_retry,
            () = sleep(pause) => wants_retry,
        };
        let Some(order) = orders.borrow_and_update().clone() else { continue };
        if !must_converge {
            match host.repair().await {
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error, "container networks not repaired; trying again");
                    wants_retry = true;
                }
            }
            continue;
        }
        let result = host.converge(&order.assignments, &order.sandboxes).await;
        wants_retry = match &result {
            Ok(networks) => !networks.is_whole || !networks.failures.is_empty(),
            Err(error) => {
                if *error != last_error {
                    tracing::warn!(error, "container networks are not as ordered; trying again");
                    last_error.clone_from(error);
                }
                true
            }
        };
        if result.is_ok() {
            last_error.clear();
        }
        if results.send(Event::Networks { order, result }).await.is_err() {
            return;
        }
    }
}
