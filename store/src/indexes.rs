//! What is derived from the tables: never in a snapshot, rebuilt from the records.

use std::net::IpAddr;

use imbl::{OrdMap, OrdSet};
use rswarm_types::network::{Addresses, Network, SubnetBlock};
use rswarm_types::node::Node;
use rswarm_types::service::Service;
use rswarm_types::spec::{PortConfig, Protocol, PublishMode};
use rswarm_types::task::{Slot, Task};
use rswarm_types::task_state::TaskState;
use rswarm_types::{Bytes, NanoCpus, NetworkId, NodeId, RequestId, ServiceId, TaskId, TimestampMs};

/// Who holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// The block's gateway.
    Gateway,
    /// A return gateway of the ingress network, one per family.
    ReturnGateway,
    /// A machine of the user's own.
    Reserved,
    /// A node, in the ingress network.
    Node(NodeId),
    /// A service's virtual address.
    Vip(ServiceId),
    Task(TaskId),
}

impl Holder {
    /// Whether it is the network itself, so that nobody has to let go before the network goes.
    pub fn is_network(self) -> bool {
        matches!(self, Self::Gateway | Self::ReturnGateway | Self::Reserved)
    }
}

/// What the assigned, unfinished tasks of a node reserve together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    pub cpu: NanoCpus,
    pub memory: Bytes,
    pub tasks: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Indexes {
    /// Services that are not being removed.
    pub service_names: OrdMap<String, ServiceId>,
    /// Networks that are not being removed.
    pub network_names: OrdMap<String, NetworkId>,
    /// The one ingress network, also while it is being removed.
    pub ingress: Option<NetworkId>,
    pub node_keys: OrdMap<[u8; 32], NodeId>,
    pub node_numbers: OrdMap<u16, NodeId>,
    pub vnis: OrdMap<u32, NetworkId>,
    /// First address of a block → its last address.
    pub subnets: OrdMap<IpAddr, (IpAddr, NetworkId)>,
    pub addresses: OrdMap<(NetworkId, IpAddr), Holder>,
    /// Ports with numbers, of services that are not being removed.
    pub ports: OrdSet<(u16, Protocol, ServiceId)>,
    pub tasks_by_slot: OrdSet<(ServiceId, Slot, TaskId)>,
    pub tasks_by_node: OrdSet<(NodeId, TaskId)>,
    pub loads: OrdMap<NodeId, Load>,
    pub host_ports: OrdSet<(NodeId, HostPort, TaskId)>,
    /// Assigned, unfinished tasks of a node on a network.
    pub network_nodes: OrdMap<(NetworkId, NodeId), u64>,
    /// Of these, on all nodes, those that were told to stop.
    pub stopping: OrdMap<NetworkId, u64>,
    pub requests_by_time: OrdSet<(TimestampMs, NodeId, RequestId)>,
}

impl Indexes {
    pub fn replace_node(&mut self, old: Option<&Node>, new: Option<&Node>) {
        let key = |node: &Node| (node.key_hash, node.number, node.ingress);
        if old.map(key) == new.map(key) {
            return;
        }
        if let Some(node) = old {
            self.node_keys.remove(&node.key_hash);
            self.node_numbers.remove(&node.number);
            for held in in_ingress(self.ingress, node.ingress) {
                self.addresses.remove(&held);
            }
        }
        if let Some(node) = new {
            self.node_keys.insert(node.key_hash, node.id);
            self.node_numbers.insert(node.number, node.id);
            for held in in_ingress(self.ingress, node.ingress) {
                self.addresses.insert(held, Holder::Node(node.id));
            }
        }
    }

