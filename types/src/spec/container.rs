//! What runs inside a task. Every field of Docker's `ContainerSpec` for Linux has a home.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::units::Bytes;

/// A container to run. Empty and `None` mean "as the image says".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// Reference with the digest it was resolved to, e.g. `nginx:1.27@sha256:…`.
    pub image: String,
    pub labels: BTreeMap<String, String>,
    /// Replaces the image's entrypoint (`--entrypoint`; Docker's `Command`).
    pub command: Vec<String>,
    /// Replaces the image's command (Docker's `Args`).
    pub args: Vec<String>,
    /// `KEY=VALUE`, in order.
    pub env: Vec<String>,
    pub hostname: String,
    pub dir: String,
    /// `name|uid[:group|gid]`.
    pub user: String,
    pub groups: Vec<String>,
    pub privileges: Privileges,
    pub tty: bool,
    pub open_stdin: bool,
    pub read_only: bool,
    pub stop_signal: String,
    /// Between the stop signal and SIGKILL; default 10 s.
    pub stop_grace: Option<Duration>,
    pub healthcheck: Option<Healthcheck>,
    pub mounts: Vec<Mount>,
    pub hosts: Vec<HostEntry>,
    pub dns: DnsConfig,
    pub init: Option<bool>,
    pub sysctls: BTreeMap<String, String>,
    /// Without the `CAP_` prefix, upper case; `ALL` is allowed.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub ulimits: Vec<Ulimit>,
    /// -1000 to 1000.
    pub oom_score_adj: i32,
}

/// `--dns`, `--dns-search`, `--dns-option`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfig {
    pub nameservers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// Security options that Docker's API has and its CLI has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privileges {
    pub no_new_privileges: bool,
    /// Runs without the seccomp profile.
    pub seccomp_unconfined: bool,
}

/// `--host`: a line of `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    pub name: String,
    pub address: IpAddr,
}

/// How a container is asked whether it is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `[]` inherit, `["NONE"]` off, `["CMD", …]` argv, `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    /// Default 30 s.
    pub interval: Option<Duration>,
    /// Default 30 s.
    pub timeout: Option<Duration>,
    /// Default 0 s.
    pub start_period: Option<Duration>,
    /// Default 5 s.
    pub start_interval: Option<Duration>,
    /// Default 3; 0 = default.
    pub retries: u32,
}

impl Healthcheck {
    /// Whether the check was switched off with `--no-healthcheck`.
    pub fn is_disabled(&self) -> bool {
        self.test.first().is_some_and(|t| t == "NONE")
    }
}

/// One resource limit, `--ulimit name=soft[:hard]`; -1 = unlimited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// What kind of source a mount has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MountKind {
    #[default]
    Volume,
    Bind,
    Tmpfs,
}

/// One `--mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    /// Host path, volume name, or empty (anonymous volume, tmpfs).
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    pub read_only: bool,
    pub bind: BindOptions,
    pub volume: VolumeOptions,
    pub tmpfs: TmpfsOptions,
}

/// `bind-…` options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BindOptions {
    /// rprivate (default), private, rshared, shared, rslave, slave.
    pub propagation: String,
    pub non_recursive: bool,
    pub create_source: bool,
}

/// `volume-…` options. Only the `local` driver exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeOptions {
    pub no_copy: bool,
    pub labels: BTreeMap<String, String>,
    pub subpath: String,
}

/// `tmpfs-…` options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TmpfsOptions {
    /// 0 = no limit.
    pub size: Bytes,
    /// Default 1777 (octal).
    pub mode: Option<u32>,
}
