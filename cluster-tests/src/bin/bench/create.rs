//! From `service create` to all tasks running, on one host.

use std::time::Instant;

use anyhow::Result;

use crate::swarm::{NETWORK, Swarm};
use crate::{OURS, times};

/// The shapes measured: key, network, replicas, rounds, and rounds of a peer, which takes minutes for the large ones.
const SHAPES: &[(&str, &str, usize, usize, usize)] = &[
    ("create-1-host", "host", 1, 20, 20),
    ("create-1-overlay", NETWORK, 1, 20, 20),
    ("create-100-host", "host", 100, 5, 1),
    ("create-100-overlay", NETWORK, 100, 5, 1),
];

/// Starts the clock before the command line program, and reads it when the API says that all run.
pub fn run(swarm: &dyn Swarm) -> Result<()> {
    for (key, network, replicas, ours, theirs) in SHAPES {
        let rounds = if swarm.name() == OURS { ours } else { theirs };
        let count = replicas.to_string();
        let mut measured = Vec::new();
        // The first is not counted: caches are cold, and the network comes to the host.
        for round in 0..=*rounds {
            let service = format!("{key}-{round}");
            let began = Instant::now();
            swarm.create(&service, &["--network", network, "--replicas", &count])?;
            swarm.await_running(&service, *replicas, None)?;
            let took = began.elapsed();
            eprintln!("{}: {key}: {took:.3?}", swarm.name());
            if round > 0 {
                measured.push(took);
            }
            swarm.remove(&service)?;
        }
        times(key, swarm.name(), &measured);
    }
    Ok(())
}