    pub fn replace_network(&mut self, old: Option<&Network>, new: Option<&Network>) {
        if let Some(network) = old {
            if !network.removing {
                self.network_names.remove(&network.spec.name);
            }
            if network.spec.ingress {
                self.ingress = None;
            }
            self.vnis.remove(&network.vni);
            for block in &network.blocks {
                self.subnets.remove(&block.subnet.network());
            }
            for (address, _) in fixed_addresses(network) {
                self.addresses.remove(&(network.id, address));
            }
        }
        if let Some(network) = new {
            if !network.removing {
                self.network_names.insert(network.spec.name.clone(), network.id);
            }
            if network.spec.ingress {
                self.ingress = Some(network.id);
            }
            if network.vni != 0 {
                self.vnis.insert(network.vni, network.id);
            }
            for block in &network.blocks {
                self.subnets.insert(block.subnet.network(), (block.subnet.broadcast(), network.id));
            }
            for (address, holder) in fixed_addresses(network) {
                self.addresses.insert((network.id, address), holder);
            }
        }
    }

    pub fn replace_service(&mut self, old: Option<&Service>, new: Option<&Service>) {
        if let Some(service) = old {
            if !service.removing {
                self.service_names.remove(&service.spec.name);
                for port in published(service) {
                    self.ports.remove(&port);
                }
            }
            for held in held_vips(service) {
                self.addresses.remove(&held);
            }
        }
        if let Some(service) = new {
            if !service.removing {
                self.service_names.insert(service.spec.name.clone(), service.id);
                self.ports.extend(published(service));
            }
            for held in held_vips(service) {
                self.addresses.insert(held, Holder::Vip(service.id));
            }
        }
    }

    pub fn replace_task(&mut self, old: Option<&Task>, new: Option<&Task>) {
        if old.is_none() != new.is_none() {
            if let Some(task) = old {
                self.tasks_by_slot.remove(&(task.service, task.slot, task.id));
            }
            if let Some(task) = new {
                self.tasks_by_slot.insert((task.service, task.slot, task.id));
            }
        }
        let node = |task: &Task| task.node;
        if old.and_then(node) != new.and_then(node) {
            if let Some((task, node)) = old.and_then(|t| Some((t.id, t.node?))) {
                self.tasks_by_node.remove(&(node, task));
            }
            if let Some((task, node)) = new.and_then(|t| Some((t.id, t.node?))) {
                self.tasks_by_node.insert((node, task));
            }
        }
        let is_held_alike = |(old, new): (&Task, &Task)| {
            old.status.sandbox_gone == new.status.sandbox_gone
                && old.attachments == new.attachments
                && old.ingress == new.ingress
        };
        if !old.zip(new).is_some_and(is_held_alike) {
            for held in old.into_iter().flat_map(|task| held_addresses(task, self.ingress)) {
                self.addresses.remove(&held);
            }
            for (task, held) in new.into_iter().flat_map(|t| held_addresses(t, self.ingress).map(|held| (t.id, held))) {
                self.addresses.insert(held, Holder::Task(task));
            }
        }
        let is_reached_alike = |(old, new): (&Task, &Task)| {
            loaded_node(old) == loaded_node(new)
                && (old.stop_at > 0) == (new.stop_at > 0)
                && old.attachments == new.attachments
        };
        if !old.zip(new).is_some_and(is_reached_alike) {
            if let Some((node, task)) = old.and_then(|t| Some((loaded_node(t)?, t))) {
                self.count_networks(node, task, less);
            }
            if let Some((node, task)) = new.and_then(|t| Some((loaded_node(t)?, t))) {
                self.count_networks(node, task, |count| count + 1);
            }
        }
        if old.and_then(loaded_node) != new.and_then(loaded_node) {
            if let Some((node, task)) = old.and_then(|t| Some((loaded_node(t)?, t))) {
                self.unload(node, task);
            }
            if let Some((node, task)) = new.and_then(|t| Some((loaded_node(t)?, t))) {
                self.load(node, task);
            }
        }
    }

    fn count_networks(&mut self, node: NodeId, task: &Task, change: impl Fn(u64) -> u64) {
        for attachment in &task.attachments {
            recount(&mut self.network_nodes, (attachment.network, node), &change);
            if task.stop_at > 0 {
                recount(&mut self.stopping, attachment.network, &change);
            }
        }
    }

    fn load(&mut self, node: NodeId, task: &Task) {
        let reserved = &task.spec.task.resources;
        let load = self.loads.entry(node).or_default();
        load.cpu.0 = load.cpu.0.saturating_add(reserved.reserve_cpu.0);
        load.memory.0 = load.memory.0.saturating_add(reserved.reserve_memory.0);
        load.tasks += 1;
        for port in fixed_host_ports(task) {
            self.host_ports.insert((node, port, task.id));
        }
    }

