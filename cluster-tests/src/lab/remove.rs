//! Taking labs down: whoever knows the name can, whether or not the maker still lives.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, umount2};

use super::command::tool;
use super::host::{namespace, network_file};
use super::{cgroup, files, process, switch};

/// The labs that exist.
#[must_use]
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir(files::STATES).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    found.sort();
    found
}

/// Removes the labs whose makers have ended without doing so. Labs of living makers, and kept ones, stay.
///
/// # Errors
/// If something of them is left.
pub fn gc() -> Result<()> {
    let _lock = files::lock()?;
    let stale = names().into_iter().filter(|lab| files::is_stale(lab));
    stale.into_iter().try_for_each(|lab| remove_locked(&lab))
}

/// Removes a lab: processes, namespaces, mounts, cgroups, folders. A lab that does not exist is no error.
///
/// # Errors
/// If something is left: all of it is named.
pub fn remove(lab: &str) -> Result<()> {
    super::check_name("lab", lab)?;
    let _lock = files::lock()?;
    remove_locked(lab)
}

fn remove_locked(lab: &str) -> Result<()> {
    let hosts = if files::state(lab).is_dir() { files::hosts(lab)? } else { Vec::new() };
    let mut errors: Vec<String> = Vec::new();
    let mut attempt = |result: Result<()>| errors.extend(result.err().map(|e| format!("{e:#}")));
    attempt(kill(&format!("/rswarm-lab/{lab}"), &hosts.iter().map(|h| (lab, h.as_str())).collect::<Vec<_>>()));
    attempt(unmount(&files::state(lab)));
    for name in hosts.iter().map(|host| namespace(lab, host)).chain([switch::namespace(lab)]) {
        attempt(delete_namespace(&name));
    }
    attempt(cgroup::remove(&format!("/rswarm-lab/{lab}")));
    attempt(unmount(&files::disk(lab)));
    for folder in [files::disk(lab), files::state(lab)] {
        attempt(remove_folder(&folder));
    }
    if names().is_empty() {
        cgroup::remove_root_if_empty();
        // Only while no lab lives: its hosts have their own mounted here.
        for folder in [files::STATES, files::DISKS, files::DATA_DIR, files::CONFIG_DIR] {
            let _ = std::fs::remove_dir(folder);
        }
    }
    if errors.is_empty() { Ok(()) } else { bail!("lab {lab} is not gone: {}", errors.join("; ")) }
}

/// Ends one host as a power cut does: every process, every namespace. Its disk stays.
pub fn power_off(lab: &str, host: &str) -> Result<()> {
    let parent = cgroup::parent(lab, host);
    ensure!(network_file(lab, host).exists(), "host {host} is off already");
    switch::unplug(lab, host)?;
    kill(&parent, &[(lab, host)])?;
    unmount(&files::state(lab).join(host))?;
    delete_namespace(&namespace(lab, host))?;
    cgroup::remove(&parent)
}

/// Kills what runs in the cgroup or in a namespace of these hosts.
fn kill(cgroup: &str, hosts: &[(&str, &str)]) -> Result<()> {
    cgroup::thaw(cgroup);
    let holders: Vec<PathBuf> = hosts
        .iter()
        .flat_map(|(lab, host)| [network_file(lab, host), files::state(lab).join(host).join("mnt")])
        // Before its namespace is pinned there, the file is an ordinary one.
        .filter(|file| is_mount(file))
        .collect();
    process::kill_all(|| {
        let mut found: BTreeSet<u32> = cgroup::processes(cgroup);
        found.extend(process::in_namespaces(&holders));
        found
    })
}

fn is_mount(path: &Path) -> bool {
    mounts().iter().any(|mount| mount == path)
}

/// Detaches every mount at or below `path`, the latest first.
fn unmount(path: &Path) -> Result<()> {
    for mount in mounts().into_iter().rev().filter(|mount| mount.starts_with(path)) {
        umount2(&mount, MntFlags::MNT_DETACH).with_context(|| format!("cannot unmount {}", mount.display()))?;
    }
    Ok(())
}

fn mounts() -> Vec<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).collect()
}

fn delete_namespace(name: &str) -> Result<()> {
    if Path::new("/run/netns").join(name).exists() {
        tool(&["ip", "netns", "delete", name])?;
    }
    Ok(())
}

fn remove_folder(path: &Path) -> Result<()> {
    if path.exists() {
        tool(&["rm", "-rf", "--one-file-system", &super::shown(path)])?;
    }
    Ok(())
}
