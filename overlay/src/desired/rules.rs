//! The rulesets, from sets of addresses.
//!
//! A change of backends changes elements only: there is one chain per *number* of backends, which
//! draws a slot, and one flat map from (address or port, slot) to the backend. Each is there once for
//! each version of the Internet protocol.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use rswarm_types::spec::Protocol;

use super::DnsPorts;
use crate::gateway::Gateway;
use crate::model::ruleset::{Chain, ChainKind, Elements, Hook, Rule, Set, SetShape, Table, Value};
use crate::model::{Mac, Version, from_octets, names, octets};
use crate::nfnl::expression::{Draw, Expressions, Front};
use crate::ports::PublishedPort;

/// The high half of our packet marks; the low half is a node's number.
pub const MARK: u32 = 0x1_0000;
pub const MARK_MASK: u32 = 0xffff_0000;

const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const HOOK_NETDEV_EGRESS: u32 = 1;
const HOOK_BRIDGE_PREROUTING: u32 = 0;

const PRIORITY_RAW: i32 = -300;
const PRIORITY_MANGLE: i32 = -150;
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SCTP: u8 = 132;
const DNS_PORT: u16 = 53;
const DNS_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// `nft`'s numbers of types; a concatenation has six bits for each.
mod kind {
    pub const IPV4: u32 = 7;
    pub const IPV6: u32 = 8;
    pub const ETHER: u32 = 9;
    pub const PROTOCOL: u32 = 12;
    pub const SERVICE: u32 = 13;
    pub const MARK: u32 = 19;
    pub const INTERFACE: u32 = 41;

    pub fn address(version: super::Version) -> u32 {
        match version {
            super::Version::V4 => IPV4,
            super::Version::V6 => IPV6,
        }
    }

    pub const fn concatenation(kinds: &[u32]) -> u32 {
        let mut sum = 0;
        let mut at = 0;
        while at < kinds.len() {
            sum = sum << 6 | kinds[at];
            at += 1;
        }
        sum
    }
}

/// An address and port that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    pub address: IpAddr,
    pub port: u16,
}

/// Who answers, one per slot, and which of them a new connection is led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool<T> {
    pub draw: Draw,
    pub slots: Vec<T>,
}

/// Backends of published ports for clients of each version, none of them empty.
pub type Published = BTreeMap<(PublishedPort, Version), Pool<Backend>>;

/// One of the senders that a filter knows: its MAC and its address.
pub type Sender = (Mac, IpAddr);

/// What changes in the host's table.
#[derive(Clone, Debug, Default)]
pub struct HostSets {
    /// Data path addresses of all nodes: VXLAN frames come from these only.
    pub vteps: BTreeSet<IpAddr>,
    /// All addresses of all nodes: what they ask of this one as clients goes back by it.
    pub nodes: BTreeSet<IpAddr>,
    /// Numbers of the other nodes, which are their conntrack zones.
    pub zones: BTreeSet<u16>,
    /// Containers on the gateway: nothing else is believed to come from there.
    pub senders: BTreeSet<Sender>,
    /// Ingress address of a local task → its gateway address.
    pub inward: BTreeMap<IpAddr, IpAddr>,
    /// What other nodes may reach.
    pub targets: BTreeSet<(IpAddr, Protocol, u16)>,
    /// Gateway addresses that may answer, but not call.
    pub internal: BTreeSet<IpAddr>,
    pub published: Published,
    /// Subnets of the networks that local tasks are on: they would answer such a client there.
    pub shadowed: BTreeSet<IpNet>,
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
        Protocol::Sctp => SCTP,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Sctp].into_iter().find(|p| self::number(*p) == number)
}

