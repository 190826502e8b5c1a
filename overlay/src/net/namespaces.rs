//! Network namespaces: entering, making, mounting on a file.
//!
//! A namespace belongs to a thread. Only threads made here enter one, and they end there.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::model::names;

/// What `statfs` says of a mounted namespace.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// The namespace of the calling thread.
///
/// # Errors
/// When /proc is not mounted.
pub fn current() -> io::Result<OwnedFd> {
    Ok(File::open("/proc/thread-self/ns/net")?.into())
}

/// Runs inside a namespace, on a thread of its own.
///
/// # Errors
/// When the namespace cannot be entered, or what `inside` returns.
pub fn enter<T: Send>(namespace: impl AsFd + Sync, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(|| {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        inside()
    })
}

/// Makes a namespace, mounts it on `pin`, and runs inside it.
///
/// # Errors
/// When we may not, or `pin` is taken.
pub fn create<T: Send>(pin: &Path, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(|| {
        File::options().write(true).create_new(true).open(pin)?;
        let made = || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let bind = MsFlags::MS_BIND;
            mount(Some("/proc/thread-self/ns/net"), pin, None::<&str>, bind, None::<&str>)?;
            inside()
        };
        made().inspect_err(|_| {
            let _ = remove(pin);
        })
    })
}

/// Unmounts a namespace and removes the file. The kernel takes it down once nobody is in it.
///
/// # Errors
/// When it cannot be unmounted.
pub fn remove(pin: &Path) -> io::Result<()> {
    match umount2(pin, MntFlags::MNT_DETACH) {
        // Not mounted: only the file is left.
        Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
        Err(errno) => return Err(errno.into()),
    }
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the file holds a namespace; after a reboot it may be a mere file.
pub fn is_mounted(pin: &Path) -> bool {
    rustix::fs::statfs(pin).is_ok_and(|s| s.f_type == NSFS_MAGIC)
}

/// Whether the calling thread's namespace has IPv6 at all.
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6/conf/all").exists()
}

/// Interfaces of the calling thread's namespace that take their routes from a router while the host
/// forwards nothing itself.
///
/// # Errors
/// When the settings cannot be listed.
pub fn advertised() -> io::Result<BTreeSet<String>> {
    if read_sysctl("net/ipv6/conf/all/forwarding").as_deref() != Some("0") {
        return Ok(BTreeSet::new());
    }
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf")? {
        let Ok(name) = entry?.file_name().into_string() else { continue };
        let listens = read_sysctl(&format!("net/ipv6/conf/{name}/accept_ra")).as_deref() == Some("1");
        if listens && name != names::LOOPBACK && !name.starts_with(names::HOST_PREFIX) {
            found.insert(name);
        }
    }
    Ok(found)
}

/// Settings of the calling thread's namespace that containers find, as under Docker.
///
/// # Errors
/// When a setting that every kernel has cannot be written.
pub fn set_up_sandbox() -> io::Result<()> {
    write_sysctl("net/ipv4/ping_group_range", "0 2147483647")?;
    write_sysctl("net/ipv4/ip_unprivileged_port_start", "0")?;
    write_sysctl("net/ipv6/conf/lo/disable_ipv6", "0")?;
    quiet_ipv6()
}

/// Settings of the calling thread's namespace where only a bridge is.
///
/// # Errors
/// When a setting that every kernel has cannot be written.
pub fn set_up_network() -> io::Result<()> {
    // On by default in each new namespace, where the filter is built in.
    for table in ["arptables", "iptables", "ip6tables"] {
        write_sysctl(&format!("net/bridge/bridge-nf-call-{table}"), "0")?;
    }
    quiet_ipv6()
}

/// Interfaces have the addresses that they are given, and no others.
fn quiet_ipv6() -> io::Result<()> {
    for scope in ["all", "default"] {
        write_sysctl(&format!("net/ipv6/conf/{scope}/disable_ipv6"), "0")?;
        write_sysctl(&format!("net/ipv6/conf/{scope}/accept_ra"), "0")?;
        write_sysctl(&format!("net/ipv6/conf/{scope}/autoconf"), "0")?;
    }
    write_sysctl("net/ipv6/conf/default/addr_gen_mode", "1")
}

/// Writes a setting of the calling thread's namespace. One that the kernel lacks is nothing to
/// set: no bridge filter, no IPv6.
///
/// # Errors
/// When the kernel refuses the value.
pub fn write_sysctl(name: &str, value: &str) -> io::Result<()> {
    match fs::write(Path::new("/proc/sys").join(name), value) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Reads a setting of the calling thread's namespace; `None` where the kernel lacks it.
pub fn read_sysctl(name: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Whether the old iptables of the calling thread's namespace drops what it does not know of what
/// is forwarded. nftables does not show it.
pub fn drops_by_old_iptables() -> bool {
    let tables = fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
    if !tables.lines().any(|table| table == "filter") {
        return false;
    }
    let listed = Command::new("iptables-legacy").args(["-S", "FORWARD"]).output();
    listed.is_ok_and(|output| {
        let rules = String::from_utf8_lossy(&output.stdout);
        rules.contains("-P FORWARD DROP") && !rules.contains(names::FORWARD_PREFIX)
    })
}

/// Whether the calling thread's namespace has this address on an interface.
pub fn has_address(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the namespace thread panicked")))
    })
}
