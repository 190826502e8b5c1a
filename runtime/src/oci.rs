//! `config.json`, the form of a container that both backends read.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::plan::{CPU_PERIOD_US, ContainerPlan, MountSource, NetNs, PlannedMount};
use crate::seccomp;
use crate::user::User;

/// Where our process 1 is mounted.
pub(crate) const INIT_PATH: &str = "/.rswarm-init";

/// Docker's lists.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the shim found out about a plan.
pub(crate) struct Resolved<'a> {
    pub user: &'a User,
    /// The folder behind each of the plan's mounts, in order; empty for tmpfs.
    pub sources: &'a [PathBuf],
    /// The state folder, for the generated files.
    pub dir: &'a Path,
    pub cgroup: &'a str,
    /// Names of version 1 hierarchies, which the embedded runtime would leave writable.
    pub cgroup_names: &'a [String],
    /// Whether the backend installs the filter from here; the shim's own executor does it otherwise.
    pub with_seccomp: bool,
}

/// The whole document.
pub(crate) fn config(plan: &ContainerPlan, resolved: &Resolved<'_>) -> Value {
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
        json!({"type": "cgroup"}),
    ];
    match &plan.netns {
        NetNs::Path(path) => namespaces.push(json!({"type": "network", "path": path})),
        NetNs::None => namespaces.push(json!({"type": "network"})),
        NetNs::Host => {}
    }
    let follows_host =
        plan.mounts.iter().any(|mount| matches!(mount.source, MountSource::Bind { follows_host: true, .. }));
    let mut read_only: Vec<String> = READ_ONLY.iter().map(|p| (*p).to_owned()).collect();
    if !resolved.cgroup_names.is_empty() {
        // The folder of the hierarchies is a file system of its own.
        read_only.push("/sys/fs/cgroup".to_owned());
    }
    read_only.extend(resolved.cgroup_names.iter().map(|name| format!("/sys/fs/cgroup/{name}")));
    let mut linux = json!({
        "namespaces": namespaces,
        "cgroupsPath": resolved.cgroup,
        "resources": resources(plan),
        "rootfsPropagation": if follows_host { "slave" } else { "private" },
        "sysctl": plan.sysctls,
        "maskedPaths": MASKED,
        "readonlyPaths": read_only,
    });
    if plan.seccomp && resolved.with_seccomp {
        linux["seccomp"] = seccomp::oci(&plan.capabilities);
    }
    let annotations: Map<String, Value> =
        plan.labels.iter().filter(|(key, _)| !key.is_empty()).map(|(k, v)| (k.clone(), json!(v))).collect();
    let mut argv = plan.argv.clone();
    if plan.init {
        argv.splice(0..0, [INIT_PATH.to_owned(), "--".to_owned()]);
    }
    json!({
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": plan.read_only},
        "hostname": plan.hostname,
        "mounts": mounts(plan, resolved),
        "process": process(plan, resolved.user, &argv, plan.env.clone(), plan.tty),
        "linux": linux,
        "annotations": annotations,
    })
}

