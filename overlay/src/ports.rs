//! Published ports: who wants which, what number a host-mode port without one gets.

use std::collections::{BTreeMap, BTreeSet};

use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::limits::{DYNAMIC_PORTS, RESERVED_PORTS};
use rswarm_types::spec::{PortConfig, Protocol, PublishMode};
use rswarm_types::{ServiceId, TaskId};

/// A published port that this node does not answer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortProblem {
    pub service: ServiceId,
    /// Of a host-mode port: the task cannot run.
    pub task: Option<TaskId>,
    /// With the number that was tried.
    pub port: PortConfig,
    pub reason: String,
}

/// Numbers of host-mode ports, by task and port as the service has it.
pub type HostPorts = BTreeMap<(TaskId, PortConfig), u16>;

/// A protocol and a port number.
pub type PortNumber = (Protocol, u16);

/// Who has which port on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortPlan {
    /// Owner of each port that netd should hold.
    pub wanted: BTreeMap<PortNumber, (ServiceId, Option<TaskId>, PortConfig)>,
    pub host_ports: HostPorts,
    pub problems: Vec<PortProblem>,
}

/// Numbers already given stay; ports in `refused` (held by others) are not given.
pub fn plan(
    assignments: &Assignments,
    tasks: &[&AssignedTask],
    given: &HostPorts,
    refused: &BTreeSet<PortNumber>,
) -> PortPlan {
    let mut plan = PortPlan::default();
    let has_ingress = assignments.node.number > 0 && assignments.node.ingress.is_some();
    for service in assignments.services.iter().filter(|_| has_ingress) {
        for port in service.ingress_ports() {
            plan.take(*port, (service.id, None));
        }
    }
    let host_ports = |task: &AssignedTask| {
        let (id, service) = (task.id, task.service);
        let ports = task.ports.iter().filter(|p| p.mode == PublishMode::Host).copied();
        ports.map(|p| (id, service, p)).collect::<Vec<_>>()
    };
    let all: Vec<(TaskId, ServiceId, PortConfig)> = tasks.iter().flat_map(|t| host_ports(t)).collect();
    for (task, service, port) in all.iter().filter(|(_, _, p)| p.published != 0) {
        if plan.take(*port, (*service, Some(*task))) {
            plan.host_ports.insert((*task, *port), port.published);
        }
    }
    // Numbers given before come before new ones.
    let dynamic = all.iter().filter(|(_, _, p)| p.published == 0);
    let had = |(task, _, port): &(TaskId, ServiceId, PortConfig)| given.get(&(*task, *port)).copied();
    let (old, new): (Vec<&_>, Vec<&_>) = dynamic.partition(|owner| had(owner).is_some());
    for owner in old.into_iter().chain(new) {
        let (task, service, port) = owner;
        let is_free = |plan: &PortPlan, number: &u16| {
            let taken = (port.protocol, *number);
            !plan.wanted.contains_key(&taken) && !refused.contains(&taken)
        };
        let number =
            had(owner).filter(|n| is_free(&plan, n)).or_else(|| DYNAMIC_PORTS.into_iter().find(|n| is_free(&plan, n)));
        match number {
            Some(number) => {
                let numbered = PortConfig { published: number, ..*port };
                plan.take(numbered, (*service, Some(*task)));
                plan.host_ports.insert((*task, *port), number);
            }
            None => plan.problems.push(PortProblem {
                service: *service,
                task: Some(*task),
                port: *port,
                reason: format!(
                    "no {} port of {}-{} is free on this node",
                    port.protocol,
                    DYNAMIC_PORTS.start(),
                    DYNAMIC_PORTS.end()
                ),
            }),
        }
    }
    plan
}

