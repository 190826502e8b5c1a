//! What should be in the kernel of this node, as a function of what the managers say exists.

mod host;
mod network;
pub mod order;
pub mod rules;
mod sandbox;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use order::Slots;
use rswarm_types::assignment::{AssignedNetwork, AssignedService, AssignedTask, Assignments, Endpoint, Peer};
use rswarm_types::network::Addresses;
use rswarm_types::spec::{NetworkDriver, PortConfig};
use rswarm_types::task::EndpointState;
use rswarm_types::{NetworkId, NodeId, TaskId, limits};

use crate::gateway::Gateway;
use crate::model::ruleset::Table;
use crate::model::{ForeignChain, LinkEnd, NamespaceKey, Version, World, names};
use crate::nfnl::expression::Draw;
use crate::ports::PublishedPort;

/// Outer Ethernet, IPv4, UDP and VXLAN headers, in octets.
const VXLAN_OVERHEAD: u32 = 50;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;
/// What a path carries unless it is known to carry less, in octets.
pub const PATH_MTU: u32 = 1_500;

/// What this node knows of itself, beside what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// The address that carries VXLAN frames.
    pub data_path: IpAddr,
    /// What the data path carries between hosts, in octets.
    pub path_mtu: u32,
    pub gateway: Gateway,
    /// Addresses of sandboxes on the gateway; each has an IPv6 one that follows from it.
    pub gateway_addresses: BTreeMap<TaskId, Ipv4Addr>,
    /// Where each sandbox's DNS server listens.
    pub dns: BTreeMap<TaskId, DnsPorts>,
    /// Redirections to servers that we have not heard of yet, as they are in the kernel.
    pub dns_found: BTreeMap<TaskId, Arc<Table>>,
    /// Ports whose sockets netd holds: only these are translated.
    pub held: BTreeSet<PublishedPort>,
    /// Numbers chosen for host-mode ports.
    pub host_ports: BTreeMap<(TaskId, PortConfig), u16>,
    /// Slots that backends have now.
    pub slots: Slots,
    /// Forward chains of others that would drop our traffic.
    pub forward_drops: BTreeSet<ForeignChain>,
    /// Interfaces of the host that take their routes from a router, and must after they forward too.
    pub advertised: BTreeSet<String>,
}

/// Ports of a DNS server on 127.0.0.11.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsPorts {
    pub udp: u16,
    pub tcp: u16,
}

/// Whom a failure concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Node,
    Network(NetworkId),
    Task(TaskId),
}

impl HostFacts {
    pub fn new(data_path: IpAddr, gateway: Gateway) -> Self {
        Self {
            data_path,
            path_mtu: PATH_MTU,
            gateway,
            gateway_addresses: BTreeMap::new(),
            dns: BTreeMap::new(),
            dns_found: BTreeMap::new(),
            held: BTreeSet::new(),
            host_ports: BTreeMap::new(),
            slots: Slots::default(),
            forward_drops: BTreeSet::new(),
            advertised: BTreeSet::new(),
        }
    }
}

impl From<NamespaceKey> for Subject {
    fn from(key: NamespaceKey) -> Self {
        match key {
            NamespaceKey::Host => Self::Node,
            NamespaceKey::Network(id) => Self::Network(id),
            NamespaceKey::Sandbox(id) => Self::Task(id),
        }
    }
}

/// The kernel state that should be.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    pub world: World,
    /// Interface pairs: inner end → outer end.
    pub veths: BTreeMap<LinkEnd, LinkEnd>,
    /// Sandboxes that must stay although nothing says what is in them.
    pub untouched: BTreeSet<NamespaceKey>,
    /// What cannot be made, and why.
    pub failures: Vec<(Subject, String)>,
}

impl Desired {
    /// Inner end and outer end of each interface pair.
    pub fn pairs(&self) -> impl Iterator<Item = (LinkEnd, &LinkEnd)> {
        self.veths.iter().map(|(inner, outer)| (inner.clone(), outer))
    }

    /// The sandbox cannot be made: what else leads to it is not wanted either.
    fn give_up(&mut self, sandbox: NamespaceKey) {
        self.world.namespaces.remove(&sandbox);
        self.veths.retain(|(inner, _), _| *inner != sandbox);
    }
}

/// What should be, for these assignments and with these sandboxes.
pub fn desired(assignments: &Assignments, facts: &HostFacts, sandboxes: &BTreeSet<TaskId>) -> Desired {
    let view = View::new(assignments, facts, sandboxes);
    let mut desired = Desired::default();
    sandbox::add(&view, &mut desired);
    network::add(&view, &mut desired);
    host::add(&view, &mut desired);
    for task in sandboxes {
        let key = NamespaceKey::Sandbox(*task);
        if !desired.world.namespaces.contains_key(&key) {
            desired.untouched.insert(key);
        }
    }
    desired
}

/// Whether the task has a sandbox of its own, and how much is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// The host's network: there is no sandbox.
    Host,
    /// Loopback only.
    Alone,
    Networked,
}

/// What the networks of the task's spec ask for.
pub fn isolation(task: &AssignedTask, networks: &[AssignedNetwork]) -> Isolation {
    let driver = |target: &str| {
        let id = target.parse::<NetworkId>().ok();
        let is_it = |n: &&AssignedNetwork| n.name == target || Some(n.id) == id;
        match networks.iter().find(is_it).map(|n| n.driver) {
            None if target == "host" => Some(NetworkDriver::Host),
            None if target == "none" => Some(NetworkDriver::Null),
            driver => driver,
        }
    };
    let drivers = task.spec.task.networks.iter().filter_map(|n| driver(&n.target));
    for driver in drivers {
        match driver {
            NetworkDriver::Host => return Isolation::Host,
            NetworkDriver::Null => return Isolation::Alone,
            NetworkDriver::Overlay => {}
        }
    }
    Isolation::Networked
}

