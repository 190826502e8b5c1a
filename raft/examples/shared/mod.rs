//! Three members in one process, for the examples that measure.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rswarm_raft::{
    ClusterTag, Config, Disk, Halt, LogPosition, MemberId, Membership, Raft, SnapshotSource, StateMachine, Transport,
    TransportError,
};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Counts commands: the state machine costs nothing.
#[derive(Default)]
pub struct Count(u64);

impl StateMachine for Count {
    fn apply(&mut self, _: LogPosition, _: &[u8]) -> Result<Bytes, Halt> {
        self.0 += 1;
        Ok(Bytes::new())
    }
    fn applied_blank(&mut self, _: LogPosition) {}
    fn applied_membership(&mut self, _: LogPosition, _: &Membership) {}
    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Count(self.0))
    }
    fn restore(&mut self, _: LogPosition, _: &Membership, snapshot: &mut dyn Read) -> std::io::Result<()> {
        let mut count = [0; 8];
        snapshot.read_exact(&mut count)?;
        self.0 = u64::from_le_bytes(count);
        Ok(())
    }
}

impl SnapshotSource for Count {
    fn write(self: Box<Self>, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.0.to_le_bytes())
    }
}

/// Calls members directly: the network costs nothing either.
#[derive(Clone, Default)]
pub struct Net(Arc<Mutex<Reach>>);

/// Who is there.
#[derive(Default)]
pub struct Reach {
    members: BTreeMap<MemberId, Raft>,
    /// Nobody hears these, nor do they hear anybody.
    pub cut: BTreeSet<MemberId>,
}

impl Net {
    /// Who hears whom, to look at and to change.
    pub fn reach(&self) -> MutexGuard<'_, Reach> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a member with the usual settings, as changed by `change`.
    pub async fn start(&self, id: u64, disk: Arc<dyn Disk>, change: impl FnOnce(&mut Config)) -> Result<Raft, Failure> {
        let member = MemberId(id);
        let mut config = Config::new(ClusterTag([1; 16]), member, disk);
        change(&mut config);
        let port = Port { net: self.clone(), from: member };
        let raft = Raft::start(config, Arc::new(port), Count::default()).await?;
        self.reach().members.insert(member, raft.clone());
        Ok(raft)
    }

    /// Forgets the members, which hold each other by it.
    pub fn clear(&self) {
        self.reach().members.clear();
    }
}

struct Port {
    net: Net,
    from: MemberId,
}

impl Transport for Port {
    fn call(
        &self,
        to: MemberId,
        address: &str,
        message: Bytes,
        ttl: Duration,
    ) -> BoxFuture<'static, Result<Bytes, TransportError>> {
        let (net, from, address) = (self.net.clone(), self.from, address.to_owned());
        async move {
            let is_cut = || {
                let reach = net.reach();
                reach.cut.contains(&from) || reach.cut.contains(&to)
            };
            let peer = net.reach().members.get(&to).cloned();
            let Some(peer) = peer.filter(|_| !is_cut()) else {
                // Silence, as behind a dead link: a refused connection would tell at once.
                tokio::time::sleep(ttl).await;
                return Err(TransportError::Timeout { to, address, ttl });
            };
            let answer = peer.handle(message).await;
            if is_cut() {
                tokio::time::sleep(ttl).await;
                return Err(TransportError::Timeout { to, address, ttl });
            }
            Ok(answer)
        }
        .boxed()
    }
}

/// Makes one cluster of members that have just begun; the first leads.
pub async fn form(members: &[Raft]) -> Result<(), Failure> {
    let [leader, others @ ..] = members else { return Ok(()) };
    leader.bootstrap(String::new()).await?;
    leader.watch().until(rswarm_raft::Status::is_leader).await;
    for raft in others {
        leader.add_learner(raft.member(), String::new()).await?;
        leader.wait_caught_up(raft.member(), Duration::from_secs(10)).await?;
        leader.promote_to_voter(raft.member()).await?;
    }
    Ok(())
}
