//! `ps`.

use std::collections::BTreeMap;

use rswarm_api::{Wire, pb};
use rswarm_types::TimestampMs;
use rswarm_types::spec::{Mount, MountKind, PortConfig};

use super::{image_name, ports};
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::human::{ago, ellipsis, listed_second, size};
use crate::json::Object;
use crate::listing::{Listing, labels_text};
use crate::template::LABELS;

/// Keys of `--filter`.
pub const FILTERS: [&str; 15] = [
    "id", "name", "label", "status", "health", "ancestor", "exited", "before", "since", "volume", "network", "publish",
    "expose", "is-task", "service",
];
const STATES: [&str; 5] = ["created", "running", "paused", "exited", "dead"];
const HEALTH: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];
/// Characters of a command in a table.
const COMMAND_LENGTH: usize = 20;
/// Characters of a mount in a table.
const MOUNT_LENGTH: usize = 15;

/// How containers are shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shown {
    /// Also those that do not run.
    pub all: bool,
    /// The newest of them at most.
    pub last: Option<usize>,
    pub no_trunc: bool,
    /// With a column of sizes.
    pub size: bool,
    pub now: TimestampMs,
}

/// A container with what the daemon told in its own form.
struct Read {
    container: pb::Container,
    mounts: Vec<Mount>,
    ports: Vec<PortConfig>,
}

/// The containers that pass the filters, newest first.
///
/// # Errors
/// On a filter's value that does not exist, or an answer that cannot be read.
pub fn listing(containers: Vec<pb::Container>, filters: &Filters, shown: Shown) -> Result<Listing> {
    filters.check("status", &STATES)?;
    filters.check("health", &HEALTH)?;
    filters.check("is-task", &["true", "false", "1", "0"])?;
    let before = bound(&containers, filters, "before")?;
    let since = bound(&containers, filters, "since")?;
    filters.values("publish").chain(filters.values("expose")).try_for_each(|text| port(text).map(drop))?;
    let read: Result<Vec<Read>> = containers.into_iter().map(read).collect();
    let mut containers = read?;
    containers.retain(|read| {
        let c = &read.container;
        (shown.all || c.state == "running")
            && passes(read, filters)
            && before.is_none_or(|at| c.created_at < at)
            && since.is_none_or(|at| c.created_at > at)
    });
    containers.sort_by(|a, b| {
        let (a, b) = (&a.container, &b.container);
        b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id))
    });
    containers.truncate(shown.last.unwrap_or(usize::MAX));
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
            ("Mounts", "MOUNTS"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Networks", "NETWORKS"),
            ("Size", "SIZE"),
            ("Platform", "PLATFORM"),
            ("HealthStatus", "HEALTH"),
            ("Service", "SERVICE"),
            ("Pid", "PID"),
        ],
        table: if shown.size {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
        } else {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
        },
        quiet: "ID",
        records: containers.into_iter().map(|read| record(read, shown)).collect(),
    })
}

fn read(container: pb::Container) -> Result<Read> {
    let mounts = Wire::from_pb(container.mounts.clone()).map_err(Error::from)?;
    let ports = Wire::from_pb(container.ports.clone()).map_err(Error::from)?;
    Ok(Read { container, mounts, ports })
}

/// When the container that a filter names was made: only those before, or since, are wanted.
fn bound(containers: &[pb::Container], filters: &Filters, key: &str) -> Result<Option<u64>> {
    let Some(wanted) = filters.values(key).last() else { return Ok(None) };
    let found = containers.iter().find(|c| c.name == wanted || (!wanted.is_empty() && c.id.starts_with(wanted)));
    let found = found.ok_or_else(|| Error::NotFound(format!("container \"{wanted}\" of --filter {key} not found")))?;
    Ok(Some(found.created_at))
}

