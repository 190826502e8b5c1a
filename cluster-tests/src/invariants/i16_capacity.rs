//! I16: what tasks reserve on a node is there, and no host port has two users.

use std::collections::BTreeMap;

use rswarm_store::State;
use rswarm_types::spec::{PortConfig, Protocol, PublishMode};
use rswarm_types::task::Task;
use rswarm_types::task_state::TaskState;
use rswarm_types::units::{Bytes, NanoCpus};
use rswarm_types::{NodeId, TaskId};

use super::Violation;

const NAME: &str = "I16";

#[derive(Default)]
struct Taken {
    cpus: u64,
    memory: u64,
    ports: Vec<(PortConfig, TaskId)>,
}

/// Adds up what the tasks of each node take, without the store's own sums.
pub fn check(state: &State) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut nodes: BTreeMap<NodeId, Taken> = BTreeMap::new();
    let mut add = |text: String| violations.push(Violation::new(NAME, format!("after entry {} {text}", state.index())));
    for task in state.tasks().filter(|t| takes(t)) {
        let Some(node) = task.node else {
            add(format!("task {} is {} without a node", task.name(), task.status.state));
            continue;
        };
        let taken = nodes.entry(node).or_default();
        taken.cpus += task.spec.task.resources.reserve_cpu.0;
        taken.memory += task.spec.task.resources.reserve_memory.0;
        let ports = task.spec.endpoint.ports.iter().filter(|p| p.mode == PublishMode::Host && p.published != 0);
        for port in ports {
            if let Some((_, other)) = taken.ports.iter().find(|(other, _)| other.meets(port)) {
                add(format!("host port {port} of node {node} has tasks {other} and {}", task.id));
            }
            taken.ports.push((*port, task.id));
        }
    }
    for (id, taken) in nodes {
        let Some(node) = state.node(id) else { continue };
        let (cpus, memory) = (node.description.cpus.0, node.description.memory.0);
        if taken.cpus > cpus || taken.memory > memory {
            add(format!(
                "node {id} has {} CPUs and {}, its tasks reserve {} and {}",
                NanoCpus(cpus),
                Bytes(memory),
                NanoCpus(taken.cpus),
                Bytes(taken.memory),
            ));
        }
    }
    violations
}

fn takes(task: &Task) -> bool {
    task.status.state >= TaskState::Assigned && !task.status.state.is_terminal()
}

/// The containers that really run on one host: no port of the host may have two.
pub fn check_host(host: &str, ports: &[(u16, Protocol, TaskId)]) -> Option<Violation> {
    let mut users = BTreeMap::new();
    ports.iter().find_map(|(port, protocol, task)| {
        let other = users.insert((*port, *protocol), *task)?;
        Some(Violation::new(
            NAME,
            format!("on {host} the containers of tasks {other} and {task} hold port {port}/{protocol}"),
        ))
    })
}

#[cfg(test)]
mod tests {
    use rswarm_types::spec::ServiceSpec;

    use super::*;
    use crate::invariants::fixture::{Cluster, NODE, spec};

    #[test]
    fn a_node_that_is_overbooked_is_caught() {
        let mut cluster = Cluster::new();
        let mut wants = spec("s");
        // The fixture's node has 4 CPUs.
        wants.task.resources.reserve_cpu = NanoCpus(2_000_000_000);
        cluster.service(10, wants);
        let run = |task: &mut Task| {
            task.status.state = TaskState::Running;
            task.node = Some(NODE);
        };
        cluster.task(10, 1, run);
        cluster.task(10, 2, run);
        cluster.task(10, 3, |task| task.status.state = TaskState::Pending);
        assert_eq!(check(&cluster.state), []);
        cluster.task(10, 4, run);
        assert_eq!(check(&cluster.state).len(), 1);
    }

    #[test]
    fn a_host_port_with_two_users_is_caught() {
        let mut cluster = Cluster::new();
        let port = PortConfig { target: 80, published: 9000, mode: PublishMode::Host, ..PortConfig::default() };
        let mut wants: ServiceSpec = spec("s");
        wants.endpoint.ports.push(port);
        cluster.service(10, wants);
        let run = |task: &mut Task| {
            task.status.state = TaskState::Running;
            task.node = Some(NODE);
        };
        cluster.task(10, 1, run);
        assert_eq!(check(&cluster.state), []);
        cluster.task(10, 2, run);
        assert_eq!(check(&cluster.state).len(), 1);
    }

    #[test]
    fn a_host_port_on_two_addresses_has_a_user_each_and_one_on_all_none_besides() {
        let mut cluster = Cluster::new();
        let addresses = [Some([127, 0, 0, 1].into()), Some([10, 0, 0, 1].into()), None];
        for (id, address) in (1..).zip(addresses) {
            let mut wants: ServiceSpec = spec(&format!("s{id}"));
            wants.endpoint.ports = vec![PortConfig {
                target: 80,
                published: 9000,
                mode: PublishMode::Host,
                address,
                protocol: Protocol::Tcp,
            }];
            cluster.service(10 + id, wants);
            cluster.task(10 + id, 1, |task| {
                task.status.state = TaskState::Running;
                task.node = Some(NODE);
            });
            assert_eq!(check(&cluster.state).len(), usize::from(address.is_none()), "{address:?}");
        }
    }

    #[test]
    fn two_containers_with_one_port_are_caught() {
        let one = (80, Protocol::Tcp, TaskId(1));
        assert_eq!(check_host("h", &[one, (80, Protocol::Udp, TaskId(2))]), None);
        assert!(check_host("h", &[one, (80, Protocol::Tcp, TaskId(2))]).is_some());
    }
}
