//! Hosts as network namespaces on one switch, in a process that has nothing else.
//!
//! A test runs itself again in namespaces of its own (network, mounts, processes): whatever it
//! leaves behind ends with it. The process's own namespace is the client, 10.99.0.254 and fd99::fe.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use rswarm_overlay::{Converged, Overlay, OverlayConfig};
use rswarm_types::TaskId;

use crate::fixture::Cluster;

const INSIDE: &str = "OVERLAY_TEST_INSIDE";
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 254);
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, 0xfe);

/// Runs the body alone: in a process with its own network, mounts and processes.
pub fn alone(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        set_up();
        body();
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let exe = std::env::current_exe().unwrap();
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "timeout", "120"])
        .arg(exe)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed inside: {status}");
}

fn set_up() {
    // Not alone after all would be fatal for this machine.
    assert_eq!(sh("ip -o link | wc -l").trim(), "1", "not in a fresh network namespace");
    sh("mount -t tmpfs tmpfs /run && mkdir -p /run/netns && ip link set lo up");
    sh("ip link add lan type bridge && ip addr add 10.99.0.254/24 dev lan && ip link set lan up");
    sh("ip -6 addr add fd99::fe/64 dev lan nodad");
    for table in ["arptables", "iptables", "ip6tables"] {
        let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{table}"), "0");
    }
}

/// Runs a shell command in the client's namespace; its output, and a panic if it fails.
pub fn sh(command: &str) -> String {
    checked(command, Command::new("sh").args(["-c", command]).output().unwrap())
}

/// The same in another namespace.
pub fn sh_in(namespace: &Path, command: &str) -> String {
    checked(command, try_in(namespace, command))
}

/// The same, whether it fails or not.
pub fn try_in(namespace: &Path, command: &str) -> Output {
    let net = format!("--net={}", namespace.display());
    Command::new("nsenter").args([&net, "sh", "-c", command]).output().unwrap()
}

fn checked(command: &str, output: Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {}\n{text}{errors}", output.status);
    text
}

/// Waits for a condition.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

type Job = Box<dyn FnOnce(&tokio::runtime::Runtime, &mut Option<Overlay>) + Send>;

