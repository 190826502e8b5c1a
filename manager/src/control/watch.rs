//! A service and its tasks, again at each change.

use std::time::Duration;

use futures::stream::BoxStream;
use rswarm_api::{Wire, pb};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use super::authorize::Need;
use super::services::view;
use super::{ControlService, found};

/// Changes that follow each other closely are told as one.
const COALESCE: Duration = Duration::from_millis(20);
/// Told and not read yet.
const QUEUE_LENGTH: usize = 4;

pub(super) type ProgressStream = BoxStream<'static, Result<pb::ServiceProgress, Status>>;

impl ControlService {
    pub(super) async fn watch(&self, request: Request<pb::Ref>) -> Result<ProgressStream, Status> {
        self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        let id = found(snapshot.state.find_service(&request.into_inner().name))?.id;
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let (consensus, stop) = (self.core.consensus.clone(), self.core.stopping());
        let inbox = consensus.subscribe();
        self.core.tasks().spawn(async move {
            let mut told = None;
            loop {
                let state = consensus.local().state;
                let progress = match state.service(id) {
                    Some(service) => pb::ServiceProgress {
                        service: Some(view(&state, service)),
                        tasks: state.tasks_of_service(id).map(|t| t.to_pb()).collect(),
                        removed: false,
                    },
                    None => pb::ServiceProgress { removed: true, ..Default::default() },
                };
                if told.as_ref() != Some(&progress) {
                    let is_last = progress.removed;
                    told = Some(progress.clone());
                    if sender.send(Ok(progress)).await.is_err() || is_last {
                        return;
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => {
                        let _ = sender.send(Err(Status::unavailable("this manager stops"))).await;
                        return;
                    }
                    () = sender.closed() => return,
                    _ = inbox.changed() => tokio::time::sleep(COALESCE).await,
                }
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}
