//! Questions that are not ours, passed on as they came.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::limits::{FORWARDS_MAX, FORWARDS_PER_SANDBOX, UPSTREAM_HEDGE, UPSTREAM_TIMEOUT, UPSTREAMS_MAX};
use super::resolv::{DNS_PORT, HostServers};
use super::sockets::{Doorman, Namespace, connected_udp, unconnected_tcp};
use super::wire::{Transport, is_answer_to, is_server_trouble};

/// The way outside, shared by the sandboxes of the node.
#[derive(Debug)]
pub struct Forwarder {
    host: HostServers,
    doorman: Arc<Doorman>,
    permits: Arc<Semaphore>,
}

/// One sandbox's way outside.
#[derive(Debug)]
pub struct Exit {
    forwarder: Arc<Forwarder>,
    namespace: Namespace,
    permits: Arc<Semaphore>,
}

/// The right to ask outside, held until the answer is there.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held")] [OwnedSemaphorePermit; 2]);

impl Forwarder {
    pub fn new(host: HostServers, doorman: Arc<Doorman>) -> Self {
        Self { host, doorman, permits: Arc::new(Semaphore::new(FORWARDS_MAX)) }
    }
}

impl Exit {
    pub fn new(forwarder: Arc<Forwarder>, namespace: Namespace) -> Self {
        Self { forwarder, namespace, permits: Arc::new(Semaphore::new(FORWARDS_PER_SANDBOX)) }
    }

    /// `None` while too many questions are on their way.
    pub fn permit(&self) -> Option<Permit> {
        let own = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let shared = Arc::clone(&self.forwarder.permits).try_acquire_owned().ok()?;
        Some(Permit([own, shared]))
    }

    /// Asks the servers: `own` ones from inside the sandbox, else the host's from the host.
    ///
    /// The next server joins when one fails or is silent for [`UPSTREAM_HEDGE`]; the first good
    /// answer counts. `None` if none answered at all.
    pub async fn ask(
        &self,
        query: &[u8],
        own: &[IpAddr],
        transport: Transport,
        answer_bytes_max: u16,
    ) -> Option<Vec<u8>> {
        if own.is_empty() {
            let servers = self.forwarder.host.get();
            first_good(&servers, |server| async move {
                let answer = match transport {
                    Transport::Udp => ask_udp(connected_udp(server)?, query, answer_bytes_max).await,
                    Transport::Tcp => ask_tcp(unconnected_tcp(server)?, server, query).await,
                };
                checked(query, answer?)
            })
            .await
        } else {
            let servers: Vec<SocketAddr> = own.iter().map(|ip| (*ip, DNS_PORT).into()).collect();
            let within = &self.forwarder.doorman;
            first_good(&servers, |server| async move {
                let answer = match transport {
                    Transport::Udp => {
                        let socket = within.within(&self.namespace, move || connected_udp(server));
                        ask_udp(socket.await?, query, answer_bytes_max).await
                    }
                    Transport::Tcp => {
                        let socket = within.within(&self.namespace, move || unconnected_tcp(server));
                        ask_tcp(socket.await?, server, query).await
                    }
                };
                checked(query, answer?)
            })
            .await
        }
    }
}

async fn first_good<A, F>(servers: &[SocketAddr], ask: A) -> Option<Vec<u8>>
where
    A: Fn(SocketAddr) -> F,
    F: Future<Output = io::Result<Vec<u8>>>,
{
    let mut rest = servers.iter().take(UPSTREAMS_MAX);
    let mut asked = FuturesUnordered::new();
    let mut trouble = None;
    loop {
        match rest.next() {
            Some(server) => asked.push(timeout(UPSTREAM_TIMEOUT, ask(*server))),
            None if asked.is_empty() => return trouble,
            None => {}
        }
        loop {
            let answer = tokio::select! {
                answer = asked.next() => answer,
                () = sleep(UPSTREAM_HEDGE), if rest.len() > 0 => break,
            };
            match answer {
                Some(Ok(Ok(answer))) if is_server_trouble(&answer) => trouble = Some(answer),
                Some(Ok(Ok(answer))) => return Some(answer),
                Some(Ok(Err(error))) => tracing::debug!(%error, "dns server failed"),
                Some(Err(_)) => tracing::debug!("dns server silent"),
                None => break,
            }
            if rest.len() > 0 {
                break;
            }
        }
    }
}

async fn ask_udp(socket: std::net::UdpSocket, query: &[u8], bytes_max: u16) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::from_std(socket)?;
    socket.send(query).await?;
    let mut answer = vec![0; usize::from(bytes_max)];
    loop {
        let length = socket.recv(&mut answer).await?;
        // Anything else is a stray or a forgery: the true one may still come.
        if is_answer_to(query, &answer[..length]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(socket: std::net::TcpStream, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpSocket::from_std_stream(socket).connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn checked(query: &[u8], answer: Vec<u8>) -> io::Result<Vec<u8>> {
    if is_answer_to(query, &answer) { Ok(answer) } else { Err(io::Error::other("the answer is to another question")) }
}