/// Joins the parts of a key: each starts at a word.
fn key(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn slot(index: usize) -> [u8; 4] {
    u32::try_from(index).unwrap_or(u32::MAX).to_ne_bytes()
}

fn set(key_type: u32, key_bytes: u32, elements: Elements) -> Set {
    Set { shape: SetShape { key_type, key_bytes, value: None }, elements }
}

fn map(key_type: u32, key_bytes: u32, value: (u32, u32), elements: Elements) -> Set {
    Set { shape: SetShape { key_type, key_bytes, value: Some(value) }, elements }
}

const VERDICT: (u32, u32) = (SetShape::VERDICT, SetShape::VERDICT_BYTES);

fn base(kind: ChainKind, number: u32, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { hook: Some(Hook { kind, number, priority, device: None }), rules }
}

fn plain(rules: Vec<Rule>) -> Chain {
    Chain { hook: None, rules }
}

fn rule() -> Expressions {
    Expressions::new()
}

/// A name that is there once for each version.
fn of(version: Version, name: &str) -> String {
    match version {
        Version::V4 => format!("{name}4"),
        Version::V6 => format!("{name}6"),
    }
}

fn letter(draw: Draw) -> &'static str {
    match draw {
        Draw::Random => "n",
        Draw::ByClient => "h",
    }
}

fn count<T>(pool: &Pool<T>) -> u32 {
    u32::try_from(pool.slots.len()).unwrap_or(u32::MAX)
}

/// A sandbox's DNS: port 53 of 127.0.0.11 is the server's port, so that a container may bind its
/// own port 53.
pub fn dns(ports: DnsPorts) -> Table {
    let redirect = |protocol, port| {
        let matched = rule().destination_is(DNS_ADDRESS).protocol_is(protocol).port_is(DNS_PORT);
        matched.dnat_to(DNS_ADDRESS, port).rule()
    };
    let rules = vec![redirect(UDP, ports.udp), redirect(TCP, ports.tcp)];
    let out = base(ChainKind::Nat, HOOK_OUTPUT, PRIORITY_DNAT, rules);
    Table { chains: BTreeMap::from([("out".into(), out)]), sets: BTreeMap::new() }
}

/// A sandbox's virtual addresses. One without a backend refuses at once.
pub fn balancer(addresses: &BTreeMap<IpAddr, Pool<IpAddr>>) -> Table {
    let mut table = Table::default();
    let mut rules = Vec::new();
    for version in Version::BOTH {
        let (backends, vips) = (of(version, "be"), of(version, "vips"));
        let mut elements = (Elements::new(), Elements::new());
        for (address, pool) in addresses.iter().filter(|(a, _)| Version::of(**a) == version) {
            let class = of(version, &format!("{}{}v", letter(pool.draw), pool.slots.len()));
            let chain = || match count(pool) {
                0 => plain(vec![rule().reject().rule()]),
                slots => plain(vec![rule().dnat_by_slot(version, pool.draw, slots, &backends).rule()]),
            };
            table.chains.entry(class.clone()).or_insert_with(chain);
            elements.1.insert(octets(*address), Value::GoTo(class));
            for (index, backend) in pool.slots.iter().enumerate() {
                let at = key(&[&octets(*address), &slot(index)]);
                elements.0.insert(at, Value::Bytes(octets(*backend)));
            }
        }
        let (kind, bytes) = (kind::address(version), version.octets());
        let slot_kind = kind::concatenation(&[kind, kind::MARK]);
        rules.push(rule().go_by_destination(version, &vips).rule());
        table.sets.insert(backends, map(slot_kind, bytes + 4, (kind, bytes), elements.0));
        table.sets.insert(vips, map(kind, bytes, VERDICT, elements.1));
    }
    table.chains.insert("out".into(), base(ChainKind::Nat, HOOK_OUTPUT, PRIORITY_DNAT, rules));
    table
}

/// The maps of published ports: by port, and by address and port.
const BACKENDS_BY: [(Front, &str, &str); 2] = [(Front::Port, "pub", "be"), (Front::AddressAndPort, "at", "atbe")];

/// The addresses that a table of [`balancer`] or [`host`] sends new connections to.
pub fn backends_in(table: &Table) -> BTreeSet<IpAddr> {
    let versions = Version::BOTH.into_iter();
    let maps = versions.flat_map(|version| BACKENDS_BY.map(|(_, _, name)| (version, of(version, name))));
    let sets = maps.filter_map(|(version, name)| Some((version, table.sets.get(&name)?)));
    let values = sets.flat_map(|(version, set)| set.elements.values().map(move |value| (version, value)));
    values.filter_map(|(version, value)| address_in(version, value)).collect()
}

