//! `info` and `version`.

use std::fmt::Write;

use rswarm_api::pb;
use rswarm_types::id::to_base36;
use rswarm_types::units::Bytes;

use crate::json::{Json, Object, list};

/// An id in an answer; empty when there is none.
fn id(bytes: &[u8]) -> String {
    <[u8; 16]>::try_from(bytes).map(|b| to_base36(u128::from_be_bytes(b))).unwrap_or_default()
}

/// The address that others reach the node at, without the port.
fn node_address(info: &pb::NodeInfo) -> String {
    let address: Result<std::net::SocketAddr, _> = info.advertise_address.parse();
    address.map_or_else(|_| info.advertise_address.clone(), |address| address.ip().to_string())
}

/// A processor in Go's words, as versions have it; `uname`'s word stands in `info`.
pub fn go_arch(arch: &str) -> &str {
    match arch {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The node for templates, in the words of Docker's API where it has them.
pub fn info_json(info: &pb::NodeInfo) -> Json {
    let swarm = Object::new()
        .with("NodeID", id(&info.node))
        .with("NodeAddr", node_address(info))
        .with("LocalNodeState", &info.swarm_state)
        .with("ControlAvailable", info.is_manager)
        .with("Error", &info.swarm_error)
        .with("RemoteManagers", list(&info.managers, |address| Object::new().with("Addr", address)))
        .with("Nodes", info.nodes)
        .with("Managers", info.manager_count)
        .with("Cluster", Object::new().with("ID", id(&info.cluster)))
        .with("Leader", &info.leader)
        .with("RaftTerm", info.raft_term)
        .with("RaftApplied", info.raft_applied)
        .with("CertificateExpires", &info.cert_expires);
    let labels: Vec<String> = info.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    Object::new()
        .with("ID", id(&info.node))
        .with("Name", &info.hostname)
        .with("ServerVersion", &info.version)
        .with("Containers", info.containers)
        .with("ContainersRunning", info.containers_running)
        .with("ContainersStopped", info.containers.saturating_sub(info.containers_running))
        .with("Images", info.images)
        .with("OperatingSystem", &info.operating_system)
        .with("OSType", "linux")
        .with("Architecture", &info.architecture)
        .with("KernelVersion", &info.kernel)
        .with("NCPU", info.cpus)
        .with("MemTotal", info.memory)
        .with("DataDir", &info.data_dir)
        .with("DefaultRuntime", &info.runtime)
        .with("CgroupVersion", &info.cgroup_version)
        .with("CgroupParent", &info.cgroup_parent)
        .with("InsecureRegistries", &info.insecure_registries)
        .with("Labels", &labels)
        .with("DefaultCapabilities", &info.default_capabilities)
        .with("SecurityOptions", &security_options(info))
        .with("Swarm", swarm)
        .with("Warnings", &info.warnings)
        .into()
}

/// In Docker's words.
fn security_options(info: &pb::NodeInfo) -> Vec<String> {
    let no_new_privileges = info.no_new_privileges.then_some("name=no-new-privileges");
    ["name=seccomp,profile=builtin"].into_iter().chain(no_new_privileges).map(str::to_owned).collect()
}

/// The node for people.
pub fn info_text(info: &pb::NodeInfo) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{name}: {value}");
        }
    };
    line("Server Version", &info.version);
    line("Name", &info.hostname);
    line("Containers", &info.containers.to_string());
    line(" Running", &info.containers_running.to_string());
    line("Images", &info.images.to_string());
    line("Swarm", &info.swarm_state);
    line(" Error", &info.swarm_error);
    if !info.node.is_empty() {
        line(" NodeID", &id(&info.node));
        line(" Is Manager", if info.is_manager { "true" } else { "false" });
        line(" ClusterID", &id(&info.cluster));
        if info.is_manager {
            line(" Managers", &info.manager_count.to_string());
            line(" Nodes", &info.nodes.to_string());
            line(" Leader", &info.leader);
            line(" Raft term", &info.raft_term.to_string());
            line(" Raft applied", &info.raft_applied.to_string());
            line(" Raft log fsync", &info.fsync);
            line(" Raft election", &info.election);
        }
        line(" Node Address", &node_address(info));
        line(" Manager Addresses", &info.managers.join(", "));
        line(" Certificate Expires", &info.cert_expires);
    }
    line("Runtime", &info.runtime);
    line("Cgroup Version", &info.cgroup_version);
    line("Cgroup Parent", &info.cgroup_parent);
    line("Default Capabilities", &info.default_capabilities.join(", "));
    line("Security Options", &security_options(info).join(" "));
    line("Kernel Version", &info.kernel);
    line("Operating System", &info.operating_system);
    line("Architecture", &info.architecture);
    line("CPUs", &info.cpus.to_string());
    line("Total Memory", &Bytes(info.memory).to_string());
    line("Data Dir", &info.data_dir);
    line("Insecure Registries", &info.insecure_registries.join(", "));
    let labels: Vec<String> = info.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    line("Labels", &labels.join(", "));
    out
}

/// This program for templates.
pub fn client_json() -> Object {
    Object::new()
        .with("Version", rswarm_node::VERSION)
        .with("Os", std::env::consts::OS)
        .with("Arch", go_arch(std::env::consts::ARCH))
}

/// Both versions for templates; the daemon's is null when it did not answer.
pub fn version_json(server: Option<&pb::NodeInfo>) -> Json {
    let server = server.map(|info| {
        Object::new()
            .with("Version", &info.version)
            .with("GitCommit", &info.git_commit)
            .with("BuildTime", &info.build_time)
            .with("Os", "linux")
            .with("Arch", go_arch(&info.architecture))
            .with("KernelVersion", &info.kernel)
    });
    Object::new().with("Client", client_json()).with("Server", server).into()
}

/// Both versions for people.
pub fn version_text(server: Option<&pb::NodeInfo>) -> String {
    let (os, arch) = (std::env::consts::OS, go_arch(std::env::consts::ARCH));
    let mut out = format!("Client:\n Version:      {}\n OS/Arch:      {os}/{arch}\n", rswarm_node::VERSION);
    if let Some(info) = server {
        // Writing to a String cannot fail.
        let _ = write!(out, "\nServer:\n Version:      {}\n", info.version);
        for (name, value) in [("Git commit:", &info.git_commit), ("Built:", &info.build_time)] {
            if !value.is_empty() {
                let _ = writeln!(out, " {name:<13} {value}");
            }
        }
        let _ = writeln!(out, " OS/Arch:      linux/{}\n Kernel:       {}", go_arch(&info.architecture), info.kernel);
    }
    out
}
