//! What is measured, beside what others do and what we want to reach (DESIGN, "Numbers to reach").

/// A line of the table.
pub struct Row {
    pub key: &'static str,
    pub title: &'static str,
    pub reach: &'static str,
    /// Others' figures from an earlier run on the same class of machine: who, and the median in the row's unit.
    pub recorded: &'static [(&'static str, f64)],
    /// The key of what the machine itself can do at most, if ours is to come near it.
    pub limit: Option<&'static str>,
}

const fn row(
    key: &'static str,
    title: &'static str,
    reach: &'static str,
    recorded: &'static [(&'static str, f64)],
) -> Row {
    Row { key, title, reach, recorded, limit: None }
}

/// A row that is held against what the disk does for groups of writes.
const fn against_disk(key: &'static str, title: &'static str) -> Row {
    Row { limit: Some("disk-64"), ..row(key, title, ">= 0.8 x disk's groups", &[]) }
}

/// The rows, in the order of the table.
pub const ROWS: &[Row] = &[
    row("fdatasync", "disk: 4 KiB pwrite + fdatasync", "", &[]),
    row("create-1-host", "create 1 -> running, host network", "<= 1/5 of docker", &[("docker", 455.0)]),
    row("create-1-overlay", "create 1 -> running, overlay", "<= 1/5 of docker", &[("docker", 579.0)]),
    row("create-100-host", "create 100 -> all running, host network", "<= 1/5 of docker", &[("docker", 8_200.0)]),
    row("create-100-overlay", "create 100 -> all running, overlay", "<= 1/5 of docker", &[("docker", 26_600.0)]),
    row("container", "/bin/true: create -> deleted", "<= 0.6 x crun", &[("runc", 48.0), ("crun", 25.0)]),
    row(
        "leader-kill",
        "leader SIGKILL -> write accepted",
        "p50 <= 300, p99 <= 500 ms",
        &[("docker", 13_200.0), ("etcd", 1_600.0)],
    ),
    row("node-kill", "node power cut -> 4 tasks replaced", "p99 < 5000 ms", &[("docker", 20_500.0)]),
    row("writes-1", "replicated writes, 1 client", ">= 2 x etcd", &[("etcd", 1_110.0)]),
    row("writes-64", "replicated writes, 64 clients", ">= 8 x etcd", &[("etcd", 7_490.0)]),
    against_disk("writes-256", "replicated writes, 256 clients"),
    row("disk-64", "disk: groups of 64 KiB + fdatasync, as 1 KiB writes", "", &[]),
    row("raft-1", "raft alone, 3 members in a process, 1 client", "", &[]),
    row("raft-64", "raft alone, 64 clients", "", &[]),
    against_disk("raft-256", "raft alone, 256 clients"),
    row("dns-known-1", "dns: a service's name, 1 client", "", &[]),
    row("dns-known-1-rate", "dns: a service's name, 1 client", "", &[]),
    row("dns-known-8", "dns: a service's name, 8 clients", "", &[]),
    row("dns-known-8-rate", "dns: a service's name, 8 clients", ">= 10,000 /s", &[]),
    row("dns-outside-1", "dns: a name outside, 1 client", "", &[]),
    row("dns-outside-1-rate", "dns: a name outside, 1 client", "", &[]),
    row("dns-outside-8", "dns: a name outside, 8 clients", "", &[]),
    row("dns-outside-8-rate", "dns: a name outside, 8 clients", ">= 10,000 /s", &[]),
];
