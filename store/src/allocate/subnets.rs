//! Subnets: those that the user named, else the lowest free cut of the cluster's pools.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rswarm_types::Refusal;
use rswarm_types::network::SubnetBlock;
use rswarm_types::spec::NetworkSpec;

use crate::apply::Draft;
use crate::state::State;

impl Draft {
    /// The blocks of a new network.
    pub(crate) fn first_blocks(&self, spec: &NetworkSpec) -> Result<Vec<SubnetBlock>, Refusal> {
        if spec.ipam.subnets.is_empty() {
            return self.cut_block().map(|block| vec![block]);
        }
        let mut blocks: Vec<SubnetBlock> = Vec::new();
        for given in &spec.ipam.subnets {
            let subnet = given.subnet.trunc();
            if subnet.prefix_len() > 30 {
                return Err(Refusal::invalid(
                    "subnet",
                    format!("\"{subnet}\" has no room for a gateway and a task: allowed are /1 to /30"),
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
            if let Some(twice) = blocks.iter().find(|block| overlap(block.subnet, subnet)) {
                return Err(Refusal::invalid("subnet", format!("\"{subnet}\" overlaps with \"{}\"", twice.subnet)));
            }
            let gateway = given.gateway.unwrap_or_else(|| first_host(subnet));
            let range = given.range.unwrap_or(subnet).trunc();
            for (field, inside) in [("gateway", subnet.contains(&gateway)), ("ip-range", subnet.contains(&range))] {
                if !inside {
                    return Err(Refusal::invalid(field, format!("it lies outside of subnet \"{subnet}\"")));
                }
            }
            blocks.push(SubnetBlock { subnet, gateway, range });
        }
        Ok(blocks)
    }

    /// The lowest free cut.
    pub(crate) fn cut_block(&self) -> Result<SubnetBlock, Refusal> {
        let (pools, bits) =
            self.state.cluster().map(|c| (c.spec.address_pools.clone(), c.spec.subnet_bits)).unwrap_or_default();
        let subnet = pools.iter().find_map(|pool| self.state.lowest_free(*pool, bits)).ok_or_else(|| {
            let pools = pools.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Refusal::Exhausted(format!(
                "no subnet of /{bits} is free in the address pools {pools}\n       \
                 remove a network, or name a subnet: --subnet",
            ))
        })?;
        Ok(SubnetBlock { subnet, gateway: first_host(subnet), range: subnet })
    }
}

impl State {
    /// The network whose block meets this subnet.
    fn overlapping(&self, subnet: Ipv4Net) -> Option<rswarm_types::NetworkId> {
        // Blocks do not overlap each other: the one that begins last also ends last.
        let (_, (last, network)) = self.indexes.subnets.get_prev(&subnet.broadcast())?;
        (*last >= subnet.network()).then_some(*network)
    }

    fn lowest_free(&self, pool: Ipv4Net, bits: u8) -> Option<Ipv4Net> {
        if bits < pool.prefix_len() || !(1..=30).contains(&bits) {
            return None;
        }
        let size = 1u64 << (32 - u32::from(bits));
        let end = u64::from(pool.broadcast().to_bits());
        let mut first = u64::from(pool.network().to_bits());
        while first + size - 1 <= end {
            let last = u32::try_from(first + size - 1).ok()?;
            let start = u32::try_from(first).ok()?;
            let met = self.indexes.subnets.get_prev(&Ipv4Addr::from_bits(last));
            match met.filter(|(_, (met_last, _))| met_last.to_bits() >= start) {
                None => return Ipv4Net::new(Ipv4Addr::from_bits(start), bits).ok(),
                Some((_, (met_last, _))) => first = (u64::from(met_last.to_bits()) + 1).next_multiple_of(size),
            }
        }
        None
    }
}

fn first_host(subnet: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(subnet.network().to_bits().saturating_add(1))
}

fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.network() <= b.broadcast() && b.network() <= a.broadcast()
}
