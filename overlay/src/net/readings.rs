//! What rtnetlink's dumps say.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use netlink_packet_core::Parseable;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteType};
use netlink_packet_route::rule::{RuleAttribute, RuleMessage};

use super::messages::{self, PROTOCOL};
use crate::model::{Link, LinkKind, Mac, Route, RoutingRule, Version, from_octets};
use crate::netlink::{NetlinkError, Socket};

/// The links of a namespace by name, with their indexes; only kinds that we make.
pub struct Links {
    pub known: BTreeMap<String, (u32, Link)>,
    /// Of all links.
    names: BTreeMap<u32, String>,
}

impl Links {
    pub fn name(&self, index: u32) -> Option<&str> {
        self.names.get(&index).map(String::as_str)
    }
}

/// The index of a link; `None` where there is none.
///
/// # Errors
/// When the kernel does not answer.
pub fn index(socket: &mut Socket, name: &str) -> Result<Option<u32>, NetlinkError> {
    match socket.get(&messages::get_link(name)) {
        // The header: family, type, then the index.
        Ok(body) => body
            .get(4..8)
            .and_then(|b| b.try_into().ok())
            .map(u32::from_ne_bytes)
            .map(Some)
            .ok_or(NetlinkError::Malformed("a link without an index")),
        Err(error) if error.errno() == Some(libc::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// # Errors
/// When the kernel does not answer. The same holds for all below.
pub fn links(socket: &mut Socket) -> Result<Links, NetlinkError> {
    let mut links = Links { known: BTreeMap::new(), names: BTreeMap::new() };
    let mut ports = Vec::new();
    for body in socket.dump(&messages::dump_links())? {
        let Ok(message) = LinkMessage::parse(&body[..]) else { continue };
        let Some(name) = message.attributes.iter().find_map(|a| match a {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        }) else {
            continue;
        };
        links.names.insert(message.header.index, name.clone());
        if let Some((link, master)) = link(&message) {
            ports.extend(master.map(|m| (name.clone(), m)));
            links.known.insert(name, (message.header.index, link));
        }
    }
    for (port, master) in ports {
        let master = links.names.get(&master).cloned();
        if let Some((_, link)) = links.known.get_mut(&port) {
            link.master = master;
        }
    }
    Ok(links)
}

/// The link and the index of its bridge.
fn link(message: &LinkMessage) -> Option<(Link, Option<u32>)> {
    let is_loopback = message.header.flags.contains(LinkFlags::Loopback);
    let mut kind = is_loopback.then_some(LinkKind::Loopback);
    let mut link = Link::new(LinkKind::Loopback, None, 0);
    let mut master = None;
    link.is_up = message.header.flags.contains(LinkFlags::Up);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Controller(index) if *index != 0 => master = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Bridge) => kind = Some(LinkKind::Bridge),
                        LinkInfo::Kind(InfoKind::Veth) => kind = Some(LinkKind::Veth),
                        LinkInfo::Kind(InfoKind::MacVlan) => kind = Some(LinkKind::Macvlan),
                        LinkInfo::Data(InfoData::Vxlan(data)) => kind = Some(vxlan(data)),
                        LinkInfo::PortData(InfoPortData::BridgePort(flags)) => {
                            read_port(&mut link, flags);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.kind = kind?;
    Some((link, master))
}

fn vxlan(data: &[InfoVxlan]) -> LinkKind {
    let (mut vni, mut local, mut port) = (0, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    for item in data {
        match item {
            InfoVxlan::Id(id) => vni = *id,
            InfoVxlan::Local(address) => local = (*address).into(),
            InfoVxlan::Local6(address) => local = (*address).into(),
            InfoVxlan::Port(number) => port = *number,
            _ => {}
        }
    }
    LinkKind::Vxlan { vni, local, port }
}

fn read_port(link: &mut Link, flags: &[InfoBridgePort]) {
    for flag in flags {
        if let InfoBridgePort::NeighSupress(is) = flag {
            link.suppresses_neighbours = *is;
        }
    }
}

/// Addresses with the index of their link.
pub fn addresses(socket: &mut Socket) -> Result<Vec<(u32, IpNet)>, NetlinkError> {
    let bodies = socket.dump(&messages::dump_addresses())?;
    let read = |body: &Vec<u8>| {
        let message = AddressMessage::parse(&body[..]).ok()?;
        let address = message.attributes.iter().find_map(|a| match a {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        // An IPv6 one has no peer, and so only the address itself.
        let address = address.or_else(|| {
            message.attributes.iter().find_map(|a| match a {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        })?;
        let net = IpNet::new(address, message.header.prefix_len).ok()?;
        Some((message.header.index, net))
    };
    Ok(bodies.iter().filter_map(read).collect())
}

/// The MTU of the link that has this address.
pub fn mtu_of(socket: &mut Socket, address: IpAddr) -> Result<Option<u32>, NetlinkError> {
    let holder = addresses(socket)?.into_iter().find(|(_, net)| net.addr() == address);
    let Some((index, _)) = holder else { return Ok(None) };
    let mtu = |message: &LinkMessage| {
        message.attributes.iter().find_map(|a| match a {
            LinkAttribute::Mtu(mtu) => Some(*mtu),
            _ => None,
        })
    };
    let links = socket.dump(&messages::dump_links())?;
    let links = links.iter().filter_map(|body| LinkMessage::parse(&body[..]).ok());
    Ok(links.into_iter().find(|link| link.header.index == index).as_ref().and_then(mtu))
}

/// Routes of ours, and the destinations of all unicast routes of the namespace.
pub fn routes(socket: &mut Socket, links: &Links) -> Result<(Vec<Route>, Vec<IpNet>), NetlinkError> {
    let (mut ours, mut all) = (Vec::new(), Vec::new());
    for body in socket.dump(&messages::dump_routes())? {
        let Ok(message) = RouteMessage::parse(&body[..]) else { continue };
        let header = &message.header;
        let Some(version) = version(header.address_family) else { continue };
        if header.kind != RouteType::Unicast {
            continue;
        }
        let (mut to, mut via, mut index, mut table) = (None, None, 0, u32::from(header.table));
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => to = address_of(address),
                RouteAttribute::Gateway(address) => via = address_of(address),
                RouteAttribute::Oif(oif) => index = *oif,
                RouteAttribute::Table(number) => table = *number,
                _ => {}
            }
        }
        let to = to.unwrap_or_else(|| version.everywhere().addr());
        let Ok(to) = IpNet::new(to, header.destination_prefix_length) else { continue };
        all.push(to);
        if header.protocol == RouteProtocol::Other(PROTOCOL) {
            let device = links.name(index).unwrap_or_default().to_owned();
            let is_onlink = header.flags.contains(RouteFlags::Onlink);
            ours.push(Route { table, to, via, device, is_onlink });
        }
    }
    Ok((ours, all))
}

fn version(family: AddressFamily) -> Option<Version> {
    match family {
        AddressFamily::Inet => Some(Version::V4),
        AddressFamily::Inet6 => Some(Version::V6),
        _ => None,
    }
}

fn address_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

/// Routing rules of ours.
pub fn rules(socket: &mut Socket) -> Result<Vec<RoutingRule>, NetlinkError> {
    let bodies = socket.dump(&messages::dump_rules())?;
    let read = |body: &Vec<u8>| {
        let message = RuleMessage::parse(&body[..]).ok()?;
        let mut is_ours = false;
        let table = u32::from(message.header.table);
        let version = version(message.header.family)?;
        let mut rule = RoutingRule { version, priority: 0, input: String::new(), mark: 0, mask: 0, table };
        for attribute in message.attributes {
            match attribute {
                RuleAttribute::Protocol(p) => is_ours = p == RouteProtocol::Other(PROTOCOL),
                RuleAttribute::Priority(priority) => rule.priority = priority,
                RuleAttribute::Iifname(name) => rule.input = name,
                RuleAttribute::FwMark(mark) => rule.mark = mark,
                RuleAttribute::FwMask(mask) => rule.mask = mask,
                RuleAttribute::Table(table) => rule.table = table,
                _ => {}
            }
        }
        is_ours.then_some(rule)
    };
    Ok(bodies.iter().filter_map(read).collect())
}

/// Permanent neighbours: index of the link, address, MAC.
pub fn neighbours(socket: &mut Socket) -> Result<Vec<(u32, IpAddr, Mac)>, NetlinkError> {
    let bodies = socket.dump(&messages::dump_neighbours())?;
    let read = |body: &Vec<u8>| {
        let message = NeighbourMessage::parse(&body[..]).ok()?;
        let (address, mac) = destination(&message);
        let is_permanent = message.header.state == NeighbourState::Permanent;
        Some((message.header.ifindex, address.filter(|_| is_permanent)?, mac?))
    };
    Ok(bodies.iter().filter_map(read).collect())
}

/// Where VXLAN devices send frames: index of the device, MAC, host, and whether a bridge has a
/// static entry for it too.
pub fn forwarding(socket: &mut Socket) -> Result<Vec<(u32, Mac, IpAddr, bool)>, NetlinkError> {
    let (mut own, mut ports) = (BTreeMap::new(), std::collections::BTreeSet::new());
    for body in socket.dump(&messages::dump_forwarding())? {
        let Ok(message) = NeighbourMessage::parse(&body[..]) else { continue };
        let index = message.header.ifindex;
        match destination(&message) {
            (Some(to), Some(mac)) if message.header.flags.contains(NeighbourFlags::Own) => {
                own.insert((index, mac), to);
            }
            (None, Some(mac)) if message.header.state == NeighbourState::Noarp => {
                ports.insert((index, mac));
            }
            _ => {}
        }
    }
    let is_port = |key: &(u32, Mac)| ports.contains(key);
    Ok(own.into_iter().map(|(key, to)| (key.0, key.1, to, is_port(&key))).collect())
}

fn destination(message: &NeighbourMessage) -> (Option<IpAddr>, Option<Mac>) {
    let (mut address, mut mac) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(to)) => address = Some((*to).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(to)) => address = Some((*to).into()),
            NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => address = from_octets(bytes),
            NeighbourAttribute::LinkLayerAddress(bytes) => {
                mac = bytes.as_slice().try_into().ok().map(Mac);
            }
            _ => {}
        }
    }
    (address, mac)
}
