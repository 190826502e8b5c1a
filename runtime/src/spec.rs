//! From what a user asked and what the image says to a plan; pure.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rswarm_types::limits;
use rswarm_types::spec::{ContainerSpec, LogDriver, Mount, MountKind, Resources, ServiceSpec};

use crate::capability::{self, DefaultCapabilities};
use crate::image::ImageConfig;
use crate::plan::{
    CPU_PERIOD_US, ContainerPlan, LogPlan, MountSource, NetNs, PlannedMount, PlannedResources, PlannedUlimit,
};
use crate::{signal, volume};

/// What Docker puts in front of an image that sets no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Places that the runtime mounts itself.
const RESERVED_TARGETS: [&str; 3] = ["/", "/proc", "/sys"];
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
const LOG_DRIVERS: &str = "json-file, local and none";

/// What surrounds the container, decided by the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    pub netns: NetNs,
    pub hostname: String,
    /// Text of `/etc/resolv.conf`, the service's DNS options applied.
    pub resolv_conf: String,
    /// Text of `/etc/hosts`; the service's own `--host` lines are appended.
    pub hosts: String,
}

/// Where this node keeps what plans refer to.
#[derive(Clone, Copy, Debug)]
pub struct NodePaths<'a> {
    /// The folder of [`crate::volume::VolumeStore`].
    pub volumes: &'a Path,
}

/// What containers of this node have where their service does not say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    pub capabilities: DefaultCapabilities,
    /// No program of a container may gain privileges, whatever its service says.
    pub no_new_privileges: bool,
}

/// Everything that is wrong with a container, at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", violations.join("; "))]
pub struct PlanError {
    pub violations: Vec<String>,
}

/// The container of task `id`: the image's defaults, overridden by the service, in the sandbox.
///
/// Named volumes must be created by the caller before the start; [`ContainerPlan::volumes`] lists them.
///
/// # Errors
/// All violations of the spec, or of the image, that make it impossible to run.
pub fn container_plan(
    id: &str,
    service: &ServiceSpec,
    image: &ImageConfig,
    layers: &[PathBuf],
    sandbox: &Sandbox,
    node: NodePaths<'_>,
    defaults: Defaults,
) -> Result<ContainerPlan, PlanError> {
    let spec = &service.task.container;
    let mut bad = Vec::new();
    let argv = argv(spec, image);
    if argv.first().is_none_or(String::is_empty) {
        bad.push("no command: the image has none, and the service sets neither --entrypoint nor arguments".to_owned());
    }
    let cwd = if spec.dir.is_empty() { &image.workdir } else { &spec.dir };
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    if !cwd.starts_with('/') {
        bad.push(format!("working directory \"{cwd}\" is not absolute"));
    }
    let capabilities =
        capability::resolve(defaults.capabilities, &spec.cap_add, &spec.cap_drop).unwrap_or_else(|unknown| {
            bad.extend(unknown.iter().map(|name| {
                format!("capability \"{name}\" is not known: allowed are ALL and names such as NET_ADMIN")
            }));
            Vec::new()
        });
    let wanted_signal = [spec.stop_signal.as_str(), image.stop_signal.as_deref().unwrap_or("")];
    let stop_signal = match wanted_signal.into_iter().find(|s| !s.is_empty()) {
        None => libc::SIGTERM,
        Some(text) => signal::number(text).unwrap_or_else(|error| {
            bad.push(format!("stop signal {error}"));
            libc::SIGTERM
        }),
    };
    let plan = ContainerPlan {
        id: id.to_owned(),
        layers: layers.to_vec(),
        argv,
        env: env(spec, image, &sandbox.hostname),
        cwd: cwd.to_owned(),
        user: if spec.user.is_empty() { image.user.clone() } else { spec.user.clone() },
        groups: spec.groups.clone(),
        hostname: sandbox.hostname.clone(),
        hosts: hosts(spec, &sandbox.hosts),
        resolv_conf: sandbox.resolv_conf.clone(),
        netns: sandbox.netns.clone(),
        mounts: mounts(spec, image, node.volumes, &mut bad),
        read_only: spec.read_only,
        tty: spec.tty,
        open_stdin: spec.open_stdin,
        init: spec.init.unwrap_or(false),
        capabilities,
        no_new_privileges: spec.privileges.no_new_privileges || defaults.no_new_privileges,
        seccomp: !spec.privileges.seccomp_unconfined,
        sysctls: sysctls(spec, &sandbox.netns, &mut bad),
        ulimits: ulimits(spec, &mut bad),
        oom_score_adj: spec.oom_score_adj,
        resources: resources(&service.task.resources, &mut bad),
        labels: spec.labels.clone(),
        log: service.task.log_driver.as_ref().map_or_else(LogPlan::default, |driver| log(driver, &mut bad)),
        stop_signal,
    };
    if !(-1000..=1000).contains(&spec.oom_score_adj) {
        bad.push(format!("oom-score-adj is {}: allowed are -1000 to 1000", spec.oom_score_adj));
    }
    if bad.is_empty() { Ok(plan) } else { Err(PlanError { violations: bad }) }
}

