//! The nouns of the cluster and their rules, in reading order.
//!
//! No async, no wire format, no clock, no randomness: ids and times are chosen at the edge and
//! travel in the command.

pub mod id;
pub mod limits;
pub mod units;

pub mod spec;

pub mod cluster;
pub mod network;
pub mod node;
pub mod service;
pub mod task;
pub mod task_state;

pub mod assignment;
pub mod command;
pub mod constraint;
pub mod delta;
pub mod parse;
pub mod refusal;
pub mod session;
pub mod validate;

pub use id::{ClusterId, MemberId, NetworkId, NodeId, RequestId, ServiceId, TaskId};
pub use refusal::Refusal;
pub use units::{Bytes, NanoCpus, TimestampMs};
