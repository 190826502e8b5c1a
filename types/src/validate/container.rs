//! Rules of what runs inside a task.

use std::time::Duration;

use super::{Found, duplicates};
use crate::parse::mount::PROPAGATIONS;
use crate::parse::ulimit::check_ulimit;
use crate::parse::user::check_user;
use crate::spec::{ContainerSpec, Healthcheck, Mount, MountKind};

/// The least time of a health check that is set (Docker's).
const HEALTH_TIME_MIN: Duration = Duration::from_millis(1);

/// Longest host name that the kernel takes.
const HOSTNAME_LENGTH_MAX: usize = 63;

/// Capabilities of the kernel without the `CAP_` prefix.
pub const CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

/// Signals by name without `SIG`, besides numbers and RTMIN+n, RTMAX-n.
const SIGNALS: [&str; 33] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH",
    "IO", "POLL", "PWR", "SYS",
];

/// Sysctls that belong to a container's namespaces.
const SYSCTLS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn container(found: &mut Found, spec: &ContainerSpec, is_host_network: bool) {
    found.add_some("image", super::image_reference(&spec.image));
    found.labels("container-label", spec.labels.keys());
    names_and_env(found, spec);
    if !spec.stop_signal.is_empty() {
        found.check(is_signal(&spec.stop_signal), "stop-signal", || {
            format!("it is \"{}\"; allowed are names such as SIGTERM and numbers 1-64", spec.stop_signal)
        });
    }
    if let Some(check) = &spec.healthcheck {
        healthcheck(found, check);
    }
    mounts(found, &spec.mounts);
    for host in &spec.hosts {
        found.check(is_host_name(&host.name), "host", || format!("host name is \"{}\"", host.name));
    }
    for name in spec.dns.search.iter().filter(|name| name.as_str() != ".") {
        found.check(is_host_name(name.trim_end_matches('.')), "dns-search", || format!("domain is \"{name}\""));
    }
    for option in &spec.dns.options {
        found.check(!option.is_empty() && !option.contains(char::is_whitespace), "dns-option", || {
            format!("it is \"{option}\"; allowed is one option of resolv.conf, e.g. ndots:2")
        });
    }
    for (name, value) in &spec.sysctls {
        sysctl(found, name, value, is_host_network);
    }
    for (field, names) in [("cap-add", &spec.cap_add), ("cap-drop", &spec.cap_drop)] {
        for name in names {
            found.check(name == "ALL" || CAPABILITIES.contains(&name.as_str()), field, || {
                format!("\"{name}\" is not a capability; allowed are ALL and the kernel's names without CAP_, e.g. NET_ADMIN")
            });
        }
    }
    for ulimit in &spec.ulimits {
        found.add_some("ulimit", check_ulimit(ulimit));
    }
    for name in duplicates(spec.ulimits.iter().map(|u| &u.name)) {
        found.add("ulimit", format!("\"{name}\" is given twice"));
    }
    found.check((-1000..=1000).contains(&spec.oom_score_adj), "oom-score-adj", || {
        format!("it is {}; allowed are -1000 to 1000", spec.oom_score_adj)
    });
}

fn names_and_env(found: &mut Found, spec: &ContainerSpec) {
    if !spec.hostname.is_empty() {
        if is_template(&spec.hostname) {
            found.add("hostname", template_problem(&spec.hostname));
        } else {
            found.check(spec.hostname.len() <= HOSTNAME_LENGTH_MAX && is_host_name(&spec.hostname), "hostname", || {
                format!(
                    "it is \"{}\"; allowed are up to {HOSTNAME_LENGTH_MAX} letters, digits, \"-\" and \".\"",
                    spec.hostname
                )
            });
        }
    }
    if !spec.dir.is_empty() {
        found.check(spec.dir.starts_with('/'), "workdir", || format!("it is \"{}\", not an absolute path", spec.dir));
    }
    if !spec.user.is_empty() {
        found.add_some("user", check_user(&spec.user));
    }
    for group in &spec.groups {
        found.check(!group.is_empty() && !group.contains([':', '/', ' ']), "group", || {
            format!("it is \"{group}\"; allowed is a name or a number")
        });
    }
    for variable in &spec.env {
        let key = variable.split_once('=').map_or(variable.as_str(), |(key, _)| key);
        found.check(!key.is_empty(), "env", || "a variable has no name; allowed is KEY=VALUE".into());
        found.check(!variable.contains('\0'), "env", || format!("\"{key}\" contains a NUL character"));
        // The value may be a secret: only its name is said.
        found.check(!is_template(variable), "env", || {
            format!("the value of \"{key}\" is a template, with \"{{{{\" in it; templates are not built yet")
        });
    }
    for (field, words) in [("entrypoint", &spec.command), ("args", &spec.args)] {
        found.check(!words.iter().any(|word| word.contains('\0')), field, || "it contains a NUL character".into());
    }
}

/// Docker renders these fields as Go templates; a value that asks for it is refused, never passed on
/// as it stands.
fn is_template(value: &str) -> bool {
    value.contains("{{")
}

fn template_problem(value: &str) -> String {
    format!("\"{value}\" is a template; templates are not built yet")
}

/// Whether the text names a signal: `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |prefix: &str, limit: u8| {
        name.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u8>().is_ok_and(|n| (1..=limit).contains(&n)))
    };
    SIGNALS.contains(&name) || name == "RTMIN" || name == "RTMAX" || offset("RTMIN+", 15) || offset("RTMAX-", 14)
}

