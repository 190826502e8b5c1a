//! What stays of a shim while its container runs: pumps the output into rotated log files, reaps, and leaves
//! the exit status behind.
//!
//! The shim becomes this program by execve, with the container's state folder as working directory:
//! `reaper INIT_PID STDOUT_FD STDERR_FD FILE_BYTES FILES`. Descriptors that are open stay open (the flock that
//! says "this container has a shim", the writing end of stdin, a terminal's master). A STDERR_FD of -1 means
//! that there is none; FILES of 0 means that the output is thrown away.
//!
//! A log record is `<19 digits of ns> <o|e><F|P> <length>\n<bytes>\n`; P = the line goes on in the next record.
//! `exit` holds `<wait status> <ns>\n` and appears at once and whole.
#![no_std]
#![no_main]

mod nolibc;
use nolibc::*;

const CARRY: usize = 8 * 1024;
/// 19 digits, a space, two letters, a space, up to 5 digits, a newline; and the newline after the bytes.
const RECORD_OVERHEAD: usize = 30;

/// One output stream and the part of a line that has not ended yet.
struct Stream {
    fd: i32,
    letter: u8,
    held: usize,
    carry: [u8; CARRY],
}

/// The live log file.
struct Log {
    fd: i32,
    size: u64,
    file_bytes: u64,
    files: u64,
    waiting: usize,
    buffer: [u8; CARRY + RECORD_OVERHEAD],
}

// All zeros, so that they cost nothing in the file and nothing in memory until they are used.
static mut STREAMS: [Stream; 2] = [const { Stream { fd: 0, letter: 0, held: 0, carry: [0; CARRY] } }; 2];
static mut LOG: Log = Log { fd: 0, size: 0, file_bytes: 0, files: 0, waiting: 0, buffer: [0; CARRY + RECORD_OVERHEAD] };

/// # Safety
/// `stack` is the stack as the kernel leaves it at the entry point.
unsafe extern "C" fn main(stack: *const usize) -> ! {
    // SAFETY: argc comes first, then argv, as the ABI says; six arguments are checked for.
    let args: [i64; 6] = unsafe {
        if *stack != 6 {
            exit(64);
        }
        core::array::from_fn(|i| parse(bytes_of(*stack.add(1 + i) as *const u8)))
    };
    let [_, init, stdout, stderr, file_bytes, files] = args;
    // SAFETY: the only references that are ever made to the two statics, in a program with one thread.
    let (streams, log) = unsafe { (&mut *core::ptr::addr_of_mut!(STREAMS), &mut *core::ptr::addr_of_mut!(LOG)) };
    // A stray SIGTERM (a machine that shuts down) must not cost the exit status.
    set_signal_mask(u64::MAX);
    set_name(b"rswarm-reaper\0");
    for (stream, (fd, letter)) in streams.iter_mut().zip([(stdout, b'o'), (stderr, b'e')]) {
        stream.letter = letter;
        stream.fd = fd as i32;
        if stream.fd >= 0 {
            set_nonblocking(stream.fd);
        }
    }
    log.file_bytes = file_bytes as u64;
    log.files = files as u64;
    log.fd = -1;
    log.open();
    let status = watch(init as i32, streams, log);
    write_exit(status, now_ns());
    exit(0)
}

/// Pumps until the container's init is dead and nothing is left in the pipes; returns its wait status.
fn watch(init: i32, streams: &mut [Stream; 2], log: &mut Log) -> i32 {
    let init_fd = pidfd_open(init);
    let mut status = None;
    loop {
        let mut fds = [
            PollFd { fd: if status.is_none() { init_fd } else { -1 }, events: POLLIN, revents: 0 },
            PollFd { fd: streams[0].fd, events: POLLIN, revents: 0 },
            PollFd { fd: streams[1].fd, events: POLLIN, revents: 0 },
        ];
        // Once init is dead only what is already in the pipes counts: nobody waits for a leaked descriptor.
        let at_once = TimeSpec { seconds: 0, nanos: 0 };
        let ready = poll(&mut fds, status.is_some().then_some(&at_once));
        if ready == EINTR {
            continue;
        }
        for (stream, polled) in streams.iter_mut().zip(&fds[1..]) {
            if polled.revents != 0 {
                stream.pump(log);
            }
        }
        log.flush();
        if ready <= 0
            && let Some(status) = status
        {
            for stream in streams {
                stream.end(log);
            }
            log.flush();
            return status;
        }
        // Reaps strays too: the shim is a subreaper.
        loop {
            let (pid, wait_status) = wait(WNOHANG);
            if pid <= 0 {
                break;
            }
            if pid == init as isize {
                status = Some(wait_status);
            }
        }
        if init_fd < 0 && status.is_none() {
            // No pidfd (never seen): init was reaped by somebody else, so its status is unknown.
            exit(70);
        }
    }
}

