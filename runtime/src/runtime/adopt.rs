//! Finding containers again: what the state folders say, checked against the processes that live.

use std::fs;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{ContainerState, Entry, Inner, OpenError, Outcome, is_good_id, remove, watch};
use crate::state::{Order, ProcessId, StateDir};

/// A start that a dead daemon began may take so long to come to an end.
const SETTLE_MAX: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(5);

pub(super) fn adopt_all(inner: &Arc<Inner>) -> Result<(), OpenError> {
    let path = &inner.config.containers_dir;
    let io = |source| OpenError::Io { path: path.clone(), source };
    for entry in fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let Some(id) = name.to_str().filter(|id| is_good_id(id)) else { continue };
        if let Err(error) = adopt(inner, id) {
            tracing::warn!(container.id = id, %error, "a container's state cannot be read");
            lose(inner, id, None, format!("its state cannot be read: {error}"));
        }
    }
    Ok(())
}

fn adopt(inner: &Arc<Inner>, id: &str) -> io::Result<()> {
    let dir = inner.dir(id);
    if !dir.join("plan.json").exists() {
        // Deleted, perhaps half of it; only logs may stay.
        return remove::remove_files(inner, id, false);
    }
    if dir.process("shim").is_none() && dir.exit().is_none() {
        // Never made. Holding the lock, no late shim can begin either.
        match dir.lock() {
            Ok(_held) => return remove::remove_files(inner, id, true),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    let order = dir.order()?;
    let (shim, started_at_ns) = match live_shim(&dir)? {
        Some((shim, started_at_ns)) => (shim, started_at_ns),
        None => {
            match watch::outcome(inner, id) {
                Outcome::Exited(exit) => end(inner, id, Some(&order), ContainerState::Exited(exit)),
                Outcome::Lost(why) => lose(inner, id, Some(&order), why),
            }
            return Ok(());
        }
    };
    let (Some(started_at_ns), Some(init)) = (started_at_ns, dir.process("init")) else {
        // The start hangs: nobody can say how far it came.
        let _ = inner.hierarchies.kill(&order.cgroup);
        crate::sys::send_signal(&shim, libc::SIGKILL)?;
        lose(inner, id, Some(&order), "the daemon ended while the container was being started".to_owned());
        return Ok(());
    };
    inner.watch(&order, init, started_at_ns, shim);
    Ok(())
}

type LiveShim = (std::os::fd::OwnedFd, Option<u64>);

/// The shim, if it lives and has not written the exit status; a start under way is waited for.
fn live_shim(dir: &StateDir) -> io::Result<Option<LiveShim>> {
    let since = Instant::now();
    loop {
        if dir.exit().is_some() {
            return Ok(None);
        }
        let is_late = since.elapsed() > SETTLE_MAX;
        match dir.process("shim") {
            Some(shim) => match shim.open()? {
                None => return Ok(None),
                Some(pidfd) => {
                    let started = fs::read_to_string(dir.join("started")).ok().and_then(|t| t.trim().parse().ok());
                    if started.is_some() || is_late {
                        return Ok(Some((pidfd, started)));
                    }
                }
            },
            None if is_late => return Ok(None),
            None => {}
        }
        sleep(STEP);
    }
}

fn lose(inner: &Inner, id: &str, order: Option<&Order>, why: String) {
    end(inner, id, order, ContainerState::Lost(why));
}

fn end(inner: &Inner, id: &str, order: Option<&Order>, state: ContainerState) {
    let init = ProcessId { pid: 0, start_time: 0 };
    inner.table().insert(id.to_owned(), Entry::of(order.map(|order| &order.plan), state, init));
}
