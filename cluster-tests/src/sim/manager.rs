//! A manager of a simulated host: the real one, on the simulator's runtime, disk and network.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use rswarm_manager::engine::Engine;
use rswarm_manager::peers::{PeerError, Peers, Proposed, RelayAnswer, SessionFact};
use rswarm_manager::{Core, Edge, Machine, Snapshot};
use rswarm_raft::{
    ChangeError, ClusterTag, Config, Halt, LogPosition, MemberId, Membership, MemoryDisk, ProposeError, Raft,
    ReadError, SimRuntime, SnapshotSource, StartError, StateMachine, Status, Transport, TransportError, WriterMode,
    sim_scope,
};
use rswarm_types::ClusterId;
use rswarm_types::command::Command;
use tokio::sync::watch;

use super::dice::Dice;
use super::network::{CallError, Network, Process};
use super::trace::print_of;
use super::witness::Witness;

/// The deadlines of the manager's own gRPC peers.
const PROPOSE_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const RELAY_TIMEOUT: Duration = Duration::from_secs(1);
/// Low, so that snapshots are taken, sent and installed in every run.
const SNAPSHOT_EVERY: u64 = 150;
const KEEP_ENTRIES: u64 = 20;

/// What a daemon serves while it is a manager.
pub struct Serving {
    pub core: Core,
    pub raft: Raft<SimRuntime>,
    dice: Dice,
}

/// Where a manager runs.
pub struct Place {
    pub name: String,
    pub cluster: ClusterId,
    pub member: MemberId,
    pub disk: MemoryDisk,
    pub process: Arc<Process>,
    pub network: Network,
    pub witness: Witness,
    pub edge: Edge,
    pub dice: Dice,
}

impl Serving {
    /// Opens what is on the disk and goes on from there.
    pub async fn start(place: Place) -> Result<Arc<Self>, StartError> {
        let Place { name, cluster, member, disk, process, network, witness, edge, dice } = place;
        let config = Config {
            writer: WriterMode::Inline,
            snapshot_every: SNAPSHOT_EVERY,
            keep_entries: KEEP_ENTRIES,
            ..Config::new(ClusterTag(cluster.to_bytes()), member, Arc::new(disk))
        };
        let port = Port { network, process, witness: witness.clone() };
        let (machine, current, feed) = Machine::new();
        let observed = Observed { machine, current: current.clone(), name, witness };
        let start = Raft::<SimRuntime>::start(config, Arc::new(port.clone()), observed);
        let raft = sim_scope(dice.number(), start).await?;
        let engine = Scoped { raft: raft.clone(), dice: dice.clone() };
        let core = Core::start(Arc::new(engine), Arc::new(port), current, feed, edge);
        Ok(Arc::new(Self { core, raft, dice }))
    }

    /// Ends all tasks of a process that is dead already: nothing of it is seen from outside.
    pub async fn bury(&self) {
        self.core.stopping().cancel();
        self.core.tasks().close();
        sim_scope(self.dice.number(), self.raft.shutdown()).await;
    }

    async fn handle(&self, message: Bytes) -> Bytes {
        sim_scope(self.dice.number(), self.raft.handle(message)).await
    }
}

/// The real state machine, watched.
struct Observed {
    machine: Machine,
    current: watch::Receiver<Snapshot>,
    name: String,
    witness: Witness,
}

impl StateMachine for Observed {
    fn apply(&mut self, at: LogPosition, command: &[u8]) -> Result<Bytes, Halt> {
        let answer = self.machine.apply(at, command)?;
        self.witness.applied(&self.name, &self.current.borrow());
        Ok(answer)
    }

    fn applied_blank(&mut self, at: LogPosition) {
        self.machine.applied_blank(at);
    }

    fn applied_membership(&mut self, at: LogPosition, membership: &Membership) {
        self.machine.applied_membership(at, membership);
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        self.machine.snapshot()
    }

    fn restore(&mut self, at: LogPosition, membership: &Membership, snapshot: &mut dyn io::Read) -> io::Result<()> {
        self.machine.restore(at, membership, snapshot)?;
        self.witness.restored(&self.name, &self.current.borrow());
        Ok(())
    }
}

/// Calls into the engine carry a seed: the manager's own tasks have none.
struct Scoped {
    raft: Raft<SimRuntime>,
    dice: Dice,
}

impl Scoped {
    fn scoped<T>(&self, call: BoxFuture<'static, T>) -> BoxFuture<'static, T>
    where
        T: Send + 'static,
    {
        Box::pin(sim_scope(self.dice.number(), call))
    }
}

impl Engine for Scoped {
    fn status(&self) -> Status {
        self.raft.status()
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        Engine::changed(&self.raft)
    }

