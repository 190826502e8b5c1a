//! Addresses of tasks, services and nodes.

use std::net::Ipv4Addr;

use rswarm_types::network::{Network, SubnetBlock};
use rswarm_types::service::VirtualIp;
use rswarm_types::spec::{EndpointMode, NetworkDriver, PublishMode, ServiceSpec};
use rswarm_types::task::{Attachment, Task};
use rswarm_types::{NetworkId, Refusal};

use crate::apply::Draft;
use crate::state::State;

/// Addresses for one task.
pub(crate) struct TaskAddresses {
    pub attachments: Vec<Attachment>,
    pub ingress: Option<Ipv4Addr>,
}

impl Draft {
    /// The next free address of the network, which grows by a block if it may. Held by nobody
    /// until a record that names it is put.
    pub(crate) fn next_address(&mut self, id: NetworkId) -> Result<Ipv4Addr, Refusal> {
        let network = self.state.network(id).cloned().ok_or_else(|| Refusal::not_found("network", id))?;
        let address = match self.state.free_address(&network) {
            Some(address) => address,
            None => {
                let mut grown = network.as_ref().clone();
                self.grow(&mut grown)?;
                // First put, so that the new gateway is held.
                self.put_network(grown.clone());
                self.state.free_address(&grown).ok_or_else(|| full(&network, ""))?
            }
        };
        self.state.put_address_cursor(id, address);
        Ok(address)
    }

    fn grow(&self, network: &mut Network) -> Result<(), Refusal> {
        if !network.spec.ipam.subnets.is_empty() {
            return Err(full(network, "\n       remove tasks, or use a network with a larger --subnet"));
        }
        let block = self.cut_block().map_err(|_| full(network, ", and the address pools have no other subnet"))?;
        network.blocks.push(block);
        network.meta.version = self.index;
        network.meta.updated_at = self.wall;
        Ok(())
    }

    /// A node's address in the ingress network, while there is one.
    pub(crate) fn next_node_ingress(&mut self) -> Result<Option<Ipv4Addr>, Refusal> {
        let ingress = self.state.ingress_network().map(|network| network.id);
        ingress.map(|id| self.next_address(id)).transpose()
    }

    /// One virtual address per overlay of the service; those of networks it already has are kept.
    pub(crate) fn virtual_ips(&mut self, spec: &ServiceSpec, old: &[VirtualIp]) -> Result<Vec<VirtualIp>, Refusal> {
        let mut vips: Vec<VirtualIp> = Vec::new();
        if spec.endpoint.mode == EndpointMode::DnsRr {
            return Ok(vips);
        }
        for id in overlays(&self.state, spec) {
            let vip = match old.iter().find(|vip| vip.network == id) {
                Some(kept) => *kept,
                None => VirtualIp { network: id, address: self.next_address(id)? },
            };
            vips.push(vip);
        }
        Ok(vips)
    }

    /// An address in each overlay of the task, and one in the ingress network if it publishes there.
    pub(crate) fn task_addresses(&mut self, task: &Task) -> Result<TaskAddresses, Refusal> {
        let mut attachments = Vec::new();
        for wanted in &task.spec.task.networks {
            let network = self.state.find_network(&wanted.target)?;
            let id = network.id;
            let is_twice = attachments.iter().any(|a: &Attachment| a.network == id);
            if network.spec.driver != NetworkDriver::Overlay || is_twice {
                continue;
            }
            let address = self.next_address(id)?;
            attachments.push(Attachment { network: id, address, aliases: wanted.aliases.clone() });
        }
        let publishes = task.spec.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress);
        let ingress = match self.state.ingress_network().map(|network| network.id) {
            _ if !publishes => None,
            Some(id) => Some(self.next_address(id)?),
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
    /// Next fit: the first free address after the last one given, around all blocks.
    fn free_address(&self, network: &Network) -> Option<Ipv4Addr> {
        let ranges: Vec<(u32, u32)> = network.blocks.iter().filter_map(usable).collect();
        let last = self.address_cursors.get(&network.id).map(|address| address.to_bits());
        let at = last.and_then(|last| ranges.iter().position(|(low, high)| (*low..=*high).contains(&last)));
        let (Some(last), Some(at)) = (last, at) else {
            return ranges.iter().find_map(|range| self.first_free(network.id, *range));
        };
        let (low, high) = ranges[at];
        let rest = (last < high).then(|| (last + 1, high));
        let after = ranges[at + 1..].iter().copied();
        let before = ranges[..at].iter().copied();
        let mut order = rest.into_iter().chain(after).chain(before).chain([(low, last)]);
        order.find_map(|range| self.first_free(network.id, range))
    }

    fn first_free(&self, network: NetworkId, (low, high): (u32, u32)) -> Option<Ipv4Addr> {
        let bounds = (network, Ipv4Addr::from_bits(low))..=(network, Ipv4Addr::from_bits(high));
        let mut candidate = low;
        for ((_, held), _) in self.indexes.addresses.range(bounds) {
            if held.to_bits() > candidate {
                break;
            }
            candidate = held.to_bits().checked_add(1)?;
        }
        (candidate <= high).then(|| Ipv4Addr::from_bits(candidate))
    }

    /// Why a New task cannot get its addresses now; `None` = it can.
    ///
    /// The same text as `apply` writes to the task's status, so that nobody proposes it twice.
    pub fn allocation_problem(&self, task: &Task) -> Option<String> {
        let mut scratch = Draft::scratch(self);
        scratch.task_addresses(task).err().map(|refusal| refusal.to_string())
    }
}

/// First and last address that may be given of a block.
fn usable(block: &SubnetBlock) -> Option<(u32, u32)> {
    let low = block.range.network().to_bits().max(block.subnet.network().to_bits() + 1);
    let high = block.range.broadcast().to_bits().min(block.subnet.broadcast().to_bits() - 1);
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

fn full(network: &Network, advice: &str) -> Refusal {
    let blocks = network.blocks.iter().map(|block| block.range.to_string()).collect::<Vec<_>>().join(", ");
    Refusal::Exhausted(format!("no address is free in network \"{}\" ({blocks}){advice}", network.spec.name))
}
