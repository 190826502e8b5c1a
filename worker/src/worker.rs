//! The handle that the daemon holds.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rswarm_api::tls::Credentials;
use rswarm_overlay::{Overlay, OverlayConfig, OverlayError};
use rswarm_runtime::Runtime;
use rswarm_runtime::image::ImageStore;
use rswarm_runtime::volume::VolumeStore;
use rswarm_types::node::NodeDescription;
use rswarm_types::session::Leaving;
use rswarm_types::{ClusterId, NodeId, TaskId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::agent::{Agent, Event};
use crate::host::{Host, StopSignal};
use crate::ledger::{Ledger, LedgerError, LedgerPlace, Remembered};
use crate::limits::{EVENTS_QUEUE, GOODBYE_TIMEOUT, INBOX_QUEUE, KILL_WAIT, LEAVE_GRACE, STOP_TIMEOUT};
use crate::link::{GrpcLink, Link};
use crate::network;
use crate::news::{WorkerEvent, tell};
use crate::plan::Container;
use crate::real_host::RealHost;
use crate::session::SessionClient;
use crate::shared::Shared;
use crate::view::ContainerView;

const LEDGER: &str = "ledger";
/// How often `leave` looks whether containers have ended.
const POLL: Duration = Duration::from_millis(20);
/// Mount points of cgroup v2, alone and beside v1.
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// v1 hierarchies whose limits on the daemon should not be netd's.
const V1: [&str; 2] = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];

