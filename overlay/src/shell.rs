//! What the overlay remembers between calls, and the loop that brings the kernel there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use rswarm_types::TaskId;
use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::spec::PublishMode;

use crate::desired::order::Slots;
use crate::desired::rules::Backend;
use crate::desired::{Desired, HostFacts, Subject, desired, has_gateway, rules};
use crate::diff::diff;
use crate::gateway::{self, Gateway};
use crate::model::ruleset::Table;
use crate::model::{Change, NamespaceKey, World, names};
use crate::net::kernel::{HostTraits, Kernel, KernelError};
use crate::net::namespaces;
use crate::netd::Reply;
use crate::overlay::OverlayError;
use crate::ports::{HostPorts, PublishedPort};

/// A plan that fails is made again from what is then there.
const ATTEMPTS: usize = 3;
/// Sandboxes and networks whose interfaces are read again by one repair, so that a full host costs
/// no more than an empty one; their rulesets are all looked at, which is one short request each.
const READ_PER_REPAIR: usize = 8;

/// The effects' side, driven by one caller at a time.
pub struct Shell {
    kernel: Kernel,
    data_path: IpAddr,
    gateway_hint: Option<Ipv4Net>,
    /// What we think is in the kernel.
    mirror: World,
    /// Namespaces to be read before the next plan.
    stale: BTreeSet<NamespaceKey>,
    was_read: bool,
    /// Destinations of the host's routes.
    host_routes: Vec<IpNet>,
    forward_drops: BTreeSet<crate::model::ForeignChain>,
    pub facts: Option<HostFacts>,
    last_gateway_address: Ipv4Addr,
    /// What was last asked for.
    pub assignments: Arc<Assignments>,
    pub sandboxes: BTreeSet<TaskId>,
    /// Where the last repair stopped reading.
    cursor: Option<NamespaceKey>,
}

/// What a round did.
#[derive(Debug, Default)]
pub struct Round {
    /// Steps that took effect.
    pub steps: usize,
    pub failures: Vec<(Subject, String)>,
}

impl Shell {
    pub fn new(kernel: Kernel, data_path: IpAddr, gateway_hint: Option<Ipv4Net>) -> Self {
        Self {
            kernel,
            data_path,
            gateway_hint,
            mirror: World::default(),
            stale: BTreeSet::new(),
            was_read: false,
            host_routes: Vec::new(),
            forward_drops: BTreeSet::new(),
            facts: None,
            last_gateway_address: Ipv4Addr::UNSPECIFIED,
            assignments: Arc::default(),
            sandboxes: BTreeSet::new(),
            cursor: None,
        }
    }

    pub fn pin(&self, task: TaskId) -> PathBuf {
        self.kernel.pin(NamespaceKey::Sandbox(task))
    }

    pub fn is_ruleset_ours(&mut self) -> Result<bool, KernelError> {
        self.kernel.is_ruleset_ours(NamespaceKey::Host)
    }

    /// Tasks that are assigned and have, or shall have, a sandbox.
    pub fn tasks(&self) -> Vec<&AssignedTask> {
        self.assignments.tasks.iter().filter(|t| self.sandboxes.contains(&t.id)).collect()
    }

    /// Those of them whose sandbox exists.
    pub fn made_tasks(&self) -> Vec<&AssignedTask> {
        let is_made = |t: &&AssignedTask| self.mirror.namespaces.contains_key(&NamespaceKey::Sandbox(t.id));
        self.tasks().into_iter().filter(is_made).collect()
    }

