//! An OCI runtime on PATH (runc, crun): the same bundle, made and started by its commands.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use super::embedded::Stdio;
use super::executor::classify;
use super::{Failure, ParentStdio, Started, console, now_ns, save_init};
use crate::state::{Order, StateDir};
use crate::sys;

/// `create` and `start`; the runtime's init becomes a child of this process, which is a subreaper.
pub(super) fn start(dir: &StateDir, order: &Order, program: &Path) -> Result<Started, Failure> {
    let plan = &order.plan;
    let pid_file = order.run_dir.join("pid");
    let pipes = Stdio::new(plan.open_stdin && !plan.tty)?;
    let console = if plan.tty { Some(console::Listener::bind(&order.run_dir)?) } else { None };
    let mut create = command(order, program);
    create.arg("create").arg("--bundle").arg(dir.join("bundle")).arg("--pid-file").arg(&pid_file);
    let Stdio { input, output, errors, child_input, child_output, child_errors } = pipes;
    if let Some(console) = &console {
        create.arg("--console-socket").arg(console.path());
    }
    create.arg(&plan.id).stdin(child_input).stdout(child_output).stderr(child_errors);
    run(create, dir, "create")?;
    let pid: u32 = fs::read_to_string(&pid_file)?
        .trim()
        .parse()
        .map_err(|_| Failure::other(format!("{} does not hold a pid", pid_file.display())))?;
    let stdio = match console {
        Some(console) => ParentStdio { output: console.accept()?, errors: None, input: None },
        None => ParentStdio {
            output: File::from(OwnedFd::from(output)),
            errors: Some(File::from(OwnedFd::from(errors))),
            input: input.map(|input| File::from(OwnedFd::from(input))),
        },
    };
    let started_at_ns = now_ns();
    save_init(dir, pid, started_at_ns)?;
    let mut start = command(order, program);
    start.arg("start").arg(&plan.id).stdin(std::process::Stdio::null());
    run(start, dir, "start")?;
    Ok(Started { pid, started_at_ns, stdio })
}

/// The runtime with the options that every verb needs. Its messages go to a file: the streams are the container's.
pub(super) fn command(order: &Order, program: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .arg("--root")
        .arg(&order.run_dir)
        .arg("--log")
        .arg(order.run_dir.join("log"))
        .args(["--log-format", "json"]);
    sys::with_default_signals(&mut command);
    command
}

fn run(mut command: Command, dir: &StateDir, verb: &str) -> Result<(), Failure> {
    let order = dir.order()?;
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().map_err(|e| Failure::of(&format!("{program} cannot be run"), &e))?;
    if status.success() {
        return Ok(());
    }
    let said = last_message(&order.run_dir.join("log")).unwrap_or_else(|_| status.to_string());
    Err(classify(format!("{program} {verb}: {said}")))
}

/// The newest message of a log of JSON lines.
pub(super) fn last_message(log: &Path) -> io::Result<String> {
    let text = fs::read_to_string(log)?;
    let last = text.lines().last().ok_or(io::ErrorKind::UnexpectedEof)?;
    let line: serde_json::Value = serde_json::from_str(last)?;
    Ok(line["msg"].as_str().unwrap_or(last).to_owned())
}
