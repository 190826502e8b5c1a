//! Whole clusters under test: hosts as network namespaces that run the shipped binary.

pub mod lab;
