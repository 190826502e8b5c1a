//! `network ls`.

use rswarm_types::NetworkId;
use rswarm_types::id::SHORT_ID_LENGTH;
use rswarm_types::network::Network;

use crate::errors::Result;
use crate::filter::Filters;
use crate::human::listed_time;
use crate::json::Object;
use crate::listing::{Listing, labels_text};
use crate::template::LABELS;

/// Keys of `--filter`.
pub const FILTERS: [&str; 7] = ["dangling", "driver", "id", "label", "name", "scope", "type"];

/// The networks that pass the filters, by name. `is_used` says whether a service is on one.
///
/// # Errors
/// On a filter's value that does not exist.
pub fn listing(
    mut networks: Vec<Network>,
    filters: &Filters,
    no_trunc: bool,
    is_used: &dyn Fn(NetworkId) -> bool,
) -> Result<Listing> {
    filters.check("dangling", &["true", "false", "1", "0"])?;
    filters.check("type", &["custom", "builtin"])?;
    filters.check("scope", &["swarm", "local", "global"])?;
    networks.retain(|network| {
        let spec = &network.spec;
        let kind = if is_builtin(network) { "builtin" } else { "custom" };
        let is_dangling = !is_builtin(network) && !is_used(network.id);
        filters.any("name", |value| spec.name.contains(value))
            && filters.prefix("id", &network.id.to_string())
            && filters.equals("driver", &spec.driver.to_string())
            && filters.equals("scope", "swarm")
            && filters.equals("type", kind)
            && filters.labels("label", &spec.labels)
            && filters.any("dangling", |value| matches!(value, "true" | "1") == is_dangling)
    });
    networks.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
    Ok(Listing {
        headers: &[
            ("ID", "NETWORK ID"),
            ("Name", "NAME"),
            ("Driver", "DRIVER"),
            ("Scope", "SCOPE"),
            ("IPv4", "IPV4"),
            ("IPv6", "IPV6"),
            ("Internal", "INTERNAL"),
            ("Labels", "LABELS"),
            ("CreatedAt", "CREATED AT"),
        ],
        table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
        quiet: "ID",
        records: networks.iter().map(|network| record(network, no_trunc)).collect(),
    })
}

fn is_builtin(network: &Network) -> bool {
    network.spec.ingress || matches!(network.spec.name.as_str(), "host" | "none")
}

fn record(network: &Network, no_trunc: bool) -> Object {
    let spec = &network.spec;
    let mut id = network.id.to_string();
    if !no_trunc {
        id.truncate(SHORT_ID_LENGTH);
    }
    Object::new()
        .with("ID", id)
        .with("Name", &spec.name)
        .with("Driver", spec.driver.to_string())
        .with("Scope", "swarm")
        .with("IPv4", "true")
        .with("IPv6", spec.has_ipv6().to_string())
        .with("Internal", spec.internal.to_string())
        .with("Labels", labels_text(&spec.labels))
        .with("CreatedAt", listed_time(network.meta.created_at))
        .with(LABELS, &spec.labels)
}
