//! The host's namespace: the gateway, the ingress device, published ports, filters.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rswarm_types::assignment::{AssignedNetwork, AssignedService, AssignedTask, Endpoint};
use rswarm_types::network::{Addresses, SubnetBlock};
use rswarm_types::spec::PublishMode;

use super::order::settle;
use super::rules::{self, Backend, HostSets, Pool};
use super::sandbox::GATEWAY_MTU;
use super::{Desired, View, draw_of, gateway_interface, is_internal};
use crate::model::{Link, LinkKind, Mac, Namespace, NamespaceKey, Route, RoutingRule, Version, names};
use crate::nfnl::expression::Draw;
use crate::ports::PublishedPort;

const TABLE_MAIN: u32 = 254;
/// The way back to the ingress node of a connection.
pub const TABLE_RETURN: u32 = 4096;
const RETURN_PRIORITY: u32 = 100;

pub(super) fn add(view: &View<'_>, desired: &mut Desired) {
    let mut host = Namespace::default();
    add_gateway(view, desired, &mut host);
    let ingress = view.ingress();
    if let Some((network, addresses)) = ingress {
        add_ingress(view, network, addresses, &mut host);
    }
    let sets = host_sets(view, desired, ingress.is_some());
    let mut backends = live_backends(view);
    backends.extend(sets.published.values().flat_map(|pool| &pool.slots).map(|b| b.address));
    host.backends = Arc::new(backends);
    let table = rules::host(&sets, view.facts.gateway, view.data_path_port());
    host.tables.insert(names::host_table(), Arc::new(table));
    if ingress.is_some() {
        let numbers = view.others().map(|p| p.number).filter(|n| *n > 0);
        host.tables.insert(names::return_table(), Arc::new(rules::way_back(numbers)));
    }
    host.opened.clone_from(&view.facts.forward_drops);
    desired.world.namespaces.insert(NamespaceKey::Host, host);
}

/// The pair that containers' gateway interfaces stand on. It is no bridge: containers meet on their
/// networks, and the host's bridge filter, which other software may want, has no say in it.
fn add_gateway(view: &View<'_>, desired: &mut Desired, host: &mut Namespace) {
    let gateway = view.facts.gateway;
    let device = names::GATEWAY.to_owned();
    let mac = Some(Mac::of_address(gateway.v4.addr().into()));
    host.links.insert(device.clone(), Link::new(LinkKind::Veth, mac, GATEWAY_MTU));
    let inner = Link::new(LinkKind::Veth, Some(Mac::GATEWAY_INNER), GATEWAY_MTU);
    host.links.insert(names::GATEWAY_INNER.into(), inner);
    let (inner, outer) = (names::GATEWAY_INNER.to_owned(), device.clone());
    desired.veths.insert((NamespaceKey::Host, inner), (NamespaceKey::Host, outer));
    host.addresses.extend(gateway.nets().map(|net| (device.clone(), net)));
    for (_, addresses) in on_gateway(view, desired) {
        let mac = Mac::of_addresses(addresses);
        host.neighbours.extend(addresses.iter().map(|address| ((device.clone(), address), mac)));
    }
    set(host, "net/ipv4/ip_forward", "1");
    set(host, "net/ipv4/conf/rswarm_gw/route_localnet", "1");
    set(host, "net/ipv6/conf/rswarm_gwp/disable_ipv6", "1");
    if gateway.v6.is_some() {
        // A host that forwards stops listening to routers, unless it is told to go on.
        for interface in &view.facts.advertised {
            set(host, &format!("net/ipv6/conf/{interface}/accept_ra"), "2");
        }
        set(host, "net/ipv6/conf/all/forwarding", "1");
        silence(host, names::GATEWAY);
    }
}

/// Tasks that have an interface on the gateway.
fn on_gateway<'a>(view: &View<'a>, desired: &Desired) -> Vec<(&'a AssignedTask, Addresses)> {
    let has_interface = |task: &AssignedTask| {
        let sandbox = desired.world.namespaces.get(&NamespaceKey::Sandbox(task.id));
        let link = sandbox.and_then(|n| n.links.get(&gateway_interface(task)));
        link.is_some_and(|link| link.kind == LinkKind::Macvlan)
    };
    let tasks = view.tasks.iter().copied().filter(|task| has_interface(task));
    tasks.filter_map(|task| Some((task, view.gateway_addresses(task.id)?))).collect()
}

fn set(host: &mut Namespace, name: &str, value: &str) {
    host.sysctls.insert(name.into(), value.into());
}

