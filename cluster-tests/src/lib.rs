//! Whole clusters under test: hosts as network namespaces that run the shipped binary.

pub mod invariants;
pub mod lab;
pub mod sim;