/// The address that a value begins with.
fn address_in(version: Version, value: &Value) -> Option<IpAddr> {
    match value {
        Value::Bytes(bytes) => from_octets(bytes.get(..version.octets() as usize)?),
        _ => None,
    }
}

/// Backends of virtual addresses in a table of [`balancer`], in the order of their slots.
pub fn balanced_in(table: &Table) -> BTreeMap<IpAddr, Vec<IpAddr>> {
    let mut found: BTreeMap<_, BTreeMap<u32, IpAddr>> = BTreeMap::new();
    for version in Version::BOTH {
        for (key, value) in table.sets.get(&of(version, "be")).into_iter().flat_map(|set| &set.elements) {
            let split = key.split_at_checked(version.octets() as usize);
            let Some((address, slot)) = split.and_then(|(a, slot)| Some((from_octets(a)?, slot.try_into().ok()?)))
            else {
                continue;
            };
            let backend = address_in(version, value);
            found.entry(address).or_default().extend(backend.map(|b| (u32::from_ne_bytes(slot), b)));
        }
    }
    found.into_iter().map(|(address, slots)| (address, slots.into_values().collect())).collect()
}

/// Backends of published ports in a table of [`host`], in the order of their slots.
pub fn published_in(table: &Table) -> BTreeMap<(PublishedPort, Version), Vec<Backend>> {
    let mut found: BTreeMap<_, BTreeMap<u32, Backend>> = BTreeMap::new();
    for version in Version::BOTH {
        for (front, _, name) in BACKENDS_BY {
            let elements = table.sets.get(&of(version, name)).into_iter().flat_map(|set| &set.elements);
            for (key, value) in elements {
                let read = frontend_in(version, front, key).zip(backend_in(version, value));
                if let Some(((frontend, slot), backend)) = read {
                    found.entry((frontend, version)).or_default().insert(slot, backend);
                }
            }
        }
    }
    found.into_iter().map(|(port, slots)| (port, slots.into_values().collect())).collect()
}

/// The frontend and slot that a key stands for.
fn frontend_in(version: Version, front: Front, key: &[u8]) -> Option<(PublishedPort, u32)> {
    let (address, rest) = match front {
        Front::Port => (None, key),
        Front::AddressAndPort => {
            let (address, rest) = key.split_at_checked(version.octets() as usize)?;
            (Some(from_octets(address)?), rest)
        }
    };
    let rest: &[u8; 12] = rest.first_chunk()?;
    let port = u16::from_be_bytes([rest[4], rest[5]]);
    let slot = u32::from_ne_bytes([rest[8], rest[9], rest[10], rest[11]]);
    Some((PublishedPort { protocol: protocol(rest[0])?, port, address }, slot))
}

fn backend_in(version: Version, value: &Value) -> Option<Backend> {
    let Value::Bytes(bytes) = value else { return None };
    let port = bytes.get(version.octets() as usize..)?.first_chunk()?;
    Some(Backend { address: address_in(version, value)?, port: u16::from_be_bytes(*port) })
}

/// The netdev table: a reply's frame goes to the node that its connection came in by.
pub fn way_back(nodes: impl Iterator<Item = u16>) -> Table {
    let elements = nodes.map(|n| (mark(n), Value::Bytes(Mac::of_node(n).0.to_vec())));
    let node_mac = map(kind::MARK, 4, (kind::ETHER, 6), elements.collect());
    // The mark must not reach the route look-up of the tunnel itself.
    let rules = vec![rule().mark_masked_is(MARK_MASK, MARK).set_destination_mac_by_mark("node_mac").set_mark(0).rule()];
    let mut egress = base(ChainKind::Filter, HOOK_NETDEV_EGRESS, PRIORITY_FILTER, rules);
    if let Some(hook) = &mut egress.hook {
        hook.device = Some(names::INGRESS.into());
    }
    Table { chains: BTreeMap::from([("egress".into(), egress)]), sets: BTreeMap::from([("node_mac".into(), node_mac)]) }
}

fn mark(node: u16) -> Vec<u8> {
    (MARK | u32::from(node)).to_ne_bytes().to_vec()
}

