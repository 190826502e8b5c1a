//! What happened, in order: equal for equal seeds.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Something that hurts a cluster, or heals it: counted, so that a run in which nothing happens shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Killed,
    PowerCut,
    StoppedInOrder,
    LinkCut,
    MessageLost,
    ContainerDied,
    WorkFailed,
    LeaderLost,
    SnapshotInstalled,
}

impl Event {
    pub const ALL: [Self; 9] = [
        Self::Killed,
        Self::PowerCut,
        Self::StoppedInOrder,
        Self::LinkCut,
        Self::MessageLost,
        Self::ContainerDied,
        Self::WorkFailed,
        Self::LeaderLost,
        Self::SnapshotInstalled,
    ];
}

/// How often each thing happened.
pub type Events = BTreeMap<Event, u64>;

/// The lines of a run. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trace {
    began: Instant,
    lines: Arc<Mutex<Vec<String>>>,
    events: Arc<Mutex<Events>>,
}

impl Default for Trace {
    fn default() -> Self {
        Self { began: Instant::now(), lines: Arc::default(), events: Arc::default() }
    }
}

impl Trace {
    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line with the virtual time.
    pub fn note(&self, text: impl Display) {
        let at = self.elapsed().as_millis();
        self.lock().push(format!("{:>3}.{:03} {text}", at / 1_000, at % 1_000));
    }

    /// Counts.
    pub fn count(&self, event: Event) {
        *self.events.lock().unwrap_or_else(PoisonError::into_inner).entry(event).or_default() += 1;
    }

    pub fn events(&self) -> Events {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Virtual time since the run began.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// All lines; nothing is left.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock())
    }
}

/// A number for a whole trace (FNV-1a).
pub fn hash(lines: &[String]) -> u64 {
    let bytes = lines.iter().flat_map(|line| line.bytes().chain(std::iter::once(b'\n')));
    bytes.fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// A short name for a message.
pub fn print_of(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |sum: u32, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
