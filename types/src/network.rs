//! A network with what the allocator gave it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::cluster::Meta;
use crate::id::NetworkId;
use crate::spec::NetworkSpec;

/// One subnet of a network, with its VXLAN segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetBlock {
    pub subnet: IpNet,
    pub gateway: IpAddr,
    /// Containers get addresses from this part (the subnet where the user gave no range).
    pub range: IpNet,
}

/// What something has in one network: at most one address of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

impl Addresses {
    /// IPv4 first.
    pub fn iter(self) -> impl Iterator<Item = IpAddr> {
        self.v4.map(IpAddr::V4).into_iter().chain(self.v6.map(IpAddr::V6))
    }

    pub fn is_empty(self) -> bool {
        self.v4.is_none() && self.v6.is_none()
    }

    /// The one of the family of `like`.
    pub fn of_family(self, like: IpAddr) -> Option<IpAddr> {
        self.iter().find(|address| address.is_ipv4() == like.is_ipv4())
    }

    /// Takes the place of the one of its family.
    pub fn put(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.v4 = Some(address),
            IpAddr::V6(address) => self.v6 = Some(address),
        }
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Self {
        let mut addresses = Self::default();
        addresses.put(address);
        addresses
    }
}

impl From<Ipv4Addr> for Addresses {
    fn from(address: Ipv4Addr) -> Self {
        Self { v4: Some(address), v6: None }
    }
}

/// `10.0.1.2, fd00::2`; empty = none.
impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// VXLAN network identifier; 0 for host and none.
    pub vni: u32,
    /// Empty for host and none. One or more of each family; a network that filled up has more.
    pub blocks: Vec<SubnetBlock>,
    /// Its stack was removed: it goes with its last user.
    pub removing: bool,
}
