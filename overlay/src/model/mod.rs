//! The kernel state that we own, as a value: what should be, what is, and one step from the one to
//! the other.

mod change;
pub mod names;
pub mod ruleset;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rswarm_types::network::Addresses;
use rswarm_types::{NetworkId, TaskId};

pub use crate::nfnl::dump::ForeignChain;
pub use change::{Change, Impossible, Op};
use ruleset::{Table, TableName};

/// A network namespace of ours, or the host's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceKey {
    Host,
    /// Bridge and VXLAN of an overlay network.
    Network(NetworkId),
    /// A task's.
    Sandbox(TaskId),
}

impl fmt::Display for NamespaceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => write!(f, "host"),
            Self::Network(id) => write!(f, "network {id}"),
            Self::Sandbox(id) => write!(f, "sandbox of task {id}"),
        }
    }
}

/// A hardware address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The one that goes with an overlay's or the gateway's addresses: nobody need be asked for it.
    pub fn of_addresses(addresses: Addresses) -> Self {
        match (addresses.v4, addresses.v6) {
            (Some(v4), _) => Self::of_address(v4.into()),
            (None, Some(v6)) => Self::of_address(v6.into()),
            (None, None) => Self::default(),
        }
    }

    /// The one that goes with an address alone: of IPv6 its last four octets count, which managers
    /// give out one by one.
    pub fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self([0x02, 0x42, a, b, c, d])
            }
            IpAddr::V6(v6) => {
                let [.., a, b, c, d] = v6.octets();
                Self([0x02, 0x43, a, b, c, d])
            }
        }
    }

    /// A node's, on the ingress device.
    pub fn of_node(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self([0x02, 0x42, 0xfe, 0, high, low])
    }

    /// Stands for the ingress node of a connection until its frame leaves.
    pub const RETURN: Self = Self([0x02, 0x42, 0xfe, 0xff, 0xff, 0xff]);

    /// Of the gateway's inner end, where nobody is called by it.
    pub const GATEWAY_INNER: Self = Self([0x02, 0x42, 0xfe, 0xff, 0xff, 0xfe]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The version of the Internet protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    V4,
    V6,
}

impl Version {
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The network of all addresses.
    pub fn everywhere(self) -> IpNet {
        match self {
            Self::V4 => IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0)),
            Self::V6 => IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 0)),
        }
    }

    /// Octets of an address.
    pub fn octets(self) -> u32 {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

/// The octets of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// What [`octets`] gave.
pub fn from_octets(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

/// What a link is, with what cannot be changed once it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Loopback,
    Bridge,
    Vxlan {
        vni: u32,
        local: IpAddr,
        port: u16,
    },
    Veth,
    /// On the inner end of the gateway's pair, in the host's namespace. It meets nobody but the host.
    Macvlan,
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub kind: LinkKind,
    /// `None`: whatever the kernel chose.
    pub mac: Option<Mac>,
    pub mtu: u32,
    pub is_up: bool,
    /// The bridge that it is a port of.
    pub master: Option<String>,
    /// Port behind which the bridge answers ARP itself.
    pub suppresses_neighbours: bool,
}

impl Link {
    pub fn new(kind: LinkKind, mac: Option<Mac>, mtu: u32) -> Self {
        Self { kind, mac, mtu, is_up: true, master: None, suppresses_neighbours: false }
    }
}

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: u32,
    pub to: IpNet,
    pub via: Option<IpAddr>,
    pub device: String,
    /// The next hop is reached over the device whatever its address.
    pub is_onlink: bool,
}

/// A routing rule of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutingRule {
    pub version: Version,
    pub priority: u32,
    pub input: String,
    pub mark: u32,
    pub mask: u32,
    pub table: u32,
}

/// What is in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespace {
    /// Under /proc/sys, with the value.
    pub sysctls: BTreeMap<String, String>,
    pub links: BTreeMap<String, Link>,
    pub addresses: BTreeSet<(String, IpNet)>,
    pub routes: BTreeSet<Route>,
    pub rules: BTreeSet<RoutingRule>,
    /// Permanent ones: device and address.
    pub neighbours: BTreeMap<(String, IpAddr), Mac>,
    /// Static forwarding of a VXLAN device: frames for the MAC go to this host.
    pub forwarding: BTreeMap<(String, Mac), IpAddr>,
    pub tables: BTreeMap<TableName, Arc<Table>>,
    /// Chains of others that would drop our traffic, and that we have opened for it.
    pub opened: BTreeSet<ForeignChain>,
    /// Addresses that may answer connections.
    pub backends: Arc<BTreeSet<IpAddr>>,
}

/// All namespaces; the host's is always there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    pub namespaces: BTreeMap<NamespaceKey, Namespace>,
    /// Interface pairs by their outer ends, as far as they are known.
    pub pairs: BTreeMap<LinkEnd, LinkEnd>,
}

/// An interface somewhere.
pub type LinkEnd = (NamespaceKey, String);

impl Default for World {
    fn default() -> Self {
        let namespaces = BTreeMap::from([(NamespaceKey::Host, Namespace::default())]);
        Self { namespaces, pairs: BTreeMap::new() }
    }
}

impl World {
    /// The host's namespace.
    pub fn host(&self) -> &Namespace {
        static EMPTY: std::sync::LazyLock<Namespace> = std::sync::LazyLock::new(Namespace::default);
        self.namespaces.get(&NamespaceKey::Host).unwrap_or(&EMPTY)
    }

    /// Takes two interfaces that are named as a pair would be for one, and forgets pairs of which an
    /// end is gone.
    pub fn assume_pairs<'a>(&mut self, pairs: impl Iterator<Item = (LinkEnd, &'a LinkEnd)>) {
        let namespaces = &self.namespaces;
        let is_veth = |end: &LinkEnd| is_veth(namespaces, end);
        self.pairs.retain(|outer, inner| is_veth(outer) && is_veth(inner));
        let mut paired: BTreeSet<LinkEnd> = self.pairs.values().cloned().collect();
        for (inner, outer) in pairs {
            let is_free = !self.pairs.contains_key(outer) && !paired.contains(&inner);
            if is_free && is_veth(&inner) && is_veth(outer) {
                paired.insert(inner.clone());
                self.pairs.insert(outer.clone(), inner);
            }
        }
    }

    /// The namespaces of pairs of which an end is gone, and of what stood on the gateway's.
    pub fn broken_pairs(&self) -> BTreeSet<NamespaceKey> {
        let is_veth = |end: &LinkEnd| is_veth(&self.namespaces, end);
        let broken = self.pairs.iter().filter(|(outer, inner)| !is_veth(outer) || !is_veth(inner));
        let mut keys: BTreeSet<_> = broken.flat_map(|(outer, inner)| [outer.0, inner.0]).collect();
        if !self.host().links.contains_key(names::GATEWAY_INNER) {
            let stands = |n: &Namespace| n.links.values().any(|l| l.kind == LinkKind::Macvlan);
            keys.extend(self.namespaces.iter().filter(|(_, n)| stands(n)).map(|(key, _)| *key));
        }
        keys
    }

    /// Tasks with a sandbox.
    pub fn sandboxes(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.namespaces.keys().filter_map(|key| match key {
            NamespaceKey::Sandbox(task) => Some(*task),
            _ => None,
        })
    }
}

fn is_veth(namespaces: &BTreeMap<NamespaceKey, Namespace>, end: &LinkEnd) -> bool {
    let link = namespaces.get(&end.0).and_then(|n| n.links.get(&end.1));
    link.is_some_and(|l| l.kind == LinkKind::Veth)
}
