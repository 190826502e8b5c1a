//! A simulated host: its disk and kernel, and the daemon that lives on them for a while.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use rswarm_api::identity::Identity;
use rswarm_manager::Edge;
use rswarm_raft::{MemberId as RaftMember, MemoryDisk};
use rswarm_types::node::NodeDescription;
use rswarm_types::session::Leaving;
use rswarm_types::spec::{Platform, Role};
use rswarm_types::units::{Bytes, NanoCpus};
use rswarm_types::{ClusterId, MemberId, NodeId};
use rswarm_worker::{LedgerPlace, MemoryLedger, Parts, Worker, WorkerEvent};
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::dice::Dice;
use super::kernel::{Kernel, wall};
use super::link::SimLink;
use super::manager::{Place, Serving};
use super::network::{Death, HostId, Network, Process};
use super::trace::Event;
use super::witness::Witness;
use crate::invariants::Violation;

/// The one cluster.
pub const CLUSTER: ClusterId = ClusterId(0xc1);
const CPUS: NanoCpus = NanoCpus(4_000_000_000);
const MEMORY: Bytes = Bytes(8 << 30);

/// A host.
pub struct Host {
    pub id: HostId,
    pub name: String,
    pub node: NodeId,
    pub role: Role,
    pub kernel: Kernel,
    network: Network,
    witness: Witness,
    dice: Dice,
    disk: Mutex<Disk>,
    daemon: Mutex<Option<Daemon>>,
    /// Held while a daemon starts or stops in order: there is one at a time.
    gate: tokio::sync::Mutex<()>,
    tasks: TaskTracker,
}

/// What outlives a daemon.
struct Disk {
    raft: MemoryDisk,
    ledger: MemoryLedger,
    /// Its place in Raft; 0 = none.
    member: MemberId,
    managers: Vec<SocketAddr>,
    boots: u64,
}

#[derive(Clone)]
struct Daemon {
    process: Arc<Process>,
    worker: Worker,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    pub fn new(
        id: HostId,
        role: Role,
        managers: Vec<SocketAddr>,
        network: &Network,
        witness: &Witness,
        dice: &Dice,
    ) -> Arc<Self> {
        let name = format!("{}{}", if role == Role::Manager { "m" } else { "w" }, id.0);
        let dice = dice.fork();
        let disk =
            Disk { raft: MemoryDisk::new(), ledger: MemoryLedger::default(), member: MemberId(0), managers, boots: 1 };
        Arc::new(Self {
            id,
            node: NodeId(dice.wide()),
            role,
            kernel: Kernel::new(&name, dice.fork(), witness.clone(), network.trace().clone()),
            network: network.clone(),
            witness: witness.clone(),
            dice,
            disk: Mutex::new(disk),
            daemon: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
            tasks: TaskTracker::new(),
            name,
        })
    }

    /// What it says of itself.
    pub fn description(&self) -> NodeDescription {
        NodeDescription {
            hostname: self.name.clone(),
            platform: Platform { os: "linux".into(), architecture: "x86_64".into() },
            cpus: CPUS,
            memory: MEMORY,
            engine_version: "sim".into(),
            data_path_address: Some(self.id.ip()),
            control_address: Some(self.id.address()),
            ..NodeDescription::default()
        }
    }

    /// A fresh id.
    pub fn fresh(&self) -> u128 {
        self.dice.wide()
    }

    /// The manager of this host, if its daemon lives and is one.
    pub fn serving(&self) -> Option<Arc<Serving>> {
        lock(&self.daemon).as_ref().filter(|d| !d.process.is_dead()).and_then(|d| d.process.serving())
    }

    /// The daemon, while it lives.
    pub fn process(&self) -> Option<Arc<Process>> {
        lock(&self.daemon).as_ref().map(|d| Arc::clone(&d.process)).filter(|p| !p.is_dead())
    }

    /// Makes this host the first manager of a new cluster, before its daemon starts.
    pub fn found(&self) {
        lock(&self.disk).member = MemberId(self.dice.number().max(1));
    }

