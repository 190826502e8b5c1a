//! The rulesets, from sets of addresses.
//!
//! A change of backends changes elements only: there is one chain per *number* of backends, which
//! draws a slot at random, and one flat map from (address or port, slot) to the backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rswarm_types::spec::Protocol;

use super::DnsPorts;
use crate::model::ruleset::{Chain, ChainKind, Elements, Hook, Rule, Set, SetShape, Table, Value};
use crate::model::{Mac, names};
use crate::nfnl::expression::Expressions;

/// The high half of our packet marks; the low half is a node's number.
pub const MARK: u32 = 0x1_0000;
pub const MARK_MASK: u32 = 0xffff_0000;

const HOOK_PREROUTING: u32 = 0;
const HOOK_FORWARD: u32 = 2;
const HOOK_OUTPUT: u32 = 3;
const HOOK_POSTROUTING: u32 = 4;
const HOOK_NETDEV_EGRESS: u32 = 1;

const PRIORITY_RAW: i32 = -300;
const PRIORITY_MANGLE: i32 = -150;
const PRIORITY_DNAT: i32 = -100;
const PRIORITY_FILTER: i32 = 0;
const PRIORITY_SNAT: i32 = 100;

const TCP: u8 = 6;
const UDP: u8 = 17;
const DNS_PORT: u16 = 53;
const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// `nft`'s numbers of types; a concatenation has six bits for each.
mod kind {
    pub const IPV4: u32 = 7;
    pub const ETHER: u32 = 9;
    pub const PROTOCOL: u32 = 12;
    pub const SERVICE: u32 = 13;
    pub const MARK: u32 = 19;

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
    pub address: Ipv4Addr,
    pub port: u16,
}

/// Backends of published ports, none of them empty.
pub type Published = BTreeMap<(Protocol, u16), Vec<Backend>>;

/// What changes in the host's table.
#[derive(Clone, Debug, Default)]
pub struct HostSets {
    /// Data path addresses of all nodes: VXLAN frames come from these only.
    pub nodes: BTreeSet<Ipv4Addr>,
    /// Numbers of the other nodes, which are their conntrack zones.
    pub zones: BTreeSet<u16>,
    /// Ingress address of a local task → its gateway address.
    pub inward: BTreeMap<Ipv4Addr, Ipv4Addr>,
    /// What other nodes may reach.
    pub targets: BTreeSet<(Ipv4Addr, Protocol, u16)>,
    /// Gateway addresses that may answer, but not call.
    pub internal: BTreeSet<Ipv4Addr>,
    pub published: Published,
}

fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    }
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

fn base(kind: ChainKind, number: u32, priority: i32, rules: Vec<Rule>) -> Chain {
    Chain { hook: Some(Hook { kind, number, priority, device: None }), rules }
}

fn plain(rules: Vec<Rule>) -> Chain {
    Chain { hook: None, rules }
}

fn rule() -> Expressions {
    Expressions::new()
}

