//! The state as records, and back.

use std::sync::Arc;

use rswarm_types::command::{Cursor, Record};
use rswarm_types::node::Node;
use rswarm_types::service::Service;
use rswarm_types::spec::ServiceSpec;
use rswarm_types::task::Task;

use crate::state::{Position, State};

/// Records that no state can have written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSnapshot {
    #[error("the snapshot has no cursor record: it is cut short")]
    NoCursor,
    #[error("the snapshot has two records for {0}")]
    Twice(String),
    #[error("the snapshot contradicts itself: {}", .0.join("; "))]
    Contradiction(Vec<String>),
}

impl State {
    /// Every record in table order; the cursor comes last, so that a cut snapshot is noticed.
    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let Position { at, index, node_number, vni } = self.position;
        let cursors = self.address_cursors.iter();
        let addresses = cursors.flat_map(|(network, last)| last.iter().map(|address| (*network, address))).collect();
        let cursor = Cursor { at, index, node_number, vni, addresses };
        let cluster = self.cluster().map(|c| Record::Cluster(Box::new(c.as_ref().clone())));
        let nodes = self.nodes().map(|n| Record::Node(Box::new(n.as_ref().clone())));
        let networks = self.networks().map(|n| Record::Network(Box::new(n.as_ref().clone())));
        let services = self.services().map(|s| Record::Service(Box::new(s.as_ref().clone())));
        let tasks = self.tasks().map(|t| Record::Task(Box::new(t.as_ref().clone())));
        let restarts = self.restarts.values().map(|r| Record::Restarts(Box::new(r.record.as_ref().clone())));
        let requests = self.requests.values().map(|r| Record::Request(Box::new(r.record.as_ref().clone())));
        let retired = self.retired.values().map(|r| Record::Retired(*r.record));
        (cluster.into_iter().chain(nodes).chain(networks).chain(services).chain(tasks))
            .chain(restarts)
            .chain(requests)
            .chain(retired)
            .chain(std::iter::once(Record::Cursor(cursor)))
    }

    /// The state that wrote the records, with an equal digest. Tasks share their specs again.
    ///
    /// # Errors
    /// When the records are incomplete or contradict each other.
    pub fn from_records(records: impl IntoIterator<Item = Record>) -> Result<Self, BadSnapshot> {
        let mut state = Self::empty();
        let mut nodes: Vec<Node> = Vec::new();
        let mut cursor = None;
        for record in records {
            if cursor.is_some() {
                return Err(BadSnapshot::Contradiction(vec!["records follow the cursor".into()]));
            }
            match record {
                Record::Cluster(cluster) => {
                    once(state.cluster.is_none(), || "the cluster".into())?;
                    state.put_cluster(*cluster);
                }
                // Their ingress addresses are held in a network that comes later.
                Record::Node(node) => nodes.push(*node),
                Record::Network(network) => {
                    once(!state.networks.contains_key(&network.id), || format!("network {}", network.id))?;
                    state.put_network(*network);
                }
                Record::Service(service) => {
                    once(!state.services.contains_key(&service.id), || format!("service {}", service.id))?;
                    state.put_service(*service);
                }
                Record::Task(mut task) => {
                    once(!state.tasks.contains_key(&task.id), || format!("task {}", task.id))?;
                    task.spec = state.shared_spec(&task);
                    state.put_task(*task);
                }
                Record::Restarts(history) => {
                    let key = (history.service, history.slot);
                    once(!state.restarts.contains_key(&key), || format!("restarts of {}.{}", key.0, key.1))?;
                    state.put_restarts(*history);
                }
                Record::Request(request) => {
                    let key = (request.caller, request.request);
                    once(!state.requests.contains_key(&key), || format!("request {}", key.1))?;
                    state.put_request(*request);
                }
                Record::Retired(retired) => {
                    once(!state.retired.contains_key(&retired.number), || format!("node number {}", retired.number))?;
                    state.put_retired(retired);
                }
                Record::Cursor(last) => cursor = Some(last),
            }
        }
        let Cursor { at, index, node_number, vni, addresses } = cursor.ok_or(BadSnapshot::NoCursor)?;
        for node in nodes {
            once(!state.nodes.contains_key(&node.id), || format!("node {}", node.id))?;
            state.put_node(node);
        }
        for (network, address) in addresses {
            let known = state.address_cursors.get(&network).and_then(|last| last.of_family(address));
            once(known.is_none(), || format!("the address cursor of {network}"))?;
            state.put_address_cursor(network, address);
        }
        state.position = Position { at, index, node_number, vni };
        let problems = state.held_twice();
        if problems.is_empty() { Ok(state) } else { Err(BadSnapshot::Contradiction(problems)) }
    }

    /// The allocation that the service, or an earlier task of it, already has for an equal spec.
    fn shared_spec(&self, task: &Task) -> Arc<ServiceSpec> {
        let service = self.service(task.service).map(|service: &Arc<Service>| &service.spec);
        let previous = self.service(task.service).and_then(|service| service.previous.as_ref());
        let slot_mates = self.tasks_of_slot(task.service, task.slot).map(|mate| &mate.spec);
        let mut candidates = service.into_iter().chain(previous).chain(slot_mates);
        candidates.find(|spec| **spec == task.spec).unwrap_or(&task.spec).clone()
    }
}

fn once(is_first: bool, what: impl FnOnce() -> String) -> Result<(), BadSnapshot> {
    if is_first { Ok(()) } else { Err(BadSnapshot::Twice(what())) }
}
