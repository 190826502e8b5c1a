//! `ContainerSpec`.

use rswarm_types::spec::container::DnsConfig;
use rswarm_types::spec::{ContainerSpec, Healthcheck, Mount, MountKind, Privileges};

use super::nanos;
use crate::json::{Json, Object, list};

pub fn container(spec: &ContainerSpec) -> Object {
    let ContainerSpec {
        image,
        labels,
        command,
        args,
        env,
        hostname,
        dir,
        user,
        groups,
        privileges,
        tty,
        open_stdin,
        read_only,
        stop_signal,
        stop_grace,
        healthcheck,
        mounts,
        hosts,
        dns,
        init,
        sysctls,
        cap_add,
        cap_drop,
        ulimits,
        oom_score_adj,
    } = spec;
    Object::new()
        .with("Image", image)
        .with_some("Labels", labels)
        .with_some("Command", command)
        .with_some("Args", args)
        .with_some("Hostname", hostname)
        .with_some("Env", env)
        .with_some("Dir", dir)
        .with_some("User", user)
        .with_some("Groups", groups)
        .with_some("Privileges", shown_privileges(privileges))
        .with_some("Init", init.map(Json::from))
        .with_some("StopSignal", stop_signal)
        .with_some("TTY", *tty)
        .with_some("OpenStdin", *open_stdin)
        .with_some("ReadOnly", *read_only)
        .with_some("Mounts", list(mounts, mount))
        .with_some("StopGracePeriod", stop_grace.map(nanos))
        .with_some("Healthcheck", healthcheck.as_ref().map(health))
        // Docker's order: address first, as in /etc/hosts.
        .with_some("Hosts", list(hosts, |host| format!("{} {}", host.address, host.name)))
        .with_some("DNSConfig", dns_config(dns))
        .with("Isolation", "default")
        .with_some("Sysctls", sysctls)
        .with_some("CapabilityAdd", capabilities(cap_add))
        .with_some("CapabilityDrop", capabilities(cap_drop))
        .with_some(
            "Ulimits",
            list(ulimits, |limit| {
                Object::new().with("Name", &limit.name).with("Hard", limit.hard).with("Soft", limit.soft)
            }),
        )
        .with_some("OomScoreAdj", *oom_score_adj)
}

/// Docker writes capabilities with their prefix.
fn capabilities(names: &[String]) -> Json {
    list(names, |name| if name == "ALL" { name.clone() } else { format!("CAP_{name}") })
}

fn shown_privileges(privileges: &Privileges) -> Object {
    let seccomp = privileges.seccomp_unconfined.then(|| Object::new().with("Mode", "unconfined"));
    Object::new().with_some("NoNewPrivileges", privileges.no_new_privileges).with_some("Seccomp", seccomp)
}

fn health(check: &Healthcheck) -> Object {
    Object::new()
        .with_some("Test", &check.test)
        .with_some("Interval", check.interval.map(nanos))
        .with_some("Timeout", check.timeout.map(nanos))
        .with_some("StartPeriod", check.start_period.map(nanos))
        .with_some("StartInterval", check.start_interval.map(nanos))
        .with_some("Retries", check.retries)
}

fn dns_config(dns: &DnsConfig) -> Object {
    Object::new()
        .with_some("Nameservers", list(&dns.nameservers, ToString::to_string))
        .with_some("Search", &dns.search)
        .with_some("Options", &dns.options)
}

fn mount(mount: &Mount) -> Object {
    let kind = match mount.kind {
        MountKind::Volume => "volume",
        MountKind::Bind => "bind",
        MountKind::Tmpfs => "tmpfs",
    };
    let Mount { bind, volume, tmpfs, .. } = mount;
    Object::new()
        .with("Type", kind)
        .with_some("Source", &mount.source)
        .with("Target", &mount.target)
        .with_some("ReadOnly", mount.read_only)
        .with_some(
            "BindOptions",
            Object::new()
                .with_some("Propagation", &bind.propagation)
                .with_some("NonRecursive", bind.non_recursive)
                .with_some("CreateMountpoint", bind.create_source),
        )
        .with_some(
            "VolumeOptions",
            Object::new()
                .with_some("NoCopy", volume.no_copy)
                .with_some("Labels", &volume.labels)
                .with_some("Subpath", &volume.subpath),
        )
        .with_some("TmpfsOptions", Object::new().with_some("SizeBytes", tmpfs.size.0).with_some("Mode", tmpfs.mode))
}
