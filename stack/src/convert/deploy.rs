//! `deploy`: how many tasks, where, with how much, and how they are replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use rswarm_types::limits;
use rswarm_types::parse::choice::ModeWord;
use rswarm_types::parse::parse_placement_pref;
use rswarm_types::spec::{
    EndpointMode, Placement, Resources, RestartCondition, RestartPolicy, ServiceMode, UpdateConfig,
};

use super::labels;
use super::service::Origins;
use crate::report::Report;
use crate::tree::{Entry, Node, Value};

const DEPLOY_KEYS: [&str; 9] = [
    "endpoint_mode",
    "labels",
    "mode",
    "placement",
    "replicas",
    "resources",
    "restart_policy",
    "rollback_config",
    "update_config",
];
const UPDATE_KEYS: [&str; 6] = ["delay", "failure_action", "max_failure_ratio", "monitor", "order", "parallelism"];
const RESTART_KEYS: [&str; 4] = ["condition", "delay", "max_attempts", "window"];
const PLACEMENT_KEYS: [&str; 3] = ["constraints", "max_replicas_per_node", "preferences"];

/// What `deploy` says, with Docker's defaults.
#[derive(Default)]
pub struct Deploy {
    pub labels: BTreeMap<String, String>,
    pub mode: ServiceMode,
    pub endpoint: EndpointMode,
    pub placement: Placement,
    pub resources: Resources,
    pub restart: RestartPolicy,
    pub update: Option<UpdateConfig>,
    pub rollback: Option<UpdateConfig>,
}

/// Reads `deploy`, and `restart` where there is no restart policy.
pub fn deploy(service: &Entry, origins: &mut Origins, report: &mut Report<'_>) -> Deploy {
    let mut deploy = Deploy::default();
    let path = format!("services.{}.deploy", service.key);
    let node = service.value.get("deploy").filter(|node| node.value != Value::Null);
    let mut has_policy = false;
    if let Some(node) = node {
        deploy.mode = mode(&path, node, report);
        for Entry { key, value, .. } in report.map(&path, node, &DEPLOY_KEYS) {
            let path = format!("{path}.{key}");
            match key.as_str() {
                "labels" => deploy.labels = labels(&path, value, report),
                "endpoint_mode" => deploy.endpoint = report.choice(&path, value).unwrap_or_default(),
                "placement" => deploy.placement = placement(&path, value, origins, report),
                "resources" => deploy.resources = resources(&path, value, origins, report),
                "restart_policy" => {
                    has_policy = true;
                    deploy.restart = restart_policy(&path, value, report);
                }
                "update_config" => deploy.update = Some(update(&path, value, report)),
                "rollback_config" => deploy.rollback = Some(update(&path, value, report)),
                _ => {}
            }
        }
    }
    if let Some(node) = service.value.get("restart").filter(|_| !has_policy) {
        deploy.restart = restart(&format!("services.{}.restart", service.key), node, report);
    }
    deploy
}

fn mode(path: &str, node: &Node, report: &mut Report<'_>) -> ServiceMode {
    let word = node.get("mode").and_then(|value| report.choice(&format!("{path}.mode"), value));
    let replicas = node.get("replicas");
    let count = replicas.and_then(|value| report.count(&format!("{path}.replicas"), value));
    match word {
        Some(ModeWord::Global) => {
            if let Some(replicas) = replicas {
                report.error(
                    replicas.place,
                    format!(
                        "{path}.replicas goes with mode replicated only; a global service has one task on each node"
                    ),
                );
            }
            ServiceMode::Global
        }
        Some(ModeWord::Replicated) | None => ServiceMode::Replicated { replicas: count.unwrap_or(1) },
    }
}

fn placement(path: &str, node: &Node, origins: &mut Origins, report: &mut Report<'_>) -> Placement {
    let mut placement = Placement::default();
    for Entry { key, value, .. } in report.map(path, node, &PLACEMENT_KEYS) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "constraints" => {
                for (place, expression) in report.texts(&path, value) {
                    origins.add("constraint", &format!("\"{expression}\""), place);
                    placement.constraints.push(expression);
                }
            }
            "preferences" => {
                for item in report.list(&path, value) {
                    report.map(&path, item, &["spread"]);
                    let spread = item.get("spread").and_then(|value| Some((value.place, report.text(&path, value)?)));
                    if let Some((place, text)) = spread {
                        let preference = parse_placement_pref(&format!("spread={text}"));
                        placement.preferences.extend(report.accept(&path, place, preference));
                    }
                }
            }
            "max_replicas_per_node" => placement.max_replicas_per_node = report.count(&path, value).unwrap_or_default(),
            _ => {}
        }
    }
    placement
}

