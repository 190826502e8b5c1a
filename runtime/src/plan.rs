//! Everything a shim needs to know to run one container; travels as JSON in the container's state folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use rswarm_types::limits;

/// A container, decided in full: nothing is looked up in the cluster any more.
///
/// What only the root filesystem can answer (user names, an empty volume's first content) is answered by the shim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// Names the state folder and the cgroup; a task's id.
    pub id: String,
    /// Unpacked layers of the image, the top one last.
    pub layers: Vec<PathBuf>,
    /// Program and arguments, never empty.
    pub argv: Vec<String>,
    /// `KEY=VALUE`; has `PATH`.
    pub env: Vec<String>,
    /// Absolute; made if the image lacks it.
    pub cwd: String,
    /// `name|uid[:group|gid]`; empty = root.
    pub user: String,
    /// More groups, names or numbers.
    pub groups: Vec<String>,
    pub hostname: String,
    /// Text of `/etc/hosts`.
    pub hosts: String,
    /// Text of `/etc/resolv.conf`.
    pub resolv_conf: String,
    pub netns: NetNs,
    pub mounts: Vec<PlannedMount>,
    pub read_only: bool,
    pub tty: bool,
    pub open_stdin: bool,
    /// Run under our own process 1.
    pub init: bool,
    /// Without `CAP_`, sorted.
    pub capabilities: Vec<String>,
    pub no_new_privileges: bool,
    /// Whether the system call filter is on.
    pub seccomp: bool,
    pub sysctls: BTreeMap<String, String>,
    pub ulimits: Vec<PlannedUlimit>,
    pub oom_score_adj: i32,
    pub resources: PlannedResources,
    pub labels: BTreeMap<String, String>,
    pub log: LogPlan,
    /// What asks the container to stop.
    pub stop_signal: i32,
}

/// The network namespace of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetNs {
    /// A namespace that somebody else made, by path.
    Path(PathBuf),
    /// The daemon's own.
    Host,
    /// A new one with nothing but a loopback device.
    None,
}

/// A mount that the user or the image asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMount {
    /// Absolute path in the container.
    pub target: String,
    pub read_only: bool,
    pub source: MountSource,
}

/// Where a mount's content comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountSource {
    Bind {
        path: PathBuf,
        recursive: bool,
        /// Make the folder if it does not exist.
        create: bool,
        /// New mounts below the source on the host appear in the container too.
        follows_host: bool,
    },
    /// A named volume that exists.
    Volume {
        name: String,
        path: PathBuf,
        subpath: String,
        copy: bool,
    },
    /// A volume that lives and dies with the container; the number names its folder.
    Anonymous {
        number: usize,
        copy: bool,
    },
    Tmpfs {
        bytes: u64,
        mode: Option<u32>,
    },
}

/// `RLIMIT_…` without the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedUlimit {
    pub name: String,
    pub soft: u64,
    pub hard: u64,
}

/// Limits of the cgroup; zero = none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedResources {
    /// Microseconds of CPU time in each [`CPU_PERIOD_US`].
    pub cpu_quota_us: u64,
    pub memory_bytes: u64,
    pub memory_reservation_bytes: u64,
    pub processes: u64,
}

/// The period of a CPU quota, Docker's, in microseconds.
pub const CPU_PERIOD_US: u64 = 100_000;

/// How output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlan {
    /// Size at which a file is rotated.
    pub file_bytes: u64,
    /// Files kept, the live one included; 0 = nothing is kept.
    pub files: u32,
}

impl Default for LogPlan {
    fn default() -> Self {
        Self { file_bytes: limits::LOG_FILE_BYTES, files: limits::LOG_FILES }
    }
}

impl ContainerPlan {
    /// Names of the volumes that the container mounts.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter_map(|mount| match &mount.source {
            MountSource::Volume { name, .. } => Some(name.as_str()),
            _ => None,
        })
    }
}
