//! The manager: the replicated state, who decides on it, and who may ask it.

pub mod admission;
mod assign;
pub mod ca;
pub mod consensus;
mod control;
pub mod core;
pub mod dispatcher;
pub mod edge;
pub mod engine;
pub mod feed;
mod grpc_peers;
mod leader;
pub mod liveness;
mod lost_peers;
pub mod machine;
pub mod manager;
pub mod orchestrate;
pub mod peers;
mod records;
mod roles;
mod server;
pub mod token;

pub use assign::assignments;
pub use control::ControlService;
pub use core::Core;
pub use edge::Edge;
pub use machine::{Machine, Snapshot};
pub use manager::{InitRequest, Manager, ManagerConfig, ManagerError};
