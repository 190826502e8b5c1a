//! Assignments.

use rswarm_types::NetworkId;
use rswarm_types::assignment::*;
use rswarm_types::delta::{Delta, Gone};
use rswarm_types::network::Addresses;

use crate::pb;
use crate::wire::{Wire, WireError, required, wire_struct};

wire_struct!(LogId => pb::LogId { era, term, index });
wire_struct!(AssignedTask => pb::AssignedTask {
    id, service, desired, state, stop_at, attachments, ingress, ports, registry_auth; slot, spec
});
wire_struct!(AssignedNetwork => pb::AssignedNetwork { id, name, driver, vni, blocks, internal, ingress, mtu });
wire_struct!(AssignedService => pb::AssignedService { id, name, mode, balance, vips, aliases, ports });
wire_struct!(Endpoint => pb::Endpoint { task, service, node, node_number, state, addresses, ingress; slot });
wire_struct!(Peer => pb::Peer { id, number, address, addresses, is_up, ingress });
wire_struct!(NodeOrders => pb::NodeOrders {
    id, number, ingress, role, member, control, data_path_port, cluster
});
wire_struct!(Assignments => pb::Assignments {
    tasks, networks, services, endpoints, peers, managers, now; log_id, node
});

impl Wire for Delta {
    type Pb = pb::AssignmentChanges;
    fn to_pb(&self) -> pb::AssignmentChanges {
        let Gone { tasks, networks, services, endpoints, peers } = &self.gone;
        pb::AssignmentChanges {
            from: Some(self.from.to_pb()),
            changed: Some(self.changed.to_pb()),
            gone_tasks: tasks.to_pb(),
            gone_networks: networks.to_pb(),
            gone_services: services.to_pb(),
            gone_endpoints: endpoints.to_pb(),
            gone_peers: peers.to_pb(),
        }
    }
    fn from_pb(pb: pb::AssignmentChanges) -> Result<Self, WireError> {
        Ok(Self {
            from: required(pb.from, "AssignmentChanges.from")?,
            changed: required(pb.changed, "AssignmentChanges.changed")?,
            gone: Gone {
                tasks: Wire::from_pb(pb.gone_tasks)?,
                networks: Wire::from_pb(pb.gone_networks)?,
                services: Wire::from_pb(pb.gone_services)?,
                endpoints: Wire::from_pb(pb.gone_endpoints)?,
                peers: Wire::from_pb(pb.gone_peers)?,
            },
        })
    }
}

/// Addresses in a network.
impl Wire for (NetworkId, Addresses) {
    type Pb = pb::VirtualIp;
    fn to_pb(&self) -> pb::VirtualIp {
        pb::VirtualIp { network: self.0.to_pb(), addresses: self.1.to_pb() }
    }
    fn from_pb(pb: pb::VirtualIp) -> Result<Self, WireError> {
        Ok((Wire::from_pb(pb.network)?, Wire::from_pb(pb.addresses)?))
    }
}

/// Aliases in a network.
impl Wire for (NetworkId, Vec<String>) {
    type Pb = pb::NetworkAliases;
    fn to_pb(&self) -> pb::NetworkAliases {
        pb::NetworkAliases { network: self.0.to_pb(), aliases: self.1.clone() }
    }
    fn from_pb(pb: pb::NetworkAliases) -> Result<Self, WireError> {
        Ok((Wire::from_pb(pb.network)?, pb.aliases))
    }
}