    /// Starts the daemon on what is on the disk, unless it runs.
    pub fn start(self: &Arc<Self>) -> BoxFuture<'_, ()> {
        Box::pin(self.begin())
    }

    async fn begin(self: &Arc<Self>) {
        let _gate = self.gate.lock().await;
        if self.process().is_some() {
            return;
        }
        let process = Process::new(self.id);
        let (ledger, member, managers, boot_id) = {
            let disk = lock(&self.disk);
            let boot_id = format!("{}-{}", self.name, disk.boots);
            (disk.ledger.clone(), disk.member, disk.managers.clone(), boot_id)
        };
        self.network.trace().note(format!("{} daemon starts", self.name));
        self.network.register(Arc::clone(&process));
        if member != MemberId(0) {
            self.serve(&process).await;
        }
        let mut near = managers;
        if member != MemberId(0) {
            near.retain(|m| *m != self.id.address());
            near.insert(0, self.id.address());
        }
        let link = SimLink {
            network: self.network.clone(),
            process: Arc::clone(&process),
            identity: Identity { cluster: CLUSTER, node: self.node, role: self.role },
        };
        let parts = Parts {
            node: self.node,
            host: Arc::new(self.kernel.handle(Arc::clone(&process))),
            link: Arc::new(link),
            ledger: LedgerPlace::Memory(ledger),
            managers: near,
            description: self.description(),
            boot_id,
            raft_lost: false,
        };
        match Worker::start_with(parts).await {
            Ok((worker, events)) => {
                self.tasks.spawn(Arc::clone(self).follow(Arc::clone(&process), worker.clone(), events));
                *lock(&self.daemon) = Some(Daemon { process, worker });
            }
            Err(error) => self.witness.accuse(Violation::new("start", format!("the worker of {}: {error}", self.name))),
        }
    }

    /// Starts the manager on the disk's folder.
    fn serve(&self, process: &Arc<Process>) -> BoxFuture<'static, ()> {
        let (disk, member) = {
            let disk = lock(&self.disk);
            (disk.raft.clone(), RaftMember(disk.member.0))
        };
        let (chance, trace) = (self.dice.fork(), self.network.trace().clone());
        let (process, name, witness) = (Arc::clone(process), self.name.clone(), self.witness.clone());
        let place = Place {
            name: name.clone(),
            cluster: CLUSTER,
            member,
            disk,
            process: Arc::clone(&process),
            network: self.network.clone(),
            witness: witness.clone(),
            edge: Edge::new(move || chance.wide(), move || wall(&trace)),
            dice: self.dice.fork(),
        };
        Box::pin(async move {
            match Serving::start(place).await {
                Ok(serving) => process.serve(Some(serving)),
                Err(error) => witness.accuse(Violation::new("start", format!("the manager of {name}: {error}"))),
            }
        })
    }

    /// Does what the cluster decides about this node, as the daemon does.
    async fn follow(self: Arc<Self>, process: Arc<Process>, worker: Worker, mut events: mpsc::Receiver<WorkerEvent>) {
        loop {
            let event = tokio::select! {
                biased;
                () = process.dead.clone().cancelled_owned() => return,
                event = events.recv() => event,
            };
            match event {
                None => return,
                Some(WorkerEvent::Orders { role: Role::Manager, member, .. }) if member != MemberId(0) => {
                    self.promote(&process, member).await;
                }
                Some(WorkerEvent::Connected(_)) => {
                    let managers = worker.managers();
                    if !managers.is_empty() {
                        lock(&self.disk).managers = managers;
                    }
                }
                Some(WorkerEvent::Removed(why)) => {
                    self.witness.accuse(Violation::new("I1", format!("{} was removed: {why}", self.name)));
                }
                Some(WorkerEvent::Orders { .. } | WorkerEvent::Disconnected) => {}
            }
        }
    }

    /// Boxed: the compiler does not see through all of it that it may move between threads.
    fn promote<'a>(&'a self, process: &'a Arc<Process>, member: MemberId) -> BoxFuture<'a, ()> {
        Box::pin(self.become_member(process, member))
    }

    async fn become_member(&self, process: &Arc<Process>, member: MemberId) {
        let is_running = lock(&self.disk).member == member && process.serving().is_some();
        if is_running {
            return;
        }
        self.network.trace().note(format!("{} becomes member {:x}", self.name, member.0));
        if let Some(serving) = process.serving() {
            process.serve(None);
            serving.core.stop().await;
        }
        {
            let mut disk = lock(&self.disk);
            disk.raft = MemoryDisk::new();
            disk.member = member;
        }
        self.serve(process).await;
    }

    /// The daemon dies at once; containers go on.
    pub fn kill(&self) {
        self.end(Death::Killed);
    }

    /// The host loses its power.
    pub fn cut_power(&self) {
        self.end(Death::Power);
        self.kernel.cut_power();
    }

    fn count_leader(&self, process: &Process) {
        if process.serving().is_some_and(|serving| serving.core.consensus.leads()) {
            self.network.trace().count(Event::LeaderLost);
        }
    }

    fn end(&self, death: Death) {
        let Some(daemon) = lock(&self.daemon).take() else { return };
        self.network.trace().note(format!("{} dies: {death:?}", self.name));
        self.network.trace().count(match death {
            Death::Killed => Event::Killed,
            Death::Power => Event::PowerCut,
        });
        self.count_leader(&daemon.process);
        daemon.process.die(death);
        {
            let mut disk = lock(&self.disk);
            let dice = &self.dice;
            match death {
                Death::Killed => {
                    disk.raft = disk.raft.kill();
                    disk.ledger = disk.ledger.kill();
                }
                Death::Power => {
                    disk.raft = disk.raft.power_cut(|| dice.chance(50));
                    disk.ledger = disk.ledger.power_cut();
                    disk.boots += 1;
                }
            }
        }
        self.tasks.spawn(async move {
            if let Some(serving) = daemon.process.serving() {
                serving.bury().await;
            }
            // It talks to nobody and touches nothing any more; this only ends its tasks.
            daemon.worker.stop(Leaving::Restart).await;
        });
    }

    /// The daemon stops in order, to start again soon.
    pub fn stop(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end_in_order())
    }

    async fn end_in_order(&self) {
        let _gate = self.gate.lock().await;
        let Some(daemon) = lock(&self.daemon).take() else { return };
        self.network.trace().note(format!("{} stops", self.name));
        self.network.trace().count(Event::StoppedInOrder);
        self.count_leader(&daemon.process);
        daemon.worker.stop(Leaving::Restart).await;
        if let Some(serving) = daemon.process.serving() {
            serving.core.stop().await;
        }
        daemon.process.die(Death::Killed);
        let mut disk = lock(&self.disk);
        disk.raft = disk.raft.kill();
        disk.ledger = disk.ledger.kill();
    }
}
