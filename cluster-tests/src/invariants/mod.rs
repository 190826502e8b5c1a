//! What must hold whatever fails. Each checker looks at facts from outside: states, digests, containers, answers.
//!
//! The simulator feeds them after every entry and at the end; each proves by tests on made-up histories that it
//! catches what it is there for.

pub mod i01_acknowledged_writes;
pub mod i02_one_leader;
pub mod i06_equal_digests;
pub mod i10_one_task_per_slot;
pub mod i12_convergence;
pub mod i14_only_forward;
pub mod i16_capacity;
pub mod i20_unique_addresses;

#[cfg(test)]
mod fixture;

use std::fmt;

/// Something that must never be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant's name, e.g. `I6`.
    pub invariant: &'static str,
    pub text: String,
}

impl Violation {
    pub fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self { invariant, text: text.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.text)
    }
}
