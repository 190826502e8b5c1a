//! What is read and made inside a container's root file system before anything runs in it.
//!
//! Every path goes through `openat2(RESOLVE_IN_ROOT)`: the image may contain any symlink.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, futimens, mkdirat, mknodat, openat, openat2, readlinkat, statat, symlinkat,
};
use rustix::io::Errno;

/// `/etc/passwd` and `/etc/group` are read up to this size.
const TEXT_BYTES_MAX: u64 = 4 * 1_024 * 1_024;
const DEPTH_MAX: usize = 256;
const XATTR_BYTES_MAX: usize = 64 * 1_024;

/// The root of a container's files.
pub(crate) struct Root(OwnedFd);

impl Root {
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens `path` as a process in the container would find it.
    pub fn open_in(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
    }

    /// The text of a file; a missing one is empty.
    pub fn text(&self, path: &str) -> io::Result<String> {
        // Non-blocking: a FIFO in the image must not hang the shim.
        let file = match self.open_in(path, OFlags::RDONLY | OFlags::NONBLOCK) {
            Ok(fd) => File::from(fd),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(String::new());
            }
            Err(e) => return Err(e),
        };
        if !file.metadata()?.is_file() {
            return Ok(String::new());
        }
        let mut bytes = Vec::new();
        file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Makes a folder and those above it, owned by root, where they are missing.
    pub fn make_dirs(&self, path: &str) -> io::Result<()> {
        match self.open_in(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(drop),
        }
        let trimmed = path.trim_end_matches('/');
        let (above, name) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
        let above = if above.is_empty() { "/" } else { above };
        self.make_dirs(above)?;
        let above = self.open_in(above, OFlags::PATH | OFlags::DIRECTORY)?;
        match mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            // A symlink to nowhere is in the way: what is meant cannot be made out.
            Err(Errno::EXIST) => self.open_in(path, OFlags::PATH | OFlags::DIRECTORY).map(drop),
            other => Ok(other?),
        }
    }
}

/// Copies what the image has at `path` into an empty volume: content, owners, modes, times, extended attributes.
///
/// Only one container at a time copies into a volume; a volume that holds anything is left alone.
pub(crate) fn fill_volume(root: &Root, path: &str, volume: &Path) -> io::Result<()> {
    let source = match root.open_in(path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(fd) => fd,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(e) => return Err(e),
    };
    let target = openat(CWD, volume, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::flock(&target, rustix::fs::FlockOperation::LockExclusive)?;
    let is_empty = entries(&target)?.is_empty();
    if is_empty {
        copy_folder(&source, &target, 0)?;
    }
    Ok(())
}

fn entries(folder: &OwnedFd) -> io::Result<Vec<std::ffi::CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if ![c".", c".."].contains(&entry.file_name()) {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn copy_folder(from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("folders are nested more than {DEPTH_MAX} deep")));
    }
    for name in entries(from)? {
        copy_entry(from, to, &name, depth)
            .map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", name.to_string_lossy())))?;
    }
    copy_attributes(from, to)
}

fn copy_entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match kind {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let source = openat(from, name, read | OFlags::DIRECTORY, Mode::empty())?;
            let target = openat(to, name, read | OFlags::DIRECTORY, Mode::empty())?;
            copy_folder(&source, &target, depth + 1)?;
        }
        FileType::RegularFile => {
            let source = openat(from, name, read, Mode::empty())?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = File::from(openat(to, name, write, Mode::RUSR | Mode::WUSR)?);
            let mut reader = File::from(source);
            io::copy(&mut reader, &mut &target)?;
            copy_attributes(&OwnedFd::from(reader), &OwnedFd::from(target))?;
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
            mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)?;
            chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        // A socket without its listener means nothing.
        FileType::Socket | FileType::Unknown => {}
    }
    Ok(())
}

/// Owner, then mode (a change of owner clears the set-id bits), attributes and times.
fn copy_attributes(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let mut names = vec![0u8; XATTR_BYTES_MAX];
    let length = match rustix::fs::flistxattr(from.as_fd(), &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => 0,
        Err(e) => return Err(e.into()),
    };
    let mut value = vec![0u8; XATTR_BYTES_MAX];
    for name in names[..length].split_inclusive(|b| *b == 0).filter_map(|n| CStr::from_bytes_with_nul(n).ok()) {
        // `trusted.overlay.*` belongs to the mount, not to the file.
        if name.to_bytes().starts_with(b"user.") || name == c"security.capability" {
            let length = rustix::fs::fgetxattr(from.as_fd(), name, &mut value[..])?;
            rustix::fs::fsetxattr(to.as_fd(), name, &value[..length], XattrFlags::empty())?;
        }
    }
    let nanos = |value: u64| i64::try_from(value).unwrap_or(0);
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanos(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) },
    };
    Ok(futimens(to, &times)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn paths_stay_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root_path = dir.path().join("root");
        fs::create_dir(&root_path).unwrap();
        fs::write(dir.path().join("secret"), "outside").unwrap();
        symlink("../../../../secret", root_path.join("up")).unwrap();
        symlink("/etc", root_path.join("absolute")).unwrap();
        let root = Root::open(&root_path).unwrap();
        assert_eq!(root.text("/up").unwrap(), "");
        assert_eq!(root.text("/absolute/passwd").unwrap(), "");
        fs::create_dir(root_path.join("etc")).unwrap();
        root.make_dirs("/absolute/a/b/").unwrap();
        assert!(root_path.join("etc/a/b").is_dir());
        assert!(root.make_dirs("/up/x").is_err());
    }

    #[test]
    fn an_empty_volume_gets_the_image_s_content_once() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("data");
        fs::create_dir_all(image.join("sub")).unwrap();
        fs::write(image.join("sub/file"), "content").unwrap();
        fs::set_permissions(image.join("sub/file"), fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(image.join("sub/file"), Some(5), Some(6)).unwrap();
        std::os::unix::fs::chown(&image, Some(7), Some(8)).unwrap();
        symlink("nowhere", image.join("link")).unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        let root = Root::open(dir.path()).unwrap();
        fill_volume(&root, "/data", &volume).unwrap();
        let file = fs::metadata(volume.join("sub/file")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (5, 6, 0o640));
        assert_eq!(file.mtime(), fs::metadata(image.join("sub/file")).unwrap().mtime());
        assert_eq!(fs::metadata(&volume).unwrap().uid(), 7);
        assert_eq!(fs::read_link(volume.join("link")).unwrap().to_str(), Some("nowhere"));
        fs::write(image.join("new"), "").unwrap();
        fill_volume(&root, "/data", &volume).unwrap();
        assert!(!volume.join("new").exists());
        fill_volume(&root, "/missing", &volume).unwrap();
    }
}