    /// Takes orders, and makes node-local choices: the gateway's subnet and addresses.
    ///
    /// # Errors
    /// When the host cannot be read, or no subnet is left for the gateway.
    pub fn take_orders(
        &mut self,
        assignments: Arc<Assignments>,
        sandboxes: BTreeSet<TaskId>,
    ) -> Result<(), OverlayError> {
        self.assignments = assignments;
        self.sandboxes = sandboxes;
        if !self.was_read {
            self.read_all()?;
        }
        if self.facts.is_none() {
            let host = self.kernel.host_traits(self.data_path)?;
            self.facts = Some(self.found_facts(host)?);
        }
        let networks = &self.assignments.networks;
        let tasks = self.tasks();
        let with_gateway = tasks.iter().filter(|t| has_gateway(t, networks)).map(|t| t.id);
        // A sandbox that nothing is said of keeps its address.
        let unknown = self.sandboxes.iter().filter(|id| !tasks.iter().any(|t| t.id == **id));
        let holders: BTreeSet<_> = with_gateway.chain(unknown.copied()).collect();
        let Some(facts) = &mut self.facts else { return Ok(()) };
        let had = facts.gateway_addresses.clone();
        let mut last = self.last_gateway_address;
        gateway::allocate(facts.gateway.v4, &holders, &mut facts.gateway_addresses, &mut last);
        self.last_gateway_address = last;
        // An unassigned one that had none needs none.
        let assigned: BTreeSet<_> = self.assignments.tasks.iter().map(|t| t.id).collect();
        facts.gateway_addresses.retain(|id, _| assigned.contains(id) || had.contains_key(id));
        facts.dns.retain(|id, _| self.sandboxes.contains(id));
        Ok(())
    }

    /// What an earlier daemon left in the kernel is taken up.
    fn found_facts(&self, traits: HostTraits) -> Result<HostFacts, OverlayError> {
        let host = self.mirror.host();
        let found = || host.addresses.iter().filter(|(device, _)| device == names::GATEWAY).map(|(_, net)| *net);
        let found_v4 = found().find_map(|net| if let IpNet::V4(net) = net { Some(net) } else { None });
        let found_v6 = found().find_map(|net| if let IpNet::V6(net) = net { Some(net) } else { None });
        let mut taken = self.host_routes.clone();
        let networks = self.assignments.networks.iter();
        taken.extend(networks.flat_map(|n| n.blocks.iter().map(|b| b.subnet)));
        let v4 = found_v4.or_else(|| gateway::choose(self.gateway_hint, &taken));
        let v4 = v4.ok_or(OverlayError::NoGatewaySubnet)?;
        let v6 = found_v6.or_else(|| gateway::choose_v6(&taken)).filter(|_| traits.has_ipv6);
        let mut facts = HostFacts::new(self.data_path, Gateway { v4, v6 });
        facts.path_mtu = traits.path_mtu.unwrap_or(facts.path_mtu);
        facts.advertised = traits.advertised;
        for (key, namespace) in &self.mirror.namespaces {
            let NamespaceKey::Sandbox(task) = key else { continue };
            let mut addresses = namespace.addresses.iter().filter_map(|(_, net)| match net {
                IpNet::V4(net) => Some(net.addr()),
                IpNet::V6(_) => None,
            });
            let on_gateway = addresses.rfind(|a| v4.contains(a));
            facts.gateway_addresses.extend(on_gateway.map(|a| (*task, a)));
        }
        if let Some(table) = host.tables.get(&names::host_table()) {
            facts.host_ports = self.found_host_ports(&facts, table);
            facts.held = held(table);
        }
        Ok(facts)
    }

    fn found_host_ports(&self, facts: &HostFacts, table: &Table) -> HostPorts {
        let mut found = HostPorts::new();
        let published = rules::published_in(table);
        for task in &self.assignments.tasks {
            let Some(address) = facts.gateway_addresses.get(&task.id) else { continue };
            for port in task.ports.iter().filter(|p| p.mode == PublishMode::Host) {
                let is_it = |((published, _), backends): &(&(PublishedPort, _), &Vec<Backend>)| {
                    let fits = port.published == 0 || port.published == published.port;
                    let rest = (published.protocol, published.address) == (port.protocol, port.address);
                    let backend = Backend { address: (*address).into(), port: port.target };
                    fits && rest && **backends == [backend]
                };
                let number = published.iter().find(is_it).map(|((published, _), _)| published.port);
                found.extend(number.map(|n| ((task.id, *port), n)));
            }
        }
        found
    }

    /// Notes what netd answered.
    pub fn take_reply(&mut self, reply: &Reply) {
        let Some(facts) = &mut self.facts else { return };
        for ports in &reply.sandboxes {
            let (udp, tcp) = (ports.udp_port, ports.tcp_port);
            facts.dns.insert(ports.task, crate::desired::DnsPorts { udp, tcp });
        }
        let held = reply.published.iter().filter(|p| p.problem.is_none());
        facts.held = held.map(|p| p.port).collect();
    }