    fn unload(&mut self, node: NodeId, task: &Task) {
        let reserved = &task.spec.task.resources;
        let load = self.loads.entry(node).or_default();
        load.cpu.0 = load.cpu.0.saturating_sub(reserved.reserve_cpu.0);
        load.memory.0 = load.memory.0.saturating_sub(reserved.reserve_memory.0);
        load.tasks = load.tasks.saturating_sub(1);
        if load.tasks == 0 {
            self.loads.remove(&node);
        }
        for port in fixed_host_ports(task) {
            self.host_ports.remove(&(node, port, task.id));
        }
    }
}

fn less(count: u64) -> u64 {
    count.saturating_sub(1)
}

/// Changes a count; one of zero is no entry.
fn recount<K: Ord + Copy>(counts: &mut OrdMap<K, u64>, key: K, change: impl Fn(u64) -> u64) {
    match change(counts.get(&key).copied().unwrap_or_default()) {
        0 => counts.remove(&key),
        count => counts.insert(key, count),
    };
}

/// The node whose resources the task takes: from its assignment until it is finished.
fn loaded_node(task: &Task) -> Option<NodeId> {
    let takes = task.status.state >= TaskState::Assigned && !task.status.state.is_terminal();
    task.node.filter(|_| takes)
}

/// A published port of a node, and the address that it answers on; `None` = all.
pub type HostPort = (u16, Protocol, Option<IpAddr>);

/// Host-mode ports with a number of their own.
pub(crate) fn fixed_host_ports(task: &Task) -> impl Iterator<Item = HostPort> {
    let is_fixed = |port: &&PortConfig| port.mode == PublishMode::Host && port.published != 0;
    task.spec.endpoint.ports.iter().filter(is_fixed).map(|port| (port.published, port.protocol, port.address))
}

/// Ports of a service that have a number.
fn published(service: &Service) -> impl Iterator<Item = (u16, Protocol, ServiceId)> {
    let ports = service.ports.iter().filter(|p| p.published != 0);
    ports.map(|p| (p.published, p.protocol, service.id))
}

/// Addresses that a network holds by itself.
pub(crate) fn fixed_addresses(network: &Network) -> Vec<(IpAddr, Holder)> {
    let mut out: Vec<_> = network.blocks.iter().map(|block| (block.gateway, Holder::Gateway)).collect();
    if network.spec.ingress {
        let first = |is_v4| network.blocks.iter().find(|block| block.gateway.is_ipv4() == is_v4);
        let back = [first(true), first(false)].into_iter().flatten().filter_map(SubnetBlock::return_gateway);
        out.extend(back.map(|address| (address, Holder::ReturnGateway)));
    }
    let reserved = network.spec.ipam.subnets.iter().flat_map(|subnet| subnet.aux_addresses.values());
    out.extend(reserved.map(|address| (*address, Holder::Reserved)));
    out
}

/// Virtual addresses of a service, with their networks.
pub(crate) fn held_vips(service: &Service) -> impl Iterator<Item = (NetworkId, IpAddr)> {
    service.vips.iter().flat_map(|vip| vip.addresses.iter().map(|address| (vip.network, address)))
}

/// Addresses in the ingress network, with its id; none while there is no such network.
pub(crate) fn in_ingress(
    ingress: Option<NetworkId>,
    addresses: Addresses,
) -> impl Iterator<Item = (NetworkId, IpAddr)> {
    ingress.into_iter().flat_map(move |network| addresses.iter().map(move |address| (network, address)))
}

/// Addresses that a task holds: until the agent says that nothing of its sandbox is left.
pub(crate) fn held_addresses(task: &Task, ingress: Option<NetworkId>) -> impl Iterator<Item = (NetworkId, IpAddr)> {
    let own = task.attachments.iter().flat_map(|a| a.addresses.iter().map(|address| (a.network, address)));
    own.chain(in_ingress(ingress, task.ingress)).filter(|_| !task.status.sandbox_gone)
}
