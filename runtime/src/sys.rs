//! The calls to the kernel that no safe wrapper offers.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use seccompiler::sock_filter;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Installs a filter for this thread. Unlike `seccompiler::apply_filter` it does not set `no_new_privs`, so the
/// thread needs `CAP_SYS_ADMIN`.
pub(crate) fn install_seccomp(program: &[sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `sock_filter` of seccompiler has the kernel's layout (repr(C), 8 bytes); the kernel copies the program
    // of `len` entries and writes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, std::ptr::from_ref(&program)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Gives every signal its default action back: Rust programs ignore SIGPIPE, `posix_spawn` of glibc ignores signals 32
/// and 33 in what it starts, and children inherit both.
pub(crate) fn default_signals() -> io::Result<()> {
    /// The kernel's own `struct sigaction`, zero = SIG_DFL, no flags, empty mask; larger than on any architecture.
    const DEFAULT: [u64; 8] = [0; 8];
    const SIGNAL_SET_BYTES: usize = 8;
    for signal in (1..=64).filter(|s| ![libc::SIGKILL, libc::SIGSTOP].contains(s)) {
        // SAFETY: the action is a readable block at least as large as the kernel's struct; no old action is asked for;
        // SIG_DFL installs no code of ours. The call is async-signal-safe.
        let result = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), std::ptr::null::<u64>(), SIGNAL_SET_BYTES)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Makes a command start with default signals.
pub(crate) fn with_default_signals(command: &mut Command) {
    // SAFETY: the closure makes system calls only, on constants, and allocates nothing.
    unsafe { command.pre_exec(default_signals) };
}

/// Brings up the loopback device of the current network namespace.
pub(crate) fn loopback_up(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid: integers and byte arrays.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = libc::c_char::try_from(*from).unwrap_or(0);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(1);
    // SAFETY: SIOCSIFFLAGS reads a whole ifreq, which lives through the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, std::ptr::from_ref(&request)) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends any signal, real-time ones too, to the process of a pidfd. A dead one is no error.
pub(crate) fn send_signal(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, the siginfo is null, which means "as kill(2)".
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    match io::Error::last_os_error() {
        _ if result == 0 => Ok(()),
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// A pidfd that a task can wait for.
pub(crate) fn watchable(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped, always gives the same descriptor, and is moved in.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}
