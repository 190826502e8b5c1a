//! One step of kernel state, and what the kernel makes of it.
//!
//! [`World::apply`] is the kernel in memory: the plan is made against it, tests drive it, and the
//! shell uses it to remember what it did.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::ruleset::{RulesetChange, Table, TableName, Value};
use super::{ForeignChain, Link, LinkEnd, LinkKind, Mac, Namespace, NamespaceKey, Route, RoutingRule, World, names};

/// A change in one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub namespace: NamespaceKey,
    pub change: Change,
}

/// What changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddNamespace,
    /// With all that is in it, the outer ends of its interfaces included.
    RemoveNamespace,
    SetSysctl {
        name: String,
        value: String,
    },
    /// A bridge, a VXLAN device, or one on the gateway; still down and nobody's port.
    AddLink {
        name: String,
        link: Link,
    },
    /// An interface pair; both ends still down.
    AddVeth {
        name: String,
        link: Link,
        inner: NamespaceKey,
        inner_name: String,
        inner_link: Link,
    },
    /// Mac, MTU, bridge, flags and up.
    SetLink {
        name: String,
        link: Link,
    },
    DeleteLink {
        name: String,
    },
    AddAddress {
        device: String,
        address: IpNet,
    },
    DeleteAddress {
        device: String,
        address: IpNet,
    },
    /// In place of another route of ours to the same destination.
    AddRoute(Route),
    DeleteRoute(Route),
    AddRule(RoutingRule),
    DeleteRule(RoutingRule),
    SetNeighbour {
        device: String,
        address: IpAddr,
        mac: Mac,
    },
    DeleteNeighbour {
        device: String,
        address: IpAddr,
    },
    SetForwarding {
        device: String,
        mac: Mac,
        to: IpAddr,
    },
    DeleteForwarding {
        device: String,
        mac: Mac,
        to: IpAddr,
    },
    /// One transaction, and what becomes of each table that it touches.
    Ruleset {
        changes: Vec<RulesetChange>,
        tables: Vec<(TableName, Option<Arc<Table>>)>,
    },
    /// Our traffic passes somebody else's forward chain.
    OpenForward(ForeignChain),
    CloseForward(ForeignChain),
    /// Connections answered by these end.
    FlushBackends(BTreeSet<IpAddr>),
}

/// The kernel would refuse the step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{namespace}: {reason}")]
pub struct Impossible {
    pub namespace: NamespaceKey,
    pub reason: String,
}

impl World {
    /// Does the step, as the kernel would.
    ///
    /// # Errors
    /// When the kernel would refuse: something named does not exist, or exists already.
    pub fn apply(&mut self, op: &Op) -> Result<(), Impossible> {
        let impossible = |reason: String| Impossible { namespace: op.namespace, reason };
        match &op.change {
            Change::AddNamespace => {
                if self.namespaces.insert(op.namespace, Namespace::new_born()).is_some() {
                    return Err(impossible("it exists".into()));
                }
            }
            Change::RemoveNamespace => {
                if self.namespaces.remove(&op.namespace).is_none() {
                    return Err(impossible("it does not exist".into()));
                }
                if let NamespaceKey::Sandbox(task) = op.namespace {
                    let end = names::network_veth(task);
                    self.namespaces.values_mut().for_each(|namespace| namespace.forget_link(&end));
                }
                let is_inside = |end: &LinkEnd| end.0 == op.namespace;
                let pairs = self.pairs.iter().filter(|(o, i)| is_inside(o) || is_inside(i));
                for outer in pairs.map(|(o, _)| o.clone()).collect::<Vec<_>>() {
                    self.forget_pair(&outer);
                }
            }
            Change::AddVeth { name, link, inner, inner_name, inner_link } => {
                let outer = self.namespaces.get(&op.namespace);
                let inside = self.namespaces.get(inner);
                let (Some(outer), Some(inside)) = (outer, inside) else {
                    return Err(impossible(format!("{name} needs two namespaces")));
                };
                if outer.links.contains_key(name) || inside.links.contains_key(inner_name) {
                    return Err(impossible(format!("{name} or {inner_name} exists")));
                }
                let pair = ((op.namespace, name.clone()), (*inner, inner_name.clone()));
                self.pairs.insert(pair.0, pair.1);
                for (key, name, link) in [(op.namespace, name, link), (*inner, inner_name, inner_link)] {
                    let namespace = self.namespaces.entry(key).or_default();
                    namespace.forget_settings(name);
                    namespace.links.insert(name.clone(), fresh(link));
                }
            }
            _ => {
                if matches!(&op.change, Change::AddLink { link, .. } if link.kind == LinkKind::Macvlan)
                    && !self.host().links.contains_key(names::GATEWAY_INNER)
                {
                    return Err(impossible(format!("there is no {}", names::GATEWAY_INNER)));
                }
                let namespace = self.namespaces.get_mut(&op.namespace);
                let namespace = namespace.ok_or_else(|| impossible("it does not exist".into()))?;
                namespace.apply(&op.change).map_err(impossible)?;
                if let Change::DeleteLink { name } = &op.change {
                    self.forget_pair(&(op.namespace, name.clone()));
                    self.forget_gateway();
                }
            }
        }
        Ok(())
    }

