use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message;
use rswarm_api::{Wire, pb};
use rswarm_raft::{
    ChangeError, LogPosition, MemberId, ProposeError as RaftProposeError, ReadError, Role, StateMachine, Status,
};
use rswarm_types::command::{Answer, Command};
use rswarm_types::spec::{ContainerSpec, ServiceSpec, TaskSpec};
use rswarm_types::{Refusal, ServiceId};
use tokio_util::task::TaskTracker;

use super::*;
use crate::edge::Edge;
use crate::engine::Engine;
use crate::machine::Machine;
use crate::orchestrate::harness::init;
use crate::peers::{PeerError, Peers, Proposed, RelayAnswer, SessionFact};

const TERM: u64 = 1;

/// How the next decision of a reconciler ends.
enum Fate {
    Refused,
    Lost,
}

/// The only voter: what it takes is committed at once.
struct Alone {
    machine: Mutex<(Machine, u64)>,
    fate: Mutex<Option<Fate>>,
}

impl Alone {
    fn take(&self, bytes: &[u8]) -> Result<(LogPosition, Bytes), RaftProposeError> {
        let (machine, index) = &mut *self.machine.lock().unwrap();
        let at = LogPosition { term: TERM, index: *index + 1 };
        let command = Command::from_pb(pb::Command::decode(bytes).unwrap()).unwrap();
        if matches!(command.body, Body::Reconcile(_)) {
            let mut fate = self.fate.lock().unwrap();
            match *fate {
                Some(Fate::Refused) => {
                    *fate = None;
                    let refused: Result<Answer, Refusal> = Err(Refusal::Conflict("not now".into()));
                    return Ok((at, refused.to_pb().encode_to_vec().into()));
                }
                Some(Fate::Lost) => return Err(RaftProposeError::Uncertain { reason: "the disk is slow".into() }),
                None => {}
            }
        }
        *index += 1;
        Ok((at, machine.apply(at, bytes).unwrap()))
    }
}

impl Engine for Alone {
    fn status(&self) -> Status {
        let address = "127.0.0.1:2377".to_owned();
        Status {
            member: MemberId(1),
            term: TERM,
            role: Role::Leader,
            leader: Some((MemberId(1), address.clone())),
            last_log: None,
            committed: None,
            applied: None,
            snapshot: None,
            purged: None,
            voters: BTreeMap::from([(MemberId(1), address)]),
            learners: BTreeMap::new(),
            changing: false,
            contact_ms: Some(0),
            progress: BTreeMap::new(),
            fatal: None,
        }
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn propose(&self, command: Bytes) -> BoxFuture<'static, Result<(LogPosition, Bytes), RaftProposeError>> {
        Box::pin(std::future::ready(self.take(&command)))
    }

    fn read_index(&self) -> BoxFuture<'static, Result<u64, ReadError>> {
        unreachable!()
    }

    fn handle(&self, _: Bytes) -> BoxFuture<'static, Bytes> {
        unreachable!()
    }

    fn add_learner(&self, _: MemberId, _: String) -> BoxFuture<'static, Result<(), ChangeError>> {
        unreachable!()
    }

    fn promote(&self, _: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        unreachable!()
    }

    fn remove(&self, _: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        unreachable!()
    }

    fn transfer(&self, _: MemberId) -> BoxFuture<'static, Result<(), ChangeError>> {
        unreachable!()
    }

    fn shutdown(&self) -> BoxFuture<'static, ()> {
        unreachable!()
    }
}

struct Nobody;

impl Peers for Nobody {
    fn propose(&self, _: SocketAddr, _: Command) -> BoxFuture<'static, Result<Proposed, PeerError>> {
        unreachable!()
    }

    fn read_index(&self, _: SocketAddr) -> BoxFuture<'static, Result<Option<u64>, PeerError>> {
        unreachable!()
    }

    fn relay(&self, _: SocketAddr, _: Vec<SessionFact>) -> BoxFuture<'static, Result<Option<RelayAnswer>, PeerError>> {
        unreachable!()
    }
}

fn web() -> Body {
    let container = ContainerSpec { image: "nginx:1.27".into(), ..ContainerSpec::default() };
    let spec = ServiceSpec {
        name: "web".into(),
        task: TaskSpec { container, ..TaskSpec::default() },
        ..ServiceSpec::default()
    };
    Body::CreateService { id: ServiceId(50), spec: Arc::new(spec), auth: Default::default() }
}

/// How long a service waits for its task when the first decision about it ends so, and then all goes well.
async fn waits(fate: Fate) -> Duration {
    let (mut machine, current, feed) = Machine::new();
    machine.applied_blank(LogPosition { term: TERM, index: 1 });
    let engine = Arc::new(Alone { machine: Mutex::new((machine, 1)), fate: Mutex::default() });
    let number = Arc::new(Mutex::new(1u128 << 64));
    let random = move || {
        let mut number = number.lock().unwrap();
        *number += 1;
        *number
    };
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let edge = Edge::new(random, || TimestampMs(1));
    let consensus =
        Consensus::start(Arc::clone(&engine) as _, Arc::new(Nobody), current, feed, edge, &tasks, stop.clone());
    consensus.propose_own(init()).await.unwrap();
    let work = async {
        // The first look at everything is over.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let is_lost = matches!(fate, Fate::Lost);
        *engine.fate.lock().unwrap() = Some(fate);
        consensus.propose_own(web()).await.unwrap();
        if is_lost {
            // Longer than one proposal is tried again.
            tokio::time::sleep(Duration::from_millis(10_500)).await;
            *engine.fate.lock().unwrap() = None;
        }
        let began = Instant::now();
        consensus.watch().wait_for(|snapshot| snapshot.state.task_count() == 1).await.unwrap();
        began.elapsed()
    };
    let waited = tokio::select! {
        () = reconcile(&consensus, TERM) => unreachable!(),
        waited = work => waited,
    };
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    waited
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_or_lost_is_decided_again_without_an_event() {
    assert!(waits(Fate::Refused).await < Duration::from_secs(1));
    assert!(waits(Fate::Lost).await < Duration::from_secs(1));
}
