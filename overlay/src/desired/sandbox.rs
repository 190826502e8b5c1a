//! A task's namespace: an interface per network, one on the gateway, virtual addresses, DNS.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rswarm_types::assignment::{AssignedNetwork, AssignedTask, Endpoint};
use rswarm_types::network::Addresses;
use rswarm_types::{NetworkId, TaskId};

use super::order::settle;
use super::rules::{self, Pool};
use super::{Desired, Isolation, Subject, View, draw_of, gateway_interface, has_gateway, isolation};
use crate::model::ruleset::Table;
use crate::model::{Link, LinkKind, Mac, Namespace, NamespaceKey, Route, Version, names};
use crate::nfnl::expression::Draw;

/// MTU of the gateway's interfaces: the host finds the path's by itself.
pub const GATEWAY_MTU: u32 = 1_500;
const TABLE_MAIN: u32 = 254;

pub(super) fn add(view: &View<'_>, desired: &mut Desired) {
    let mut reaches = BTreeMap::new();
    for task in &view.tasks {
        match sandbox(view, task, &mut reaches, desired) {
            Ok(namespace) => {
                desired.world.namespaces.insert(NamespaceKey::Sandbox(task.id), namespace);
            }
            Err(reason) => {
                desired.give_up(NamespaceKey::Sandbox(task.id));
                desired.failures.push((Subject::Task(task.id), reason));
            }
        }
    }
}

/// What tasks on the same networks reach, made once for all of them.
struct Reach {
    balancer: Arc<Table>,
    backends: Arc<BTreeSet<IpAddr>>,
}

impl Reach {
    fn new(view: &View<'_>, networks: &BTreeSet<NetworkId>) -> Self {
        let endpoints = networks.iter().filter_map(|n| view.endpoints.get(n)).flatten();
        Self {
            backends: Arc::new(endpoints.flat_map(|(_, addresses)| addresses.iter()).collect()),
            balancer: Arc::new(rules::balancer(&virtual_addresses(view, networks))),
        }
    }
}

/// The block of the network that holds an address.
fn block_of(network: &AssignedNetwork, address: IpAddr) -> Option<IpNet> {
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
        let device = names::inner(index);
        let mac = Some(Mac::of_addresses(attachment.addresses));
        namespace.links.insert(device.clone(), Link::new(LinkKind::Veth, mac, view.mtu(network)));
        let (inner, outer) = (NamespaceKey::Sandbox(task.id), NamespaceKey::Network(network.id));
        desired.veths.insert((inner, device.clone()), (outer, names::network_veth(task.id)));
        let mut own = BTreeSet::new();
        for address in attachment.addresses.iter() {
            let block = block_of(network, address)
                .ok_or_else(|| format!("{address} is in no subnet of network {}", network.name))?;
            own.insert(block);
            let address = IpNet::new(address, block.prefix_len()).unwrap_or(IpNet::from(address));
            namespace.addresses.insert((device.clone(), address));
        }
        let versions: BTreeSet<_> = attachment.addresses.iter().map(Version::of).collect();
        let others = network.blocks.iter().map(|b| b.subnet).filter(|s| !own.contains(s));
        let others = others.filter(|subnet| versions.contains(&Version::of(subnet.addr())));
        namespace.routes.extend(others.map(|to| Route {
            table: TABLE_MAIN,
            to: to.trunc(),
            via: None,
            device: device.clone(),
            is_onlink: false,
        }));
    }
    if has_gateway(task, &view.assignments.networks) {
        add_gateway(view, task, &mut namespace)?;
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

/// The way out, and the way in for published ports: to the host and to nobody else.
fn add_gateway(view: &View<'_>, task: &AssignedTask, namespace: &mut Namespace) -> Result<(), String> {
    let gateway = view.facts.gateway;
    let full = || format!("no address is free on the gateway ({})", gateway.v4.trunc());
    let addresses = view.gateway_addresses(task.id).ok_or_else(full)?;
    let device = gateway_interface(task);
    let mac = Some(Mac::of_addresses(addresses));
    namespace.links.insert(device.clone(), Link::new(LinkKind::Macvlan, mac, GATEWAY_MTU));
    let of_host = Mac::of_address(gateway.v4.addr().into());
    for (own, net) in gateway.nets().filter_map(|net| Some((addresses.of_family(net.addr())?, net))) {
        let address = IpNet::new(own, net.prefix_len()).unwrap_or(IpNet::from(own));
        namespace.addresses.insert((device.clone(), address));
        namespace.neighbours.insert((device.clone(), net.addr()), of_host);
        namespace.routes.insert(Route {
            table: TABLE_MAIN,
            to: Version::of(own).everywhere(),
            via: Some(net.addr()),
            device: device.clone(),
            is_onlink: false,
        });
    }
    Ok(())
}

/// Virtual addresses on these networks, with the backends that take new connections.
fn virtual_addresses(view: &View<'_>, networks: &BTreeSet<NetworkId>) -> BTreeMap<IpAddr, Pool<IpAddr>> {
    let mut found = BTreeMap::new();
    let mut by_service: BTreeMap<_, Vec<(&Endpoint, Addresses)>> = BTreeMap::new();
    for network in networks {
        for (endpoint, addresses) in view.endpoints.get(network).into_iter().flatten() {
            if view.takes_new(endpoint) {
                by_service.entry((endpoint.service, *network)).or_default().push((endpoint, *addresses));
            }
        }
    }
    for service in view.services() {
        for (network, vips) in service.vips.iter().filter(|(n, _)| networks.contains(n)) {
            let all = by_service.get(&(service.id, *network)).map(Vec::as_slice).unwrap_or_default();
            let endpoints: Vec<_> = all.iter().map(|(endpoint, _)| *endpoint).collect();
            let preferred: BTreeSet<TaskId> = view.preferred(service, &endpoints).iter().map(|e| e.task).collect();
            for vip in vips.iter() {
                let backends = all.iter().filter(|(endpoint, _)| preferred.contains(&endpoint.task));
                let backends: Vec<_> = backends.filter_map(|(_, addresses)| addresses.of_family(vip)).collect();
                let before = view.facts.slots.virtual_addresses.get(&vip);
                let draw = draw_of(service);
                let slots = match draw {
                    Draw::Random => settle(before.map(Vec::as_slice).unwrap_or_default(), &backends),
                    Draw::ByClient => backends,
                };
                found.insert(vip, Pool { draw, slots });
            }
        }
    }
    found
}
