//! `rswarm shim`: the one single-threaded process between the daemon and a container.
//!
//! It prepares the root file system in a mount namespace of its own, makes and starts the container, says so on its
//! standard output, and becomes the reaper. It must be entered before the program has a second thread: a library that
//! clones without the C library's knowledge hangs otherwise.

mod binary;
mod console;
mod embedded;
mod exec;
mod executor;
mod prepare;
mod reap;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::cgroup::Hierarchies;
use crate::state::{Backend, ProcessId, StateDir};

pub(crate) use exec::{ExecAnswer, ExecRequest};

/// What a shim tells the daemon, one JSON document a line; the last one counts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    Started { pid: u32, started_at_ns: u64 },
    Failed(Failure),
}

/// Why a container could not be started, or a process not be added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub kind: FailureKind,
    pub text: String,
}

/// What Docker tells apart by exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// 127
    NotFound,
    /// 126
    NotExecutable,
    Other,
}

impl Failure {
    pub fn other(text: impl Into<String>) -> Self {
        Self { kind: FailureKind::Other, text: text.into() }
    }

    /// An error with everything below it, said once.
    pub fn of(context: &str, error: &dyn std::error::Error) -> Self {
        let mut text = context.to_owned();
        let mut next = Some(error);
        while let Some(error) = next {
            let level = error.to_string();
            if !text.ends_with(&level) {
                text.push_str(": ");
                text.push_str(level.trim_end_matches('\0'));
            }
            next = error.source();
        }
        Self::other(text)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::other(error.to_string())
    }
}

/// The entry point of `rswarm shim STATE_DIR` and `rswarm shim exec STATE_DIR`; `args` are what follows `shim`.
///
/// Call it first of all in `main`: the process must have one thread.
pub fn shim_main(args: &[OsString]) -> ExitCode {
    match args {
        [dir] => {
            let failure = match run(&StateDir(PathBuf::from(dir))) {
                Ok(never) => match never {},
                Err(failure) => failure,
            };
            report(&Report::Failed(failure));
            ExitCode::FAILURE
        }
        [verb, dir] if verb == "exec" => exec::exec_main(&StateDir(PathBuf::from(dir))),
        _ => {
            let _ = writeln!(io::stderr(), "usage: shim STATE_DIR | shim exec STATE_DIR");
            ExitCode::from(64)
        }
    }
}

/// Tells the daemon, if it is still there: a container does not depend on that.
fn report(report: &Report) {
    let mut line = serde_json::to_vec(report).unwrap_or_default();
    line.push(b'\n');
    let mut stdout = io::stdout();
    let _ = stdout.write_all(&line).and_then(|()| stdout.flush());
}

fn run(dir: &StateDir) -> Result<std::convert::Infallible, Failure> {
    // Fails when this process leads a group, which a child of the daemon does not.
    rustix::process::setsid().map_err(io::Error::from)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let lock = dir.lock().map_err(|e| Failure::other(format!("another shim has this container's lock: {e}")))?;
    let order = dir.order().map_err(|e| Failure::of("the container's plan cannot be read", &e))?;
    ProcessId::of(std::process::id()).and_then(|me| me.save(&dir.join("shim")))?;
    // Orphans of the container, and an init that an OCI runtime leaves behind, become ours.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1)).map_err(io::Error::from)?;
    let reaper = reap::Reaper::load()?;
    let own_oom_score = fs::read_to_string("/proc/self/oom_score_adj")?;

    prepare::prepare(dir, &order)?;
    let hierarchies = Hierarchies::of_this_machine()?;
    hierarchies.make(&order.cgroup).map_err(|e| Failure::of("the cgroup cannot be made", &e))?;
    // Children are born in the cgroup; this process goes back before it lives on as the reaper.
    let home = hierarchies.enter_unified(&order.cgroup).map_err(|e| Failure::of("the cgroup cannot be entered", &e))?;
    let started = match &order.backend {
        Backend::Embedded => embedded::start(dir, &order),
        Backend::Oci(program) => binary::start(dir, &order, program),
    };
    if let Some(home) = home {
        fs::write(home.join("cgroup.procs"), "0").map_err(|e| Failure::of("the cgroup cannot be left", &e))?;
    }
    let started = started?;
    // The embedded runtime sets the container's score on this process too.
    fs::write("/proc/self/oom_score_adj", own_oom_score.trim())?;
    report(&Report::Started { pid: started.pid, started_at_ns: started.started_at_ns });
    Err(reaper.become_it(dir, &order.plan, started, lock))
}

/// A container that runs, and the ends of its streams that the reaper takes over.
struct Started {
    pid: u32,
    started_at_ns: u64,
    stdio: ParentStdio,
}

/// Our ends of a container's standard streams.
struct ParentStdio {
    output: File,
    /// None with a terminal.
    errors: Option<File>,
    /// The writing end of stdin, held open for ever with `open_stdin`.
    input: Option<File>,
}

/// Nanoseconds since 1970.
fn now_ns() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Leaves the identity of the container's init for the daemon, with the moment of its start.
fn save_init(dir: &StateDir, pid: u32, started_at_ns: u64) -> io::Result<()> {
    ProcessId::of(pid)?.save(&dir.join("init"))?;
    crate::state::write_whole(&dir.join("started"), started_at_ns.to_string().as_bytes())
}
