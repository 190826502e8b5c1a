//! The filters, in Swarm's order: ready, resources, constraints, platform, host ports, replicas.

use std::sync::Arc;

use rswarm_types::constraint::{Constraint, go_arch};
use rswarm_types::node::{Node, NodeState};
use rswarm_types::spec::{Availability, Platform, Protocol, ServiceSpec};

use crate::cluster::{HostPort, Slot, fixed_host_ports};

/// Why a node does not take a task. The order is the order of the filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// There is no such node (any more): not counted.
    Gone,
    NotReady(NodeState),
    NotActive(Availability),
    Cpu,
    Memory,
    /// The first constraint that does not hold, by its place in the spec.
    Constraint(u16),
    Platform,
    HostPort(u16, Protocol),
    MaxReplicas,
}

/// What the tasks of a group need, read once from their spec.
#[derive(Clone, Debug)]
pub(crate) struct Wants {
    pub spec: Arc<ServiceSpec>,
    /// An expression that cannot be read holds nowhere.
    constraints: Vec<Option<Constraint>>,
    ports: Vec<HostPort>,
}

impl Wants {
    pub fn new(spec: &Arc<ServiceSpec>) -> Self {
        let constraints = spec.task.placement.constraints.iter().map(|text| Constraint::parse(text).ok()).collect();
        Self { spec: Arc::clone(spec), constraints, ports: fixed_host_ports(spec).collect() }
    }

    /// The first filter that the node fails; `None` = it takes one task more.
    ///
    /// `running` = the wanted tasks of the service on this node.
    pub fn refused_by(&self, slot: &Slot, running: u64) -> Option<Reason> {
        let Some(node) = &slot.node else { return Some(Reason::Gone) };
        if node.status.state != NodeState::Ready {
            return Some(Reason::NotReady(node.status.state));
        }
        if node.spec.availability != Availability::Active {
            return Some(Reason::NotActive(node.spec.availability));
        }
        if let Some(reason) = self.lacks(slot, node) {
            return Some(reason);
        }
        let holds = |constraint: &Option<Constraint>| constraint.as_ref().is_some_and(|c| c.matches(node));
        if let Some(at) = self.constraints.iter().position(|constraint| !holds(constraint)) {
            return Some(Reason::Constraint(u16::try_from(at).unwrap_or(u16::MAX)));
        }
        let platforms = &self.spec.task.placement.platforms;
        if !platforms.is_empty() && !platforms.iter().any(|wanted| runs(wanted, &node.description.platform)) {
            return Some(Reason::Platform);
        }
        self.crowded_out(slot, running)
    }

    /// Only the filters that an earlier task of the same group can have changed.
    pub fn refused_again_by(&self, slot: &Slot, running: u64) -> Option<Reason> {
        let Some(node) = &slot.node else { return Some(Reason::Gone) };
        self.lacks(slot, node).or_else(|| self.crowded_out(slot, running))
    }

    fn lacks(&self, slot: &Slot, node: &Node) -> Option<Reason> {
        let wanted = &self.spec.task.resources;
        let lacks = |wanted: u64, reserved: u64, total: u64| wanted > 0 && wanted > total.saturating_sub(reserved);
        if lacks(wanted.reserve_cpu.0, slot.reserved_cpu, node.description.cpus.0) {
            return Some(Reason::Cpu);
        }
        lacks(wanted.reserve_memory.0, slot.reserved_memory, node.description.memory.0).then_some(Reason::Memory)
    }

    fn crowded_out(&self, slot: &Slot, running: u64) -> Option<Reason> {
        if let Some((port, protocol, _)) = self.ports.iter().find(|port| slot.is_port_used(**port)) {
            return Some(Reason::HostPort(*port, *protocol));
        }
        let max = self.spec.task.placement.max_replicas_per_node;
        (max > 0 && running >= max).then_some(Reason::MaxReplicas)
    }
}

/// Whether a node of this platform runs an image made for `wanted`; what is empty matches.
fn runs(wanted: &Platform, node: &Platform) -> bool {
    let os = wanted.os.is_empty() || node.os.is_empty() || wanted.os.eq_ignore_ascii_case(&node.os);
    let (image, machine) = (go_arch(&wanted.architecture), go_arch(&node.architecture));
    os && (image.is_empty() || machine.is_empty() || image.eq_ignore_ascii_case(machine))
}
