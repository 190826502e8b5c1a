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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Cluster, both};

    fn cluster() -> (Cluster, [TaskId; 3]) {
        let mut cluster = Cluster::new(&[[10, 9, 0, 1].into(), [10, 9, 0, 2].into()]);
        let net = cluster.network("back");
        let web = cluster.service("web", &[net], &[]);
        let tasks = [0, 0, 1].map(|node| cluster.task(web, node));
        (cluster, tasks)
    }

    fn table_of(assignments: &Assignments) -> NetdTable {
        let tasks: Vec<&AssignedTask> = assignments.tasks.iter().collect();
        table(assignments, &tasks, &PortPlan::default(), |task| task.to_string().into())
    }

    fn list(addresses: Addresses) -> Vec<IpAddr> {
        addresses.iter().collect()
    }

    #[test]
    fn a_sandbox_names_its_networks_and_every_task_there_with_addresses_of_both_families() {
        let (cluster, tasks) = cluster();
        let table = table_of(&cluster.assignments(0));
        assert_eq!(table.sandboxes.iter().map(|s| s.task).collect::<Vec<_>>(), tasks[..2]);
        let own = &table.sandboxes[0];
        assert_eq!(own.addresses, list(both([10, 1, 1, 10])));
        assert_eq!(own.names[..2], [format!("web.1.{}", tasks[0]), tasks[0].to_string()]);
        let [back] = &table.networks[..] else { panic!("{:?}", table.networks) };
        assert_eq!(own.networks, [back.id]);
        let subnets: Vec<String> = back.subnets.iter().map(ToString::to_string).collect();
        assert_eq!(subnets, ["10.1.1.0/24", "fd00:a:1:1::/64"]);
        let [web] = &back.services[..] else { panic!("{:?}", back.services) };
        assert_eq!(web.vips, list(both([10, 1, 1, 200])));
        let found: Vec<_> = web.tasks.iter().map(|t| (t.name.clone(), t.addresses.clone(), t.ready)).collect();
        let expected = [(1, 10), (2, 11), (3, 12)]
            .map(|(slot, last)| (format!("web.{slot}.{}", tasks[slot - 1]), list(both([10, 1, 1, last])), true));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_task_that_is_not_ready_or_whose_node_is_down_keeps_its_name_and_a_dead_one_loses_it() {
        let (mut cluster, tasks) = cluster();
        cluster.peers[1].is_up = false;
        cluster.set_state(tasks[1], EndpointState::Draining);
        let ready = |cluster: &Cluster| -> Vec<bool> {
            let table = table_of(&cluster.assignments(0));
            table.networks[0].services[0].tasks.iter().map(|t| t.ready).collect()
        };
        assert_eq!(ready(&cluster), [true, false, false]);
        cluster.set_state(tasks[1], EndpointState::Dead);
        assert_eq!(ready(&cluster), [true, false]);
    }

    #[test]
    fn a_node_without_a_task_in_a_network_serves_no_name_of_it() {
        let (mut cluster, _) = cluster();
        let other = cluster.network("other");
        let db = cluster.service("db", &[other], &[]);
        cluster.task(db, 1);
        let names = |node: usize| -> Vec<String> {
            let table = table_of(&cluster.assignments(node));
            table.networks.into_iter().map(|n| n.name).collect()
        };
        assert_eq!(names(0), ["back"]);
        assert_eq!(names(1), ["back", "other"]);
    }
}
