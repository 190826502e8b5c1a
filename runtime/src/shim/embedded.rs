//! The container runtime that is part of this program.

use std::fs::{self, File};
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::OwnedFd;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use nix::sched::{CloneFlags, setns};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::executor::Confined;
use super::{Failure, ParentStdio, Started, console, now_ns, save_init};
use crate::plan::NetNs;
use crate::state::{Order, StateDir};
use crate::sys;

/// Makes and starts the container; returns once its program runs.
pub(super) fn start(dir: &StateDir, order: &Order) -> Result<Started, Failure> {
    let plan = &order.plan;
    let (executor, failures) = Confined::new(plan)?;
    let pipes = Stdio::new(plan.open_stdin && !plan.tty)?;
    let mut builder = ContainerBuilder::new(plan.id.clone(), SyscallType::default())
        .with_root_path(&order.run_dir)
        .map_err(|e| Failure::of("the runtime's folder", &e))?
        .with_executor(executor);
    let console = if plan.tty { Some(console::Listener::bind(&order.run_dir)?) } else { None };
    let ours = match &console {
        Some(console) => {
            builder = builder.with_console_socket(Some(console.path()));
            None
        }
        None => {
            builder =
                builder.with_stdin(pipes.child_input).with_stdout(pipes.child_output).with_stderr(pipes.child_errors);
            Some((pipes.output, pipes.errors, pipes.input))
        }
    };
    let made = builder.as_init(dir.join("bundle")).with_systemd(false).with_detach(true).build();
    let mut container = made.map_err(|e| Failure::of("the container cannot be made", &e))?;
    let pid = container.pid().ok_or_else(|| Failure::other("the runtime does not know the container's process"))?;
    let pid = u32::try_from(pid.as_raw()).map_err(|_| Failure::other("the container's pid is negative"))?;
    let stdio = match (console, ours) {
        (Some(console), _) => ParentStdio { output: console.accept()?, errors: None, input: None },
        (None, Some((output, errors, input))) => ParentStdio {
            output: File::from(OwnedFd::from(output)),
            errors: Some(File::from(OwnedFd::from(errors))),
            input: input.map(|input| File::from(OwnedFd::from(input))),
        },
        (None, None) => return Err(Failure::other("the container has no streams")),
    };
    if plan.netns == NetNs::None {
        loopback_up(pid).map_err(|e| Failure::of("the loopback device", &e))?;
    }
    let started_at_ns = now_ns();
    save_init(dir, pid, started_at_ns)?;
    container.start().map_err(|e| Failure::of("the container cannot be started", &e))?;
    failures.wait()?;
    Ok(Started { pid, started_at_ns, stdio })
}

/// Both ends of the container's streams.
pub(super) struct Stdio {
    pub input: Option<PipeWriter>,
    pub output: PipeReader,
    pub errors: PipeReader,
    pub child_input: OwnedFd,
    pub child_output: PipeWriter,
    pub child_errors: PipeWriter,
}

impl Stdio {
    /// stdin is empty, or never ends with `open_stdin`.
    pub fn new(open_stdin: bool) -> io::Result<Self> {
        let (output, child_output) = io::pipe()?;
        let (errors, child_errors) = io::pipe()?;
        let (child_input, input) = if open_stdin {
            let (reader, writer) = io::pipe()?;
            (OwnedFd::from(reader), Some(writer))
        } else {
            (OwnedFd::from(fs::File::open("/dev/null")?), None)
        };
        Ok(Self { input, output, errors, child_input, child_output, child_errors })
    }
}

/// Brings up the loopback device of a namespace that the runtime made, which it leaves down.
fn loopback_up(init: u32) -> io::Result<()> {
    let own = File::open("/proc/self/ns/net")?;
    setns(File::open(format!("/proc/{init}/ns/net"))?, CloneFlags::CLONE_NEWNET)?;
    let up = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(io::Error::from)
        .and_then(|socket| sys::loopback_up(&socket));
    setns(own, CloneFlags::CLONE_NEWNET)?;
    up
}
