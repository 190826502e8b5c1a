//! Questions that are not ours, passed on as they came.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::future::{BoxFuture, FutureExt, Shared, WeakShared};
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::health::Health;
use super::limits::{FORWARDS_MAX, FORWARDS_PER_SANDBOX, UPSTREAM_HEDGE, UPSTREAM_TIMEOUT, UPSTREAMS_MAX};
use super::resolv::{DNS_PORT, HostServers};
use super::sockets::{DNS_ADDRESS, Doorman, Namespace, connected_udp, unconnected_tcp};
use super::turns::Turns;
use super::wire::{ID_BYTES, Transport, cut_short, is_answer_to, is_server_trouble};

/// The way outside, shared by the sandboxes of the node.
#[derive(Debug)]
pub struct Forwarder {
    host: HostServers,
    host_health: Arc<Mutex<Health>>,
    doorman: Arc<Doorman>,
    permits: Arc<Semaphore>,
    turns: Turns,
}

/// One sandbox's way outside.
#[derive(Debug)]
pub struct Exit {
    forwarder: Arc<Forwarder>,
    namespace: Namespace,
    own_health: Arc<Mutex<Health>>,
    permits: Arc<Semaphore>,
    asked: Mutex<HashMap<Asked, WeakShared<BoxFuture<'static, Reply>>>>,
}

/// The right to ask outside, held until the answer is there.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held")] [OwnedSemaphorePermit; 2]);

/// A query without its id.
type Asked = (Transport, Arc<[u8]>);
type Reply = Option<Arc<[u8]>>;

impl Forwarder {
    pub fn new(host: HostServers, doorman: Arc<Doorman>) -> Self {
        Self {
            host,
            host_health: Arc::default(),
            doorman,
            permits: Arc::new(Semaphore::new(FORWARDS_MAX)),
            turns: Turns::default(),
        }
    }
}

impl Exit {
    pub fn new(forwarder: Arc<Forwarder>, namespace: Namespace) -> Self {
        Self {
            forwarder,
            namespace,
            own_health: Arc::default(),
            permits: Arc::new(Semaphore::new(FORWARDS_PER_SANDBOX)),
            asked: Mutex::default(),
        }
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
    /// answer counts. `None` if none answered within [`UPSTREAM_TIMEOUT`].
    ///
    /// A query that is like one on its way waits for the answer to that. So a query that comes back to
    /// us, from a server that asks us in turn, ends here and not in a storm.
    pub async fn ask(
        &self,
        query: &[u8],
        own: &[IpAddr],
        transport: Transport,
        answer_bytes_max: u16,
    ) -> Option<Vec<u8>> {
        let (id, rest) = query.split_at_checked(ID_BYTES)?;
        let asked: Asked = (transport, rest.into());
        let reply = self.join(&asked, || self.errand(query, own, transport, answer_bytes_max));
        let reply = reply.await;
        locked(&self.asked).remove(&asked);
        let mut answer = reply?.to_vec();
        answer[..ID_BYTES].copy_from_slice(id);
        Some(answer)
    }

    fn join(&self, asked: &Asked, errand: impl FnOnce() -> Errand) -> Shared<BoxFuture<'static, Reply>> {
        let mut all = locked(&self.asked);
        if let Some(reply) = all.get(asked).and_then(WeakShared::upgrade) {
            return reply;
        }
        // Those that wait have permits, so any more belong to clients that hung up.
        if all.len() >= FORWARDS_PER_SANDBOX {
            all.retain(|_, reply| reply.upgrade().is_some());
        }
        let errand = errand();
        let reply = async move { errand.run().await.map(Arc::from) }.boxed().shared();
        if let Some(weak) = reply.downgrade() {
            all.insert(asked.clone(), weak);
        }
        reply
    }

    fn errand(&self, query: &[u8], own: &[IpAddr], transport: Transport, answer_bytes_max: u16) -> Errand {
        // A sandbox whose server is its own resolver would ask itself.
        let own = own.iter().filter(|ip| ip.to_canonical() != DNS_ADDRESS);
        let own: Vec<SocketAddr> = own.map(|ip| (*ip, DNS_PORT).into()).take(UPSTREAMS_MAX).collect();
        let forwarder = Arc::clone(&self.forwarder);
        let (inside, health, servers) = if own.is_empty() {
            (None, Arc::clone(&forwarder.host_health), forwarder.host.get().to_vec())
        } else {
            (Some(self.namespace.clone()), Arc::clone(&self.own_health), own)
        };
        Errand { forwarder, inside, health, servers, query: query.to_vec(), transport, answer_bytes_max }
    }
}

