//! From what is to what should be, in an order that never drops a packet that both would carry,
//! and never lets through one that neither would.
//!
//! Filters before interfaces; routes and neighbours before the maps that send packets to them;
//! maps let go before what they pointed at goes. Each step is made against the world that the
//! steps before it leave ([`World::apply`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::desired::Desired;
use crate::model::ruleset::{Elements, RulesetChange, Table, TableName, Value};
use crate::model::{Change, Link, LinkKind, Namespace, NamespaceKey, Op, World, names};

/// The steps that turn `observed` into `desired`; none when it is so already.
pub fn diff(desired: &Desired, observed: &World) -> Vec<Op> {
    let Some(world) = part_that_differs(desired, observed) else { return Vec::new() };
    let mut plan = Plan { desired, world, ops: Vec::new(), table_changes: BTreeMap::new() };
    plan.guard_host();
    plan.add_namespaces(observed);
    let changed = plan.changed();
    for key in &changed {
        plan.add_links(*key);
    }
    for key in &changed {
        plan.add_veths(*key);
    }
    // The other ends of pairs that were made anew differ only now.
    let changed = plan.changed();
    for key in &changed {
        plan.set_sysctls(*key);
        plan.set_links(*key);
        plan.add_entries(*key);
    }
    for key in &changed {
        plan.switch_ruleset(*key);
    }
    for key in &changed {
        plan.flush_backends(*key);
    }
    plan.remove_namespaces();
    for key in &changed {
        plan.remove_entries(*key);
    }
    plan.ops
}

/// What a plan must know of the world: not the sandboxes that are as they should be. `None` when
/// everything is.
fn part_that_differs(desired: &Desired, observed: &World) -> Option<World> {
    let wanted = &desired.world.namespaces;
    let differs = |key: &NamespaceKey, is: &Namespace| match wanted.get(key) {
        Some(want) => want != is,
        None => *key != NamespaceKey::Host && !desired.untouched.contains(key),
    };
    let is_missing = |key: &NamespaceKey| !observed.namespaces.contains_key(key);
    if !wanted.keys().any(is_missing) && !observed.namespaces.iter().any(|(key, is)| differs(key, is)) {
        return None;
    }
    let is_shared = |key: &NamespaceKey| !matches!(key, NamespaceKey::Sandbox(_));
    let namespaces = observed.namespaces.iter().filter(|(key, is)| is_shared(key) || differs(key, is));
    let mut world =
        World { namespaces: namespaces.map(|(key, is)| (*key, is.clone())).collect(), pairs: BTreeMap::new() };
    let has = |key: &NamespaceKey| world.namespaces.contains_key(key);
    let pairs = observed.pairs.iter().filter(|(_, inner)| has(&inner.0));
    world.pairs = pairs.map(|(outer, inner)| (outer.clone(), inner.clone())).collect();
    world.assume_pairs(desired.pairs());
    Some(world)
}

struct Plan<'a> {
    desired: &'a Desired,
    /// As the steps so far leave it.
    world: World,
    ops: Vec<Op>,
    /// Steps from one shared table to another, by their addresses: many sandboxes take the same.
    table_changes: BTreeMap<(usize, usize), Steps>,
}

/// The two tables, held so that their addresses stay theirs, and what leads from one to the other.
struct Steps {
    _tables: [Option<Arc<Table>>; 2],
    changes: Vec<RulesetChange>,
}

impl<'a> Plan<'a> {
    fn push(&mut self, namespace: NamespaceKey, change: Change) {
        let op = Op { namespace, change };
        let applied = self.world.apply(&op);
        // A plan that the model refuses is a bug here; the kernel's refusal will name the step.
        debug_assert!(applied.is_ok(), "{applied:?} at {op:?}");
        self.ops.push(op);
    }

