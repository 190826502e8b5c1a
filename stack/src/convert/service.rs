//! A service: its keys, each to its place in the spec, and the spec judged as a whole.

use rswarm_types::parse::choice::{AffinityWord, PreferWord};
use rswarm_types::spec::{Balance, EndpointSpec, LogDriver, ServiceSpec, TaskSpec};
use rswarm_types::validate::{self, Violation};

use super::networks::Networks;
use super::volumes::{Volumes, mounts};
use super::{Context, container, deploy, environment, labels, ports};
use crate::IMAGE_LABEL;
use crate::keys;
use crate::report::{Report, is_extension};
use crate::tree::{Entry, Node, Place, Value};

/// The service key with what compose files have no words for; other tools pass over it, as over all that begin with x-.
const EXTENSION: &str = "x-rswarm";

/// Where values came from, for violations that are found later.
#[derive(Default)]
pub struct Origins(Vec<(&'static str, String, Place)>);

impl Origins {
    /// Remembers the place of a value. `kind` is the first word of a violation's field, `detail` a
    /// part of its field or message.
    pub fn add(&mut self, kind: &'static str, detail: &str, place: Place) {
        self.0.push((kind, detail.into(), place));
    }

    /// The last value that a violation may be about: of two that clash, the later is at fault.
    fn of(&self, violation: &Violation) -> Option<Place> {
        let kind = violation.field.split(' ').next().unwrap_or_default();
        let is_about = |detail: &str| violation.field.contains(detail) || violation.message.contains(detail);
        self.0.iter().rev().find(|(k, detail, _)| *k == kind && is_about(detail)).map(|(_, _, place)| *place)
    }
}

/// Converts one service; `None` when it is no mapping.
pub fn service(
    context: &Context<'_>,
    entry: &Entry,
    networks: &mut Networks,
    volumes: &Volumes,
    report: &mut Report<'_>,
) -> Option<ServiceSpec> {
    let path = format!("services.{}", entry.key);
    if !matches!(entry.value.value, Value::Map(_)) {
        report.any_map(&path, &entry.value);
        return None;
    }
    let mut origins = Origins::default();
    let mut spec = ServiceSpec { name: context.scoped(&entry.key), ..ServiceSpec::default() };
    let TaskSpec { container: target, log_driver, .. } = &mut spec.task;
    for entry in report.any_map(&path, &entry.value) {
        let path = format!("{path}.{}", entry.key);
        check_key(&path, entry, report);
        match entry.key.as_str() {
            "labels" => target.labels = labels(&path, &entry.value, report),
            "logging" => *log_driver = logging(&path, &entry.value, &mut origins, report),
            EXTENSION => spec.endpoint.balance = balance(&path, &entry.value, report),
            "ports" => spec.endpoint.ports = ports::ports(&path, &entry.value, &mut origins, report),
            _ => container::key(&path, entry, target, &mut origins, report),
        }
    }
    container::settle_capabilities(target);
    target.labels = context.labelled(std::mem::take(&mut target.labels));
    target.env = environment::environment(context, entry, &mut origins, report);
    target.mounts = mounts(context, entry, volumes, &mut origins, report);
    spec.task.networks = networks.of_service(entry, report);

    let deploy = deploy::deploy(entry, &mut origins, report);
    spec.labels = context.labelled(deploy.labels);
    spec.labels.insert(IMAGE_LABEL.into(), spec.task.container.image.clone());
    spec.mode = deploy.mode;
    spec.endpoint = EndpointSpec { mode: deploy.endpoint, ..spec.endpoint };
    spec.task.placement = deploy.placement;
    spec.task.resources = deploy.resources;
    spec.task.restart = deploy.restart;
    spec.update = deploy.update;
    spec.rollback = deploy.rollback;
    judge(&path, entry, &spec, &origins, report);
    Some(spec)
}

/// Sorts a key into known, ignored, forbidden, not built yet, and unknown.
fn check_key(path: &str, entry: &Entry, report: &mut Report<'_>) {
    let key = entry.key.as_str();
    if let Some(name) = keys::UNSUPPORTED.iter().find(|name| **name == key) {
        report.unsupported.insert(name);
    } else if let Some(reason) = keys::DEPRECATED.iter().find(|(name, _)| *name == key) {
        report.deprecated.insert(*reason);
    } else if let Some((_, advice)) = keys::FORBIDDEN.iter().find(|(name, _)| *name == key) {
        report.error(entry.place, format!("unsupported option {path}: {advice}"));
    } else if keys::LATER.contains(&key) {
        report.error(entry.place, format!("{path} is not built yet"));
    } else if !keys::SERVICE.contains(&key) && !is_extension(key) {
        let parent = path.strip_suffix(&format!(".{key}")).unwrap_or(path);
        report.unknown(parent, entry, &keys::SERVICE);
    }
}

/// What [`EXTENSION`] says: `{affinity: none|client-ip, prefer: any|local}`.
fn balance(path: &str, node: &Node, report: &mut Report<'_>) -> Balance {
    let mut balance = Balance::default();
    for Entry { key, value, .. } in report.map(path, node, &["affinity", "prefer"]) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "affinity" => balance.by_client = report.choice(&path, value) == Some(AffinityWord::ClientIp),
            "prefer" => balance.prefers_local = report.choice(&path, value) == Some(PreferWord::Local),
            _ => {}
        }
    }
    balance
}

