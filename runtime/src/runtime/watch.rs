//! The end of a container: its shim dies, and has left an exit status or not.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::process::{WaitId, WaitIdOptions};

use super::{ContainerState, Exit, ExitEvent, Inner, Outcome};
use crate::sys;

/// Waits for the shim's death, then settles what became of the container.
pub(super) async fn watch(inner: Arc<Inner>, id: String, shim: OwnedFd) {
    let shim = match sys::watchable(shim) {
        Ok(shim) => shim,
        Err(error) => {
            tracing::error!(container.id = id, %error, "a container cannot be watched");
            return;
        }
    };
    // Both are cancel-safe; readiness of a pidfd never goes away.
    tokio::select! {
        () = inner.stop.cancelled() => return,
        ready = shim.readable() => {
            if let Err(error) = ready {
                tracing::error!(container.id = id, %error, "a container cannot be watched");
                return;
            }
        }
    }
    let shim = shim.into_inner();
    let settling = Arc::clone(&inner);
    inner.tasks.spawn_blocking(move || {
        // Succeeds only for a child of this daemon; an adopted shim is reaped by process 1.
        let _ = rustix::process::waitid(WaitId::PidFd(shim.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        settle(&settling, &id);
    });
}

/// Writes down and tells what became of a container whose shim is dead.
fn settle(inner: &Inner, id: &str) {
    let outcome = outcome(inner, id);
    let state = match &outcome {
        Outcome::Exited(exit) => ContainerState::Exited(*exit),
        Outcome::Lost(why) => ContainerState::Lost(why.clone()),
    };
    if let Some(entry) = inner.table().get_mut(id) {
        entry.state = state;
    }
    // Without a listener there is nobody to tell.
    let _ = inner.exits.send(ExitEvent { id: id.to_owned(), outcome });
}

/// What became of a container whose shim is dead; without an exit status whatever is left of it is killed.
pub(super) fn outcome(inner: &Inner, id: &str) -> Outcome {
    let cgroup = inner.cgroup(id);
    match inner.dir(id).exit() {
        Some(raw) => Outcome::Exited(Exit {
            code: raw.code(),
            signal: raw.signal(),
            oom: raw.wait_status != 0 && inner.hierarchies.has_run_out_of_memory(&cgroup),
            at_ns: raw.at_ns,
        }),
        None => Outcome::Lost(match inner.hierarchies.kill(&cgroup) {
            Ok(()) => {
                "the container's shim died without an exit code; what was left of the container was killed".to_owned()
            }
            Err(error) => format!("the container's shim died without an exit code; {error}"),
        }),
    }
}