    fn wanted(&self, key: NamespaceKey) -> &'a Namespace {
        static EMPTY: std::sync::LazyLock<Namespace> = std::sync::LazyLock::new(Namespace::default);
        self.desired.world.namespaces.get(&key).unwrap_or(&EMPTY)
    }

    fn is(&self, key: NamespaceKey) -> &Namespace {
        static EMPTY: std::sync::LazyLock<Namespace> = std::sync::LazyLock::new(Namespace::default);
        self.world.namespaces.get(&key).unwrap_or(&EMPTY)
    }

    /// Namespaces that stay and differ.
    fn changed(&self) -> Vec<NamespaceKey> {
        let stay = self.world.namespaces.iter().filter_map(|(key, is)| {
            let want = self.desired.world.namespaces.get(key)?;
            (want != is).then_some(*key)
        });
        stay.collect()
    }

    /// The host's filters stand before anything can pass them.
    fn guard_host(&mut self) {
        let name = names::host_table();
        let want = self.wanted(NamespaceKey::Host).tables.get(&name);
        let Some(want) = want else { return };
        let is = self.world.host().tables.get(&name);
        if is.is_none_or(|is| !has_same_frame(want, is)) {
            self.switch_tables(NamespaceKey::Host, &[name]);
        }
    }

    fn add_namespaces(&mut self, observed: &World) {
        for key in self.desired.world.namespaces.keys() {
            if !observed.namespaces.contains_key(key) {
                self.push(*key, Change::AddNamespace);
            }
        }
    }

    /// Bridges and VXLAN devices.
    fn add_links(&mut self, key: NamespaceKey) {
        for (name, link) in &self.wanted(key).links {
            if matches!(link.kind, LinkKind::Bridge | LinkKind::Vxlan { .. }) {
                self.add_link(key, name, link);
            }
        }
    }

    fn add_link(&mut self, key: NamespaceKey, name: &str, link: &Link) {
        match self.is(key).links.get(name) {
            Some(is) if is.kind == link.kind => return,
            Some(_) => self.push(key, Change::DeleteLink { name: name.to_owned() }),
            None => {}
        }
        self.push(key, Change::AddLink { name: name.to_owned(), link: link.clone() });
    }

    /// Interface pairs by their inner ends, and what stands on the gateway's.
    fn add_veths(&mut self, key: NamespaceKey) {
        for (inner_name, inner_link) in &self.wanted(key).links {
            if inner_link.kind == LinkKind::Macvlan {
                self.add_link(key, inner_name, inner_link);
            }
            let Some((outer, name)) = self.desired.veths.get(&(key, inner_name.clone())) else { continue };
            let pair = self.world.pairs.get(&(*outer, name.clone()));
            if pair == Some(&(key, inner_name.clone())) {
                continue;
            }
            // Half a pair is no pair.
            if self.is(*outer).links.contains_key(name) {
                self.push(*outer, Change::DeleteLink { name: name.clone() });
            }
            if self.is(key).links.contains_key(inner_name) {
                self.push(key, Change::DeleteLink { name: inner_name.clone() });
            }
            let Some(link) = self.wanted(*outer).links.get(name) else { continue };
            let change = Change::AddVeth {
                name: name.clone(),
                link: link.clone(),
                inner: key,
                inner_name: inner_name.clone(),
                inner_link: inner_link.clone(),
            };
            self.push(*outer, change);
        }
    }

    /// Before interfaces go up.
    fn set_sysctls(&mut self, key: NamespaceKey) {
        // A host that forwards forgets the routes that it took from routers, unless it was told before.
        let wanted = self.wanted(key).sysctls.iter();
        let (last, first): (Vec<_>, Vec<_>) = wanted.partition(|(name, _)| name.ends_with("/forwarding"));
        for (name, value) in first.into_iter().chain(last) {
            if self.is(key).sysctls.get(name) != Some(value) {
                let (name, value) = (name.clone(), value.clone());
                self.push(key, Change::SetSysctl { name, value });
            }
        }
    }

    /// Bridges before their ports.
    fn set_links(&mut self, key: NamespaceKey) {
        let wanted = self.wanted(key).links.iter();
        let (ports, bridges): (Vec<_>, Vec<_>) = wanted.partition(|(_, l)| l.master.is_some());
        for (name, link) in bridges.into_iter().chain(ports) {
            let is = self.is(key).links.get(name);
            if is.is_some_and(|is| is != link && is.kind == link.kind) {
                self.push(key, Change::SetLink { name: name.clone(), link: link.clone() });
            }
        }
    }

    fn add_entries(&mut self, key: NamespaceKey) {
        let want = self.wanted(key);
        for (device, address) in want.addresses.difference(&self.is(key).addresses.clone()) {
            let (device, address) = (device.clone(), *address);
            self.push(key, Change::AddAddress { device, address });
        }
        for ((device, mac), to) in &want.forwarding {
            if self.is(key).forwarding.get(&(device.clone(), *mac)) != Some(to) {
                let (device, mac, to) = (device.clone(), *mac, *to);
                self.push(key, Change::SetForwarding { device, mac, to });
            }
        }
        for ((device, address), mac) in &want.neighbours {
            if self.is(key).neighbours.get(&(device.clone(), *address)) != Some(mac) {
                let (device, address, mac) = (device.clone(), *address, *mac);
                self.push(key, Change::SetNeighbour { device, address, mac });
            }
        }
        // On-link ones first: a gateway is reached over them.
        let missing = want.routes.difference(&self.is(key).routes).cloned();
        let (far, near): (Vec<_>, Vec<_>) = missing.partition(|r| r.via.is_some());
        for route in near.into_iter().chain(far) {
            self.push(key, Change::AddRoute(route));
        }
        for rule in want.rules.difference(&self.is(key).rules.clone()) {
            self.push(key, Change::AddRule(rule.clone()));
        }
        for chain in want.opened.difference(&self.is(key).opened.clone()) {
            self.push(key, Change::OpenForward(chain.clone()));
        }
    }

    fn switch_ruleset(&mut self, key: NamespaceKey) {
        let (want, is) = (self.wanted(key), self.is(key));
        let names: BTreeSet<TableName> = want.tables.keys().chain(is.tables.keys()).cloned().collect();
        let names: Vec<_> = names.into_iter().filter(|name| !is_last(key, name, want)).collect();
        self.switch_tables(key, &names);
    }

    /// Makes these tables as they should be, in one transaction.
    fn switch_tables(&mut self, key: NamespaceKey, names: &[TableName]) {
        let (mut changes, mut tables) = (Vec::new(), Vec::new());
        for name in names {
            let want = self.wanted(key).tables.get(name);
            let is = self.world.namespaces.get(&key).and_then(|n| n.tables.get(name));
            let address = |table: Option<&Arc<Table>>| table.map_or(0, |t| Arc::as_ptr(t).addr());
            let known = self.table_changes.entry((address(is), address(want)));
            let steps = known.or_insert_with(|| Steps {
                _tables: [is.cloned(), want.cloned()],
                changes: table_changes(name, want, is),
            });
            if !steps.changes.is_empty() {
                changes.extend(steps.changes.iter().cloned());
                tables.push((name.clone(), want.cloned()));
            }
        }
        if !changes.is_empty() {
            self.push(key, Change::Ruleset { changes, tables });
        }
    }

    fn flush_backends(&mut self, key: NamespaceKey) {
        let gone: BTreeSet<_> = self.is(key).backends.difference(&self.wanted(key).backends).copied().collect();
        if !gone.is_empty() {
            self.push(key, Change::FlushBackends(gone));
        }
    }

    /// Sandboxes first: their interfaces go with them.
    fn remove_namespaces(&mut self) {
        let is_wanted = |key: &NamespaceKey| {
            self.desired.world.namespaces.contains_key(key) || self.desired.untouched.contains(key)
        };
        let gone = self.world.namespaces.keys().filter(|key| !is_wanted(key) && **key != NamespaceKey::Host);
        let gone: Vec<_> = gone.copied().collect();
        for key in gone.into_iter().rev() {
            let has_vxlan = self.is(key).links.contains_key(names::VXLAN);
            if matches!(key, NamespaceKey::Network(_)) && has_vxlan {
                // The segment is free at once, not when the namespace is swept.
                self.push(key, Change::DeleteLink { name: names::VXLAN.into() });
            }
            self.push(key, Change::RemoveNamespace);
        }
    }

    fn remove_entries(&mut self, key: NamespaceKey) {
        let want = self.wanted(key);
        for rule in self.is(key).rules.clone().difference(&want.rules) {
            self.push(key, Change::DeleteRule(rule.clone()));
        }
        for route in self.is(key).routes.clone().difference(&want.routes) {
            self.push(key, Change::DeleteRoute(route.clone()));
        }
        for chain in self.is(key).opened.clone().difference(&want.opened) {
            self.push(key, Change::CloseForward(chain.clone()));
        }
        // What else is in a sandbox may be the container's own.
        if !matches!(key, NamespaceKey::Sandbox(_)) {
            self.remove_addresses(key);
            self.remove_links(key);
        }
        let name = names::host_table();
        if is_last(key, &name, want) && self.is(key).tables.contains_key(&name) {
            self.switch_tables(key, &[name]);
        }
    }

    fn remove_addresses(&mut self, key: NamespaceKey) {
        let want = self.wanted(key);
        for (device, address) in self.is(key).neighbours.clone().into_keys() {
            if !want.neighbours.contains_key(&(device.clone(), address)) {
                self.push(key, Change::DeleteNeighbour { device, address });
            }
        }
        for ((device, mac), to) in self.is(key).forwarding.clone() {
            if !want.forwarding.contains_key(&(device.clone(), mac)) {
                self.push(key, Change::DeleteForwarding { device, mac, to });
            }
        }
        for (device, address) in self.is(key).addresses.clone().difference(&want.addresses) {
            let (device, address) = (device.clone(), *address);
            self.push(key, Change::DeleteAddress { device, address });
        }
    }

    /// Ports before their bridge.
    fn remove_links(&mut self, key: NamespaceKey) {
        let want = self.wanted(key);
        let is = self.is(key).links.iter();
        let extra = is.filter(|(name, l)| !want.links.contains_key(*name) && l.kind != LinkKind::Loopback);
        let (ports, bridges): (Vec<_>, Vec<_>) =
            extra.map(|(name, l)| (name.clone(), l.clone())).partition(|(_, l)| l.master.is_some());
        for (name, _) in ports.into_iter().chain(bridges) {
            // The other end of a pair takes it along.
            if self.is(key).links.contains_key(&name) {
                self.push(key, Change::DeleteLink { name });
            }
        }
    }
}

