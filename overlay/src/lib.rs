//! rswarm-overlay

pub mod netd;