/// The assignments, indexed.
struct View<'a> {
    assignments: &'a Assignments,
    facts: &'a HostFacts,
    /// Assigned tasks with a sandbox.
    tasks: Vec<&'a AssignedTask>,
    networks: BTreeMap<NetworkId, &'a AssignedNetwork>,
    peers: BTreeMap<NodeId, &'a Peer>,
    /// Endpoints that exist, by network.
    endpoints: BTreeMap<NetworkId, Vec<(&'a Endpoint, Addresses)>>,
}

impl<'a> View<'a> {
    fn new(assignments: &'a Assignments, facts: &'a HostFacts, sandboxes: &BTreeSet<TaskId>) -> Self {
        let mut view = Self {
            assignments,
            facts,
            tasks: assignments.tasks.iter().filter(|t| sandboxes.contains(&t.id)).collect(),
            networks: assignments.networks.iter().map(|n| (n.id, n)).collect(),
            peers: assignments.peers.iter().map(|p| (p.id, p)).collect(),
            endpoints: BTreeMap::new(),
        };
        let mut endpoints: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for endpoint in assignments.endpoints.iter().filter(|e| view.is_live(e)) {
            for (network, addresses) in &endpoint.addresses {
                endpoints.entry(*network).or_default().push((endpoint, *addresses));
            }
        }
        view.endpoints = endpoints;
        view
    }

    fn is_local(&self, endpoint: &Endpoint) -> bool {
        endpoint.node == self.assignments.node.id
    }

    fn is_node_up(&self, node: NodeId) -> bool {
        node == self.assignments.node.id || self.peers.get(&node).is_none_or(|p| p.is_up)
    }

    /// It may still answer. A draining one of a dead node never will.
    fn is_live(&self, endpoint: &Endpoint) -> bool {
        match endpoint.state {
            EndpointState::Starting | EndpointState::Ready => true,
            EndpointState::Draining => self.is_node_up(endpoint.node),
            EndpointState::Dead => false,
        }
    }

    /// New connections go to it.
    fn takes_new(&self, endpoint: &Endpoint) -> bool {
        endpoint.state == EndpointState::Ready && self.is_node_up(endpoint.node)
    }

    /// Other nodes, where frames can go: a VXLAN device has one version of the Internet protocol.
    fn others(&self) -> impl Iterator<Item = &'a Peer> {
        let (own, data_path) = (self.assignments.node.id, self.facts.data_path);
        let others = self.assignments.peers.iter().filter(move |p| p.id != own);
        others.filter(move |p| p.address.is_ipv4() == data_path.is_ipv4())
    }

    /// What fits into a VXLAN frame: at most what the network asks for.
    fn mtu(&self, network: &AssignedNetwork) -> u32 {
        let overhead = match Version::of(self.facts.data_path) {
            Version::V4 => VXLAN_OVERHEAD,
            Version::V6 => VXLAN_OVERHEAD + IPV6_HEADER - IPV4_HEADER,
        };
        network.mtu.min(self.facts.path_mtu.saturating_sub(overhead))
    }

    fn data_path_port(&self) -> u16 {
        match self.assignments.node.data_path_port {
            0 => limits::DATA_PATH_PORT,
            port => port,
        }
    }

    /// The ingress network, once this node has its place in it.
    fn ingress(&self) -> Option<(&'a AssignedNetwork, Addresses)> {
        let network = self.assignments.networks.iter().find(|n| n.ingress)?;
        let node = &self.assignments.node;
        (!node.ingress.is_empty() && node.number > 0).then_some((network, node.ingress))
    }

    /// The task's addresses on the gateway.
    fn gateway_addresses(&self, task: TaskId) -> Option<Addresses> {
        self.facts.gateway_addresses.get(&task).map(|address| self.facts.gateway.container(*address))
    }

    /// Those of the endpoints that new connections from here go to, in an order that all nodes share.
    fn preferred(&self, service: &AssignedService, endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
        let is_near = |e: &&'a Endpoint| service.balance.prefers_local && self.is_local(e);
        let near: Vec<_> = endpoints.iter().copied().filter(is_near).collect();
        if near.is_empty() { endpoints.to_vec() } else { near }
    }

    fn services(&self) -> impl Iterator<Item = &'a AssignedService> {
        self.assignments.services.iter()
    }
}

/// How the service's new connections are spread.
fn draw_of(service: &AssignedService) -> Draw {
    if service.balance.by_client { Draw::ByClient } else { Draw::Random }
}

/// Whether the task has an interface on the gateway: to reach outside, or to be reached.
pub fn has_gateway(task: &AssignedTask, networks: &[AssignedNetwork]) -> bool {
    isolation(task, networks) == Isolation::Networked && (!is_internal(task, networks) || !task.ports.is_empty())
}

/// Whether all its networks are internal.
pub fn is_internal(task: &AssignedTask, networks: &[AssignedNetwork]) -> bool {
    let is_internal = |id: NetworkId| networks.iter().find(|n| n.id == id).is_some_and(|n| n.internal);
    !task.attachments.is_empty() && task.attachments.iter().all(|a| is_internal(a.network))
}

/// The name of the gateway interface: after those of the networks.
pub fn gateway_interface(task: &AssignedTask) -> String {
    names::inner(task.attachments.len())
}
