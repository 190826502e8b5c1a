//! `rswarm daemon`.

use std::path::PathBuf;

use clap::Args;

/// Run this host's daemon
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  rswarm daemon --label zone=a --insecure-registry registry:5000")]
pub struct Daemon {
    /// Where images, volumes and the cluster's state are kept [default: /var/lib/rswarm]
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
    /// Where sockets and namespaces are kept, gone after a reboot [default: /run/rswarm]
    #[arg(long, value_name = "PATH")]
    pub run_dir: Option<PathBuf>,
    /// File of settings, which flags win over [default: /etc/rswarm/config.toml if it is there]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    /// Registry to be spoken to without TLS; loopback needs no flag
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
    /// The cgroup that containers are put under [default: /rswarm]
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// "embedded", or an OCI runtime: runc, crun, or a path [default: embedded]
    #[arg(long, value_name = "NAME|PATH")]
    pub runtime: Option<String>,
    /// Label of this node, engine.labels.KEY in constraints
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Give containers another engine's default capabilities: docker (14 in place of 11)
    #[arg(long, value_name = "ENGINE")]
    pub compat_caps: Option<String>,
    /// Let no program of a container gain privileges, whatever its service says
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub no_new_privileges: Option<bool>,
    /// error, warn, info, debug, trace, off, or a filter such as info,rswarm_raft=debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
}
