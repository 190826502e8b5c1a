//! Every limit of the cluster, with its unit and its reason.

/// Raft and control port, TCP.
pub const CONTROL_PORT: u16 = 2377;
/// Gossip port, TCP and UDP.
pub const GOSSIP_PORT: u16 = 7946;
/// Default VXLAN port, UDP.
pub const DATA_PATH_PORT: u16 = 4789;
/// Default port of encrypted overlays, UDP.
pub const ENCRYPTED_PORT: u16 = 51820;
/// Ports that no service may publish: the cluster speaks on them.
pub const RESERVED_PORTS: [u16; 4] = [CONTROL_PORT, GOSSIP_PORT, DATA_PATH_PORT, ENCRYPTED_PORT];
/// Published ports that are chosen for the user, lowest free first (Swarm's range).
pub const DYNAMIC_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// How often a worker says that it is alive, in milliseconds (DESIGN §4a).
pub const HEARTBEAT_PERIOD_MS: u64 = 500;
/// How long a node may be silent before its tasks are replaced, in milliseconds.
///
/// Six missed heartbeats: a busy host is late, not gone.
pub const HEARTBEAT_TIMEOUT_MS: u64 = 3_000;
const _: () = assert!(6 * HEARTBEAT_PERIOD_MS <= HEARTBEAT_TIMEOUT_MS);
/// A worker that heard nothing of its manager for so long asks whether it is there, in milliseconds.
pub const SESSION_PING_PERIOD_MS: u64 = 500;
/// A manager that does not answer within this is given up for the next one, in milliseconds.
pub const SESSION_PING_TIMEOUT_MS: u64 = 1_000;
const _: () = assert!(SESSION_PING_PERIOD_MS + SESSION_PING_TIMEOUT_MS < HEARTBEAT_TIMEOUT_MS);
/// A manager without contact with a leader for so long closes its sessions, in milliseconds.
pub const MANAGER_STALE_MS: u64 = 1_500;
const _: () = assert!(MANAGER_STALE_MS < HEARTBEAT_TIMEOUT_MS);
/// How long a daemon that restarts on purpose keeps its node from Down, in milliseconds.
pub const RESTART_GRACE_MS: u64 = 30_000;
/// Tasks of a node that is Down for so long become Orphaned, in milliseconds (Swarm: 24 h).
pub const ORPHAN_AFTER_MS: u64 = 24 * 3_600 * 1_000;
/// A task being stopped waits no longer than this for load balancers to let go of it, in milliseconds.
pub const DRAIN_WAIT_MS: u64 = 500;
/// An idle leader with a pending timer commits the cluster time so often, in milliseconds.
pub const TICK_PERIOD_MS: u64 = 10_000;

/// Changes in one Raft entry (SwarmKit's bound).
pub const BATCH_CHANGES_MAX: usize = 200;
/// Bytes in one Raft entry (SwarmKit's bound).
pub const BATCH_BYTES_MAX: usize = 1_536 * 1_024;
/// Bytes in one snapshot chunk; tonic refuses messages above 4 MiB.
pub const SNAPSHOT_CHUNK_BYTES: usize = 1_024 * 1_024;
/// Log entries between snapshots (Swarm's default).
pub const SNAPSHOT_INTERVAL: u64 = 10_000;
/// Log entries kept behind a snapshot for slow followers (Swarm's default).
pub const LOG_KEPT_ENTRIES: u64 = 500;

/// Remembered requests: at least so many, and at least [`REQUESTS_KEPT_MS`] long.
pub const REQUESTS_KEPT_MIN: usize = 10_000;
/// How long a finished request is remembered, in milliseconds of cluster time.
pub const REQUESTS_KEPT_MS: u64 = 30_000;
/// How long a client retries before it says "outcome unknown", in milliseconds.
pub const CLIENT_RETRY_MS: u64 = 20_000;
const _: () = assert!(CLIENT_RETRY_MS < REQUESTS_KEPT_MS);

