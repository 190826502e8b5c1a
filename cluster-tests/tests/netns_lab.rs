//! The lab itself, with a sleeping program in the daemon's place.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Duration;

use rswarm_cluster_tests::lab::{self, Host, Lab, until};

/// A program that can be called like the daemon and does nothing.
struct Sleeper {
    folder: tempfile::TempDir,
}

impl Sleeper {
    fn new() -> Sleeper {
        // Not below /run, which is another one on the hosts.
        let folder = tempfile::tempdir_in("/var/tmp").unwrap();
        let path = folder.path().join("sleeper");
        std::fs::write(&path, "#!/bin/sh\necho \"called with $*\"\nsleep 1000 &\nwait\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        Sleeper { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("sleeper")
    }

    fn lab(&self, hosts: &[&str]) -> Lab {
        Lab::builder().hosts(hosts.iter().copied()).binary(self.path()).build().unwrap()
    }
}

fn pings(from: &Host, address: &str) -> bool {
    from.exec(&["ping", "-c", "1", "-W", "1", address]).unwrap().is_success()
}

/// Whether a datagram from one host arrives at another.
fn receives(from: &Host, to: &Host) -> bool {
    let log = to.log("sniffer");
    let _ = std::fs::remove_file(&log);
    to.spawn("sniffer", &["timeout", "2", "tcpdump", "-lnc1", "-i", "eth0", "udp", "dst", "port", "9999"]).unwrap();
    let said = |what: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(what);
    until("the sniffer listens", Duration::from_secs(10), || said("listening on")).unwrap();
    let send = format!("echo hello > /dev/udp/{}/9999", to.address());
    assert!(from.exec(&["bash", "-c", &send]).unwrap().is_success());
    until("the sniffer is done", Duration::from_secs(10), || said("received by filter")).unwrap();
    let _ = to.kill("sniffer");
    said("UDP, length 6")
}

/// All that the kernel and the disk show of a lab.
fn traces(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["/run/netns", "/run/rswarm-lab", "/var/lib/rswarm-lab"] {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        found.extend(entries.map(|e| e.path().display().to_string()).filter(|path| path.contains(name)));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
    for hierarchy in mounts.lines().filter(|l| l.contains(" cgroup")).filter_map(|l| l.split(' ').nth(1)) {
        let path = format!("{hierarchy}/rswarm-lab/{name}");
        found.extend(std::path::Path::new(&path).exists().then_some(path));
    }
    found
}

#[test]
fn hosts_reach_each_other_and_the_client_and_see_their_own_names_and_disks() {
    let sleeper = Sleeper::new();
    let lab = sleeper.lab(&["a", "b"]);
    let (a, b) = (lab.host("a"), lab.host("b"));
    assert!(pings(a, &b.address()));
    assert!(pings(a, &b.address_v6()));
    assert!(pings(a, "b"), "names of hosts are known");
    assert!(pings(b, &lab.client().address()));
    assert_eq!(a.exec(&["hostname"]).unwrap().text().unwrap(), "a\n");
    assert_eq!(b.exec(&["sh", "-c", "ls /sys/class/net"]).unwrap().text().unwrap(), "eth0\nlo\n");
    let cgroups = a.exec(&["sh", "-c", "cat /proc/self/cgroup"]).unwrap().text().unwrap();
    assert!(cgroups.contains(&format!("{}/system", a.cgroup_parent())), "{cgroups}");
    assert!(a.exec(&["sh", "-c", "grep -q cgroup /proc/mounts && ls /sys/fs/cgroup/*"]).unwrap().is_success());
    a.exec(&["sh", "-c", "echo mine > /var/lib/rswarm/file; echo run > /run/rswarm/file"]).unwrap();
    assert_eq!(std::fs::read_to_string(a.data_dir().join("file")).unwrap(), "mine\n");
    assert!(!b.exec(&["cat", "/var/lib/rswarm/file"]).unwrap().is_success());
    assert!(a.socket().parent().unwrap().join("file").exists(), "the run folder is seen from outside");
    let others = b.exec(&["sh", "-c", "ls /run/rswarm-lab /run/netns 2>&1; true"]).unwrap().text().unwrap();
    assert!(!others.contains(lab.name()), "a host does not see the lab: {others}");
}

#[test]
fn a_link_cut_one_way_still_carries_the_other_way_until_it_is_healed() {
    let sleeper = Sleeper::new();
    let lab = sleeper.lab(&["a", "b", "c"]);
    let (a, b, c) = (lab.host("a"), lab.host("b"), lab.host("c"));
    assert!(receives(a, b) && receives(b, a));
    lab.cut_oneway("a", "b").unwrap();
    // Neighbours learnt before must be learnt again: that has to work through a cut.
    for host in [a, b] {
        host.exec(&["ip", "neigh", "flush", "all"]).unwrap();
    }
    assert!(!receives(a, b), "a to b is cut");
    assert!(receives(b, a), "b to a is open");
    assert!(receives(a, c) && receives(c, b), "other links are open");
    a.exec(&["nft", "flush", "ruleset"]).unwrap();
    assert!(!receives(a, b), "a host's own rules have no say");
    lab.heal().unwrap();
    assert!(receives(a, b));
    lab.isolate("c").unwrap();
    assert!(!pings(c, &a.address()) && !pings(lab.client(), &c.address()) && pings(a, &b.address()));
}

#[test]
fn a_daemon_is_started_killed_paused_and_started_again_on_the_same_disk() {
    let sleeper = Sleeper::new();
    let lab = sleeper.lab(&["a"]);
    let a = lab.host("a");
    assert!(!a.is_daemon_running());
    a.start_daemon(&["--label", "x=y"]).unwrap();
    let log = || std::fs::read_to_string(a.log("daemon")).unwrap();
    until("the daemon has spoken", Duration::from_secs(10), || log().contains("called with")).unwrap();
    assert_eq!(log(), "called with daemon --label x=y\n");
    let config = a.exec(&["cat", "/etc/rswarm/config.toml"]).unwrap().stdout;
    assert_eq!(config, format!("cgroup-parent = \"{}\"\n", a.cgroup_parent()));
    assert!(a.start_daemon(&[]).unwrap_err().to_string().contains("runs on a already"));
    let first = a.daemon_pid().unwrap();
    a.pause().unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{first}/stat")).unwrap();
    until("the daemon is stopped", Duration::from_secs(10), || state().contains(") T ")).unwrap();
    a.resume().unwrap();
    until("the daemon goes on", Duration::from_secs(10), || !state().contains(") T ")).unwrap();
    a.exec(&["sh", "-c", "echo kept > /var/lib/rswarm/file"]).unwrap();
    a.restart().unwrap();
    assert_ne!(a.daemon_pid().unwrap(), first);
    a.sigkill_daemon().unwrap();
    assert!(!a.is_daemon_running());
    assert!(a.sigkill_daemon().unwrap_err().to_string().contains("has ended"));
    assert_eq!(a.exec(&["cat", "/var/lib/rswarm/file"]).unwrap().stdout, "kept\n");
}

#[test]
fn a_power_cut_ends_everything_on_the_host_but_its_disk() {
    let sleeper = Sleeper::new();
    let lab = sleeper.lab(&["a", "b"]);
    let (a, b) = (lab.host("a"), lab.host("b"));
    a.start_daemon(&[]).unwrap();
    // One that has left the daemon's session, as shims do, and one in another network namespace.
    a.exec(&["sh", "-c", "echo kept > /var/lib/rswarm/file; echo gone > /run/rswarm/file; setsid sleep 1001 & unshare --net sleep 1002 &"])
        .unwrap();
    let pid = a.daemon_pid().unwrap();
    a.power_off().unwrap();
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!pings(b, &a.address()));
    assert!(a.exec(&["true"]).unwrap_err().to_string().contains("is off"));
    a.power_on().unwrap();
    assert!(pings(b, &a.address()));
    assert_eq!(a.exec(&["sh", "-c", "cat /var/lib/rswarm/file; ls /run/rswarm"]).unwrap().stdout, "kept\n");
    assert!(!a.exec(&["pgrep", "-f", "sleep 100[12]"]).unwrap().is_success());
}

#[test]
fn dropping_a_lab_leaves_no_process_namespace_mount_cgroup_or_folder() {
    let sleeper = Sleeper::new();
    let lab = sleeper.lab(&["a", "b"]);
    let name = lab.name().to_owned();
    lab.host("a").start_daemon(&[]).unwrap();
    lab.host("b").spawn("other", &["sh", "-c", "setsid unshare --net --mount sleep 1003 & sleep 1004"]).unwrap();
    let script = "mkdir -p /run/rswarm/netns && touch /run/rswarm/netns/x && unshare --net=/run/rswarm/netns/x true";
    assert!(lab.host("a").exec(&["sh", "-c", script]).unwrap().is_success(), "a pinned namespace");
    assert!(!traces(&name).is_empty());
    let pid = lab.host("a").daemon_pid().unwrap();
    drop(lab);
    assert_eq!(traces(&name), [""; 0]);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    assert!(!lab::names().contains(&name));
}

#[test]
fn a_lab_is_removed_also_when_its_test_panics_and_its_logs_are_kept() {
    let sleeper = Sleeper::new();
    let path = sleeper.path();
    let name = std::thread::spawn(move || {
        let lab = Lab::builder().hosts(["a"]).binary(path).build().unwrap();
        lab.host("a").start_daemon(&[]).unwrap();
        let name = lab.name().to_owned();
        std::panic::panic_any(name);
    })
    .join()
    .unwrap_err();
    let name = name.downcast::<String>().unwrap();
    assert_eq!(traces(&name), [""; 0]);
    let logs = std::env::temp_dir().join("rswarm-lab-logs").join(name.as_str());
    let network = std::fs::read_to_string(logs.join("a/network.txt")).unwrap();
    assert!(network.contains("10.99.0.1/24") && logs.join("a/daemon.log").exists());
    std::fs::remove_dir_all(logs).unwrap();
}

#[test]
fn a_lab_whose_maker_was_killed_is_removed_by_the_next_one_that_is_made() {
    let sleeper = Sleeper::new();
    let stale = sleeper.lab(&["a"]);
    let name = stale.name().to_owned();
    stale.host("a").start_daemon(&[]).unwrap();
    let pid = stale.host("a").daemon_pid().unwrap();
    // As if made by a process that had our pid before us.
    std::fs::write(format!("/run/rswarm-lab/{name}/owner"), format!("{} 1\n", std::process::id())).unwrap();
    let living = sleeper.lab(&["b"]);
    assert_eq!(traces(&name), [""; 0]);
    assert!(std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z ")), "killed");
    assert!(lab::names().contains(&living.name().to_owned()), "the living one stays");
    drop(stale);
    drop(living);
}

#[test]
fn a_kept_lab_is_opened_by_its_name_and_stays_until_it_is_removed() {
    let sleeper = Sleeper::new();
    let name = format!("kept{}", std::process::id());
    let build = || Lab::builder().hosts(["a"]).neighbours(["registry"]).binary(sleeper.path()).kept(&name).build();
    drop(build().unwrap());
    let guard = Removed(name.clone());
    assert!(build().err().unwrap().to_string().contains("exists"));
    lab::gc().unwrap();
    let opened = Lab::open(&name).unwrap();
    let hosts: Vec<&str> = opened.hosts().iter().map(Host::name).collect();
    assert_eq!(hosts, ["a", "client", "registry"]);
    assert_eq!(opened.host("registry").address(), "10.99.0.101");
    opened.host("a").start_daemon(&[]).unwrap();
    assert!(pings(opened.client(), "registry"));
    assert!(opened.find("z").unwrap_err().to_string().contains("there are a, client, registry"));
    drop(opened);
    assert!(!traces(&name).is_empty());
    drop(guard);
    assert_eq!(traces(&name), [""; 0]);
}

/// Removes a kept lab at the end of its test, whatever happens.
struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        lab::remove(&self.0).unwrap();
    }
}
