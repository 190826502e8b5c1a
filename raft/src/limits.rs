//! Every bound of this crate, with its unit and its reason.

/// The size a log segment is allocated with: long enough that a rotation (two more flushes) is rare,
/// short enough that purging gives space back soon.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;

/// A group is closed once its records exceed this, so that one flush stays short and a segment holds several.
pub(crate) const GROUP_BYTES: usize = 4 << 20;
const _: () = assert!(GROUP_BYTES as u64 * 2 <= SEGMENT_BYTES);

/// The largest command, in bytes: a stack of Swarm's largest size with room to spare, and well within a group.
pub const COMMAND_BYTES: usize = 2 << 20;
const _: () = assert!(COMMAND_BYTES < GROUP_BYTES);

/// Entries are sent to a peer in messages of about this size, in bytes; a larger entry travels alone.
pub(crate) const APPEND_BYTES: usize = 1 << 20;

/// The most entries in one message to a peer.
pub(crate) const APPEND_ENTRIES: u64 = 4096;

/// A snapshot travels in pieces of at most this many bytes.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// The largest message that [`crate::Transport`] is given, in bytes: transports must allow it.
pub const MESSAGE_BYTES: usize = 4 << 20;
const _: () = assert!(APPEND_BYTES + COMMAND_BYTES + (64 << 10) < MESSAGE_BYTES);

/// Entries are kept in memory up to this many bytes; older ones are read back from their segment.
pub(crate) const CACHE_BYTES: usize = 64 << 20;

/// Proposals under way at once on one member; more wait their turn.
pub(crate) const PROPOSALS: usize = 16 << 10;

/// How long the log is idle before a marker group follows the last one, in milliseconds, so that damage
/// to acknowledged data is never at the end, where it would look like a torn write.
pub(crate) const MARKER_IDLE_MS: u64 = 100;

/// The plain bytes sealed together in a snapshot file.
pub(crate) const FRAME_BYTES: usize = 64 << 10;

/// How many entries a learner may lack when it is given a vote: fewer than a second's worth under load.
pub(crate) const PROMOTION_LAG: u64 = 1_000;

/// How long all the pieces of a snapshot may take together, in milliseconds: hours of state at 1 MB/s come first.
pub(crate) const SNAPSHOT_TRANSFER_MS: u64 = 10 * 60 * 1000;

/// How long to wait before a snapshot is asked for again, in milliseconds: one that is being taken cannot be joined.
pub(crate) const SNAPSHOT_RETRY_MS: u64 = 200;

/// How long a membership change waits for the one before, or for a fresh leader's first commit, in milliseconds.
pub(crate) const CHANGE_WAIT_MS: u64 = 2_000;

/// How often it looks, in milliseconds.
pub(crate) const CHANGE_RETRY_MS: u64 = 20;

/// How often a sender asks whether its snapshot is installed, in milliseconds.
pub(crate) const SNAPSHOT_POLL_MS: u64 = 100;
