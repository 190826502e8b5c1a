//! Every limit of the worker, with its unit and its reason.

use std::time::Duration;

use rswarm_types::limits::{HEARTBEAT_TIMEOUT_MS, STOP_GRACE_MS};

/// Containers that are being started at once: more only compete for the disk and the processors.
pub const STARTS_AT_ONCE: usize = 16;
/// How often the kernel is looked at, whatever it says by itself.
pub const REPAIR_PERIOD: Duration = Duration::from_secs(3);
/// Between two tries to make container networks as ordered.
pub const CONVERGE_RETRY: Duration = Duration::from_millis(500);
/// A task whose network cannot be made for so long has failed, in milliseconds.
pub const NETWORK_PATIENCE_MS: u64 = 10_000;
/// A signal that had no effect is sent again after so long, in milliseconds.
pub const KILL_AGAIN_MS: u64 = 5_000;
/// A removal that failed is tried again after so long, in milliseconds.
pub const REMOVE_AGAIN_MS: u64 = 2_000;
/// Between the stop signal and SIGKILL for a container that nothing is known of.
pub const STRAY_GRACE: Duration = Duration::from_millis(STOP_GRACE_MS);
/// Containers get no more than this to end when the node leaves.
pub const LEAVE_GRACE: Duration = Duration::from_millis(STOP_GRACE_MS);
/// After SIGKILL the kernel needs no longer than this, or something is stuck in it.
pub const KILL_WAIT: Duration = Duration::from_secs(10);

/// A manager must open the stream within this.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);
/// A manager must open the session within this: it may have to wait for an election.
pub const OPENED_TIMEOUT: Duration = Duration::from_millis(2_500);
const _: () = assert!(CONNECT_TIMEOUT.as_millis() < HEARTBEAT_TIMEOUT_MS as u128);
/// Pause after all managers were tried once; doubles.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
const _: () = assert!(RETRY_PAUSE_MAX.as_millis() < HEARTBEAT_TIMEOUT_MS as u128);
/// A goodbye takes no longer than this.
pub const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);
/// Statuses that no manager confirmed are sent again after so long.
pub const RESEND_AFTER: Duration = Duration::from_secs(2);
/// Messages to a manager that wait to be sent.
pub const UP_QUEUE: usize = 64;
/// Events for the daemon that wait to be taken.
pub const EVENTS_QUEUE: usize = 16;
/// Messages for the agent that wait to be taken.
pub const INBOX_QUEUE: usize = 64;
/// The whole table of assignments must fit in one message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// Log lines in one message.
pub const LOG_BATCH_LINES: usize = 256;
/// Memory that the ledger caches, in bytes: it is read once.
pub const LEDGER_CACHE_BYTES: u64 = 1 << 20;
/// Work under way may take so long to end when the daemon stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
