//! A small cluster to test with: what managers would say of it to each node.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use rswarm_types::assignment::{
    AssignedNetwork, AssignedService, AssignedTask, Assignments, Endpoint, LogId, NodeOrders, Peer,
};
use rswarm_types::network::{Addresses, SubnetBlock};
use rswarm_types::spec::{PortConfig, Protocol, PublishMode, ServiceSpec};
use rswarm_types::task::{Attachment, EndpointState, Slot};
use rswarm_types::{NetworkId, NodeId, ServiceId, TaskId};

pub const INGRESS: NetworkId = NetworkId(0x1000);

#[derive(Clone, Debug)]
pub struct Cluster {
    pub peers: Vec<Peer>,
    pub networks: Vec<AssignedNetwork>,
    pub services: Vec<AssignedService>,
    pub tasks: Vec<Placed>,
    pub index: u64,
}

/// A task and where it is.
#[derive(Clone, Debug)]
pub struct Placed {
    pub task: AssignedTask,
    pub node: usize,
    pub state: EndpointState,
}

/// An IPv4 and an IPv6 subnet.
fn blocks(subnet: [u8; 4]) -> Vec<SubnetBlock> {
    let Addresses { v4: Some(v4), v6: Some(v6) } = both(subnet) else { return Vec::new() };
    let block = |subnet: ipnet::IpNet, gateway: IpAddr| SubnetBlock { subnet, gateway, range: subnet };
    let [a, b, c, _] = subnet;
    vec![
        block(ipnet::Ipv4Net::new_assert(v4, 24).into(), [a, b, c, 1].into()),
        block(ipnet::Ipv6Net::new_assert(v6, 64).into(), Ipv6Addr::from(u128::from(v6) + 1).into()),
    ]
}

/// The nth host of a test has an address of each version.
fn hosts_v6(number: u16) -> IpAddr {
    Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number).into()
}

/// An IPv4 address and the IPv6 one that goes with it: `10.1.2.3` and `fd00:10:1:2::3`.
pub fn both(v4: [u8; 4]) -> Addresses {
    let [a, b, c, d] = v4.map(u16::from);
    Addresses { v4: Some(v4.into()), v6: Some(Ipv6Addr::new(0xfd00, a, b, c, 0, 0, 0, d)) }
}

pub fn tcp(mode: PublishMode, published: u16, target: u16) -> PortConfig {
    PortConfig { protocol: Protocol::Tcp, target, published, mode, address: None }
}

impl Cluster {
    /// Nodes with these data path addresses, and an ingress network.
    pub fn new(nodes: &[IpAddr]) -> Self {
        let peer = |(number, address): (u16, &IpAddr)| Peer {
            id: NodeId(u128::from(number)),
            number,
            address: *address,
            addresses: vec![*address, hosts_v6(number)],
            is_up: true,
            ingress: both([10, 0, 0, u8::try_from(number).unwrap_or(0) + 1]),
        };
        let ingress = AssignedNetwork {
            id: INGRESS,
            name: "ingress".into(),
            vni: 4096,
            blocks: blocks([10, 0, 0, 0]),
            ingress: true,
            mtu: 1450,
            ..AssignedNetwork::default()
        };
        Self {
            peers: (1u16..).zip(nodes).map(peer).collect(),
            networks: vec![ingress],
            services: Vec::new(),
            tasks: Vec::new(),
            index: 1,
        }
    }

    /// An overlay, 10.1.N.0/24 and fd00:10:1:N::/64.
    pub fn network(&mut self, name: &str) -> NetworkId {
        let number = self.networks.len() as u8;
        let id = NetworkId(0x1000 + u128::from(number));
        self.networks.push(AssignedNetwork {
            id,
            name: name.into(),
            vni: 4096 + u32::from(number),
            blocks: blocks([10, 1, number, 0]),
            mtu: 1450,
            ..AssignedNetwork::default()
        });
        id
    }

    fn number(&self, network: NetworkId) -> u8 {
        self.networks.iter().position(|n| n.id == network).expect("a network of this cluster") as u8
    }

