//! Published ports: who wants which, what number a host-mode port without one gets.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::limits::{DYNAMIC_PORTS, RESERVED_PORTS};
use rswarm_types::spec::{PortConfig, Protocol, PublishMode, share_address};
use rswarm_types::{ServiceId, TaskId};
use serde::{Deserialize, Serialize};

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

/// What clients call: a port of this host, at one of its addresses or at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    #[serde(with = "protocol_text")]
    pub protocol: Protocol,
    pub port: u16,
    /// `None`: every address.
    #[serde(default)]
    pub address: Option<IpAddr>,
}

impl PublishedPort {
    pub fn of(port: &PortConfig) -> Self {
        Self { protocol: port.protocol, port: port.published, address: port.address }
    }

    /// Whether one connection could be meant for both.
    pub fn meets(self, other: Self) -> bool {
        (self.protocol, self.port) == (other.protocol, other.port) && share_address(self.address, other.address)
    }
}

/// `port 8080/tcp`, `port 8080/tcp of 192.0.2.1`.
impl fmt::Display for PublishedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}/{}", self.port, self.protocol)?;
        self.address.map_or(Ok(()), |address| write!(f, " of {address}"))
    }
}

/// Who has which port on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PortPlan {
    /// Owner of each port that netd should hold.
    pub wanted: BTreeMap<PublishedPort, (ServiceId, Option<TaskId>, PortConfig)>,
    pub host_ports: HostPorts,
    pub problems: Vec<PortProblem>,
}

/// Numbers already given stay; ports in `refused` (held by others) are not given. `has_address` tells
/// this host's addresses: a port of the routing mesh at another's is not answered here.
pub fn plan(
    assignments: &Assignments,
    tasks: &[&AssignedTask],
    given: &HostPorts,
    refused: &BTreeSet<PublishedPort>,
    has_address: impl Fn(IpAddr) -> bool,
) -> PortPlan {
    let mut plan = PortPlan::default();
    let has_ingress = assignments.node.number > 0 && !assignments.node.ingress.is_empty();
    for service in assignments.services.iter().filter(|_| has_ingress) {
        for port in service.ingress_ports().filter(|p| p.address.is_none_or(&has_address)) {
            plan.take(*port, (service.id, None));
        }
    }
    let host_ports = |task: &AssignedTask| {
        let (id, service) = (task.id, task.service);
        let ports = task.ports.iter().filter(|p| p.mode == PublishMode::Host).copied();
        ports.map(|p| (id, service, p)).collect::<Vec<_>>()
    };
    let mut all: Vec<(TaskId, ServiceId, PortConfig)> = tasks.iter().flat_map(|t| host_ports(t)).collect();
    all.retain(|(task, service, port)| {
        let Some(missing) = port.address.filter(|address| !has_address(*address)) else { return true };
        let reason = format!("no interface of this host has the address {missing}");
        plan.problems.push(PortProblem { service: *service, task: Some(*task), port: *port, reason });
        false
    });
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
            let it = PublishedPort { port: *number, ..PublishedPort::of(port) };
            plan.owner(it).is_none() && !refused.contains(&it)
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
    /// Who has this port, or one that it would meet.
    fn owner(&self, port: PublishedPort) -> Option<ServiceId> {
        let found = self.wanted.iter().find(|(other, _)| port.meets(**other));
        found.map(|(_, (service, ..))| *service)
    }

    fn take(&mut self, port: PortConfig, owner: (ServiceId, Option<TaskId>)) -> bool {
        let (service, task) = owner;
        let refusal = if RESERVED_PORTS.contains(&port.published) {
            Some(format!("port {} is the cluster's own: publish another", port.published))
        } else {
            let it = PublishedPort::of(&port);
            self.owner(it).map(|other| format!("{it} is already published here by service {other}"))
        };
        if let Some(reason) = refusal {
            self.problems.push(PortProblem { service, task, port, reason });
            return false;
        }
        self.wanted.insert(PublishedPort::of(&port), (service, task, port));
        true
    }

    /// Takes note of a port that cannot be held.
    pub fn refuse(&mut self, number: PublishedPort, reason: String) {
        if let Some((service, task, port)) = self.wanted.get(&number).copied() {
            self.problems.push(PortProblem { service, task, port, reason });
        }
    }

    /// Whether the number was chosen here, so that another would do.
    pub fn is_chosen(&self, number: PublishedPort) -> bool {
        let chosen = self.host_ports.iter().filter(|((_, port), _)| port.published == 0);
        chosen.into_iter().any(|((_, port), n)| PublishedPort { port: *n, ..PublishedPort::of(port) } == number)
    }
}

