//! The host's namespace: the gateway bridge, the ingress device, published ports, filters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rswarm_types::assignment::{AssignedNetwork, AssignedTask, Endpoint};
use rswarm_types::spec::{Protocol, PublishMode};

use super::order::settle;
use super::rules::{self, Backend, HostSets, Published};
use super::sandbox::GATEWAY_MTU;
use super::{Desired, View, gateway_interface, has_gateway, is_internal};
use crate::model::{Link, LinkKind, Mac, Namespace, NamespaceKey, Route, RoutingRule, names};

const TABLE_MAIN: u32 = 254;
/// The way back to the ingress node of a connection.
pub const TABLE_RETURN: u32 = 4096;
const RETURN_PRIORITY: u32 = 100;

pub(super) fn add(view: &View<'_>, desired: &mut Desired) {
    let mut host = Namespace::default();
    add_gateway(view, desired, &mut host);
    let ingress = view.ingress();
    if let Some((network, address)) = ingress {
        add_ingress(view, network, address, &mut host);
    }
    let sets = host_sets(view, desired, ingress.is_some());
    let mut backends = live_backends(view);
    backends.extend(sets.published.values().flatten().map(|b| b.address));
    host.backends = Arc::new(backends);
    let gateway = view.facts.gateway.trunc();
    let table = rules::host(&sets, gateway, view.data_path_port());
    host.tables.insert(names::host_table(), Arc::new(table));
    if ingress.is_some() {
        let numbers = view.others().map(|(p, _)| p.number).filter(|n| *n > 0);
        host.tables.insert(names::return_table(), Arc::new(rules::way_back(numbers)));
    }
    host.opened.clone_from(&view.facts.forward_drops);
    desired.world.namespaces.insert(NamespaceKey::Host, host);
}

fn add_gateway(view: &View<'_>, desired: &Desired, host: &mut Namespace) {
    let gateway = view.facts.gateway;
    let mac = Some(Mac::of_address(gateway.addr()));
    host.links.insert(names::GATEWAY.into(), Link::new(LinkKind::Bridge, mac, GATEWAY_MTU));
    host.addresses.insert((names::GATEWAY.into(), gateway));
    for task in &view.tasks {
        let pair = (task.id, gateway_interface(task));
        if let Some((NamespaceKey::Host, name)) = desired.veths.get(&pair) {
            let mut port = Link::new(LinkKind::Veth, None, GATEWAY_MTU);
            port.master = Some(names::GATEWAY.into());
            // Tasks meet on their networks, not here.
            port.is_isolated = true;
            host.links.insert(name.clone(), port);
        }
    }
    set(host, "net/ipv4/ip_forward", "1");
    // Where the bridge filter is on, a task's packet whose destination becomes a neighbour's address is switched
    // instead of routed, and isolated ports drop it: a task would not reach the ports that its own host publishes.
    set(host, "net/bridge/bridge-nf-call-iptables", "0");
    set(host, "net/ipv4/conf/rswarm_gw/route_localnet", "1");
    set(host, "net/ipv6/conf/rswarm_gw/disable_ipv6", "1");
}

fn set(host: &mut Namespace, name: &str, value: &str) {
    host.sysctls.insert(name.into(), value.into());
}

fn add_ingress(view: &View<'_>, network: &AssignedNetwork, own: Ipv4Addr, host: &mut Namespace) {
    let device = names::INGRESS.to_owned();
    let kind = LinkKind::Vxlan { vni: network.vni, local: view.facts.data_path, port: view.data_path_port() };
    let mac = Some(Mac::of_node(view.assignments.node.number));
    host.links.insert(device.clone(), Link::new(kind, mac, network.mtu));
    host.addresses.insert((device.clone(), Ipv4Net::from(own)));
    set(host, "net/ipv4/conf/rswarm_vxi/src_valid_mark", "1");
    set(host, "net/ipv4/conf/rswarm_vxi/route_localnet", "1");
    set(host, "net/ipv6/conf/rswarm_vxi/disable_ipv6", "1");

    let mut nodes = BTreeMap::new();
    for (peer, vtep) in view.others() {
        let Some(address) = peer.ingress.filter(|_| peer.number > 0) else { continue };
        let mac = Mac::of_node(peer.number);
        host.forwarding.insert((device.clone(), mac), vtep);
        host.neighbours.insert((device.clone(), address), mac);
        host.routes.insert(route(TABLE_MAIN, Ipv4Net::from(address), None));
        nodes.insert(peer.id, address);
    }
    for endpoint in view.assignments.endpoints.iter().filter(|e| view.is_live(e)) {
        if let (Some(address), Some(node)) = (endpoint.ingress, nodes.get(&endpoint.node)) {
            host.routes.insert(route(TABLE_MAIN, Ipv4Net::from(address), Some(*node)));
        }
    }
    if let Some(back) = return_address(network) {
        host.neighbours.insert((device, back), Mac::RETURN);
        let everywhere = Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0);
        host.routes.insert(route(TABLE_RETURN, everywhere, Some(back)));
        host.rules.insert(RoutingRule {
            priority: RETURN_PRIORITY,
            input: names::GATEWAY.into(),
            mark: rules::MARK,
            mask: rules::MARK_MASK,
            table: TABLE_RETURN,
        });
    }
}