    /// Reads every namespace that is mounted.
    fn read_all(&mut self) -> Result<(), OverlayError> {
        let mounted = self.kernel.mounted().map_err(OverlayError::Pins)?;
        self.mirror = World::default();
        self.was_read = false;
        self.stale = mounted.into_iter().collect();
        self.read_stale()?;
        self.was_read = true;
        if self.kernel.enter(NamespaceKey::Host, || Ok(namespaces::drops_by_old_iptables()))? {
            tracing::warn!(
                "iptables-legacy drops forwarded packets, and with them published ports and the way out; allow ours: \
                 iptables-legacy -I FORWARD -i rswarm_+ -j ACCEPT && iptables-legacy -I FORWARD -o rswarm_+ -j ACCEPT"
            );
        }
        Ok(())
    }

    /// Reads what we are unsure of.
    fn read_stale(&mut self) -> Result<(), OverlayError> {
        if self.stale.is_empty() {
            return Ok(());
        }
        let mounted: BTreeSet<_> = self.kernel.mounted().map_err(OverlayError::Pins)?.into_iter().collect();
        let mut read = BTreeSet::new();
        while let Some(key) = self.stale.first().copied() {
            if mounted.contains(&key) {
                self.read(key)?;
            } else {
                self.mirror.namespaces.remove(&key);
                self.kernel.close(key);
            }
            self.stale.remove(&key);
            read.insert(key);
            if self.stale.is_empty() {
                // Half a pair says that the other half's namespace is not as we think.
                let halves = self.mirror.broken_pairs().into_iter().filter(|key| !read.contains(key));
                self.stale.extend(halves);
            }
        }
        Ok(())
    }

    fn read(&mut self, key: NamespaceKey) -> Result<(), OverlayError> {
        let known = self.mirror.namespaces.get(&key).filter(|_| self.was_read);
        let reading = self.kernel.read(key, known)?;
        let mut namespace = reading.namespace;
        let mut backends = known.map(|k| (*k.backends).clone()).unwrap_or_default();
        backends.extend(namespace.tables.values().flat_map(|table| rules::backends_in(table)));
        namespace.backends = Arc::new(backends);
        if key == NamespaceKey::Host {
            self.host_routes = reading.routes;
            if let Some(forward) = reading.forward {
                self.forward_drops = forward.dropping;
            }
        }
        self.mirror.namespaces.insert(key, namespace);
        Ok(())
    }

    fn desired(&mut self) -> Desired {
        let Some(facts) = &mut self.facts else { return Desired::default() };
        facts.forward_drops.clone_from(&self.forward_drops);
        let name = names::dns_table();
        let found = self.mirror.namespaces.iter().filter_map(|(key, namespace)| match key {
            NamespaceKey::Sandbox(task) => Some((*task, namespace.tables.get(&name)?.clone())),
            _ => None,
        });
        facts.dns_found = found.collect();
        facts.slots = slots_in(&self.mirror);
        desired(&self.assignments, facts, &self.sandboxes)
    }

    /// Brings the kernel to what was last ordered.
    ///
    /// # Errors
    /// When the kernel cannot be read. Steps that it refuses are failures of the round.
    pub fn converge(&mut self) -> Result<Round, OverlayError> {
        let mut round = Round::default();
        for _ in 0..ATTEMPTS {
            self.read_stale()?;
            let desired = self.desired();
            round.failures = self.run(&desired, &mut round.steps);
            round.failures.extend(desired.failures);
            if self.stale.is_empty() {
                break;
            }
        }
        self.kernel.rest();
        Ok(round)
    }

