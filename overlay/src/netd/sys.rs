//! The unsafe part of netd's client: waiting for a process.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A pidfd that becomes readable when its process has ended. Needs a tokio runtime.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn watch_pidfd(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open, always returns the same descriptor, and nobody else can close
    // or replace it while the `AsyncFd` owns it.
    let watched = unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) };
    Ok(watched?)
}