fn class(backends: usize) -> String {
    format!("n{backends}")
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
pub fn balancer(addresses: &BTreeMap<Ipv4Addr, Vec<Ipv4Addr>>) -> Table {
    let mut backends = Elements::new();
    let mut classes = Elements::new();
    let mut table = Table::default();
    for (address, all) in addresses {
        let class = class(all.len());
        table.chains.entry(class.clone()).or_insert_with(|| {
            let slots = u32::try_from(all.len()).unwrap_or(u32::MAX);
            plain(vec![match slots {
                0 => rule().reject().rule(),
                slots => rule().dnat_by_slot(slots, "be").rule(),
            }])
        });
        classes.insert(address.octets().to_vec(), Value::GoTo(class));
        for (index, backend) in all.iter().enumerate() {
            let at = key(&[&address.octets(), &slot(index)]);
            backends.insert(at, Value::Bytes(backend.octets().to_vec()));
        }
    }
    let address_and_slot = kind::concatenation(&[kind::IPV4, kind::MARK]);
    table.sets.insert("be".into(), map(address_and_slot, 8, (kind::IPV4, 4), backends));
    let verdict = (SetShape::VERDICT, SetShape::VERDICT_BYTES);
    table.sets.insert("vips".into(), map(kind::IPV4, 4, verdict, classes));
    let rules = vec![rule().go_by_destination("vips").rule()];
    table.chains.insert("out".into(), base(ChainKind::Nat, HOOK_OUTPUT, PRIORITY_DNAT, rules));
    table
}

/// The addresses that a table of [`balancer`] or [`host`] sends new connections to.
pub fn backends_in(table: &Table) -> BTreeSet<Ipv4Addr> {
    let maps = ["be", "be4"].iter().filter_map(|name| table.sets.get(*name));
    let values = maps.flat_map(|set| set.elements.values());
    values
        .filter_map(|value| match value {
            Value::Bytes(bytes) => bytes.first_chunk::<4>().map(|b| Ipv4Addr::from(*b)),
            _ => None,
        })
        .collect()
}

/// Backends of virtual addresses in a table of [`balancer`], in the order of their slots.
pub fn balanced_in(table: &Table) -> BTreeMap<Ipv4Addr, Vec<Ipv4Addr>> {
    let mut found: BTreeMap<_, BTreeMap<u32, Ipv4Addr>> = BTreeMap::new();
    for (key, value) in table.sets.get("be").into_iter().flat_map(|set| &set.elements) {
        let (Some((address, slot)), Value::Bytes(value)) = (key.split_at_checked(4), value) else { continue };
        if let (Ok(address), Ok(slot), Some(backend)) =
            (<[u8; 4]>::try_from(address), slot.try_into(), value.first_chunk::<4>())
        {
            let slots = found.entry(Ipv4Addr::from(address)).or_default();
            slots.insert(u32::from_ne_bytes(slot), Ipv4Addr::from(*backend));
        }
    }
    found.into_iter().map(|(address, slots)| (address, slots.into_values().collect())).collect()
}

/// Backends of published ports in a table of [`host`], in the order of their slots.
pub fn published_in(table: &Table) -> Published {
    let mut found: BTreeMap<_, BTreeMap<u32, Backend>> = BTreeMap::new();
    for (key, value) in table.sets.get("be4").into_iter().flat_map(|set| &set.elements) {
        let Value::Bytes(value) = value else { continue };
        let (Some(key), Some(value)) = (key.first_chunk::<12>(), value.first_chunk::<6>()) else { continue };
        let protocol = if key[0] == TCP { Protocol::Tcp } else { Protocol::Udp };
        let published = u16::from_be_bytes([key[4], key[5]]);
        let slot = u32::from_ne_bytes([key[8], key[9], key[10], key[11]]);
        let address = Ipv4Addr::new(value[0], value[1], value[2], value[3]);
        let backend = Backend { address, port: u16::from_be_bytes([value[4], value[5]]) };
        found.entry((protocol, published)).or_default().insert(slot, backend);
    }
    found.into_iter().map(|(port, slots)| (port, slots.into_values().collect())).collect()
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

/// The host's table.
pub fn host(sets: &HostSets, gateway: Ipv4Net, data_path_port: u16) -> Table {
    let mut table = Table { chains: BTreeMap::new(), sets: host_maps(sets) };
    for backends in sets.published.values() {
        let slots = u32::try_from(backends.len()).unwrap_or(u32::MAX);
        table
            .chains
            .entry(class(backends.len()))
            .or_insert_with(|| plain(vec![rule().ipv4().dnat_by_port_slot(slots, "be4").rule()]));
    }
    let chains: [(&str, Chain); 7] = [
        ("raw", raw(gateway, data_path_port)),
        ("rawout", {
            let vxlan = rule().protocol_is(UDP).port_is(data_path_port).no_track().rule();
            base(ChainKind::Filter, HOOK_OUTPUT, PRIORITY_RAW, vec![vxlan])
        }),
        ("mangle", mangle()),
        ("pre", {
            let mut rules = vec![
                rule().input_is(names::INGRESS).ipv4().dnat_by_destination("in4").rule(),
                rule().input_is(names::INGRESS).accept().rule(),
            ];
            rules.push(published());
            base(ChainKind::Nat, HOOK_PREROUTING, PRIORITY_DNAT, rules)
        }),
        ("out", base(ChainKind::Nat, HOOK_OUTPUT, PRIORITY_DNAT, vec![published()])),
        ("post", postrouting(gateway)),
        ("filt", forward()),
    ];
    table.chains.extend(chains.map(|(name, chain)| (name.to_owned(), chain)));
    table
}

fn host_maps(sets: &HostSets) -> BTreeMap<String, Set> {
    // A register that a zone was loaded to is a zero-extended word.
    let zone = |node: u16| u32::from(node).to_le_bytes().to_vec();
    let address = |a: &Ipv4Addr| (a.octets().to_vec(), Value::None);
    let mut backends = Elements::new();
    let mut ports = Elements::new();
    for ((protocol, port), all) in &sets.published {
        let (protocol, port) = (number(*protocol), port.to_be_bytes());
        ports.insert(key(&[&[protocol], &port]), Value::GoTo(class(all.len())));
        for (index, backend) in all.iter().enumerate() {
            let to = key(&[&backend.address.octets(), &backend.port.to_be_bytes()]);
            backends.insert(key(&[&[protocol], &port, &slot(index)]), Value::Bytes(to));
        }
    }
    let macs = sets.zones.iter().map(|n| (Mac::of_node(*n).0.to_vec(), Value::Bytes(zone(*n))));
    let marks = sets.zones.iter().map(|n| (zone(*n), Value::Bytes(mark(*n))));
    let inward = sets.inward.iter();
    let inward = inward.map(|(to, by)| (to.octets().to_vec(), Value::Bytes(by.octets().to_vec())));
    let targets = sets.targets.iter().map(|(address, protocol, port)| {
        (key(&[&address.octets(), &[number(*protocol)], &port.to_be_bytes()]), Value::None)
    });
    let target_type = kind::concatenation(&[kind::IPV4, kind::PROTOCOL, kind::SERVICE]);
    let port_type = kind::concatenation(&[kind::PROTOCOL, kind::SERVICE]);
    let slot_type = kind::concatenation(&[kind::PROTOCOL, kind::SERVICE, kind::MARK]);
    let backend_type = kind::concatenation(&[kind::IPV4, kind::SERVICE]);
    let verdict = (SetShape::VERDICT, SetShape::VERDICT_BYTES);
    [
        ("nodes", set(kind::IPV4, 4, sets.nodes.iter().map(address).collect())),
        ("internal", set(kind::IPV4, 4, sets.internal.iter().map(address).collect())),
        ("node_id", map(kind::ETHER, 6, (kind::MARK, 4), macs.collect())),
        ("zone_mark", map(kind::MARK, 4, (kind::MARK, 4), marks.collect())),
        ("in4", map(kind::IPV4, 4, (kind::IPV4, 4), inward.collect())),
        ("local4", set(target_type, 12, targets.collect())),
        ("pub4", map(port_type, 8, verdict, ports)),
        ("be4", map(slot_type, 12, (backend_type, 8), backends)),
    ]
    .into_iter()
    .map(|(name, set)| (name.to_owned(), set))
    .collect()
}

/// Before connection tracking: who may speak at all, and which node a connection came in by.
fn raw(gateway: Ipv4Net, data_path_port: u16) -> Chain {
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let vxlan = || rule().protocol_is(UDP).port_is(data_path_port);
    let rules = vec![
        vxlan().ipv4().source_not_in_set("nodes").count().drop().rule(),
        vxlan().no_track().rule(),
        // route_localnet is on, for published ports on 127.0.0.1.
        rule().input_is_not(names::LOOPBACK).ipv4().destination_in(loopback).drop().rule(),
        rule().input_is(names::GATEWAY).ipv4().source_not_in(gateway).count().drop().rule(),
        rule().input_is(names::INGRESS).set_zone_by_source_mac("node_id").rule(),
    ];
    base(ChainKind::Filter, HOOK_PREROUTING, PRIORITY_RAW, rules)
}

fn mangle() -> Chain {
    let from_gateway = || rule().input_is(names::GATEWAY);
    let rules = vec![
        // The reverse path of what comes in over the mesh is the mesh.
        rule().input_is(names::INGRESS).set_mark(MARK).rule(),
        from_gateway().is_reply().has_zone().set_mark_by_zone("zone_mark").rule(),
        from_gateway().ipv4().source_in_set("internal").is_original().count().drop().rule(),
    ];
    base(ChainKind::Filter, HOOK_PREROUTING, PRIORITY_MANGLE, rules)
}

fn published() -> Rule {
    rule().destination_is_local().ipv4().go_by_port("pub4").rule()
}

/// Sources that could not be answered otherwise. A client's address is never touched.
fn postrouting(gateway: Ipv4Net) -> Chain {
    let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let mut rules = Vec::new();
    for device in [names::INGRESS, names::GATEWAY] {
        for source in [loopback, gateway] {
            let matched = rule().output_is(device).is_dnat().ipv4().source_in(source);
            rules.push(matched.masquerade().rule());
        }
    }
    let other_node = rule().output_is(names::INGRESS).is_dnat().ipv4().source_is_foreign();
    rules.push(other_node.source_in_set("nodes").masquerade().rule());
    let outward = rule().output_is_not(names::INGRESS).output_is_not(names::GATEWAY);
    rules.push(outward.ipv4().source_in(gateway).masquerade().rule());
    base(ChainKind::Nat, HOOK_POSTROUTING, PRIORITY_SNAT, rules)
}

/// Only published targets are reached, from other nodes or from outside.
fn forward() -> Chain {
    let from_mesh = || rule().input_is(names::INGRESS);
    let to_gateway = || rule().output_is(names::GATEWAY);
    let rules = vec![
        rule().output_is(names::INGRESS).is_tcp_syn().clamp_segment_size().rule(),
        rule().is_established().accept().rule(),
        from_mesh().output_is(names::GATEWAY).ipv4().destination_in_set("local4").accept().rule(),
        from_mesh().count().drop().rule(),
        to_gateway().is_dnat().accept().rule(),
        to_gateway().count().drop().rule(),
    ];
    base(ChainKind::Filter, HOOK_FORWARD, PRIORITY_FILTER, rules)
}

/// What opens somebody else's forward chain for us, which an accept in our own cannot.
pub fn forward_accepts() -> Vec<Rule> {
    vec![
        rule().input_begins(names::FORWARD_PREFIX).count().accept().rule(),
        rule().output_begins(names::FORWARD_PREFIX).count().accept().rule(),
    ]
}