fn logging(path: &str, node: &Node, origins: &mut Origins, report: &mut Report<'_>) -> Option<LogDriver> {
    let mut driver = LogDriver::default();
    for Entry { key, value, .. } in report.map(path, node, &["driver", "options"]) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "driver" => {
                origins.add("log-driver", "", value.place);
                driver.name = report.text(&path, value).unwrap_or_default();
            }
            "options" => {
                for pair in report.pairs(&path, value) {
                    origins.add("log-opt", &pair.key, pair.place);
                    driver.options.insert(pair.key, pair.value.unwrap_or_default());
                }
            }
            _ => {}
        }
    }
    Some(driver)
}

/// Checks the spec; each violation is reported at the value it is about.
fn judge(path: &str, entry: &Entry, spec: &ServiceSpec, origins: &Origins, report: &mut Report<'_>) {
    for violation in validate::service_spec(spec) {
        if report.is_full() {
            return;
        }
        let (kind, detail) = violation.field.split_once(' ').unwrap_or((&violation.field, ""));
        let keys = compose_key(kind);
        if kind == "image" && entry.value.get("image").is_some_and(|image| !matches!(image.value, Value::Text(_))) {
            continue; // Reported already: it is no string.
        }
        let place = origins.of(&violation).or_else(|| nearest_key(&entry.value, keys)).unwrap_or(entry.place);
        let field = if keys.is_empty() { String::new() } else { format!(".{}", keys.join(".")) };
        let detail = if detail.is_empty() { String::new() } else { format!(" {detail}:") };
        report.error(place, format!("{path}{field}:{detail} {}", violation.message));
    }
}

/// The place of the last key of a path that is in the file.
fn nearest_key(node: &Node, keys: &[&str]) -> Option<Place> {
    let (first, rest) = keys.split_first()?;
    let place = node.key_place(first)?;
    node.get(first).and_then(|inner| nearest_key(inner, rest)).or(Some(place))
}

/// Where a compose file has what a flag sets.
fn compose_key(kind: &str) -> &'static [&'static str] {
    match kind {
        "image" => &["image"],
        "label" => &["deploy", "labels"],
        "container-label" => &["labels"],
        "replicas" => &["deploy", "replicas"],
        "replicas-max-per-node" => &["deploy", "placement", "max_replicas_per_node"],
        "constraint" => &["deploy", "placement", "constraints"],
        "placement-pref" => &["deploy", "placement", "preferences"],
        "limit-cpu" => &["deploy", "resources", "limits", "cpus"],
        "limit-memory" => &["deploy", "resources", "limits", "memory"],
        "limit-pids" => &["deploy", "resources", "limits", "pids"],
        "reserve-cpu" => &["deploy", "resources", "reservations", "cpus"],
        "reserve-memory" => &["deploy", "resources", "reservations", "memory"],
        "env" => &["environment"],
        "entrypoint" => &["entrypoint"],
        "args" => &["command"],
        "hostname" => &["hostname"],
        "workdir" => &["working_dir"],
        "user" => &["user"],
        "group" => &["group_add"],
        "stop-signal" => &["stop_signal"],
        "health-cmd" => &["healthcheck", "test"],
        "health-interval" => &["healthcheck", "interval"],
        "health-timeout" => &["healthcheck", "timeout"],
        "health-start-period" => &["healthcheck", "start_period"],
        "health-start-interval" => &["healthcheck", "start_interval"],
        "mount" => &["volumes"],
        "host" => &["extra_hosts"],
        "dns-search" => &["dns_search"],
        "dns-option" => &["dns_opt"],
        "sysctl" => &["sysctls"],
        "cap-add" => &["cap_add"],
        "cap-drop" => &["cap_drop"],
        "ulimit" => &["ulimits"],
        "oom-score-adj" => &["oom_score_adj"],
        "endpoint-affinity" => &[EXTENSION, "affinity"],
        "endpoint-prefer" => &[EXTENSION, "prefer"],
        "publish" => &["ports"],
        "network" => &["networks"],
        "log-driver" => &["logging", "driver"],
        "log-opt" => &["logging", "options"],
        _ => &[],
    }
}
