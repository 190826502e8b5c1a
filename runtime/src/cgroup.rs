//! What a daemon and a shim do with cgroups beside the runtime's own limits: make, kill, ask, remove.
//!
//! Works on version 1, on the hybrid of both and on version 2; hierarchies come from this process's mount table.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// How long a cgroup may take to become empty after SIGKILL, or to be removed once empty.
const SETTLE_MAX: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(4);
/// Tries to make a folder whose parent somebody else removes meanwhile.
const MAKE_TRIES: u32 = 50;

/// The mounted hierarchies of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Version 1: controllers (or `name=…`) and mount point.
    pub v1: Vec<(String, PathBuf)>,
    pub v2: Option<PathBuf>,
}

impl Hierarchies {
    pub fn of_this_machine() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        let mut devices = Vec::new();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else { continue };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let (Some(device), Some(root), Some(point)) = (left.get(2), left.get(3), left.get(4)) else { continue };
            let (Some(kind), Some(options)) = (right.first(), right.get(2)) else { continue };
            if *root != "/" || !kind.starts_with("cgroup") || devices.contains(device) {
                continue;
            }
            devices.push(device);
            if *kind == "cgroup2" {
                found.v2 = Some(PathBuf::from(point));
            } else {
                let generic = ["rw", "ro", "xattr", "noprefix", "clone_children"];
                let controllers: Vec<&str> =
                    options.split(',').filter(|o| !generic.contains(o) && !o.starts_with("release_agent")).collect();
                found.v1.push((controllers.join(","), PathBuf::from(point)));
            }
        }
        found
    }

    /// Folder names below `/sys/fs/cgroup` as a container sees them.
    pub fn v1_names(&self) -> impl Iterator<Item = &str> {
        self.v1.iter().filter_map(|(_, point)| point.file_name()?.to_str())
    }

    fn points(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().map(|(_, point)| point).chain(&self.v2)
    }

    fn v1_with(&self, controller: &str) -> Option<&PathBuf> {
        self.v1.iter().find(|(all, _)| all.split(',').any(|c| c == controller)).map(|(_, point)| point)
    }

    /// Makes the cgroup in every hierarchy, so that nobody removes the parent while a container is being made.
    pub fn make(&self, cgroup: &str) -> io::Result<()> {
        for point in self.points() {
            let path = below(point, cgroup);
            let mut tries = 0;
            while let Err(error) = fs::create_dir_all(&path) {
                tries += 1;
                if error.kind() != ErrorKind::NotFound || tries > MAKE_TRIES {
                    return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
                }
            }
        }
        Ok(())
    }

    /// Moves this process into the cgroup of the unified hierarchy where that one only watches (hybrid), so that
    /// what it starts can be killed at once; returns where it was.
    pub fn enter_unified(&self, cgroup: &str) -> io::Result<Option<PathBuf>> {
        let (Some(v2), false) = (&self.v2, self.v1.is_empty()) else { return Ok(None) };
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
        fs::write(below(v2, cgroup).join("cgroup.procs"), "0")?;
        Ok(Some(below(v2, own)))
    }

    /// Kills everything in the cgroup and waits until it is empty. No cgroup is an empty one.
    ///
    /// # Errors
    /// `TimedOut` when something survives SIGKILL.
    pub fn kill(&self, cgroup: &str) -> io::Result<()> {
        let since = Instant::now();
        let freezer = self.v1_with("freezer").map(|point| below(point, cgroup).join("freezer.state"));
        loop {
            if let Some(v2) = &self.v2 {
                let _ = fs::write(below(v2, cgroup).join("cgroup.kill"), "1");
            }
            if self.processes(cgroup).is_empty() {
                return Ok(());
            }
            // Frozen, nothing forks between the look and the kill.
            let set = |state: &str| freezer.as_ref().map(|path| fs::write(path, state));
            set("FROZEN");
            for pid in self.processes(cgroup) {
                let _ = kill_process(pid, Signal::KILL);
            }
            set("THAWED");
            if since.elapsed() > SETTLE_MAX {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("processes of cgroup {cgroup} survive SIGKILL: {:?}", self.processes(cgroup)),
                ));
            }
            sleep(STEP);
        }
    }

    /// Everything that runs in the cgroup or below it, in any hierarchy.
    fn processes(&self, cgroup: &str) -> Vec<Pid> {
        let mut all = Vec::new();
        for point in self.points() {
            walk(&below(point, cgroup), &mut |folder| {
                let listed = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
                all.extend(listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
            });
        }
        all.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
        all.dedup();
        all
    }

    /// Whether the kernel killed a process of the cgroup for lack of memory.
    pub fn has_run_out_of_memory(&self, cgroup: &str) -> bool {
        let count = |path: PathBuf| -> u64 {
            let text = fs::read_to_string(path).unwrap_or_default();
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
        };
        match self.v1_with("memory") {
            Some(point) => count(below(point, cgroup).join("memory.oom_control")) > 0,
            None => self.v2.as_ref().is_some_and(|point| count(below(point, cgroup).join("memory.events")) > 0),
        }
    }

    /// Removes the empty cgroup and those above it that it leaves empty.
    ///
    /// # Errors
    /// When it is not empty.
    pub fn remove(&self, cgroup: &str) -> io::Result<()> {
        let since = Instant::now();
        for point in self.points() {
            let path = below(point, cgroup);
            let mut folders = Vec::new();
            walk(&path, &mut |folder| folders.push(folder.to_owned()));
            for folder in folders.into_iter().rev() {
                loop {
                    match fs::remove_dir(&folder) {
                        Ok(()) => break,
                        Err(e) if e.kind() == ErrorKind::NotFound => break,
                        // Its last process is still on the way out.
                        Err(e) if e.kind() == ErrorKind::ResourceBusy && since.elapsed() < SETTLE_MAX => sleep(STEP),
                        Err(e) => return Err(io::Error::new(e.kind(), format!("{}: {e}", folder.display()))),
                    }
                }
            }
            let mut above = path.parent();
            while let Some(folder) = above.filter(|folder| *folder != point) {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
                above = folder.parent();
            }
        }
        Ok(())
    }
}

fn below(point: &Path, cgroup: &str) -> PathBuf {
    point.join(cgroup.trim_start_matches('/'))
}

/// Visits a folder and those below it, the outer ones first.
fn walk(path: &Path, visit: &mut dyn FnMut(&Path)) {
    if !path.is_dir() {
        return;
    }
    visit(path);
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            walk(&entry.path(), visit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_mount_table() {
        let hybrid = "\
25 30 0:22 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd
28 25 0:25 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
29 25 0:23 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct
31 25 0:26 /sub /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";
        let found = Hierarchies::parse(hybrid);
        assert_eq!(
            found.v1,
            [
                ("cpu,cpuacct".to_owned(), PathBuf::from("/sys/fs/cgroup/cpu,cpuacct")),
                ("name=systemd".to_owned(), PathBuf::from("/sys/fs/cgroup/systemd")),
            ]
        );
        assert_eq!(found.v2, Some(PathBuf::from("/sys/fs/cgroup/unified")));
        let unified = Hierarchies::parse("28 25 0:25 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert!(unified.v1.is_empty() && unified.v2.is_some());
    }
}
