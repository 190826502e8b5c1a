//! Addresses of tasks, services and nodes.

use std::net::IpAddr;

use rswarm_types::network::{Addresses, Network, SubnetBlock};
use rswarm_types::service::VirtualIp;
use rswarm_types::spec::{EndpointMode, NetworkDriver, PublishMode, ServiceSpec};
use rswarm_types::task::{Attachment, Task};
use rswarm_types::{NetworkId, Refusal};

use super::span::{Family, bits, span};
use super::subnets::families;
use crate::apply::Draft;
use crate::state::State;

/// So many addresses of one IPv6 block are given away, from the lowest on: they stay short, and are tried in no time.
const HOSTS_MAX_IPV6: u128 = 1 << 32;

/// Addresses for one task.
pub(crate) struct TaskAddresses {
    pub attachments: Vec<Attachment>,
    pub ingress: Addresses,
}

impl Draft {
    /// The next free address of each family of the network, which grows by a block if it may. Held by nobody until a
    /// record that names them is put.
    pub(crate) fn next_addresses(&mut self, id: NetworkId) -> Result<Addresses, Refusal> {
        let network = self.state.network(id).ok_or_else(|| Refusal::not_found("network", id))?;
        families(&network.spec).map(|family| self.next_address(id, family)).collect()
    }

    fn next_address(&mut self, id: NetworkId, family: Family) -> Result<IpAddr, Refusal> {
        let network = self.state.network(id).cloned().ok_or_else(|| Refusal::not_found("network", id))?;
        let address = match self.state.free_address(&network, family) {
            Some(address) => address,
            None => {
                let mut grown = network.as_ref().clone();
                self.grow(&mut grown, family)?;
                // First put, so that the new gateway is held.
                self.put_network(grown.clone());
                self.state.free_address(&grown, family).ok_or_else(|| full(&network, family, ""))?
            }
        };
        self.state.put_address_cursor(id, address);
        Ok(address)
    }

    fn grow(&self, network: &mut Network, family: Family) -> Result<(), Refusal> {
        if network.spec.ipam.subnets.iter().any(|given| Family::of(given.subnet.addr()) == family) {
            return Err(full(network, family, "\n       remove tasks, or use a network with a larger --subnet"));
        }
        let none_left = |_| full(network, family, ", and the address pools have no other subnet");
        let block = self.cut_block(family).map_err(none_left)?;
        network.blocks.push(block);
        network.blocks.sort_by_key(|block| block.gateway.is_ipv6());
        network.meta.version = self.index;
        network.meta.updated_at = self.wall;
        Ok(())
    }

    /// A node's addresses in the ingress network; none while there is no such network.
    pub(crate) fn next_node_ingress(&mut self) -> Result<Addresses, Refusal> {
        let ingress = self.state.ingress_network().map(|network| network.id);
        ingress.map_or(Ok(Addresses::default()), |id| self.next_addresses(id))
    }

    /// The virtual addresses in each overlay of the service; those of networks it already has are kept.
    pub(crate) fn virtual_ips(&mut self, spec: &ServiceSpec, old: &[VirtualIp]) -> Result<Vec<VirtualIp>, Refusal> {
        let mut vips: Vec<VirtualIp> = Vec::new();
        if spec.endpoint.mode == EndpointMode::DnsRr {
            return Ok(vips);
        }
        for id in overlays(&self.state, spec) {
            let vip = match old.iter().find(|vip| vip.network == id) {
                Some(kept) => *kept,
                None => VirtualIp { network: id, addresses: self.next_addresses(id)? },
            };
            vips.push(vip);
        }
        Ok(vips)
    }