fn route(table: u32, to: Ipv4Net, via: Option<Ipv4Addr>) -> Route {
    Route { table, to, via, device: names::INGRESS.into(), is_onlink: via.is_some() }
}

/// The last address of the ingress subnet, which the store gives to nobody.
fn return_address(network: &AssignedNetwork) -> Option<Ipv4Addr> {
    let subnet = network.blocks.first()?.subnet;
    Some(Ipv4Addr::from(u32::from(subnet.broadcast()).checked_sub(1)?))
}

/// Where new connections to a published port of the endpoint's service go.
fn ingress_address(view: &View<'_>, endpoint: &Endpoint) -> Option<Ipv4Addr> {
    if view.is_local(endpoint) {
        return view.facts.gateway_addresses.get(&endpoint.task).copied();
    }
    endpoint.ingress.filter(|_| view.peers.contains_key(&endpoint.node))
}

/// Endpoints that may still answer connections that came in here.
fn live_backends(view: &View<'_>) -> BTreeSet<Ipv4Addr> {
    let live = view.assignments.endpoints.iter().filter(|e| view.is_live(e));
    let mut found: BTreeSet<_> = live.filter_map(|e| e.ingress).collect();
    let sandboxes = view.tasks.iter().filter_map(|t| view.facts.gateway_addresses.get(&t.id));
    found.extend(sandboxes.copied());
    found
}

fn host_sets(view: &View<'_>, desired: &Desired, has_ingress: bool) -> HostSets {
    let mut sets = HostSets { nodes: view.others().map(|(_, address)| address).collect(), ..HostSets::default() };
    sets.nodes.insert(view.facts.data_path);
    if has_ingress {
        sets.zones = view.others().map(|(p, _)| p.number).filter(|n| *n > 0).collect();
        for task in &view.tasks {
            add_target(view, task, &mut sets);
        }
        add_ingress_ports(view, &mut sets);
    }
    for task in &view.tasks {
        let Some(gateway) = view.facts.gateway_addresses.get(&task.id) else { continue };
        let is_made = desired.world.namespaces.contains_key(&NamespaceKey::Sandbox(task.id));
        let networks = &view.assignments.networks;
        if !is_made || !has_gateway(task, networks) {
            continue;
        }
        if is_internal(task, networks) {
            sets.internal.insert(*gateway);
        }
        add_host_ports(view, task, *gateway, &mut sets.published);
    }
    sets
}

/// Lets other nodes reach the published targets of a local task.
fn add_target(view: &View<'_>, task: &AssignedTask, sets: &mut HostSets) {
    let gateway = view.facts.gateway_addresses.get(&task.id);
    let (Some(ingress), Some(gateway)) = (task.ingress, gateway) else { return };
    sets.inward.insert(ingress, *gateway);
    let ports = task.ports.iter().filter(|p| p.mode == PublishMode::Ingress);
    sets.targets.extend(ports.map(|p| (*gateway, p.protocol, p.target)));
}

fn add_ingress_ports(view: &View<'_>, sets: &mut HostSets) {
    let mut by_service: BTreeMap<_, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in view.assignments.endpoints.iter().filter(|e| view.takes_new(e)) {
        by_service.entry(endpoint.service).or_default().push(endpoint);
    }
    for service in view.services() {
        let endpoints = by_service.get(&service.id).map(Vec::as_slice).unwrap_or_default();
        for port in service.ingress_ports().filter(|p| is_held(view, p.protocol, p.published)) {
            let backends: Vec<_> = endpoints
                .iter()
                .filter_map(|e| ingress_address(view, e))
                .map(|address| Backend { address, port: port.target })
                .collect();
            let number = (port.protocol, port.published);
            let before = view.facts.slots.published.get(&number);
            if !backends.is_empty() {
                let slots = settle(before.map(Vec::as_slice).unwrap_or_default(), &backends);
                sets.published.entry(number).or_insert(slots);
            }
        }
    }
}

fn add_host_ports(view: &View<'_>, task: &AssignedTask, gateway: Ipv4Addr, published: &mut Published) {
    for port in task.ports.iter().filter(|p| p.mode == PublishMode::Host) {
        let Some(number) = view.facts.host_ports.get(&(task.id, *port)) else { continue };
        if is_held(view, port.protocol, *number) {
            let backend = Backend { address: gateway, port: port.target };
            published.entry((port.protocol, *number)).or_insert_with(|| vec![backend]);
        }
    }
}

fn is_held(view: &View<'_>, protocol: Protocol, port: u16) -> bool {
    view.facts.held.contains(&(protocol, port))
}
