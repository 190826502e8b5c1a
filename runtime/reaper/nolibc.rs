//! The few system calls that the reaper and the init need, without any C library.
//!
//! Both programs are one static ELF of a few kilobytes each: no relocations, no heap, no threads.

#![allow(dead_code, reason = "each of the two programs uses its part")]

use core::arch::{asm, global_asm};

#[cfg(target_arch = "x86_64")]
mod nr {
    pub const READ: usize = 0;
    pub const WRITE: usize = 1;
    pub const CLOSE: usize = 3;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const EXIT_GROUP: usize = 231;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const FCNTL: usize = 72;
    pub const FSYNC: usize = 74;
    pub const FTRUNCATE: usize = 77;
    pub const SETPGID: usize = 109;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
    pub const CLOCK_GETTIME: usize = 228;
    pub const OPENAT: usize = 257;
    pub const RENAMEAT: usize = 264;
    pub const PPOLL: usize = 271;
    pub const LSEEK: usize = 8;
    pub const GETPID: usize = 39;
    pub const PIDFD_OPEN: usize = 434;
}

#[cfg(target_arch = "aarch64")]
mod nr {
    pub const READ: usize = 63;
    pub const WRITE: usize = 64;
    pub const CLOSE: usize = 57;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const IOCTL: usize = 29;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const EXIT_GROUP: usize = 94;
    pub const WAIT4: usize = 260;
    pub const KILL: usize = 129;
    pub const FCNTL: usize = 25;
    pub const FSYNC: usize = 82;
    pub const FTRUNCATE: usize = 46;
    pub const SETPGID: usize = 154;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const PRCTL: usize = 167;
    pub const CLOCK_GETTIME: usize = 113;
    pub const OPENAT: usize = 56;
    pub const RENAMEAT: usize = 38;
    pub const PPOLL: usize = 73;
    pub const LSEEK: usize = 62;
    pub const GETPID: usize = 172;
    pub const PIDFD_OPEN: usize = 434;
}

#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "mov rdi, rsp",
    "and rsp, -16",
    "call {main}",
    "ud2",
    main = sym super::main,
);

#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl _start",
    "_start:",
    "mov x29, #0",
    "mov x0, sp",
    "and sp, x0, #-16",
    "bl {main}",
    "brk #1",
    main = sym super::main,
);

/// One system call with up to six arguments.
///
/// # Safety
/// The arguments must be valid for the call `n`, pointers included.
#[cfg(target_arch = "x86_64")]
unsafe fn syscall(n: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; the clobbers are those of the x86_64 ABI.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") n => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2],
            in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// One system call with up to six arguments.
///
/// # Safety
/// The arguments must be valid for the call `n`, pointers included.
#[cfg(target_arch = "aarch64")]
unsafe fn syscall(n: usize, a: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the caller vouches for the arguments; svc clobbers nothing but x0.
    unsafe {
        asm!(
            "svc 0",
            in("x8") n,
            inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5],
            options(nostack),
        );
    }
    result
}

pub const AT_FDCWD: i32 = -100;
pub const O_RDONLY: usize = 0;
pub const O_WRONLY: usize = 1;
pub const O_CREAT: usize = 0o100;
pub const O_TRUNC: usize = 0o1000;
pub const O_APPEND: usize = 0o2000;
pub const O_NONBLOCK: usize = 0o4000;
pub const O_CLOEXEC: usize = 0o2000000;
pub const POLLIN: i16 = 1;
pub const WNOHANG: usize = 1;
pub const SIGCHLD: i32 = 17;
pub const SIGTTIN: i32 = 21;
pub const SIGTTOU: i32 = 22;
pub const EAGAIN: isize = -11;
pub const EINTR: isize = -4;
pub const ENOENT: isize = -2;
pub const EACCES: isize = -13;

#[repr(C)]
pub struct PollFd {
    pub fd: i32,
    pub events: i16,
    pub revents: i16,
}

#[repr(C)]
pub struct TimeSpec {
    pub seconds: i64,
    pub nanos: i64,
}

pub fn read(fd: i32, into: &mut [u8]) -> isize {
    // SAFETY: the pointer and length are those of a live, exclusive slice.
    unsafe { syscall(nr::READ, [fd as usize, into.as_mut_ptr() as usize, into.len(), 0, 0, 0]) }
}

pub fn write(fd: i32, bytes: &[u8]) -> isize {
    // SAFETY: the pointer and length are those of a live slice.
    unsafe { syscall(nr::WRITE, [fd as usize, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0]) }
}

pub fn close(fd: i32) {
    // SAFETY: no memory is involved.
    unsafe { syscall(nr::CLOSE, [fd as usize, 0, 0, 0, 0, 0]) };
}

