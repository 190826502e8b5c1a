//! The state folder of a container: who its processes are and how it ended.
//!
//! ```text
//! plan.json   what to run                         (daemon, before the shim)
//! lock        flocked while the shim lives        (shim)
//! shim, init  "pid start-time"                    (shim)
//! exit        "wait-status ns"                    (reaper, whole or absent)
//! bundle/     config.json and the mount point     (shim)
//! upper/ work/ volumes/ files/                    (shim)
//! logs/0 1 2  newest first                        (reaper; outlive the container if asked)
//! ```

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags};
use serde::{Deserialize, Serialize};

use crate::plan::ContainerPlan;

/// Which program makes containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backend {
    /// The library inside the shim.
    Embedded,
    /// An OCI runtime such as runc, by path or name.
    Oci(PathBuf),
}

/// What a shim is told: `plan.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub plan: ContainerPlan,
    pub backend: Backend,
    /// Absolute path of the cgroup in every hierarchy, without the mount point.
    pub cgroup: String,
    /// Where the backend keeps its own state; gone after a reboot.
    pub run_dir: PathBuf,
}

/// Where everything of one container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateDir(pub PathBuf);

impl StateDir {
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn rootfs(&self) -> PathBuf {
        self.0.join("bundle/rootfs")
    }

    pub fn order(&self) -> io::Result<Order> {
        let text = fs::read(self.join("plan.json"))?;
        serde_json::from_slice(&text).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
    }

    /// Takes the lock that says "this container has a shim".
    ///
    /// # Errors
    /// `WouldBlock` when somebody holds it.
    pub fn lock(&self) -> io::Result<File> {
        let file = File::options().create(true).truncate(false).write(true).open(self.join("lock"))?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(file)
    }

    /// The process whose identity is in `name`, if the file is there.
    pub fn process(&self, name: &str) -> Option<ProcessId> {
        ProcessId::parse(&fs::read_to_string(self.join(name)).ok()?)
    }

    /// How the container ended, if it did.
    pub fn exit(&self) -> Option<RawExit> {
        let text = fs::read_to_string(self.join("exit")).ok()?;
        let (status, at) = text.trim().split_once(' ')?;
        Some(RawExit { wait_status: status.parse().ok()?, at_ns: at.parse().ok()? })
    }
}

/// What the reaper wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawExit {
    /// As wait(2) gives it.
    pub wait_status: u32,
    pub at_ns: u64,
}

impl RawExit {
    /// The signal that killed the process, if one did.
    pub fn signal(self) -> Option<i32> {
        Some((self.wait_status & 0x7f) as i32).filter(|signal| *signal != 0)
    }

    /// The exit code as shells count: 128 + N after signal N.
    pub fn code(self) -> i32 {
        self.signal().map_or(((self.wait_status >> 8) & 0xff) as i32, |signal| 128 + signal)
    }
}

/// A process that a reused pid cannot be mistaken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProcessId {
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The command may hold spaces and brackets; the fields after its last bracket cannot.
        let start_time = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19))
            .and_then(|field| field.parse().ok())
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, format!("/proc/{pid}/stat has no start time")))?;
        Ok(Self { pid, start_time })
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, start_time) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
    }

    /// Leaves the identity in a file.
    pub fn save(self, path: &Path) -> io::Result<()> {
        write_whole(path, format!("{} {}\n", self.pid, self.start_time).as_bytes())
    }

    /// A pidfd of exactly this process; `None` when it is dead (or a zombie).
    pub fn open(self) -> io::Result<Option<OwnedFd>> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let fd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Compared after the open: the pid cannot change its owner any more.
        match Self::of(self.pid) {
            Ok(now) if now == self && !has_ended(&fd)? => Ok(Some(fd)),
            _ => Ok(None),
        }
    }
}

/// Whether the process of a pidfd is dead.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> io::Result<bool> {
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
}

/// Writes a file so that it is whole or absent (not synced: it may be missing after a power cut).
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let mut file = File::create(&aside)?;
    file.write_all(content)?;
    fs::rename(&aside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_status_becomes_a_code_and_a_signal() {
        for (wait_status, code, signal) in [(0, 0, None), (42 << 8, 42, None), (9, 137, Some(9)), (139, 139, Some(11))]
        {
            let raw = RawExit { wait_status, at_ns: 0 };
            assert_eq!((raw.code(), raw.signal()), (code, signal), "{wait_status}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let me = ProcessId::of(std::process::id()).unwrap();
        assert!(me.open().unwrap().is_some());
        assert!(ProcessId { start_time: me.start_time + 1, ..me }.open().unwrap().is_none());
        let dir = tempfile::tempdir().unwrap();
        me.save(&dir.path().join("shim")).unwrap();
        assert_eq!(StateDir(dir.path().to_owned()).process("shim"), Some(me));
    }

    #[test]
    fn a_lock_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir(dir.path().to_owned());
        let held = state.lock().unwrap();
        assert_eq!(state.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(held);
        state.lock().unwrap();
    }
}
