//! Sockets inside other network namespaces, opened by a thread that does nothing else.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, mpsc};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tokio::sync::oneshot;

/// Where containers find their DNS server, as Docker's do.
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// A burst of queries while the server is busy with a table.
const RECEIVE_BUFFER_BYTES: usize = 1024 * 1024;

/// A network namespace, kept alive by this descriptor.
#[derive(Clone, Debug)]
pub struct Namespace {
    file: Arc<OwnedFd>,
    identity: Identity,
}

/// Which namespace a file holds: equal for two mounts of the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
}

/// The sockets of one sandbox's DNS server.
#[derive(Debug)]
pub struct DnsSockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

/// The thread that enters namespaces and comes home after each job.
#[derive(Debug, Default)]
pub struct Doorman {
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

/// Runs inside the namespace, or is told why it could not be entered.
type Job = (Namespace, Box<dyn FnOnce(io::Result<()>) + Send>);

impl Namespace {
    /// # Errors
    /// When the file cannot be opened. That it holds no namespace shows when it is entered.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let identity = Identity { device: metadata.dev(), inode: metadata.ino() };
        Ok(Self { file: Arc::new(file.into()), identity })
    }

    /// Which namespace a path holds now.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn identity_at(path: &Path) -> io::Result<Identity> {
        let metadata = std::fs::metadata(path)?;
        Ok(Identity { device: metadata.dev(), inode: metadata.ino() })
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }
}

impl Doorman {
    /// Runs `work` inside a namespace: something short, such as opening a socket.
    ///
    /// # Errors
    /// What `work` says, or that the namespace cannot be entered.
    pub async fn within<T: Send + 'static>(
        &self,
        namespace: &Namespace,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (done, result) = oneshot::channel();
        let job: Job = (
            namespace.clone(),
            Box::new(move |entered| {
                // Whoever asked may have gone away.
                let _ = done.send(entered.and_then(|()| work()));
            }),
        );
        self.send(job)?;
        result.await.unwrap_or_else(|_| Err(io::Error::other("the namespace thread ended")))
    }

    fn send(&self, job: Job) -> io::Result<()> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = match jobs.as_ref() {
            None => job,
            Some(thread) => match thread.send(job) {
                Ok(()) => return Ok(()),
                Err(mpsc::SendError(job)) => job,
            },
        };
        Self::start(&mut jobs, job)
    }

    fn start(jobs: &mut Option<mpsc::Sender<Job>>, job: Job) -> io::Result<()> {
        let (sender, receiver) = mpsc::channel::<Job>();
        let home = File::open("/proc/thread-self/ns/net")?;
        std::thread::Builder::new().name("netd-doorman".into()).spawn(move || {
            for (namespace, work) in receiver {
                let file = namespace.file.as_fd();
                let network = Some(LinkNameSpaceType::Network);
                work(move_into_link_name_space(file, network).map_err(io::Error::from));
                // Away from home this thread would keep a removed sandbox alive.
                if let Err(error) = move_into_link_name_space(home.as_fd(), network) {
                    tracing::error!(%error, "namespace thread cannot return");
                    break;
                }
            }
        })?;
        // The receiver lives in the thread that has just started.
        let _ = sender.send(job);
        *jobs = Some(sender);
        Ok(())
    }
}

/// Opens a sandbox's DNS sockets; to be called inside it. Each of the wanted ports is tried in turn,
/// then any.
///
/// # Errors
/// When there are no descriptors or no free port.
pub fn open_dns_sockets(udp_ports: &[u16], tcp_ports: &[u16]) -> io::Result<DnsSockets> {
    let udp = bind_first(udp_ports, UdpSocket::bind)?;
    // The first needs CAP_NET_ADMIN, the second is cut at net.core.rmem_max.
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&udp, RECEIVE_BUFFER_BYTES)
        .or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&udp, RECEIVE_BUFFER_BYTES))?;
    let tcp = bind_first(tcp_ports, TcpListener::bind)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok(DnsSockets { udp, tcp })
}

fn bind_first<T>(ports: &[u16], bind: fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let wanted = ports.iter().find_map(|port| bind((DNS_ADDRESS, *port).into()).ok());
    wanted.map_or_else(|| bind((DNS_ADDRESS, 0).into()), Ok)
}

/// A UDP socket that speaks to one server only, from the caller's namespace.
///
/// # Errors
/// When there are no descriptors, or no route.
pub fn connected_udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A TCP socket of the caller's namespace, not yet connected.
///
/// # Errors
/// When there are no descriptors.
pub fn unconnected_tcp(server: SocketAddr) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?.into())
}
