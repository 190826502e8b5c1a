//! Starting: a state folder, a shim, and its word that the program runs.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use super::{Inner, is_good_id};
use crate::plan::ContainerPlan;
use crate::shim::{Failure, FailureKind, Report};
use crate::state::{Order, ProcessId, StateDir, write_whole};

/// Longer than any start takes, the first copy into a large volume included.
const START_MAX: Duration = Duration::from_secs(300);
/// A shim's last words that an error shows.
const LAST_WORDS_BYTES: u64 = 2_048;

/// A container that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    pub pid: u32,
    /// Nanoseconds since 1970.
    pub started_at_ns: u64,
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StartError {
    pub kind: StartErrorKind,
    pub text: String,
}

/// What Docker tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartErrorKind {
    /// The program does not exist in the image.
    CommandNotFound,
    /// It exists and cannot be run.
    CommandNotExecutable,
    Other,
}

impl StartError {
    pub(super) fn other(text: impl Into<String>) -> Self {
        Self { kind: StartErrorKind::Other, text: text.into() }
    }

    /// The exit code that Docker gives such a container: 127, 126 or none.
    pub fn exit_code(&self) -> Option<i32> {
        match self.kind {
            StartErrorKind::CommandNotFound => Some(127),
            StartErrorKind::CommandNotExecutable => Some(126),
            StartErrorKind::Other => None,
        }
    }
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        let kind = match failure.kind {
            FailureKind::NotFound => StartErrorKind::CommandNotFound,
            FailureKind::NotExecutable => StartErrorKind::CommandNotExecutable,
            FailureKind::Other => StartErrorKind::Other,
        };
        Self { kind, text: failure.text }
    }
}

pub(super) fn start(inner: &Arc<Inner>, plan: ContainerPlan) -> Result<Started, StartError> {
    let id = plan.id.clone();
    if !is_good_id(&id) {
        return Err(StartError::other(format!(
            "container id \"{id}\" is not allowed: allowed are up to 100 letters, digits, \"_\", \".\" and \"-\""
        )));
    }
    let dir = inner.dir(&id);
    fs::create_dir(&dir.0).map_err(|e| match e.kind() {
        ErrorKind::AlreadyExists => StartError::other(format!("container {id} exists already")),
        _ => StartError::other(format!("{}: {e}", dir.0.display())),
    })?;
    let order =
        Order { plan, backend: inner.config.backend.clone(), cgroup: inner.cgroup(&id), run_dir: inner.run_dir(&id) };
    let spawned = write_order(&dir, &order).and_then(|()| spawn(inner, &dir));
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            clean(inner, &dir, &order);
            return Err(StartError::other(format!("the shim cannot be started: {error}")));
        }
    };
    match await_report(&mut child, &dir).and_then(|started| register(inner, &dir, &order, &child, started)) {
        Ok(started) => Ok(started),
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            clean(inner, &dir, &order);
            Err(error)
        }
    }
}

fn write_order(dir: &StateDir, order: &Order) -> io::Result<()> {
    // Of an earlier container with this id, which a crash of the machine left.
    match fs::remove_dir_all(&order.run_dir) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::create_dir_all(&order.run_dir)?;
    write_whole(&dir.join("plan.json"), &serde_json::to_vec(order)?)
}

fn spawn(inner: &Inner, dir: &StateDir) -> io::Result<Child> {
    let mut shim = Command::new(&inner.config.exe);
    shim.arg("shim").arg(&dir.0).current_dir("/").env_clear().env("PATH", crate::spec::DEFAULT_PATH);
    shim.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(dir.join("shim.log"))?);
    shim.spawn()
}

/// Reads until the shim has become the reaper, which closes the stream, or has given up.
fn await_report(child: &mut Child, dir: &StateDir) -> Result<Started, StartError> {
    let io = |error: io::Error| StartError::other(format!("the shim's report: {error}"));
    let mut stdout = child.stdout.take().ok_or_else(|| StartError::other("the shim has no output"))?;
    let deadline = Instant::now() + START_MAX;
    let mut text = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StartError::other(format!("the shim said nothing for {} s", START_MAX.as_secs())));
        }
        let wait =
            Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(1), tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::from_borrowed_fd(stdout.as_fd(), PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&wait)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(io(error.into())),
        }
        let mut buffer = [0; 4_096];
        match stdout.read(&mut buffer).map_err(io)? {
            0 => break,
            got => text.extend_from_slice(&buffer[..got]),
        }
    }
    let last = text.split(|b| *b == b'\n').rfind(|line| !line.is_empty());
    match last.and_then(|line| serde_json::from_slice(line).ok()) {
        Some(Report::Started { pid, started_at_ns }) => Ok(Started { pid, started_at_ns }),
        Some(Report::Failed(failure)) => Err(failure.into()),
        None => {
            let mut words = String::new();
            let log = File::open(dir.join("shim.log")).map(|file| file.take(LAST_WORDS_BYTES));
            let _ = log.and_then(|mut file| file.read_to_string(&mut words));
            Err(StartError::other(format!("the shim ended without a report; it said \"{}\"", words.trim())))
        }
    }
}

fn register(
    inner: &Arc<Inner>,
    dir: &StateDir,
    order: &Order,
    child: &Child,
    started: Started,
) -> Result<Started, StartError> {
    let io = |error: io::Error| StartError::other(format!("the shim cannot be watched: {error}"));
    // Not reaped yet, so the pid is the shim's.
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| StartError::other("the shim has no pid"))?;
    let shim = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| io(e.into()))?;
    let init = dir.process("init").unwrap_or(ProcessId { pid: started.pid, start_time: 0 });
    inner.watch(order, init, started.started_at_ns, shim);
    Ok(started)
}

/// Takes back what a start made that came to nothing.
fn clean(inner: &Inner, dir: &StateDir, order: &Order) {
    let killed = inner.hierarchies.kill(&order.cgroup).and_then(|()| inner.hierarchies.remove(&order.cgroup));
    for result in [killed, fs::remove_dir_all(&order.run_dir), fs::remove_dir_all(&dir.0)] {
        if let Err(error) = result.or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) }) {
            tracing::warn!(container.id = order.plan.id, %error, "leftovers of a failed start remain");
        }
    }
}
