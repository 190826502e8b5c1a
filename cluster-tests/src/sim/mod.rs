//! A whole cluster in one process, in virtual time, decided by one seed.
//!
//! The managers are real: consensus, store, reconcilers, dispatcher. So are the workers: session, ledger rules, plan,
//! agent. Only the disk, the network, the kernel and its containers are the simulator's. People ask for things while
//! the cluster is hurt; then everything is healed, and must converge.

mod run;
pub use run::{Outcome, command, run};
pub use trace::{Event, Events};

pub mod dice;
pub mod trace;

mod clients;
mod cluster;
mod faults;
mod host;
mod kernel;
mod link;
mod manager;
mod network;
mod witness;
