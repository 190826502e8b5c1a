//! Objects in the shape of Docker's API, as `inspect` prints them.

use std::time::Duration;

use rswarm_types::cluster::Meta;
use rswarm_types::spec::PortConfig;

use crate::human::rfc3339;
use crate::json::{Json, Object, list};

mod container;
mod network;
mod node;
mod service;

pub use network::{Attached, network};
pub use node::{architecture, node};
pub use service::{Networks, service};

/// An object's first fields.
fn object(id: &str, meta: &Meta) -> Object {
    Object::new()
        .with("ID", id)
        .with("Version", Object::new().with("Index", meta.version))
        .with("CreatedAt", rfc3339(meta.created_at))
        .with("UpdatedAt", rfc3339(meta.updated_at))
}

/// Durations are nanoseconds.
fn nanos(duration: Duration) -> Json {
    Json::Unsigned(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

fn ports(ports: &[PortConfig]) -> Json {
    list(ports, |port| {
        Object::new()
            .with("Protocol", port.protocol.to_string())
            .with("TargetPort", port.target)
            .with_some("PublishedPort", port.published)
            .with("PublishMode", port.mode.to_string())
            .with_some("HostIP", port.address.map(|address| address.to_string()))
    })
}

#[cfg(test)]
mod tests;