/// `path` must end with a NUL byte.
pub fn open(path: &[u8], flags: usize, mode: usize) -> i32 {
    debug_assert!(path.last() == Some(&0));
    // SAFETY: the path is a live, NUL-terminated slice.
    unsafe { syscall(nr::OPENAT, [AT_FDCWD as usize, path.as_ptr() as usize, flags, mode, 0, 0]) as i32 }
}

/// Both paths must end with a NUL byte.
pub fn rename(from: &[u8], to: &[u8]) -> isize {
    // SAFETY: both paths are live, NUL-terminated slices.
    unsafe {
        syscall(
            nr::RENAMEAT,
            [AT_FDCWD as usize, from.as_ptr() as usize, AT_FDCWD as usize, to.as_ptr() as usize, 0, 0],
        )
    }
}

pub fn fsync(fd: i32) {
    // SAFETY: no memory is involved.
    unsafe { syscall(nr::FSYNC, [fd as usize, 0, 0, 0, 0, 0]) };
}

pub fn truncate(fd: i32, length: u64) {
    // SAFETY: no memory is involved.
    unsafe { syscall(nr::FTRUNCATE, [fd as usize, length as usize, 0, 0, 0, 0]) };
}

pub fn end_of(fd: i32) -> u64 {
    const SEEK_END: usize = 2;
    // SAFETY: no memory is involved.
    let end = unsafe { syscall(nr::LSEEK, [fd as usize, 0, SEEK_END, 0, 0, 0]) };
    if end < 0 { 0 } else { end as u64 }
}

pub fn set_nonblocking(fd: i32) {
    const F_GETFL: usize = 3;
    const F_SETFL: usize = 4;
    // SAFETY: no memory is involved.
    unsafe {
        let flags = syscall(nr::FCNTL, [fd as usize, F_GETFL, 0, 0, 0, 0]);
        syscall(nr::FCNTL, [fd as usize, F_SETFL, flags as usize | O_NONBLOCK, 0, 0, 0]);
    }
}

/// Waits until one of `fds` is ready; `None` = for ever.
pub fn poll(fds: &mut [PollFd], timeout: Option<&TimeSpec>) -> isize {
    let timeout = timeout.map_or(0, |t| core::ptr::from_ref(t) as usize);
    // SAFETY: `fds` is a live, exclusive slice; the timeout is null or a live reference, and the kernel may
    // write to it only when it is not restarted, which the raw call does to a private copy.
    unsafe { syscall(nr::PPOLL, [fds.as_mut_ptr() as usize, fds.len(), timeout, 0, 0, 0]) }
}

pub fn pidfd_open(pid: i32) -> i32 {
    // SAFETY: no memory is involved.
    unsafe { syscall(nr::PIDFD_OPEN, [pid as usize, 0, 0, 0, 0, 0]) as i32 }
}

/// The pid that was reaped and its wait status, or a negative or zero result.
pub fn wait(options: usize) -> (isize, i32) {
    let mut status = 0i32;
    // SAFETY: the status pointer is a live local.
    let pid = unsafe { syscall(nr::WAIT4, [usize::MAX, core::ptr::from_mut(&mut status) as usize, options, 0, 0, 0]) };
    (pid, status)
}

pub fn getpid() -> i32 {
    // SAFETY: no memory is involved.
    unsafe { syscall(nr::GETPID, [0; 6]) as i32 }
}

pub fn kill(pid: i32, signal: i32) -> isize {
    // SAFETY: no memory is involved.
    unsafe { syscall(nr::KILL, [pid as usize, signal as usize, 0, 0, 0, 0]) }
}

pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: no memory is involved; the call does not return.
        unsafe { syscall(nr::EXIT_GROUP, [code as usize, 0, 0, 0, 0, 0]) };
    }
}

/// Replaces the set of blocked signals (bit N-1 = signal N).
pub fn set_signal_mask(mask: u64) {
    const SIG_SETMASK: usize = 2;
    // SAFETY: the mask is a live local of the kernel's size, 8 bytes.
    unsafe { syscall(nr::RT_SIGPROCMASK, [SIG_SETMASK, core::ptr::from_ref(&mask) as usize, 0, 8, 0, 0]) };
}

/// Waits for one of the blocked signals in `mask` and returns its number.
pub fn wait_signal(mask: u64) -> isize {
    // SAFETY: the mask is a live local of the kernel's size, 8 bytes; no siginfo, no timeout.
    unsafe { syscall(nr::RT_SIGTIMEDWAIT, [core::ptr::from_ref(&mask) as usize, 0, 0, 8, 0, 0]) }
}

/// A child that continues here with its own copy of the memory (0), or its pid.
pub fn fork() -> isize {
    // SAFETY: without CLONE_VM and with a null stack this is fork(2); the program has one thread.
    unsafe { syscall(nr::CLONE, [SIGCHLD as usize, 0, 0, 0, 0, 0]) }
}

