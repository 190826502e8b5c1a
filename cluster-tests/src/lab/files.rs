//! Where a lab keeps what it must find again, and where the programs and images under test are.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use super::command::tool;
use super::{process, shown};

/// Namespaces, pids and the owner of each lab.
pub const STATES: &str = "/run/rswarm-lab";
/// Disks of each lab's hosts. Not below /run or /tmp, which may be in memory.
pub const DISKS: &str = "/var/lib/rswarm-lab";
/// Where the hosts' disks appear on the hosts, as on a real one.
pub const DATA_DIR: &str = "/var/lib/rswarm";
/// Where the daemon looks for its configuration: each host has its own.
pub const CONFIG_DIR: &str = "/etc/rswarm";

/// What holds a lab's namespaces and pids.
pub fn state(lab: &str) -> PathBuf {
    Path::new(STATES).join(lab)
}

/// What holds a lab's disks.
pub fn disk(lab: &str) -> PathBuf {
    Path::new(DISKS).join(lab)
}

/// The hosts that a lab's state names.
pub fn hosts(lab: &str) -> Result<Vec<String>> {
    let folder = state(lab);
    let entries = std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let folders = entries.flatten().filter(|entry| entry.path().is_dir());
    Ok(folders.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// Held while labs come and go: the state of all labs is looked at as a whole.
pub fn lock() -> Result<File> {
    let file = File::open("/run").context("cannot open /run")?;
    file.lock().context("cannot lock /run")?;
    Ok(file)
}

/// Makes a lab's folders and says who owns it.
pub fn begin(lab: &str, is_kept: bool) -> Result<()> {
    let _lock = lock()?;
    let (state, disk) = (state(lab), disk(lab));
    for folder in [&state, &disk] {
        ensure!(!folder.exists(), "a lab called {lab} exists ({}): remove it first", folder.display());
    }
    std::fs::create_dir_all(&state).with_context(|| format!("cannot make {}", state.display()))?;
    // The kernel pins a mount namespace only in a mount that is not shared.
    tool(&["mount", "--bind", &shown(&state), &shown(&state)])?;
    tool(&["mount", "--make-private", &shown(&state)])?;
    let owner = state.join("owner");
    if is_kept {
        std::fs::write(&owner, "kept\n")?;
    } else {
        process::Identity::of(std::process::id()).context("cannot read our own start time")?.write(&owner)?;
    }
    std::fs::create_dir_all(&disk).with_context(|| format!("cannot make {}", disk.display()))?;
    if tool(&["stat", "--file-system", "--format=%T", &shown(&disk)])?.trim() == "overlayfs" {
        // No overlay can be written on top of an overlay.
        tool(&["mount", "-t", "tmpfs", "-o", "mode=755", "rswarm-lab", &shown(&disk)])?;
    }
    for folder in [DATA_DIR, CONFIG_DIR] {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {folder}"))?;
    }
    Ok(())
}

/// Whether nobody will remove this lab: its owner has ended. A kept lab has no owner to wait for.
pub fn is_stale(lab: &str) -> bool {
    let owner = state(lab).join("owner");
    let is_kept = std::fs::read_to_string(&owner).is_ok_and(|text| text.trim() == "kept");
    !is_kept && process::Identity::read(&owner).is_none_or(|process| !process.is_alive())
}

/// The program under test: `RSWARM_BIN`, or `rswarm` where cargo put the program that is running.
///
/// # Errors
/// If it has not been built.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("RSWARM_BIN") {
        return std::fs::canonicalize(&path).with_context(|| format!("RSWARM_BIN={}", path.display()));
    }
    match built("rswarm")? {
        Some(path) => Ok(path),
        None => bail!("rswarm has not been built: cargo build --package rswarm, or set RSWARM_BIN"),
    }
}

/// The archive of one of the images that `cargo xtask images` builds: in `RSWARM_IMAGES`, or cargo's target folder.
///
/// # Errors
/// If it has not been built.
pub fn image(name: &str) -> Result<PathBuf> {
    let file = format!("{name}.tar");
    let found = match std::env::var_os("RSWARM_IMAGES") {
        Some(folder) => Some(PathBuf::from(folder).join(&file)).filter(|path| path.exists()),
        None => built(&format!("images/{file}"))?,
    };
    found.with_context(|| format!("there is no image archive {file}: cargo xtask images"))
}

/// A file in one of the folders above the running program: target/debug/deps, target/debug, target.
fn built(name: &str) -> Result<Option<PathBuf>> {
    let program = std::env::current_exe().context("cannot tell which program is running")?;
    Ok(program.ancestors().skip(1).take(3).map(|folder| folder.join(name)).find(|path| path.exists()))
}

/// Where the logs of a lab that failed are kept: `RSWARM_LAB_LOGS`, or a folder for temporary files.
pub fn bundle(lab: &str) -> PathBuf {
    let base = std::env::var_os("RSWARM_LAB_LOGS").map(PathBuf::from);
    base.unwrap_or_else(|| std::env::temp_dir().join("rswarm-lab-logs")).join(lab)
}
