//! Streams that workers open because a manager asked for them: logs now, exec later.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rswarm_types::NodeId;
use rswarm_types::session::{Down, LogLine, StreamRequest};
use tokio::sync::mpsc;

use super::Sessions;

/// Batches of lines that wait for a slow reader.
const QUEUE_LENGTH: usize = 64;

/// Why a stream brings nothing more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The node has no session here.
    #[error("node {0} has no session with this manager")]
    NotHere(NodeId),
    /// The worker says why.
    #[error("{0}")]
    Worker(String),
}

/// What arrives on a stream.
pub type Batch = Result<Vec<LogLine>, StreamError>;

/// Streams that were asked for and whose lines go to a reader here.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    waiting: Arc<Mutex<BTreeMap<u128, mpsc::Sender<Batch>>>>,
}

impl Streams {
    /// Asks the worker for a stream; its lines come out of the receiver, which ends with the stream.
    ///
    /// # Errors
    /// When the node has no session here.
    pub fn ask(
        &self,
        sessions: &Sessions,
        node: NodeId,
        request: StreamRequest,
    ) -> Result<mpsc::Receiver<Batch>, StreamError> {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let id = request.id;
        self.lock().insert(id, sender);
        if sessions.send(node, Down::Stream(request)) {
            Ok(receiver)
        } else {
            self.lock().remove(&id);
            Err(StreamError::NotHere(node))
        }
    }

    /// The reader of a stream, when the worker opens it; once.
    pub fn claim(&self, id: u128) -> Option<mpsc::Sender<Batch>> {
        self.lock().remove(&id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u128, mpsc::Sender<Batch>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
