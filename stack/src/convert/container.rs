//! The container of a service's tasks.

use std::collections::BTreeSet;
use std::time::Duration;

use rswarm_types::parse::{ParseError, parse_host, split_words};
use rswarm_types::spec::{ContainerSpec, Healthcheck, HostEntry, Ulimit};

use super::service::Origins;
use crate::report::Report;
use crate::tree::{Entry, Node, Value};

const HEALTH_KEYS: [&str; 7] = ["disable", "interval", "retries", "start_interval", "start_period", "test", "timeout"];

/// Reads one key of a service that belongs to its container.
pub fn key(path: &str, entry: &Entry, spec: &mut ContainerSpec, origins: &mut Origins, report: &mut Report<'_>) {
    let node = &entry.value;
    match entry.key.as_str() {
        "image" => spec.image = report.text(path, node).unwrap_or_default(),
        "command" => spec.args = words(path, node, report),
        "entrypoint" => spec.command = words(path, node, report),
        "hostname" => spec.hostname = report.text(path, node).unwrap_or_default(),
        "working_dir" => spec.dir = report.text(path, node).unwrap_or_default(),
        "user" => spec.user = report.text(path, node).unwrap_or_default(),
        "group_add" => {
            for item in report.list(path, node) {
                spec.groups.extend(report.text_or_number(path, item).flatten());
            }
        }
        "init" => spec.init = report.boolean(path, node),
        "tty" => spec.tty = report.boolean(path, node).unwrap_or_default(),
        "stdin_open" => spec.open_stdin = report.boolean(path, node).unwrap_or_default(),
        "read_only" => spec.read_only = report.boolean(path, node).unwrap_or_default(),
        "stop_signal" => spec.stop_signal = report.text(path, node).unwrap_or_default(),
        "stop_grace_period" => spec.stop_grace = report.duration(path, node),
        "healthcheck" => spec.healthcheck = Some(healthcheck(path, node, report)),
        "extra_hosts" => spec.hosts = hosts(path, node, report),
        "dns" => {
            for (place, text) in report.one_or_more(path, node) {
                spec.dns.nameservers.extend(report.address(path, place, &text));
            }
        }
        "dns_search" => spec.dns.search = placed("dns-search", report.one_or_more(path, node), origins),
        "dns_opt" => spec.dns.options = placed("dns-option", report.texts(path, node), origins),
        "cap_add" => spec.cap_add = capabilities(placed("cap-add", report.texts(path, node), origins)),
        "cap_drop" => spec.cap_drop = capabilities(placed("cap-drop", report.texts(path, node), origins)),
        "sysctls" => {
            for pair in report.pairs(path, node) {
                origins.add("sysctl", &pair.key, pair.place);
                spec.sysctls.insert(pair.key, pair.value.unwrap_or_default());
            }
        }
        "ulimits" => spec.ulimits = ulimits(path, node, report),
        "oom_score_adj" => {
            let number = report.integer(path, node).unwrap_or_default();
            spec.oom_score_adj = i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX });
        }
        _ => {}
    }
}

/// What is added wins over what is dropped, as Docker's client decides.
pub fn settle_capabilities(spec: &mut ContainerSpec) {
    for list in [&mut spec.cap_add, &mut spec.cap_drop] {
        if list.iter().any(|name| name == "ALL") {
            *list = vec!["ALL".into()];
        }
    }
    let added = spec.cap_add.clone();
    spec.cap_drop.retain(|name| name == "ALL" || !added.contains(name));
}

/// Upper case without `CAP_`, sorted, once each.
fn capabilities(names: Vec<String>) -> Vec<String> {
    let normal = names.into_iter().map(|name| {
        let name = name.trim().to_ascii_uppercase();
        name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
    });
    normal.collect::<BTreeSet<String>>().into_iter().collect()
}

