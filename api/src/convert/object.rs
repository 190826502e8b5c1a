//! Objects of the replicated state.

use rswarm_types::TaskId;
use rswarm_types::cluster::{Cluster, JoinTokens, Meta, RootCa};
use rswarm_types::network::{Addresses, Network, SubnetBlock};
use rswarm_types::node::{Membership, Node, NodeDescription, NodeState, NodeStatus, PortProblem};
use rswarm_types::service::{RegistryAuth, Service, UpdateState, UpdateStatus, VirtualIp};
use rswarm_types::task::{Attachment, EndpointState, Slot, Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};

use crate::pb;
use crate::wire::{Wire, WireError, required, wire_enum, wire_struct};

wire_enum!(NodeState { Unknown = 0, Down = 1, Ready = 2, Disconnected = 3 });
wire_enum!(UpdateState {
    Updating = 0, Paused = 1, Completed = 2, RollbackStarted = 3, RollbackPaused = 4, RollbackCompleted = 5
});
wire_enum!(DesiredState { Ready = 0, Running = 1, Shutdown = 2, Remove = 3 });
wire_enum!(EndpointState { Starting = 0, Ready = 1, Draining = 2, Dead = 3 });

wire_struct!(Meta => pb::Meta { version, created_at, updated_at });
wire_struct!(RootCa => pb::RootCa { certificate, key });
wire_struct!(JoinTokens => pb::JoinTokens { worker, manager });
wire_struct!(Cluster => pb::Cluster { id, era, feature_level; meta, spec, root, tokens });
wire_struct!(PortProblem => pb::PortProblem { port, protocol, reason });
wire_struct!(NodeStatus => pb::NodeStatus { state, message, address, since, grace_until, grace_at });
wire_struct!(Membership => pb::Membership { role, member, is_voter, raft_lost });
wire_struct!(Node => pb::Node {
    id, number, session_epoch, boot_id, key_hash, ingress, admitted; meta, spec, description, status, membership
});
wire_struct!(SubnetBlock => pb::SubnetBlock { subnet, gateway, range });
wire_struct!(Network => pb::Network { id, vni, blocks, removing; meta, spec });
wire_struct!(UpdateStatus => pb::UpdateStatus { state, message, started, last_slot, started_at, completed_at });
wire_struct!(VirtualIp => pb::VirtualIp { network, addresses });
wire_struct!(Service => pb::Service {
    id, previous, spec_version, ports, vips, update, removing, registry_auth; meta, spec
});
wire_struct!(TaskStatus => pb::TaskStatus {
    state, message, error, exit_code, pid, at, applied, host_ports, sandbox_gone
});
wire_struct!(Attachment => pb::Attachment { network, addresses, aliases });
wire_struct!(Task => pb::Task {
    id, service, node, spec_version, desired, desired_reason, stop_at, attachments, ingress, allocated, start_after,
    replaces, created, running_since; meta, slot, spec, status
});

/// Left out where there are none.
impl Wire for Addresses {
    type Pb = Option<pb::Addresses>;
    fn to_pb(&self) -> Self::Pb {
        (!self.is_empty()).then(|| pb::Addresses { v4: self.v4.to_pb(), v6: self.v6.to_pb() })
    }
    fn from_pb(pb: Self::Pb) -> Result<Self, WireError> {
        let pb::Addresses { v4, v6 } = pb.unwrap_or_default();
        Ok(Self { v4: Wire::from_pb(v4)?, v6: Wire::from_pb(v6)? })
    }
}

impl Wire for RegistryAuth {
    type Pb = String;
    fn to_pb(&self) -> String {
        self.0.clone()
    }
    fn from_pb(pb: String) -> Result<Self, WireError> {
        Ok(Self(pb))
    }
}

impl Wire for TaskState {
    type Pb = u32;
    fn to_pb(&self) -> u32 {
        u32::from(*self as u16)
    }
    fn from_pb(pb: u32) -> Result<Self, WireError> {
        u16::try_from(pb)
            .ok()
            .and_then(Self::from_number)
            .ok_or_else(|| WireError::Unknown { what: "task state", value: pb.to_string() })
    }
}

impl Wire for Slot {
    type Pb = pb::Slot;
    fn to_pb(&self) -> pb::Slot {
        match self {
            Self::Number(number) => pb::Slot { number: *number, node: Default::default() },
            Self::Node(node) => pb::Slot { number: 0, node: node.to_pb() },
        }
    }
    fn from_pb(pb: pb::Slot) -> Result<Self, WireError> {
        if pb.node.is_empty() { Ok(Self::Number(pb.number)) } else { Wire::from_pb(pb.node).map(Self::Node) }
    }
}

impl Wire for NodeDescription {
    type Pb = pb::NodeDescription;
    fn to_pb(&self) -> pb::NodeDescription {
        pb::NodeDescription {
            hostname: self.hostname.clone(),
            platform: Some(self.platform.to_pb()),
            cpus: self.cpus.to_pb(),
            memory: self.memory.to_pb(),
            engine_version: self.engine_version.clone(),
            engine_labels: self.engine_labels.clone(),
            data_path_address: self.data_path_address.to_pb(),
            control_address: self.control_address.to_pb(),
            port_problems: self.port_problems.to_pb(),
            addresses: self.addresses.to_pb(),
            feature_min: self.feature_range.0,
            feature_max: self.feature_range.1,
        }
    }
    fn from_pb(pb: pb::NodeDescription) -> Result<Self, WireError> {
        Ok(Self {
            hostname: pb.hostname,
            platform: required(pb.platform, "NodeDescription.platform")?,
            cpus: Wire::from_pb(pb.cpus)?,
            memory: Wire::from_pb(pb.memory)?,
            engine_version: pb.engine_version,
            engine_labels: pb.engine_labels,
            data_path_address: Wire::from_pb(pb.data_path_address)?,
            control_address: Wire::from_pb(pb.control_address)?,
            port_problems: Wire::from_pb(pb.port_problems)?,
            addresses: Wire::from_pb(pb.addresses)?,
            feature_range: (pb.feature_min, pb.feature_max),
        })
    }
}

/// A task and what its agent says of it.
impl Wire for (TaskId, TaskStatus) {
    type Pb = pb::TaskReport;
    fn to_pb(&self) -> pb::TaskReport {
        pb::TaskReport { task: self.0.to_pb(), status: Some(self.1.to_pb()) }
    }
    fn from_pb(pb: pb::TaskReport) -> Result<Self, WireError> {
        Ok((Wire::from_pb(pb.task)?, required(pb.status, "TaskReport.status")?))
    }
}
