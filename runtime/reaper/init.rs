//! The container's process 1 with `--init`: starts the command, hands signals on, reaps orphans, and ends with
//! the command's exit code (128 + N when signal N killed it).
//!
//! `init -- COMMAND [ARG…]`
#![no_std]
#![no_main]

mod nolibc;
use nolibc::*;

const PATH_MAX: usize = 4096;
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// # Safety
/// `stack` is the stack as the kernel leaves it at the entry point.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: argc, argv and a null, then envp and a null, as the ABI says.
    let (argc, argv, envp) = unsafe {
        let argc = *stack;
        let argv = stack.add(1).cast::<*const u8>();
        (argc, argv, argv.add(argc + 1))
    };
    // SAFETY: an argument below argc is a NUL-terminated string.
    if argc < 3 || unsafe { bytes_of(*argv.add(1)) } != b"--" {
        let _ = write(2, b"usage: rswarm-init -- COMMAND [ARG...]\n");
        exit(64);
    }
    set_signal_mask(u64::MAX);
    let child = fork();
    if child < 0 {
        let _ = write(2, b"rswarm-init: no process could be made\n");
        exit(71);
    }
    if child == 0 {
        set_process_group(0, 0);
        set_foreground(0, getpid());
        set_signal_mask(0);
        // SAFETY: argv + 2 and envp are the kernel's own null-terminated arrays.
        unsafe { run(argv.add(2), envp) }
    }
    let child = child as i32;
    set_process_group(child, child);
    forward(child)
}

/// Hands signals to the command and reaps, until the command ends.
fn forward(child: i32) -> ! {
    loop {
        let signal = wait_signal(u64::MAX);
        if signal <= 0 {
            continue;
        }
        let signal = signal as i32;
        if signal != SIGCHLD {
            // Terminal stops are for whoever reads the terminal, which is the command's own group.
            if signal != SIGTTIN && signal != SIGTTOU {
                kill(child, signal);
            }
            continue;
        }
        loop {
            let (pid, status) = wait(WNOHANG);
            if pid <= 0 {
                break;
            }
            if pid == child as isize {
                let killed_by = status & 0x7f;
                exit(if killed_by == 0 { (status >> 8) & 0xff } else { 128 + killed_by });
            }
        }
    }
}

/// Replaces this process by the command, looked up in `PATH` as a shell would.
///
/// # Safety
/// `argv` and `envp` must be null-terminated arrays of NUL-terminated strings, `argv` not empty.
unsafe fn run(argv: *const *const u8, envp: *const *const u8) -> ! {
    // SAFETY: the first argument exists, says the caller.
    let name = unsafe { bytes_of(*argv) };
    let mut result = ENOENT;
    if name.contains(&b'/') {
        // SAFETY: passed on.
        result = unsafe { execve(*argv, argv, envp) };
    } else {
        // SAFETY: passed on.
        let path = unsafe { find(envp, b"PATH=") }.unwrap_or(DEFAULT_PATH);
        for folder in path.split(|b| *b == b':') {
            let mut file = [0u8; PATH_MAX];
            if folder.len() + name.len() + 2 > PATH_MAX {
                continue;
            }
            file[..folder.len()].copy_from_slice(folder);
            let at = if folder.is_empty() { 0 } else { folder.len() + 1 };
            if at > 0 {
                file[at - 1] = b'/';
            }
            file[at..at + name.len()].copy_from_slice(name);
            // SAFETY: the array was zeroed, so the path ends with a NUL; the rest is passed on.
            let tried = unsafe { execve(file.as_ptr(), argv, envp) };
            if tried == EACCES || result == ENOENT {
                result = tried;
            }
        }
    }
    let _ = write(2, b"rswarm-init: cannot run ");
    let _ = write(2, name);
    let _ = write(2, if result == ENOENT { b": not found\n" as &[u8] } else { b": not executable\n" });
    exit(if result == ENOENT { 127 } else { 126 })
}

/// The value of the first variable that starts with `key`.
///
/// # Safety
/// `envp` must be a null-terminated array of NUL-terminated strings that live as long as the process.
unsafe fn find(envp: *const *const u8, key: &[u8]) -> Option<&'static [u8]> {
    let mut i = 0;
    // SAFETY: every entry before the null may be read, says the caller.
    unsafe {
        while !(*envp.add(i)).is_null() {
            let entry = bytes_of(*envp.add(i));
            if let Some(value) = entry.strip_prefix(key) {
                return Some(value);
            }
            i += 1;
        }
    }
    None
}