/// # Safety
/// `path` must be NUL-terminated, `argv` and `envp` null-terminated arrays of such strings.
pub unsafe fn execve(path: *const u8, argv: *const *const u8, envp: *const *const u8) -> isize {
    // SAFETY: the caller vouches for the pointers.
    unsafe { syscall(nr::EXECVE, [path as usize, argv as usize, envp as usize, 0, 0, 0]) }
}

pub fn set_process_group(pid: i32, group: i32) {
    // SAFETY: no memory is involved.
    unsafe { syscall(nr::SETPGID, [pid as usize, group as usize, 0, 0, 0, 0]) };
}

/// Makes `group` the foreground group of the terminal `fd`; nothing happens without a terminal.
pub fn set_foreground(fd: i32, group: i32) {
    const TIOCSPGRP: usize = 0x5410;
    // SAFETY: the group pointer is a live local.
    unsafe { syscall(nr::IOCTL, [fd as usize, TIOCSPGRP, core::ptr::from_ref(&group) as usize, 0, 0, 0]) };
}

/// `name` must end with a NUL byte; the kernel keeps 15 characters.
pub fn set_name(name: &[u8]) {
    const PR_SET_NAME: usize = 15;
    // SAFETY: the name is a live, NUL-terminated slice.
    unsafe { syscall(nr::PRCTL, [PR_SET_NAME, name.as_ptr() as usize, 0, 0, 0, 0]) };
}

/// Nanoseconds since 1970.
pub fn now_ns() -> u64 {
    const CLOCK_REALTIME: usize = 0;
    let mut now = TimeSpec { seconds: 0, nanos: 0 };
    // SAFETY: the pointer is a live local of the kernel's shape.
    unsafe { syscall(nr::CLOCK_GETTIME, [CLOCK_REALTIME, core::ptr::from_mut(&mut now) as usize, 0, 0, 0, 0]) };
    now.seconds as u64 * 1_000_000_000 + now.nanos as u64
}

/// The bytes of a NUL-terminated string, without the NUL.
///
/// # Safety
/// `text` must point to a NUL-terminated string that lives as long as the process.
pub unsafe fn bytes_of(text: *const u8) -> &'static [u8] {
    let mut length = 0;
    // SAFETY: the caller vouches for the NUL, so every byte up to it may be read.
    unsafe {
        while *text.add(length) != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(text, length)
    }
}

/// A decimal number; anything else gives what was read so far.
pub fn parse(text: &[u8]) -> i64 {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut value = 0i64;
    for digit in digits.iter().take_while(|d| d.is_ascii_digit()) {
        value = value * 10 + i64::from(digit - b'0');
    }
    if negative { -value } else { value }
}

/// Appends `value` in decimal, at least `width` digits wide, and returns the new length.
pub fn put_number(into: &mut [u8], mut at: usize, value: u64, width: usize) -> usize {
    let mut digits = [b'0'; 20];
    let mut rest = value;
    let mut first = digits.len();
    while rest > 0 || digits.len() - first < width.max(1) {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    for digit in &digits[first..] {
        into[at] = *digit;
        at += 1;
    }
    at
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(255)
}

/// # Safety
/// As C's memcpy.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as C's memcpy, which the caller promised; not a loop, which could become a call of itself.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "rep movsb",
            inout("rcx") length => _, inout("rdi") to => _, inout("rsi") from => _,
            options(nostack, preserves_flags),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..length {
        // SAFETY: as C's memcpy, which the caller promised; volatile keeps it from becoming a call of itself.
        unsafe { to.add(i).write_volatile(from.add(i).read()) };
    }
    to
}

/// # Safety
/// As C's memmove.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as C's memmove, which the caller promised; the direction keeps unread bytes from being overwritten.
    unsafe {
        if (to as usize) < (from as usize) {
            let mut i = 0;
            while i < length {
                to.add(i).write_volatile(from.add(i).read());
                i += 1;
            }
        } else {
            let mut i = length;
            while i > 0 {
                i -= 1;
                to.add(i).write_volatile(from.add(i).read());
            }
        }
    }
    to
}

/// # Safety
/// As C's memset.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, length: usize) -> *mut u8 {
    let mut i = 0;
    while i < length {
        // SAFETY: as C's memset, which the caller promised.
        unsafe { to.add(i).write_volatile(byte as u8) };
        i += 1;
    }
    to
}

/// # Safety
/// As C's memcmp.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    let mut i = 0;
    while i < length {
        // SAFETY: as C's memcmp, which the caller promised.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        i += 1;
    }
    0
}

/// # Safety
/// As memcmp.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, length: usize) -> i32 {
    // SAFETY: passed on.
    unsafe { memcmp(a, b, length) }
}

/// # Safety
/// As C's strlen.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn strlen(text: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: as C's strlen, which the caller promised.
    while unsafe { text.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
