//! Cgroups of a lab: `/rswarm-lab/LAB/HOST` in every hierarchy, v1 and v2.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// What the daemon is told as `--cgroup-parent`.
pub fn parent(lab: &str, host: &str) -> String {
    format!("/rswarm-lab/{lab}/{host}")
}

/// Makes the leaf `system` for a host's own processes; returns the files that a process writes its pid to.
///
/// Not in cpuset v1, where a new cgroup takes no process until it is given processors.
pub fn make(lab: &str, host: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for hierarchy in hierarchies()?.iter().filter(|h| !h.ends_with("cpuset")) {
        let leaf = below(hierarchy, &parent(lab, host)).join("system");
        std::fs::create_dir_all(&leaf).with_context(|| format!("cannot make {}", leaf.display()))?;
        files.push(leaf.join("cgroup.procs"));
    }
    Ok(files)
}

/// Every process in or below a cgroup, in all hierarchies.
pub fn processes(path: &str) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    for folder in folders(path).unwrap_or_default() {
        let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    }
    found
}

/// Lets frozen processes run, so that they can die.
pub fn thaw(path: &str) {
    for folder in folders(path).unwrap_or_default() {
        // Each hierarchy has one of these files at most.
        let _ = write_existing(&folder.join("freezer.state"), "THAWED");
        let _ = write_existing(&folder.join("cgroup.freeze"), "0");
    }
}

/// Removes a cgroup and those below it; they must be empty of processes, or become so within two seconds.
pub fn remove(path: &str) -> Result<()> {
    let began = Instant::now();
    loop {
        let mut left = folders(path)?;
        left.retain(|folder| std::fs::remove_dir(folder).is_err() && folder.exists());
        let Some(folder) = left.first() else { return Ok(()) };
        if began.elapsed() > Duration::from_secs(2) {
            bail!("cannot remove cgroup {}", folder.display());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Removes the common parent of all labs, if this was the last.
pub fn remove_root_if_empty() {
    for hierarchy in hierarchies().unwrap_or_default() {
        let _ = std::fs::remove_dir(below(&hierarchy, "/rswarm-lab"));
    }
}

/// The cgroup's folders in all hierarchies, children before parents.
fn folders(path: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for hierarchy in hierarchies()? {
        let from = found.len();
        let mut open = vec![below(&hierarchy, path)];
        while let Some(folder) = open.pop() {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            open.extend(entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
            found.push(folder);
        }
        found[from..].reverse();
    }
    Ok(found)
}

fn below(hierarchy: &Path, path: &str) -> PathBuf {
    hierarchy.join(path.trim_start_matches('/'))
}

fn write_existing(path: &Path, text: &str) -> std::io::Result<()> {
    if path.exists() { std::fs::write(path, text) } else { Ok(()) }
}

/// Where this machine's hierarchies are mounted.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    Ok(cgroup_mounts(&mounts))
}

fn cgroup_mounts(mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        if let (Some(path), Some("cgroup" | "cgroup2")) = (words.next(), words.next()) {
            found.push(PathBuf::from(path));
        }
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let wanted: Vec<PathBuf> = vec!["/sys/fs/cgroup/cpu".into(), "/sys/fs/cgroup/unified".into()];
        assert_eq!(cgroup_mounts(mounts), wanted);
    }
}