/// Dotted labels of letters, digits, `-` and `_`.
fn is_host_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

fn sysctl(found: &mut Found, name: &str, value: &str, is_host_network: bool) {
    let is_net = name.starts_with("net.");
    if is_net && is_host_network {
        found.add("sysctl", format!("\"{name}\" belongs to the host's network; it cannot be set with --network host"));
    } else if !(is_net || name.starts_with("fs.mqueue.") || SYSCTLS.contains(&name)) {
        found.add(
            "sysctl",
            format!("\"{name}\" is not a container's own; allowed are net.*, fs.mqueue.* and {}", SYSCTLS.join(", ")),
        );
    } else if name.contains("..") || name.contains('/') || value.contains('\0') {
        found.add("sysctl", format!("\"{name}={value}\" is not KEY=VALUE of a sysctl"));
    }
}

fn healthcheck(found: &mut Found, check: &Healthcheck) {
    match check.test.split_first() {
        None => {}
        Some((kind, [])) if kind == "NONE" => {}
        Some((kind, rest)) if (kind == "CMD" || kind == "CMD-SHELL") && !rest.is_empty() => {}
        Some((kind, _)) if kind == "CMD" || kind == "CMD-SHELL" => {
            found.add("health-cmd", format!("nothing follows {kind}"))
        }
        Some((kind, _)) if kind == "NONE" => found.add("health-cmd", "a command follows NONE"),
        Some((kind, _)) => {
            found.add("health-cmd", format!("test begins with \"{kind}\"; allowed are NONE, CMD and CMD-SHELL"))
        }
    }
    for (field, time) in [
        ("health-interval", check.interval),
        ("health-timeout", check.timeout),
        ("health-start-period", check.start_period),
        ("health-start-interval", check.start_interval),
    ] {
        if let Some(time) = time.filter(|t| !t.is_zero() && *t < HEALTH_TIME_MIN) {
            found.add(
                field,
                format!("it is {}; allowed are 0 (the default) and 1ms or more", crate::parse::format_duration(time)),
            );
        }
    }
}

fn mounts(found: &mut Found, mounts: &[Mount]) {
    for mount in mounts {
        let field = format!("mount {}", if mount.target.is_empty() { "without target" } else { &mount.target });
        for problem in mount_problems(mount) {
            found.add(field.clone(), problem);
        }
    }
    let targets = mounts.iter().map(|m| normal_path(&m.target));
    for target in duplicates(targets.filter(|t| !t.is_empty())) {
        found.add(format!("mount {target}"), "two mounts have this target");
    }
}

/// The path without empty and `.` parts, for comparing.
fn normal_path(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if path.is_empty() { String::new() } else { format!("/{}", parts.join("/")) }
}

fn mount_problems(mount: &Mount) -> Vec<String> {
    let mut problems = Vec::new();
    let mut check = |holds: bool, problem: String| {
        if !holds {
            problems.push(problem);
        }
    };
    check(mount.target.starts_with('/'), format!("target is \"{}\", not an absolute path", mount.target));
    check(
        !mount.target.starts_with('/') || normal_path(&mount.target) != "/",
        "target is \"/\"; the root is the image".into(),
    );
    check(!mount.target.split('/').any(|part| part == ".."), format!("target \"{}\" has \"..\" in it", mount.target));
    for value in [&mount.source, &mount.target] {
        check(!is_template(value), template_problem(value));
        check(!value.contains('\0'), "a NUL character in a path".into());
    }
    let is_plain = !is_template(&mount.source);
    let (is_bind, is_volume, is_tmpfs) =
        (mount.kind == MountKind::Bind, mount.kind == MountKind::Volume, mount.kind == MountKind::Tmpfs);
    match mount.kind {
        MountKind::Bind => {
            check(mount.source.starts_with('/'), format!("source is \"{}\", not an absolute path", mount.source))
        }
        MountKind::Volume => check(
            !is_plain || mount.source.is_empty() || is_volume_name(&mount.source),
            format!(
                "volume name is \"{}\"; allowed are letters, digits, \"_\", \".\" and \"-\", beginning with a letter or digit, at least 2 (for a path on the host use type=bind)",
                mount.source
            ),
        ),
        MountKind::Tmpfs => check(mount.source.is_empty(), format!("source is \"{}\"; a tmpfs has none", mount.source)),
    }
    let propagation = mount.bind.propagation.as_str();
    check(
        propagation.is_empty() || PROPAGATIONS.contains(&propagation),
        format!("bind-propagation is \"{propagation}\"; allowed are {}", PROPAGATIONS.join(", ")),
    );
    check(is_bind || mount.bind == Default::default(), "it has bind options but is no bind".into());
    check(is_volume || mount.volume == Default::default(), "it has volume options but is no volume".into());
    check(is_tmpfs || mount.tmpfs == Default::default(), "it has tmpfs options but is no tmpfs".into());
    let subpath = mount.volume.subpath.as_str();
    check(
        !subpath.starts_with('/') && !subpath.split('/').any(|part| part == ".."),
        format!("volume-subpath is \"{subpath}\"; allowed is a relative path without \"..\""),
    );
    check(subpath.is_empty() || !mount.source.is_empty(), "volume-subpath needs a named volume".into());
    check(mount.tmpfs.mode.is_none_or(|mode| mode <= 0o7777), "tmpfs-mode is above 7777".into());
    problems
}

fn is_volume_name(name: &str) -> bool {
    name.len() >= 2
        && name.as_bytes()[0].is_ascii_alphanumeric()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}
