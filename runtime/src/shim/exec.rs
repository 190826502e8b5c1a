//! `rswarm shim exec`: one more process in a running container, e.g. for a health check.
//!
//! The request comes as JSON on standard input, the answer goes as JSON to standard output.

use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use super::executor::{Confined, classify};
use super::{Failure, binary, prepare};
use crate::cgroup::Hierarchies;
use crate::oci;
use crate::rootfs::Root;
use crate::state::{Backend, Order, RawExit, StateDir};

/// How long a runtime may keep the pid of a process to itself.
const VICTIM_MAX: Duration = Duration::from_secs(5);
/// Between two looks once time is up.
const LATE_STEP: Duration = Duration::from_millis(20);

/// What is asked of the helper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub argv: Vec<String>,
    /// Added to the container's own.
    pub env: Vec<String>,
    /// Another than the container's.
    pub user: Option<String>,
    pub timeout_ms: u64,
    pub output_bytes_max: usize,
}

/// What the helper says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ExecAnswer {
    /// `code` is none when time was up.
    Ended {
        code: Option<i32>,
        output: Vec<u8>,
    },
    Failed(Failure),
}

/// The entry point; always succeeds when it could answer.
pub(super) fn exec_main(dir: &StateDir) -> ExitCode {
    let answer = read_request().and_then(|request| run(dir, &request)).unwrap_or_else(ExecAnswer::Failed);
    let line = serde_json::to_vec(&answer).unwrap_or_default();
    match io::stdout().write_all(&line).and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn read_request() -> Result<ExecRequest, Failure> {
    let mut text = Vec::new();
    io::stdin().read_to_end(&mut text)?;
    serde_json::from_slice(&text).map_err(|e| Failure::of("the request cannot be read", &e))
}

fn run(dir: &StateDir, request: &ExecRequest) -> Result<ExecAnswer, Failure> {
    let order = dir.order().map_err(|e| Failure::of("the container's plan cannot be read", &e))?;
    let plan = &order.plan;
    let gone = || Failure::other("the container is not running");
    let init = dir.process("init").ok_or_else(gone)?;
    // Held: the pid below stays the container's.
    let _alive = init.open()?.ok_or_else(gone)?;
    let root = Root::open(Path::new(&format!("/proc/{}/root", init.pid)))?;
    let user = match &request.user {
        None => prepare::find_user(&root, plan)?,
        Some(name) => prepare::named_user(&root, name, &[])?,
    };
    let mut env = plan.env.clone();
    for variable in &request.env {
        let key = variable.split('=').next().unwrap_or("");
        env.retain(|other| other.split('=').next() != Some(key));
        env.push(variable.clone());
    }
    let process = oci::process(plan, &user, &request.argv, env, false);
    let file = Scratch(order.run_dir.join(format!("process-{}.json", std::process::id())));
    fs::write(&file.0, process.to_string())?;
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
    match &order.backend {
        Backend::Embedded => embedded(dir, &order, &file.0, request, deadline),
        Backend::Oci(program) => through_binary(&order, program, &file.0, request, deadline),
    }
}

/// A file that goes away with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn embedded(
    dir: &StateDir,
    order: &Order,
    process: &Path,
    request: &ExecRequest,
    deadline: Instant,
) -> Result<ExecAnswer, Failure> {
    let (executor, failures) = Confined::new(&order.plan)?;
    let (output, writer) = io::pipe()?;
    let hierarchies = Hierarchies::of_this_machine()?;
    let home = hierarchies.enter_unified(&order.cgroup).map_err(|e| Failure::of("the cgroup cannot be entered", &e))?;
    let own_oom_score = fs::read_to_string("/proc/self/oom_score_adj")?;
    let made = ContainerBuilder::new(order.plan.id.clone(), SyscallType::default())
        .with_root_path(&order.run_dir)
        .map_err(|e| Failure::of("the runtime's folder", &e))?
        .with_executor(executor)
        .with_stdin(File::open("/dev/null")?)
        .with_stdout(writer.try_clone()?)
        .with_stderr(writer)
        .as_tenant()
        .with_process(Some(process))
        .with_detach(true)
        .build();
    if let Some(home) = home {
        fs::write(home.join("cgroup.procs"), "0").map_err(|e| Failure::of("the cgroup cannot be left", &e))?;
    }
    fs::write("/proc/self/oom_score_adj", own_oom_score.trim())?;
    // The executor's own words come first: the runtime wraps them.
    let told = failures.wait();
    let pid = match (made, told) {
        (_, Err(failure)) => return Err(failure),
        (Err(error), Ok(())) => return Err(Failure::of(&format!("exec in {}", dir.0.display()), &error)),
        (Ok(pid), Ok(())) => Pid::from_raw(pid.as_raw()).ok_or_else(|| Failure::other("the process has no pid"))?,
    };
    watch(pid, output, request, deadline, || Some(pid))
}

