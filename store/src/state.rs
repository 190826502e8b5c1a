//! The state: tables of shared records, and what is derived from them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use imbl::OrdMap;
use rswarm_types::cluster::Cluster;
use rswarm_types::command::{RequestRecord, RestartHistory, RetiredNumber};
use rswarm_types::network::{Addresses, Network};
use rswarm_types::node::Node;
use rswarm_types::service::Service;
use rswarm_types::spec::{Protocol, share_address};
use rswarm_types::task::{Slot, Task};
use rswarm_types::{NetworkId, NodeId, RequestId, ServiceId, TaskId, TimestampMs};

use crate::digest::{Sum, Table, hash_row};
use crate::indexes::{Holder, HostPort, Indexes, Load};
use crate::rows::Row;

/// The whole replicated state after some entry. `Clone` is O(1): the clone is a snapshot.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) cluster: Option<Row<Cluster>>,
    pub(crate) nodes: OrdMap<NodeId, Row<Node>>,
    pub(crate) networks: OrdMap<NetworkId, Row<Network>>,
    pub(crate) services: OrdMap<ServiceId, Row<Service>>,
    pub(crate) tasks: OrdMap<TaskId, Row<Task>>,
    pub(crate) restarts: OrdMap<(ServiceId, Slot), Row<RestartHistory>>,
    pub(crate) requests: OrdMap<(NodeId, RequestId), Row<RequestRecord>>,
    pub(crate) retired: OrdMap<u16, Row<RetiredNumber>>,
    /// Last address given of each family, per network.
    pub(crate) address_cursors: OrdMap<NetworkId, Addresses>,
    pub(crate) position: Position,
    /// Over every table, not over `position`.
    pub(crate) sum: Sum,
    pub(crate) indexes: Indexes,
}

/// Single values that only move forward, or around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub at: TimestampMs,
    pub index: u64,
    pub node_number: u16,
    pub vni: u32,
}

impl State {
    /// The state before the first entry.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Log index of the last entry applied; 0 = none.
    pub fn index(&self) -> u64 {
        self.position.index
    }

    /// Cluster time of the last entry applied.
    pub fn now(&self) -> TimestampMs {
        self.position.at
    }

    /// Equal on all managers at equal [`Self::index`].
    pub fn digest(&self) -> [u8; 32] {
        let Position { at, index, node_number, vni } = self.position;
        let mut sum = self.sum;
        sum.add(&hash_row(Table::Cursor, &((at, index), (node_number, vni))));
        sum.to_bytes()
    }

    /// The cluster; `None` before `Init`.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref().map(|row| &row.record)
    }

    pub fn node(&self, id: NodeId) -> Option<&Arc<Node>> {
        self.nodes.get(&id).map(|row| &row.record)
    }

    /// By id.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values().map(|row| &row.record)
    }

    /// The node that was admitted with this key.
    pub fn node_of_key(&self, key_hash: &[u8; 32]) -> Option<&Arc<Node>> {
        self.indexes.node_keys.get(key_hash).and_then(|id| self.node(*id))
    }

    pub fn network(&self, id: NetworkId) -> Option<&Arc<Network>> {
        self.networks.get(&id).map(|row| &row.record)
    }

    /// By id, those that are being removed included.
    pub fn networks(&self) -> impl Iterator<Item = &Arc<Network>> {
        self.networks.values().map(|row| &row.record)
    }

    /// The routing mesh's network, unless it was removed.
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        self.indexes.ingress.and_then(|id| self.network(id)).filter(|network| !network.removing)
    }

    pub fn service(&self, id: ServiceId) -> Option<&Arc<Service>> {
        self.services.get(&id).map(|row| &row.record)
    }

    /// By id, those that are being removed included.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().map(|row| &row.record)
    }

    /// Services that publish this port, in either mode and on whatever address.
    pub fn services_of_port(&self, port: u16, protocol: Protocol) -> impl Iterator<Item = ServiceId> {
        let range = (port, protocol, ServiceId(0))..=(port, protocol, ServiceId(u128::MAX));
        self.indexes.ports.range(range).map(|(_, _, service)| *service)
    }

    pub fn task(&self, id: TaskId) -> Option<&Arc<Task>> {
        self.tasks.get(&id).map(|row| &row.record)
    }

    /// By id.
    pub fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values().map(|row| &row.record)
    }

    /// How many tasks there are, finished ones included.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// By slot, then by id; finished ones included.
    pub fn tasks_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        let first = (service, Slot::Number(0), TaskId(0));
        let last = (service, Slot::Node(NodeId(u128::MAX)), TaskId(u128::MAX));
        self.indexes.tasks_by_slot.range(first..=last).filter_map(|(_, _, task)| self.task(*task))
    }

    /// By id; finished ones included.
    pub fn tasks_of_slot(&self, service: ServiceId, slot: Slot) -> impl Iterator<Item = &Arc<Task>> {
        let range = (service, slot, TaskId(0))..=(service, slot, TaskId(u128::MAX));
        self.indexes.tasks_by_slot.range(range).filter_map(|(_, _, task)| self.task(*task))
    }

    /// By id: tasks whose `node` is this one, those not yet assigned and finished ones included.
    pub fn tasks_on_node(&self, node: NodeId) -> impl Iterator<Item = &Arc<Task>> {
        let range = (node, TaskId(0))..=(node, TaskId(u128::MAX));
        self.indexes.tasks_by_node.range(range).filter_map(|(_, task)| self.task(*task))
    }

    /// Networks on which unfinished tasks were told to stop, in order.
    pub fn stopping_networks(&self) -> impl Iterator<Item = NetworkId> {
        self.indexes.stopping.keys().copied()
    }

    /// The nodes with unfinished tasks on a network.
    pub fn nodes_on_network(&self, network: NetworkId) -> impl Iterator<Item = &Arc<Node>> {
        let range = (network, NodeId(0))..=(network, NodeId(u128::MAX));
        self.indexes.network_nodes.range(range).filter_map(|((_, node), _)| self.node(*node))
    }

    /// What the node's assigned, unfinished tasks reserve.
    pub fn load(&self, node: NodeId) -> Load {
        self.indexes.loads.get(&node).copied().unwrap_or_default()
    }

    /// Whether an assigned, unfinished task of the node publishes this port in host mode, on one of these addresses.
    pub fn is_host_port_used(&self, node: NodeId, (port, protocol, address): HostPort) -> bool {
        let last = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX));
        let range = (node, (port, protocol, None), TaskId(0))..=(node, (port, protocol, Some(last)), TaskId(u128::MAX));
        self.indexes.host_ports.range(range).any(|(_, (_, _, other), _)| share_address(*other, address))
    }

    /// Addresses held in a network, in order.
    pub fn addresses(&self, network: NetworkId) -> impl Iterator<Item = (IpAddr, Holder)> {
        let (first, last) = (Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::from_bits(u128::MAX).into());
        let range = (network, first)..=(network, last);
        self.indexes.addresses.range(range).map(|((_, address), holder)| (*address, *holder))
    }

    pub fn restarts(&self, service: ServiceId, slot: Slot) -> Option<&Arc<RestartHistory>> {
        self.restarts.get(&(service, slot)).map(|row| &row.record)
    }

    /// By slot.
    pub fn restarts_of_service(&self, service: ServiceId) -> impl Iterator<Item = &Arc<RestartHistory>> {
        let range = (service, Slot::Number(0))..=(service, Slot::Node(NodeId(u128::MAX)));
        self.restarts.range(range).map(|(_, row)| &row.record)
    }
}
