//! A task's namespace: an interface per network, one to the gateway bridge, virtual addresses, DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rswarm_types::assignment::{AssignedNetwork, AssignedTask};
use rswarm_types::{NetworkId, TaskId};

use super::order::settle;
use super::{Desired, Isolation, Subject, View, gateway_interface, has_gateway, isolation, rules};
use crate::model::ruleset::Table;
use crate::model::{Link, LinkKind, Mac, Namespace, NamespaceKey, Route, names};

/// MTU of the gateway's interfaces: the host finds the path's by itself.
pub const GATEWAY_MTU: u32 = 1_500;
const TABLE_MAIN: u32 = 254;
/// Default routes to everywhere.
const EVERYWHERE: Ipv4Net = match Ipv4Net::new(Ipv4Addr::UNSPECIFIED, 0) {
    Ok(net) => net,
    Err(_) => panic!("0 is a prefix length"),
};

pub(super) fn add(view: &View<'_>, desired: &mut Desired) {
    let mut reaches = BTreeMap::new();
    for task in &view.tasks {
        match sandbox(view, task, &mut reaches, desired) {
            Ok(namespace) => {
                desired.world.namespaces.insert(NamespaceKey::Sandbox(task.id), namespace);
            }
            Err(reason) => {
                desired.veths.retain(|(owner, _), _| *owner != task.id);
                desired.failures.push((Subject::Task(task.id), reason));
            }
        }
    }
}

/// What tasks on the same networks reach, made once for all of them.
struct Reach {
    balancer: Arc<Table>,
    backends: Arc<BTreeSet<Ipv4Addr>>,
}

impl Reach {
    fn new(view: &View<'_>, networks: &BTreeSet<NetworkId>) -> Self {
        let endpoints = networks.iter().filter_map(|n| view.endpoints.get(n)).flatten();
        Self {
            backends: Arc::new(endpoints.map(|(_, address)| *address).collect()),
            balancer: Arc::new(rules::balancer(&virtual_addresses(view, networks))),
        }
    }
}

/// The block of the network that holds an address.
pub(super) fn block_of(network: &AssignedNetwork, address: Ipv4Addr) -> Option<Ipv4Net> {
    network.blocks.iter().map(|b| b.subnet).find(|s| s.contains(&address))
}

fn sandbox(
    view: &View<'_>,
    task: &AssignedTask,
    reaches: &mut BTreeMap<BTreeSet<NetworkId>, Reach>,
    desired: &mut Desired,
) -> Result<Namespace, String> {
    let mut namespace = Namespace::new_born();
    if let Some(loopback) = namespace.links.get_mut(names::LOOPBACK) {
        loopback.is_up = true;
    }
    match isolation(task, &view.assignments.networks) {
        Isolation::Host => return Err("a task on the host's network has no sandbox".into()),
        Isolation::Alone => return Ok(namespace),
        Isolation::Networked => {}
    }
    for (index, attachment) in task.attachments.iter().enumerate() {
        let network = view.networks.get(&attachment.network);
        let network = network.ok_or_else(|| format!("network {} is not assigned", attachment.network))?;
        let block = block_of(network, attachment.address)
            .ok_or_else(|| format!("{} is in no subnet of network {}", attachment.address, network.name))?;
        let device = names::inner_veth(index);
        let address = Ipv4Net::new_assert(attachment.address, block.prefix_len());
        let outer = (NamespaceKey::Network(network.id), names::network_veth(task.id));
        add_interface(&mut namespace, &device, address, network.mtu);
        desired.veths.insert((task.id, device.clone()), outer);
        let others = network.blocks.iter().map(|b| b.subnet).filter(|s| *s != block);
        namespace.routes.extend(others.map(|to| Route {
            table: TABLE_MAIN,
            to: to.trunc(),
            via: None,
            device: device.clone(),
            is_onlink: false,
        }));
    }
    if has_gateway(task, &view.assignments.networks) {
        add_gateway(view, task, &mut namespace, desired)?;
    }
    let told = view.facts.dns.get(&task.id).map(|ports| Arc::new(rules::dns(*ports)));
    let redirection = told.or_else(|| view.facts.dns_found.get(&task.id).cloned());
    namespace.tables.extend(redirection.map(|table| (names::dns_table(), table)));
    let networks: BTreeSet<_> = task.attachments.iter().map(|a| a.network).collect();
    if !networks.is_empty() {
        let reach = reaches.entry(networks).or_insert_with_key(|networks| Reach::new(view, networks));
        namespace.backends = reach.backends.clone();
        namespace.tables.insert(names::balancer_table(), reach.balancer.clone());
    }
    Ok(namespace)
}

fn add_interface(namespace: &mut Namespace, device: &str, address: Ipv4Net, mtu: u32) {
    let mac = Some(Mac::of_address(address.addr()));
    namespace.links.insert(device.into(), Link::new(LinkKind::Veth, mac, mtu));
    namespace.addresses.insert((device.into(), address));
}

fn add_gateway(
    view: &View<'_>,
    task: &AssignedTask,
    namespace: &mut Namespace,
    desired: &mut Desired,
) -> Result<(), String> {
    let gateway = view.facts.gateway;
    let address = gateway_address(view, task.id)?;
    let device = gateway_interface(task);
    let address = Ipv4Net::new_assert(address, gateway.prefix_len());
    add_interface(namespace, &device, address, GATEWAY_MTU);
    namespace.routes.insert(Route {
        table: TABLE_MAIN,
        to: EVERYWHERE,
        via: Some(gateway.addr()),
        device: device.clone(),
        is_onlink: false,
    });
    let outer = (NamespaceKey::Host, names::gateway_veth(task.id));
    desired.veths.insert((task.id, device), outer);
    Ok(())
}

fn gateway_address(view: &View<'_>, task: TaskId) -> Result<Ipv4Addr, String> {
    let subnet = view.facts.gateway.trunc();
    let full = || format!("no address is free on the gateway bridge ({subnet})");
    view.facts.gateway_addresses.get(&task).copied().ok_or_else(full)
}

/// Virtual addresses on these networks, with the backends that take new connections.
fn virtual_addresses(view: &View<'_>, networks: &BTreeSet<NetworkId>) -> BTreeMap<Ipv4Addr, Vec<Ipv4Addr>> {
    let mut found = BTreeMap::new();
    let mut by_service: BTreeMap<_, Vec<Ipv4Addr>> = BTreeMap::new();
    for network in networks {
        for (endpoint, address) in view.endpoints.get(network).into_iter().flatten() {
            if view.takes_new(endpoint) {
                by_service.entry((endpoint.service, *network)).or_default().push(*address);
            }
        }
    }
    for service in view.services() {
        for (network, address) in service.vips.iter().filter(|(n, _)| networks.contains(n)) {
            let backends = by_service.get(&(service.id, *network)).cloned().unwrap_or_default();
            let before = view.facts.slots.virtual_addresses.get(address);
            found.insert(*address, settle(before.map(Vec::as_slice).unwrap_or_default(), &backends));
        }
    }
    found
}
