//! Chance and wall time, drawn at the edge and carried in commands from there on.

use std::fmt;
use std::sync::Arc;

use rswarm_types::TimestampMs;

/// Where ids and wall time come from: the operating system, or the simulator's seed.
#[derive(Clone)]
pub struct Edge {
    random: Arc<dyn Fn() -> u128 + Send + Sync>,
    wall: Arc<dyn Fn() -> TimestampMs + Send + Sync>,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Edge")
    }
}

impl Edge {
    /// An edge with its own sources: `random` gives 128 fresh bits, `wall` Unix milliseconds.
    pub fn new(
        random: impl Fn() -> u128 + Send + Sync + 'static,
        wall: impl Fn() -> TimestampMs + Send + Sync + 'static,
    ) -> Self {
        Self { random: Arc::new(random), wall: Arc::new(wall) }
    }

    /// 128 fresh bits.
    pub fn random(&self) -> u128 {
        (self.random)()
    }

    /// Unix time in milliseconds, for people and certificates only.
    pub fn wall(&self) -> TimestampMs {
        (self.wall)()
    }
}
