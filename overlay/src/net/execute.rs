//! Doing the steps of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;

use super::kernel::{Kernel, KernelError, open_sockets};
use super::{messages, namespaces, readings};
use crate::desired::rules;
use crate::model::ruleset::RulesetChange;
use crate::model::{Change, ForeignChain, Link, LinkKind, NamespaceKey, Op, Route, names};
use crate::netlink::{Message, NetlinkError};
use crate::nfnl::{conntrack, dump, transaction};

/// A step that failed.
#[derive(Debug)]
pub struct Failure {
    pub namespace: NamespaceKey,
    pub reason: String,
}

impl Kernel {
    /// Does the steps in order. A step that fails is reported; those that build on it are not
    /// tried, the others are. `done` hears of each step that took effect.
    pub fn execute(&mut self, ops: &[Op], mut done: impl FnMut(&Op)) -> Vec<Failure> {
        let mut run = Run { failures: BTreeMap::new(), broken: BTreeSet::new() };
        let mut at = 0;
        while at < ops.len() {
            let batch = self.batch(ops, at, &run);
            let (taken, result) = batch;
            for (offset, outcome) in result.into_iter().enumerate() {
                let op = &ops[at + offset];
                match outcome {
                    Outcome::Done => done(op),
                    Outcome::Skipped => {}
                    Outcome::Failed(error) => run.fail(op, &error),
                }
            }
            at += taken;
        }
        run.failures.into_iter().map(|(namespace, reason)| Failure { namespace, reason }).collect()
    }