/// One question on its way outside.
struct Errand {
    forwarder: Arc<Forwarder>,
    /// Where its sockets are; `None`: on the host.
    inside: Option<Namespace>,
    health: Arc<Mutex<Health>>,
    /// At most [`UPSTREAMS_MAX`].
    servers: Vec<SocketAddr>,
    query: Vec<u8>,
    transport: Transport,
    answer_bytes_max: u16,
}

impl Errand {
    async fn run(&self) -> Option<Vec<u8>> {
        let mut trouble = None;
        let good = timeout(UPSTREAM_TIMEOUT, self.first_good(&mut trouble)).await;
        good.unwrap_or_default().or(trouble)
    }

    /// `trouble` is the last answer that says that its server has no answer.
    async fn first_good(&self, trouble: &mut Option<Vec<u8>>) -> Option<Vec<u8>> {
        let mut rest = locked(&self.health).order(&self.servers, Instant::now()).into_iter();
        let mut asked = FuturesUnordered::new();
        let mut newest = None;
        loop {
            if let Some(server) = rest.next() {
                asked.push(async move { (server, self.ask(server).await) });
                newest = Some(server);
            } else if asked.is_empty() {
                return None;
            }
            loop {
                let answer = tokio::select! {
                    answer = asked.next() => answer,
                    () = sleep(UPSTREAM_HEDGE), if rest.len() > 0 => {
                        if let Some(server) = newest {
                            self.failed(server, "silent");
                        }
                        break;
                    }
                };
                match answer {
                    Some((server, Ok(answer))) => {
                        locked(&self.health).answered(server);
                        if !is_server_trouble(&answer) {
                            return Some(answer);
                        }
                        *trouble = Some(answer);
                    }
                    Some((server, Err(error))) => self.failed(server, &error.to_string()),
                    None => break,
                }
                if rest.len() > 0 {
                    break;
                }
            }
        }
    }

    fn failed(&self, server: SocketAddr, problem: &str) {
        if locked(&self.health).failed(server, Instant::now()) {
            tracing::warn!(%server, problem, "dns server is asked last for now");
        }
    }

    async fn ask(&self, server: SocketAddr) -> io::Result<Vec<u8>> {
        let mut query = self.query.clone();
        // A client whose ids are easy to guess does not make the way outside so.
        query[..ID_BYTES].copy_from_slice(&self.forwarder.turns.draw().to_be_bytes()[..ID_BYTES]);
        match self.transport {
            Transport::Udp => {
                let socket = self.open(move || connected_udp(server)).await?;
                let answer = ask_udp(socket, &query).await?;
                let fits = answer.len() <= usize::from(self.answer_bytes_max);
                Ok(if fits { answer } else { cut_short(&query, answer) })
            }
            Transport::Tcp => {
                let socket = self.open(move || unconnected_tcp(server)).await?;
                ask_tcp(socket, server, &query).await
            }
        }
    }

    async fn open<T: Send + 'static>(&self, open: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        match &self.inside {
            Some(namespace) => self.forwarder.doorman.within(namespace, open).await,
            None => open(),
        }
    }
}

/// Asks until there is an answer: again after [`UPSTREAM_HEDGE`], and then each time after twice as long.
async fn ask_udp(socket: std::net::UdpSocket, query: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::from_std(socket)?;
    let mut pause = UPSTREAM_HEDGE;
    loop {
        socket.send(query).await?;
        match timeout(pause, receive(&socket, query)).await {
            Ok(answer) => return answer,
            Err(_) => pause *= 2,
        }
    }
}

async fn receive(socket: &UdpSocket, query: &[u8]) -> io::Result<Vec<u8>> {
    loop {
        socket.readable().await?;
        // Only now: thousands may be waiting.
        let mut answer = Vec::with_capacity(usize::from(u16::MAX));
        match socket.try_recv_buf(&mut answer) {
            Ok(_) if is_answer_to(query, &answer) => return Ok(answer),
            // A stray or a forgery: the true one may still come.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn ask_tcp(socket: std::net::TcpStream, server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpSocket::from_std_stream(socket).connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), query].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    if is_answer_to(query, &answer) { Ok(answer) } else { Err(io::Error::other("the answer is to another question")) }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
