//! The choice: fewest recent failures, then fewest tasks of the service, then fewest tasks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use rswarm_types::limits::{FAULT_THRESHOLD, FAULT_WINDOW_MS};
use rswarm_types::{NodeId, TaskId, TimestampMs};

use crate::cluster::{Cluster, Index};
use crate::explain;
use crate::judge::Wants;
use crate::request::{Decision, Group, Outcome};
use crate::spread;

/// How good a node is for the next task of a group: less is better.
///
/// Failures count only from [`FAULT_THRESHOLD`] on; else they are zero here.
pub(crate) type Rank = (usize, u64, u64, NodeId, Index);

/// Nodes that take a task, the best on top.
pub(crate) type Heap = BinaryHeap<Reverse<Rank>>;

/// A group while it is placed.
pub(crate) struct Pass<'a> {
    pub group: &'a Group,
    pub wants: &'a Wants,
    /// Nodes that are the last choice, with their recent failures.
    pub faulty: BTreeMap<Index, usize>,
}

impl Pass<'_> {
    pub fn rank(&self, cluster: &Cluster, at: Index) -> Rank {
        let slot = &cluster.slots[at as usize];
        let failures = self.faulty.get(&at).copied().unwrap_or_default();
        (failures, cluster.tasks_of(self.group.service, at), slot.wanted, slot.id, at)
    }

    pub fn takes(&self, cluster: &Cluster, at: Index) -> bool {
        let running = cluster.tasks_of(self.group.service, at);
        self.wants.refused_by(&cluster.slots[at as usize], running).is_none()
    }

    pub fn takes_again(&self, cluster: &Cluster, at: Index) -> bool {
        let running = cluster.tasks_of(self.group.service, at);
        self.wants.refused_again_by(&cluster.slots[at as usize], running).is_none()
    }

    pub fn place(&self, cluster: &mut Cluster, task: TaskId, at: Index) {
        cluster.place(task, self.group.service, &self.group.spec, at);
    }
}