/// Entrypoint and command: a new entrypoint drops the image's command, as in Docker.
fn argv(spec: &ContainerSpec, image: &ImageConfig) -> Vec<String> {
    let entrypoint = if spec.command.is_empty() { &image.entrypoint } else { &spec.command };
    let command = if !spec.args.is_empty() {
        &spec.args
    } else if spec.command.is_empty() {
        &image.cmd
    } else {
        &Vec::new()
    };
    entrypoint.iter().chain(command).cloned().collect()
}

/// The image's variables overridden by the service's; a service's `KEY` without `=` takes the variable away.
fn env(spec: &ContainerSpec, image: &ImageConfig, hostname: &str) -> Vec<String> {
    let mut all: Vec<String> = vec![format!("PATH={DEFAULT_PATH}"), format!("HOSTNAME={hostname}")];
    if spec.tty {
        all.push("TERM=xterm".to_owned());
    }
    for variable in image.env.iter().chain(&spec.env) {
        let key = variable.split('=').next().unwrap_or("");
        let same = |other: &String| other.split('=').next() == Some(key);
        match (all.iter().position(same), variable.contains('=')) {
            (Some(at), true) => all[at].clone_from(variable),
            (None, true) => all.push(variable.clone()),
            (Some(at), false) => drop(all.remove(at)),
            (None, false) => {}
        }
    }
    // A program without PATH cannot be looked up; Docker puts it back too.
    if !all.iter().any(|v| v.starts_with("PATH=")) {
        all.push(format!("PATH={DEFAULT_PATH}"));
    }
    all
}

fn hosts(spec: &ContainerSpec, base: &str) -> String {
    let mut text = base.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for entry in &spec.hosts {
        text.push_str(&format!("{}\t{}\n", entry.address, entry.name));
    }
    text
}

/// The user's mounts, and an anonymous volume for each of the image's volumes that is not covered.
fn mounts(spec: &ContainerSpec, image: &ImageConfig, volumes: &Path, bad: &mut Vec<String>) -> Vec<PlannedMount> {
    let mut planned: Vec<PlannedMount> = Vec::new();
    let mut anonymous = 0;
    for mount in &spec.mounts {
        let target = normal_path(&mount.target);
        let Some(target) = target else {
            bad.push(format!("mount target \"{}\" is not an absolute path without \"..\"", mount.target));
            continue;
        };
        if RESERVED_TARGETS.contains(&target.as_str()) {
            bad.push(format!("mount target \"{target}\" belongs to the runtime"));
        }
        if planned.iter().any(|p| p.target == target) {
            bad.push(format!("mount target \"{target}\" is given twice"));
        }
        match source(mount, volumes, &mut anonymous) {
            Ok(source) => planned.push(PlannedMount { target, read_only: mount.read_only, source }),
            Err(why) => bad.push(format!("mount {target}: {why}")),
        }
    }
    for path in &image.volumes {
        let Some(target) = normal_path(path) else {
            bad.push(format!("the image's volume \"{path}\" is not an absolute path"));
            continue;
        };
        if planned.iter().all(|p| p.target != target) && !RESERVED_TARGETS.contains(&target.as_str()) {
            let source = MountSource::Anonymous { number: anonymous, copy: true };
            anonymous += 1;
            planned.push(PlannedMount { target, read_only: false, source });
        }
    }
    // Outer mounts first, so that none hides another.
    planned.sort_by_key(|mount| mount.target.matches('/').count());
    planned
}