/// The bridge table of an overlay: each container's port sends what is its own, and nothing else. No
/// router advertises itself there, nobody speaks for a neighbour.
pub fn guard(senders: &BTreeSet<(String, Sender)>) -> Table {
    let mut table = Table::default();
    for version in Version::BOTH {
        let of_version = senders.iter().filter(|(_, (_, address))| Version::of(*address) == version);
        let elements = of_version.map(|(port, (mac, address))| {
            let mut name = [0; 16];
            name[..port.len()].copy_from_slice(port.as_bytes());
            (key(&[&name, &mac.0, &octets(*address)]), Value::None)
        });
        let kinds = kind::concatenation(&[kind::INTERFACE, kind::ETHER, kind::address(version)]);
        let set = set(kinds, 24 + version.octets(), elements.collect());
        table.sets.insert(of(version, "senders"), set);
    }
    let (v4, v6) = (of(Version::V4, "senders"), of(Version::V6, "senders"));
    let rules = vec![
        rule().input_is(names::VXLAN).accept().rule(),
        rule().holds(ETHERTYPE_IPV4).port_sender_in_set(Version::V4, &v4).accept().rule(),
        rule().holds(ETHERTYPE_IPV6).port_sender_in_set(Version::V6, &v6).accept().rule(),
        rule().holds(ETHERTYPE_ARP).port_arp_sender_in_set(&v4).accept().rule(),
        rule().count().drop().rule(),
    ];
    table.chains.insert("pre".into(), base(ChainKind::Filter, HOOK_BRIDGE_PREROUTING, PRIORITY_RAW, rules));
    table
}

/// The host's table.
pub fn host(sets: &HostSets, gateway: Gateway, data_path_port: u16) -> Table {
    let mut table = Table { chains: BTreeMap::new(), sets: host_maps(sets) };
    add_published(&sets.published, &mut table);
    let chains: [(&str, Chain); 7] = [
        ("raw", raw(data_path_port)),
        ("rawout", {
            let vxlan = rule().protocol_is(UDP).port_is(data_path_port).no_track().rule();
            base(ChainKind::Filter, HOOK_OUTPUT, PRIORITY_RAW, vec![vxlan])
        }),
        ("mangle", mangle()),
        ("pre", {
            let inward = |version| rule().input_is(names::INGRESS).dnat_by_destination(version, &of(version, "in"));
            let mut rules: Vec<_> = Version::BOTH.map(|version| inward(version).rule()).into();
            rules.push(rule().input_is(names::INGRESS).accept().rule());
            rules.extend(published());
            base(ChainKind::Nat, HOOK_PREROUTING, PRIORITY_DNAT, rules)
        }),
        ("out", base(ChainKind::Nat, HOOK_OUTPUT, PRIORITY_DNAT, published())),
        ("post", postrouting(gateway, &sets.shadowed)),
        ("filt", forward()),
    ];
    table.chains.extend(chains.map(|(name, chain)| (name.to_owned(), chain)));
    table
}

/// The maps of published ports and the chains that draw from them.
fn add_published(published: &Published, table: &mut Table) {
    for version in Version::BOTH {
        for (front, ports_map, backends_map) in BACKENDS_BY {
            let (mut backends, mut ports) = (Elements::new(), Elements::new());
            let is_it = |frontend: &PublishedPort| frontend.address.is_some() == (front == Front::AddressAndPort);
            for ((frontend, _), pool) in published.iter().filter(|((f, v), _)| *v == version && is_it(f)) {
                let class = of(version, &format!("{}{ports_map}{}v", letter(pool.draw), pool.slots.len()));
                let draw = |slots| {
                    let name = of(version, backends_map);
                    rule().dnat_by_port_slot(version, front, pool.draw, slots, &name).rule()
                };
                table.chains.entry(class.clone()).or_insert_with(|| plain(vec![draw(count(pool))]));
                let address = frontend.address.map(octets).unwrap_or_default();
                let (protocol, port) = (number(frontend.protocol), frontend.port.to_be_bytes());
                ports.insert(key(&[&address, &[protocol], &port]), Value::GoTo(class));
                for (index, backend) in pool.slots.iter().enumerate() {
                    let to = key(&[&octets(backend.address), &backend.port.to_be_bytes()]);
                    backends.insert(key(&[&address, &[protocol], &port, &slot(index)]), Value::Bytes(to));
                }
            }
            let mut kinds = vec![kind::address(version), kind::PROTOCOL, kind::SERVICE, kind::MARK];
            let mut bytes = version.octets() + 12;
            if front == Front::Port {
                kinds.remove(0);
                bytes = 12;
            }
            let backend_type = kind::concatenation(&[kind::address(version), kind::SERVICE]);
            let value = (backend_type, version.octets() + 4);
            let backends = map(kind::concatenation(&kinds), bytes, value, backends);
            kinds.pop();
            let ports = map(kind::concatenation(&kinds), bytes - 4, VERDICT, ports);
            table.sets.insert(of(version, backends_map), backends);
            table.sets.insert(of(version, ports_map), ports);
        }
    }
}

