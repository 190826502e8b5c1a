//! Numbers that nobody outside can guess: the order of answers, and ids of questions to servers outside.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// A counter behind a keyed hash, whose key is drawn once from the system.
#[derive(Debug, Default)]
pub struct Turns {
    secret: RandomState,
    drawn: AtomicU64,
}

impl Turns {
    pub fn draw(&self) -> u64 {
        self.secret.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}