fn source(mount: &Mount, volumes: &Path, anonymous: &mut usize) -> Result<MountSource, String> {
    match mount.kind {
        MountKind::Bind => {
            if !mount.source.starts_with('/') {
                return Err(format!("bind source \"{}\" is not absolute", mount.source));
            }
            let follows_host = match mount.bind.propagation.as_str() {
                "" | "rprivate" | "private" => false,
                "rslave" | "slave" => true,
                shared @ ("rshared" | "shared") => {
                    return Err(format!(
                        "bind propagation \"{shared}\" is not supported yet: allowed are rprivate, private, rslave and slave"
                    ));
                }
                other => {
                    return Err(format!(
                        "bind propagation is \"{other}\": allowed are rprivate, private, rslave and slave"
                    ));
                }
            };
            Ok(MountSource::Bind {
                path: PathBuf::from(&mount.source),
                recursive: !mount.bind.non_recursive,
                create: mount.bind.create_source,
                follows_host,
            })
        }
        MountKind::Volume => {
            let copy = !mount.volume.no_copy;
            if mount.source.is_empty() {
                if !mount.volume.subpath.is_empty() {
                    return Err("volume-subpath needs a named volume".to_owned());
                }
                *anonymous += 1;
                return Ok(MountSource::Anonymous { number: *anonymous - 1, copy });
            }
            volume::check_name(&mount.source).map_err(|e| e.to_string())?;
            let subpath = mount.volume.subpath.as_str();
            if subpath.starts_with('/') || subpath.split('/').any(|part| part == "..") {
                return Err(format!("volume-subpath \"{subpath}\" must be relative and without \"..\""));
            }
            Ok(MountSource::Volume {
                name: mount.source.clone(),
                path: volume::data_path(volumes, &mount.source),
                subpath: subpath.to_owned(),
                copy: copy && subpath.is_empty(),
            })
        }
        MountKind::Tmpfs => {
            if !mount.source.is_empty() {
                return Err("a tmpfs has no source".to_owned());
            }
            Ok(MountSource::Tmpfs { bytes: mount.tmpfs.size.0, mode: mount.tmpfs.mode })
        }
    }
}

/// An absolute path without `.`, `..`, doubled or trailing slashes.
fn normal_path(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    let parts: Vec<&str> = rest.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") || path.contains('\0') { None } else { Some(format!("/{}", parts.join("/"))) }
}

/// Docker's safe list, and its two defaults where the container has a network namespace of its own.
fn sysctls(spec: &ContainerSpec, netns: &NetNs, bad: &mut Vec<String>) -> BTreeMap<String, String> {
    let own_network = *netns != NetNs::Host;
    let mut all = BTreeMap::new();
    if own_network {
        // ping without NET_RAW, and ports below 1024 without NET_BIND_SERVICE.
        all.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
        all.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
    }
    for (key, value) in &spec.sysctls {
        let key = key.replace('/', ".");
        let of_network = key.starts_with("net.");
        let of_ipc = key.starts_with("fs.mqueue.")
            || ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem"].contains(&key.as_str())
            || ["kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"].contains(&key.as_str());
        if of_network && !own_network {
            bad.push(format!("sysctl {key} is not allowed on the host's network"));
        } else if (!of_network && !of_ipc) || key.split('.').any(str::is_empty) {
            bad.push(format!(
                "sysctl \"{key}\" is not allowed: allowed are net.*, fs.mqueue.*, kernel.msg*, kernel.sem and kernel.shm*"
            ));
        }
        all.insert(key, value.clone());
    }
    all
}

