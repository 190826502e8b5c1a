//! What should be true on one node, computed from the replicated state. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use rswarm_store::State;
use rswarm_types::assignment::*;
use rswarm_types::limits::OVERLAY_MTU;
use rswarm_types::network::Network;
use rswarm_types::node::{Node, NodeState};
use rswarm_types::service::Service;
use rswarm_types::spec::{NetworkDriver, PublishMode, Role};
use rswarm_types::task::{EndpointState, Task};
use rswarm_types::task_state::TaskState;
use rswarm_types::{NetworkId, NodeId, ServiceId};

use crate::machine::Snapshot;

/// Driver option that sets the MTU of a network's interfaces.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// Everything that should be true on `id`; `None` = the node is not in the cluster.
pub fn assignments(snapshot: &Snapshot, id: NodeId) -> Option<Assignments> {
    let state = &snapshot.state;
    let node = state.node(id)?;
    let tasks: Vec<&Task> = state
        .tasks_on_node(id)
        .map(AsRef::as_ref)
        .filter(|t| t.status.state >= TaskState::Assigned && is_wanted(t))
        .collect();
    let networks = networks_of(state, &tasks);
    let is_shared = |n: &&AssignedNetwork| !n.ingress && n.driver == NetworkDriver::Overlay;
    let local_ids: BTreeSet<NetworkId> = networks.iter().filter(is_shared).map(|n| n.id).collect();
    let (services, endpoints) = services_and_endpoints(state, &local_ids);
    Some(Assignments {
        log_id: snapshot.log_id(),
        node: orders(state, node),
        tasks: tasks.iter().map(|t| assigned_task(state, t)).collect(),
        networks,
        services,
        endpoints,
        peers: peers(state),
        managers: managers(state),
        now: state.now(),
    })
}

/// A task that its agent should know: to act on it, or to keep its logs until its record goes.
fn is_wanted(task: &Task) -> bool {
    task.status.state != TaskState::Orphaned
}

fn orders(state: &State, node: &Node) -> NodeOrders {
    NodeOrders {
        id: node.id,
        number: node.number,
        ingress: node.ingress,
        role: node.membership.role,
        member: node.membership.member,
        control: node.spec.control,
        data_path_port: state.cluster().map_or(0, |c| c.spec.data_path_port),
        cluster: state.cluster().map_or_else(Default::default, |c| c.id),
    }
}

fn assigned_task(state: &State, task: &Task) -> AssignedTask {
    let service = state.service(task.service);
    AssignedTask {
        id: task.id,
        service: task.service,
        slot: task.slot,
        spec: std::sync::Arc::clone(&task.spec),
        desired: task.desired,
        state: task.status.state,
        stop_at: task.stop_at,
        attachments: task.attachments.clone(),
        ingress: task.ingress,
        ports: service.map_or_else(|| task.spec.endpoint.ports.clone(), |s| s.ports.clone()),
        registry_auth: service.map_or_else(Default::default, |s| s.registry_auth.clone()),
    }
}

/// The networks of the node's tasks, and the ingress network, which every node has.
fn networks_of(state: &State, tasks: &[&Task]) -> Vec<AssignedNetwork> {
    let mut wanted: BTreeSet<NetworkId> = tasks.iter().flat_map(|t| t.attachments.iter().map(|a| a.network)).collect();
    // `host` and `none` have no addresses to attach with.
    let named =
        tasks.iter().flat_map(|t| t.spec.task.networks.iter().filter_map(|n| n.target.parse::<NetworkId>().ok()));
    wanted.extend(named);
    wanted.extend(state.networks().filter(|n| n.spec.ingress).map(|n| n.id));
    wanted.into_iter().filter_map(|id| state.network(id)).map(|n| assigned_network(n)).collect()
}

fn assigned_network(network: &Network) -> AssignedNetwork {
    AssignedNetwork {
        id: network.id,
        name: network.spec.name.clone(),
        driver: network.spec.driver,
        vni: network.vni,
        blocks: network.blocks.clone(),
        internal: network.spec.internal,
        ingress: network.spec.ingress,
        mtu: network.spec.driver_opts.get(MTU_OPTION).and_then(|m| m.parse().ok()).unwrap_or(OVERLAY_MTU),
    }
}

/// Services that share a network with this node, or publish ports in ingress mode (every node
/// answers those), with their tasks.
fn services_and_endpoints(state: &State, local: &BTreeSet<NetworkId>) -> (Vec<AssignedService>, Vec<Endpoint>) {
    let mut services = Vec::new();
    let mut endpoints = Vec::new();
    for service in state.services() {
        let assigned = assigned_service(service, local);
        let is_published = assigned.ingress_ports().next().is_some();
        let is_near = !assigned.aliases.is_empty();
        if !is_published && !is_near {
            continue;
        }
        endpoints.extend(state.tasks_of_service(service.id).filter_map(|t| endpoint(state, t, service.id, local)));
        services.push(assigned);
    }
    endpoints.sort_by_key(|e| e.task);
    (services, endpoints)
}