fn resources(path: &str, node: &Node, origins: &mut Origins, report: &mut Report<'_>) -> Resources {
    let mut resources = Resources::default();
    for Entry { key: side, value: node, .. } in report.map(path, node, &["limits", "reservations"]) {
        let path = format!("{path}.{side}");
        let (is_limit, known): (bool, &[&str]) = match side.as_str() {
            "limits" => (true, &["cpus", "memory", "pids"]),
            "reservations" => (false, &["cpus", "memory", "generic_resources"]),
            _ => continue,
        };
        if node.value == Value::Null {
            continue;
        }
        for Entry { key, value, place } in report.map(&path, node, known) {
            let path = format!("{path}.{key}");
            match (key.as_str(), is_limit) {
                ("cpus", true) => {
                    origins.add("limit-cpu", "", value.place);
                    resources.limit_cpu = report.cpus(&path, value).unwrap_or_default();
                }
                ("cpus", false) => {
                    origins.add("reserve-cpu", "", value.place);
                    resources.reserve_cpu = report.cpus(&path, value).unwrap_or_default();
                }
                ("memory", true) => {
                    origins.add("limit-memory", "", value.place);
                    resources.limit_memory = report.bytes(&path, value).unwrap_or_default();
                }
                ("memory", false) => {
                    origins.add("reserve-memory", "", value.place);
                    resources.reserve_memory = report.bytes(&path, value).unwrap_or_default();
                }
                ("pids", _) => resources.limit_pids = report.count(&path, value).unwrap_or_default(),
                ("generic_resources", _) => report.error(*place, format!("{path} is not built yet")),
                _ => {}
            }
        }
    }
    resources
}

fn restart_policy(path: &str, node: &Node, report: &mut Report<'_>) -> RestartPolicy {
    let mut policy = RestartPolicy::default();
    for Entry { key, value, .. } in report.map(path, node, &RESTART_KEYS) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "condition" => policy.condition = report.choice(&path, value).unwrap_or_default(),
            "delay" => policy.delay = report.duration(&path, value).unwrap_or_default(),
            "max_attempts" => policy.max_attempts = report.count(&path, value).unwrap_or_default(),
            "window" => policy.window = report.duration(&path, value).unwrap_or_default(),
            _ => {}
        }
    }
    policy
}

/// `restart` as for single containers: Docker maps it while it says that it ignores it. `no` means
/// the default there, and so here.
fn restart(path: &str, node: &Node, report: &mut Report<'_>) -> RestartPolicy {
    const ALLOWED: &str = "no, always, unless-stopped, on-failure[:ATTEMPTS]";
    let default = RestartPolicy::default();
    let text = match &node.value {
        // `restart: no` without quotes is text in YAML 1.2, but `false` is what some tools write.
        Value::Bool(false) => "no".into(),
        _ => match report.text(path, node) {
            Some(text) => text,
            None => return default,
        },
    };
    let (name, attempts) = text.split_once(':').unwrap_or((&text, ""));
    match (name, attempts) {
        ("" | "no" | "always" | "unless-stopped", "") => default,
        ("on-failure", "") => RestartPolicy { condition: RestartCondition::OnFailure, ..default },
        ("on-failure", attempts) if attempts.parse::<u32>().is_ok() => RestartPolicy {
            condition: RestartCondition::OnFailure,
            max_attempts: attempts.parse().unwrap_or_default(),
            ..default
        },
        _ => {
            report.error(node.place, format!("{path} is \"{text}\"; allowed are {ALLOWED}"));
            default
        }
    }
}

fn update(path: &str, node: &Node, report: &mut Report<'_>) -> UpdateConfig {
    let mut update = UpdateConfig::default();
    for Entry { key, value, .. } in report.map(path, node, &UPDATE_KEYS) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "parallelism" => update.parallelism = report.count(&path, value).unwrap_or_default(),
            "delay" => update.delay = report.duration(&path, value).unwrap_or_default(),
            "failure_action" => update.failure_action = report.choice(&path, value).unwrap_or_default(),
            "monitor" => {
                let default = Duration::from_millis(limits::UPDATE_MONITOR_MS);
                update.monitor = report.duration_or(&path, value, default);
            }
            "max_failure_ratio" => {
                let ratio = report.decimal(&path, value).unwrap_or_default();
                if ratio != 0.0 {
                    report.error(value.place, format!("{path} other than 0 is not built yet"));
                }
            }
            "order" => update.order = report.choice(&path, value).unwrap_or_default(),
            _ => {}
        }
    }
    update
}
