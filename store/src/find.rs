//! Objects by what people type: an id, a name, or the beginning of an id.

use std::sync::Arc;

use imbl::OrdMap;
use rswarm_types::id::{ID_LENGTH, from_base36};
use rswarm_types::network::Network;
use rswarm_types::node::Node;
use rswarm_types::service::Service;
use rswarm_types::task::Task;
use rswarm_types::{NetworkId, NodeId, Refusal, ServiceId, TaskId};

use crate::rows::Row;
use crate::state::State;

/// Matches named in a refusal.
const MATCHES_NAMED: usize = 3;

impl State {
    /// A service by id, name or prefix of its id; services being removed are not found.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when a prefix fits several.
    pub fn find_service(&self, text: &str) -> Result<&Arc<Service>, Refusal> {
        let exact = text.parse().ok().and_then(|id: ServiceId| self.service(id)).filter(|s| !s.removing);
        let named = || self.indexes.service_names.get(text).and_then(|id| self.service(*id));
        if let Some(service) = exact.or_else(named) {
            return Ok(service);
        }
        let found = by_prefix(&self.services, text, ServiceId).filter(|s| !s.removing);
        one("service", text, found, |s| format!("{} {}", s.id.short(), s.spec.name))
    }

    /// A network by id, name or prefix of its id; networks being removed are not found.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when a prefix fits several.
    pub fn find_network(&self, text: &str) -> Result<&Arc<Network>, Refusal> {
        let exact = text.parse().ok().and_then(|id: NetworkId| self.network(id)).filter(|n| !n.removing);
        let named = || self.indexes.network_names.get(text).and_then(|id| self.network(*id));
        if let Some(network) = exact.or_else(named) {
            return Ok(network);
        }
        let found = by_prefix(&self.networks, text, NetworkId).filter(|n| !n.removing);
        one("network", text, found, |n| format!("{} {}", n.id.short(), n.spec.name))
    }

    /// A node by id, hostname or prefix of its id.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when a hostname or prefix fits several.
    pub fn find_node(&self, text: &str) -> Result<&Arc<Node>, Refusal> {
        let print = |node: &Node| format!("{} {}", node.id.short(), node.display_name());
        if let Some(node) = text.parse().ok().and_then(|id: NodeId| self.node(id)) {
            return Ok(node);
        }
        let mut named = self.nodes().filter(|n| !text.is_empty() && n.description.hostname == text).peekable();
        if named.peek().is_some() {
            return one("node", text, named, print);
        }
        one("node", text, by_prefix(&self.nodes, text, NodeId), print)
    }

    /// A task by id, full name (`service.slot.id`) or prefix of its id.
    ///
    /// # Errors
    /// `NotFound`, or `Conflict` when a prefix fits several.
    pub fn find_task(&self, text: &str) -> Result<&Arc<Task>, Refusal> {
        let id = text.rsplit('.').next().unwrap_or(text);
        let is_named = |task: &&Arc<Task>| id.len() == text.len() || task.name() == text;
        if let Some(task) = id.parse().ok().and_then(|id: TaskId| self.task(id)).filter(is_named) {
            return Ok(task);
        }
        one("task", text, by_prefix(&self.tasks, text, TaskId), |t| t.name())
    }
}

/// Records whose printed id begins with the text.
fn by_prefix<'a, K: Ord + Clone, T>(
    table: &'a OrdMap<K, Row<T>>,
    text: &str,
    id: fn(u128) -> K,
) -> impl Iterator<Item = &'a Arc<T>> {
    let bounds = prefix_bounds(text).map(|(first, last)| (id(first), id(last)));
    bounds.into_iter().flat_map(|(first, last)| table.range(first..=last)).map(|(_, row)| &row.record)
}

/// The least and the greatest id that begin with the text.
fn prefix_bounds(text: &str) -> Option<(u128, u128)> {
    let missing = ID_LENGTH.checked_sub(text.len()).filter(|missing| *missing < ID_LENGTH)?;
    let first = from_base36(&format!("{text}{}", "0".repeat(missing))).ok()?;
    let width = u32::try_from(missing).ok().and_then(|m| 36u128.checked_pow(m))?;
    Some((first, first.saturating_add(width - 1)))
}

/// The only match, or why there is none.
fn one<'a, T>(
    kind: &str,
    text: &str,
    mut found: impl Iterator<Item = &'a Arc<T>>,
    print: impl Fn(&T) -> String,
) -> Result<&'a Arc<T>, Refusal> {
    let Some(first) = found.next() else {
        return Err(Refusal::not_found(kind, text));
    };
    let Some(second) = found.next() else {
        return Ok(first);
    };
    let mut names = vec![print(first), print(second)];
    names.extend(found.by_ref().take(MATCHES_NAMED - 2).map(|t| print(t)));
    let rest = found.count();
    let count = names.len() + rest;
    let more = if rest > 0 { format!(", and {rest} more") } else { String::new() };
    Err(Refusal::Conflict(format!(
        "{kind} \"{text}\" is ambiguous: {count} match ({}{more})\n       give more characters of the id",
        names.join(", "),
    )))
}
