//! What this host is: the description that a node opens its sessions with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use rswarm_types::limits::FEATURE_LEVEL;
use rswarm_types::node::NodeDescription;
use rswarm_types::spec::Platform;
use rswarm_types::units::{Bytes, NanoCpus};

use crate::address::{Local, local_addresses};

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The host as Go's platform names call it.
pub fn platform() -> Platform {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform { os: "linux".into(), architecture: architecture.into() }
}

/// This host's name.
pub fn hostname() -> String {
    nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Memory of the host, in bytes.
pub fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        text.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1_024
}

/// Processors that this daemon may use.
pub fn cpus() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64)
}

/// The whole description.
pub fn describe(labels: &BTreeMap<String, String>, advertise: SocketAddr, data_path: IpAddr) -> NodeDescription {
    NodeDescription {
        hostname: hostname(),
        platform: platform(),
        cpus: NanoCpus(cpus() * 1_000_000_000),
        memory: Bytes(memory()),
        engine_version: VERSION.into(),
        engine_labels: labels.clone(),
        data_path_address: Some(data_path),
        control_address: Some(advertise),
        addresses: own_addresses(),
        port_problems: Vec::new(),
        feature_range: (1, FEATURE_LEVEL),
    }
}

/// What others may know this host by. Those of containers' devices are none.
fn own_addresses() -> Vec<IpAddr> {
    let all = local_addresses().into_iter().filter(Local::is_visible);
    all.map(|a| a.address).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Names this boot of this data folder: a copied folder on a live host has another inode.
pub fn boot_id(data_dir: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let (device, inode) = std::fs::metadata(data_dir).map(|m| (m.dev(), m.ino())).unwrap_or_default();
    format!("{}-{device:x}-{inode:x}", boot.trim())
}

/// A line of `/etc/os-release`.
pub fn operating_system() -> String {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "Linux".into(), |n| n.trim_matches('"').to_owned())
}

/// The kernel's release.
pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// "2" where the unified hierarchy holds the controllers, else "1".
pub fn cgroup_version() -> &'static str {
    let has_controllers = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok();
    if has_controllers { "2" } else { "1" }
}