/// Why a worker does not start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("container networks cannot be made on this host")]
    Overlay(#[from] OverlayError),
    #[error("opening the ledger was cut off")]
    CutOff(#[from] tokio::task::JoinError),
}

/// A worker of a real node.
pub struct WorkerConfig {
    pub node: NodeId,
    pub cluster: ClusterId,
    /// Holds `ledger/`.
    pub data_dir: PathBuf,
    /// State that may vanish at a reboot.
    pub run_dir: PathBuf,
    /// Above the cgroups of containers, e.g. `/rswarm`.
    pub cgroup_parent: String,
    /// This program.
    pub exe: PathBuf,
    /// The address of this host that carries VXLAN frames.
    pub data_path_address: IpAddr,
    pub runtime: Runtime,
    pub images: ImageStore,
    pub volumes: VolumeStore,
    pub credentials: Credentials,
    /// Control addresses, the nearest first.
    pub managers: Vec<SocketAddr>,
    pub description: NodeDescription,
    pub boot_id: String,
    pub raft_lost: bool,
}

/// A worker of any kind of node: what [`WorkerConfig`] comes down to, and what the simulator gives.
pub struct Parts {
    pub node: NodeId,
    pub host: Arc<dyn Host>,
    pub link: Arc<dyn Link>,
    pub ledger: LedgerPlace,
    pub managers: Vec<SocketAddr>,
    pub description: NodeDescription,
    pub boot_id: String,
    pub raft_lost: bool,
}

/// A node's worker role. Cheap to clone; it goes on until [`Worker::stop`].
#[derive(Clone)]
pub struct Worker {
    inner: Arc<Inner>,
}

struct Inner {
    host: Arc<dyn Host>,
    shared: Arc<Shared>,
    agent: mpsc::Sender<Event>,
    ledger: LedgerPlace,
    stop: CancellationToken,
    /// The session's own, which says goodbye first.
    session: TaskTracker,
    tasks: TaskTracker,
}

impl Worker {
    /// Takes up what an earlier daemon left, and opens a session.
    ///
    /// # Errors
    /// When the ledger cannot be written or container networks cannot be made at all.
    pub async fn start(config: WorkerConfig) -> Result<(Self, mpsc::Receiver<WorkerEvent>), WorkerError> {
        let ledger = LedgerPlace::Folder(config.data_dir.join(LEDGER));
        let (opened, remembered) = open_ledger(&ledger).await?;
        let netd_cgroups = netd_cgroups(&config.cgroup_parent);
        let overlay = Overlay::open(OverlayConfig {
            run_dir: config.run_dir,
            data_path_address: config.data_path_address,
            exe: config.exe,
            netd_cgroups: netd_cgroups.clone(),
            gateway_hint: remembered.gateway,
        })
        .await?;
        let host = RealHost {
            node: config.node,
            runtime: config.runtime,
            images: config.images,
            volumes: config.volumes,
            overlay,
            netd_cgroups,
            pulls: Default::default(),
        };
        tracing::info!(cluster.id = %config.cluster, node.id = %config.node, "worker starts");
        let parts = Parts {
            node: config.node,
            host: Arc::new(host),
            link: Arc::new(GrpcLink::new(config.credentials)),
            ledger,
            managers: config.managers,
            description: config.description,
            boot_id: config.boot_id,
            raft_lost: config.raft_lost,
        };
        Ok(Self::begin(parts, opened, remembered))
    }

    /// As [`Worker::start`], with a host and a way to managers of the caller's.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub async fn start_with(parts: Parts) -> Result<(Self, mpsc::Receiver<WorkerEvent>), WorkerError> {
        let (opened, remembered) = open_ledger(&parts.ledger).await?;
        Ok(Self::begin(parts, opened, remembered))
    }

    fn begin(parts: Parts, ledger: Ledger, remembered: Remembered) -> (Self, mpsc::Receiver<WorkerEvent>) {
        let managers = match &remembered.orders {
            // Newer than the daemon's own list; that one is tried too.
            Some(orders) => {
                let others = orders.managers.iter().filter(|m| !parts.managers.contains(m));
                parts.managers.iter().chain(others).copied().collect()
            }
            None => parts.managers,
        };
        let shared = Arc::new(Shared::new(parts.node, parts.boot_id, parts.raft_lost, parts.description, managers));
        let (agent_sender, agent_receiver) = mpsc::channel(INBOX_QUEUE);
        let (events_sender, events_receiver) = mpsc::channel(EVENTS_QUEUE);
        let (networks_sender, networks_receiver) = watch::channel(None);
        let stop = CancellationToken::new();
        let (session, tasks) = (TaskTracker::new(), TaskTracker::new());
        let agent = Agent::new(
            Arc::clone(&parts.host),
            ledger,
            remembered,
            Arc::clone(&shared),
            agent_sender.clone(),
            networks_sender,
        );
        let client = SessionClient {
            shared: Arc::clone(&shared),
            link: parts.link,
            host: Arc::clone(&parts.host),
            agent: agent_sender.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(agent.run(agent_receiver, stop.clone()));
        tasks.spawn(network::keep(Arc::clone(&parts.host), networks_receiver, agent_sender.clone(), stop.clone()));
        tasks.spawn(tell(shared.news.subscribe(), events_sender, stop.clone()));
        session.spawn(client.run());
        let inner = Inner { host: parts.host, shared, agent: agent_sender, ledger: parts.ledger, stop, session, tasks };
        (Self { inner: Arc::new(inner) }, events_receiver)
    }

    /// What this node says of itself from now on; port problems are the worker's own to say.
    pub fn set_description(&self, description: NodeDescription) {
        self.inner.shared.description.send_if_modified(|known| {
            let port_problems = std::mem::take(&mut known.port_problems);
            let next = NodeDescription { port_problems, ..description };
            let known_before = std::mem::replace(known, next);
            known_before != NodeDescription { port_problems: Vec::new(), ..known.clone() }
        });
    }

    /// Managers to try from now on, until the cluster names others.
    pub fn set_managers(&self, managers: Vec<SocketAddr>) {
        self.inner.shared.managers.send_replace(managers);
    }

    /// Managers as last heard of.
    pub fn managers(&self) -> Vec<SocketAddr> {
        self.inner.shared.managers.borrow().clone()
    }

    /// The manager of the open session.
    pub fn connected(&self) -> Option<SocketAddr> {
        self.inner.shared.news.borrow().connected
    }

    /// Containers of this node; none once the worker has stopped.
    pub async fn containers(&self) -> Vec<ContainerView> {
        let (sender, receiver) = oneshot::channel();
        if self.inner.agent.send(Event::View(sender)).await.is_err() {
            return Vec::new();
        }
        receiver.await.unwrap_or_default()
    }

    /// Whether a container runs on this node.
    pub async fn has_running(&self) -> bool {
        self.inner.host.containers().values().any(Container::is_running)
    }

    /// Says goodbye and stops. Containers and their networks go on.
    pub async fn stop(&self, leaving: Leaving) {
        let inner = &self.inner;
        inner.shared.leaving.send_replace(Some(leaving));
        inner.session.close();
        if timeout(2 * GOODBYE_TIMEOUT, inner.session.wait()).await.is_err() {
            tracing::debug!("no manager heard the goodbye");
        }
        inner.stop.cancel();
        inner.tasks.close();
        let all = async {
            inner.session.wait().await;
            inner.tasks.wait().await;
        };
        if timeout(2 * STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!("the worker left work behind");
        }
        inner.shared.news.send_modify(|news| news.connected = None);
    }

    /// Stops the worker if it still runs, ends and removes every container, sandbox and network, and forgets all.
    ///
    /// # Errors
    /// All that is left; the rest is removed.
    pub async fn leave(&self) -> Result<(), Vec<String>> {
        if !self.inner.stop.is_cancelled() {
            self.stop(Leaving::Shutdown).await;
        }
        let host = &self.inner.host;
        let mut left = Vec::new();
        let running = |host: &Arc<dyn Host>| -> BTreeSet<TaskId> {
            host.containers().into_iter().filter(|(_, c)| c.is_running()).map(|(id, _)| id).collect()
        };
        for (signal, patience) in [(StopSignal::Stop, LEAVE_GRACE), (StopSignal::Kill, KILL_WAIT)] {
            for id in running(host) {
                if let Err(error) = host.signal(id, None, signal).await {
                    left.push(format!("container {id}: {error}"));
                }
            }
            let deadline = Instant::now() + patience;
            while !running(host).is_empty() && Instant::now() < deadline {
                sleep(POLL).await;
            }
        }
        for id in host.containers().into_keys() {
            if let Err(error) = host.remove(id).await {
                left.push(format!("container {id}: {error}"));
            }
        }
        left.extend(host.teardown().await);
        if let Err(error) = self.inner.ledger.remove().await {
            left.push(error.to_string());
        }
        if left.is_empty() { Ok(()) } else { Err(left) }
    }
}

async fn open_ledger(place: &LedgerPlace) -> Result<(Ledger, Remembered), WorkerError> {
    match place {
        LedgerPlace::Folder(path) => {
            let path = path.clone();
            Ok(tokio::task::spawn_blocking(move || Ledger::open(&path)).await??)
        }
        LedgerPlace::Memory(memory) => Ok(Ledger::in_memory(memory.clone())),
    }
}

/// Cgroups of its own for netd: the daemon's limits, and its unit's end, are not netd's.
fn netd_cgroups(parent: &str) -> Vec<PathBuf> {
    let name = parent.trim_matches('/');
    let unified = UNIFIED.iter().map(PathBuf::from).filter(|root| root.join("cgroup.controllers").exists());
    let v1 = V1.iter().map(PathBuf::from).filter(|root| root.join("cgroup.procs").exists());
    let folders = unified.chain(v1).map(|root| root.join(name).join("netd"));
    // Where the file system is read-only netd stays where the daemon is.
    folders.filter(|folder| std::fs::create_dir_all(folder).is_ok()).collect()
}
