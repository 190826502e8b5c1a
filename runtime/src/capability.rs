//! Linux capabilities by name.

/// All capabilities, the position is the kernel's number.
pub const ALL: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What a container has unless asked otherwise: Docker's 14 less NET_RAW, MKNOD and AUDIT_WRITE.
pub const DEFAULT: [&str; 11] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// What Docker adds to [`DEFAULT`].
const DOCKER_ADDS: [&str; 3] = ["AUDIT_WRITE", "MKNOD", "NET_RAW"];

/// What a container has unless its service says otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultCapabilities {
    /// [`DEFAULT`], 11.
    #[default]
    Own,
    /// Docker's 14.
    Docker,
}

impl DefaultCapabilities {
    /// Their names, sorted.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let added: &[&'static str] = match self {
            Self::Own => &[],
            Self::Docker => &DOCKER_ADDS,
        };
        let mut names: Vec<&'static str> = DEFAULT.iter().chain(added).copied().collect();
        names.sort_unstable();
        names
    }
}

/// The name as in [`ALL`]: without `CAP_`, upper case.
fn known(name: &str) -> Option<&'static str> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    ALL.into_iter().find(|c| *c == bare)
}

/// The set `defaults` plus `add` less `drop`, sorted; `ALL` in either means every one, and names given beside it win.
///
/// # Errors
/// The names that no kernel knows.
pub fn resolve(defaults: DefaultCapabilities, add: &[String], drop: &[String]) -> Result<Vec<String>, Vec<String>> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut unknown = Vec::new();
    let mut named = |names: &[String]| -> Vec<&'static str> {
        let mut found = Vec::new();
        for name in names.iter().filter(|n| !is_all(n)) {
            match known(name) {
                Some(name) => found.push(name),
                None => unknown.push(name.clone()),
            }
        }
        found
    };
    let (adds, drops) = (named(add), named(drop));
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let base: Vec<&str> = match (add.iter().any(is_all), drop.iter().any(is_all)) {
        (true, _) => ALL.to_vec(),
        (false, true) => Vec::new(),
        (false, false) => defaults.names(),
    };
    let mut all: Vec<String> = base.into_iter().chain(adds).filter(|c| !drops.contains(c)).map(str::to_owned).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], expected: Result<usize, &[&str]>) {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let got = resolve(DefaultCapabilities::Own, &own(add), &own(drop)).map(|caps| caps.len());
        assert_eq!(got, expected.map_err(own), "add {add:?}, drop {drop:?}");
    }

    #[test]
    fn adds_and_drops_combine_as_docker_does() {
        check(&[], &[], Ok(11));
        check(&["NET_ADMIN", "cap_net_raw"], &[], Ok(13));
        check(&["CHOWN"], &["KILL"], Ok(10));
        check(&[], &["ALL"], Ok(0));
        check(&["NET_BIND_SERVICE"], &["ALL"], Ok(1));
        check(&["ALL"], &[], Ok(41));
        check(&["ALL"], &["SYS_ADMIN"], Ok(40));
        check(&["FLY"], &["SWIM", "KILL"], Err(&["FLY", "SWIM"]));
    }

    #[test]
    fn the_default_is_docker_s_mask_less_three_bits() {
        let bits = |names: &[&str]| names.iter().map(|n| 1u64 << ALL.iter().position(|a| a == n).unwrap()).sum::<u64>();
        assert_eq!(bits(&DEFAULT), 0xa80425fb - bits(&["NET_RAW", "MKNOD", "AUDIT_WRITE"]));
        assert_eq!(bits(&DefaultCapabilities::Docker.names()), 0xa80425fb, "its 14 where that is asked for");
    }
}
