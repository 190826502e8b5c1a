//! `ps`.

use std::collections::BTreeMap;

use rswarm_api::{Wire, pb};
use rswarm_types::TimestampMs;
use rswarm_types::spec::PortConfig;

use super::{image_name, ports};
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::human::{ago, ellipsis, rfc3339};
use crate::json::Object;
use crate::listing::{Listing, labels_text};
use crate::template::LABELS;

/// Keys of `--filter`.
pub const FILTERS: [&str; 7] = ["id", "name", "label", "status", "ancestor", "exited", "service"];
const STATES: [&str; 5] = ["created", "running", "paused", "exited", "dead"];
/// Characters of a command in a table.
const COMMAND_LENGTH: usize = 20;

/// The containers that pass the filters, newest first; `last` bounds their number.
///
/// # Errors
/// On a filter's value that does not exist, or an answer that cannot be read.
pub fn listing(
    mut containers: Vec<pb::Container>,
    filters: &Filters,
    last: Option<usize>,
    no_trunc: bool,
    now: TimestampMs,
) -> Result<Listing> {
    filters.check("status", &STATES)?;
    containers.retain(|c| {
        filters.prefix("id", &c.id)
            && filters.any("name", |value| c.name.contains(value))
            && filters.labels("label", &labels(c))
            && filters.equals("status", &c.state)
            && filters.equals("service", &c.service)
            && filters.any("ancestor", |value| image_name(value) == image_name(&c.image))
            && filters.any("exited", |value| c.exit_code.is_some_and(|code| value == code.to_string()))
    });
    containers.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    containers.truncate(last.unwrap_or(usize::MAX));
    let records: Result<_> = containers.into_iter().map(|c| record(c, no_trunc, now)).collect();
    Ok(Listing {
        headers: &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("RunningFor", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("Status", "STATUS"),
            ("State", "STATE"),
            ("Ports", "PORTS"),
            ("Names", "NAMES"),
            ("Labels", "LABELS"),
            ("Service", "SERVICE"),
            ("Pid", "PID"),
        ],
        table: "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}",
        quiet: "ID",
        records: records?,
    })
}

fn labels(container: &pb::Container) -> BTreeMap<String, String> {
    container.labels.clone().into_iter().collect()
}

fn record(container: pb::Container, no_trunc: bool, now: TimestampMs) -> Result<Object> {
    let labels = labels(&container);
    let published: Vec<PortConfig> = Wire::from_pb(container.ports).map_err(Error::from)?;
    let created = TimestampMs(container.created_at);
    let cut = |text: &str, length| if no_trunc { text.to_owned() } else { ellipsis(text, length) };
    Ok(Object::new()
        .with("ID", if no_trunc { container.id.clone() } else { container.id.chars().take(12).collect() })
        .with("Image", if no_trunc { container.image.clone() } else { image_name(&container.image) })
        .with("Command", format!("\"{}\"", cut(&container.command, COMMAND_LENGTH)))
        .with("RunningFor", ago(created, now))
        .with("CreatedAt", rfc3339(created))
        .with("Status", container.status)
        .with("State", container.state)
        .with("Ports", ports(&published, None))
        .with("Names", container.name)
        .with("Labels", labels_text(&labels))
        .with("Service", container.service)
        .with("Pid", container.pid)
        .with(LABELS, &labels))
}
