//! The unsafe part: waiting for a netlink socket.

use std::io;

use netlink_sys::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A socket that can be awaited. Needs a tokio runtime.
///
/// # Errors
/// When the runtime cannot watch it.
pub fn watch_socket(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, always returns the same one, and closes it only when
    // it is dropped, which the `AsyncFd` does after it has deregistered it.
    let watched = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) };
    Ok(watched?)
}