fn through_binary(
    order: &Order,
    program: &Path,
    process: &Path,
    request: &ExecRequest,
    deadline: Instant,
) -> Result<ExecAnswer, Failure> {
    let scratch = |name: &str| Scratch(order.run_dir.join(format!("{name}-{}", std::process::id())));
    let (pid_file, log) = (scratch("exec-pid"), scratch("exec-log"));
    let (output, writer) = io::pipe()?;
    let mut command = binary::command(order, program);
    command.arg("--log").arg(&log.0).arg("exec").arg("--process").arg(process);
    command.arg("--pid-file").arg(&pid_file.0).arg(&order.plan.id);
    command.stdin(std::process::Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn().map_err(|e| Failure::of(&format!("{} cannot be run", program.display()), &e))?;
    // Its copies of the pipe's ends would keep it open.
    drop(command);
    let runtime = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Failure::other("no pid"))?;
    let read_pid = || fs::read_to_string(&pid_file.0).ok()?.trim().parse().ok().and_then(Pid::from_raw);
    let answer = watch(runtime, output, request, deadline, read_pid)?;
    if read_pid().is_none() && matches!(answer, ExecAnswer::Ended { code: Some(_), .. }) {
        let said = binary::last_message(&log.0).unwrap_or_else(|_| "exec failed".to_owned());
        return Err(classify(format!("{} exec: {said}", program.display())));
    }
    Ok(answer)
}

/// Collects output until `child` ends or time is up; then `to_kill` says what dies, with its process group. The child
/// itself dies when nobody can say for [`VICTIM_MAX`].
fn watch(
    child: Pid,
    output: PipeReader,
    request: &ExecRequest,
    deadline: Instant,
    to_kill: impl Fn() -> Option<Pid>,
) -> Result<ExecAnswer, Failure> {
    let pidfd = rustix::process::pidfd_open(child, PidfdFlags::empty()).map_err(io::Error::from)?;
    rustix::io::ioctl_fionbio(&output, true).map_err(io::Error::from)?;
    let mut output =
        Output { pipe: Some(File::from(OwnedFd::from(output))), kept: Vec::new(), max: request.output_bytes_max };
    let (mut is_late, mut is_killed) = (false, false);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            is_late = true;
            // A runtime may know its process a moment later than the process runs.
            let is_too_late = deadline.elapsed() > VICTIM_MAX;
            if !is_killed && let Some(victim) = to_kill().or(is_too_late.then_some(child)) {
                is_killed = true;
                let _ = rustix::process::kill_process_group(victim, Signal::KILL);
                let _ = rustix::process::kill_process(victim, Signal::KILL);
            }
        }
        let wait = if is_late { LATE_STEP } else { left };
        let wait = Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let pidfd_poll = PollFd::new(&pidfd, PollFlags::IN);
        let mut fds = vec![pidfd_poll];
        if let Some(pipe) = &output.pipe {
            fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
        }
        match rustix::event::poll(&mut fds, Some(&wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let has_ended = !fds[0].revents().is_empty();
        drop(fds);
        output.read();
        if has_ended {
            break;
        }
    }
    let status = rustix::process::waitpid(Some(child), WaitOptions::empty()).map_err(io::Error::from)?;
    let wait_status = status.map_or(0, |(_, status)| status.as_raw() as u32);
    output.read();
    let code = if is_late { None } else { Some(RawExit { wait_status, at_ns: 0 }.code()) };
    Ok(ExecAnswer::Ended { code, output: output.kept })
}

/// The beginning of what a process says; the rest is read and dropped.
struct Output {
    pipe: Option<File>,
    kept: Vec<u8>,
    max: usize,
}

impl Output {
    fn read(&mut self) {
        let mut buffer = [0; 4_096];
        while let Some(pipe) = &mut self.pipe {
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(got) => {
                    let room = self.max - self.kept.len();
                    self.kept.extend_from_slice(&buffer[..got.min(room)]);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.pipe = None,
            }
        }
    }
}
