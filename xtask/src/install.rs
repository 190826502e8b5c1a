//! Debian packages that the tests and the demo use.

use std::path::Path;

use crate::{Result, sh};

/// A Debian package, and a program by which we know that it is there.
pub struct Package {
    pub name: &'static str,
    program: &'static str,
}

const fn package(name: &'static str, program: &'static str) -> Package {
    Package { name, program }
}

/// What the demo and the lab use.
pub const DEMO: &[Package] = &[
    package("curl", "curl"),
    package("docker-registry", "docker-registry"),
    package("iproute2", "ip"),
    package("nftables", "nft"),
    package("procps", "ps"),
    package("util-linux", "nsenter"),
    package("xz-utils", "xz"),
    package("zstd", "zstd"),
];

/// What the tests use besides.
pub const TESTS: &[Package] = &[
    package("apache2-utils", "htpasswd"),
    package("busybox-static", "busybox"),
    package("conntrack", "conntrack"),
    package("dnsutils", "dig"),
    package("iputils-ping", "ping"),
    package("jq", "jq"),
    package("runc", "runc"),
    package("strace", "strace"),
    package("tcpdump", "tcpdump"),
];

/// What the benchmark measures beside us.
pub const PEERS: &[Package] = &[
    package("crun", "crun"),
    package("dnsmasq-base", "dnsmasq"),
    package("docker.io", "dockerd"),
    package("etcd-server", "etcd"),
    package("runc", "runc"),
];

/// Services that come with these packages: they shall not start with the machine either.
const SERVICES: &[(&str, &[&str])] = &[
    ("docker-registry", &["docker-registry"]),
    ("docker.io", &["docker.service", "docker.socket", "containerd"]),
    ("etcd-server", &["etcd"]),
];

/// Installs what is missing, and starts none of the services that come with it.
///
/// # Errors
/// If something is missing and we are not root, or apt fails.
pub fn ensure(packages: &[&[Package]]) -> Result<()> {
    let missing: Vec<&str> =
        packages.iter().flat_map(|list| list.iter()).filter(|p| !sh::has(p.program)).map(|p| p.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if !sh::is_root() {
        return Err(format!("missing: {names}\n       as root: apt-get install -y {names}").into());
    }
    if !sh::has("apt-get") {
        return Err(format!("missing: {names}\n       install them; this machine has no apt-get to do it").into());
    }
    let _no_services = NoServices::begin()?;
    if sh::run(&mut apt(&missing)).is_err() {
        // The lists may be older than the mirror.
        sh::run(&mut sh::command("apt-get", &["-o", LOCK, "update", "-qq"]))?;
        sh::run(&mut apt(&missing))?;
    }
    if sh::has("systemctl") {
        for (_, services) in SERVICES.iter().filter(|(name, _)| missing.contains(name)) {
            sh::run(sh::command("systemctl", &["disable", "--quiet"]).args(*services))?;
        }
    }
    Ok(())
}

/// Somebody else's apt may be at work.
const LOCK: &str = "DPkg::Lock::Timeout=300";

fn apt(names: &[&str]) -> std::process::Command {
    let mut command = sh::command("apt-get", &["-o", LOCK, "install", "-y", "-qq", "--no-install-recommends"]);
    command.args(names).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// While this lives, packages that are installed do not start their services (Debian's policy-rc.d).
struct NoServices {
    is_ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> Result<NoServices> {
        use std::os::unix::fs::PermissionsExt as _;
        if Path::new(POLICY).exists() {
            return Ok(NoServices { is_ours: false });
        }
        let guard = NoServices { is_ours: true };
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").map_err(|e| format!("cannot write {POLICY}: {e}"))?;
        std::fs::set_permissions(POLICY, std::fs::Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.is_ours
            && let Err(error) = std::fs::remove_file(POLICY)
        {
            eprintln!("warning: cannot remove {POLICY}: {error}");
        }
    }
}