    /// Does the step at `at`, and with it those after it that fit one rtnetlink request.
    fn batch(&mut self, ops: &[Op], at: usize, run: &Run) -> (usize, Vec<Outcome>) {
        let key = ops[at].namespace;
        let mut requests = Vec::new();
        let mut owners = Vec::new();
        let mut outcomes = Vec::new();
        for op in &ops[at..] {
            if op.namespace != key || !is_entry(&op.change) {
                break;
            }
            if run.is_broken(op) {
                outcomes.push(Outcome::Skipped);
                continue;
            }
            match self.entry_requests(key, &op.change) {
                Ok(messages) => {
                    owners.extend(messages.iter().map(|_| outcomes.len()));
                    requests.extend(messages);
                    outcomes.push(Outcome::Done);
                }
                Err(error) => outcomes.push(outcome(op, Err(error))),
            }
        }
        if outcomes.is_empty() {
            let op = &ops[at];
            let result = if run.is_broken(op) { Outcome::Skipped } else { outcome(op, self.step(op)) };
            return (1, vec![result]);
        }
        let sent = self.route_socket(key).map(|socket| socket.request(&requests));
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(refusals)) => {
                for error in refusals {
                    // Without a position the request did not get through at all: the first says so.
                    let position = match &error {
                        NetlinkError::Refused { position, .. } => *position,
                        _ => 0,
                    };
                    let owner = owners.get(position).copied().unwrap_or(0);
                    let result = outcome(&ops[at + owner], Err(error.into()));
                    if matches!(result, Outcome::Failed(_)) {
                        outcomes[owner] = result;
                    }
                }
            }
            Err(error) => {
                let text = format!("{}", Chain(&error));
                let failed = |_: &Outcome| Outcome::Failed(text.clone());
                outcomes = outcomes.iter().map(failed).collect();
            }
        }
        (outcomes.len(), outcomes)
    }

    fn index(&mut self, key: NamespaceKey, name: &str) -> Result<u32, KernelError> {
        if let Some(index) = self.opened(key)?.indexes.get(name) {
            return Ok(*index);
        }
        let found = readings::index(self.route_socket(key)?, name)?;
        let index = found.ok_or_else(|| KernelError::NoInterface(name.to_owned()))?;
        self.opened(key)?.indexes.insert(name.to_owned(), index);
        Ok(index)
    }

    /// The rtnetlink requests of a change that needs nothing else.
    fn entry_requests(&mut self, key: NamespaceKey, change: &Change) -> Result<Vec<Message>, KernelError> {
        let is_port = matches!(key, NamespaceKey::Network(_));
        let route_index = |this: &mut Self, route: &Route| this.index(key, &route.device);
        Ok(match change {
            Change::SetLink { name, link } => {
                let index = self.index(key, name)?;
                let master = link.master.as_ref().map_or(Ok(0), |m| self.index(key, m))?;
                messages::set_link(index, link, master)
            }
            Change::AddAddress { device, address } => {
                vec![messages::add_address(self.index(key, device)?, *address)]
            }
            Change::DeleteAddress { device, address } => {
                vec![messages::delete_address(self.index(key, device)?, *address)]
            }
            Change::AddRoute(route) => vec![messages::add_route(route, route_index(self, route)?)],
            Change::DeleteRoute(route) => {
                vec![messages::delete_route(route, route_index(self, route)?)]
            }
            Change::AddRule(rule) => vec![messages::add_rule(rule)],
            Change::DeleteRule(rule) => vec![messages::delete_rule(rule)],
            Change::SetNeighbour { device, address, mac } => {
                vec![messages::set_neighbour(self.index(key, device)?, *address, *mac)]
            }
            Change::DeleteNeighbour { device, address } => {
                vec![messages::delete_neighbour(self.index(key, device)?, *address)]
            }
            Change::SetForwarding { device, mac, to } => {
                messages::set_forwarding(self.index(key, device)?, *mac, *to, is_port)
            }
            Change::DeleteForwarding { device, mac, to } => {
                messages::delete_forwarding(self.index(key, device)?, *mac, *to, is_port)
            }
            _ => Vec::new(),
        })
    }

    /// Makes a device from the host's namespace, where a VXLAN's UDP socket stays.
    fn add_link(&mut self, key: NamespaceKey, name: &str, link: &Link) -> Result<(), KernelError> {
        let file = self.file(key)?;
        let base = match link.kind {
            LinkKind::Macvlan => Some(self.index(NamespaceKey::Host, names::GATEWAY_INNER)?),
            _ => None,
        };
        let request: Vec<_> = messages::add_link(name, link, base, file.as_fd()).into_iter().collect();
        self.route_socket(NamespaceKey::Host)?.request(&request).map_err(first)
    }

    /// A change that is not a mere entry.
    fn step(&mut self, op: &Op) -> Result<(), KernelError> {
        let key = op.namespace;
        match &op.change {
            Change::AddNamespace => self.add_namespace(key),
            Change::RemoveNamespace => {
                self.open.remove(&key);
                let pin = self.pin(key);
                namespaces::remove(&pin).map_err(|e| KernelError::Io(format!("cannot unmount {}", pin.display()), e))
            }
            Change::SetSysctl { name, value } => {
                let (name, value) = (name.clone(), value.clone());
                self.enter(key, move || namespaces::write_sysctl(&name, &value))
            }
            Change::AddLink { name, link } => {
                self.opened(key)?.indexes.remove(name);
                if key == NamespaceKey::Host {
                    return self.add_link(key, name, link);
                }
                // Kernels before 6.15 refuse a name that an interface has where the request is made: the host may
                // well have an eth0 or a br0 of its own.
                let unnamed = readings::index(self.route_socket(key)?, names::UNNAMED)?;
                let leftover: Vec<_> = unnamed.map(messages::delete_link).into_iter().collect();
                self.route_socket(key)?.request(&leftover).map_err(first)?;
                self.add_link(key, names::UNNAMED, link)?;
                let made = readings::index(self.route_socket(key)?, names::UNNAMED)?;
                let made = made.ok_or_else(|| KernelError::NoInterface(names::UNNAMED.into()))?;
                self.route_socket(key)?.request(&[messages::rename_link(made, name)]).map_err(first)
            }
            Change::AddVeth { name, link, inner, inner_name, inner_link } => {
                self.opened(*inner)?.indexes.remove(inner_name);
                self.opened(key)?.indexes.remove(name);
                let file = self.file(*inner)?;
                let request = messages::add_veth(name, link, inner_name, inner_link, file.as_fd());
                let made = self.route_socket(key)?.request(std::slice::from_ref(&request));
                match made.map_err(first) {
                    // The kernel is still taking down a sandbox that this one replaces.
                    Err(KernelError::Netlink(error)) if error.errno() == Some(libc::EEXIST) => {
                        let index = self.index(key, name)?;
                        self.opened(key)?.indexes.remove(name);
                        let socket = self.route_socket(key)?;
                        // It may be gone by now.
                        let _ = socket.request(&[messages::delete_link(index)]);
                        socket.request(&[request]).map_err(first)
                    }
                    made => made,
                }
            }
            Change::DeleteLink { name } => {
                let index = self.index(key, name)?;
                self.opened(key)?.indexes.remove(name);
                self.route_socket(key)?.request(&[messages::delete_link(index)]).map_err(first)
            }
            Change::Ruleset { changes, .. } => self.commit(key, changes),
            Change::OpenForward(chain) => {
                let rules = rules::forward_accepts();
                let mut changes = self.close_forward(key, chain)?;
                changes.push(RulesetChange::InsertRules {
                    table: chain.table.clone(),
                    chain: chain.chain.clone(),
                    rules,
                });
                self.commit(key, &changes)
            }
            Change::CloseForward(chain) => {
                let changes = self.close_forward(key, chain)?;
                if changes.is_empty() { Ok(()) } else { self.commit(key, &changes) }
            }
            Change::FlushBackends(gone) => {
                let flushed = conntrack::flush(&mut self.opened(key)?.netfilter, gone)?;
                if flushed > 0 {
                    tracing::debug!(namespace = %key, flushed, "connections of gone backends ended");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn add_namespace(&mut self, key: NamespaceKey) -> Result<(), KernelError> {
        let pin = self.pin(key);
        let made = namespaces::create(&pin, || {
            match key {
                NamespaceKey::Network(_) => namespaces::set_up_network()?,
                _ => namespaces::set_up_sandbox()?,
            }
            open_sockets().map_err(io::Error::other)
        });
        let open = made.map_err(|e| KernelError::Io("cannot make a namespace".into(), e))?;
        self.open.insert(key, open);
        Ok(())
    }

    fn close_forward(&mut self, key: NamespaceKey, of: &ForeignChain) -> Result<Vec<RulesetChange>, KernelError> {
        let forward = dump::forward_chains(&mut self.opened(key)?.netfilter, &names::tables(key))?;
        let ours = forward.opened.get(of).into_iter().flatten();
        let handles: Vec<_> = ours.map(|(handle, _)| *handle).collect();
        if handles.is_empty() {
            return Ok(Vec::new());
        }
        let (table, chain) = (of.table.clone(), of.chain.clone());
        Ok(vec![RulesetChange::DeleteRules { table, chain, handles }])
    }

    fn commit(&mut self, key: NamespaceKey, changes: &[RulesetChange]) -> Result<(), KernelError> {
        let open = self.opened(key)?;
        let generation = match open.generation {
            Some(generation) => generation,
            None => transaction::generation(&mut open.netfilter)?,
        };
        match transaction::commit(&mut open.netfilter, generation, changes) {
            Ok(next) => {
                open.generation = Some(next);
                Ok(())
            }
            Err(error) => {
                open.generation = None;
                let is_race = error.errno() == Some(ERESTART);
                Err(if is_race { KernelError::RulesetRace } else { error.into() })
            }
        }
    }
}

/// Not for user space otherwise, and so not in `libc`.
const ERESTART: i32 = 85;

/// Failures so far, the first of each namespace.
struct Run {
    failures: BTreeMap<NamespaceKey, String>,
    /// Namespaces in which something is missing that later steps build on.
    broken: BTreeSet<NamespaceKey>,
}

impl Run {
    fn fail(&mut self, op: &Op, reason: &str) {
        // A pair that fails is the sandbox's loss.
        let key = match &op.change {
            Change::AddVeth { inner, .. } => *inner,
            _ => op.namespace,
        };
        self.failures.entry(key).or_insert_with(|| format!("{}: {reason}", describe(&op.change)));
        let is_base = matches!(op.change, Change::AddNamespace | Change::AddLink { .. } | Change::AddVeth { .. });
        if is_base && key != NamespaceKey::Host {
            self.broken.insert(key);
        }
    }

    fn is_broken(&self, op: &Op) -> bool {
        let inner = match &op.change {
            Change::AddVeth { inner, .. } => Some(inner),
            _ => None,
        };
        self.broken.contains(&op.namespace) || inner.is_some_and(|k| self.broken.contains(k))
    }
}

enum Outcome {
    Done,
    Skipped,
    Failed(String),
}

/// An error and its causes, on one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            // A message may already hold its cause.
            let next = error.to_string();
            if !text.contains(&next) {
                write!(f, ": {next}")?;
            }
            text = next;
            cause = error.source();
        }
        Ok(())
    }
}

