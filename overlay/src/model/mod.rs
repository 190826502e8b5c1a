//! The kernel state that we own, as a value: what should be, what is, and one step from the one to
//! the other.

mod change;
pub mod names;
pub mod ruleset;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;
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
    /// The one of an overlay or gateway address: nobody need be asked for it.
    pub fn of_address(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x42, a, b, c, d])
    }

    /// A node's, on the ingress device.
    pub fn of_node(number: u16) -> Self {
        let [high, low] = number.to_be_bytes();
        Self([0x02, 0x42, 0xfe, 0, high, low])
    }

    /// Stands for the ingress node of a connection until its frame leaves.
    pub const RETURN: Self = Self([0x02, 0x42, 0xfe, 0xff, 0xff, 0xff]);
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

/// What a link is, with what cannot be changed once it exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkKind {
    Loopback,
    Bridge,
    Vxlan { vni: u32, local: Ipv4Addr, port: u16 },
    Veth,
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
    /// Port that reaches no other isolated port.
    pub is_isolated: bool,
    /// Port behind which the bridge answers ARP itself.
    pub suppresses_neighbours: bool,
}

impl Link {
    pub fn new(kind: LinkKind, mac: Option<Mac>, mtu: u32) -> Self {
        Self { kind, mac, mtu, is_up: true, master: None, is_isolated: false, suppresses_neighbours: false }
    }
}

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub table: u32,
    pub to: Ipv4Net,
    pub via: Option<Ipv4Addr>,
    pub device: String,
    /// The next hop is reached over the device whatever its address.
    pub is_onlink: bool,
}

/// A routing rule of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoutingRule {
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
    pub addresses: BTreeSet<(String, Ipv4Net)>,
    pub routes: BTreeSet<Route>,
    pub rules: BTreeSet<RoutingRule>,
    /// Permanent ones: device and address.
    pub neighbours: BTreeMap<(String, Ipv4Addr), Mac>,
    /// Static forwarding of a VXLAN device: frames for the MAC go to this host.
    pub forwarding: BTreeMap<(String, Mac), Ipv4Addr>,
    pub tables: BTreeMap<TableName, Arc<Table>>,
    /// Chains of others that would drop our traffic, and that we have opened for it.
    pub opened: BTreeSet<ForeignChain>,
    /// Addresses that may answer connections.
    pub backends: Arc<BTreeSet<Ipv4Addr>>,
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

    /// The namespaces of pairs of which an end is gone.
    pub fn broken_pairs(&self) -> BTreeSet<NamespaceKey> {
        let is_veth = |end: &LinkEnd| is_veth(&self.namespaces, end);
        let broken = self.pairs.iter().filter(|(outer, inner)| !is_veth(outer) || !is_veth(inner));
        broken.flat_map(|(outer, inner)| [outer.0, inner.0]).collect()
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
