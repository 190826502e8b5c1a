//! Tasks that wait for a node, and the scheduler that finds one.

use std::collections::BTreeMap;
use std::sync::Arc;

use rswarm_scheduler::{Decision, Group, Outcome};
use rswarm_store::State;
use rswarm_types::spec::ServiceSpec;
use rswarm_types::task_state::DesiredState;
use rswarm_types::{NodeId, TaskId, TimestampMs};

use super::memory::{Batch, Memory};
use super::proposal::Proposal;

/// A batch of tasks while it is collected.
struct Waiting {
    /// The birth of its oldest task: who came first is served first.
    since: TimestampMs,
    group: Group,
}

/// Decides on every task that waits, those that the pass makes included.
pub(super) fn place(p: &Proposal<'_>, memory: &mut Memory) -> Vec<Decision> {
    presume_stopped(p, memory);
    let mut batches: BTreeMap<Batch, Waiting> = BTreeMap::new();
    for (batch, tasks) in &memory.pending {
        let mut tasks: Vec<_> = tasks.iter().filter_map(|id| p.state.task(*id)).collect();
        tasks.retain(|task| !p.stopped.contains(&task.id));
        tasks.sort_by_key(|task| (task.created, task.slot, task.id));
        for task in tasks {
            batch_of(p.state, &mut batches, *batch, task.created, &task.spec).add(task.id, task.node);
        }
    }
    for (task, spec) in &p.born {
        let batch = (task.service, task.spec_version);
        batch_of(p.state, &mut batches, batch, p.now, spec).add(task.id, task.node);
    }
    let mut waiting: Vec<(Batch, Waiting)> = batches.into_iter().collect();
    waiting.sort_by_key(|(batch, waiting)| (waiting.since, *batch));
    let groups: Vec<Group> = waiting.into_iter().map(|(_, waiting)| waiting.group).collect();
    let decisions = memory.cluster.schedule(&groups, p.now);
    let placed = decisions.iter().filter(|decision| matches!(decision.outcome, Outcome::Node(_)));
    memory.presumed.extend(placed.map(|decision| decision.task));
    decisions
}

/// What the pass stops no longer counts where tasks are spread.
fn presume_stopped(p: &Proposal<'_>, memory: &mut Memory) {
    for id in &p.stopped {
        let Some(task) = p.state.task(*id) else { continue };
        let mut task = task.as_ref().clone();
        task.desired = task.desired.max(DesiredState::Shutdown);
        memory.cluster.upsert_task(&task);
        memory.presumed.push(*id);
    }
}

fn batch_of<'b>(
    state: &State,
    batches: &'b mut BTreeMap<Batch, Waiting>,
    batch: Batch,
    since: TimestampMs,
    spec: &Arc<ServiceSpec>,
) -> &'b mut Waiting {
    batches.entry(batch).or_insert_with(|| Waiting {
        since,
        group: Group {
            service: batch.0,
            spec: Arc::clone(spec),
            tasks: Vec::new(),
            preassigned: Vec::new(),
            failures: state.restarts_of_service(batch.0).flat_map(|h| h.failures.iter().copied()).collect(),
        },
    })
}

impl Waiting {
    fn add(&mut self, task: TaskId, node: Option<NodeId>) {
        match node {
            Some(node) => self.group.preassigned.push((task, node)),
            None => self.group.tasks.push(task),
        }
    }
}