/// Finished tasks kept per slot (Swarm's default).
pub const TASK_HISTORY_LIMIT: i64 = 5;
/// Failures of one service on one node, inside [`FAULT_WINDOW_MS`], that make it the last choice.
pub const FAULT_THRESHOLD: usize = 5;
/// See [`FAULT_THRESHOLD`], in milliseconds.
pub const FAULT_WINDOW_MS: u64 = 5 * 60 * 1_000;
/// A replacement waits at most so long for the old task to stop, in milliseconds (Swarm: 1 min).
pub const OLD_TASK_WAIT_MS: u64 = 60_000;
/// Swarm's default delay between restarts, in milliseconds.
pub const RESTART_DELAY_MS: u64 = 5_000;
/// Swarm's default time between the stop signal and SIGKILL, in milliseconds.
pub const STOP_GRACE_MS: u64 = 10_000;
/// Swarm's default window in which a task of an update may fail, in milliseconds.
pub const UPDATE_MONITOR_MS: u64 = 5_000;

/// Node certificates live so long, in milliseconds (Swarm's default, 2160 h).
pub const CERT_EXPIRY_MS: u64 = 2_160 * 3_600 * 1_000;
/// The least certificate life, in milliseconds (Swarm's).
pub const CERT_EXPIRY_MIN_MS: u64 = 3_600 * 1_000;

/// First VNI of a user's overlay (Swarm's range).
pub const VNI_MIN: u32 = 4_096;
/// Last VNI.
pub const VNI_MAX: u32 = (1 << 24) - 1;
/// Node numbers (conntrack zones are 16 bits wide; 0 = no zone).
pub const NODE_NUMBER_MAX: u16 = u16::MAX;
/// A node number is given again at the earliest so long after `node rm`, in milliseconds.
pub const NODE_NUMBER_REST_MS: u64 = 3_600 * 1_000;
/// Prefix length of an IPv6 subnet that is cut from a pool.
pub const SUBNET_BITS_IPV6: u8 = 64;
/// Overlay payload on a 1500-byte underlay: VXLAN over IPv4 takes 50 bytes. Nodes lower it where their
/// path carries less.
pub const OVERLAY_MTU: u32 = 1_450;
/// The least MTU a network may ask for: what every IPv4 host must take.
pub const OVERLAY_MTU_MIN: u32 = 576;
/// The least MTU of a network with IPv6 (RFC 8200).
pub const OVERLAY_MTU_MIN_IPV6: u32 = 1_280;
/// The largest MTU a network may ask for: an IPv4 packet less 50 bytes of VXLAN.
pub const OVERLAY_MTU_MAX: u32 = 65_485;
const _: () = assert!(OVERLAY_MTU_MIN <= OVERLAY_MTU && OVERLAY_MTU <= OVERLAY_MTU_MAX);
const _: () = assert!(OVERLAY_MTU_MIN_IPV6 <= OVERLAY_MTU);
/// DNS answers may be cached so long, in seconds.
pub const DNS_TTL_SECONDS: u32 = 5;

/// Characters of a service, network or stack name (a DNS label).
pub const NAME_LENGTH_MAX: usize = 63;
/// Replicas of one service.
pub const REPLICAS_MAX: u64 = 1_000_000;
/// The least memory limit in which a container starts (measured), in bytes.
pub const MEMORY_LIMIT_MIN_BYTES: u64 = 6 * 1_024 * 1_024;
/// The least CPU limit, as Docker's: a quota of 1 ms in a period of 100 ms.
pub const CPU_LIMIT_MIN_NANOS: u64 = 10_000_000;

/// Container log: bytes of one file before it is rotated.
pub const LOG_FILE_BYTES: u64 = 10 * 1_024 * 1_024;
/// Container log: files kept, the live one included.
pub const LOG_FILES: u32 = 3;

/// The feature level of the commands this build can apply.
pub const FEATURE_LEVEL: u32 = 1;