    /// A service with virtual addresses 10.1.N.200 and up.
    pub fn service(&mut self, name: &str, networks: &[NetworkId], ports: &[PortConfig]) -> ServiceId {
        let count = self.services.len() as u8;
        let id = ServiceId(0x2000 + u128::from(count));
        let vip = |n: &NetworkId| (*n, both([10, 1, self.number(*n), 200 + count]));
        self.services.push(AssignedService {
            id,
            name: name.into(),
            vips: networks.iter().map(vip).collect(),
            aliases: networks.iter().map(|n| (*n, Vec::new())).collect(),
            ports: ports.to_vec(),
            ..AssignedService::default()
        });
        id
    }

    /// A task that takes connections, on the nth node.
    pub fn task(&mut self, service: ServiceId, node: usize) -> TaskId {
        let number = self.tasks.len() as u8;
        let id = TaskId(u128::from(number) + 0x3000);
        let of = self.services.iter().find(|s| s.id == service).expect("a service of this cluster");
        let attachment = |(network, _): &(NetworkId, Addresses)| Attachment {
            network: *network,
            addresses: both([10, 1, self.number(*network), 10 + number]),
            aliases: Vec::new(),
        };
        let is_ingress = of.ports.iter().any(|p| p.mode == PublishMode::Ingress);
        let task = AssignedTask {
            id,
            service,
            slot: Slot::Number(u64::from(number) + 1),
            spec: Arc::new(ServiceSpec { name: of.name.clone(), ..ServiceSpec::default() }),
            attachments: of.vips.iter().map(attachment).collect(),
            ingress: if is_ingress { both([10, 0, 0, 100 + number]) } else { Addresses::default() },
            ports: of.ports.clone(),
            ..AssignedTask::default()
        };
        self.tasks.push(Placed { task, node, state: EndpointState::Ready });
        id
    }

    pub fn set_state(&mut self, task: TaskId, state: EndpointState) {
        let placed = self.tasks.iter_mut().find(|p| p.task.id == task);
        placed.expect("a task of this cluster").state = state;
    }

    pub fn local(&self, node: usize) -> std::collections::BTreeSet<TaskId> {
        self.tasks.iter().filter(|p| p.node == node).map(|p| p.task.id).collect()
    }

    /// What the nth node is told.
    pub fn assignments(&self, node: usize) -> Arc<Assignments> {
        let own = &self.peers[node];
        let local = || self.tasks.iter().filter(|p| p.node == node).map(|p| &p.task);
        let has = |n: NetworkId| local().any(|t| t.attachments.iter().any(|a| a.network == n));
        let endpoint = |placed: &Placed| Endpoint {
            task: placed.task.id,
            service: placed.task.service,
            node: self.peers[placed.node].id,
            node_number: self.peers[placed.node].number,
            slot: placed.task.slot,
            state: placed.state,
            addresses: {
                let known = placed.task.attachments.iter().filter(|a| has(a.network));
                known.map(|a| (a.network, a.addresses)).collect()
            },
            ingress: placed.task.ingress,
        };
        let service = |service: &AssignedService| AssignedService {
            vips: service.vips.iter().copied().filter(|(n, _)| has(*n)).collect(),
            aliases: service.aliases.iter().filter(|(n, _)| has(*n)).cloned().collect(),
            ports: {
                let ingress = |p: &&PortConfig| p.mode == PublishMode::Ingress;
                service.ports.iter().filter(ingress).copied().collect()
            },
            ..service.clone()
        };
        Arc::new(Assignments {
            log_id: LogId { era: 0, term: 1, index: self.index },
            node: NodeOrders {
                id: own.id,
                number: own.number,
                ingress: own.ingress,
                data_path_port: 4789,
                ..NodeOrders::default()
            },
            tasks: local().cloned().collect(),
            networks: self.networks.iter().filter(|n| n.ingress || has(n.id)).cloned().collect(),
            services: self.services.iter().map(service).collect(),
            endpoints: self.tasks.iter().map(endpoint).collect(),
            peers: self.peers.clone(),
            ..Assignments::default()
        })
    }
}