/// The host's filters go after what they guard.
fn is_last(key: NamespaceKey, name: &TableName, want: &Namespace) -> bool {
    key == NamespaceKey::Host && *name == names::host_table() && !want.tables.contains_key(name)
}

/// The steps of a transaction that turn one table into another.
fn table_changes(name: &TableName, want: Option<&Arc<Table>>, is: Option<&Arc<Table>>) -> Vec<RulesetChange> {
    let create = |table: &Arc<Table>| RulesetChange::CreateTable { name: name.clone(), table: table.clone() };
    let delete = || RulesetChange::DeleteTable { name: name.clone() };
    match (want, is) {
        (None, None) => Vec::new(),
        (Some(want), None) => vec![create(want)],
        (None, Some(_)) => vec![delete()],
        (Some(want), Some(is)) if Arc::ptr_eq(want, is) || want == is => Vec::new(),
        (Some(want), Some(is)) if has_same_frame(want, is) => inner_changes(name, want, is),
        (Some(want), Some(_)) => vec![delete(), create(want)],
    }
}

/// The same sets and base chains: what differs can be changed in place.
fn has_same_frame(want: &Table, is: &Table) -> bool {
    let shapes = |table: &Table| -> BTreeMap<String, _> {
        table.sets.iter().map(|(name, set)| (name.clone(), set.shape)).collect()
    };
    let hooks = |table: &Table| -> BTreeMap<String, _> {
        let based = table.chains.iter().filter(|(_, c)| c.hook.is_some());
        based.map(|(name, chain)| (name.clone(), chain.hook.clone())).collect()
    };
    shapes(want) == shapes(is) && hooks(want) == hooks(is)
}

