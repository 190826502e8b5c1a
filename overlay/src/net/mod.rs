//! Namespaces, interfaces, addresses, routes, neighbours: rtnetlink and what stands beside it.

pub mod execute;
pub mod kernel;
pub mod messages;
pub mod namespaces;
pub mod read;
pub mod readings;
