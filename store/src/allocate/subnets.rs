//! Subnets: those that the user named, else the lowest free cut of the cluster's pools.

use std::net::Ipv6Addr;

use ipnet::{IpNet, Ipv6Net};
use rswarm_types::limits::SUBNET_BITS_IPV6;
use rswarm_types::network::{SubnetBlock, first_host, overlap};
use rswarm_types::spec::{NetworkSpec, SubnetSpec};
use rswarm_types::{ClusterId, NetworkId, Refusal};

use super::span::{Family, bits, span};
use crate::apply::Draft;
use crate::state::State;

impl Draft {
    /// The blocks of a new network, those of IPv4 first.
    pub(crate) fn first_blocks(&self, spec: &NetworkSpec) -> Result<Vec<SubnetBlock>, Refusal> {
        let mut blocks: Vec<SubnetBlock> = Vec::new();
        for given in &spec.ipam.subnets {
            if given.subnet.addr().is_ipv6() && !spec.has_ipv6() {
                return Err(Refusal::invalid("subnet", format!("\"{}\": the network has no IPv6", given.subnet)));
            }
            blocks.push(self.named_block(given, &blocks)?);
        }
        for family in families(spec) {
            if !blocks.iter().any(|block| Family::of(block.gateway) == family) {
                blocks.push(self.cut_block(family)?);
            }
        }
        blocks.sort_by_key(|block| block.gateway.is_ipv6());
        Ok(blocks)
    }

    fn named_block(&self, given: &SubnetSpec, others: &[SubnetBlock]) -> Result<SubnetBlock, Refusal> {
        let subnet = given.subnet.trunc();
        let longest = subnet.max_prefix_len() - 2;
        if subnet.prefix_len() > longest {
            return Err(Refusal::invalid(
                "subnet",
                format!("\"{subnet}\" has no room for a gateway and a task: allowed are /1 to /{longest}"),
            ));
        }
        let other = self.state.overlapping(subnet).and_then(|network| self.state.network(network));
        if let Some(other) = other {
            return Err(Refusal::Conflict(format!(
                "subnet {subnet} overlaps with network \"{}\" ({})",
                other.spec.name,
                other.blocks.iter().map(|b| b.subnet.to_string()).collect::<Vec<_>>().join(", "),
            )));
        }
        if let Some(twice) = others.iter().find(|block| overlap(block.subnet, subnet)) {
            return Err(Refusal::invalid("subnet", format!("\"{subnet}\" overlaps with \"{}\"", twice.subnet)));
        }
        let gateway = given.gateway.unwrap_or_else(|| first_host(subnet));
        let range = given.range.unwrap_or(subnet).trunc();
        let are_aux_inside = given.aux_addresses.values().all(|address| subnet.contains(address));
        for (field, inside) in [
            ("gateway", subnet.contains(&gateway)),
            ("ip-range", subnet.contains(&range)),
            ("aux-address", are_aux_inside),
        ] {
            if !inside {
                return Err(Refusal::invalid(field, format!("it lies outside of subnet \"{subnet}\"")));
            }
        }
        Ok(SubnetBlock { subnet, gateway, range })
    }

    /// The lowest free cut.
    pub(crate) fn cut_block(&self, family: Family) -> Result<SubnetBlock, Refusal> {
        let (pools, bits) = self.pools(family);
        let subnet = pools.iter().find_map(|pool| self.state.lowest_free(*pool, bits)).ok_or_else(|| {
            let pools = pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Refusal::Exhausted(format!(
                "no subnet of /{bits} is free in the address pools {pools}\n       \
                 remove a network, or name a subnet: --subnet",
            ))
        })?;
        Ok(SubnetBlock { subnet, gateway: first_host(subnet), range: subnet })
    }

    /// Where subnets of the family are cut from, and their prefix length.
    fn pools(&self, family: Family) -> (Vec<IpNet>, u8) {
        let Some(cluster) = self.state.cluster() else { return (Vec::new(), 0) };
        let is_wanted = |pool: &&IpNet| Family::of(pool.addr()) == family;
        let mut pools: Vec<IpNet> = cluster.spec.address_pools.iter().filter(is_wanted).copied().collect();
        match family {
            Family::V4 => (pools, cluster.spec.subnet_bits),
            Family::V6 => {
                if pools.is_empty() {
                    pools.push(local_prefix(cluster.id));
                }
                (pools, SUBNET_BITS_IPV6)
            }
        }
    }
}

impl State {
    /// The network whose block meets this subnet.
    fn overlapping(&self, subnet: IpNet) -> Option<NetworkId> {
        // Blocks do not overlap each other: the one that begins last also ends last. One of IPv4 ends before any of IPv6.
        let (_, (last, network)) = self.indexes.subnets.get_prev(&subnet.broadcast())?;
        (*last >= subnet.network()).then_some(*network)
    }

    fn lowest_free(&self, pool: IpNet, length: u8) -> Option<IpNet> {
        if length < pool.prefix_len() || !(1..=pool.max_prefix_len() - 2).contains(&length) {
            return None;
        }
        let family = Family::of(pool.addr());
        let size = 1u128 << (pool.max_prefix_len() - length);
        let (mut first, end) = span(pool);
        loop {
            let last = first.checked_add(size - 1).filter(|last| *last <= end)?;
            let (start, stop) = (family.address(first)?, family.address(last)?);
            let met = self.indexes.subnets.get_prev(&stop);
            match met.filter(|(_, (met_last, _))| *met_last >= start) {
                None => return IpNet::new(start, length).ok(),
                Some((_, (met_last, _))) => first = bits(*met_last).checked_add(1)?.checked_next_multiple_of(size)?,
            }
        }
    }
}

/// The families of which the network has addresses.
pub(crate) fn families(spec: &NetworkSpec) -> impl Iterator<Item = Family> + use<> {
    let has_ipv6 = spec.has_ipv6();
    Family::ALL.into_iter().filter(move |family| *family == Family::V4 || has_ipv6)
}

/// The cluster's own /48 of locally assigned addresses (RFC 4193): `fd`, then 40 bits of its id, which is random.
fn local_prefix(id: ClusterId) -> IpNet {
    let global_id = id.0 & ((1 << 40) - 1);
    Ipv6Net::new_assert(Ipv6Addr::from_bits((0xfd << 120) | (global_id << 80)), 48).into()
}
