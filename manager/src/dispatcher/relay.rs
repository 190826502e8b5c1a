//! What sessions know, brought to the leader; how far the cluster has settled, brought back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Sessions;
use crate::consensus::Consensus;
use crate::liveness::Liveness;
use crate::peers::Peers;

/// Facts go at least so often: a sixth of the silence that makes a node Down, with room to spare.
const PERIOD: Duration = Duration::from_millis(200);
/// Urgent facts wait so long for company.
const COALESCE: Duration = Duration::from_millis(2);
/// Closed sessions are reported for so long.
const KEEP_CLOSED_MS: u128 = 60_000;

/// Runs on every manager until `stop`.
pub async fn relay(
    consensus: Consensus,
    sessions: Sessions,
    liveness: Liveness,
    peers: Arc<dyn Peers>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sessions.urgent.notified() => tokio::time::sleep(COALESCE).await,
            () = tokio::time::sleep(PERIOD) => {}
        }
        sessions.sweep(KEEP_CLOSED_MS);
        let facts = sessions.facts();
        if consensus.leads() {
            liveness.absorb(consensus.member(), &facts);
            sessions.set_settled(liveness.settled(&consensus.local()));
            continue;
        }
        let Some(leader) = leader_address(&consensus) else { continue };
        match peers.relay(leader, facts).await {
            Ok(Some(answer)) => sessions.set_settled(answer.settled),
            Ok(None) => {}
            Err(error) => tracing::debug!(%error, "facts not relayed"),
        }
    }
}

fn leader_address(consensus: &Consensus) -> Option<SocketAddr> {
    let status = consensus.engine().status();
    let (id, address) = status.leader?;
    (id != status.member).then(|| address.parse().ok()).flatten()
}