fn ulimits(spec: &ContainerSpec, bad: &mut Vec<String>) -> Vec<PlannedUlimit> {
    let mut all: Vec<PlannedUlimit> = Vec::new();
    for limit in &spec.ulimits {
        let number = |value: i64| u64::try_from(value).unwrap_or(u64::MAX);
        let (soft, hard) = (number(limit.soft), number(limit.hard));
        if !ULIMITS.contains(&limit.name.as_str()) {
            bad.push(format!("ulimit \"{}\" is not known: allowed are {}", limit.name, ULIMITS.join(", ")));
        } else if limit.soft < -1 || limit.hard < -1 {
            bad.push(format!("ulimit {}: allowed are -1 (unlimited), 0 and more", limit.name));
        } else if soft > hard {
            bad.push(format!(
                "ulimit {}: the soft limit {} is above the hard limit {}",
                limit.name, limit.soft, limit.hard
            ));
        }
        let name = limit.name.to_ascii_uppercase();
        all.retain(|l| l.name != name);
        all.push(PlannedUlimit { name, soft, hard });
    }
    all
}

fn resources(wanted: &Resources, bad: &mut Vec<String>) -> PlannedResources {
    let memory = wanted.limit_memory.0;
    if memory > 0 && memory < limits::MEMORY_LIMIT_MIN_BYTES {
        bad.push(format!("memory limit is {memory} bytes: allowed are {} and more", limits::MEMORY_LIMIT_MIN_BYTES));
    }
    if wanted.limit_cpu.0 > 0 && wanted.limit_cpu.0 < limits::CPU_LIMIT_MIN_NANOS {
        bad.push(format!("CPU limit is {}: allowed are 0.01 and more", wanted.limit_cpu));
    }
    PlannedResources {
        // Billionths of a CPU to microseconds in a period.
        cpu_quota_us: wanted.limit_cpu.0.saturating_mul(CPU_PERIOD_US / 1_000) / 1_000_000,
        memory_bytes: memory,
        memory_reservation_bytes: wanted.reserve_memory.0,
        processes: wanted.limit_pids,
    }
}

fn log(driver: &LogDriver, bad: &mut Vec<String>) -> LogPlan {
    let mut plan = LogPlan::default();
    match driver.name.as_str() {
        "none" => plan.files = 0,
        "" | "json-file" | "local" => {}
        other => bad.push(format!("log driver \"{other}\" does not exist here: allowed are {LOG_DRIVERS}")),
    }
    for (key, value) in &driver.options {
        match key.as_str() {
            "max-size" => match parse_size(value) {
                Some(bytes) if bytes >= 4_096 => plan.file_bytes = bytes,
                _ => bad.push(format!("log option max-size is \"{value}\": allowed are 4k and more, e.g. 10m")),
            },
            "max-file" => match value.parse::<u32>() {
                Ok(files @ 1..=1_000) if driver.name != "none" => plan.files = files,
                Ok(1..=1_000) => {}
                _ => bad.push(format!("log option max-file is \"{value}\": allowed are 1 to 1000")),
            },
            other => bad.push(format!("log option \"{other}\" is not supported: allowed are max-size and max-file")),
        }
    }
    plan
}

/// `10m`, `512k`, `1g`, `4096`: binary units, as Docker's.
fn parse_size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, unit) = match bare.as_bytes().last()? {
        b'k' => (&bare[..bare.len() - 1], 1 << 10),
        b'm' => (&bare[..bare.len() - 1], 1 << 20),
        b'g' => (&bare[..bare.len() - 1], 1 << 30),
        _ => (bare, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
#[path = "spec_tests.rs"]
mod tests;