    /// What stood on the gateway goes with it.
    fn forget_gateway(&mut self) {
        if self.host().links.contains_key(names::GATEWAY_INNER) {
            return;
        }
        for namespace in self.namespaces.values_mut() {
            let stands = namespace.links.iter().filter(|(_, l)| l.kind == LinkKind::Macvlan);
            let names: Vec<_> = stands.map(|(name, _)| name.clone()).collect();
            names.iter().for_each(|name| namespace.forget_link(name));
        }
    }

    /// A pair goes as a whole.
    fn forget_pair(&mut self, end: &LinkEnd) {
        let outer = match self.pairs.contains_key(end) {
            true => Some(end.clone()),
            false => self.pairs.iter().find(|(_, inner)| *inner == end).map(|(o, _)| o.clone()),
        };
        let Some(outer) = outer else { return };
        let Some(inner) = self.pairs.remove(&outer) else { return };
        for (key, name) in [outer, inner] {
            if let Some(namespace) = self.namespaces.get_mut(&key) {
                namespace.forget_link(&name);
            }
        }
    }
}

/// A link as it is when it was just made.
fn fresh(link: &Link) -> Link {
    Link { is_up: false, master: None, suppresses_neighbours: false, ..link.clone() }
}

impl Namespace {
    /// A namespace has a loopback device, which is down.
    pub fn new_born() -> Self {
        let mut namespace = Self::default();
        let loopback = Link { is_up: false, ..Link::new(LinkKind::Loopback, None, 65_536) };
        namespace.links.insert(names::LOOPBACK.into(), loopback);
        namespace
    }

    fn has_up(&self, device: &str) -> bool {
        self.links.get(device).is_some_and(|l| l.is_up)
    }

    /// Those of an interface say nothing of the next one of its name.
    fn forget_settings(&mut self, name: &str) {
        let settings = format!("/conf/{name}/");
        self.sysctls.retain(|setting, _| !setting.contains(&settings));
    }

    /// What goes with a device.
    fn forget_link(&mut self, name: &str) {
        if self.links.remove(name).is_none() {
            return;
        }
        self.forget_settings(name);
        self.addresses.retain(|(device, _)| device != name);
        self.routes.retain(|route| route.device != name);
        self.neighbours.retain(|(device, _), _| device != name);
        self.forwarding.retain(|(device, _), _| device != name);
        for port in self.links.values_mut().filter(|l| l.master.as_deref() == Some(name)) {
            port.master = None;
        }
        for table in self.tables.values_mut() {
            let is_bound =
                |c: &super::ruleset::Chain| c.hook.as_ref().is_some_and(|h| h.device.as_deref() == Some(name));
            if table.chains.values().any(is_bound) {
                Arc::make_mut(table).chains.retain(|_, chain| !is_bound(chain));
            }
        }
    }

