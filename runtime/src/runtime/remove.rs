//! Removing what an ended container leaves.

use std::fs;
use std::io::{self, ErrorKind};

use super::{ContainerState, Inner, OperateError, is_good_id};

pub(super) fn delete(inner: &Inner, id: &str, with_logs: bool) -> Result<(), OperateError> {
    if !is_good_id(id) {
        return Err(OperateError::NotFound(id.to_owned()));
    }
    if matches!(inner.state_of(id), Some(ContainerState::Running { .. })) {
        return Err(OperateError::Running(id.to_owned()));
    }
    remove_files(inner, id, with_logs).map_err(|source| OperateError::Io { id: id.to_owned(), source })?;
    inner.table().remove(id);
    Ok(())
}

/// Cgroup first, then the plan, so that an interrupted removal is finished by the next daemon.
pub(super) fn remove_files(inner: &Inner, id: &str, with_logs: bool) -> io::Result<()> {
    let cgroup = inner.cgroup(id);
    inner.hierarchies.kill(&cgroup)?;
    inner.hierarchies.remove(&cgroup)?;
    gone(fs::remove_dir_all(inner.run_dir(id)))?;
    let dir = inner.dir(id);
    gone(fs::remove_file(dir.join("plan.json")))?;
    if with_logs {
        return gone(fs::remove_dir_all(&dir.0));
    }
    let entries = match fs::read_dir(&dir.0) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name() == "logs" {
            continue;
        }
        gone(if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())
        } else {
            fs::remove_file(entry.path())
        })?;
    }
    Ok(())
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
