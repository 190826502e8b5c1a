//! Placement: which node each pending task gets, or why none takes it. Pure.
//!
//! The leader keeps a [`Cluster`], the scheduler's own view of nodes and of what runs on them, up
//! to date with each entry, or builds one from scratch: both give the same decisions. Ties are
//! broken by node id.

mod request;
pub use request::{Decision, Group, Outcome};

mod cluster;
pub use cluster::Cluster;

mod place;

mod spread;

mod judge;

mod explain;

mod pending;
