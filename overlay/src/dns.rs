//! The table that netd serves: names of the networks that sandboxes are in, and ports to hold.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use rswarm_types::assignment::{AssignedNetwork, AssignedService, AssignedTask, Assignments, Endpoint};
use rswarm_types::network::Addresses;
use rswarm_types::task::{EndpointState, Slot};
use rswarm_types::{NetworkId, ServiceId, TaskId};

use crate::desired::{Isolation, is_internal, isolation};
use crate::netd::{NetdTable, NetworkNames, SandboxDns, ServiceNames, TaskNames};
use crate::ports::PortPlan;

type Endpoints<'a> = BTreeMap<ServiceId, Vec<&'a Endpoint>>;

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
    let mut endpoints: Endpoints<'_> = BTreeMap::new();
    for endpoint in &assignments.endpoints {
        endpoints.entry(endpoint.service).or_default().push(endpoint);
    }
    NetdTable {
        version: assignments.log_id.index,
        sandboxes: networked.iter().map(|t| sandbox(assignments, t, &pin)).collect(),
        networks: networks.map(|n| network(assignments, n, &endpoints)).collect(),
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
        addresses: task.attachments.iter().flat_map(|a| a.addresses.iter()).collect(),
    }
}

fn network(assignments: &Assignments, network: &AssignedNetwork, endpoints: &Endpoints<'_>) -> NetworkNames {
    let of = |service: &AssignedService| endpoints.get(&service.id).map_or(&[][..], Vec::as_slice);
    let services = assignments.services.iter();
    NetworkNames {
        id: network.id,
        name: network.name.clone(),
        subnets: network.blocks.iter().map(|b| b.subnet.trunc()).collect(),
        services: services.filter_map(|s| service(assignments, network.id, s, of(s))).collect(),
    }
}

fn addresses_in(network: NetworkId, list: &[(NetworkId, Addresses)]) -> Vec<IpAddr> {
    list.iter().filter(|(n, _)| *n == network).flat_map(|(_, addresses)| addresses.iter()).collect()
}

/// The service's names on this network, if it is there.
fn service(
    assignments: &Assignments,
    network: NetworkId,
    service: &AssignedService,
    endpoints: &[&Endpoint],
) -> Option<ServiceNames> {
    let aliases = service.aliases.iter().find(|(n, _)| *n == network).map(|(_, aliases)| aliases.clone());
    let vips = addresses_in(network, &service.vips);
    let is_up =
        |node| node == assignments.node.id || assignments.peers.iter().find(|p| p.id == node).is_none_or(|p| p.is_up);
    let mut tasks = Vec::new();
    for endpoint in endpoints {
        let addresses = addresses_in(network, &endpoint.addresses);
        if addresses.is_empty() || endpoint.state == EndpointState::Dead {
            continue;
        }
        tasks.push(TaskNames {
            name: task_name(&service.name, endpoint.slot, endpoint.task),
            others: vec![endpoint.task.to_string(), endpoint.task.short()],
            addresses,
            ready: endpoint.state == EndpointState::Ready && is_up(endpoint.node),
        });
    }
    if vips.is_empty() && aliases.is_none() && tasks.is_empty() {
        return None;
    }
    let (name, aliases) = (service.name.clone(), aliases.unwrap_or_default());
    Some(ServiceNames { name, aliases, vips, tasks })
}
