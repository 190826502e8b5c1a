//! Networks: made with a segment and subnets of their own, removed when nobody holds an address.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rswarm_types::network::{Addresses, Network};
use rswarm_types::spec::{NetworkDriver, NetworkSpec, PublishMode};
use rswarm_types::{NetworkId, Refusal};

use super::Draft;
use crate::indexes::fixed_addresses;

/// Names that users may not give to networks of their own; `ingress` only to an ingress network.
const RESERVED_NAMES: [&str; 4] = ["host", "none", "bridge", "ingress"];

impl Draft {
    /// A user's network.
    pub(super) fn create_network(&mut self, id: NetworkId, spec: &NetworkSpec) -> Result<NetworkId, Refusal> {
        if spec.driver != NetworkDriver::Overlay {
            return Err(Refusal::invalid(
                "driver",
                format!("\"{}\" networks are predefined: only overlay networks can be made", spec.driver),
            ));
        }
        let is_reserved = RESERVED_NAMES.contains(&spec.name.as_str()) && !(spec.ingress && spec.name == "ingress");
        if is_reserved {
            return Err(Refusal::Conflict(format!("\"{}\" is the name of a predefined network", spec.name)));
        }
        self.make_network(id, spec)?;
        if spec.ingress {
            self.give_nodes_ingress_addresses()?;
        }
        Ok(id)
    }

    /// Any network, the predefined ones included.
    pub(super) fn make_network(&mut self, id: NetworkId, spec: &NetworkSpec) -> Result<(), Refusal> {
        if let Some(other) = self.state.indexes.network_names.get(&spec.name) {
            return Err(Refusal::Conflict(format!(
                "network name \"{}\" is already in use by network {}",
                spec.name,
                other.short(),
            )));
        }
        if self.state.network(id).is_some() {
            return Err(Refusal::Conflict(format!("network id {id} is taken")));
        }
        if spec.ingress
            && let Some(other) = self.state.indexes.ingress.and_then(|other| self.state.network(other))
        {
            let state = if other.removing { "still being removed" } else { "already the ingress network" };
            return Err(Refusal::Conflict(format!("network \"{}\" is {state}", other.spec.name)));
        }
        let (vni, blocks) = match spec.driver {
            NetworkDriver::Overlay => (self.next_vni()?, self.first_blocks(spec)?),
            NetworkDriver::Host | NetworkDriver::Null => (0, Vec::new()),
        };
        let network = Network { id, meta: self.made(), spec: spec.clone(), vni, blocks, removing: false };
        if let Some(address) = held_twice(&network) {
            return Err(Refusal::invalid("aux-address", format!("{address} is a gateway of the network itself")));
        }
        self.put_network(network);
        Ok(())
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Result<(), Refusal> {
        let network = self.network(id)?;
        let name = &network.spec.name;
        if network.spec.driver != NetworkDriver::Overlay {
            return Err(Refusal::Conflict(format!("network \"{name}\" is predefined and can't be removed")));
        }
        if let Some((service, why)) = self.user_of_network(&network) {
            return Err(Refusal::Conflict(format!(
                "network \"{name}\" is in use by service \"{service}\"{why}\n       remove the service first",
            )));
        }
        self.drop_network(network);
        Ok(())
    }

    /// A service, not being removed, that needs the network.
    fn user_of_network(&self, network: &Network) -> Option<(String, &'static str)> {
        let id = network.id.to_string();
        let services = || self.state.services().filter(|s| !s.removing);
        let member = services().find(|s| s.spec.task.networks.iter().any(|n| n.target == id));
        let publisher = || {
            let publishes = |s: &&_| -> bool {
                let service: &rswarm_types::service::Service = s;
                service.ports.iter().any(|p| p.mode == PublishMode::Ingress)
            };
            services().map(AsRef::as_ref).find(publishes).filter(|_| network.spec.ingress)
        };
        member
            .map(|s| (s.spec.name.clone(), ""))
            .or_else(|| publisher().map(|s| (s.spec.name.clone(), ", which publishes ports through it")))
    }

    /// Removes the network now, or marks it until its last address is free.
    pub(super) fn drop_network(&mut self, mut network: Network) {
        if network.spec.ingress {
            let nodes: Vec<_> = self.state.nodes().map(|node| node.as_ref().clone()).collect();
            for mut node in nodes {
                node.ingress = Addresses::default();
                self.put_node(node);
            }
        }
        if self.is_network_held(network.id) {
            network.removing = true;
            self.touch(&mut network.meta);
            self.put_network(network);
        } else {
            self.changed.networks.insert(network.id);
            self.state.remove_network(network.id);
        }
    }

    /// The last step of a removal; nothing while somebody holds an address.
    pub(super) fn forget_network(&mut self, id: NetworkId) {
        if self.state.network(id).is_some_and(|network| network.removing) && !self.is_network_held(id) {
            self.changed.networks.insert(id);
            self.state.remove_network(id);
        }
    }

    fn is_network_held(&self, id: NetworkId) -> bool {
        self.state.addresses(id).any(|(_, holder)| !holder.is_network())
    }

    fn give_nodes_ingress_addresses(&mut self) -> Result<(), Refusal> {
        let nodes: Vec<_> = self.state.nodes().map(|node| node.as_ref().clone()).collect();
        for mut node in nodes {
            node.ingress = self.next_node_ingress()?;
            self.put_node(node);
        }
        Ok(())
    }
}

fn held_twice(network: &Network) -> Option<IpAddr> {
    let mut seen = BTreeSet::new();
    fixed_addresses(network).into_iter().map(|(address, _)| address).find(|address| !seen.insert(*address))
}
