//! What runs on every node: it makes the managers' orders true here and says what became of them.
//!
//! ```text
//! session ──orders──▶ ledger ──▶ plan (pure) ──steps──▶ Host (runtime, overlay, images, volumes)
//!    ▲                              ▲                     │
//!    └────────statuses──── agent ───┴──────observed───────┘
//! ```
//!
//! Without a manager containers go on as they are: nothing is started, nothing is stopped.

mod worker;

pub mod host;
pub mod link;
pub mod plan;

mod agent;
#[cfg(test)]
mod fake;
mod files;
mod health;
mod ledger;
mod limits;
mod network;
mod news;
mod real_host;
mod reports;
mod session;
mod shared;
mod view;

pub use ledger::{LedgerError, LedgerPlace, MemoryLedger};
pub use news::WorkerEvent;
pub use rswarm_types::session::Leaving;
pub use view::ContainerView;
pub use worker::{Parts, Worker, WorkerConfig, WorkerError};
