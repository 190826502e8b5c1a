//! Requests to rtnetlink.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::IpNet;
use netlink_packet_core::NetlinkSerializable;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind, InfoVeth, InfoVxlan, LinkAttribute,
    LinkExtentMask, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Request};

use crate::model::{Link, LinkKind, Mac, Route, RoutingRule, Version};
use crate::netlink::Message;

/// Marks routes and rules as ours; a number that no routing daemon has.
pub const PROTOCOL: u8 = 171;

const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

/// A new thing, refused where there is one.
const NEW: u16 = NLM_F_CREATE | NLM_F_EXCL;
/// A thing in place of what is there.
const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;

fn message(request: &Request, flags: u16) -> Message {
    let mut body = vec![0; request.buffer_len()];
    request.serialize(&mut body);
    Message { kind: request.message_type(), flags, body }
}

fn link(attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = attributes;
    link
}

fn family(address: IpAddr) -> AddressFamily {
    family_of(Version::of(address))
}

fn family_of(version: Version) -> AddressFamily {
    match version {
        Version::V4 => AddressFamily::Inet,
        Version::V6 => AddressFamily::Inet6,
    }
}

fn to_route(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// A device in `namespace`, down. Send a VXLAN's on a socket of the namespace that its UDP socket
/// shall be in, and one that stands on another (`base`, its index) on a socket of that one's.
pub fn add_link(name: &str, what: &Link, base: Option<u32>, namespace: BorrowedFd<'_>) -> Option<Message> {
    let (kind, data) = match &what.kind {
        LinkKind::Bridge => (InfoKind::Bridge, None),
        LinkKind::Vxlan { vni, local, port } => {
            let local = match local {
                IpAddr::V4(local) => InfoVxlan::Local(*local),
                IpAddr::V6(local) => InfoVxlan::Local6(*local),
            };
            let data = vec![InfoVxlan::Id(*vni), local, InfoVxlan::Port(*port), InfoVxlan::Learning(false)];
            (InfoKind::Vxlan, Some(InfoData::Vxlan(data)))
        }
        LinkKind::Macvlan => {
            let data = vec![InfoMacVlan::Mode(MacVlanMode::Private)];
            (InfoKind::MacVlan, Some(InfoData::MacVlan(data)))
        }
        LinkKind::Loopback | LinkKind::Veth => return None,
    };
    let mut attributes = own_attributes(name, what);
    let info = [Some(LinkInfo::Kind(kind)), data.map(LinkInfo::Data)];
    attributes.push(LinkAttribute::LinkInfo(info.into_iter().flatten().collect()));
    attributes.extend(base.map(LinkAttribute::Link));
    attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    Some(message(&Request::NewLink(link(attributes)), NEW))
}

/// An interface pair: this end where the socket is, the other in `namespace`. Both are down.
pub fn add_veth(name: &str, what: &Link, inner_name: &str, inner: &Link, namespace: BorrowedFd<'_>) -> Message {
    let mut peer = own_attributes(inner_name, inner);
    peer.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
    let mut attributes = own_attributes(name, what);
    attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(link(peer)))),
    ]));
    message(&Request::NewLink(link(attributes)), NEW)
}

fn own_attributes(name: &str, what: &Link) -> Vec<LinkAttribute> {
    let mut attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::Mtu(what.mtu)];
    attributes.extend(what.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    attributes
}

/// Everything that can change: up to two requests. `master` is the bridge's index, 0 for none.
pub fn set_link(index: u32, what: &Link, master: u32) -> Vec<Message> {
    let mut set = LinkMessage::default();
    set.header.index = index;
    set.header.change_mask = LinkFlags::Up;
    set.header.flags = if what.is_up { LinkFlags::Up } else { LinkFlags::empty() };
    if what.kind != LinkKind::Loopback {
        set.attributes.push(LinkAttribute::Mtu(what.mtu));
        set.attributes.push(LinkAttribute::Controller(master));
        set.attributes.extend(what.mac.map(|mac| LinkAttribute::Address(mac.0.to_vec())));
    }
    let mut messages = vec![message(&Request::SetLink(set), 0)];
    if master != 0 {
        let mut port = LinkMessage::default();
        port.header.index = index;
        port.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::NeighSupress(
                what.suppresses_neighbours,
            )])),
        ]));
        messages.push(message(&Request::NewLink(port), 0));
    }
    messages
}

/// Of a link that is down.
pub fn rename_link(index: u32, name: &str) -> Message {
    let mut renamed = link(vec![LinkAttribute::IfName(name.into())]);
    renamed.header.index = index;
    message(&Request::SetLink(renamed), 0)
}

pub fn delete_link(index: u32) -> Message {
    let mut gone = LinkMessage::default();
    gone.header.index = index;
    message(&Request::DelLink(gone), 0)
}

/// Asks for one link.
pub fn get_link(name: &str) -> Message {
    message(&Request::GetLink(link(vec![LinkAttribute::IfName(name.into())])), 0)
}

