//! Objects as rows of listings, and as text for people. Pure.

pub mod container;
pub mod image;
pub mod info;
pub mod network;
pub mod node;
pub mod pretty_node;
pub mod pretty_service;
pub mod service;
pub mod stack;
pub mod task;
pub mod volume;

use std::net::IpAddr;

use rswarm_types::spec::{PortConfig, PublishMode};

/// `*:8080->80/tcp`, `127.0.0.1:8080->80/tcp`, several joined by commas; ranges of neighbours are written as one.
pub fn ports(ports: &[PortConfig], mode: Option<PublishMode>) -> String {
    let mut ports: Vec<&PortConfig> =
        ports.iter().filter(|p| p.published != 0 && mode.is_none_or(|m| m == p.mode)).collect();
    ports.sort_by_key(|p| (p.protocol, p.address, p.target, p.published));
    let mut runs: Vec<(PortConfig, u16)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((first, length))
                if (first.protocol, first.address) == (port.protocol, port.address)
                    && first.target.checked_add(*length) == Some(port.target)
                    && first.published.checked_add(*length) == Some(port.published) =>
            {
                *length += 1;
            }
            _ => runs.push((*port, 1)),
        }
    }
    let run = |from: u16, length: u16| match length {
        1 => from.to_string(),
        _ => format!("{from}-{}", from.saturating_add(length - 1)),
    };
    let texts = runs.iter().map(|(port, length)| {
        let address = match port.address {
            None => "*".into(),
            Some(IpAddr::V4(address)) => address.to_string(),
            Some(IpAddr::V6(address)) => format!("[{address}]"),
        };
        format!("{address}:{}->{}/{}", run(port.published, *length), run(port.target, *length), port.protocol)
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// An image as people wrote it: without the digest that it was resolved to.
pub fn image_name(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests;