/// Values alone, with their places kept for later.
fn placed(kind: &'static str, values: Vec<(crate::tree::Place, String)>, origins: &mut Origins) -> Vec<String> {
    let keep = |(place, text): (crate::tree::Place, String)| {
        let bare = text.to_ascii_uppercase();
        origins.add(kind, if kind.starts_with("cap") { bare.trim_start_matches("CAP_") } else { &text }, place);
        text
    };
    values.into_iter().map(keep).collect()
}

/// A command: one line that is split into words, or a list of words.
fn words(path: &str, node: &Node, report: &mut Report<'_>) -> Vec<String> {
    match &node.value {
        Value::Text(text) => match split_words(text) {
            Ok(words) => words,
            Err(ParseError { problem, allowed, .. }) => {
                report.error(node.place, format!("{path}: {problem}; allowed are {allowed}"));
                Vec::new()
            }
        },
        _ => report.one_or_more(path, node).into_iter().map(|(_, word)| word).collect(),
    }
}

fn healthcheck(path: &str, node: &Node, report: &mut Report<'_>) -> Healthcheck {
    let mut check = Healthcheck::default();
    let mut is_disabled = false;
    for Entry { key, value, .. } in report.map(path, node, &HEALTH_KEYS) {
        let path = format!("{path}.{key}");
        let time = |report: &mut Report<'_>| report.duration(&path, value).filter(|time: &Duration| !time.is_zero());
        match key.as_str() {
            "disable" => is_disabled = report.boolean(&path, value).unwrap_or_default(),
            "test" => {
                check.test = match &value.value {
                    Value::Text(text) => vec!["CMD-SHELL".into(), text.clone()],
                    _ => report.one_or_more(&path, value).into_iter().map(|(_, word)| word).collect(),
                }
            }
            "interval" => check.interval = time(report),
            "timeout" => check.timeout = time(report),
            "start_period" => check.start_period = time(report),
            "start_interval" => check.start_interval = time(report),
            "retries" => {
                let retries = report.count(&path, value).unwrap_or_default();
                match u32::try_from(retries) {
                    Ok(retries) => check.retries = retries,
                    Err(_) => report.error(value.place, format!("{path} is {retries}; at most {}", u32::MAX)),
                }
            }
            _ => {}
        }
    }
    if is_disabled {
        if let Some(test) = node.get("test") {
            report.error(test.place, format!("{path}: test and disable cannot be set at the same time"));
        }
        return Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() };
    }
    check
}

fn hosts(path: &str, node: &Node, report: &mut Report<'_>) -> Vec<HostEntry> {
    let texts = match &node.value {
        Value::Map(entries) => entries
            .iter()
            .filter_map(|entry| Some((entry.place, format!("{}={}", entry.key, report.text(path, &entry.value)?))))
            .collect(),
        _ => report.texts(path, node),
    };
    texts.into_iter().filter_map(|(place, text)| report.accept(path, place, parse_host(&text))).collect()
}

/// `NAME: LIMIT` or `NAME: {soft: …, hard: …}`, sorted by name as Docker sends them.
fn ulimits(path: &str, node: &Node, report: &mut Report<'_>) -> Vec<Ulimit> {
    let mut ulimits = Vec::new();
    for entry in report.any_map(path, node) {
        let path = format!("{path}.{}", entry.key);
        let (soft, hard) = match &entry.value.value {
            Value::Map(_) => {
                report.map(&path, &entry.value, &["soft", "hard"]);
                let mut side = |key: &str| match entry.value.get(key) {
                    Some(value) => report.integer(&format!("{path}.{key}"), value),
                    None => {
                        report.error(entry.place, format!("{path} has no {key} limit; expected soft and hard"));
                        None
                    }
                };
                (side("soft"), side("hard"))
            }
            _ => {
                let limit = report.integer(&path, &entry.value);
                (limit, limit)
            }
        };
        if let (Some(soft), Some(hard)) = (soft, hard) {
            ulimits.push(Ulimit { name: entry.key.clone(), soft, hard });
        }
    }
    ulimits.sort_by(|a, b| a.name.cmp(&b.name));
    ulimits
}
