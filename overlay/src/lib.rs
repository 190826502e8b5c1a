//! Container networks of one node: overlays, virtual addresses, published ports, DNS.
//!
//! Managers say what exists ([`rswarm_types::assignment::Assignments`]); [`desired`] says what
//! should then be in this kernel, [`diff`] which steps lead there, and [`net`] does them. All
//! decisions are plain functions over values ([`model`]); [`Overlay`] is the thin shell around.

pub mod overlay;

pub mod desired;
pub mod diff;
pub mod model;
pub mod ports;

mod dns;
mod gateway;
mod shell;
mod sys;

pub mod net;
pub mod netlink;
pub mod nfnl;

pub mod netd;

pub use desired::Subject;
pub use overlay::{Converged, Disturbance, Overlay, OverlayConfig, OverlayError};
pub use ports::{PortProblem, PublishedPort};

#[cfg(test)]
mod diff_tests;
#[cfg(test)]
mod fixture;
