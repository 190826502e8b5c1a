//! Becoming the reaper: the 2 KB program that waits and logs for as long as the container lives.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::signal::SigSet;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::FdFlags;

use super::{Failure, Started};
use crate::plan::ContainerPlan;
use crate::state::StateDir;

const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/reaper"));

/// The program, loaded before there is a container that would need it.
pub(super) struct Reaper(OwnedFd);

impl Reaper {
    pub fn load() -> io::Result<Self> {
        let memory = rustix::fs::memfd_create("rswarm-reaper", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        let mut file = File::from(memory);
        file.write_all(PROGRAM)?;
        rustix::fs::fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self(file.into()))
    }

    /// Replaces this process; returns only when that fails.
    pub fn become_it(self, dir: &StateDir, plan: &ContainerPlan, started: Started, lock: File) -> Failure {
        match self.try_become(dir, plan, started, lock) {
            Ok(never) => match never {},
            Err(error) => Failure::of("the reaper cannot be started", &error),
        }
    }

    fn try_become(
        self,
        dir: &StateDir,
        plan: &ContainerPlan,
        started: Started,
        lock: File,
    ) -> io::Result<std::convert::Infallible> {
        std::env::set_current_dir(&dir.0)?;
        let null = File::options().read(true).write(true).open("/dev/null")?;
        let number = |file: &File| -> io::Result<i32> {
            rustix::io::fcntl_setfd(file, FdFlags::empty())?;
            Ok(file.as_raw_fd())
        };
        number(&lock)?;
        if let Some(input) = &started.stdio.input {
            number(input)?;
        }
        let output = number(&started.stdio.output)?;
        let errors = started.stdio.errors.as_ref().map_or(Ok(-1), number)?;
        let args = [
            "rswarm-reaper".to_owned(),
            started.pid.to_string(),
            output.to_string(),
            errors.to_string(),
            plan.log.file_bytes.to_string(),
            plan.log.files.to_string(),
        ];
        let args = args.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>()?;
        // Closed at the execve: the daemon reads "started" and then the end of the stream.
        let stdout = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
        for stream in [0, 1, 2] {
            match stream {
                0 => rustix::stdio::dup2_stdin(null.as_fd())?,
                1 => rustix::stdio::dup2_stdout(null.as_fd())?,
                _ => rustix::stdio::dup2_stderr(null.as_fd())?,
            }
        }
        // The mask survives the execve: no signal finds the reaper before it is ready.
        SigSet::all().thread_block()?;
        let failed = nix::unistd::fexecve::<_, CString, CString>(&self.0, &args, &[]);
        rustix::stdio::dup2_stdout(stdout.as_fd())?;
        failed.map_err(io::Error::from)
    }
}