    /// Addresses in each overlay of the task, and in the ingress network if it publishes there.
    pub(crate) fn task_addresses(&mut self, task: &Task) -> Result<TaskAddresses, Refusal> {
        let mut attachments = Vec::new();
        for wanted in &task.spec.task.networks {
            let network = self.state.find_network(&wanted.target)?;
            let id = network.id;
            let is_twice = attachments.iter().any(|a: &Attachment| a.network == id);
            if network.spec.driver != NetworkDriver::Overlay || is_twice {
                continue;
            }
            let addresses = self.next_addresses(id)?;
            attachments.push(Attachment { network: id, addresses, aliases: wanted.aliases.clone() });
        }
        let publishes = task.spec.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress);
        let ingress = match self.state.ingress_network().map(|network| network.id) {
            _ if !publishes => Addresses::default(),
            Some(id) => self.next_addresses(id)?,
            None => {
                return Err(Refusal::Conflict(
                    "there is no ingress network to publish ports through\n       \
                     make one: rswarm network create --ingress --driver overlay ingress"
                        .into(),
                ));
            }
        };
        Ok(TaskAddresses { attachments, ingress })
    }
}

impl State {
    /// Next fit: the first free address after the last one given, around all blocks of the family.
    fn free_address(&self, network: &Network, family: Family) -> Option<IpAddr> {
        let blocks = network.blocks.iter().filter(|block| Family::of(block.gateway) == family);
        let ranges: Vec<(u128, u128)> = blocks.filter_map(usable).collect();
        let cursor = self.address_cursors.get(&network.id).into_iter().flat_map(|last| last.iter());
        let last = cursor.filter(|last| Family::of(*last) == family).map(bits).next();
        let at = last.and_then(|last| ranges.iter().position(|(low, high)| (*low..=*high).contains(&last)));
        let first_free = |range| self.first_free(network.id, family, range);
        let (Some(last), Some(at)) = (last, at) else {
            return ranges.iter().copied().find_map(first_free);
        };
        let (low, high) = ranges[at];
        let rest = (last < high).then(|| (last + 1, high));
        let after = ranges[at + 1..].iter().copied();
        let before = ranges[..at].iter().copied();
        let mut order = rest.into_iter().chain(after).chain(before).chain([(low, last)]);
        order.find_map(first_free)
    }

    fn first_free(&self, network: NetworkId, family: Family, (low, high): (u128, u128)) -> Option<IpAddr> {
        let bounds = (network, family.address(low)?)..=(network, family.address(high)?);
        let mut candidate = low;
        for ((_, held), _) in self.indexes.addresses.range(bounds) {
            let held = bits(*held);
            if held > candidate {
                break;
            }
            candidate = held.checked_add(1)?;
        }
        if candidate <= high { family.address(candidate) } else { None }
    }

    /// Why a New task cannot get its addresses now; `None` = it can.
    ///
    /// The same text as `apply` writes to the task's status, so that nobody proposes it twice.
    pub fn allocation_problem(&self, task: &Task) -> Option<String> {
        let mut scratch = Draft::scratch(self);
        scratch.task_addresses(task).err().map(|refusal| refusal.to_string())
    }
}

/// Numbers of the first and last address that may be given of a block.
fn usable(block: &SubnetBlock) -> Option<(u128, u128)> {
    let ((first, last), (low, high)) = (span(block.subnet), span(block.range));
    let low = low.max(first + 1);
    let mut high = high.min(last.checked_sub(1)?);
    if Family::of(block.gateway) == Family::V6 {
        high = high.min(low.saturating_add(HOSTS_MAX_IPV6 - 1));
    }
    (low <= high).then_some((low, high))
}

/// The overlay networks of a spec, each once, in order. Targets that do not exist are left out.
fn overlays(state: &State, spec: &ServiceSpec) -> Vec<NetworkId> {
    let mut out = Vec::new();
    for wanted in &spec.task.networks {
        if let Ok(network) = state.find_network(&wanted.target)
            && network.spec.driver == NetworkDriver::Overlay
            && !out.contains(&network.id)
        {
            out.push(network.id);
        }
    }
    out
}

fn full(network: &Network, family: Family, advice: &str) -> Refusal {
    let blocks = network.blocks.iter().filter(|block| Family::of(block.gateway) == family);
    let blocks = blocks.map(|block| block.range.to_string()).collect::<Vec<_>>().join(", ");
    Refusal::Exhausted(format!("no address is free in network \"{}\" ({blocks}){advice}", network.spec.name))
}
