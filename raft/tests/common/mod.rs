//! A cluster in one process: members over an in-memory network.

#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rswarm_raft::{
    AsyncRuntime, ClusterTag, Config, Disk, Halt, LogPosition, MemberId, Membership, ProposeError, Raft,
    SnapshotSource, StartError, StateMachine, Transport, TransportError, WriterMode,
};

pub const CLUSTER: ClusterTag = ClusterTag([7; 16]);

/// Keeps every command, in order, and what else it was told.
#[derive(Clone, Default)]
pub struct Journal(pub Arc<Mutex<State>>);

#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct State {
    pub commands: Vec<Vec<u8>>,
    pub last: LogPosition,
    pub blanks: u64,
    pub membership: Membership,
    pub restored: u64,
}

impl StateMachine for Journal {
    fn apply(&mut self, at: LogPosition, command: &[u8]) -> Result<Bytes, Halt> {
        if command == b"halt" {
            return Err(Halt("the command is unknown".to_owned()));
        }
        assert_ne!(command, b"panic", "asked to panic");
        let mut state = self.0.lock().unwrap();
        assert!(at > state.last || state.last == LogPosition::default(), "{at} after {}", state.last);
        state.last = at;
        state.commands.push(command.to_vec());
        Ok(Bytes::copy_from_slice(command))
    }

    fn applied_blank(&mut self, at: LogPosition) {
        let mut state = self.0.lock().unwrap();
        state.last = at;
        state.blanks += 1;
    }

    fn applied_membership(&mut self, at: LogPosition, membership: &Membership) {
        let mut state = self.0.lock().unwrap();
        state.last = at;
        state.membership = membership.clone();
    }

    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(View(self.0.lock().unwrap().clone()))
    }

    fn restore(&mut self, at: LogPosition, membership: &Membership, snapshot: &mut dyn Read) -> io::Result<()> {
        let mut commands = Vec::new();
        let mut len = [0; 4];
        while snapshot.read(&mut len[..1])? == 1 {
            snapshot.read_exact(&mut len[1..])?;
            let mut command = vec![0; u32::from_le_bytes(len) as usize];
            snapshot.read_exact(&mut command)?;
            commands.push(command);
        }
        let mut state = self.0.lock().unwrap();
        let restored = state.restored + 1;
        *state = State { commands, last: at, blanks: 0, membership: membership.clone(), restored };
        Ok(())
    }
}

struct View(State);

impl SnapshotSource for View {
    fn write(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        for command in &self.0.commands {
            out.write_all(&(command.len() as u32).to_le_bytes())?;
            out.write_all(command)?;
        }
        Ok(())
    }
}

/// How long the next message takes; `None` = it is lost.
type Delay = Box<dyn FnMut() -> Option<Duration> + Send>;

/// Who is reachable, and how.
pub struct Net<R: AsyncRuntime> {
    members: Mutex<BTreeMap<MemberId, Raft<R>>>,
    cut: Mutex<BTreeSet<MemberId>>,
    delay: Mutex<Option<Delay>>,
    began: tokio::time::Instant,
    pub trace: Mutex<Vec<String>>,
}

impl<R: AsyncRuntime> Net<R> {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            began: tokio::time::Instant::now(),
            members: Mutex::default(),
            cut: Mutex::default(),
            delay: Mutex::default(),
            trace: Mutex::default(),
        })
    }

    pub fn cut(&self, member: MemberId) {
        self.cut.lock().unwrap().insert(member);
    }

    pub fn heal(&self, member: MemberId) {
        self.cut.lock().unwrap().remove(&member);
    }

    /// Each message takes as long as `delay` says, or is lost.
    pub fn set_delay(&self, delay: impl FnMut() -> Option<Duration> + Send + 'static) {
        *self.delay.lock().unwrap() = Some(Box::new(delay));
    }

    /// One way: it takes its time, or is lost, which shows when the sender's time is up.
    async fn travel(&self, to: MemberId, address: &str, ttl: Duration) -> Result<(), TransportError> {
        let pause = self.delay.lock().unwrap().as_mut().map(|delay| delay());
        match pause {
            None => Ok(()),
            Some(Some(delay)) => {
                R::sleep(delay).await;
                Ok(())
            }
            Some(None) => {
                R::sleep(ttl).await;
                Err(TransportError::Timeout { to, address: address.to_owned(), ttl })
            }
        }
    }

    pub fn leave(&self, member: MemberId) {
        self.members.lock().unwrap().remove(&member);
    }

    pub fn note(&self, line: String) {
        self.trace.lock().unwrap().push(format!("{:?} {line}", self.began.elapsed()));
    }
}

