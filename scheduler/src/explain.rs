//! Why no node takes a task: Swarm's texts, with the names of the nodes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use rswarm_types::node::Node;
use rswarm_types::spec::{Availability, Platform};
use rswarm_types::{Bytes, NanoCpus, NodeId};

use crate::cluster::{Cluster, Index};
use crate::judge::{Reason, Wants};

/// Nodes that one reason names; the rest is counted.
const NODES_NAMED: usize = 3;

/// Reasons that share a text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    NotAvailable,
    Cpu,
    Memory,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
}

fn kind(reason: Reason) -> Option<Kind> {
    Some(match reason {
        Reason::Gone => return None,
        Reason::NotReady(_) | Reason::NotActive(_) => Kind::NotAvailable,
        Reason::Cpu => Kind::Cpu,
        Reason::Memory => Kind::Memory,
        Reason::Constraint(_) => Kind::Constraint,
        Reason::Platform => Kind::Platform,
        Reason::HostPort(..) => Kind::HostPort,
        Reason::MaxReplicas => Kind::MaxReplicas,
    })
}

/// The explanation for nodes that were refused for these reasons.
pub(crate) fn explain(cluster: &Cluster, wants: &Wants, refused: &[(Index, Reason)]) -> Arc<str> {
    let mut by_kind: BTreeMap<Kind, Vec<(Index, Reason)>> = BTreeMap::new();
    for (at, reason) in refused {
        if let Some(kind) = kind(*reason) {
            by_kind.entry(kind).or_default().push((*at, *reason));
        }
    }
    if by_kind.is_empty() {
        return "no suitable node (the cluster has no nodes)".into();
    }
    // What refuses the most nodes is said first.
    let mut kinds: Vec<(Kind, Vec<(Index, Reason)>)> = by_kind.into_iter().collect();
    kinds.sort_by_key(|(kind, nodes)| (std::cmp::Reverse(nodes.len()), *kind));
    let parts: Vec<String> = kinds.iter().map(|(kind, nodes)| describe(cluster, wants, *kind, nodes)).collect();
    format!("no suitable node ({})", parts.join("; ")).into()
}

fn describe(cluster: &Cluster, wants: &Wants, kind: Kind, nodes: &[(Index, Reason)]) -> String {
    let count = count(nodes.len());
    let resources = &wants.spec.task.resources;
    match kind {
        Kind::NotAvailable => {
            let states = named(cluster, nodes, |node, reason| format!("{} is {}", node.display_name(), state(reason)));
            format!("{count} not available for new tasks ({states})")
        }
        Kind::Cpu => {
            let (node, free) = best(cluster, nodes, Reason::Cpu);
            format!(
                "insufficient CPU on {count} (need {}, best: {node} with {} free)",
                resources.reserve_cpu,
                NanoCpus(free)
            )
        }
        Kind::Memory => {
            let (node, free) = best(cluster, nodes, Reason::Memory);
            format!(
                "insufficient memory on {count} (need {}, best: {node} with {} free)",
                resources.reserve_memory,
                Bytes(free),
            )
        }
        Kind::Constraint => {
            let mut by_constraint: BTreeMap<u16, Vec<(Index, Reason)>> = BTreeMap::new();
            for (at, reason) in nodes {
                if let Reason::Constraint(place) = reason {
                    by_constraint.entry(*place).or_default().push((*at, *reason));
                }
            }
            let mut text = format!("scheduling constraints not satisfied on {count} (");
            for (n, (place, nodes)) in by_constraint.iter().enumerate() {
                let constraint = wants.spec.task.placement.constraints.get(usize::from(*place));
                let names = named(cluster, nodes, |node, _| node.display_name());
                let comma = if n > 0 { ", " } else { "" };
                let _ = write!(text, "{comma}\"{}\": {names}", constraint.map_or("", String::as_str));
            }
            text.push(')');
            text
        }
        Kind::Platform => {
            let image: Vec<String> = wants.spec.task.placement.platforms.iter().map(platform).collect();
            let nodes = named(cluster, nodes, |node, _| {
                format!("{} is {}", node.display_name(), platform(&node.description.platform))
            });
            format!("unsupported platform on {count} (image is for {}, {nodes})", image.join(", "))
        }
        Kind::HostPort => {
            let ports = named(cluster, nodes, |node, reason| match reason {
                Reason::HostPort(port, protocol) => format!("{port}/{protocol} on {}", node.display_name()),
                _ => node.display_name(),
            });
            format!("host-mode port already in use on {count} ({ports})")
        }
        Kind::MaxReplicas => {
            let max = wants.spec.task.placement.max_replicas_per_node;
            format!("max replicas per node limit exceed on {count} (at most {max} per node)")
        }
    }
}