    fn propose(&self, command: Bytes) -> BoxFuture<'static, Result<(LogPosition, Bytes), ProposeError>> {
        self.scoped(Engine::propose(&self.raft, command))
    }

    fn read_index(&self) -> BoxFuture<'static, Result<u64, ReadError>> {
        self.scoped(Engine::read_index(&self.raft))
    }

    fn handle(&self, message: Bytes) -> BoxFuture<'static, Bytes> {
        self.scoped(Engine::handle(&self.raft, message))
    }

    fn add_learner(&self, id: MemberId, address: String) -> BoxFuture<'static, Result<(), ChangeError>> {
        self.scoped(Engine::add_learner(&self.raft, id, address))
    }

    fn promote(&self, id: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        self.scoped(Engine::promote(&self.raft, id))
    }

    fn remove(&self, id: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        self.scoped(Engine::remove(&self.raft, id))
    }

    fn transfer(&self, to: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        self.scoped(Engine::transfer(&self.raft, to))
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        self.scoped(Engine::shutdown(&self.raft))
    }
}

/// A manager's way to its peers.
#[derive(Clone)]
struct Port {
    network: Network,
    process: Arc<Process>,
    witness: Witness,
}

impl Port {
    /// Whoever speaks to peers as a leader is seen.
    fn look(&self) {
        if let Some(serving) = self.process.serving().filter(|_| !self.process.is_dead()) {
            let status = serving.raft.status();
            if status.is_leader() {
                self.witness.leads(status.term, status.member);
            }
        }
    }
}

impl Transport for Port {
    fn call(
        &self,
        to: MemberId,
        address: &str,
        message: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (port, address) = (self.clone(), address.to_owned());
        Box::pin(async move {
            port.look();
            let Ok(socket) = address.parse() else {
                return Err(TransportError::Unreachable { to, address, reason: "not an address".to_owned() });
            };
            let print = print_of(&message);
            let trace = port.network.trace();
            let from = port.process.host.0;
            let answer = port.network.call(&port.process, socket, ttl, async |serving| serving.handle(message).await);
            match answer.await {
                Ok(answer) => {
                    trace.note(format!("raft {from} {address} {print:08x} {:08x}", print_of(&answer)));
                    Ok(answer)
                }
                Err(CallError::Refused) => {
                    Err(TransportError::Unreachable { to, address, reason: "connection refused".to_owned() })
                }
                Err(CallError::Timeout) => Err(TransportError::Timeout { to, address, ttl }),
            }
        })
    }
}

fn peer_error(address: SocketAddr, error: CallError) -> PeerError {
    let reason = match error {
        CallError::Refused => "connection refused",
        CallError::Timeout => "no answer in time",
    };
    PeerError { address, reason: reason.to_owned() }
}

impl Peers for Port {
    fn propose(&self, to: SocketAddr, command: Command) -> BoxFuture<'static, Result<Proposed, PeerError>> {
        let port = self.clone();
        Box::pin(async move {
            let work = async |serving: Arc<Serving>| serving.core.consensus.propose_here(command).await;
            let answer = port.network.call(&port.process, to, PROPOSE_TIMEOUT, work).await;
            let answer = answer.map_err(|error| peer_error(to, error))?;
            answer.map_err(|reason| PeerError { address: to, reason })
        })
    }

    fn read_index(&self, to: SocketAddr) -> BoxFuture<'static, Result<Option<u64>, PeerError>> {
        let port = self.clone();
        Box::pin(async move {
            let work = async |serving: Arc<Serving>| serving.core.consensus.read_index_here().await;
            let answer = port.network.call(&port.process, to, READ_TIMEOUT, work).await;
            answer.map_err(|error| peer_error(to, error))
        })
    }

    fn relay(
        &self,
        to: SocketAddr,
        facts: Vec<SessionFact>,
    ) -> BoxFuture<'static, Result<Option<RelayAnswer>, PeerError>> {
        let port = self.clone();
        Box::pin(async move {
            let work = async |serving: Arc<Serving>| {
                let core = &serving.core;
                if !core.consensus.leads() {
                    return None;
                }
                core.liveness.absorb(core.consensus.member(), &facts);
                Some(RelayAnswer { settled: core.liveness.settled(&core.consensus.local()) })
            };
            let answer = port.network.call(&port.process, to, RELAY_TIMEOUT, work).await;
            answer.map_err(|error| peer_error(to, error))
        })
    }
}
