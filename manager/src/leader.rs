//! What only the leader does: reconcile, judge nodes, move memberships along, keep time.

use std::time::Duration;

use rswarm_types::command::{Body, Change};
use rswarm_types::limits::{BATCH_CHANGES_MAX, HEARTBEAT_PERIOD_MS, TICK_PERIOD_MS};
use rswarm_types::units::TimestampMs;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::consensus::{Consensus, ProposeError};
use crate::feed::everything;
use crate::liveness::Liveness;
use crate::orchestrate::{self, Scope};
use crate::roles;

/// How often nodes are judged.
const HEALTH_PERIOD: Duration = Duration::from_millis(100);
/// A leader that wakes so much later than it wanted was stopped: what it missed is not the nodes' silence.
const OVERSLEPT: Duration = Duration::from_millis(1_000);
/// A leader that wakes so much later than it wanted lacks processor time: that much is not the nodes' silence either.
const LATE: Duration = Duration::from_millis(HEARTBEAT_PERIOD_MS);
const _: () = assert!(LATE.as_millis() < OVERSLEPT.as_millis());
/// How often everything is looked at, whatever changed: it must find nothing to do.
const FULL_PASS_PERIOD: Duration = Duration::from_secs(10);
/// How soon everything is looked at again after decisions that were not applied; doubled while that goes on.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How often a membership that is on its way is taken a step further.
const ROLES_PERIOD: Duration = Duration::from_millis(200);

/// Runs on every manager until `stop`; works while this manager leads.
pub async fn lead(consensus: Consensus, liveness: Liveness, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = until_leading(&consensus) => {}
        }
        let term = consensus.engine().status().term;
        tracing::info!(term, "this manager leads");
        liveness.elected();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = until_deposed(&consensus, term) => {}
            () = reign(&consensus, &liveness, term) => {}
        }
        tracing::info!(term, "this manager leads no more");
    }
}

async fn until_leading(consensus: &Consensus) {
    let mut watch = consensus.watch();
    loop {
        let changed = consensus.engine().changed();
        if consensus.leads() {
            return;
        }
        tokio::select! {
            () = changed => {}
            applied = watch.changed() => if applied.is_err() {
                // The engine is gone; the caller's stop follows.
                std::future::pending::<()>().await;
            }
        }
    }
}

async fn until_deposed(consensus: &Consensus, term: u64) {
    loop {
        let changed = consensus.engine().changed();
        if !reigns(consensus, term) {
            return;
        }
        changed.await;
    }
}

fn reigns(consensus: &Consensus, term: u64) -> bool {
    consensus.leads() && consensus.engine().status().term == term
}

async fn reign(consensus: &Consensus, liveness: &Liveness, term: u64) {
    tokio::join!(
        reconcile(consensus, term),
        judge(consensus, liveness, term),
        move_roles(consensus, liveness, term),
        keep_time(consensus, term),
    );
}

/// Orchestrate → allocate → place, again until nothing is left to decide.
async fn reconcile(consensus: &Consensus, term: u64) {
    let inbox = consensus.subscribe();
    let mut scope = everything(&consensus.local().state);
    let mut full_pass_at = Instant::now() + FULL_PASS_PERIOD;
    let mut pause = RETRY_PAUSE;
    let mut memory = orchestrate::Memory::default();
    while reigns(consensus, term) {
        let snapshot = consensus.local();
        let now = consensus.now();
        let mut fresh = || consensus.edge().random();
        let plan = orchestrate::reconcile(&snapshot.state, &Scope::Dirty(&scope), now, &mut fresh, &mut memory);
        let is_idle = plan.changes.is_empty();
        let mut are_applied = true;
        for batch in plan.changes.chunks(BATCH_CHANGES_MAX) {
            are_applied = commit(consensus, batch.to_vec()).await;
            if !are_applied {
                break;
            }
        }
        if !are_applied {
            // Nothing touched what the decisions were about: only a look at everything finds it again.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(FULL_PASS_PERIOD);
            scope = everything(&consensus.local().state);
            continue;
        }
        pause = RETRY_PAUSE;
        if !is_idle {
            scope = inbox.take();
            scope.merge(plan.again);
            continue;
        }
        tokio::select! {
            changed = inbox.changed() => scope = changed,
            () = sleep_until(plan.wake_at, consensus.now()) => scope = everything(&consensus.local().state),
            () = tokio::time::sleep_until(full_pass_at) => {
                scope = everything(&consensus.local().state);
                full_pass_at = Instant::now() + FULL_PASS_PERIOD;
            }
        }
    }
}

/// Whether the changes were applied.
async fn commit(consensus: &Consensus, changes: Vec<Change>) -> bool {
    match consensus.propose_own(Body::Reconcile(changes)).await {
        Ok(_) => true,
        Err(ProposeError::Refused(refusal)) => {
            tracing::error!(%refusal, "the state refused what a reconciler decided");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "decisions not committed");
            false
        }
    }
}

async fn sleep_until(wake_at: Option<TimestampMs>, now: TimestampMs) {
    match wake_at {
        Some(at) => tokio::time::sleep(at.since(now).max(Duration::from_millis(1))).await,
        None => std::future::pending().await,
    }
}

async fn judge(consensus: &Consensus, liveness: &Liveness, term: u64) {
    let mut late = Duration::ZERO;
    while reigns(consensus, term) {
        // Without a majority no session is open; in a stopped process none is read.
        if late > OVERSLEPT || !consensus.hears_leader() {
            liveness.was_deaf();
        } else if late > LATE {
            liveness.was_late(late);
        }
        for body in liveness.verdicts(&consensus.local(), consensus.member(), consensus.now()) {
            if let Body::SetNodeState { node, state, message, .. } = &body {
                tracing::info!(node.id = %node, %state, message, "node state changes");
            }
            if let Err(error) = consensus.propose_own(body).await {
                tracing::warn!(%error, "node state not committed");
            }
        }
        let asleep = Instant::now();
        tokio::time::sleep(HEALTH_PERIOD).await;
        late = asleep.elapsed().saturating_sub(HEALTH_PERIOD);
    }
}

async fn move_roles(consensus: &Consensus, liveness: &Liveness, term: u64) {
    while reigns(consensus, term) {
        if let Err(error) = roles::step(consensus, liveness).await {
            tracing::info!(%error, "membership step waits");
        }
        tokio::time::sleep(ROLES_PERIOD).await;
    }
}

/// Commits cluster time while nothing else does, so that timers survive a leader change.
async fn keep_time(consensus: &Consensus, term: u64) {
    while reigns(consensus, term) {
        tokio::time::sleep(Duration::from_millis(TICK_PERIOD_MS)).await;
        let applied = consensus.local().state.now();
        let idle = consensus.now().since(applied);
        if reigns(consensus, term) && idle >= Duration::from_millis(TICK_PERIOD_MS) {
            // The next one makes up for a tick that was lost.
            let _ = consensus.propose_own(Body::Tick).await;
        }
    }
}

#[cfg(test)]
mod tests;
