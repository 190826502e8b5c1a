//! The volumes that a stack declares and its services mount.

use std::collections::BTreeMap;

use rswarm_types::parse::{ParseError, ShortVolume, parse_tmpfs, parse_volume};
use rswarm_types::spec::{Mount, MountKind};

use super::networks::external_name;
use super::service::Origins;
use super::{Context, labels};
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value};

const VOLUME_KEYS: [&str; 6] = ["driver", "driver_opts", "external", "labels", "name", "x-cluster-spec"];
const MOUNT_KEYS: [&str; 10] =
    ["bind", "cluster", "consistency", "image", "read_only", "source", "target", "tmpfs", "type", "volume"];

/// A declared volume.
pub struct Volume {
    /// On the nodes.
    name: String,
    /// Put on the volume when a node makes it; an external one has none.
    labels: BTreeMap<String, String>,
}

/// Volumes by their name in the file.
pub type Volumes = BTreeMap<String, Volume>;

/// Reads the top-level `volumes`.
pub fn declared(context: &Context<'_>, node: Option<&Node>, report: &mut Report<'_>) -> Volumes {
    let mut volumes = BTreeMap::new();
    if let Some(node) = node.filter(|node| node.value != Value::Null) {
        for entry in report.any_map("volumes", node) {
            volumes.insert(entry.key.clone(), volume(context, entry, report));
        }
    }
    volumes
}

fn volume(context: &Context<'_>, entry: &Entry, report: &mut Report<'_>) -> Volume {
    let path = format!("volumes.{}", entry.key);
    let mut volume = Volume { name: context.scoped(&entry.key), labels: context.labelled(BTreeMap::new()) };
    if entry.value.value == Value::Null {
        return volume;
    }
    let entries = report.map(&path, &entry.value, &VOLUME_KEYS);
    if let Some(name) = external_name(&path, entry, report) {
        return Volume { name, labels: BTreeMap::new() };
    }
    for Entry { key, value, place } in entries {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "name" => volume.name = report.text(&path, value).unwrap_or_default(),
            "labels" => volume.labels = context.labelled(labels(&path, value, report)),
            "driver" => {
                if let Some(driver) =
                    report.text(&path, value).filter(|driver| !matches!(driver.as_str(), "" | "local"))
                {
                    report.error(
                        value.place,
                        format!("{path} is \"{driver}\", which is not built yet; allowed is local"),
                    );
                }
            }
            "driver_opts" => {
                let has_options = !report.pairs(&path, value).is_empty();
                if has_options {
                    report.error(*place, format!("{path} is not built yet"));
                }
            }
            "x-cluster-spec" => report.error(*place, format!("{path}: cluster volumes are not built yet")),
            _ => {}
        }
    }
    volume
}

/// Mounts of a service, from `volumes` and `tmpfs`.
pub fn mounts(
    context: &Context<'_>,
    service: &Entry,
    volumes: &Volumes,
    origins: &mut Origins,
    report: &mut Report<'_>,
) -> Vec<Mount> {
    let mut mounts = Vec::new();
    if let Some(node) = service.value.get("volumes") {
        let path = format!("services.{}.volumes", service.key);
        for item in report.list(&path, node) {
            let mount = match &item.value {
                Value::Map(_) => long(&path, item, report),
                _ => short(&path, item, report),
            };
            let Some(mut mount) = mount else { continue };
            origins.add("mount", &mount.target, item.place);
            // A mistake that was told is not looked at again.
            if resolve(context, &path, item.place, volumes, &mut mount, report) {
                mounts.push(mount);
            }
        }
    }
    if let Some(node) = service.value.get("tmpfs") {
        let path = format!("services.{}.tmpfs", service.key);
        for (place, text) in report.one_or_more(&path, node) {
            if let Some(mount) = report.accept(&path, place, parse_tmpfs(&text)) {
                origins.add("mount", &mount.target, place);
                mounts.push(mount);
            }
        }
    }
    mounts
}

