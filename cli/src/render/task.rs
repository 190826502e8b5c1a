//! `service ps`, `node ps` and `stack ps`: tasks, with those that filled their slots before.

use std::cmp::Reverse;

use rswarm_types::TimestampMs;
use rswarm_types::id::SHORT_ID_LENGTH;
use rswarm_types::spec::PublishMode;
use rswarm_types::task::{Slot, Task};
use rswarm_types::task_state::DesiredState;

use super::{image_name, ports};
use crate::errors::Result;
use crate::filter::Filters;
use crate::human::{ago, capital};
use crate::json::Object;
use crate::listing::Listing;
use crate::view::NodeNames;

/// Keys of `--filter`.
pub const FILTERS: [&str; 4] = ["id", "name", "node", "desired-state"];
/// Keys of `--filter` of `node ps`.
pub const NODE_FILTERS: [&str; 5] = ["id", "name", "node", "desired-state", "label"];
/// Characters of an error in a table.
const ERROR_LENGTH: usize = 30;

/// How tasks are shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    pub nodes: &'a NodeNames,
    pub no_resolve: bool,
    pub no_trunc: bool,
    pub now: TimestampMs,
}

/// The tasks that pass the filters, by service and slot, the newest of a slot first.
///
/// # Errors
/// On a filter's value that does not exist.
pub fn listing(mut tasks: Vec<Task>, filters: &Filters, shown: Shown<'_>) -> Result<Listing> {
    filters.check("desired-state", &["running", "shutdown", "accepted", "ready", "remove"])?;
    tasks.retain(|task| passes(task, filters, shown));
    tasks.sort_by_cached_key(|task| {
        (task.spec.name.clone(), task.slot, Reverse((task.meta.created_at, task.created, task.id)))
    });
    let mut before: Option<(String, Slot)> = None;
    let mut records = Vec::new();
    for task in &tasks {
        let slot = Some((task.spec.name.clone(), task.slot));
        let name = name(task, shown);
        // Who held the slot before stands under who holds it now.
        let name = if before == slot { format!(r" \_ {name}") } else { name };
        before = slot;
        records.push(record(task, name, shown));
    }
    Ok(Listing {
        headers: &[
            ("ID", "ID"),
            ("Name", "NAME"),
            ("Image", "IMAGE"),
            ("Node", "NODE"),
            ("DesiredState", "DESIRED STATE"),
            ("CurrentState", "CURRENT STATE"),
            ("Error", "ERROR"),
            ("Ports", "PORTS"),
        ],
        table: "{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}",
        quiet: "ID",
        records,
    })
}

fn passes(task: &Task, filters: &Filters, shown: Shown<'_>) -> bool {
    let node = task.node.map(|id| id.to_string()).unwrap_or_default();
    let hostname = task.node.and_then(|id| shown.nodes.get(&id)).cloned().unwrap_or_default();
    // What Docker calls accepted is, until it runs, also wanted to run.
    let desired = task.desired.to_string();
    filters.prefix("id", &task.id.to_string())
        && filters.any("name", |value| task.name().starts_with(value) || task.spec.name.starts_with(value))
        && filters.any("node", |value| !node.is_empty() && (node.starts_with(value) || hostname == value))
        && filters.any("desired-state", |value| value.eq_ignore_ascii_case(&desired))
        && filters.labels("label", &task.spec.task.container.labels)
}

fn name(task: &Task, shown: Shown<'_>) -> String {
    match shown.no_resolve {
        true => format!("{}.{}", task.service, task.slot),
        false => task.short_name(),
    }
}

fn record(task: &Task, name: String, shown: Shown<'_>) -> Object {
    let mut id = task.id.to_string();
    if !shown.no_trunc {
        id.truncate(SHORT_ID_LENGTH);
    }
    let image = &task.spec.task.container.image;
    let node = match task.node {
        None => String::new(),
        Some(id) => match shown.nodes.get(&id) {
            Some(name) if !shown.no_resolve => name.clone(),
            _ => id.to_string(),
        },
    };
    let state = format!("{} {}", capital(&task.status.state.to_string()), ago(task.status.at, shown.now));
    Object::new()
        .with("ID", id)
        .with("Name", name)
        .with("Image", if shown.no_trunc { image.clone() } else { image_name(image) })
        .with("Node", node)
        .with("DesiredState", capital(&task.desired.to_string()))
        .with("CurrentState", state)
        .with("Error", error(task, shown.no_trunc))
        .with("Ports", ports(&task.status.host_ports, Some(PublishMode::Host)))
}

/// Why the task failed or cannot be placed; else why it was told to stop. In quotes.
fn error(task: &Task, no_trunc: bool) -> String {
    let stopped = task.desired >= DesiredState::Shutdown && !task.status.state.is_terminal();
    let text = match (task.status.error.as_str(), stopped) {
        ("", true) => task.desired_reason.as_str(),
        (error, _) => error,
    };
    // A table has one line for each task.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        text
    } else if no_trunc || text.chars().count() + 2 <= ERROR_LENGTH {
        format!("\"{text}\"")
    } else {
        format!("\"{}…\"", text.chars().take(ERROR_LENGTH - 2).collect::<String>())
    }
}