fn count(nodes: usize) -> String {
    if nodes == 1 { "1 node".into() } else { format!("{nodes} nodes") }
}

/// The first few nodes by name, and how many more there are.
fn named(cluster: &Cluster, nodes: &[(Index, Reason)], print: impl Fn(&Node, Reason) -> String) -> String {
    let mut first: Vec<(&Node, Reason)> = Vec::with_capacity(NODES_NAMED + 1);
    for (at, reason) in nodes {
        let Some(node) = cluster.slots[*at as usize].node.as_deref() else { continue };
        let is_before = |other: &(&Node, Reason)| {
            (other.0.description.hostname.as_str(), other.0.id) < (node.description.hostname.as_str(), node.id)
        };
        let place = first.partition_point(is_before);
        if place < NODES_NAMED {
            first.insert(place, (node, *reason));
            first.truncate(NODES_NAMED);
        }
    }
    let shown: Vec<String> = first.iter().map(|(node, reason)| print(node, *reason)).collect();
    let rest = nodes.len() - shown.len();
    if rest > 0 { format!("{} and {rest} more", shown.join(", ")) } else { shown.join(", ") }
}

/// What a node has left of a resource. More is greater; of equals the lesser id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Free {
    amount: u64,
    pub node: std::cmp::Reverse<NodeId>,
}

impl Free {
    /// `None` when the node lacks something else.
    pub fn of(cluster: &Cluster, at: Index, reason: Reason) -> Option<Self> {
        let slot = &cluster.slots[at as usize];
        let description = &slot.node.as_ref()?.description;
        let amount = match reason {
            Reason::Cpu => description.cpus.0.saturating_sub(slot.reserved_cpu),
            Reason::Memory => description.memory.0.saturating_sub(slot.reserved_memory),
            _ => return None,
        };
        Some(Self { amount, node: std::cmp::Reverse(slot.id) })
    }
}

/// The most that a node refused for this reason has free.
pub(crate) fn most_free(cluster: &Cluster, nodes: &[(Index, Reason)], reason: Reason) -> Option<Free> {
    let refused = nodes.iter().filter(|(_, why)| *why == reason);
    refused.filter_map(|(at, why)| Free::of(cluster, *at, *why)).max()
}

fn best(cluster: &Cluster, nodes: &[(Index, Reason)], reason: Reason) -> (String, u64) {
    let Some(free) = most_free(cluster, nodes, reason) else { return (String::new(), 0) };
    let node = cluster.indexes.get(&free.node.0).and_then(|at| cluster.slots[*at as usize].node.as_ref());
    (node.map(|node| node.display_name()).unwrap_or_default(), free.amount)
}

fn state(reason: Reason) -> String {
    match reason {
        Reason::NotReady(state) => state.to_string(),
        Reason::NotActive(Availability::Pause) => "paused".into(),
        Reason::NotActive(Availability::Drain) => "drained".into(),
        _ => "not available".into(),
    }
}

fn platform(platform: &Platform) -> String {
    let part = |text: &str| if text.is_empty() { "any".into() } else { text.to_owned() };
    format!("{}/{}", part(&platform.os), part(&platform.architecture))
}