mod protocol_text {
    use rswarm_types::spec::Protocol;
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub fn serialize<S: Serializer>(value: &Protocol, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Protocol, D::Error> {
        match String::deserialize(from)?.as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            other => Err(Error::custom(format!("protocol is \"{other}\": allowed are tcp, udp, sctp"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rswarm_types::assignment::{AssignedService, NodeOrders};
    use std::net::Ipv4Addr;

    fn port(mode: PublishMode, published: u16) -> PortConfig {
        PortConfig { target: 80, published, mode, ..PortConfig::default() }
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
            node: NodeOrders { number: 1, ingress: Ipv4Addr::new(10, 0, 0, 2).into(), ..NodeOrders::default() },
            services: published.iter().map(service).collect(),
            ..Assignments::default()
        }
    }

    fn planned(ingress: &[u16], tasks: &[AssignedTask], given: &HostPorts, refused: &[u16]) -> PortPlan {
        let tasks: Vec<_> = tasks.iter().collect();
        let refused = refused.iter().map(|p| PublishedPort::of(&port(PublishMode::Host, *p))).collect();
        plan(&assignments(ingress), &tasks, given, &refused, |address| address == IpAddr::from([10, 9, 0, 1]))
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
    fn a_port_at_one_address_is_another_than_the_same_at_the_next() {
        let at = |address: [u8; 4]| PublishedPort {
            address: Some(address.into()),
            ..PublishedPort::of(&port(PublishMode::Ingress, 80))
        };
        let everywhere = PublishedPort::of(&port(PublishMode::Ingress, 80));
        assert!(everywhere.meets(everywhere) && everywhere.meets(at([10, 9, 0, 1])));
        assert!(at([10, 9, 0, 1]).meets(everywhere) && at([10, 9, 0, 1]).meets(at([10, 9, 0, 1])));
        assert!(!at([10, 9, 0, 1]).meets(at([10, 9, 0, 2])));
    }

    #[test]
    fn a_port_at_an_address_of_another_host_is_a_problem_in_host_mode_only() {
        let at = |mode, address: [u8; 4]| PortConfig { address: Some(address.into()), ..port(mode, 8080) };
        let host = |address| planned(&[], &[task(1, vec![at(PublishMode::Host, address)])], &HostPorts::new(), &[]);
        assert_eq!(host([10, 9, 0, 1]).wanted.len(), 1);
        let elsewhere = host([10, 9, 0, 2]);
        assert_eq!(elsewhere.wanted.len(), 0);
        assert_eq!(elsewhere.problems[0].reason, "no interface of this host has the address 10.9.0.2");
        let mut mesh = assignments(&[8080]);
        mesh.services[0].ports = vec![at(PublishMode::Ingress, [10, 9, 0, 2])];
        let plan = plan(&mesh, &[], &HostPorts::new(), &BTreeSet::new(), |_| false);
        assert!(plan.wanted.is_empty() && plan.problems.is_empty());
    }

    #[test]
    fn the_clusters_own_ports_are_refused() {
        let plan = planned(&[2377], &[], &HostPorts::new(), &[]);
        assert!(plan.wanted.is_empty());
        assert_eq!(plan.problems[0].reason, "port 2377 is the cluster's own: publish another");
    }
}