/// Replaces a volume's name by that on the nodes, and makes paths absolute; false if the volume is not declared.
fn resolve(
    context: &Context<'_>,
    path: &str,
    place: Place,
    volumes: &Volumes,
    mount: &mut Mount,
    report: &mut Report<'_>,
) -> bool {
    match mount.kind {
        MountKind::Bind => mount.source = context.absolute(&mount.source).to_string_lossy().into_owned(),
        MountKind::Volume if !mount.source.is_empty() => match volumes.get(&mount.source) {
            Some(volume) => {
                mount.source = volume.name.clone();
                mount.volume.labels = volume.labels.clone();
            }
            None => {
                report.error(
                    place,
                    format!("{path}: undefined volume \"{}\"; declare it under the top-level volumes, or begin a path with / or .", mount.source),
                );
                return false;
            }
        },
        MountKind::Volume | MountKind::Tmpfs => {}
    }
    true
}

fn short(path: &str, node: &Node, report: &mut Report<'_>) -> Option<Mount> {
    let text = report.text(path, node)?;
    let ShortVolume { mount, ignored } = report.accept(path, node.place, parse_volume(&text))?;
    if !ignored.is_empty() {
        report.warn(format!("Ignoring unsupported volume options: {} ({text})", ignored.join(", ")));
    }
    Some(mount)
}

fn long(path: &str, node: &Node, report: &mut Report<'_>) -> Option<Mount> {
    let mut mount = Mount::default();
    let mut is_good = true;
    for Entry { key, value, place } in report.map(path, node, &MOUNT_KEYS) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "type" => match report.choice(&path, value) {
                Some(kind) => mount.kind = kind,
                None => is_good = false,
            },
            "source" => mount.source = report.text(&path, value).unwrap_or_default(),
            "target" => mount.target = report.text(&path, value)?,
            "read_only" => mount.read_only = report.boolean(&path, value).unwrap_or_default(),
            // A promise about other systems' file sharing; on Linux every value means the same.
            "consistency" => consistency(&path, value, report),
            "bind" => {
                for Entry { key, value, .. } in report.map(&path, value, &["propagation"]) {
                    if key == "propagation" {
                        mount.bind.propagation = report.text(&path, value).unwrap_or_default();
                    }
                }
            }
            "volume" => {
                for Entry { key, value, .. } in report.map(&path, value, &["nocopy", "subpath"]) {
                    match key.as_str() {
                        "nocopy" => mount.volume.no_copy = report.boolean(&path, value).unwrap_or_default(),
                        "subpath" => mount.volume.subpath = report.text(&path, value).unwrap_or_default(),
                        _ => {}
                    }
                }
            }
            "tmpfs" => {
                for Entry { key, value, .. } in report.map(&path, value, &["size", "mode"]) {
                    match key.as_str() {
                        "size" => mount.tmpfs.size = report.bytes(&path, value).unwrap_or_default(),
                        "mode" => {
                            mount.tmpfs.mode = report.count(&path, value).and_then(|mode| u32::try_from(mode).ok())
                        }
                        _ => {}
                    }
                }
            }
            "cluster" | "image" => {
                report.error(*place, format!("{path} is not built yet"));
                is_good = false;
            }
            _ => {}
        }
    }
    if node.get("type").is_none() {
        report.error(node.place, format!("{path} has no type; allowed are volume, bind, tmpfs"));
        return None;
    }
    is_good.then_some(mount)
}

fn consistency(path: &str, node: &Node, report: &mut Report<'_>) {
    const VALUES: [&str; 4] = ["default", "consistent", "cached", "delegated"];
    if let Some(text) = report.text(path, node).filter(|text| !VALUES.contains(&text.as_str())) {
        let error = ParseError::new(text, "unknown consistency", VALUES.join(", "));
        report.refuse(path, node.place, &error);
    }
}