/// Asks for all links.
pub fn dump_links() -> Message {
    let mask = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    message(&Request::GetLink(link(vec![mask])), 0)
}

fn address(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address.addr());
    message.header.prefix_len = address.prefix_len();
    message.header.index = index;
    let ip = address.addr();
    message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
    match address {
        IpNet::V4(net) if net.prefix_len() < 31 => {
            message.attributes.push(AddressAttribute::Broadcast(net.broadcast()));
        }
        IpNet::V4(_) => {}
        // Managers gave it to nobody else: no need to ask around, and to wait for answers.
        IpNet::V6(_) => message.header.flags = AddressHeaderFlags::Nodad,
    }
    message
}

pub fn add_address(index: u32, net: IpNet) -> Message {
    message(&Request::NewAddress(address(index, net)), PUT)
}

pub fn delete_address(index: u32, net: IpNet) -> Message {
    message(&Request::DelAddress(address(index, net)), 0)
}

pub fn dump_addresses() -> Message {
    message(&Request::GetAddress(AddressMessage::default()), 0)
}

fn route(route: &Route, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family(route.to.addr());
    header.destination_prefix_length = route.to.prefix_len();
    header.protocol = RouteProtocol::Other(PROTOCOL);
    header.kind = RouteType::Unicast;
    header.scope = if route.via.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if route.is_onlink {
        header.flags = RouteFlags::Onlink;
    }
    message.attributes = vec![
        RouteAttribute::Table(route.table),
        RouteAttribute::Oif(index),
        RouteAttribute::Destination(to_route(route.to.network())),
    ];
    message.attributes.extend(route.via.map(|v| RouteAttribute::Gateway(to_route(v))));
    message
}

pub fn add_route(what: &Route, index: u32) -> Message {
    message(&Request::NewRoute(route(what, index)), PUT)
}

pub fn delete_route(what: &Route, index: u32) -> Message {
    message(&Request::DelRoute(route(what, index)), 0)
}

pub fn dump_routes() -> Message {
    message(&Request::GetRoute(RouteMessage::default()), 0)
}

fn rule(rule: &RoutingRule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family_of(rule.version);
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Iifname(rule.input.clone()),
        RuleAttribute::FwMark(rule.mark),
        RuleAttribute::FwMask(rule.mask),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    message
}

pub fn add_rule(what: &RoutingRule) -> Message {
    message(&Request::NewRule(rule(what)), NEW)
}

pub fn delete_rule(what: &RoutingRule) -> Message {
    message(&Request::DelRule(rule(what)), 0)
}

pub fn dump_rules() -> Message {
    message(&Request::GetRule(RuleMessage::default()), 0)
}

fn neighbour(index: u32, address: IpAddr, mac: Option<Mac>) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(address);
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.attributes = vec![NeighbourAttribute::Destination(address.into())];
    message.attributes.extend(mac.map(|mac| NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())));
    message
}

pub fn set_neighbour(index: u32, address: IpAddr, mac: Mac) -> Message {
    message(&Request::NewNeighbour(neighbour(index, address, Some(mac))), PUT)
}

pub fn delete_neighbour(index: u32, address: IpAddr) -> Message {
    message(&Request::DelNeighbour(neighbour(index, address, None)), 0)
}

pub fn dump_neighbours() -> Message {
    message(&Request::GetNeighbour(NeighbourMessage::default()), 0)
}

fn forwarding(index: u32, mac: Mac, flags: NeighbourFlags) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.flags = flags;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.0.to_vec())];
    message
}

/// The VXLAN device sends frames for the MAC to this host. With `is_port`, its bridge sends them to
/// the device.
pub fn set_forwarding(index: u32, mac: Mac, to: IpAddr, is_port: bool) -> Vec<Message> {
    let mut own = forwarding(index, mac, NeighbourFlags::Own);
    own.header.state = NeighbourState::Permanent;
    own.attributes.push(NeighbourAttribute::Destination(to.into()));
    let mut messages = vec![message(&Request::NewNeighbour(own), PUT)];
    if is_port {
        // `static` and not `permanent`: that would be an address of the bridge itself.
        let mut port = forwarding(index, mac, NeighbourFlags::Controller);
        port.header.state = NeighbourState::Noarp;
        messages.push(message(&Request::NewNeighbour(port), PUT));
    }
    messages
}

pub fn delete_forwarding(index: u32, mac: Mac, to: IpAddr, is_port: bool) -> Vec<Message> {
    let mut own = forwarding(index, mac, NeighbourFlags::Own);
    own.attributes.push(NeighbourAttribute::Destination(to.into()));
    let mut messages = vec![message(&Request::DelNeighbour(own), 0)];
    if is_port {
        let port = forwarding(index, mac, NeighbourFlags::Controller);
        messages.push(message(&Request::DelNeighbour(port), 0));
    }
    messages
}

pub fn dump_forwarding() -> Message {
    let mut all = NeighbourMessage::default();
    all.header.family = AddressFamily::Bridge;
    message(&Request::GetNeighbour(all), 0)
}
