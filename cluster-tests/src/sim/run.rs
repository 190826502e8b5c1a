//! One run, from its seed to a verdict.

use std::sync::Arc;
use std::time::Duration;

use rswarm_raft::sim_scope;
use tokio::runtime::{Builder, RngSeed};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::clients::Client;
use super::cluster::Cluster;
use super::dice::Dice;
use super::faults;
use super::trace::{Events, Trace, hash};
use super::witness::Counts;
use crate::invariants::Violation;

/// How long things are asked and go wrong, in virtual time.
const HURT_FOR: Duration = Duration::from_secs(20);
/// The last wishes are made so long before everything is healed.
const LAST_WISH: Duration = Duration::from_secs(2);
const CLIENTS: usize = 2;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    pub trace: Vec<String>,
    /// Of the trace.
    pub hash: u64,
    pub violation: Option<Violation>,
    pub counts: Counts,
    /// What hurt it.
    pub events: Events,
    /// Virtual time that passed.
    pub lasted: Duration,
}

/// The command that repeats a run.
pub fn command(seed: u64) -> String {
    format!("cargo run -p rswarm-cluster-tests --bin swarmsim -- --seed {seed} --iterations 1 --verbose")
}

/// Runs one seed. The same seed gives the same trace.
///
/// # Panics
/// When the process cannot make a runtime.
pub fn run(seed: u64) -> Outcome {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()))
        .build()
        .expect("a runtime without threads or sockets");
    runtime.block_on(sim_scope(seed, simulate(seed)))
}

async fn simulate(seed: u64) -> Outcome {
    let trace = Trace::default();
    let cluster = Arc::new(Cluster::new(Dice::new(seed), trace.clone()));
    let witness = cluster.witness.clone();
    tokio::select! {
        biased;
        () = witness.failed() => {}
        () = story(&cluster) => {}
    }
    let (counts, violation, lasted) = (witness.counts(), witness.violation(), trace.elapsed());
    let (events, trace) = (trace.events(), trace.take());
    Outcome { seed, hash: hash(&trace), trace, violation, counts, events, lasted }
}

async fn story(cluster: &Arc<Cluster>) {
    cluster.form().await;
    let until = Instant::now() + HURT_FOR;
    let mut people = JoinSet::new();
    for at in 0..CLIENTS {
        let home = cluster.hosts[cluster.hosts.len() - 1 - at].node;
        let client = Client { cluster: Arc::clone(cluster), home, dice: cluster.dice.fork() };
        people.spawn(client.run(until - LAST_WISH));
    }
    faults::inflict(Arc::clone(cluster), cluster.dice.fork(), until).await;
    cluster.heal().await;
    while people.join_next().await.is_some() {}
    cluster.settle().await;
}