fn passes(read: &Read, filters: &Filters) -> bool {
    let c = &read.container;
    let is_mounted = |wanted: &str| read.mounts.iter().any(|m| m.source == wanted || m.target == wanted);
    let is_published = |p: &&PortConfig| p.published != 0;
    filters.prefix("id", &c.id)
        && filters.any("name", |value| c.name.contains(value.trim_start_matches('/')))
        && filters.labels("label", &labels(c))
        && filters.equals("status", &c.state)
        && filters.equals("health", &c.health)
        && filters.equals("service", &c.service)
        && filters.any("ancestor", |value| image_name(value) == image_name(&c.image))
        && filters.any("exited", |value| c.exit_code.is_some_and(|code| value == code.to_string()))
        && filters.any("volume", is_mounted)
        && filters.any("network", |value| c.networks.iter().any(|name| name == value))
        && filters.any("publish", |value| {
            port(value).is_ok_and(|wanted| read.ports.iter().filter(is_published).any(|p| wanted.fits(p.published, p)))
        })
        && filters.any("expose", |value| {
            port(value).is_ok_and(|wanted| read.ports.iter().any(|p| wanted.fits(p.target, p)))
        })
        // Every container here is one of a service.
        && filters.any("is-task", |value| matches!(value, "true" | "1"))
}

/// `PORT[-PORT][/PROTOCOL]`; without a protocol, TCP.
struct PortFilter {
    from: u16,
    to: u16,
    protocol: String,
}

impl PortFilter {
    fn fits(&self, number: u16, port: &PortConfig) -> bool {
        (self.from..=self.to).contains(&number) && port.protocol.to_string() == self.protocol
    }
}

fn port(text: &str) -> Result<PortFilter> {
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (from, to) = numbers.split_once('-').unwrap_or((numbers, numbers));
    match (from.parse(), to.parse()) {
        (Ok(from), Ok(to)) if from <= to => Ok(PortFilter { from, to, protocol: protocol.to_lowercase() }),
        _ => Err(Error::Usage(format!(
            "invalid --filter of a port \"{text}\"\n       allowed: PORT[-PORT][/tcp|/udp|/sctp], e.g. 8080 or 8000-8080/tcp"
        ))),
    }
}

fn labels(container: &pb::Container) -> BTreeMap<String, String> {
    container.labels.clone().into_iter().collect()
}

/// Names of volumes and paths of the host; what has neither is not told.
fn mounts(mounts: &[Mount], no_trunc: bool) -> String {
    let named = mounts.iter().map(|mount| mount.source.as_str()).filter(|source| !source.is_empty());
    let shown = named.map(|source| if no_trunc { source.to_owned() } else { ellipsis(source, MOUNT_LENGTH) });
    shown.collect::<Vec<_>>().join(",")
}

/// `2B (virtual 187MB)`.
fn sizes(container: &pb::Container) -> String {
    let written = size(container.size_written);
    match container.size_whole {
        0 => written,
        whole => format!("{written} (virtual {})", size(whole)),
    }
}

fn record(read: Read, shown: Shown) -> Object {
    let Read { container, mounts: mounted, ports: published } = read;
    let labels = labels(&container);
    let no_trunc = shown.no_trunc;
    let created = TimestampMs(container.created_at);
    let cut = |text: &str, length| if no_trunc { text.to_owned() } else { ellipsis(text, length) };
    let volumes = mounted.iter().filter(|mount| mount.kind == MountKind::Volume).count();
    Object::new()
        .with("ID", if no_trunc { container.id.clone() } else { container.id.chars().take(12).collect() })
        .with("Image", if no_trunc { container.image.clone() } else { image_name(&container.image) })
        .with("Command", format!("\"{}\"", cut(&container.command, COMMAND_LENGTH)))
        .with("RunningFor", ago(created, shown.now))
        .with("CreatedAt", listed_second(created))
        .with("Size", sizes(&container))
        .with("Status", container.status)
        .with("State", container.state)
        .with("HealthStatus", container.health)
        .with("Ports", ports(&published, None))
        .with("Names", container.name)
        .with("Labels", labels_text(&labels))
        .with("Mounts", mounts(&mounted, no_trunc))
        .with("LocalVolumes", volumes.to_string())
        .with("Networks", container.networks.join(","))
        // The host's: images of others do not run here.
        .with("Platform", format!("{}/{}", std::env::consts::OS, super::info::go_arch(std::env::consts::ARCH)))
        .with("Service", container.service)
        .with("Pid", container.pid)
        .with(LABELS, &labels)
}
