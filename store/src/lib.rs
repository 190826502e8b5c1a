//! The replicated state machine: `Snapshot × Command → Changes or Refusal`.
//!
//! Pure: no clock, no randomness, no I/O. Two managers that applied the same entries hold the same
//! state, and [`State::digest`] tells. A clone is a snapshot and costs nothing.

mod state;

mod find;

mod apply;
pub use apply::{Applied, makes_same_tasks};

mod allocate;

mod audit;
mod snapshot;

mod canonical;
mod changed;
mod digest;
mod indexes;
mod rows;

pub use audit::Audit;
pub use changed::Changed;
pub use indexes::{Holder, HostPort, Load};
pub use snapshot::BadSnapshot;
pub use state::State;
