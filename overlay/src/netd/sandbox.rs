//! The DNS server of one sandbox.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::stream::{self, Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::forward::Exit;
use super::limits::{ACCEPT_PAUSE, QUERY_BYTES_MAX, TCP_CONNECTIONS_MAX, TCP_IDLE, TCP_IDLE_BUSY, TCP_PIPELINE_MAX};
use super::names::Names;
use super::protocol::DnsPorts;
use super::sockets::{DnsSockets, Identity};
use super::turns::Turns;
use super::wire::{Decision, Transport, decide, format_error, server_failure};

/// A running server. Dropping it closes its sockets soon; [`Sandbox::close`] says when.
#[derive(Debug)]
pub struct Sandbox {
    ports: DnsPorts,
    namespace: Identity,
    shared: Arc<Shared>,
    servers: JoinSet<()>,
}

#[derive(Debug)]
struct Shared {
    names: ArcSwap<Names>,
    exit: Exit,
    turns: Turns,
}

impl Sandbox {
    /// Serves `names` on the sockets, inside a tokio runtime.
    ///
    /// # Errors
    /// When the sockets cannot be registered with the runtime.
    pub fn start(
        task: rswarm_types::TaskId,
        namespace: Identity,
        sockets: DnsSockets,
        names: Names,
        exit: Exit,
    ) -> io::Result<Self> {
        let udp = UdpSocket::from_std(sockets.udp)?;
        let tcp = TcpListener::from_std(sockets.tcp)?;
        let ports = DnsPorts { task, udp_port: udp.local_addr()?.port(), tcp_port: tcp.local_addr()?.port() };
        let names = ArcSwap::from_pointee(names);
        let shared = Arc::new(Shared { names, exit, turns: Turns::default() });
        let mut servers = JoinSet::new();
        servers.spawn(serve_udp(udp, Arc::clone(&shared)));
        servers.spawn(serve_tcp(tcp, Arc::clone(&shared)));
        Ok(Self { ports, namespace, shared, servers })
    }

    pub fn ports(&self) -> DnsPorts {
        self.ports
    }

    /// The namespace that its sockets are in.
    pub fn namespace(&self) -> Identity {
        self.namespace
    }

    /// Answers from these names from now on.
    pub fn set_names(&self, names: Names) {
        self.shared.names.store(Arc::new(names));
    }

    /// Returns when no socket of it is left: an open one keeps the namespace alive.
    pub async fn close(mut self) {
        self.servers.shutdown().await;
    }
}

impl Shared {
    /// The answer to a query, once it is known. `None`: say nothing.
    async fn answer(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        match self.decide(query, transport) {
            Decision::Reply(answer) => Some(answer),
            Decision::Ignore => None,
            Decision::Forward { answer_bytes_max } => self.forward(query, transport, answer_bytes_max).await,
        }
    }

    /// `query` may be one byte longer than allowed, if it is too long.
    fn decide(&self, query: &[u8], transport: Transport) -> Decision {
        if query.len() > QUERY_BYTES_MAX {
            return format_error(query, transport).map_or(Decision::Ignore, Decision::Reply);
        }
        decide(query, &self.names.load(), transport, self.turns.draw())
    }

    async fn forward(&self, query: &[u8], transport: Transport, bytes_max: u16) -> Option<Vec<u8>> {
        let Some(_permit) = self.exit.permit() else {
            return server_failure(query, transport);
        };
        let names = self.names.load_full();
        let answer = self.exit.ask(query, names.servers(), transport, bytes_max).await;
        answer.or_else(|| server_failure(query, transport))
    }
}

async fn serve_udp(socket: UdpSocket, shared: Arc<Shared>) {
    let socket = Arc::new(socket);
    let mut forwards = JoinSet::new();
    let mut buffer = vec![0; QUERY_BYTES_MAX + 1];
    loop {
        // Both branches are cancel-safe.
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            Some(_) = forwards.join_next() => continue,
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "dns query not received");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let query = &buffer[..length];
        match shared.decide(query, Transport::Udp) {
            Decision::Ignore => {}
            Decision::Reply(answer) => send(&socket, &answer, client).await,
            Decision::Forward { answer_bytes_max } => {
                let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
                let query = query.to_vec();
                forwards.spawn(async move {
                    let answer = shared.forward(&query, Transport::Udp, answer_bytes_max).await;
                    if let Some(answer) = answer {
                        send(&socket, &answer, client).await;
                    }
                });
            }
        }
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: std::net::SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%error, "dns answer not sent");
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let permits = Arc::new(Semaphore::new(TCP_CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        // Both branches are cancel-safe: a permit that is taken and not used is given back.
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, permit)) => {
                let (shared, permits) = (Arc::clone(&shared), Arc::clone(&permits));
                connections.spawn(async move {
                    let _permit = permit;
                    if let Err(error) = serve_connection(stream, &shared, &permits).await {
                        tracing::debug!(%error, "dns connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::debug!(%error, "dns connection not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    Ok((listener.accept().await?.0, permit))
}

async fn serve_connection(stream: TcpStream, shared: &Shared, permits: &Semaphore) -> io::Result<()> {
    let idle = || if permits.available_permits() > TCP_CONNECTIONS_MAX / 2 { TCP_IDLE } else { TCP_IDLE_BUSY };
    let (read, mut write) = stream.into_split();
    // An answer from outside does not hold up those after it (RFC 7766 §6.2.1.1).
    let answers = queries(read, idle).map(|query| async move { shared.answer(&query, Transport::Tcp).await });
    let mut answers = std::pin::pin!(answers.buffer_unordered(TCP_PIPELINE_MAX));
    while let Some(Some(answer)) = answers.next().await {
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let message = [&length.to_be_bytes(), answer.as_slice()].concat();
        timeout(idle(), write.write_all(&message)).await??;
    }
    Ok(())
}

/// The queries that come in time.
fn queries(from: impl AsyncRead + Unpin, idle: impl Fn() -> Duration + Copy) -> impl Stream<Item = Vec<u8>> {
    stream::unfold(from, move |mut from| async move {
        let query = timeout(idle(), read_query(&mut from)).await.ok()?.ok()?;
        Some((query, from))
    })
}

/// The next query; of one that is too long, only as much as shows that.
async fn read_query(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::from(from.read_u16().await?);
    let mut query = vec![0; length.min(QUERY_BYTES_MAX + 1)];
    from.read_exact(&mut query).await?;
    let rest = u64::try_from(length - query.len()).map_err(io::Error::other)?;
    tokio::io::copy(&mut from.take(rest), &mut tokio::io::sink()).await?;
    Ok(query)
}
