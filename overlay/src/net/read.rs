//! Reading what is in a namespace.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::kernel::{Kernel, KernelError};
use super::{namespaces, readings};
use crate::desired::rules;
use crate::model::ruleset::{Table, TableName};
use crate::model::{ForeignChain, Link, LinkKind, Namespace, NamespaceKey, names};
use crate::nfnl::dump::ForwardChains;
use crate::nfnl::{dump, transaction};

/// A ruleset that others keep changing is read again so often.
const READ_ATTEMPTS: usize = 5;

/// What is in a namespace, and what the host's tells beside that.
#[derive(Debug, Default)]
pub struct Reading {
    pub namespace: Namespace,
    /// `None`: as it was.
    pub forward: Option<ForwardChains>,
    /// Destinations of all routes.
    pub routes: Vec<IpNet>,
}

impl Kernel {
    /// Reads a namespace. `known` is what we think is there: it says which settings to read, and
    /// its ruleset is taken over where nobody changed the kernel's.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn read(&mut self, key: NamespaceKey, known: Option<&Namespace>) -> Result<Reading, KernelError> {
        let mut reading = Reading::default();
        self.read_links(key, &mut reading)?;
        let settings = known.map(|k| k.sysctls.clone()).unwrap_or_default();
        if !settings.is_empty() {
            // One that the kernel lacks is as it should be.
            let read = |(name, value): (String, String)| {
                let is = namespaces::read_sysctl(&name);
                (name, is.unwrap_or(value))
            };
            reading.namespace.sysctls = self.enter(key, move || Ok(settings.into_iter().map(read).collect()))?;
        }
        match known {
            Some(known) if self.is_ruleset_ours(key)? => {
                reading.namespace.tables.clone_from(&known.tables);
                reading.namespace.opened.clone_from(&known.opened);
            }
            _ => self.read_ruleset(key, &mut reading)?,
        }
        Ok(reading)
    }

    fn read_links(&mut self, key: NamespaceKey, reading: &mut Reading) -> Result<(), KernelError> {
        let socket = self.route_socket(key)?;
        let links = readings::links(socket)?;
        let namespace = &mut reading.namespace;
        for (name, (_, link)) in &links.known {
            if is_ours(key, name, link) {
                namespace.links.insert(name.clone(), normal(name, link));
            }
        }
        let device = |index: u32| links.name(index).map(str::to_owned);
        let is_known = |name: &String| namespace.links.contains_key(name);
        for (index, address) in readings::addresses(socket)? {
            let name = device(index).filter(is_known).filter(|n| n != names::LOOPBACK);
            namespace.addresses.extend(name.map(|name| (name, address)));
        }
        let (ours, all) = readings::routes(socket, &links)?;
        namespace.routes = ours.into_iter().collect();
        reading.routes = all;
        namespace.rules = readings::rules(socket)?.into_iter().collect();
        for (index, address, mac) in readings::neighbours(socket)? {
            if let Some(name) = device(index).filter(is_known) {
                namespace.neighbours.insert((name, address), mac);
            }
        }
        for (index, mac, to, is_port) in readings::forwarding(socket)? {
            let Some(name) = device(index).filter(is_known) else { continue };
            let Some(Link { kind: LinkKind::Vxlan { .. }, master, .. }) = namespace.links.get(&name) else {
                continue;
            };
            if is_port || master.is_none() {
                namespace.forwarding.insert((name, mac), to);
            }
        }
        self.opened(key)?.indexes = links.known.iter().map(|(name, (index, _))| (name.clone(), *index)).collect();
        Ok(())
    }

    fn read_ruleset(&mut self, key: NamespaceKey, reading: &mut Reading) -> Result<(), KernelError> {
        let ours = names::tables(key);
        let open = self.opened(key)?;
        for _ in 0..READ_ATTEMPTS {
            let before = transaction::generation(&mut open.netfilter)?;
            let tables = dump::tables(&mut open.netfilter, &ours)?;
            let forward = match key {
                NamespaceKey::Host => dump::forward_chains(&mut open.netfilter, &ours)?,
                _ => ForwardChains::default(),
            };
            if transaction::generation(&mut open.netfilter)? == before {
                open.generation = Some(before);
                reading.namespace.opened = opened(&forward);
                reading.forward = (key == NamespaceKey::Host).then_some(forward);
                let shared = |(name, table): (TableName, Table)| (name, Arc::new(table));
                reading.namespace.tables = tables.into_iter().map(shared).collect();
                return Ok(());
            }
        }
        Err(KernelError::RulesetRace)
    }
}

fn is_ours(key: NamespaceKey, name: &str, link: &Link) -> bool {
    match key {
        NamespaceKey::Host => name.starts_with(names::HOST_PREFIX),
        NamespaceKey::Network(_) => true,
        // A container may make interfaces of its own.
        NamespaceKey::Sandbox(_) => match link.kind {
            LinkKind::Loopback => true,
            LinkKind::Veth | LinkKind::Macvlan => name.strip_prefix("eth").is_some_and(|n| n.parse::<u8>().is_ok()),
            LinkKind::Bridge | LinkKind::Vxlan { .. } => false,
        },
    }
}

/// Leaves out what the kernel chose and nobody asked for.
fn normal(name: &str, link: &Link) -> Link {
    let mut link = link.clone();
    match link.kind {
        LinkKind::Loopback => (link.mac, link.mtu) = (None, 65_536),
        LinkKind::Vxlan { .. } if name == names::VXLAN => link.mac = None,
        LinkKind::Veth if name.starts_with(names::HOST_PREFIX) && !name.starts_with(names::GATEWAY) => link.mac = None,
        _ => {}
    }
    link
}

/// Chains in which all our rules are, once.
fn opened(forward: &ForwardChains) -> BTreeSet<ForeignChain> {
    let mut wanted: Vec<_> = rules::forward_accepts().iter().map(|r| r.fingerprint()).collect();
    wanted.sort_unstable();
    let is_open = |rules: &Vec<(u64, u64)>| {
        let mut is: Vec<_> = rules.iter().map(|(_, fingerprint)| *fingerprint).collect();
        is.sort_unstable();
        is == wanted
    };
    let open = forward.opened.iter().filter(|(_, rules)| is_open(rules));
    open.map(|(chain, _)| chain.clone()).collect()
}
