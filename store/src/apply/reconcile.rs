//! What the reconcilers decided. A change whose ground has moved is dropped; they look again.

use rswarm_types::command::Change;

use super::Draft;

impl Draft {
    pub(super) fn reconcile(&mut self, change: &Change) {
        match change {
            Change::CreateTask(task) => self.create_task(task),
            Change::AllocateTask { task } => self.allocate_task(*task),
            Change::AssignTask { task, version, node } => self.assign_task(*task, *version, *node),
            Change::ExplainTask { task, version, error } => self.explain_task(*task, *version, error),
            Change::SetDesired { task, version, desired, reason } => {
                self.set_desired(*task, *version, *desired, reason);
            }
            Change::OrphanTask { task, reason } => {
                if let Some(task) = self.task(*task) {
                    self.orphan(task, reason);
                }
            }
            Change::RemoveTask { task } => self.remove_task(*task),
            Change::SetUpdateStatus { service, version, status } => {
                self.set_update_status(*service, *version, status);
            }
            Change::ForgetService { service } => self.forget_service(*service),
            Change::ForgetNetwork { network } => self.forget_network(*network),
        }
    }
}
