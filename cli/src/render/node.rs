//! `node ls`.

use rswarm_types::spec::Role;

use crate::errors::Result;
use crate::filter::Filters;
use crate::human::capital;
use crate::json::Object;
use crate::listing::{Listing, labels_text};
use crate::template::LABELS;
use crate::view::NodeView;

/// Keys of `--filter`.
pub const FILTERS: [&str; 6] = ["id", "label", "node.label", "membership", "name", "role"];

/// The nodes that pass the filters, by hostname.
///
/// # Errors
/// On a filter's value that does not exist.
pub fn listing(mut nodes: Vec<NodeView>, filters: &Filters) -> Result<Listing> {
    filters.check("role", &["manager", "worker"])?;
    filters.check("membership", &["accepted", "pending"])?;
    nodes.retain(|view| {
        let node = &view.node;
        filters.prefix("id", &node.id.to_string())
            && filters.prefix("name", &node.description.hostname)
            && filters.labels("node.label", &node.spec.labels)
            && filters.labels("label", &node.description.engine_labels)
            && filters.equals("role", &node.membership.role.to_string())
            // Whoever is known here was admitted.
            && filters.equals("membership", "accepted")
    });
    nodes.sort_by_key(|view| (view.node.display_name(), view.node.id));
    Ok(Listing {
        headers: &[
            ("ID", "ID"),
            ("Self", ""),
            ("Hostname", "HOSTNAME"),
            ("Status", "STATUS"),
            ("Availability", "AVAILABILITY"),
            ("ManagerStatus", "MANAGER STATUS"),
            ("TLSStatus", "TLS STATUS"),
            ("EngineVersion", "ENGINE VERSION"),
            ("Control", "CONTROL"),
        ],
        table: "{{.ID}} {{if .Self}}*{{else}} {{end}}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}\t{{.EngineVersion}}",
        quiet: "ID",
        records: nodes.iter().map(record).collect(),
    })
}

fn record(view: &NodeView) -> Object {
    let node = &view.node;
    Object::new()
        .with("ID", node.id.to_string())
        .with("Self", view.is_self)
        .with("Hostname", &node.description.hostname)
        .with("Status", capital(&node.status.state.to_string()))
        .with("Availability", capital(&node.spec.availability.to_string()))
        .with("ManagerStatus", manager_status(view))
        .with("TLSStatus", "Ready")
        .with("EngineVersion", &node.description.engine_version)
        .with("Control", node.spec.control.to_string())
        .with("Labels", labels_text(&node.spec.labels))
        .with(LABELS, &node.spec.labels)
}

/// `Leader`, `Reachable` or `Unreachable`; nothing for a worker.
pub fn manager_status(view: &NodeView) -> &'static str {
    match (view.node.membership.role, view.is_leader, view.is_reachable) {
        (Role::Worker, ..) => "",
        (Role::Manager, true, _) => "Leader",
        (Role::Manager, false, true) => "Reachable",
        (Role::Manager, false, false) => "Unreachable",
    }
}
