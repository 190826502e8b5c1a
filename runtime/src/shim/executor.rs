//! The last steps inside the container, before its program: signals, the filter, execve.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError};
use rustix::fs::Access;
use rustix::process::Signal;

use super::{Failure, FailureKind};
use crate::oci::INIT_PATH;
use crate::plan::ContainerPlan;
use crate::seccomp::{self, Filters};
use crate::sys;

/// Runs a container's process under the filter; what fails is told through a pipe of our own, since the runtime has
/// closed its channel by then.
#[derive(Clone)]
pub(super) struct Confined {
    filters: Option<Filters>,
    failures: Rc<OwnedFd>,
}

/// The reading end: empty when the program was reached.
pub(super) struct FailurePipe {
    reader: io::PipeReader,
}

impl Confined {
    /// Compiled here, outside: the executor itself runs inside the container.
    pub fn new(plan: &ContainerPlan) -> Result<(Self, FailurePipe), Failure> {
        let filters = if plan.seccomp {
            Some(seccomp::compile(&plan.capabilities).map_err(|e| Failure::other(e.to_string()))?)
        } else {
            None
        };
        let (reader, writer) = io::pipe()?;
        Ok((Self { filters, failures: Rc::new(writer.into()) }, FailurePipe { reader }))
    }

    fn run(&self, spec: &Spec) -> Result<std::convert::Infallible, Failure> {
        let process = spec.process().as_ref().ok_or_else(|| Failure::other("the bundle has no process"))?;
        let args = process.args().clone().unwrap_or_default();
        let env = process.env().clone().unwrap_or_default();
        let path = look_up(&args, &env)?;
        let text = |s: &String| CString::new(s.as_bytes()).map_err(|_| Failure::other("an argument has a NUL byte"));
        let argv = args.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let envp = env.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let program = CString::new(path.as_os_str().as_encoded_bytes())
            .map_err(|_| Failure::other("the program's path has a NUL byte"))?;
        sys::default_signals()?;
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from)?;
        if let Some(filters) = &self.filters {
            let install = |program| {
                sys::install_seccomp(program).map_err(|e| Failure::of("the system call filter cannot be installed", &e))
            };
            if let Some(filter) = &filters.no_clone3 {
                install(filter)?;
            }
            install(&filters.main)?;
        }
        // Nothing but execve may follow the filter.
        match nix::unistd::execve(&program, &argv, &envp) {
            Ok(never) => match never {},
            Err(errno) => Err(exec_failure(&path, errno)),
        }
    }
}

impl FailurePipe {
    /// Waits until the program runs, or says why it does not. The last writer must be gone from this process.
    pub fn wait(mut self) -> Result<(), Failure> {
        let mut text = Vec::new();
        self.reader.read_to_end(&mut text)?;
        if text.is_empty() { Ok(()) } else { Err(self::parse(&text)) }
    }
}

fn parse(text: &[u8]) -> Failure {
    serde_json::from_slice(text).unwrap_or_else(|_| Failure::other(String::from_utf8_lossy(text)))
}

impl Executor for Confined {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failure = match self.run(spec) {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        let line = serde_json::to_vec(&failure).unwrap_or_default();
        if let Ok(fd) = self.failures.try_clone() {
            let _ = fs::File::from(fd).write_all(&line);
        }
        Err(ExecutorError::Other(failure.text))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // execve itself is the judge.
        Ok(())
    }

    fn setup_envs(&self, _: std::collections::HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        // execve gets the variables in their order.
        Ok(())
    }
}

/// The program as a shell would find it. With our process 1 in front, the command behind it is looked up too, so that
/// a missing one is told in the same way.
fn look_up(args: &[String], env: &[String]) -> Result<PathBuf, Failure> {
    let name = args.first().filter(|name| !name.is_empty()).ok_or_else(|| Failure::other("no command"))?;
    if name == INIT_PATH
        && let Some(command) = args.get(2)
    {
        look_up_one(command, env)?;
    }
    look_up_one(name, env)
}

fn look_up_one(name: &str, env: &[String]) -> Result<PathBuf, Failure> {
    let missing = |why: &str| Failure { kind: FailureKind::NotFound, text: format!("exec: \"{name}\": {why}") };
    let refused = |why: &str| Failure { kind: FailureKind::NotExecutable, text: format!("exec: \"{name}\": {why}") };
    let check = |path: &Path| -> Result<(), Failure> {
        let found = fs::metadata(path).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => refused("permission denied"),
            _ => missing("no such file or directory"),
        })?;
        if found.is_dir() {
            return Err(refused("is a directory"));
        }
        let may_run = rustix::fs::accessat(rustix::fs::CWD, path, Access::EXEC_OK, rustix::fs::AtFlags::EACCESS);
        if may_run.is_err() || found.permissions().mode() & 0o111 == 0 {
            return Err(refused("permission denied"));
        }
        Ok(())
    };
    if name.contains('/') {
        return check(Path::new(name)).map(|()| PathBuf::from(name));
    }
    let path = env.iter().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(crate::spec::DEFAULT_PATH);
    let mut first_refusal = None;
    for folder in path.split(':') {
        let candidate = Path::new(if folder.is_empty() { "." } else { folder }).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(failure) if failure.kind == FailureKind::NotExecutable && candidate.is_file() => {
                first_refusal.get_or_insert(failure);
            }
            Err(_) => {}
        }
    }
    Err(first_refusal.unwrap_or_else(|| missing("executable file not found in $PATH")))
}

fn exec_failure(path: &Path, errno: nix::errno::Errno) -> Failure {
    use nix::errno::Errno;
    let (kind, why) = match errno {
        Errno::ENOENT => {
            (FailureKind::NotFound, "no such file or directory: its interpreter or loader is missing".to_owned())
        }
        Errno::EACCES => (FailureKind::NotExecutable, "permission denied".to_owned()),
        Errno::ENOEXEC => (
            FailureKind::NotExecutable,
            "exec format error: no program of this machine's kind, and no script with #!".to_owned(),
        ),
        other => (FailureKind::NotExecutable, other.desc().to_owned()),
    };
    Failure { kind, text: format!("exec: \"{}\": {why}", path.display()) }
}

/// Parses what an OCI runtime says about a program that cannot be run, so that both backends tell it alike.
pub(super) fn classify(text: String) -> Failure {
    let not_found = ["executable file not found", "no such file or directory"];
    let not_executable = ["permission denied", "exec format error", "is a directory"];
    let is_exec = text.contains("exec");
    let kind = if is_exec && not_found.iter().any(|t| text.contains(t)) {
        FailureKind::NotFound
    } else if is_exec && not_executable.iter().any(|t| text.contains(t)) {
        FailureKind::NotExecutable
    } else {
        FailureKind::Other
    };
    Failure { kind, text }
}
