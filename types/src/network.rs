//! A network with what the allocator gave it.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::cluster::Meta;
use crate::id::NetworkId;
use crate::spec::NetworkSpec;

/// One subnet of a network, with its VXLAN segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubnetBlock {
    pub subnet: Ipv4Net,
    pub gateway: Ipv4Addr,
    /// Containers get addresses from this part (the subnet where the user gave no range).
    pub range: Ipv4Net,
}

/// A network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    pub id: NetworkId,
    pub meta: Meta,
    pub spec: NetworkSpec,
    /// VXLAN network identifier; 0 for host and none.
    pub vni: u32,
    /// Empty for host and none. A network that filled up has several.
    pub blocks: Vec<SubnetBlock>,
    /// Its stack was removed: it goes with its last user.
    pub removing: bool,
}
