//! Groups that found no node: looked at again only on the nodes that changed since.
//!
//! A cache and nothing else: with or without it the decisions and their texts are the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rswarm_types::ServiceId;

use crate::cluster::{Cluster, Index};
use crate::explain::{Free, explain, most_free};
use crate::judge::{Reason, Wants};
use crate::request::Group;

/// A log longer than this many times the nodes is given up, and every group is judged anew.
const LOG_LENGTH_FACTOR: usize = 4;

#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    groups: BTreeMap<ServiceId, Waiting>,
    /// Groups of the current call.
    seen: BTreeSet<ServiceId>,
    /// Nodes in the order of their changes.
    log: Vec<Index>,
    /// How much of the log some group has read.
    read: usize,
}

#[derive(Clone, Debug)]
struct Waiting {
    wants: Wants,
    /// Length of the log when the group was last judged.
    judged: usize,
    /// Of every node, by its place.
    reasons: Vec<Reason>,
    /// The nodes that the text names for CPU and for memory.
    best: [Option<Free>; 2],
    explanation: Arc<str>,
}

impl Pending {
    /// Takes note that a node may now take what it did not take, or refuse it otherwise.
    pub fn node_changed(&mut self, at: Index, nodes: usize) {
        let is_noted = self.log.last() == Some(&at) && self.read < self.log.len();
        if self.groups.is_empty() || is_noted {
            return;
        }
        if self.log.len() > LOG_LENGTH_FACTOR * nodes.max(1_024) {
            self.clear();
            return;
        }
        self.log.push(at);
    }

    pub fn clear(&mut self) {
        self.groups.clear();
        self.log.clear();
        self.read = 0;
    }

    pub fn begin(&mut self) {
        self.seen.clear();
    }

    /// Forgets groups that were not asked for again.
    pub fn end(&mut self) {
        let seen = std::mem::take(&mut self.seen);
        self.groups.retain(|service, _| seen.contains(service));
        if self.groups.is_empty() {
            self.clear();
        }
    }

    /// The explanation if no changed node takes the group; else what it wants, if that is known.
    pub fn still_unplaced(&mut self, cluster: &Cluster, group: &Group) -> Result<Arc<str>, Option<Wants>> {
        // Several groups of one service (an update is under way) do not share a row.
        if !self.seen.insert(group.service) || !group.preassigned.is_empty() || group.tasks.is_empty() {
            return Err(None);
        }
        let Some(waiting) = self.groups.get_mut(&group.service) else { return Err(None) };
        let is_same = Arc::ptr_eq(&waiting.wants.spec, &group.spec) || waiting.wants.spec == group.spec;
        if !is_same {
            self.groups.remove(&group.service);
            return Err(None);
        }
        self.read = self.log.len();
        if waiting.is_still_refused(cluster, group.service, &self.log) {
            return Ok(Arc::clone(&waiting.explanation));
        }
        Err(self.groups.remove(&group.service).map(|waiting| waiting.wants))
    }

    /// Remembers a group that found no (further) node.
    pub fn insert(&mut self, cluster: &Cluster, service: ServiceId, wants: Wants) -> Arc<str> {
        let reasons = (0..).zip(&cluster.slots).map(|(at, slot)| {
            // Every node that would take a task has been given as many as it takes.
            wants.refused_by(slot, cluster.tasks_of(service, at)).unwrap_or(Reason::Gone)
        });
        let mut waiting = Waiting {
            reasons: reasons.collect(),
            wants,
            judged: self.log.len(),
            best: [None; 2],
            explanation: "".into(),
        };
        waiting.explain(cluster);
        let explanation = Arc::clone(&waiting.explanation);
        self.read = self.log.len();
        self.groups.insert(service, waiting);
        explanation
    }
}

impl Waiting {
    /// Judges the nodes that changed; false when one of them takes the group.
    fn is_still_refused(&mut self, cluster: &Cluster, service: ServiceId, log: &[Index]) -> bool {
        let mut is_stale = false;
        self.reasons.resize(cluster.slots.len(), Reason::Gone);
        for at in &log[self.judged..] {
            let slot = &cluster.slots[*at as usize];
            let Some(reason) = self.wants.refused_by(slot, cluster.tasks_of(service, *at)) else {
                return false;
            };
            let known = std::mem::replace(&mut self.reasons[*at as usize], reason);
            is_stale |= known != reason || self.is_other_best(cluster, *at, reason);
        }
        self.judged = log.len();
        if is_stale {
            self.explain(cluster);
        }
        true
    }

    /// Whether what is free on this node belongs into the text, or no longer does.
    fn is_other_best(&self, cluster: &Cluster, at: Index, reason: Reason) -> bool {
        let Some(free) = Free::of(cluster, at, reason) else { return false };
        let best = &self.best[usize::from(reason == Reason::Memory)];
        best.is_none_or(|best| if best.node == free.node { best != free } else { free > best })
    }

    fn explain(&mut self, cluster: &Cluster) {
        let refused: Vec<(Index, Reason)> = (0..).zip(self.reasons.iter().copied()).collect();
        self.explanation = explain(cluster, &self.wants, &refused);
        self.best = [Reason::Cpu, Reason::Memory].map(|reason| most_free(cluster, &refused, reason));
    }
}