    /// One plan, done.
    fn run(&mut self, desired: &Desired, steps: &mut usize) -> Vec<(Subject, String)> {
        self.mirror.assume_pairs(desired.pairs());
        let ops = diff(desired, &self.mirror);
        let mut unsure = BTreeSet::new();
        let mut lost_ends = false;
        let failures = self.kernel.execute(&ops, |op| {
            *steps += 1;
            let pairs = self.mirror.pairs.len();
            if self.mirror.apply(op).is_err() {
                unsure.insert(op.namespace);
            }
            // The other end of a deleted interface went too, and may be one that we do not know.
            if matches!(&op.change, Change::DeleteLink { name } if name.starts_with(names::HOST_PREFIX))
                && self.mirror.pairs.len() == pairs
            {
                lost_ends = true;
            }
        });
        if !failures.is_empty() {
            // What else the failed steps touched is not worth finding out.
            unsure.extend(failures.iter().map(|f| f.namespace));
            unsure.insert(NamespaceKey::Host);
            let networks = self.mirror.namespaces.keys();
            unsure.extend(networks.filter(|k| matches!(k, NamespaceKey::Network(_))));
        }
        if lost_ends {
            unsure.extend(self.mirror.sandboxes().map(NamespaceKey::Sandbox));
        }
        self.stale.extend(&unsure);
        for (key, namespace) in &mut self.mirror.namespaces {
            if let Some(want) = desired.world.namespaces.get(key).filter(|_| !unsure.contains(key)) {
                namespace.backends.clone_from(&want.backends);
            }
        }
        failures.into_iter().map(|f| (Subject::from(f.namespace), f.reason)).collect()
    }

    /// Looks again at the host, at every ruleset, and at some of the rest.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn look_again(&mut self) -> Result<(), OverlayError> {
        let keys: Vec<_> = self.mirror.namespaces.keys().copied().collect();
        self.stale.insert(NamespaceKey::Host);
        for key in &keys {
            // One that cannot even be asked is not as it should be.
            if !self.kernel.is_ruleset_ours(*key).unwrap_or(false) {
                self.stale.insert(*key);
            }
        }
        let start = keys.iter().position(|k| Some(*k) > self.cursor).unwrap_or(0);
        let some = keys[start..].iter().take(READ_PER_REPAIR);
        self.cursor = some.clone().next_back().copied();
        self.stale.extend(some);
        self.read_stale()
    }

    /// Removes everything. Returns what could not be removed.
    ///
    /// # Errors
    /// When the kernel cannot be read.
    pub fn remove_all(&mut self) -> Result<Vec<(Subject, String)>, OverlayError> {
        self.read_all()?;
        let mut failures = Vec::new();
        for _ in 0..ATTEMPTS {
            self.read_stale()?;
            failures = self.run(&Desired::default(), &mut 0);
            if self.stale.is_empty() {
                break;
            }
        }
        self.facts = None;
        self.was_read = false;
        Ok(failures)
    }

    /// Interfaces of ours that are still in the host's namespace.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn leftovers(&mut self) -> Result<Vec<String>, OverlayError> {
        let reading = self.kernel.read(NamespaceKey::Host, None)?;
        Ok(reading.namespace.links.into_keys().collect())
    }
}

/// Ports that the host's table translates: netd holds them.
fn held(table: &Table) -> BTreeSet<PublishedPort> {
    rules::published_in(table).into_keys().map(|(port, _)| port).collect()
}

/// The slots of backends, from one of each of the tables that sandboxes share.
fn slots_in(world: &World) -> Slots {
    let mut slots = Slots::default();
    let mut last = None;
    for (key, namespace) in &world.namespaces {
        let balancer = namespace.tables.get(&names::balancer_table());
        if let Some(table) = balancer.filter(|table| last.is_none_or(|last| !Arc::ptr_eq(last, table))) {
            let found = rules::balanced_in(table);
            slots.virtual_addresses.extend(found);
            last = Some(table);
        }
        if let (NamespaceKey::Host, Some(table)) = (key, namespace.tables.get(&names::host_table())) {
            slots.published = rules::published_in(table);
        }
    }
    slots
}

/// Numbers that were chosen for host-mode ports of a task.
pub fn numbers(host_ports: &HostPorts, task: TaskId) -> BTreeMap<rswarm_types::spec::PortConfig, u16> {
    let of_task = host_ports.iter().filter(|((owner, _), _)| *owner == task);
    of_task.map(|((_, port), number)| (*port, *number)).collect()
}
