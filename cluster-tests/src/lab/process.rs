//! Processes: told apart by pid and start time, found by cgroup and namespace, killed until none is left.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

/// A process that a reused pid cannot be mistaken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub pid: u32,
    /// Clock ticks after boot, from /proc/PID/stat.
    start: u64,
}

impl Identity {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> Option<Identity> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, start) = state_and_start(&stat)?;
        (state != 'Z' && state != 'X').then_some(Identity { pid, start })
    }

    /// As [`Identity::write`] wrote it.
    pub fn read(path: &Path) -> Option<Identity> {
        let text = std::fs::read_to_string(path).ok()?;
        let (pid, start) = text.trim().split_once(' ')?;
        Some(Identity { pid: pid.parse().ok()?, start: start.parse().ok()? })
    }

    /// Writes `PID START` for a later process.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, format!("{} {}\n", self.pid, self.start))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// The file that holds its network namespace.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        Path::new("/proc").join(self.pid.to_string()).join("ns/net")
    }

    /// Whether it still runs. A zombie does not.
    pub fn is_alive(&self) -> bool {
        Identity::of(self.pid) == Some(*self)
    }

    /// Sends a signal, if it still runs.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        ensure!(self.is_alive(), "process {} has ended", self.pid);
        signal::kill(pid(self.pid), signal).with_context(|| format!("cannot send {signal} to process {}", self.pid))
    }
}

/// The name that a process was called by: the first word of its command line, without folders.
pub fn called(pid: u32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = String::from_utf8_lossy(line.split(|byte| *byte == 0).next()?).into_owned();
    first.rsplit('/').next().map(str::to_owned)
}

/// The state letter and the start time; the name in between may hold anything, so count from its last parenthesis.
fn state_and_start(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let words: Vec<&str> = rest.split(' ').collect();
    Some((words.first()?.chars().next()?, words.get(19)?.parse().ok()?))
}

fn pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// Kills a process group that we made; one that has ended is no error.
pub fn kill_group(leader: u32) {
    match signal::killpg(pid(leader), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => eprintln!("lab: cannot kill process group {leader}: {error}"),
    }
}

/// Kills what `find` finds, again and again, until it finds nothing.
///
/// # Errors
/// If something is still there after ten seconds.
pub fn kill_all(find: impl Fn() -> BTreeSet<u32>) -> Result<()> {
    let began = Instant::now();
    loop {
        let found: Vec<u32> = find().into_iter().filter(|p| Identity::of(*p).is_some()).collect();
        if found.is_empty() {
            return Ok(());
        }
        ensure!(began.elapsed() < Duration::from_secs(10), "processes {found:?} cannot be killed");
        for process in found {
            // ESRCH: it has ended by itself.
            let _ = signal::kill(pid(process), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes that live in one of these namespaces, given as the files that hold them. Never ourselves.
pub fn in_namespaces(files: &[impl AsRef<Path>]) -> BTreeSet<u32> {
    let wanted: Vec<u64> = files.iter().filter_map(|f| std::fs::metadata(f).ok()).map(|m| m.ino()).collect();
    let is_in = |pid: u32| {
        ["net", "mnt"]
            .iter()
            .any(|kind| std::fs::metadata(format!("/proc/{pid}/ns/{kind}")).is_ok_and(|m| wanted.contains(&m.ino())))
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| *pid != std::process::id() && is_in(*pid)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 20";
        assert_eq!(state_and_start(stat), Some(('S', 777)));
        assert_eq!(state_and_start("42 (a"), None);
    }

    #[test]
    fn we_are_alive_and_another_start_time_is_another_process() {
        let me = Identity::of(std::process::id()).unwrap();
        assert!(me.is_alive());
        assert!(!Identity { start: me.start + 1, ..me }.is_alive());
    }

    #[test]
    fn we_are_never_among_those_to_kill() {
        assert!(!in_namespaces(&["/proc/self/ns/net"]).contains(&std::process::id()));
    }
}
