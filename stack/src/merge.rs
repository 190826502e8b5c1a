//! Several files as one: a later file wins, by Docker's rules for each key.

use std::net::IpAddr;

use rswarm_types::parse::port::parse_host_address;
use rswarm_types::parse::{parse_publish, parse_volume};

use crate::scalar::number_text;
use crate::tree::{Entry, Node, Value};

/// Merges the files in order.
pub fn files(trees: Vec<Node>) -> Node {
    let merged = trees.into_iter().reduce(|base, over| {
        merge_maps(base, over, &|key, base, over| match key {
            "services" => merge_maps(base, over, &|_, base, over| merge_maps(base, over, &service_key)),
            // A network or volume that is declared again is replaced whole.
            "networks" | "volumes" | "secrets" | "configs" => merge_maps(base, over, &replace),
            _ => over,
        })
    });
    merged.unwrap_or(Node { place: Default::default(), value: Value::Null })
}

type Rule<'r> = dyn Fn(&str, Node, Node) -> Node + 'r;

fn replace(_key: &str, _base: Node, over: Node) -> Node {
    over
}

/// Merges two mappings; keys of both go through `rule`. Where one is no mapping, the later stays.
fn merge_maps(base: Node, over: Node, rule: &Rule<'_>) -> Node {
    let place = over.place;
    match (base.value, over.value) {
        (Value::Map(mut entries), Value::Map(more)) => {
            for new in more {
                match entries.iter_mut().find(|old| old.key == new.key) {
                    Some(old) => {
                        let base = std::mem::replace(&mut old.value, Node { place: new.place, value: Value::Null });
                        *old = Entry { value: rule(&new.key, base, new.value), key: new.key, place: new.place };
                    }
                    None => entries.push(new),
                }
            }
            Node { place, value: Value::Map(entries) }
        }
        (Value::Map(entries), Value::Null) => Node { place: base.place, value: Value::Map(entries) },
        (_, value) => Node { place, value },
    }
}

fn service_key(key: &str, base: Node, over: Node) -> Node {
    match key {
        "environment" | "labels" | "sysctls" => merge_maps(pairs_as_map(base), pairs_as_map(over), &replace),
        "networks" => merge_maps(names_as_map(base), names_as_map(over), &replace),
        "healthcheck" | "ulimits" => merge_maps(base, over, &replace),
        "extra_hosts" => append(hosts_as_list(base), hosts_as_list(over)),
        "dns" | "dns_search" | "env_file" | "tmpfs" => append(one_as_list(base), one_as_list(over)),
        "dns_opt" | "cap_add" | "cap_drop" | "group_add" | "expose" | "secrets" | "configs" => append(base, over),
        "ports" => override_items(base, over, published),
        "volumes" => override_items(base, over, |node| volume_target(node).into_iter().collect()),
        "logging" => logging(base, over),
        "deploy" => merge_maps(base, over, &deploy_key),
        _ => over,
    }
}

fn deploy_key(key: &str, base: Node, over: Node) -> Node {
    match (key, &base.value, &over.value) {
        ("labels", _, _) => merge_maps(pairs_as_map(base), pairs_as_map(over), &replace),
        (_, Value::Map(_), Value::Map(_)) => merge_maps(base, over, &deploy_key),
        (_, Value::List(_), Value::List(_)) => append(base, over),
        _ => over,
    }
}

/// Options of two drivers do not mix.
fn logging(base: Node, over: Node) -> Node {
    let driver = |node: &Node| node.get("driver").map(|d| d.value.clone());
    match (driver(&base), driver(&over)) {
        (Some(a), Some(b)) if a != b => over,
        _ => merge_maps(base, over, &|key, base, over| match key {
            "options" => merge_maps(base, over, &replace),
            _ => over,
        }),
    }
}

fn append(base: Node, over: Node) -> Node {
    match (base.value, over.value) {
        (Value::List(mut items), Value::List(more)) => {
            items.extend(more);
            Node { place: over.place, value: Value::List(items) }
        }
        (_, value) => Node { place: over.place, value },
    }
}

/// Appends, after dropping the items of `base` that share an identity with one of `over`.
fn override_items<T: PartialEq>(base: Node, over: Node, identity: impl Fn(&Node) -> Vec<T>) -> Node {
    let taken: Vec<T> = over.items().iter().flat_map(&identity).collect();
    let keep = |item: &Node| !identity(item).iter().any(|id| taken.contains(id));
    let base = match base.value {
        Value::List(items) => Node { place: base.place, value: Value::List(items.into_iter().filter(keep).collect()) },
        _ => base,
    };
    append(base, over)
}

/// The published ports of an item of `ports`, with their protocol and address.
fn published(node: &Node) -> Vec<(u16, String, Option<IpAddr>)> {
    match &node.value {
        Value::Text(text) => {
            let ports = parse_publish(text).unwrap_or_default();
            let numbered = ports.iter().filter(|p| p.published > 0);
            numbered.map(|p| (p.published, p.protocol.to_string(), p.address)).collect()
        }
        Value::Map(_) => {
            let text = |key| match node.get(key).map(|n| &n.value) {
                Some(Value::Number(text) | Value::Text(text)) => Some(text.clone()),
                _ => None,
            };
            let port = text("published").and_then(|t| number_text(&t)).and_then(|t| t.parse().ok());
            let protocol = text("protocol").unwrap_or_else(|| "tcp".into());
            let address = text("host_ip").and_then(|text| parse_host_address(&text).ok()?);
            port.map(|port| (port, protocol, address)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn volume_target(node: &Node) -> Option<String> {
    match &node.value {
        Value::Text(text) => parse_volume(text).ok().map(|volume| volume.mount.target),
        _ => match node.get("target").map(|n| &n.value) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        },
    }
}

/// A list of `KEY=VALUE` as a mapping.
fn pairs_as_map(node: Node) -> Node {
    list_as_map(node, |place, text| match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Node::text(place, value)),
        None => (text.to_owned(), Node { place, value: Value::Null }),
    })
}

/// A list of names as a mapping without values.
fn names_as_map(node: Node) -> Node {
    list_as_map(node, |place, text| (text.to_owned(), Node { place, value: Value::Null }))
}

/// A list of texts as a mapping; a list with anything else is left for the conversion to refuse.
fn list_as_map(node: Node, split: impl Fn(crate::tree::Place, &str) -> (String, Node)) -> Node {
    let entries: Option<Vec<Entry>> = match &node.value {
        Value::List(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Text(text) => {
                    let (key, value) = split(item.place, text);
                    Some(Entry { key, place: item.place, value })
                }
                _ => None,
            })
            .collect(),
        _ => None,
    };
    match entries {
        Some(entries) => Node { place: node.place, value: Value::Map(entries) },
        None => node,
    }
}

fn one_as_list(node: Node) -> Node {
    match node.value {
        Value::Text(_) => Node { place: node.place, value: Value::List(vec![node]) },
        _ => node,
    }
}

/// A mapping of hosts as a list of `HOST=ADDRESS`.
fn hosts_as_list(node: Node) -> Node {
    let items: Option<Vec<Node>> = match &node.value {
        Value::Map(entries) => entries
            .iter()
            .map(|entry| match &entry.value.value {
                Value::Text(address) => Some(Node::text(entry.place, format!("{}={address}", entry.key))),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    match items {
        Some(items) => Node { place: node.place, value: Value::List(items) },
        None => node,
    }
}