/// A host with an overlay.
pub struct Host {
    pub index: usize,
    pub namespace: PathBuf,
    pub run_dir: PathBuf,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Host {
    /// The nth host, 10.99.0.(n + 1) and fd99::(n + 1), with nothing on it yet.
    pub fn new(index: usize) -> Self {
        let name = format!("h{}", index + 1);
        sh(&format!(
            "ip netns add {name} && ip -n {name} link set lo up \
             && ip link add lan{index} type veth peer name eth0 netns {name} \
             && ip link set lan{index} master lan up \
             && ip -n {name} addr add 10.99.0.{}/24 dev eth0 && ip -n {name} link set eth0 up \
             && ip -n {name} -6 addr add fd99::{:x}/64 dev eth0 nodad \
             && ip -n {name} route add default via 10.99.0.254 \
             && ip -n {name} -6 route add default via fd99::fe",
            index + 1,
            index + 1
        ));
        let namespace = PathBuf::from(format!("/run/netns/{name}"));
        // As strict as a host may be.
        sh_in(&namespace, "echo 1 > /proc/sys/net/ipv4/conf/all/rp_filter");
        let run_dir = PathBuf::from(format!("/run/{name}"));
        std::fs::create_dir_all(&run_dir).unwrap();
        let mut host = Self { index, namespace, run_dir, jobs: None, thread: None };
        host.start();
        host
    }

    /// Starts the daemon's part: a thread in the host's namespace with an overlay.
    pub fn start(&mut self) {
        self.start_at(self.address().into());
    }

    /// The same, with this address for frames.
    pub fn start_at(&mut self, data_path_address: IpAddr) {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let namespace = File::open(&self.namespace).unwrap();
        let thread = std::thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            // One thread, and its children: all are in this namespace.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let mut overlay = None;
            for job in inbox {
                job(&runtime, &mut overlay);
            }
        });
        (self.jobs, self.thread) = (Some(jobs), Some(thread));
        let config = OverlayConfig {
            run_dir: self.run_dir.clone(),
            data_path_address,
            exe: netd_program(),
            netd_cgroups: Vec::new(),
            gateway_hint: None,
        };
        self.job(move |runtime, overlay| {
            *overlay = Some(runtime.block_on(Overlay::open(config)).unwrap());
        });
    }

    /// The daemon ends without a word; kernel and netd stay.
    pub fn kill_daemon(&mut self) {
        self.jobs = None;
        self.thread.take().unwrap().join().unwrap();
    }

    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 99, 0, self.index as u8 + 1)
    }

    pub fn address_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, self.index as u16 + 1)
    }

    fn job<T: Send + 'static>(
        &self,
        work: impl FnOnce(&tokio::runtime::Runtime, &mut Option<Overlay>) -> T + Send + 'static,
    ) -> T {
        let (answer, answers) = mpsc::channel();
        let job: Job = Box::new(move |runtime, overlay| {
            let _ = answer.send(work(runtime, overlay));
        });
        self.jobs.as_ref().unwrap().send(job).unwrap();
        answers.recv().expect("the host's thread panicked")
    }

    /// Does something with the overlay.
    pub fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(Overlay) -> Pin<Box<dyn Future<Output = T>>> + Send + 'static,
    ) -> T {
        self.job(move |runtime, overlay| runtime.block_on(work(overlay.clone().unwrap())))
    }

    /// Converges to what the cluster says, with a sandbox for each local task.
    pub fn converge(&self, cluster: &Cluster) -> Converged {
        self.converge_with(cluster, cluster.local(self.index))
    }

    pub fn converge_with(&self, cluster: &Cluster, sandboxes: BTreeSet<TaskId>) -> Converged {
        let assignments = cluster.assignments(self.index);
        self.with(move |overlay| {
            Box::pin(async move {
                let done = overlay.converge(&assignments, &sandboxes).await;
                done.unwrap_or_else(|e| panic!("{}", e.report()))
            })
        })
    }

    pub fn repair(&self) -> bool {
        self.with(|overlay| {
            Box::pin(async move { overlay.repair().await.unwrap_or_else(|e| panic!("{}", e.report())) })
        })
    }

    pub fn sandbox(&self, task: TaskId) -> PathBuf {
        self.run_dir.join("netns").join(format!("task-{task}"))
    }

    /// All kernel state that is visible from the host.
    pub fn dump(&self) -> String {
        let commands = [
            "ip -d -o link | sed -E 's/ numtxqueues.*//; s/qlen [0-9]*//; s/_timer +[0-9.]+//g'",
            "ip addr | grep -v valid_lft | sed 's/ tentative//'",
            "ip rule; ip -6 rule",
            "ip route show table all; ip -6 route show table all",
            "ip neigh show nud permanent",
            "bridge fdb | grep permanent | grep -v 33:33",
            "nft list ruleset | sed 's/packets [0-9]* bytes [0-9]*//'",
        ];
        // A link-local address comes when it has been proven, a second or two later.
        let settled = |text: String| -> String {
            // A host goes on forwarding after it left, and answers as a router.
            let is_ours = |l: &&str| !l.contains("fe80::") && !l.starts_with("anycast");
            text.lines().filter(is_ours).flat_map(|l| [l, "\n"]).collect()
        };
        let mut text: String = commands.iter().map(|c| sh_in(&self.namespace, c)).collect();
        text.push_str(&sh("grep -c nsfs /proc/mounts || true"));
        settled(text)
    }
}

/// All hosts converge, twice over as they would when news comes from each other.
pub fn converge_all(hosts: &[Host], cluster: &Cluster) {
    for host in hosts {
        let done = host.converge(cluster);
        assert_eq!((done.failures, done.port_problems), (vec![], vec![]), "host {}", host.index);
        assert_eq!(done.index, cluster.index);
    }
}

fn netd_program() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let program = exe.parent().unwrap().parent().unwrap().join("examples/netd");
    assert!(program.exists(), "{} is not built: cargo build --examples", program.display());
    program
}

/// Bytes of `/big`.
pub const BIG: usize = 8 * 1024 * 1024;

