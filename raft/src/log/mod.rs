//! The log of one member: its entries and votes, in segment files of our own.
//!
//! One writer queue takes votes and entries in call order; what waits together is written together: one `pwrite`, one
//! `fdatasync`. Nothing is acknowledged before that. The first error ends writing for good.

mod index;
mod record;
mod recover;
mod store;
mod writer;

use std::io;

pub(crate) use record::weight;
pub(crate) use recover::open;
pub(crate) use store::LogStore;
pub use writer::WriterMode;

use crate::crypt::KeysError;
use crate::member::{ClusterTag, MemberId};

/// The folder of the segments.
pub(crate) const LOG_FOLDER: &str = "log";

/// Whose log a folder holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub cluster: ClusterTag,
    pub member: MemberId,
}

/// Why a log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused.
    #[error("cannot use the raft log")]
    Io(#[source] io::Error),
    /// The data keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// Data that had been acknowledged is damaged or missing. Never cut: this member must be replaced by a fresh one,
    /// which gets the data from the others.
    #[error("the raft log is damaged: {path} at byte {offset}: {reason}; demote and promote this member to rebuild it")]
    Damaged {
        /// The segment.
        path: String,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// The folder belongs to somebody else.
    #[error(
        "{path} is the log of member {found} of cluster {found_cluster}, not of member {wanted} of cluster {wanted_cluster}"
    )]
    Foreign {
        /// The segment.
        path: String,
        /// Whose it is.
        found: MemberId,
        /// Of which cluster.
        found_cluster: ClusterTag,
        /// Who opened it.
        wanted: MemberId,
        /// Of which cluster.
        wanted_cluster: ClusterTag,
    },
}

/// The name of a segment's file.
fn segment_name(number: u64) -> String {
    format!("{LOG_FOLDER}/{number:016}.seg")
}

/// The number in a segment's file name.
fn segment_number(name: &str) -> Option<u64> {
    name.strip_suffix(".seg").filter(|digits| digits.len() == 16)?.parse().ok()
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod suite_tests;