/// Nobody makes up an IPv6 address or a route for the interface.
fn silence(host: &mut Namespace, interface: &str) {
    set(host, &format!("net/ipv6/conf/{interface}/disable_ipv6"), "0");
    set(host, &format!("net/ipv6/conf/{interface}/accept_ra"), "0");
    set(host, &format!("net/ipv6/conf/{interface}/addr_gen_mode"), "1");
}

fn add_ingress(view: &View<'_>, network: &AssignedNetwork, own: Addresses, host: &mut Namespace) {
    let device = names::INGRESS.to_owned();
    let kind = LinkKind::Vxlan { vni: network.vni, local: view.facts.data_path, port: view.data_path_port() };
    let mac = Some(Mac::of_node(view.assignments.node.number));
    host.links.insert(device.clone(), Link::new(kind, mac, view.mtu(network)));
    let own = reachable(view, own);
    host.addresses.extend(own.iter().map(|address| (device.clone(), IpNet::from(address))));
    set(host, "net/ipv4/conf/rswarm_vxi/src_valid_mark", "1");
    set(host, "net/ipv4/conf/rswarm_vxi/route_localnet", "1");
    if own.v6.is_some() {
        silence(host, names::INGRESS);
    } else {
        set(host, "net/ipv6/conf/rswarm_vxi/disable_ipv6", "1");
    }

    let mut nodes = BTreeMap::new();
    for peer in view.others().filter(|p| p.number > 0 && !p.ingress.is_empty()) {
        let mac = Mac::of_node(peer.number);
        host.forwarding.insert((device.clone(), mac), peer.address);
        let addresses = reachable(view, peer.ingress);
        for address in addresses.iter() {
            host.neighbours.insert((device.clone(), address), mac);
            host.routes.insert(route(TABLE_MAIN, IpNet::from(address), None));
        }
        nodes.insert(peer.id, addresses);
    }
    for endpoint in view.assignments.endpoints.iter().filter(|e| view.is_live(e)) {
        let Some(node) = nodes.get(&endpoint.node) else { continue };
        for address in reachable(view, endpoint.ingress).iter() {
            let via = node.of_family(address);
            host.routes.extend(via.map(|via| route(TABLE_MAIN, IpNet::from(address), Some(via))));
        }
    }
    let own_versions = own.iter().map(Version::of);
    for version in own_versions {
        add_way_back(network, version, host);
    }
}

/// The replies of connections that came in by another node go back to it.
fn add_way_back(network: &AssignedNetwork, version: Version, host: &mut Namespace) {
    let Some(back) = return_address(network, version) else { return };
    host.neighbours.insert((names::INGRESS.into(), back), Mac::RETURN);
    host.routes.insert(route(TABLE_RETURN, version.everywhere(), Some(back)));
    host.rules.insert(RoutingRule {
        version,
        priority: RETURN_PRIORITY,
        input: names::GATEWAY.into(),
        mark: rules::MARK,
        mask: rules::MARK_MASK,
        table: TABLE_RETURN,
    });
}

/// Without IPv6 on the gateway nothing of it can be led to a container.
fn reachable(view: &View<'_>, addresses: Addresses) -> Addresses {
    Addresses { v6: addresses.v6.filter(|_| view.facts.gateway.v6.is_some()), ..addresses }
}

fn route(table: u32, to: IpNet, via: Option<IpAddr>) -> Route {
    Route { table, to, via, device: names::INGRESS.into(), is_onlink: via.is_some() }
}

/// The address that replies go by, which the store gives to nobody.
fn return_address(network: &AssignedNetwork, version: Version) -> Option<IpAddr> {
    let first = network.blocks.iter().find(|block| Version::of(block.subnet.addr()) == version);
    first.and_then(SubnetBlock::return_gateway)
}

/// Where new connections to a published port of the endpoint's service go.
fn ingress_addresses(view: &View<'_>, endpoint: &Endpoint) -> Addresses {
    if view.is_local(endpoint) {
        return view.gateway_addresses(endpoint.task).unwrap_or_default();
    }
    if view.peers.contains_key(&endpoint.node) { reachable(view, endpoint.ingress) } else { Addresses::default() }
}

/// Endpoints that may still answer connections that came in here.
fn live_backends(view: &View<'_>) -> BTreeSet<IpAddr> {
    let live = view.assignments.endpoints.iter().filter(|e| view.is_live(e));
    let sandboxes = view.tasks.iter().filter_map(|t| view.gateway_addresses(t.id));
    live.map(|e| e.ingress).chain(sandboxes).flat_map(Addresses::iter).collect()
}

