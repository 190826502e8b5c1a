//! Chance that a seed decides.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A stream of numbers, shared by its clones (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(Arc<Mutex<u64>>);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    /// A stream of its own, so that what one part draws does not change what another gets.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self::new(self.number())
    }

    /// 64 bits.
    pub fn number(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 128 bits.
    pub fn wide(&self) -> u128 {
        (u128::from(self.number()) << 64) | u128::from(self.number())
    }

    /// Less than `limit`, which is not 0.
    pub fn below(&self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// At least `low`, less than `high`.
    pub fn between(&self, low: u64, high: u64) -> u64 {
        low + self.below(high - low)
    }

    /// A time in milliseconds.
    pub fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// True so often in a hundred.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them; `None` of none.
    pub fn pick<'a, T>(&self, from: &'a [T]) -> Option<&'a T> {
        let at = if from.is_empty() { 0 } else { self.below(from.len() as u64) };
        from.get(usize::try_from(at).unwrap_or(0))
    }
}