/// What is gone already need not go, and what is there need not come.
fn outcome(op: &Op, result: Result<(), KernelError>) -> Outcome {
    let error = match result {
        Ok(()) => return Outcome::Done,
        Err(error) => error,
    };
    let errno = match &error {
        KernelError::Netlink(error) => error.errno(),
        KernelError::NoInterface(_) => Some(libc::ENODEV),
        _ => None,
    };
    let is_gone = matches!(errno, Some(libc::ENOENT | libc::ENODEV | libc::ESRCH | libc::EADDRNOTAVAIL));
    let is_removal = matches!(
        op.change,
        Change::DeleteLink { .. }
            | Change::DeleteAddress { .. }
            | Change::DeleteRoute(_)
            | Change::DeleteRule(_)
            | Change::DeleteNeighbour { .. }
            | Change::DeleteForwarding { .. }
    );
    if is_removal && is_gone {
        return Outcome::Done;
    }
    if matches!(op.change, Change::AddRule(_)) && errno == Some(libc::EEXIST) {
        return Outcome::Done;
    }
    Outcome::Failed(Chain(&error).to_string())
}

/// Whether the change is one that rtnetlink does in a batch.
fn is_entry(change: &Change) -> bool {
    matches!(
        change,
        Change::SetLink { .. }
            | Change::AddAddress { .. }
            | Change::DeleteAddress { .. }
            | Change::AddRoute(_)
            | Change::DeleteRoute(_)
            | Change::AddRule(_)
            | Change::DeleteRule(_)
            | Change::SetNeighbour { .. }
            | Change::DeleteNeighbour { .. }
            | Change::SetForwarding { .. }
            | Change::DeleteForwarding { .. }
    )
}

