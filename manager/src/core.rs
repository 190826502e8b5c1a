//! A manager without its sockets: what gRPC and the simulator both drive.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::consensus::Consensus;
use crate::dispatcher::{Arrival, Sessions, Streams, relay, serve};
use crate::edge::Edge;
use crate::engine::Engine;
use crate::feed::Feed;
use crate::leader::lead;
use crate::liveness::Liveness;
use crate::machine::Snapshot;
use crate::peers::Peers;

/// How long tasks may take to end.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// The running parts of one manager. Cheap to clone.
#[derive(Clone)]
pub struct Core {
    pub consensus: Consensus,
    pub sessions: Sessions,
    pub liveness: Liveness,
    pub streams: Streams,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Core {
    /// Starts the stamping, relaying and leading tasks.
    pub fn start(
        engine: Arc<dyn Engine>,
        peers: Arc<dyn Peers>,
        current: watch::Receiver<Snapshot>,
        feed: Feed,
        edge: Edge,
    ) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let consensus = Consensus::start(engine, Arc::clone(&peers), current, feed, edge, &tasks, stop.clone());
        let core = Self {
            consensus: consensus.clone(),
            sessions: Sessions::default(),
            liveness: Liveness::default(),
            streams: Streams::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(relay(consensus.clone(), core.sessions.clone(), core.liveness.clone(), peers, stop.clone()));
        tasks.spawn(lead(consensus, core.liveness.clone(), stop));
        core
    }

    /// Serves the session of a worker that connected.
    pub fn serve(&self, arrival: Arrival) {
        self.tasks.spawn(serve(self.consensus.clone(), self.sessions.clone(), arrival, self.stop.clone()));
    }

    /// The token that ends everything of this manager.
    pub fn stopping(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The tracker of this manager's tasks.
    pub fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends all tasks and then the engine. A leader hands over first.
    pub fn stop(&self) -> BoxFuture<'static, ()> {
        let engine = Arc::clone(self.consensus.engine());
        let status = engine.status();
        let heir = status.voters.keys().copied().find(|m| *m != status.member).filter(|_| status.is_leader());
        let (stop, tasks) = (self.stop.clone(), self.tasks.clone());
        Box::pin(async move {
            if let Some(heir) = heir {
                // A hand-over that fails costs an election, no more.
                let _ = tokio::time::timeout(Duration::from_secs(1), engine.transfer(heir)).await;
            }
            stop.cancel();
            tasks.close();
            if tokio::time::timeout(STOP_DEADLINE, tasks.wait()).await.is_err() {
                tracing::warn!(left = tasks.len(), "manager tasks left behind");
            }
            engine.shutdown().await;
        })
    }
}
