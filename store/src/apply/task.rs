//! Tasks: born, given addresses, placed, told to stop, removed. Their agent does the rest.

use std::sync::Arc;

use rswarm_types::command::{NewTask, RestartHistory};
use rswarm_types::constraint::Constraint;
use rswarm_types::node::Node;
use rswarm_types::spec::RestartPolicy;
use rswarm_types::task::{Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{NodeId, TaskId, TimestampMs};

use super::Draft;
use crate::indexes::{fixed_host_ports, held_addresses};

impl Draft {
    /// Dropped if the service changed, or if its slot has a live task other than the one replaced.
    pub(super) fn create_task(&mut self, new: &NewTask) {
        let Ok(service) = self.service(new.service) else { return };
        let is_stray = new.node.is_some_and(|node| self.state.node(node).is_none());
        if service.spec_version != new.spec_version || self.state.task(new.id).is_some() || is_stray {
            return;
        }
        let is_taken = |mate: &Arc<Task>| mate.is_live() && Some(mate.id) != new.replaces;
        if self.state.tasks_of_slot(new.service, new.slot).any(is_taken) {
            return;
        }
        if new.is_restart {
            self.count_restart(new, &service.spec.task.restart);
        }
        self.put_task(Task {
            id: new.id,
            meta: self.made(),
            service: new.service,
            slot: new.slot,
            node: new.node,
            spec: service.spec,
            spec_version: service.spec_version,
            status: TaskStatus { message: "created".into(), at: self.wall, applied: self.at, ..TaskStatus::default() },
            desired: new.desired,
            start_after: new.start_after,
            replaces: new.replaces,
            created: self.at,
            ..Task::default()
        });
    }

    fn count_restart(&mut self, new: &NewTask, policy: &RestartPolicy) {
        let mut history = self.history(new.service, new.slot, new.spec_version);
        history.attempts += 1;
        // The times matter only where attempts are counted within a window.
        let window_ms = u64::try_from(policy.window.as_millis()).unwrap_or(u64::MAX);
        let is_inside = |time: &TimestampMs| self.at.0.saturating_sub(time.0) <= window_ms;
        history.times.retain(is_inside);
        if window_ms > 0 && policy.max_attempts > 0 {
            history.times.push(self.at);
            let surplus = (history.times.len() as u64).saturating_sub(policy.max_attempts);
            history.times.drain(..usize::try_from(surplus).unwrap_or(0));
        } else {
            history.times.clear();
        }
        self.state.put_restarts(history);
    }

    /// The slot's history; a new version of the service begins anew.
    pub(super) fn history(
        &self,
        service: rswarm_types::ServiceId,
        slot: rswarm_types::task::Slot,
        spec_version: u64,
    ) -> RestartHistory {
        let kept = self.state.restarts(service, slot).filter(|history| history.spec_version == spec_version);
        kept.map_or_else(
            || RestartHistory { service, slot, spec_version, ..RestartHistory::default() },
            |history| history.as_ref().clone(),
        )
    }

    /// New → Pending with addresses, or the reason in the task's status.
    pub(super) fn allocate_task(&mut self, id: TaskId) {
        let Some(mut task) = self.task(id) else { return };
        if task.allocated || task.status.state != TaskState::New || !task.is_live() {
            return;
        }
        match self.task_addresses(&task) {
            Ok(addresses) => {
                task.attachments = addresses.attachments;
                task.ingress = addresses.ingress;
                task.allocated = true;
                task.status.state = TaskState::Pending;
                task.status.message = "pending task scheduling".into();
                task.status.error.clear();
            }
            Err(refusal) => {
                let error = refusal.to_string();
                if task.status.error == error {
                    return;
                }
                task.status.error = error;
            }
        }
        self.stamp(&mut task);
        self.put_task(task);
    }

    /// Dropped unless the node still takes the task: ready, active, as constrained, with room, free
    /// ports and not too many of its service. The scheduler judged the same on what may be an older state.
    pub(super) fn assign_task(&mut self, id: TaskId, version: u64, node_id: NodeId) {
        let Some(mut task) = self.current_task(id, version) else { return };
        let is_elsewhere = task.node.is_some_and(|node| node != node_id);
        if task.status.state != TaskState::Pending || !task.is_live() || is_elsewhere {
            return;
        }
        if !self.state.node(node_id).is_some_and(|node| self.takes(node, &task)) {
            return;
        }
        task.node = Some(node_id);
        task.status.state = TaskState::Assigned;
        task.status.message = "scheduler assigned task to node".into();
        task.status.error.clear();
        self.stamp(&mut task);
        self.put_task(task);
    }

    fn takes(&self, node: &Node, task: &Task) -> bool {
        let load = self.state.load(node.id);
        let wanted = &task.spec.task.resources;
        let fits = |wanted: u64, reserved: u64, total: u64| {
            wanted == 0 || reserved.checked_add(wanted).is_some_and(|sum| sum <= total)
        };
        let constraints = &task.spec.task.placement.constraints;
        let matches = |expression: &String| Constraint::parse(expression).is_ok_and(|c| c.matches(node));
        node.is_schedulable()
            && constraints.iter().all(matches)
            && fits(wanted.reserve_cpu.0, load.cpu.0, node.description.cpus.0)
            && fits(wanted.reserve_memory.0, load.memory.0, node.description.memory.0)
            && fixed_host_ports(task).all(|port| !self.state.is_host_port_used(node.id, port))
            && !self.is_crowded(node.id, task)
    }

    /// Whether the node has as many wanted tasks of the task's service as one node may have.
    fn is_crowded(&self, node: NodeId, task: &Task) -> bool {
        let max = task.spec.task.placement.max_replicas_per_node;
        let is_counted = |mate: &&Arc<Task>| {
            let state = mate.status.state;
            let is_here = state >= TaskState::Assigned && !state.is_terminal();
            mate.service == task.service && is_here && mate.desired <= DesiredState::Running
        };
        // Most services have no such limit: theirs pay nothing.
        max > 0 && self.state.tasks_on_node(node).filter(is_counted).count() as u64 >= max
    }

    pub(super) fn explain_task(&mut self, id: TaskId, version: u64, error: &str) {
        let Some(mut task) = self.current_task(id, version) else { return };
        if task.status.state <= TaskState::Pending && task.status.error != error {
            task.status.error = error.into();
            self.stamp(&mut task);
            self.put_task(task);
        }
    }

    pub(super) fn set_desired(&mut self, id: TaskId, version: u64, desired: DesiredState, reason: &str) {
        let Some(mut task) = self.current_task(id, version) else { return };
        if desired <= task.desired {
            return;
        }
        if task.desired < DesiredState::Shutdown && desired >= DesiredState::Shutdown {
            task.stop_at = self.index;
            task.desired_reason = reason.into();
        }
        task.desired = desired;
        self.put_task(task);
    }

    /// Dropped while an agent works on the task, or while it holds an address.
    pub(super) fn remove_task(&mut self, id: TaskId) {
        let Some(task) = self.task(id) else { return };
        let is_assigned = task.status.state >= TaskState::Assigned;
        let holds_address = held_addresses(&task, self.state.indexes.ingress).next().is_some();
        if is_assigned && (!task.status.state.is_terminal() || holds_address) {
            return;
        }
        self.note_task(&task);
        self.state.remove_task(id);
        if self.state.tasks_of_slot(task.service, task.slot).next().is_none() {
            self.state.remove_restarts(task.service, task.slot);
        }
    }

    /// The task, if it is as the change's author saw it, or as this entry left it.
    fn current_task(&self, id: TaskId, version: u64) -> Option<Task> {
        let is_current = |task: &Task| task.meta.version == version || task.meta.version == self.index;
        self.task(id).filter(is_current)
    }

    fn stamp(&self, task: &mut Task) {
        task.status.at = self.wall;
        task.status.applied = self.at;
    }
}