    fn apply(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::SetSysctl { name, value } => {
                self.sysctls.insert(name.clone(), value.clone());
            }
            Change::AddLink { name, link } => {
                if self.links.contains_key(name) {
                    return Err(format!("{name} exists"));
                }
                self.forget_settings(name);
                self.links.insert(name.clone(), fresh(link));
            }
            Change::SetLink { name, link } => self.set_link(name, link)?,
            Change::DeleteLink { name } => {
                if !self.links.contains_key(name) {
                    return Err(format!("there is no {name}"));
                }
                self.forget_link(name);
            }
            Change::AddAddress { device, address } => {
                if !self.links.contains_key(device) {
                    return Err(format!("there is no {device}"));
                }
                self.addresses.insert((device.clone(), *address));
            }
            Change::DeleteAddress { device, address } => {
                if !self.addresses.remove(&(device.clone(), *address)) {
                    return Err(format!("{device} has no {address}"));
                }
            }
            Change::AddRoute(route) => {
                if !self.has_up(&route.device) {
                    return Err(format!("{} is not up", route.device));
                }
                self.routes.retain(|r| (r.table, r.to) != (route.table, route.to));
                self.routes.insert(route.clone());
            }
            Change::DeleteRoute(route) => {
                if !self.routes.remove(route) {
                    return Err(format!("{} has no such route", route.to));
                }
            }
            Change::AddRule(rule) => {
                self.rules.insert(rule.clone());
            }
            Change::DeleteRule(rule) => {
                if !self.rules.remove(rule) {
                    return Err(format!("there is no rule {}", rule.priority));
                }
            }
            Change::SetNeighbour { device, address, mac } => {
                if !self.has_up(device) {
                    return Err(format!("{device} is not up"));
                }
                self.neighbours.insert((device.clone(), *address), *mac);
            }
            Change::DeleteNeighbour { device, address } => {
                if self.neighbours.remove(&(device.clone(), *address)).is_none() {
                    return Err(format!("{device} has no neighbour {address}"));
                }
            }
            Change::SetForwarding { device, mac, to } => {
                if !self.links.contains_key(device) {
                    return Err(format!("there is no {device}"));
                }
                self.forwarding.insert((device.clone(), *mac), *to);
            }
            Change::DeleteForwarding { device, mac, .. } => {
                if self.forwarding.remove(&(device.clone(), *mac)).is_none() {
                    return Err(format!("{device} has no {mac}"));
                }
            }
            Change::Ruleset { changes, tables } => {
                // The tables are shared between sandboxes: following each step would copy them.
                if cfg!(test) {
                    self.follow(changes, tables)?;
                }
                for (name, table) in tables {
                    match table {
                        Some(table) => self.tables.insert(name.clone(), table.clone()),
                        None => self.tables.remove(name),
                    };
                }
            }
            Change::OpenForward(chain) => {
                self.opened.insert(chain.clone());
            }
            Change::CloseForward(chain) => {
                self.opened.remove(chain);
            }
            Change::FlushBackends(gone) => Arc::make_mut(&mut self.backends).retain(|b| !gone.contains(b)),
            Change::AddNamespace | Change::RemoveNamespace | Change::AddVeth { .. } => {
                return Err("not a change within one namespace".into());
            }
        }
        Ok(())
    }

    fn set_link(&mut self, name: &str, link: &Link) -> Result<(), String> {
        if let Some(master) = &link.master
            && !self.links.contains_key(master)
        {
            return Err(format!("there is no {master}"));
        }
        let is = self.links.get_mut(name).ok_or_else(|| format!("there is no {name}"))?;
        if is.kind != link.kind {
            return Err(format!("{name} is another kind of link"));
        }
        let has_new_mac = link.mac.is_some() && link.mac != is.mac;
        let goes_down = is.is_up && !link.is_up;
        *is = link.clone();
        // The kernel forgets even permanent neighbours when the device's own address changes.
        if has_new_mac || goes_down {
            self.neighbours.retain(|(device, _), _| device != name);
        }
        if goes_down {
            self.routes.retain(|route| route.device != name);
        }
        Ok(())
    }

    /// Whether the steps of a transaction are possible and lead where they should.
    fn follow(&self, changes: &[RulesetChange], tables: &[(TableName, Option<Arc<Table>>)]) -> Result<(), String> {
        let mut after = self.clone();
        changes.iter().try_for_each(|change| after.change_ruleset(change))?;
        after.check_references()?;
        match tables.iter().find(|(name, table)| after.tables.get(name) != table.as_ref()) {
            Some((name, _)) => Err(format!("the steps do not lead to table {name:?}")),
            None => Ok(()),
        }
    }

    fn table_mut(&mut self, name: &TableName) -> Result<&mut Table, String> {
        let table = self.tables.get_mut(name).ok_or_else(|| format!("no table {name:?}"))?;
        Ok(Arc::make_mut(table))
    }

    fn change_ruleset(&mut self, change: &RulesetChange) -> Result<(), String> {
        match change {
            RulesetChange::CreateTable { name, table } => {
                let devices = table.chains.values().filter_map(|c| c.hook.as_ref()?.device.as_ref());
                if let Some(device) = devices.into_iter().find(|d| !self.links.contains_key(*d)) {
                    return Err(format!("there is no {device}"));
                }
                if self.tables.insert(name.clone(), table.clone()).is_some() {
                    return Err(format!("table {name:?} exists"));
                }
            }
            RulesetChange::DeleteTable { name } => {
                self.tables.remove(name).ok_or_else(|| format!("no table {name:?}"))?;
            }
            RulesetChange::AddChain { table, name, chain } => {
                if self.table_mut(table)?.chains.insert(name.clone(), chain.clone()).is_some() {
                    return Err(format!("chain {name} exists"));
                }
            }
            RulesetChange::ReplaceRules { table, name, chain } => {
                let chains = &mut self.table_mut(table)?.chains;
                let is = chains.get_mut(name).ok_or_else(|| format!("no chain {name}"))?;
                is.rules.clone_from(&chain.rules);
            }
            RulesetChange::DeleteChain { table, name } => {
                let chains = &mut self.table_mut(table)?.chains;
                chains.remove(name).ok_or_else(|| format!("no chain {name}"))?;
            }
            RulesetChange::AddElements { table, set, elements } => {
                let sets = &mut self.table_mut(table)?.sets;
                let is = sets.get_mut(set).ok_or_else(|| format!("no set {set}"))?;
                for (key, value) in elements {
                    if is.elements.insert(key.clone(), value.clone()).is_some() {
                        return Err(format!("set {set} has {key:?}"));
                    }
                }
            }
            RulesetChange::DeleteElements { table, set, elements } => {
                let sets = &mut self.table_mut(table)?.sets;
                let is = sets.get_mut(set).ok_or_else(|| format!("no set {set}"))?;
                for key in elements.keys() {
                    is.elements.remove(key).ok_or_else(|| format!("set {set} has no {key:?}"))?;
                }
            }
            RulesetChange::InsertRules { .. } | RulesetChange::DeleteRules { .. } => {
                return Err("only in chains of others".into());
            }
        }
        Ok(())
    }

    /// No element may name a chain that does not exist.
    fn check_references(&self) -> Result<(), String> {
        for table in self.tables.values() {
            for (name, set) in &table.sets {
                for value in set.elements.values() {
                    if let Value::GoTo(chain) = value
                        && !table.chains.contains_key(chain)
                    {
                        return Err(format!("map {name} names chain {chain}"));
                    }
                }
            }
        }
        Ok(())
    }
}
