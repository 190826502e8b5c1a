//! `service ls` and `stack services`.

use rswarm_types::id::SHORT_ID_LENGTH;
use rswarm_types::spec::{PublishMode, ServiceMode};

use super::{image_name, ports};
use crate::errors::Result;
use crate::filter::Filters;
use crate::json::Object;
use crate::listing::{Listing, labels_text};
use crate::template::LABELS;
use crate::view::ServiceView;

/// Keys of `--filter`.
pub const FILTERS: [&str; 5] = ["id", "label", "mode", "name", "runtime"];

/// The services that pass the filters, by name.
///
/// # Errors
/// On a filter's value that does not exist.
pub fn listing(mut services: Vec<ServiceView>, filters: &Filters) -> Result<Listing> {
    filters.check("mode", &["replicated", "global", "replicated-job", "global-job"])?;
    services.retain(|view| {
        let service = &view.service;
        filters.prefix("id", &service.id.to_string())
            && filters.prefix("name", &service.spec.name)
            && filters.labels("label", &service.spec.labels)
            && filters.equals("mode", mode(view))
            && filters.equals("runtime", "container")
    });
    services.sort_by(|a, b| a.service.spec.name.cmp(&b.service.spec.name));
    Ok(Listing {
        headers: &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("Mode", "MODE"),
            ("Replicas", "REPLICAS"),
            ("Image", "IMAGE"),
            ("Ports", "PORTS"),
        ],
        table: "{{.ID}}\t{{.Name}}\t{{.Mode}}\t{{.Replicas}}\t{{.Image}}\t{{.Ports}}",
        quiet: "ID",
        records: services.iter().map(record).collect(),
    })
}

fn record(view: &ServiceView) -> Object {
    let service = &view.service;
    let mut id = service.id.to_string();
    id.truncate(SHORT_ID_LENGTH);
    Object::new()
        .with("ID", id)
        .with("Name", &service.spec.name)
        .with("Mode", mode(view))
        .with("Replicas", replicas(view))
        .with("Image", image_name(&service.spec.task.container.image))
        .with("Ports", ports(&service.ports, Some(PublishMode::Ingress)))
        .with("Labels", labels_text(&service.spec.labels))
        .with(LABELS, &service.spec.labels)
}

pub fn mode(view: &ServiceView) -> &'static str {
    match view.service.spec.mode {
        ServiceMode::Replicated { .. } => "replicated",
        ServiceMode::Global => "global",
    }
}

/// `2/3`, with the bound per node if there is one.
pub fn replicas(view: &ServiceView) -> String {
    let counts = format!("{}/{}", view.running, view.desired);
    match view.service.spec.task.placement.max_replicas_per_node {
        0 => counts,
        max => format!("{counts} (max {max} per node)"),
    }
}