impl Stream {
    /// Reads once and logs the lines that are complete.
    fn pump(&mut self, log: &mut Log) {
        let got = read(self.fd, &mut self.carry[self.held..]);
        if got == EAGAIN || got == EINTR {
            return;
        }
        if got <= 0 {
            // End of file, or EIO of a terminal that nobody holds any more.
            self.end(log);
            close(self.fd);
            self.fd = -1;
            return;
        }
        let now = now_ns();
        let end = self.held + got as usize;
        let mut start = 0;
        for i in self.held..end {
            if self.carry[i] == b'\n' {
                log.record(now, self.letter, b'F', &self.carry[start..i]);
                start = i + 1;
            }
        }
        if start == 0 && end == CARRY {
            log.record(now, self.letter, b'P', &self.carry);
            start = end;
        }
        self.carry.copy_within(start..end, 0);
        self.held = end - start;
    }

    /// Logs a last line that has no newline.
    fn end(&mut self, log: &mut Log) {
        if self.held > 0 {
            log.record(now_ns(), self.letter, b'F', &self.carry[..self.held]);
            self.held = 0;
        }
    }
}

impl Log {
    fn open(&mut self) {
        if self.files > 0 {
            self.fd = open(b"logs/0\0", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0o640);
            self.size = if self.fd >= 0 { end_of(self.fd) } else { 0 };
        }
    }

    fn record(&mut self, now: u64, stream: u8, flag: u8, bytes: &[u8]) {
        if self.waiting + bytes.len() + RECORD_OVERHEAD > self.buffer.len() {
            self.flush();
        }
        let mut at = put_number(&mut self.buffer, self.waiting, now, 19);
        for byte in [b' ', stream, flag, b' '] {
            self.buffer[at] = byte;
            at += 1;
        }
        at = put_number(&mut self.buffer, at, bytes.len() as u64, 1);
        self.buffer[at] = b'\n';
        at += 1;
        self.buffer[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
        self.buffer[at] = b'\n';
        self.waiting = at + 1;
    }

    /// Writes what was recorded. A full disk loses these records, never the framing or the container.
    fn flush(&mut self) {
        let length = self.waiting;
        self.waiting = 0;
        if length == 0 || self.files == 0 {
            return;
        }
        if self.fd < 0 {
            self.open();
        }
        if self.size > 0 && self.size + length as u64 > self.file_bytes {
            self.rotate();
        }
        if self.fd < 0 {
            return;
        }
        let wrote = write(self.fd, &self.buffer[..length]);
        if wrote == length as isize {
            self.size += length as u64;
        } else {
            truncate(self.fd, self.size);
        }
    }

    /// `logs/0` becomes `logs/1`, and so on; the last one is dropped.
    fn rotate(&mut self) {
        close(self.fd);
        self.fd = -1;
        for i in (1..self.files).rev() {
            let (mut from, mut to) = ([0u8; 28], [0u8; 28]);
            for (path, number) in [(&mut from, i - 1), (&mut to, i)] {
                path[..5].copy_from_slice(b"logs/");
                put_number(path, 5, number, 1);
            }
            rename(&from, &to);
        }
        if self.files == 1 {
            close(open(b"logs/0\0", O_WRONLY | O_TRUNC | O_CLOEXEC, 0));
        }
        self.open();
    }
}

/// `exit` is there at once and whole, or not at all, also after a power cut.
fn write_exit(status: i32, now: u64) {
    let mut text = [0u8; 48];
    let mut at = put_number(&mut text, 0, status as u32 as u64, 1);
    text[at] = b' ';
    at = put_number(&mut text, at + 1, now, 1);
    text[at] = b'\n';
    at += 1;
    let fd = open(b"exit.tmp\0", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o640);
    if fd < 0 || write(fd, &text[..at]) != at as isize {
        // A full disk: the daemon finds no exit file and reports the container as lost, which it is.
        exit(74);
    }
    fsync(fd);
    close(fd);
    rename(b"exit.tmp\0", b"exit\0");
    let folder = open(b".\0", O_RDONLY | O_CLOEXEC, 0);
    fsync(folder);
}