/// A process of the container: its init, or one that is added later.
///
/// `CAP_SYS_ADMIN` is in `effective` and `permitted` only, for the shim to install the filter without
/// `no_new_privs`; execve takes it away again, since it is in none of the other sets.
pub(crate) fn process(plan: &ContainerPlan, user: &User, argv: &[String], mut env: Vec<String>, tty: bool) -> Value {
    let capabilities: Vec<String> = plan.capabilities.iter().map(|c| format!("CAP_{c}")).collect();
    let mut wide = capabilities.clone();
    if plan.seccomp && !plan.no_new_privileges && !plan.capabilities.iter().any(|c| c == "SYS_ADMIN") {
        wide.push("CAP_SYS_ADMIN".to_owned());
    }
    if !env.iter().any(|v| v.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    let ulimits: Vec<Value> = plan
        .ulimits
        .iter()
        .map(|l| json!({"type": format!("RLIMIT_{}", l.name), "soft": l.soft, "hard": l.hard}))
        .collect();
    json!({
        "terminal": tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": argv,
        "env": env,
        "cwd": plan.cwd,
        "capabilities": {
            "bounding": capabilities, "effective": wide, "permitted": wide, "inheritable": [], "ambient": [],
        },
        "rlimits": ulimits,
        "noNewPrivileges": plan.no_new_privileges,
        "oomScoreAdj": plan.oom_score_adj,
    })
}

fn resources(plan: &ContainerPlan) -> Value {
    let wanted = &plan.resources;
    let mut all = Map::new();
    all.insert("devices".to_owned(), json!([{"allow": false, "access": "rwm"}]));
    let mut memory = Map::new();
    if wanted.memory_bytes > 0 {
        memory.insert("limit".to_owned(), json!(wanted.memory_bytes));
    }
    if wanted.memory_reservation_bytes > 0 {
        memory.insert("reservation".to_owned(), json!(wanted.memory_reservation_bytes));
    }
    if !memory.is_empty() {
        all.insert("memory".to_owned(), memory.into());
    }
    if wanted.cpu_quota_us > 0 {
        all.insert("cpu".to_owned(), json!({"quota": wanted.cpu_quota_us, "period": CPU_PERIOD_US}));
    }
    if wanted.processes > 0 {
        all.insert("pids".to_owned(), json!({"limit": wanted.processes}));
    }
    all.into()
}

/// The system's mounts as Docker makes them, then ours and the user's, outer ones first.
fn mounts(plan: &ContainerPlan, resolved: &Resolved<'_>) -> Vec<Value> {
    let of_system = [
        ("/proc", "proc", &["nosuid", "noexec", "nodev"][..]),
        ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"]),
    ];
    let is_asked = |target: &str| plan.mounts.iter().any(|m| m.target == target);
    let mut all: Vec<Value> = of_system
        .into_iter()
        .filter(|(target, ..)| !is_asked(target))
        .map(|(target, kind, options)| json!({"destination": target, "type": kind, "source": kind, "options": options}))
        .collect();
    let mut later: Vec<(String, Value)> = Vec::new();
    for name in ["hosts", "hostname", "resolv.conf"] {
        let target = format!("/etc/{name}");
        if !is_asked(&target) {
            let source = resolved.dir.join("files").join(name);
            let mount =
                json!({"destination": target, "type": "bind", "source": source, "options": ["bind", "rprivate"]});
            later.push((target, mount));
        }
    }
    if plan.init {
        let source = resolved.dir.join("files/init");
        let options = ["bind", "rprivate", "ro"];
        later.push((
            INIT_PATH.to_owned(),
            json!({"destination": INIT_PATH, "type": "bind", "source": source, "options": options}),
        ));
    }
    for (mount, source) in plan.mounts.iter().zip(resolved.sources) {
        later.push((mount.target.clone(), user_mount(mount, source)));
    }
    later.sort_by_key(|(target, _)| target.matches('/').count());
    all.extend(later.into_iter().map(|(_, mount)| mount));
    all
}

fn user_mount(mount: &PlannedMount, source: &Path) -> Value {
    let mut options: Vec<String> = Vec::new();
    let (kind, source) = match &mount.source {
        MountSource::Tmpfs { bytes, mode } => {
            options.extend(["noexec", "nosuid", "nodev"].map(str::to_owned));
            if *bytes > 0 {
                options.push(format!("size={bytes}"));
            }
            if let Some(mode) = mode {
                options.push(format!("mode={mode:o}"));
            }
            ("tmpfs", Path::new("tmpfs"))
        }
        MountSource::Bind { recursive, follows_host, .. } => {
            options.push(if *recursive { "rbind" } else { "bind" }.to_owned());
            options.push(if *follows_host { "rslave" } else { "rprivate" }.to_owned());
            if mount.read_only && *recursive {
                options.push("rro".to_owned());
            }
            ("bind", source)
        }
        MountSource::Volume { .. } | MountSource::Anonymous { .. } => {
            options.extend(["rbind", "rprivate"].map(str::to_owned));
            ("bind", source)
        }
    };
    options.push(if mount.read_only { "ro" } else { "rw" }.to_owned());
    json!({"destination": mount.target, "type": kind, "source": source, "options": options})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{LogPlan, PlannedResources};

    fn plan() -> ContainerPlan {
        ContainerPlan {
            id: "t".into(),
            layers: Vec::new(),
            argv: vec!["run".into()],
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            user: String::new(),
            groups: Vec::new(),
            hostname: "h".into(),
            hosts: String::new(),
            resolv_conf: String::new(),
            netns: NetNs::None,
            mounts: Vec::new(),
            read_only: false,
            tty: false,
            open_stdin: false,
            init: false,
            capabilities: vec!["CHOWN".into()],
            no_new_privileges: false,
            seccomp: true,
            sysctls: Default::default(),
            ulimits: Vec::new(),
            oom_score_adj: 0,
            resources: PlannedResources::default(),
            labels: Default::default(),
            log: LogPlan::default(),
            stop_signal: 15,
        }
    }

    fn config_of(plan: &ContainerPlan, with_seccomp: bool) -> Value {
        let user = User { uid: 1, gid: 2, groups: vec![3], home: "/home".into() };
        let sources = vec![PathBuf::from("/src"); plan.mounts.len()];
        let resolved = Resolved {
            user: &user,
            sources: &sources,
            dir: Path::new("/state"),
            cgroup: "/p/t",
            cgroup_names: &["memory".to_owned()],
            with_seccomp,
        };
        config(plan, &resolved)
    }

    #[test]
    fn sys_admin_is_lent_for_the_filter_and_never_left() {
        let caps = |plan: &ContainerPlan| config_of(plan, false)["process"]["capabilities"].clone();
        let lent = caps(&plan());
        assert_eq!(lent["bounding"], json!(["CAP_CHOWN"]));
        assert_eq!(lent["permitted"], json!(["CAP_CHOWN", "CAP_SYS_ADMIN"]));
        assert_eq!(lent["ambient"], json!([]));
        for plan in [ContainerPlan { seccomp: false, ..plan() }, ContainerPlan { no_new_privileges: true, ..plan() }] {
            assert_eq!(caps(&plan)["permitted"], json!(["CAP_CHOWN"]));
        }
    }

    #[test]
    fn mounts_come_outer_first_and_the_user_s_replace_the_system_s() {
        let mount = |target: &str, source| PlannedMount { target: target.into(), read_only: true, source };
        let tmpfs = || MountSource::Tmpfs { bytes: 4096, mode: Some(0o700) };
        let bind = || MountSource::Bind { path: "/x".into(), recursive: true, create: false, follows_host: false };
        let plan = ContainerPlan {
            init: true,
            mounts: vec![mount("/dev/shm", tmpfs()), mount("/etc", bind()), mount("/etc/hosts", bind())],
            ..plan()
        };
        let config = config_of(&plan, true);
        let targets: Vec<&str> =
            config["mounts"].as_array().unwrap().iter().map(|m| m["destination"].as_str().unwrap()).collect();
        assert_eq!(targets[..6], ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue"]);
        assert_eq!(targets[6..], [INIT_PATH, "/etc", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", "/etc/hosts"]);
        assert_eq!(
            config["mounts"][10]["options"],
            json!(["noexec", "nosuid", "nodev", "size=4096", "mode=700", "ro"])
        );
        assert_eq!(config["process"]["args"], json!([INIT_PATH, "--", "run"]));
        assert!(config["linux"]["seccomp"].is_object());
        assert_eq!(config["linux"]["readonlyPaths"].as_array().unwrap().last(), Some(&json!("/sys/fs/cgroup/memory")));
    }

    #[test]
    fn home_comes_from_the_user_unless_it_is_set() {
        let env = |env: &[&str]| {
            let plan = ContainerPlan { env: env.iter().map(|e| (*e).to_owned()).collect(), ..plan() };
            config_of(&plan, false)["process"]["env"].clone()
        };
        assert_eq!(env(&["A=1"]), json!(["A=1", "HOME=/home"]));
        assert_eq!(env(&["HOME=/x"]), json!(["HOME=/x"]));
    }
}
