//! What users ask of a network.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// How a network is made. Others are refused by name until they are built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetworkDriver {
    #[default]
    Overlay,
    /// The host's own network; predefined, one per cluster.
    Host,
    /// Loopback only; predefined, one per cluster.
    Null,
}

impl fmt::Display for NetworkDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Overlay => "overlay",
            Self::Host => "host",
            Self::Null => "null",
        })
    }
}

/// One subnet that the user gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetSpec {
    pub subnet: IpNet,
    /// Address of the gateway; default the first of the subnet.
    pub gateway: Option<IpAddr>,
    /// Containers get addresses from this part only.
    pub range: Option<IpNet>,
    /// By name: addresses of machines of the user's own, which are never given away.
    pub aux_addresses: BTreeMap<String, IpAddr>,
}

impl From<IpNet> for SubnetSpec {
    fn from(subnet: IpNet) -> Self {
        Self { subnet, gateway: None, range: None, aux_addresses: BTreeMap::new() }
    }
}

/// Address management.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ipam {
    /// Of a family that has none here, one is cut from the cluster's pools.
    pub subnets: Vec<SubnetSpec>,
}

/// A network, `network create`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub driver: NetworkDriver,
    /// `--opt`, kept as given; known: `com.docker.network.driver.mtu`.
    pub driver_opts: BTreeMap<String, String>,
    pub ipam: Ipam,
    /// Containers get IPv6 addresses too, from a subnet of [`Ipam`] or one that is cut for the network.
    pub ipv6: bool,
    /// No way out of the network.
    pub internal: bool,
    /// Containers outside services may join.
    pub attachable: bool,
    /// The routing mesh's network; at most one.
    pub ingress: bool,
}

impl NetworkSpec {
    /// Whether it has IPv6 addresses: the ingress network always has.
    pub fn has_ipv6(&self) -> bool {
        self.ipv6 || self.ingress
    }
}