fn host_maps(sets: &HostSets) -> BTreeMap<String, Set> {
    // A register that a zone was loaded to is a zero-extended word.
    let zone = |node: u16| u32::from(node).to_le_bytes().to_vec();
    let macs = sets.zones.iter().map(|n| (Mac::of_node(*n).0.to_vec(), Value::Bytes(zone(*n))));
    let marks = sets.zones.iter().map(|n| (zone(*n), Value::Bytes(mark(*n))));
    let mut found = BTreeMap::from([
        ("node_id".to_owned(), map(kind::ETHER, 6, (kind::MARK, 4), macs.collect())),
        ("zone_mark".to_owned(), map(kind::MARK, 4, (kind::MARK, 4), marks.collect())),
    ]);
    for version in Version::BOTH {
        found.extend(versioned_maps(version, sets).map(|(name, set)| (of(version, name), set)));
    }
    found
}

fn versioned_maps(version: Version, sets: &HostSets) -> [(&'static str, Set); 6] {
    let is_of = |address: &IpAddr| Version::of(*address) == version;
    let addresses = |all: &BTreeSet<IpAddr>| -> Elements {
        all.iter().filter(|a| is_of(a)).map(|a| (octets(*a), Value::None)).collect()
    };
    let inward = sets.inward.iter().filter(|(to, by)| is_of(to) && is_of(by));
    let inward = inward.map(|(to, by)| (octets(*to), Value::Bytes(octets(*by))));
    let targets = sets.targets.iter().filter(|(a, ..)| is_of(a)).map(|(address, protocol, port)| {
        (key(&[&octets(*address), &[number(*protocol)], &port.to_be_bytes()]), Value::None)
    });
    let senders = sets.senders.iter().filter(|(_, address)| is_of(address));
    let senders = senders.map(|(mac, address)| (key(&[&mac.0, &octets(*address)]), Value::None));
    let (kind, bytes) = (kind::address(version), version.octets());
    let target_kind = kind::concatenation(&[kind, kind::PROTOCOL, kind::SERVICE]);
    [
        ("vteps", set(kind, bytes, addresses(&sets.vteps))),
        ("nodes", set(kind, bytes, addresses(&sets.nodes))),
        ("internal", set(kind, bytes, addresses(&sets.internal))),
        ("in", map(kind, bytes, (kind, bytes), inward.collect())),
        ("local", set(target_kind, bytes + 8, targets.collect())),
        ("senders", set(kind::concatenation(&[kind::ETHER, kind]), bytes + 8, senders.collect())),
    ]
}

/// Before connection tracking: who may speak at all, and which node a connection came in by.
fn raw(data_path_port: u16) -> Chain {
    let vxlan = || rule().protocol_is(UDP).port_is(data_path_port);
    let mut rules = Vec::new();
    for version in Version::BOTH {
        rules.push(vxlan().source_not_in_set(version, &of(version, "vteps")).count().drop().rule());
    }
    rules.push(vxlan().no_track().rule());
    // route_localnet is on, for published ports on 127.0.0.1.
    rules.push(rule().input_is_not(names::LOOPBACK).destination_in(LOOPBACK_NET).drop().rule());
    for version in Version::BOTH {
        let known = of(version, "senders");
        rules.push(rule().input_is(names::GATEWAY).sender_not_in_set(version, &known).count().drop().rule());
    }
    rules.push(rule().input_is(names::INGRESS).set_zone_by_source_mac("node_id").rule());
    base(ChainKind::Filter, HOOK_PREROUTING, PRIORITY_RAW, rules)
}

const LOOPBACK_NET: IpNet = match Ipv4Net::new(Ipv4Addr::new(127, 0, 0, 0), 8) {
    Ok(net) => IpNet::V4(net),
    Err(_) => panic!("8 is a prefix length"),
};

fn mangle() -> Chain {
    let from_gateway = || rule().input_is(names::GATEWAY);
    let mut rules = vec![
        // The reverse path of what comes in over the mesh is the mesh.
        rule().input_is(names::INGRESS).set_mark(MARK).rule(),
        from_gateway().is_reply().has_zone().set_mark_by_zone("zone_mark").rule(),
    ];
    for version in Version::BOTH {
        let internal = from_gateway().source_in_set(version, &of(version, "internal"));
        rules.push(internal.is_original().count().drop().rule());
    }
    base(ChainKind::Filter, HOOK_PREROUTING, PRIORITY_MANGLE, rules)
}

/// One address's port comes before the same port of all.
fn published() -> Vec<Rule> {
    let fronts = [BACKENDS_BY[1], BACKENDS_BY[0]];
    let by = |version, (front, map, _): (Front, &str, &str)| {
        rule().destination_is_local().go_by_port(version, front, &of(version, map)).rule()
    };
    fronts.into_iter().flat_map(|front| Version::BOTH.map(|version| by(version, front))).collect()
}

/// Sources that could not be answered otherwise. A client's address is never touched, unless the
/// container would take the client for a neighbour on one of its networks.
fn postrouting(gateway: Gateway, shadowed: &BTreeSet<IpNet>) -> Chain {
    let mut rules = Vec::new();
    for device in [names::INGRESS, names::GATEWAY] {
        for source in std::iter::once(LOOPBACK_NET).chain(gateway.subnets()) {
            let matched = rule().output_is(device).is_dnat().source_in(source);
            rules.push(matched.masquerade().rule());
        }
    }
    for version in Version::BOTH {
        let other_node = rule().output_is(names::INGRESS).is_dnat().source_is_foreign();
        rules.push(other_node.source_in_set(version, &of(version, "nodes")).masquerade().rule());
    }
    for subnet in shadowed {
        rules.push(rule().output_is(names::GATEWAY).is_dnat().source_in(*subnet).masquerade().rule());
    }
    for source in gateway.subnets() {
        let outward = rule().output_is_not(names::INGRESS).output_is_not(names::GATEWAY);
        rules.push(outward.source_in(source).masquerade().rule());
    }
    base(ChainKind::Nat, HOOK_POSTROUTING, PRIORITY_SNAT, rules)
}

/// Only published targets are reached, from other nodes or from outside.
fn forward() -> Chain {
    let from_mesh = || rule().input_is(names::INGRESS);
    let to_gateway = || rule().output_is(names::GATEWAY);
    let mut rules = vec![
        rule().output_is(names::INGRESS).is_tcp_syn().clamp_segment_size().rule(),
        rule().is_established().accept().rule(),
    ];
    for version in Version::BOTH {
        let inward = from_mesh().output_is(names::GATEWAY).destination_in_set(version, &of(version, "local"));
        rules.push(inward.accept().rule());
    }
    rules.extend([
        from_mesh().count().drop().rule(),
        to_gateway().is_dnat().accept().rule(),
        to_gateway().count().drop().rule(),
    ]);
    base(ChainKind::Filter, HOOK_FORWARD, PRIORITY_FILTER, rules)
}

/// What opens somebody else's forward chain for us, which an accept in our own cannot.
pub fn forward_accepts() -> Vec<Rule> {
    vec![
        rule().input_begins(names::FORWARD_PREFIX).count().accept().rule(),
        rule().output_begins(names::FORWARD_PREFIX).count().accept().rule(),
    ]
}