/// The step, for people.
fn describe(change: &Change) -> String {
    match change {
        Change::AddNamespace => "make the namespace".into(),
        Change::RemoveNamespace => "remove the namespace".into(),
        Change::SetSysctl { name, value } => format!("set {name} to {value}"),
        Change::AddLink { name, .. } => format!("add interface {name}"),
        Change::AddVeth { name, inner_name, .. } => format!("add interfaces {name} and {inner_name}"),
        Change::SetLink { name, .. } => format!("set up interface {name}"),
        Change::DeleteLink { name } => format!("delete interface {name}"),
        Change::AddAddress { device, address } | Change::DeleteAddress { device, address } => {
            format!("address {address} of {device}")
        }
        Change::AddRoute(route) | Change::DeleteRoute(route) => {
            format!("route to {} by {}", route.to, route.device)
        }
        Change::AddRule(rule) | Change::DeleteRule(rule) => {
            format!("routing rule {}", rule.priority)
        }
        Change::SetNeighbour { address, .. } | Change::DeleteNeighbour { address, .. } => {
            format!("neighbour {address}")
        }
        Change::SetForwarding { mac, to, .. } | Change::DeleteForwarding { mac, to, .. } => {
            format!("forwarding of {mac} to {to}")
        }
        Change::Ruleset { .. } => "change the nftables ruleset".into(),
        Change::OpenForward(chain) | Change::CloseForward(chain) => {
            format!("rules in chain {} of table {} {}", chain.chain, chain.table.family.name(), chain.table.name)
        }
        Change::FlushBackends(_) => "end connections of gone backends".into(),
    }
}

fn first(mut refusals: Vec<NetlinkError>) -> KernelError {
    match refusals.is_empty() {
        true => KernelError::Netlink(NetlinkError::Malformed("a refusal without a reason")),
        false => refusals.swap_remove(0).into(),
    }
}
