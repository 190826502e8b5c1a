//! Snapshots: one sealed file each, of which the newest counts.

mod file;
mod receive;
mod store;

use std::io;

pub(crate) use file::{SnapshotFile, TransferId};
pub(crate) use receive::{Chunk, Received, Receiver};
pub(crate) use store::SnapshotStore;

use crate::member::LogPosition;

/// The folder of the snapshots.
pub(crate) const SNAPSHOT_FOLDER: &str = "snapshot";

/// Why the snapshots of a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The operating system refused.
    #[error("cannot use the raft snapshots")]
    Io(#[source] io::Error),
    /// The file is not what was once written.
    #[error("the raft snapshot is damaged: {path}: {reason}; demote and promote this member to rebuild it")]
    Damaged {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// Entries were purged from the log, and no snapshot has them.
    #[error(
        "no raft snapshot in {path} reaches the purged log entry {purged}; demote and promote this member to rebuild it"
    )]
    Missing {
        /// The folder.
        path: String,
        /// The last purged entry.
        purged: LogPosition,
    },
}