fn assigned_service(service: &Service, local: &BTreeSet<NetworkId>) -> AssignedService {
    let networks = service.spec.task.networks.iter().filter_map(|n| {
        let id: NetworkId = n.target.parse().ok()?;
        local.contains(&id).then(|| (id, n.aliases.clone()))
    });
    AssignedService {
        id: service.id,
        name: service.spec.name.clone(),
        mode: service.spec.endpoint.mode,
        balance: service.spec.endpoint.balance,
        vips: service.vips.iter().filter(|v| local.contains(&v.network)).map(|v| (v.network, v.addresses)).collect(),
        aliases: networks.collect(),
        ports: if service.removing {
            Vec::new()
        } else {
            service.ports.iter().filter(|p| p.mode == PublishMode::Ingress).copied().collect()
        },
    }
}

fn endpoint(state: &State, task: &Task, service: ServiceId, local: &BTreeSet<NetworkId>) -> Option<Endpoint> {
    let node = state.node(task.node?)?;
    let dead = EndpointState::Dead;
    let endpoint_state = if node.status.state == NodeState::Down { dead } else { task.endpoint_state() };
    if endpoint_state == dead || (task.attachments.is_empty() && task.ingress.is_empty()) {
        return None;
    }
    Some(Endpoint {
        task: task.id,
        service,
        node: node.id,
        node_number: node.number,
        slot: task.slot,
        state: endpoint_state,
        addresses: task
            .attachments
            .iter()
            .filter(|a| local.contains(&a.network))
            .map(|a| (a.network, a.addresses))
            .collect(),
        ingress: task.ingress,
    })
}

fn peers(state: &State) -> Vec<Peer> {
    state
        .nodes()
        .filter_map(|n| {
            Some(Peer {
                id: n.id,
                number: n.number,
                address: data_path_address(n)?,
                addresses: n.description.addresses.clone(),
                is_up: n.status.state != NodeState::Down && n.status.state != NodeState::Disconnected,
                ingress: n.ingress,
            })
        })
        .collect()
}

/// Where VXLAN frames for this node go: what it said, else where its session comes from.
pub(crate) fn data_path_address(node: &Node) -> Option<IpAddr> {
    node.description.data_path_address.or(node.status.address)
}

fn managers(state: &State) -> Vec<std::net::SocketAddr> {
    state.nodes().filter(|n| n.membership.role == Role::Manager).filter_map(|n| n.description.control_address).collect()
}

#[cfg(test)]
mod tests {
    use rswarm_types::spec::{Balance, NetworkSpec, PortConfig};

    use super::*;
    use crate::orchestrate::harness::{Lab, join_network, replicated};

    fn told(lab: &Lab, node: NodeId) -> Assignments {
        let snapshot = Snapshot { state: lab.state.clone(), ..Snapshot::default() };
        assignments(&snapshot, node).expect("the node exists")
    }

    #[test]
    fn a_node_learns_addresses_of_both_families_and_how_to_balance() {
        let mut lab = Lab::new(2);
        lab.network(9, NetworkSpec { name: "dual".into(), ipv6: true, ..NetworkSpec::default() });
        let mut spec = replicated("web", 2);
        join_network(&mut spec, "dual");
        spec.endpoint.balance = Balance { by_client: true, prefers_local: false };
        spec.endpoint.ports = vec![PortConfig {
            target: 80,
            published: 8080,
            address: Some([127, 0, 0, 1].into()),
            ..Default::default()
        }];
        lab.create(50, spec);
        lab.settle();
        let told = told(&lab, NodeId(2));
        let both = |addresses: &rswarm_types::network::Addresses| addresses.v4.is_some() && addresses.v6.is_some();
        let network = told.networks.iter().find(|n| n.name == "dual").expect("its task is here");
        assert_eq!(network.blocks.iter().map(|b| b.gateway.is_ipv4()).collect::<Vec<_>>(), [true, false]);
        let service = &told.services[0];
        assert_eq!(service.balance, Balance { by_client: true, prefers_local: false });
        assert_eq!(service.ports[0].address, Some([127, 0, 0, 1].into()));
        assert!(both(&service.vips[0].1) && both(&told.node.ingress));
        assert!(told.tasks.iter().all(|t| both(&t.attachments[0].addresses) && both(&t.ingress)));
        assert_eq!(told.endpoints.len(), 2);
        assert!(told.endpoints.iter().all(|e| both(&e.addresses[0].1) && both(&e.ingress)));
    }
}