/// Chains, then elements that may name them, then chains that nobody names any more.
fn inner_changes(name: &TableName, want: &Table, is: &Table) -> Vec<RulesetChange> {
    let mut changes = Vec::new();
    for (chain_name, chain) in &want.chains {
        let (table, name, chain) = (name.clone(), chain_name.clone(), chain.clone());
        match is.chains.get(chain_name) {
            None => changes.push(RulesetChange::AddChain { table, name, chain }),
            Some(is) if is.rules != chain.rules => {
                changes.push(RulesetChange::ReplaceRules { table, name, chain });
            }
            Some(_) => {}
        }
    }
    for (set, wanted) in &want.sets {
        let Some(is) = is.sets.get(set) else { continue };
        let gone = difference(&is.elements, &wanted.elements);
        let new = difference(&wanted.elements, &is.elements);
        let (table, set) = (name.clone(), set.clone());
        if !gone.is_empty() {
            let (table, set) = (table.clone(), set.clone());
            changes.push(RulesetChange::DeleteElements { table, set, elements: gone });
        }
        if !new.is_empty() {
            changes.push(RulesetChange::AddElements { table, set, elements: new });
        }
    }
    for chain_name in is.chains.keys().filter(|c| !want.chains.contains_key(*c)) {
        let (table, name) = (name.clone(), chain_name.clone());
        changes.push(RulesetChange::DeleteChain { table, name });
    }
    changes
}

/// Elements of the one that the other lacks or has with another value.
fn difference(one: &Elements, other: &Elements) -> Elements {
    let differs = |(key, value): &(&Vec<u8>, &Value)| other.get(*key) != Some(*value);
    one.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
}
