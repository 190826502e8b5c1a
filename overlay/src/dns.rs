//! The table that netd serves: names of the networks that sandboxes are in, and ports to hold.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rswarm_types::assignment::{AssignedNetwork, AssignedService, AssignedTask, Assignments};
use rswarm_types::task::{EndpointState, Slot};
use rswarm_types::{NetworkId, TaskId};

use crate::desired::{Isolation, is_internal, isolation};
use crate::netd::{NetdTable, NetworkNames, SandboxDns, ServiceNames, TaskNames};
use crate::ports::PortPlan;

/// What netd should serve. `pin` gives a sandbox's namespace file.
pub fn table(
    assignments: &Assignments,
    tasks: &[&AssignedTask],
    plan: &PortPlan,
    pin: impl Fn(TaskId) -> PathBuf,
) -> NetdTable {
    let networked: Vec<_> =
        tasks.iter().filter(|t| isolation(t, &assignments.networks) == Isolation::Networked).copied().collect();
    let used: BTreeSet<NetworkId> = networked.iter().flat_map(|t| t.attachments.iter().map(|a| a.network)).collect();
    let networks = assignments.networks.iter().filter(|n| used.contains(&n.id));
    NetdTable {
        version: assignments.log_id.index,
        sandboxes: networked.iter().map(|t| sandbox(assignments, t, &pin)).collect(),
        networks: networks.map(|n| network(assignments, n)).collect(),
        published: plan.wanted.keys().copied().collect(),
    }
}

/// `web.1.<task>`.
fn task_name(service: &str, slot: Slot, task: TaskId) -> String {
    format!("{service}.{slot}.{task}")
}

fn sandbox(assignments: &Assignments, task: &AssignedTask, pin: impl Fn(TaskId) -> PathBuf) -> SandboxDns {
    let container = &task.spec.task.container;
    let mut names = vec![task_name(&task.spec.name, task.slot, task.id), task.id.to_string(), task.id.short()];
    if !container.hostname.is_empty() {
        names.push(container.hostname.clone());
    }
    SandboxDns {
        task: task.id,
        netns: pin(task.id),
        udp_port: None,
        tcp_port: None,
        networks: task.attachments.iter().map(|a| a.network).collect(),
        internal_only: is_internal(task, &assignments.networks),
        servers: container.dns.nameservers.clone(),
        names,
        addresses: task.attachments.iter().filter_map(|a| a.addresses.v4).collect(),
    }
}

fn network(assignments: &Assignments, network: &AssignedNetwork) -> NetworkNames {
    let services = assignments.services.iter();
    NetworkNames {
        id: network.id,
        name: network.name.clone(),
        subnets: network
            .blocks
            .iter()
            .filter_map(|b| if let ipnet::IpNet::V4(net) = b.subnet { Some(net.trunc()) } else { None })
            .collect(),
        services: services.filter_map(|s| service(assignments, network.id, s)).collect(),
    }
}

/// The service's names on this network, if it is there.
fn service(assignments: &Assignments, network: NetworkId, service: &AssignedService) -> Option<ServiceNames> {
    let on = |list: &[(NetworkId, Vec<String>)]| {
        list.iter().find(|(n, _)| *n == network).map(|(_, aliases)| aliases.clone())
    };
    let vip = service.vips.iter().find(|(n, _)| *n == network).and_then(|(_, addresses)| addresses.v4);
    let aliases = on(&service.aliases);
    let is_up =
        |node| node == assignments.node.id || assignments.peers.iter().find(|p| p.id == node).is_none_or(|p| p.is_up);
    let mut tasks = Vec::new();
    for endpoint in assignments.endpoints.iter().filter(|e| e.service == service.id) {
        let here = endpoint.addresses.iter().find(|(n, _)| *n == network);
        let here = here.filter(|_| endpoint.state != EndpointState::Dead);
        let Some(address) = here.and_then(|(_, addresses)| addresses.v4) else { continue };
        tasks.push(TaskNames {
            name: task_name(&service.name, endpoint.slot, endpoint.task),
            others: vec![endpoint.task.to_string(), endpoint.task.short()],
            address,
            ready: endpoint.state == EndpointState::Ready && is_up(endpoint.node),
        });
    }
    if vip.is_none() && aliases.is_none() && tasks.is_empty() {
        return None;
    }
    let (name, aliases) = (service.name.clone(), aliases.unwrap_or_default());
    Some(ServiceNames { name, aliases, vip, tasks })
}
