//! Replicates bytes: consensus, its log on disk, snapshots, membership. Knows nothing of what the bytes mean.
//!
//! [`Raft`] is one member. It is given a [`Disk`], a [`Transport`] to its peers and a [`StateMachine`]; the consensus
//! engine (openraft) stays behind this interface. What an acknowledged [`Raft::propose`] returned is on the disks of a
//! majority. The first error while writing ends a member for good: it neither votes nor acknowledges from then on.

mod config;
mod disk;
mod handle;
mod limits;
mod machine;
mod member;
mod members;
mod serve;
mod status;
mod transport;

mod applier;
mod codec;
mod compiled;
mod crypt;
mod log;
mod network;
mod snapshot;
mod types;
mod wire;

#[doc(hidden)]
pub use compiled::compiled;
pub use config::{Config, ConfigError};
pub use crypt::KeysError;
pub use disk::{Disk, DiskFile, Fault, Folder, MemoryDisk, Operation};
pub use handle::{BootstrapError, ProposeError, Proposed, Raft, ReadError, StartError, Starting};
pub use limits::{COMMAND_BYTES, MESSAGE_BYTES, SNAPSHOT_CHUNK_BYTES};
pub use log::{LogError, WriterMode};
pub use machine::{Halt, SnapshotSource, StateMachine};
pub use member::{ClusterTag, LogPosition, MemberId, Membership, keeps_quorum_without};
pub use members::ChangeError;
pub use snapshot::SnapshotError;
pub use status::{Progress, Role, Status, StatusWatch};
pub use transport::{Transport, TransportError};

pub use openraft::AsyncRuntime;
pub use openraft::TokioRuntime;

/// The simulator's runtime: a seed decides every random number. Use [`sim_scope`].
pub type SimRuntime = openraft_rt::deterministic_rng::DeterministicRng<TokioRuntime>;

/// Runs `future`, and all that it spawns, with the random numbers of `seed`.
///
/// For runs that repeat exactly, the tokio runtime must be current-thread, paused, and built with `rng_seed`, and each
/// restart of a member needs a seed of its own.
pub fn sim_scope<F: Future>(seed: u64, future: F) -> impl Future<Output = F::Output> {
    SimRuntime::scope(seed, future)
}
