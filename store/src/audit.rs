//! The other half of the pair: what `apply` prevents, this notices.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rswarm_types::service::Service;
use rswarm_types::spec::{PortConfig, Protocol, share_address};
use rswarm_types::{NetworkId, TaskId};

use crate::allocate::clash;
use crate::indexes::{Holder, fixed_addresses, held_addresses, held_vips, in_ingress};
use crate::state::State;

/// Everything found wrong, for people. Empty = nothing.
pub type Audit = Vec<String>;

impl State {
    /// Checks what must hold after every entry: nothing is held twice, reservations fit, indexes
    /// and digest say what the tables say. Walks the whole state: for tests and the simulator.
    pub fn audit(&self) -> Audit {
        let mut problems = self.held_twice();
        problems.extend(self.overbooked());
        match Self::from_records(self.records()) {
            Ok(rebuilt) => {
                if rebuilt.indexes != self.indexes {
                    problems
                        .push(format!("indexes differ from the tables:\n{:?}\n{:?}", self.indexes, rebuilt.indexes));
                }
                if rebuilt.digest() != self.digest() {
                    problems.push("the digest differs from the sum over the tables".into());
                }
            }
            Err(error) => problems.push(error.to_string()),
        }
        problems
    }

    /// Addresses, subnets, VNIs, node numbers and published ports that have two holders.
    pub(crate) fn held_twice(&self) -> Audit {
        let mut problems = Vec::new();
        let mut addresses: BTreeMap<(NetworkId, IpAddr), Holder> = BTreeMap::new();
        for (network, address, holder) in self.holders() {
            if let Some(other) = addresses.insert((network, address), holder) {
                problems.push(format!("{address} of network {network} is held by {other:?} and {holder:?}"));
            }
        }
        let ids = |what: &'static str, pairs: Vec<(u32, String)>| {
            let mut seen = BTreeMap::new();
            let twice = move |(number, who): (u32, String)| {
                let other = seen.insert(number, who.clone())?;
                Some(format!("{what} {number} is held by {other} and {who}"))
            };
            pairs.into_iter().filter_map(twice).collect::<Vec<_>>()
        };
        problems.extend(ids("node number", self.nodes().map(|n| (u32::from(n.number), n.id.to_string())).collect()));
        let vnis = self.networks().filter(|n| n.vni != 0).map(|n| (n.vni, n.id.to_string()));
        problems.extend(ids("VNI", vnis.collect()));

        let mut blocks: Vec<_> = self.networks().flat_map(|n| n.blocks.iter().map(|b| b.subnet)).collect();
        blocks.sort_by_key(|subnet| subnet.network());
        for pair in blocks.windows(2) {
            if pair[0].broadcast() >= pair[1].network() {
                problems.push(format!("subnets {} and {} overlap", pair[0], pair[1]));
            }
        }

        problems.extend(self.published_twice());
        problems
    }

    fn published_twice(&self) -> Audit {
        let mut problems = Vec::new();
        let mut users: BTreeMap<(u16, Protocol), Vec<(&Service, &PortConfig)>> = BTreeMap::new();
        for service in self.services().filter(|s| !s.removing) {
            for port in service.ports.iter().filter(|p| p.published != 0) {
                let others = users.entry((port.published, port.protocol)).or_default();
                let is_same = |of: &Service| of.id == service.id;
                let clashing = |(of, other): &&(&Service, &PortConfig)| {
                    if is_same(of) { other.meets(port) } else { clash(other, port) }
                };
                if let Some((of, other)) = others.iter().find(clashing) {
                    let (a, b) = (&of.spec.name, &service.spec.name);
                    problems.push(format!("port {other} of service {a} clashes with {port} of {b}"));
                }
                others.push((service, port));
            }
        }
        problems
    }

    fn holders(&self) -> Vec<(NetworkId, IpAddr, Holder)> {
        let ingress = self.indexes.ingress;
        let mut out = Vec::new();
        for network in self.networks() {
            out.extend(fixed_addresses(network).into_iter().map(|(address, holder)| (network.id, address, holder)));
        }
        for node in self.nodes() {
            let held = in_ingress(ingress, node.ingress);
            out.extend(held.map(|(network, address)| (network, address, Holder::Node(node.id))));
        }
        for service in self.services() {
            let held = held_vips(service);
            out.extend(held.map(|(network, address)| (network, address, Holder::Vip(service.id))));
        }
        for task in self.tasks() {
            let held = held_addresses(task, ingress);
            out.extend(held.map(|(network, address)| (network, address, Holder::Task(task.id))));
        }
        out
    }

    /// Nodes that reserve more than they have, or use a host port twice.
    fn overbooked(&self) -> Audit {
        let mut problems = Vec::new();
        let mut users: BTreeMap<_, Vec<(Option<IpAddr>, TaskId)>> = BTreeMap::new();
        for (node, (port, protocol, address), task) in &self.indexes.host_ports {
            let others = users.entry((node, port, protocol)).or_default();
            if let Some((_, other)) = others.iter().find(|(other, _)| share_address(*other, *address)) {
                problems.push(format!("host port {port}/{protocol} of node {node} is used by {other} and {task}"));
            }
            others.push((*address, *task));
        }
        for (node, load) in &self.indexes.loads {
            let Some(record) = self.node(*node) else {
                problems.push(format!("node {node} is gone and still has unfinished tasks"));
                continue;
            };
            // A node that shrank is the enforcer's business; here only what assignment prevents.
            if load.cpu > record.description.cpus && record.session_epoch != 0 && load.cpu.0 != 0 {
                problems.push(format!("node {node} reserves {} of {} CPUs", load.cpu, record.description.cpus));
            }
            if load.memory > record.description.memory && record.session_epoch != 0 && load.memory.0 != 0 {
                problems.push(format!("node {node} reserves {} of {}", load.memory, record.description.memory));
            }
        }
        problems
    }
}