struct Port<R: AsyncRuntime> {
    net: Arc<Net<R>>,
    from: MemberId,
}

impl<R: AsyncRuntime> Transport for Port<R> {
    fn call(
        &self,
        to: MemberId,
        address: &str,
        message: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (net, from, address) = (Arc::clone(&self.net), self.from, address.to_owned());
        async move {
            net.travel(to, &address, ttl).await?;
            let cut = |id: &MemberId| net.cut.lock().unwrap().contains(id);
            let peer = net.members.lock().unwrap().get(&to).cloned();
            let peer = peer.filter(|_| !cut(&from) && !cut(&to));
            net.note(format!("{from} {to} {:x} {}", crc(&message), peer.is_some()));
            let Some(peer) = peer else {
                return Err(TransportError::Unreachable { to, address, reason: "nobody is there".to_owned() });
            };
            let answer = peer.handle(message).await;
            net.travel(to, &address, ttl).await?;
            if cut(&from) || cut(&to) {
                return Err(TransportError::Timeout { to, address, ttl });
            }
            net.note(format!("{to} {from} {:x}", crc(&answer)));
            Ok(answer)
        }
        .boxed()
    }
}

/// A short name for a message, so that traces show what differs.
fn crc(message: &[u8]) -> u32 {
    message.iter().fold(0, |sum: u32, byte| sum.rotate_left(5) ^ u32::from(*byte))
}

/// One member and what it has.
pub struct Member<R: AsyncRuntime> {
    pub raft: Raft<R>,
    pub journal: Journal,
}

pub struct Setup {
    pub writer: WriterMode,
    pub snapshot_every: u64,
    pub keep_entries: u64,
    pub snapshot_chunk_timeout_ms: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self { writer: WriterMode::Thread, snapshot_every: 10_000, keep_entries: 500, snapshot_chunk_timeout_ms: 5_000 }
    }
}

impl Setup {
    pub async fn start<R: AsyncRuntime>(
        &self,
        net: &Arc<Net<R>>,
        id: u64,
        disk: Arc<dyn Disk>,
    ) -> Result<Member<R>, StartError> {
        let journal = Journal::default();
        let config = Config {
            writer: self.writer,
            snapshot_every: self.snapshot_every,
            keep_entries: self.keep_entries,
            snapshot_chunk_timeout_ms: self.snapshot_chunk_timeout_ms,
            ..Config::new(CLUSTER, MemberId(id), disk)
        };
        let port = Port { net: Arc::clone(net), from: MemberId(id) };
        let raft = Raft::<R>::start(config, Arc::new(port), journal.clone()).await?;
        net.members.lock().unwrap().insert(MemberId(id), raft.clone());
        Ok(Member { raft, journal })
    }
}

pub fn address(id: u64) -> String {
    format!("10.0.0.{id}:2377")
}

/// Waits until `found` finds something; panics with `what` after 20 s.
pub async fn eventually<R: AsyncRuntime, T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..4000 {
        if let Some(found) = found() {
            return found;
        }
        R::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never happened that {what}");
}

/// Makes a cluster: the first bootstraps, the others are added and promoted.
pub async fn form<R: AsyncRuntime>(members: &[&Member<R>]) {
    let first = &members[0].raft;
    first.bootstrap(address(first.member().0)).await.unwrap();
    eventually::<R, _>("the first member leads", || first.status().is_leader().then_some(())).await;
    for other in &members[1..] {
        join(first, &other.raft).await;
    }
}

pub async fn join<R: AsyncRuntime>(leader: &Raft<R>, other: &Raft<R>) {
    leader.add_learner(other.member(), address(other.member().0)).await.unwrap();
    leader.wait_caught_up(other.member(), Duration::from_secs(20)).await.unwrap();
    leader.promote_to_voter(other.member()).await.unwrap();
}

/// Proposes until somebody accepts, as a client whose commands may be applied twice.
pub async fn write<R: AsyncRuntime>(members: &[&Member<R>], command: &str) -> MemberId {
    for _ in 0..2000 {
        for member in members {
            if !member.raft.status().is_leader() {
                continue;
            }
            match member.raft.propose(Bytes::from(command.to_owned())).await {
                Ok(done) => {
                    assert_eq!(done.answer, command);
                    return member.raft.member();
                }
                Err(ProposeError::TooLarge { .. }) => panic!("too large"),
                Err(_) => {}
            }
        }
        R::sleep(Duration::from_millis(5)).await;
    }
    panic!("nobody accepts {command}");
}

pub fn leader<'a, R: AsyncRuntime>(members: &[&'a Member<R>]) -> Option<&'a Member<R>> {
    members.iter().copied().find(|member| member.raft.status().is_leader())
}
