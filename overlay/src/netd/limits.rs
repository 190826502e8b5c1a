//! Every limit of netd and its client, with its unit and its reason.

use std::time::Duration;

/// Bytes in one frame: a table of 100,000 tasks is about 20 MB.
pub const FRAME_BYTES_MAX: u32 = 64 * 1024 * 1024;

/// Bytes of a query that we read: more is no question.
pub const QUERY_BYTES_MAX: usize = 4096;
/// Bytes of an answer over UDP, whatever the client offers: loopback, so no fragments.
pub const UDP_ANSWER_BYTES_MAX: u16 = 4096;
/// Bytes of an answer over UDP to a client that offers nothing (RFC 1035 §4.2.1).
pub const UDP_ANSWER_BYTES_MIN: u16 = 512;

/// Open TCP connections per sandbox; more wait in the backlog.
pub const TCP_CONNECTIONS_MAX: usize = 64;
/// How long a TCP connection may be silent, take for a query, or leave an answer unread.
pub const TCP_IDLE: Duration = Duration::from_secs(10);
/// The same while more than half of the connections are open, so that some are soon free again.
pub const TCP_IDLE_BUSY: Duration = Duration::from_secs(1);
const _: () = assert!(TCP_IDLE_BUSY.as_millis() < TCP_IDLE.as_millis());
/// Queries of one TCP connection that are worked on at once; more wait in its socket.
pub const TCP_PIPELINE_MAX: usize = 16;
/// After a failed `accept`, such as out of descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Queries of one sandbox that wait for outside servers (Docker's bound); more get SERVFAIL.
pub const FORWARDS_PER_SANDBOX: usize = 1024;
/// The same for the node: a flood in four sandboxes leaves descriptors for the rest.
pub const FORWARDS_MAX: usize = 4 * FORWARDS_PER_SANDBOX;
const _: () = assert!(FORWARDS_PER_SANDBOX < FORWARDS_MAX);
/// Outside servers that one query may ask (Docker's bound, and the resolver's).
pub const UPSTREAMS_MAX: usize = 3;
/// How long all outside servers together may think (Docker's bound for each): a resolver gives up after 5 s.
pub const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(4);
/// A server that is silent so long is joined by the next, and asked again over UDP: a packet may have been lost.
pub const UPSTREAM_HEDGE: Duration = Duration::from_secs(1);
const _: () = assert!(UPSTREAM_HEDGE.as_millis() * (UPSTREAMS_MAX as u128 - 1) < UPSTREAM_TIMEOUT.as_millis());
/// Failures in a row after which a server is asked last: single packets get lost everywhere.
pub const UPSTREAM_FAILURES_MAX: u32 = 3;
/// How long it is then asked last.
pub const UPSTREAM_PENALTY: Duration = Duration::from_secs(5);
const _: () = assert!(UPSTREAM_HEDGE.as_millis() < UPSTREAM_PENALTY.as_millis());
/// How often the host's resolv.conf is looked at, at most.
pub const RESOLV_CONF_PERIOD: Duration = Duration::from_secs(1);

/// Descriptors that netd asks for: three per sandbox, one or two per published port, and one per server that a forward
/// waits for. While no server answers, a fifth of them is left.
pub const DESCRIPTORS_MIN: u64 = 16_384;
const _: () = assert!((FORWARDS_MAX * UPSTREAMS_MAX) as u64 * 5 < DESCRIPTORS_MIN * 4);
/// Bytes of `netd.log` above which a new netd moves it aside.
pub const LOG_BYTES_MAX: u64 = 1024 * 1024;
/// How the kernel weighs netd when memory runs out: nearly last.
pub const OOM_SCORE: i32 = -900;
/// How long a new netd waits for the lock of one that is ending.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at a lock or a socket that is about to come.
pub const POLL_PERIOD: Duration = Duration::from_millis(5);

/// How long the daemon waits for a new netd to answer.
pub const START_TIMEOUT: Duration = Duration::from_secs(15);
const _: () = assert!(LOCK_TIMEOUT.as_millis() < START_TIMEOUT.as_millis());
/// How long netd may take for one request before the daemon kills it and starts another.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How long netd may take to end when asked to.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two starts of a netd that keeps dying.
pub const RESTART_PAUSE: Duration = Duration::from_secs(1);