impl Cluster {
    /// Decides on every task of the groups, in order. Give all pending groups each time: those that
    /// found no node are looked at again only where a node changed.
    ///
    /// Placed tasks are counted from here on, so that later groups see them, and are not decided
    /// on again. Once the entry with
    /// these decisions is applied, or given up, call [`Self::upsert_task`] for each placed task with
    /// what the state says of it.
    pub fn schedule(&mut self, groups: &[Group], now: TimestampMs) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(groups.iter().map(|g| g.tasks.len() + g.preassigned.len()).sum());
        let mut pending = std::mem::take(&mut self.pending);
        pending.begin();
        for group in groups {
            let wants = match pending.still_unplaced(self, group) {
                Ok(explanation) => {
                    let tasks = group.tasks.iter().filter(|task| !self.is_counted(**task));
                    decisions.extend(tasks.map(|task| unplaced(*task, &explanation)));
                    continue;
                }
                Err(wants) => wants.unwrap_or_else(|| Wants::new(&group.spec)),
            };
            // Changes that this group makes are noted for the groups that still wait.
            self.pending = pending;
            let left = self.schedule_group(group, &wants, now, &mut decisions);
            pending = std::mem::take(&mut self.pending);
            if !left.is_empty() {
                let explanation = pending.insert(self, group.service, wants);
                decisions.extend(left.iter().map(|task| unplaced(*task, &explanation)));
            }
        }
        pending.end();
        self.pending = pending;
        decisions
    }

    /// The tasks that found no node.
    fn schedule_group(
        &mut self,
        group: &Group,
        wants: &Wants,
        now: TimestampMs,
        decisions: &mut Vec<Decision>,
    ) -> Vec<TaskId> {
        let pass = Pass { group, wants, faulty: self.faulty(group, now) };
        // A task that is counted already was placed by a decision whose entry is still under way.
        for (task, node) in &group.preassigned {
            if !self.is_counted(*task) {
                decisions.push(self.check_preassigned(&pass, *task, *node));
            }
        }
        let tasks: Vec<TaskId> = group.tasks.iter().copied().filter(|task| !self.is_counted(*task)).collect();
        if tasks.is_empty() {
            return tasks;
        }
        let chosen = if group.spec.task.placement.preferences.is_empty() {
            self.place_evenly(&pass, &tasks)
        } else {
            spread::place(self, &pass, &tasks)
        };
        let mut touched: Vec<Index> = chosen.clone();
        touched.sort_unstable();
        touched.dedup();
        for at in touched {
            self.touch(at);
        }
        for (task, at) in tasks.iter().zip(&chosen) {
            decisions.push(Decision { task: *task, outcome: Outcome::Node(self.slots[*at as usize].id) });
        }
        tasks[chosen.len()..].to_vec()
    }

    /// One node per task, in order; fewer when the nodes are full.
    fn place_evenly(&mut self, pass: &Pass<'_>, tasks: &[TaskId]) -> Vec<Index> {
        // Nodes that never failed and run nothing of the service come first: they stand in order
        // already. The others are only ranked when these are used up.
        let running = self.services.get(&pass.group.service);
        let is_fresh =
            |at: &Index| !pass.faulty.contains_key(at) && !running.is_some_and(|counts| counts.contains_key(at));
        let takes = |at: &Index| pass.wants.refused_by(&self.slots[*at as usize], 0).is_none();
        let fresh = self.order.iter().map(|(_, _, at)| *at).filter(|at| is_fresh(at) && takes(at));
        let mut chosen: Vec<Index> = fresh.take(tasks.len()).collect();
        if chosen.len() == tasks.len() {
            for (task, at) in tasks.iter().zip(&chosen) {
                pass.place(self, *task, *at);
            }
            return chosen;
        }
        let used = running.into_iter().flat_map(BTreeMap::keys);
        let mut others: Vec<Index> = used.chain(pass.faulty.keys()).copied().collect();
        others.sort_unstable();
        others.dedup();
        let mut heap: Heap =
            others.into_iter().filter(|at| pass.takes(self, *at)).map(|at| Reverse(pass.rank(self, at))).collect();
        for (task, at) in tasks.iter().zip(&chosen) {
            pass.place(self, *task, *at);
        }
        heap.extend(chosen.iter().filter(|at| pass.takes_again(self, **at)).map(|at| Reverse(pass.rank(self, *at))));
        for task in &tasks[chosen.len()..] {
            let Some(Reverse((.., at))) = heap.pop() else { break };
            pass.place(self, *task, at);
            chosen.push(at);
            if pass.takes_again(self, at) {
                heap.push(Reverse(pass.rank(self, at)));
            }
        }
        chosen
    }

    fn check_preassigned(&mut self, pass: &Pass<'_>, task: TaskId, node: NodeId) -> Decision {
        let at = self.indexes.get(&node).copied().filter(|at| self.slots[*at as usize].node.is_some());
        let Some(at) = at else {
            let explanation = format!("no suitable node (node {} is gone)", node.short()).into();
            return Decision { task, outcome: Outcome::Unplaced { explanation } };
        };
        let running = self.tasks_of(pass.group.service, at);
        match pass.wants.refused_by(&self.slots[at as usize], running) {
            None => {
                pass.place(self, task, at);
                self.touch(at);
                Decision { task, outcome: Outcome::Node(node) }
            }
            Some(reason) => unplaced(task, &explain::explain(self, pass.wants, &[(at, reason)])),
        }
    }

    /// Nodes with as many failures of the service inside the window as make them the last choice.
    fn faulty(&self, group: &Group, now: TimestampMs) -> BTreeMap<Index, usize> {
        let mut failures: BTreeMap<Index, usize> = BTreeMap::new();
        for (node, at) in &group.failures {
            if now.0.saturating_sub(at.0) <= FAULT_WINDOW_MS
                && let Some(index) = self.indexes.get(node)
            {
                *failures.entry(*index).or_default() += 1;
            }
        }
        failures.retain(|_, count| *count >= FAULT_THRESHOLD);
        failures
    }
}

fn unplaced(task: TaskId, explanation: &Arc<str>) -> Decision {
    Decision { task, outcome: Outcome::Unplaced { explanation: Arc::clone(explanation) } }
}