/// A UDP server in a sandbox that answers each datagram with its name and the client's address.
pub fn serve_udp(namespace: &Path, name: &str, port: u16) -> Server {
    let stop = Arc::new(AtomicBool::new(false));
    let (is_stopped, name) = (stop.clone(), name.to_owned());
    let namespace = File::open(namespace).unwrap();
    let (ready, is_ready) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        drop(namespace);
        let socket = std::net::UdpSocket::bind(("::", port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        ready.send(()).unwrap();
        let mut buffer = [0; 2048];
        while !is_stopped.load(Ordering::Relaxed) {
            if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(format!("{name} {}", peer.ip().to_canonical()).as_bytes(), peer);
            }
        }
    });
    is_ready.recv().unwrap();
    Server { stop, thread: Some(thread) }
}

/// What a UDP server answers to the client.
pub fn ask_udp(to: impl Into<SocketAddr>) -> String {
    let to = to.into();
    let own: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((own, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"?").unwrap();
    let mut buffer = [0; 2048];
    match socket.recv(&mut buffer) {
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// A server in a sandbox that answers with its name and the client's address; it ends when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(namespace: &Path, name: &str, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (is_stopped, name) = (stop.clone(), name.to_owned());
        let namespace = File::open(namespace).unwrap();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
            drop(namespace);
            let listener = TcpListener::bind(("::", port)).unwrap();
            listener.set_nonblocking(true).unwrap();
            ready.send(()).unwrap();
            let mut workers = Vec::new();
            while !is_stopped.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, peer)) => {
                        let (name, is_stopped) = (name.clone(), is_stopped.clone());
                        workers.push(std::thread::spawn(move || {
                            serve(stream, &format!("{name} {}", peer.ip().to_canonical()), &is_stopped);
                        }));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
            workers.into_iter().for_each(|w| w.join().unwrap());
        });
        is_ready.recv().unwrap();
        Self { stop, thread: Some(thread) }
    }
}

/// One answer per line that comes in: HTTP for a request, else a mere echo.
fn serve(mut stream: TcpStream, answer: &str, is_stopped: &AtomicBool) {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut buffer = [0; 4096];
    while !is_stopped.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) if buffer[..length].starts_with(b"GET /big") => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(&vec![b'x'; BIG]);
                return;
            }
            Ok(length) if buffer[..length].starts_with(b"GET") => {
                let size = answer.len();
                let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {size}");
                let _ = stream.write_all(format!("{head}\r\n\r\n{answer}").as_bytes());
                return;
            }
            Ok(length) => {
                let _ = stream.write_all(&buffer[..length]);
            }
            Err(_) => {}
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A connection from inside a namespace.
pub fn connect(namespace: &Path, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
    let to = to.into();
    let namespace = File::open(namespace).unwrap();
    let connected = std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(3))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        Ok(stream)
    });
    connected.join().unwrap()
}

/// A connection from the client, from this port of it, which others may use at the same time. Closed
/// without a farewell, so that the port is free at once.
pub fn connect_from(port: u16, to: impl Into<SocketAddr>) -> std::io::Result<TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect};
    use nix::sys::socket::{setsockopt, socket, sockopt};
    let to = to.into();
    let (family, own): (_, IpAddr) = match to {
        SocketAddr::V4(_) => (AddressFamily::Inet, CLIENT.into()),
        SocketAddr::V6(_) => (AddressFamily::Inet6, CLIENT_V6.into()),
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    setsockopt(&fd, sockopt::Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    let raw = std::os::fd::AsRawFd::as_raw_fd(&fd);
    bind(raw, &SockaddrStorage::from(SocketAddr::new(own, port)))?;
    connect(raw, &SockaddrStorage::from(to))?;
    let stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    Ok(stream)
}

/// Whether a line comes back.
pub fn echoes(stream: &mut TcpStream) -> std::io::Result<bool> {
    stream.write_all(b"hello\n")?;
    let mut buffer = [0; 6];
    stream.read_exact(&mut buffer)?;
    Ok(&buffer == b"hello\n")
}

/// What a server answers: name and the address that it saw; the error's text if it did not.
pub fn get(namespace: Option<&Path>, url: &str) -> String {
    let command = format!("curl -s -S --max-time 3 http://{url}");
    let output = match namespace {
        Some(namespace) => try_in(namespace, &command),
        None => Command::new("sh").args(["-c", &command]).output().unwrap(),
    };
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8_lossy(&text).trim().to_owned()
}
