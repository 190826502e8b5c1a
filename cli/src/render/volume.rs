//! `volume ls` and `volume inspect`.

use rswarm_api::pb;
use rswarm_types::TimestampMs;

use crate::filter::Filters;
use crate::human::rfc3339;
use crate::json::{Json, Object};
use crate::listing::{Listing, labels_text};
use crate::template::LABELS;

/// Keys of `--filter`.
pub const FILTERS: [&str; 3] = ["driver", "label", "name"];

/// The volumes that pass the filters, by name.
pub fn listing(mut volumes: Vec<pb::Volume>, filters: &Filters) -> Listing {
    volumes.retain(|volume| {
        filters.any("name", |value| volume.name.contains(value))
            && filters.equals("driver", driver(volume))
            && filters.labels("label", &labels(volume))
    });
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Listing {
        headers: &[
            ("Driver", "DRIVER"),
            ("Name", "VOLUME NAME"),
            ("Scope", "SCOPE"),
            ("Mountpoint", "MOUNTPOINT"),
            ("Labels", "LABELS"),
        ],
        table: "{{.Driver}}\t{{.Name}}",
        quiet: "Name",
        records: volumes.iter().map(record).collect(),
    }
}

fn driver(volume: &pb::Volume) -> &str {
    if volume.driver.is_empty() { "local" } else { &volume.driver }
}

fn labels(volume: &pb::Volume) -> std::collections::BTreeMap<String, String> {
    volume.labels.clone().into_iter().collect()
}

fn record(volume: &pb::Volume) -> Object {
    Object::new()
        .with("Driver", driver(volume))
        .with("Name", &volume.name)
        .with("Scope", "local")
        .with("Mountpoint", &volume.mountpoint)
        .with("Labels", labels_text(&labels(volume)))
        .with(LABELS, &labels(volume))
}

/// A volume in the shape of Docker's API.
pub fn json(volume: &pb::Volume) -> Json {
    let options: std::collections::BTreeMap<String, String> = volume.options.clone().into_iter().collect();
    Object::new()
        .with("CreatedAt", rfc3339(TimestampMs(volume.created_at)))
        .with("Driver", driver(volume))
        .with("Labels", &labels(volume))
        .with("Mountpoint", &volume.mountpoint)
        .with("Name", &volume.name)
        .with("Options", &options)
        .with("Scope", "local")
        .into()
}