fn host_sets(view: &View<'_>, desired: &Desired, has_ingress: bool) -> HostSets {
    let mut sets = HostSets { vteps: view.others().map(|peer| peer.address).collect(), ..HostSets::default() };
    sets.vteps.insert(view.facts.data_path);
    sets.nodes = view.assignments.peers.iter().flat_map(|peer| peer.addresses.iter().copied()).collect();
    sets.nodes.extend(&sets.vteps);
    if has_ingress {
        sets.zones = view.others().map(|p| p.number).filter(|n| *n > 0).collect();
        for task in &view.tasks {
            add_target(view, task, &mut sets);
        }
        add_ingress_ports(view, &mut sets);
    }
    for (task, addresses) in on_gateway(view, desired) {
        let mac = Mac::of_addresses(addresses);
        sets.senders.extend(addresses.iter().map(|address| (mac, address)));
        let networks = &view.assignments.networks;
        if is_internal(task, networks) {
            sets.internal.extend(addresses.iter());
        }
        let of_task = task.attachments.iter().filter_map(|a| view.networks.get(&a.network));
        sets.shadowed.extend(of_task.flat_map(|n| &n.blocks).map(|block| block.subnet.trunc()));
        add_host_ports(view, task, addresses, &mut sets);
    }
    sets
}

/// Lets other nodes reach the published targets of a local task.
fn add_target(view: &View<'_>, task: &AssignedTask, sets: &mut HostSets) {
    let Some(gateway) = view.gateway_addresses(task.id) else { return };
    for address in task.ingress.iter() {
        let Some(inside) = gateway.of_family(address) else { continue };
        sets.inward.insert(address, inside);
        let ports = task.ports.iter().filter(|p| p.mode == PublishMode::Ingress);
        sets.targets.extend(ports.map(|p| (inside, p.protocol, p.target)));
    }
}

fn add_ingress_ports(view: &View<'_>, sets: &mut HostSets) {
    let mut by_service: BTreeMap<_, Vec<&Endpoint>> = BTreeMap::new();
    for endpoint in view.assignments.endpoints.iter().filter(|e| view.takes_new(e)) {
        by_service.entry(endpoint.service).or_default().push(endpoint);
    }
    for service in view.services() {
        let endpoints = by_service.get(&service.id).map(Vec::as_slice).unwrap_or_default();
        let endpoints = view.preferred(service, endpoints);
        for port in service.ingress_ports() {
            let frontend = PublishedPort::of(port);
            if view.facts.held.contains(&frontend) {
                add_pools(view, service, frontend, port.target, &endpoints, sets);
            }
        }
    }
}

/// The backends of a port of the routing mesh, for each version that it is called by.
fn add_pools(
    view: &View<'_>,
    service: &AssignedService,
    frontend: PublishedPort,
    target: u16,
    endpoints: &[&Endpoint],
    sets: &mut HostSets,
) {
    let draw = draw_of(service);
    for version in versions(frontend) {
        let of_version = |e: &&Endpoint| ingress_addresses(view, e).iter().find(|a| Version::of(*a) == version);
        let backends: Vec<_> =
            endpoints.iter().filter_map(of_version).map(|address| Backend { address, port: target }).collect();
        if backends.is_empty() {
            continue;
        }
        let before = view.facts.slots.published.get(&(frontend, version));
        let slots = match draw {
            Draw::Random => settle(before.map(Vec::as_slice).unwrap_or_default(), &backends),
            Draw::ByClient => backends,
        };
        sets.published.entry((frontend, version)).or_insert(Pool { draw, slots });
    }
}

/// The versions that a port is called by.
fn versions(frontend: PublishedPort) -> impl Iterator<Item = Version> {
    let is_it = move |version: &Version| frontend.address.is_none_or(|a| Version::of(a) == *version);
    Version::BOTH.into_iter().filter(is_it)
}

fn add_host_ports(view: &View<'_>, task: &AssignedTask, addresses: Addresses, sets: &mut HostSets) {
    for port in task.ports.iter().filter(|p| p.mode == PublishMode::Host) {
        let Some(number) = view.facts.host_ports.get(&(task.id, *port)) else { continue };
        let frontend = PublishedPort { port: *number, ..PublishedPort::of(port) };
        if !view.facts.held.contains(&frontend) {
            continue;
        }
        for version in versions(frontend) {
            let Some(address) = addresses.iter().find(|a| Version::of(*a) == version) else { continue };
            let slots = vec![Backend { address, port: port.target }];
            let pool = Pool { draw: Draw::Random, slots };
            sets.published.entry((frontend, version)).or_insert(pool);
        }
    }
}
