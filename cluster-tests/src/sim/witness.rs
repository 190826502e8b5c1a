//! Sees every entry applied, every container started and every leader, and judges by the invariants.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rswarm_manager::Snapshot;
use rswarm_raft::MemberId;
use rswarm_store::State;
use rswarm_types::spec::Protocol;
use rswarm_types::{NodeId, RequestId, TaskId};
use tokio_util::sync::CancellationToken;

use super::trace::{Event, Trace};
use crate::invariants::Violation;
use crate::invariants::i01_acknowledged_writes::{Acknowledged, Write};
use crate::invariants::i02_one_leader::Leaders;
use crate::invariants::i06_equal_digests::Digests;
use crate::invariants::i14_only_forward::Lives;
use crate::invariants::i20_unique_addresses::InUse;
use crate::invariants::{i10_one_task_per_slot, i16_capacity, i20_unique_addresses};

/// After so many entries the store audits itself too: it takes long.
const AUDIT_EVERY: u64 = 50;

/// One for all hosts. Cheap to clone.
#[derive(Clone)]
pub struct Witness {
    inner: Arc<Mutex<Inner>>,
    failed: CancellationToken,
    trace: Trace,
}

#[derive(Default)]
struct Inner {
    acknowledged: Acknowledged,
    leaders: Leaders,
    digests: Digests,
    lives: Lives,
    /// The newest state that any manager had.
    newest: State,
    entries: u64,
    in_use: BTreeMap<String, Vec<InUse>>,
    violation: Option<Violation>,
}

impl Witness {
    pub fn new(trace: Trace) -> Self {
        Self { inner: Arc::default(), failed: CancellationToken::new(), trace }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is wrong; only the first thing counts.
    pub fn accuse(&self, violation: Violation) {
        let mut inner = self.lock();
        if inner.violation.is_none() {
            self.trace.note(format!("VIOLATION {violation}"));
            inner.violation = Some(violation);
            self.failed.cancel();
        }
    }

    fn accuse_all(&self, violations: impl IntoIterator<Item = Violation>) {
        violations.into_iter().for_each(|violation| self.accuse(violation));
    }

    /// Waits until something is wrong.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    pub fn violation(&self) -> Option<Violation> {
        self.lock().violation.clone()
    }

    /// A manager applied an entry, or took a snapshot.
    pub fn applied(&self, manager: &str, snapshot: &Snapshot) {
        let state = &snapshot.state;
        let (index, digest) = (state.index(), state.digest());
        let mut found = Vec::new();
        {
            let mut inner = self.lock();
            found.extend(inner.digests.observe(manager, index, digest));
            if index > inner.newest.index() {
                inner.newest = state.clone();
                inner.entries += 1;
                found.extend(inner.lives.observe(state));
                found.extend(i10_one_task_per_slot::check(state));
                found.extend(i16_capacity::check(state));
                found.extend(i20_unique_addresses::check(
                    &format!("after entry {index}"),
                    i20_unique_addresses::held(state),
                ));
                if inner.entries.is_multiple_of(AUDIT_EVERY) {
                    found.extend(state.audit().into_iter().map(|text| Violation::new("store audit", text)));
                }
            }
        }
        let short = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        self.trace.note(format!("{manager} applied {index} {short:08x}"));
        self.accuse_all(found);
    }

    /// A manager took a whole state, from its disk or from a peer.
    pub fn restored(&self, manager: &str, snapshot: &Snapshot) {
        self.trace.count(Event::SnapshotInstalled);
        self.applied(manager, snapshot);
    }

    /// A member says that it leads.
    pub fn leads(&self, term: u64, member: MemberId) {
        let found = self.lock().leaders.observe(term, member);
        self.accuse_all(found);
    }

    /// A client was told that its write is done.
    pub fn acknowledge(&self, caller: NodeId, request: RequestId, write: Write) {
        self.lock().acknowledged.acknowledge(caller, request, write);
    }

    /// A client asks to remove an object.
    pub fn condemn(&self, object: u128) {
        self.lock().acknowledged.condemn(object);
    }

    /// Compares all that was acknowledged with a settled state.
    pub fn check_acknowledged(&self, manager: &str, state: &State) {
        let found = self.lock().acknowledged.check(manager, state);
        self.accuse_all(found);
    }

    /// A container starts on a host, which then has these ports in use.
    pub fn started(&self, host: &str, task: TaskId, ports: &[(u16, Protocol, TaskId)]) {
        let found = self.lock().lives.started(task);
        self.accuse_all(found);
        self.accuse_all(i16_capacity::check_host(host, ports));
    }

    pub fn ended(&self, task: TaskId) {
        self.lock().lives.ended(task);
    }

    /// A host has these addresses in use from now on.
    pub fn uses(&self, host: &str, in_use: Vec<InUse>) {
        let mut inner = self.lock();
        let unallocated: Vec<Violation> =
            in_use.iter().filter(|u| !is_allocated(&inner.newest, u)).map(never_given).collect();
        inner.in_use.insert(host.to_owned(), in_use);
        let all: Vec<InUse> = inner.in_use.values().flatten().cloned().collect();
        drop(inner);
        self.accuse_all(unallocated);
        self.accuse_all(i20_unique_addresses::check_hosts(&all));
    }

    pub fn counts(&self) -> Counts {
        let inner = self.lock();
        Counts { acknowledged: inner.acknowledged.len(), terms: inner.leaders.terms(), entries: inner.entries }
    }
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub acknowledged: usize,
    pub terms: usize,
    pub entries: u64,
}

/// Whether the newest state gave the address to the task; a task without a record had it once.
fn is_allocated(state: &State, used: &InUse) -> bool {
    let Some(task) = state.task(used.task) else { return true };
    let own = task.attachments.iter().map(|a| a.addresses);
    own.chain([task.ingress]).any(|addresses| addresses.iter().any(|address| address == used.address))
}

fn never_given(used: &InUse) -> Violation {
    let text = format!("task {} on {} uses {}, which was never given to it", used.task, used.host, used.address);
    Violation::new("I20", text)
}
