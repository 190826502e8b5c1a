//! The preference tree: tasks are spread evenly over the values of a label, one level per
//! preference, as SwarmKit does. Nodes without the label are a branch of their own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use rswarm_types::TaskId;
use rswarm_types::node::Node;

use crate::cluster::{Cluster, Index};
use crate::place::{Heap, Pass};

const NODE_LABELS: &str = "node.labels.";
const ENGINE_LABELS: &str = "engine.labels.";

/// A branch with its nodes.
#[derive(Default)]
struct Tree {
    /// Wanted tasks of the service on all nodes below, those that take no more included.
    tasks: u64,
    /// Nodes of a leaf that take a task.
    heap: Heap,
    /// Branches by the label's value.
    branches: BTreeMap<String, Tree>,
    /// Branches that may have room, the emptiest on top.
    next: BinaryHeap<Reverse<(u64, String)>>,
}

/// One node per task, in order; fewer when the nodes are full.
pub(crate) fn place(cluster: &mut Cluster, pass: &Pass<'_>, tasks: &[TaskId]) -> Vec<Index> {
    let mut root = Tree::default();
    for (at, slot) in (0..).zip(&cluster.slots) {
        let Some(node) = &slot.node else { continue };
        let running = cluster.tasks_of(pass.group.service, at);
        let mut tree = &mut root;
        tree.tasks += running;
        for preference in &pass.wants.spec.task.placement.preferences {
            tree = tree.branches.entry(value(node, &preference.descriptor).to_owned()).or_default();
            tree.tasks += running;
        }
        if pass.takes(cluster, at) {
            tree.heap.push(Reverse(pass.rank(cluster, at)));
        }
    }
    root.open();
    let mut chosen = Vec::with_capacity(tasks.len());
    for task in tasks {
        let Some(at) = root.place_one(cluster, pass, *task) else { break };
        chosen.push(at);
    }
    chosen
}

impl Tree {
    fn open(&mut self) {
        for (value, branch) in &mut self.branches {
            branch.open();
            self.next.push(Reverse((branch.tasks, value.clone())));
        }
    }

    /// The node that got the task; `None` = no room below.
    fn place_one(&mut self, cluster: &mut Cluster, pass: &Pass<'_>, task: TaskId) -> Option<Index> {
        if let Some(Reverse((.., at))) = self.heap.pop() {
            pass.place(cluster, task, at);
            self.tasks += 1;
            if pass.takes_again(cluster, at) {
                self.heap.push(Reverse(pass.rank(cluster, at)));
            }
            return Some(at);
        }
        while let Some(Reverse((_, value))) = self.next.pop() {
            let Some(branch) = self.branches.get_mut(&value) else { continue };
            // A branch without room is not asked again.
            if let Some(at) = branch.place_one(cluster, pass, task) {
                self.tasks += 1;
                self.next.push(Reverse((branch.tasks, value)));
                return Some(at);
            }
        }
        None
    }
}

/// The value that the descriptor names on this node; empty where there is none.
fn value<'a>(node: &'a Node, descriptor: &str) -> &'a str {
    let label = |prefix: &str| {
        let (head, key) = descriptor.split_at_checked(prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then_some(key)
    };
    let found = match (label(NODE_LABELS), label(ENGINE_LABELS)) {
        (Some(key), _) => node.spec.labels.get(key),
        (_, Some(key)) => node.description.engine_labels.get(key),
        _ => None,
    };
    found.map_or("", String::as_str)
}
