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

impl SubnetBlock {
    /// Where replies of the routing mesh go, if the block is the first of its family in the ingress network: the last
    /// host of an IPv4 subnet, host `fffe` of an IPv6 one. `None` where that is the gateway, or no host.
    pub fn return_gateway(&self) -> Option<IpAddr> {
        let address = match self.subnet {
            IpNet::V4(net) => IpAddr::V4(Ipv4Addr::from_bits(net.broadcast().to_bits().checked_sub(1)?)),
            IpNet::V6(net) => IpAddr::V6(Ipv6Addr::from_bits(net.network().to_bits() | 0xfffe)),
        };
        let is_host = self.subnet.contains(&address) && address != self.subnet.network();
        (is_host && address != self.gateway).then_some(address)
    }
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

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut all = Self::default();
        addresses.into_iter().for_each(|address| all.put(address));
        all
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

/// The address after the network's own, which is the gateway's where nobody names another.
pub fn first_host(subnet: IpNet) -> IpAddr {
    match subnet {
        IpNet::V4(net) => Ipv4Addr::from_bits(net.network().to_bits().saturating_add(1)).into(),
        IpNet::V6(net) => Ipv6Addr::from_bits(net.network().to_bits().saturating_add(1)).into(),
    }
}

/// Whether two networks have an address in common; of different families they have none.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_return_gateway_is_a_host_that_is_not_the_gateway() {
        for (subnet, gateway, expected) in [
            ("10.0.0.0/24", "10.0.0.1", Some("10.0.0.254")),
            ("10.0.0.0/24", "10.0.0.254", None),
            ("10.0.0.0/16", "10.0.0.1", Some("10.0.255.254")),
            ("10.0.0.0/32", "10.0.0.0", None),
            ("fd00::/64", "fd00::1", Some("fd00::fffe")),
            ("fd00::5:0/112", "fd00::5:1", Some("fd00::5:fffe")),
            ("fd00::/64", "fd00::fffe", None),
            ("fd00::/120", "fd00::1", None),
        ] {
            let subnet: IpNet = subnet.parse().unwrap();
            let block = SubnetBlock { subnet, gateway: gateway.parse().unwrap(), range: subnet };
            assert_eq!(block.return_gateway().map(|a| a.to_string()).as_deref(), expected, "{subnet}");
        }
    }

    #[test]
    fn one_address_of_each_family_is_kept() {
        let [four, six, other]: [IpAddr; 3] = ["10.0.0.2", "fd00::2", "10.0.0.3"].map(|a| a.parse().unwrap());
        let both: Addresses = [six, four].into_iter().collect();
        assert_eq!(both.iter().collect::<Vec<_>>(), [four, six]);
        assert_eq!(both.to_string(), "10.0.0.2, fd00::2");
        assert_eq!((both.of_family(other), both.of_family(six)), (Some(four), Some(six)));
        let mut changed = both;
        changed.put(other);
        assert_eq!(changed.to_string(), "10.0.0.3, fd00::2");
        assert!(Addresses::default().is_empty() && !Addresses::from(six).is_empty());
        assert_eq!(Addresses::default().to_string(), "");
    }
}
