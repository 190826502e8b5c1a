//! A container's root file system: an image's layers with a writable one on top, by overlayfs.

use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_fd, fsconfig_set_string, fsmount, fsopen, mount, move_mount, unmount,
};

/// Why a root file system could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Nothing to mount.
    #[error("the image has no layers, so there is nothing to run in it")]
    NoLayers,
    /// A folder could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot mount {layers} layers on {}{}", target.display(), explain(log))]
    Overlay {
        /// How many.
        layers: usize,
        /// Where.
        target: PathBuf,
        /// What the kernel says of it, if it says anything.
        log: String,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// The kernel refused.
    #[error("cannot unmount {}", target.display())]
    Unmount {
        /// Where.
        target: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

fn explain(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(": {log}") }
}

fn open_folder(path: &Path) -> Result<OwnedFd, MountError> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| MountError::Open { path: path.to_owned(), source: errno.into() })
}

fn open_folders(layers: &[PathBuf]) -> Result<Vec<OwnedFd>, MountError> {
    layers.iter().rev().map(|layer| open_folder(layer)).collect()
}

/// Mounts layers (bottom first, as [`Image::layers`](super::Image) has them) with `upper` on top at `target`, in the
/// caller's mount namespace. `upper` and `work` are empty folders of one file system that is not overlayfs itself.
/// With `read_only` nothing can be written through `target`, mount points included: make these in `upper` before.
///
/// # Errors
/// Names what the kernel's own log says of it.
pub fn mount_rootfs(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    read_only: bool,
) -> Result<(), MountError> {
    if layers.is_empty() {
        return Err(MountError::NoLayers);
    }
    match mount_by_descriptor(layers, upper, work, target, read_only) {
        // Linux before 6.5 knows no "lowerdir+".
        Err(MountError::Overlay { source, log, .. }) if is_unknown_parameter(&source, &log) => {
            mount_by_options(layers, upper, work, target, read_only)
        }
        other => other,
    }
}

fn is_unknown_parameter(error: &io::Error, log: &str) -> bool {
    matches!(error.raw_os_error().map(Errno::from_raw_os_error), Some(Errno::INVAL | Errno::NOSYS))
        && (log.is_empty() || log.contains("lowerdir+"))
}

fn mount_by_descriptor(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    read_only: bool,
) -> Result<(), MountError> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| MountError::Overlay {
        layers: layers.len(),
        target: target.to_owned(),
        log: String::new(),
        source: errno.into(),
    })?;
    let refused = |errno: Errno| MountError::Overlay {
        layers: layers.len(),
        target: target.to_owned(),
        log: read_log(&context),
        source: errno.into(),
    };
    fsconfig_set_string(&context, "source", "overlay").map_err(refused)?;
    for lower in open_folders(layers)? {
        // By descriptor: fsconfig cuts strings at 256 bytes. Linux 6.5 to 6.12 takes strings only.
        fsconfig_set_fd(&context, "lowerdir+", &lower)
            .or_else(|_| fsconfig_set_string(&context, "lowerdir+", short_name(&lower)))
            .map_err(refused)?;
    }
    for (key, path) in [("upperdir", upper), ("workdir", work)] {
        let folder = open_folder(path)?;
        fsconfig_set_fd(&context, key, &folder)
            .or_else(|_| fsconfig_set_string(&context, key, short_name(&folder)))
            .map_err(refused)?;
    }
    fsconfig_create(&context).map_err(refused)?;
    let attributes = if read_only { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(refused)?;
    move_mount(&mounted, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).map_err(refused)
}

/// The old call, with descriptors as short names: its options end at one page, which holds 200 of them.
fn mount_by_options(
    layers: &[PathBuf],
    upper: &Path,
    work: &Path,
    target: &Path,
    read_only: bool,
) -> Result<(), MountError> {
    let lowers = open_folders(layers)?;
    let (upper, work) = (open_folder(upper)?, open_folder(work)?);
    let mut options = String::from("lowerdir=");
    for (position, lower) in lowers.iter().enumerate() {
        if position > 0 {
            options.push(':');
        }
        options.push_str(&short_name(lower));
    }
    let _ = write!(options, ",upperdir={},workdir={}", short_name(&upper), short_name(&work));
    let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    let options = std::ffi::CString::new(options).expect("descriptor numbers have no NUL");
    mount("overlay", target, "overlay", flags, Some(options.as_c_str())).map_err(|errno| MountError::Overlay {
        layers: layers.len(),
        target: target.to_owned(),
        log: if options.as_bytes().len() > 4000 {
            "this kernel stacks at most 200 layers, Linux 6.5 and later 500".to_owned()
        } else {
            String::new()
        },
        source: errno.into(),
    })
}

fn short_name(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What the kernel wrote about the last refusal: one message a read, `e overlay: …`.
fn read_log(context: &OwnedFd) -> String {
    let mut messages = Vec::new();
    let mut buffer = [0_u8; 1024];
    while let Ok(length @ 1..) = rustix::io::read(context, &mut buffer) {
        let message = String::from_utf8_lossy(&buffer[..length]);
        let message = message.trim();
        messages.push(message.strip_prefix("e ").unwrap_or(message).to_owned());
    }
    messages.join("; ")
}

/// Unmounts what [`mount_rootfs`] mounted. What is still in use disappears for newcomers now and is freed with its
/// last user; what is not mounted is fine.
///
/// # Errors
/// The kernel's answer.
pub fn unmount_rootfs(target: &Path) -> Result<(), MountError> {
    let unmounted = match unmount(target, UnmountFlags::NOFOLLOW) {
        Err(Errno::BUSY) => unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
        other => other,
    };
    match unmounted {
        // Not a mount point, or not there at all.
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(errno) => Err(MountError::Unmount { target: target.to_owned(), source: errno.into() }),
    }
}

#[cfg(test)]
#[path = "mount_tests.rs"]
mod tests;
