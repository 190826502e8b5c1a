//! Logs of a service or a task, from whichever nodes hold them.

use futures::StreamExt;
use futures::stream::BoxStream;
use rswarm_api::{Wire, pb};
use rswarm_types::session::StreamRequest;
use rswarm_types::task::Task;
use rswarm_types::task_state::TaskState;
use rswarm_types::{NodeId, TaskId, TimestampMs};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::ControlService;
use super::authorize::Need;
use crate::dispatcher::StreamError;

/// Batches on their way to the reader.
const QUEUE_LENGTH: usize = 64;

pub(super) type LogStream = BoxStream<'static, Result<pb::StreamData, Status>>;

/// Whether the task ever had a process: one that ends at once is never seen to run.
fn may_have_lines(task: &Task) -> bool {
    let is_started = matches!(task.status.state, TaskState::Starting | TaskState::Running | TaskState::Complete);
    is_started || task.running_since != TimestampMs(0) || task.status.exit_code.is_some()
}

impl ControlService {
    /// Every task's lines, each task in order, merged as they come.
    pub(super) async fn log_stream(&self, request: Request<pb::LogsRequest>) -> Result<LogStream, Status> {
        self.permit(&request, Need::Read)?;
        let wanted = request.into_inner();
        let snapshot = self.read().await?;
        let state = &snapshot.state;
        let tasks: Vec<(TaskId, NodeId)> = match state.find_service(&wanted.name) {
            Ok(service) => state
                .tasks_of_service(service.id)
                .filter(|t| may_have_lines(t))
                .filter_map(|t| Some((t.id, t.node?)))
                .collect(),
            Err(refusal) => match state.find_task(&wanted.name) {
                Ok(task) => task.node.map(|node| (task.id, node)).into_iter().collect(),
                Err(_) => return Err(super::refuse(refusal)),
            },
        };
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        for (task, node) in tasks {
            let request = StreamRequest {
                id: self.core.consensus.edge().random(),
                task,
                follow: wanted.follow,
                tail: wanted.tail,
                since_ns: wanted.since_ns,
            };
            let (service, sender, stop) = (self.clone(), sender.clone(), self.core.stopping());
            self.core.tasks().spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = sender.closed() => {}
                    () = service.forward(node, request, &sender) => {}
                }
            });
        }
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    /// Brings one task's lines, from a session here or through the manager that has it.
    async fn forward(&self, node: NodeId, request: StreamRequest, out: &mpsc::Sender<Result<pb::StreamData, Status>>) {
        match self.core.streams.ask(&self.core.sessions, node, request.clone()) {
            Ok(mut batches) => {
                while let Some(batch) = batches.recv().await {
                    let message = match batch {
                        Ok(lines) => pb::StreamData { lines: lines.to_pb(), ..Default::default() },
                        Err(error) => self.incomplete(node, &error.to_string()),
                    };
                    if out.send(Ok(message)).await.is_err() {
                        return;
                    }
                }
            }
            Err(StreamError::NotHere(_)) => self.forward_from_peer(node, request, out).await,
            Err(error) => {
                // A reader that left does not want the reason.
                let _ = out.send(Ok(self.incomplete(node, &error.to_string()))).await;
            }
        }
    }

    async fn forward_from_peer(
        &self,
        node: NodeId,
        request: StreamRequest,
        out: &mpsc::Sender<Result<pb::StreamData, Status>>,
    ) {
        let status = self.core.consensus.engine().status();
        for (member, address) in &status.voters {
            let Ok(address) = address.parse() else { continue };
            if *member == status.member {
                continue;
            }
            let Ok(mut stream) = self.peers.open_logs(address, node, &request).await else { continue };
            while let Some(Ok(message)) = stream.next().await {
                if out.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            return;
        }
        let _ = out.send(Ok(self.incomplete(node, "it has no session with any manager"))).await;
    }

    fn incomplete(&self, node: NodeId, why: &str) -> pb::StreamData {
        let snapshot = self.core.consensus.local();
        let name = snapshot.state.node(node).map_or_else(|| node.short(), |n| n.display_name());
        pb::StreamData {
            error: format!("incomplete log stream: the logs of node {name} could not be read: {why}"),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use rswarm_types::task::TaskStatus;

    use super::*;

    #[test]
    fn a_task_that_ended_before_it_was_seen_to_run_has_lines_and_one_that_never_started_has_none() {
        let task = |state, exit_code, running_since| {
            let status = TaskStatus { state, exit_code, ..TaskStatus::default() };
            may_have_lines(&Task { status, running_since: TimestampMs(running_since), ..Task::default() })
        };
        for state in [TaskState::Complete, TaskState::Failed, TaskState::Shutdown] {
            assert!(task(state, Some(1), 0), "{state}");
            assert!(task(state, None, 7), "{state}");
        }
        assert!(task(TaskState::Starting, None, 0));
        for state in [TaskState::Pending, TaskState::Preparing, TaskState::Rejected, TaskState::Shutdown] {
            assert!(!task(state, None, 0), "{state}");
        }
    }
}
