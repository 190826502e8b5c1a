//! The way to managers: gRPC over mutual TLS, or the simulator's channels.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _};
use rswarm_api::tls::Credentials;
use rswarm_api::{Wire, pb};
use rswarm_types::session::{Down, LogLine, Up};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::limits::{MESSAGE_BYTES_MAX, UP_QUEUE};

/// An open stream to a manager; it ends when either half is dropped.
pub struct Connection {
    pub up: mpsc::Sender<Up>,
    /// An error ends it, with its words.
    pub down: BoxStream<'static, Result<Down, String>>,
}

/// How a worker reaches managers.
#[async_trait]
pub trait Link: Send + Sync + 'static {
    /// Opens the stream of a session.
    async fn connect(&self, manager: SocketAddr) -> Result<Connection, String>;

    /// Carries log lines that a manager asked for, until they end or nobody wants them.
    async fn stream(
        &self,
        manager: SocketAddr,
        id: u128,
        lines: BoxStream<'static, Result<Vec<LogLine>, String>>,
    ) -> Result<(), String>;
}

/// gRPC with this node's certificate.
pub struct GrpcLink {
    credentials: Credentials,
    /// The newest connection of each manager; log streams share the session's.
    channels: Mutex<BTreeMap<SocketAddr, Channel>>,
}

impl GrpcLink {
    pub fn new(credentials: Credentials) -> Self {
        Self { credentials, channels: Mutex::default() }
    }

    fn remember(&self, manager: SocketAddr, channel: Channel) {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        // One session at a time: older connections may close.
        channels.clear();
        channels.insert(manager, channel);
    }

    fn channel(&self, manager: SocketAddr) -> Channel {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.get(&manager).cloned().unwrap_or_else(|| self.credentials.channel(manager))
    }
}

fn words(status: &tonic::Status) -> String {
    let message = status.message();
    let mut cause = std::error::Error::source(status);
    let mut text = if message.is_empty() { status.code().to_string() } else { message.to_owned() };
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// Log lines as messages. A type of its own: the compiler loses the `'static` of a boxed stream inside a future.
struct Messages {
    id: u128,
    /// The first message claims the stream even when there is nothing to say yet.
    is_claimed: bool,
    lines: BoxStream<'static, Result<Vec<LogLine>, String>>,
}

impl Stream for Messages {
    type Item = pb::StreamData;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<pb::StreamData>> {
        let id = self.id;
        if !std::mem::replace(&mut self.is_claimed, true) {
            return Poll::Ready(Some(pb::StreamData { id: id.to_pb(), ..Default::default() }));
        }
        self.lines.poll_next_unpin(context).map(|batch| {
            let (lines, error) = match batch? {
                Ok(lines) => (lines, String::new()),
                Err(error) => (Vec::new(), error),
            };
            Some(pb::StreamData { id: id.to_pb(), lines: lines.to_pb(), error })
        })
    }
}

#[async_trait]
impl Link for GrpcLink {
    async fn connect(&self, manager: SocketAddr) -> Result<Connection, String> {
        // A channel of its own, so that a renewed certificate is used.
        let channel = self.credentials.session_channel(manager);
        let mut client = pb::dispatcher_client::DispatcherClient::new(channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let (up, receiver) = mpsc::channel::<Up>(UP_QUEUE);
        let messages = ReceiverStream::new(receiver).map(|up| up.to_pb());
        let answer = client.session(messages).await.map_err(|status| words(&status))?;
        self.remember(manager, channel);
        let down = answer.into_inner().map(|message| match message {
            Ok(message) => Down::from_pb(message).map_err(|error| error.to_string()),
            Err(status) => Err(words(&status)),
        });
        Ok(Connection { up, down: down.boxed() })
    }

    async fn stream(
        &self,
        manager: SocketAddr,
        id: u128,
        lines: BoxStream<'static, Result<Vec<LogLine>, String>>,
    ) -> Result<(), String> {
        let mut client = pb::dispatcher_client::DispatcherClient::new(self.channel(manager));
        match client.stream(Messages { id, is_claimed: false, lines }).await {
            Ok(_) => Ok(()),
            Err(status) => Err(words(&status)),
        }
    }
}