impl PortPlan {
    fn take(&mut self, port: PortConfig, owner: (ServiceId, Option<TaskId>)) -> bool {
        let (service, task) = owner;
        let refusal = if RESERVED_PORTS.contains(&port.published) {
            Some(format!("port {} is the cluster's own: publish another", port.published))
        } else {
            self.wanted.get(&(port.protocol, port.published)).map(|(other, _, _)| {
                let (number, protocol) = (port.published, port.protocol);
                format!("port {number}/{protocol} is already published here by service {other}")
            })
        };
        if let Some(reason) = refusal {
            self.problems.push(PortProblem { service, task, port, reason });
            return false;
        }
        self.wanted.insert((port.protocol, port.published), (service, task, port));
        true
    }

    /// Takes note of a port that cannot be held.
    pub fn refuse(&mut self, number: PortNumber, reason: String) {
        if let Some((service, task, port)) = self.wanted.get(&number).copied() {
            self.problems.push(PortProblem { service, task, port, reason });
        }
    }

    /// Whether the number was chosen here, so that another would do.
    pub fn is_chosen(&self, number: PortNumber) -> bool {
        self.host_ports.iter().any(|((_, port), n)| port.published == 0 && (port.protocol, *n) == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rswarm_types::assignment::{AssignedService, NodeOrders};

    fn port(mode: PublishMode, published: u16) -> PortConfig {
        PortConfig { protocol: Protocol::Tcp, target: 80, published, mode }
    }

    fn task(id: u128, ports: Vec<PortConfig>) -> AssignedTask {
        AssignedTask { id: TaskId(id), service: ServiceId(id), ports, ..AssignedTask::default() }
    }

    fn assignments(published: &[u16]) -> Assignments {
        let service = |p: &u16| AssignedService {
            id: ServiceId(1000 + u128::from(*p)),
            ports: vec![port(PublishMode::Ingress, *p)],
            ..AssignedService::default()
        };
        Assignments {
            node: NodeOrders { number: 1, ingress: Some([10, 0, 0, 2].into()), ..NodeOrders::default() },
            services: published.iter().map(service).collect(),
            ..Assignments::default()
        }
    }

    fn planned(ingress: &[u16], tasks: &[AssignedTask], given: &HostPorts, refused: &[u16]) -> PortPlan {
        let tasks: Vec<_> = tasks.iter().collect();
        let refused = refused.iter().map(|p| (Protocol::Tcp, *p)).collect();
        plan(&assignments(ingress), &tasks, given, &refused)
    }

    #[test]
    fn a_host_port_without_a_number_gets_the_lowest_that_nobody_has() {
        let any = port(PublishMode::Host, 0);
        let plan = planned(&[30_000], &[task(1, vec![any]), task(2, vec![any])], &HostPorts::new(), &[30_001]);
        assert_eq!(plan.host_ports[&(TaskId(1), any)], 30_002);
        assert_eq!(plan.host_ports[&(TaskId(2), any)], 30_003);
        assert_eq!(plan.problems, []);
    }

    #[test]
    fn a_number_once_given_stays() {
        let any = port(PublishMode::Host, 0);
        let given = HostPorts::from([((TaskId(2), any), 30_000)]);
        let plan = planned(&[], &[task(1, vec![any]), task(2, vec![any])], &given, &[]);
        assert_eq!(plan.host_ports[&(TaskId(2), any)], 30_000);
        assert_eq!(plan.host_ports[&(TaskId(1), any)], 30_001);
    }

    #[test]
    fn a_port_that_two_want_goes_to_one_and_the_other_hears_why() {
        let fixed = port(PublishMode::Host, 8080);
        let plan = planned(&[8080], &[task(1, vec![fixed])], &HostPorts::new(), &[]);
        assert_eq!(plan.problems.len(), 1);
        assert_eq!(plan.problems[0].task, Some(TaskId(1)));
        assert!(plan.problems[0].reason.starts_with("port 8080/tcp is already published"));
        assert!(plan.host_ports.is_empty());
    }

    #[test]
    fn the_clusters_own_ports_are_refused() {
        let plan = planned(&[2377], &[], &HostPorts::new(), &[]);
        assert!(plan.wanted.is_empty());
        assert_eq!(plan.problems[0].reason, "port 2377 is the cluster's own: publish another");
    }
}
