//! The keys of compose files: honoured, ignored as Docker ignores them, forbidden, and not built yet.

/// Top-level keys.
pub const TOP: [&str; 6] = ["version", "services", "networks", "volumes", "secrets", "configs"];

/// Service keys that become part of the spec.
pub const SERVICE: [&str; 37] = [
    "cap_add",
    "cap_drop",
    "command",
    "deploy",
    "depends_on",
    "dns",
    "dns_opt",
    "dns_search",
    "entrypoint",
    "env_file",
    "environment",
    "extra_hosts",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "labels",
    "logging",
    "networks",
    "oom_score_adj",
    "ports",
    "read_only",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "sysctls",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "volumes",
    "working_dir",
    "configs",
    "secrets",
    "credential_spec",
    "isolation",
];

/// Service keys that Docker honours and we do not yet.
pub const LATER: [&str; 4] = ["configs", "secrets", "credential_spec", "isolation"];

/// Service keys that Docker ignores with a warning.
pub const UNSUPPORTED: [&str; 16] = [
    "build",
    "cgroup_parent",
    "cgroupns_mode",
    "devices",
    "domainname",
    "external_links",
    "ipc",
    "links",
    "mac_address",
    "network_mode",
    "pid",
    "privileged",
    "restart",
    "security_opt",
    "shm_size",
    "userns_mode",
];

/// Service keys that mean nothing in a cluster, with Docker's reason.
pub const DEPRECATED: [(&str, &str); 2] = [
    ("container_name", "Setting the container name is not supported."),
    (
        "expose",
        "Exposing ports is unnecessary - services on the same network can access each other's containers on any port.",
    ),
];

/// Service keys that Docker refuses, with what to do.
pub const FORBIDDEN: [(&str, &str); 8] = [
    ("cpu_quota", "set resource limits using deploy.resources"),
    ("cpu_shares", "set resource limits using deploy.resources"),
    ("cpuset", "set resource limits using deploy.resources"),
    ("extends", "it is not supported for stacks; use YAML anchors, or several files"),
    ("mem_limit", "set resource limits using deploy.resources"),
    ("memswap_limit", "set resource limits using deploy.resources"),
    ("volume_driver", "define a volume using the top-level volumes option and specify the driver there"),
    ("volumes_from", "define a volume using the top-level volumes option and use it from each service"),
];

/// The message about a key that nobody knows.
pub fn unknown(path: &str, key: &str, known: &[&str]) -> String {
    let hint = match nearest(key, known) {
        Some(near) => format!("; did you mean \"{near}\"?"),
        None if known.len() <= 12 => format!("; allowed are {}", known.join(", ")),
        None => String::new(),
    };
    let place = if path.is_empty() { "at the top level".into() } else { format!("in {path}") };
    format!("unknown key \"{key}\" {place}{hint}")
}

/// The known key that differs in the fewest letters, if it is near.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let allowed = (key.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(key, candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, delete, replace or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_named() {
        for (key, near) in [
            ("imgae", Some("image")),
            ("enviroment", Some("environment")),
            ("port", Some("ports")),
            ("profiles", None),
            ("zz", None),
        ] {
            assert_eq!(nearest(key, &SERVICE), near, "{key}");
        }
        assert_eq!(
            unknown("", "service", &TOP),
            "unknown key \"service\" at the top level; did you mean \"services\"?"
        );
        assert_eq!(
            unknown("networks.a", "scope", &["name", "driver"]),
            "unknown key \"scope\" in networks.a; allowed are name, driver"
        );
    }
}
