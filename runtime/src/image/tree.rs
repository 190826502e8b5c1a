//! A folder that an untrusted archive is unpacked into.
//!
//! Every parent folder is opened by `openat2(RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)` on the root's descriptor, and
//! the last part of a path is used with calls that do not follow it: no name and no symbolic link leads out.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, RawMode, ResolveFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chmodat, chownat, linkat, lsetxattr, makedev, mkdirat, mknodat, openat, openat2, readlinkat, setxattr, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::limits::{DEPTH_MAX, LAYER_ENTRIES_MAX, SYMLINKS_MAX};
use super::tarball::{Member, TarError, printable};

/// Hides a folder's content in the layers below. Only ever set by us, never from an archive.
const OPAQUE: &str = "trusted.overlay.opaque";
/// Times that `openat2` is tried again after a concurrent rename was seen (`EAGAIN`).
const OPEN_TRIES: u32 = 8;

/// Why a tree could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The archive is at fault.
    #[error(transparent)]
    Archive(#[from] TarError),
    /// The kernel refused a step.
    #[error("cannot {action} \"{path}\"")]
    Kernel {
        /// What was tried.
        action: &'static str,
        /// On what, inside of the layer.
        path: String,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

/// What was found where something new shall be.
enum Found {
    Nothing,
    /// A folder that stays.
    Directory,
    /// Something that was removed.
    Removed {
        was_whiteout: bool,
    },
}

/// The folder being filled.
pub(super) struct Tree {
    root: Rc<OwnedFd>,
    /// The root's own path, to tell how deep a descriptor is.
    root_path: Vec<u8>,
    /// The parent folder used last: archives list folder by folder.
    cached: Option<(Vec<u8>, Rc<OwnedFd>)>,
    made: u64,
    skipped_xattrs: u64,
}

fn failed<'a>(action: &'static str, path: &'a [u8]) -> impl Fn(Errno) -> TreeError + 'a {
    move |errno| TreeError::Kernel { action, path: printable(path), source: errno.into() }
}

fn refused(path: &[u8], reason: &'static str) -> TreeError {
    TarError::refused(path, reason).into()
}

fn timestamps((seconds, nanoseconds): (i64, i64)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn descriptor_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Tree {
    /// Opens an existing, empty folder.
    pub(super) fn open(path: &Path) -> Result<Self, TreeError> {
        let shown = path.as_os_str().as_encoded_bytes();
        let root = rustix::fs::open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(failed("open the folder", shown))?;
        let root_path = rustix::fs::readlink(descriptor_path(&root), Vec::new())
            .map_err(failed("find the folder", shown))?
            .into_bytes();
        Ok(Self { root: Rc::new(root), root_path, cached: None, made: 0, skipped_xattrs: 0 })
    }

    /// Extended attributes that were left out: of a namespace that means nothing here, or refused by the file system.
    pub(super) fn skipped_xattrs(&self) -> u64 {
        self.skipped_xattrs
    }

    /// Counts one more object towards the bound of a layer.
    pub(super) fn count(&mut self, path: &[u8]) -> Result<(), TreeError> {
        self.made += 1;
        if self.made > LAYER_ENTRIES_MAX {
            Err(refused(path, "the layer has more than 1,000,000 entries"))
        } else {
            Ok(())
        }
    }

    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, Errno> {
        let mut tries = 0;
        loop {
            let opened = openat2(
                &*self.root,
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
                ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            );
            tries += 1;
            match opened {
                Err(Errno::AGAIN) if tries < OPEN_TRIES => {}
                other => return other,
            }
        }
    }

    /// The folder at a path, made with its ancestors where it is missing.
    pub(super) fn directory(&mut self, parts: &[&[u8]]) -> Result<Rc<OwnedFd>, TreeError> {
        if parts.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        let path = parts.join(&b'/');
        if let Some((cached, fd)) = &self.cached
            && *cached == path
        {
            return Ok(Rc::clone(fd));
        }
        let opened = match self.open_directory(&path) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_directories(parts, SYMLINKS_MAX)?;
                self.open_directory(&path)
            }
            other => other,
        };
        let fd = Rc::new(opened.map_err(failed("open the folder", &path))?);
        self.check_depth(&fd, &path)?;
        self.cached = Some((path, Rc::clone(&fd)));
        Ok(fd)
    }

    /// An existing folder, or nothing.
    fn existing_directory(&self, parts: &[&[u8]]) -> Result<Option<Rc<OwnedFd>>, TreeError> {
        if parts.is_empty() {
            return Ok(Some(Rc::clone(&self.root)));
        }
        let path = parts.join(&b'/');
        match self.open_directory(&path) {
            Ok(fd) => Ok(Some(Rc::new(fd))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(failed("open the folder", &path)(errno)),
        }
    }

    /// Symbolic links can make a short path deep: what counts is where it really is.
    fn check_depth(&self, fd: &OwnedFd, path: &[u8]) -> Result<(), TreeError> {
        let too_deep = || refused(path, "it is more than 256 folders deep");
        let real = rustix::fs::readlink(descriptor_path(fd), Vec::new()).map_err(|_| too_deep())?;
        let inside = real
            .as_bytes()
            .strip_prefix(self.root_path.as_slice())
            .ok_or_else(|| refused(path, "its folder is outside of the layer"))?;
        if inside.iter().filter(|byte| **byte == b'/').count() > DEPTH_MAX { Err(too_deep()) } else { Ok(()) }
    }

    /// Makes each missing folder of a path, through symbolic links whose target is in a layer below, too.
    fn make_directories(&mut self, parts: &[&[u8]], links_left: u32) -> Result<(), TreeError> {
        if parts.len() > DEPTH_MAX {
            return Err(refused(&parts.join(&b'/'), "it is more than 256 folders deep"));
        }
        for end in 1..=parts.len() {
            let path = parts[..end].join(&b'/');
            match self.open_directory(&path) {
                Ok(_) => continue,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(errno) => return Err(failed("open the folder", &path)(errno)),
            }
            let name = parts[end - 1];
            let parent = self
                .existing_directory(&parts[..end - 1])?
                .ok_or_else(|| refused(&path, "its parent is not a folder"))?;
            self.check_depth(&parent, &path)?;
            match statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => self.make_directory(&parent, name, &path, false)?,
                Err(errno) => return Err(failed("look at", &path)(errno)),
                Ok(stat) if is_whiteout(&stat) => {
                    unlinkat(&*parent, name, AtFlags::empty()).map_err(failed("replace", &path))?;
                    self.make_directory(&parent, name, &path, true)?;
                }
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    if links_left == 0 {
                        return Err(refused(&path, "too many symbolic links"));
                    }
                    let target = readlinkat(&*parent, name, Vec::new()).map_err(failed("read the link", &path))?;
                    let resolved = resolve(&parts[..end - 1], target.as_bytes());
                    self.make_directories(&resolved, links_left - 1)?;
                }
                Ok(_) => return Err(refused(&path, "its parent is not a folder")),
            }
        }
        Ok(())
    }

    fn make_directory(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], opaque: bool) -> Result<(), TreeError> {
        self.count(path)?;
        mkdirat(parent, name, Mode::from_raw_mode(0o755)).map_err(failed("make the folder", path))?;
        // Not subject to the daemon's umask.
        chmodat(parent, name, Mode::from_raw_mode(0o755), AtFlags::empty()).map_err(failed("set the mode of", path))?;
        if opaque { set_opaque(parent, name, path) } else { Ok(()) }
    }

    /// Removes what is in the way of a new object. A folder stays if a folder is wanted.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8], wants_directory: bool) -> Result<Found, TreeError> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            other => other.map_err(failed("look at", path))?,
        };
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if is_directory && wants_directory {
            return Ok(Found::Directory);
        }
        self.cached = None;
        if is_directory {
            remove_tree(parent, name).map_err(failed("replace the folder", path))?;
        } else {
            unlinkat(parent, name, AtFlags::empty()).map_err(failed("replace", path))?;
        }
        Ok(Found::Removed { was_whiteout: is_whiteout(&stat) })
    }

    /// Makes a file with its content.
    pub(super) fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        member: &Member,
        copy: impl FnOnce(&mut std::fs::File) -> io::Result<u64>,
    ) -> Result<u64, TreeError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(parent, name, flags, Mode::from_raw_mode(0o600));
        let opened = match create() {
            Err(Errno::EXIST) => {
                self.clear(parent, name, &member.path, false)?;
                create()
            }
            other => other,
        };
        let mut file = std::fs::File::from(opened.map_err(failed("make the file", &member.path))?);
        let copied = copy(&mut file).map_err(|source| TreeError::Kernel {
            action: "write",
            path: printable(&member.path),
            source,
        })?;
        if copied != member.size {
            return Err(refused(&member.path, "the archive ends in the middle of it"));
        }
        drop(file);
        self.dress(parent, name, member)?;
        Ok(copied)
    }

    /// Makes a folder, or takes over the one that is there.
    pub(super) fn folder(&mut self, parent: &OwnedFd, name: &[u8], member: &Member) -> Result<(), TreeError> {
        let opaque = match self.clear(parent, name, &member.path, true)? {
            Found::Directory => None,
            Found::Nothing => Some(false),
            Found::Removed { was_whiteout } => Some(was_whiteout),
        };
        if let Some(opaque) = opaque {
            mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(failed("make the folder", &member.path))?;
            let fd = openat(
                parent,
                name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            );
            self.check_depth(&fd.map_err(failed("open the folder", &member.path))?, &member.path)?;
            if opaque {
                set_opaque(parent, name, &member.path)?;
            }
        }
        self.dress(parent, name, member)
    }

    /// Owner, mode and attributes of the layer's own root folder.
    pub(super) fn root_folder(&mut self, member: &Member) -> Result<(), TreeError> {
        let root = Rc::clone(&self.root);
        self.dress(&root, b".", member)
    }

    /// Makes a symbolic link. Its target may be anything: it is never followed here outside of the root.
    pub(super) fn symlink(&mut self, parent: &OwnedFd, name: &[u8], member: &Member) -> Result<(), TreeError> {
        self.clear(parent, name, &member.path, false)?;
        symlinkat(member.link.as_slice(), parent, name).map_err(failed("make the link", &member.path))?;
        self.dress(parent, name, member)
    }

    /// Makes another name of a file of this layer.
    pub(super) fn hard_link(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        member: &Member,
        target: &[&[u8]],
    ) -> Result<(), TreeError> {
        let missing = || refused(&member.path, "it is a hard link to nothing in this layer");
        let (target_name, target_parent) = target.split_last().ok_or_else(missing)?;
        let target_parent = self.existing_directory(target_parent)?.ok_or_else(missing)?;
        let found = match statat(&*target_parent, *target_name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Err(missing()),
            other => other.map_err(failed("look at the target of", &member.path))?,
        };
        if FileType::from_raw_mode(found.st_mode) == FileType::Directory || is_whiteout(&found) {
            return Err(refused(&member.path, "it is a hard link to something that is not a file"));
        }
        let here = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        if here.is_ok_and(|here| (here.st_dev, here.st_ino) == (found.st_dev, found.st_ino)) {
            return Ok(());
        }
        self.clear(parent, name, &member.path, false)?;
        linkat(&*target_parent, *target_name, parent, name, AtFlags::empty()).map_err(failed("link", &member.path))
    }

    /// Makes a device or a named pipe.
    pub(super) fn node(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        member: &Member,
        kind: FileType,
    ) -> Result<(), TreeError> {
        self.clear(parent, name, &member.path, false)?;
        let device = makedev(member.device.0, member.device.1);
        mknodat(parent, name, kind, Mode::from_raw_mode(0o600), device)
            .map_err(failed("make the device", &member.path))?;
        self.dress(parent, name, member)
    }

    /// Hides a name of the layers below. What this layer itself holds there stays, alone.
    pub(super) fn whiteout(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), TreeError> {
        match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => set_opaque(parent, name, path),
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(failed("make the whiteout", path)),
            Err(errno) => Err(failed("look at", path)(errno)),
        }
    }

    /// Hides the content that a folder has in the layers below.
    pub(super) fn opaque(&mut self, folder: &OwnedFd, path: &[u8]) -> Result<(), TreeError> {
        setxattr(descriptor_path(folder), OPAQUE, b"y", XattrFlags::empty()).map_err(failed("make opaque", path))
    }

    /// Sets a folder's time, once nothing more is made in it.
    pub(super) fn set_time(&self, parts: &[&[u8]], modified: (i64, i64)) -> Result<(), TreeError> {
        let path = parts.join(&b'/');
        let times = timestamps(modified);
        let Some((name, parent)) = parts.split_last() else {
            return utimensat(&*self.root, c".", &times, AtFlags::empty()).map_err(failed("set the time of", b"/"));
        };
        let Some(parent) = self.existing_directory(parent)? else { return Ok(()) };
        match utimensat(&*parent, *name, &times, AtFlags::SYMLINK_NOFOLLOW) {
            // A later entry replaced it.
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("set the time of", &path)(errno)),
        }
    }

    /// Owner, then mode (chown drops suid), then attributes (chown drops capabilities), then time.
    fn dress(&mut self, parent: &OwnedFd, name: &[u8], member: &Member) -> Result<(), TreeError> {
        use super::tarball::Kind;
        let path = &member.path;
        let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the owner of", path))?;
        if member.kind != Kind::Symlink {
            // Ours alone and just made: there is no link to follow.
            chmodat(parent, name, Mode::from_raw_mode(member.mode as RawMode), AtFlags::empty())
                .map_err(failed("set the mode of", path))?;
        }
        for (key, value) in &member.xattrs {
            self.set_xattr(parent, name, path, key, value)?;
        }
        if member.kind != Kind::Directory {
            utimensat(parent, name, &timestamps(member.modified), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(failed("set the time of", path))?;
        }
        Ok(())
    }

    /// Only what a container can have set: file capabilities and `user.*`. overlayfs' own are refused, for they would
    /// redirect lookups; labels of another host's security modules mean nothing here.
    fn set_xattr(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        key: &[u8],
        value: &[u8],
    ) -> Result<(), TreeError> {
        if key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.") {
            return Err(refused(path, "it sets an attribute of overlayfs"));
        }
        if key != b"security.capability" && !key.starts_with(b"user.") {
            self.skipped_xattrs += 1;
            return Ok(());
        }
        let mut file = descriptor_path(parent).into_bytes();
        file.push(b'/');
        file.extend_from_slice(name);
        match lsetxattr(file, key, value, XattrFlags::empty()) {
            Err(Errno::NOTSUP | Errno::PERM) if key.starts_with(b"user.") => {
                self.skipped_xattrs += 1;
                Ok(())
            }
            other => other.map_err(failed("set an attribute of", path)),
        }
    }
}

fn set_opaque(parent: &OwnedFd, name: &[u8], path: &[u8]) -> Result<(), TreeError> {
    let mut folder = descriptor_path(parent).into_bytes();
    folder.push(b'/');
    folder.extend_from_slice(name);
    lsetxattr(folder, OPAQUE, b"y", XattrFlags::empty()).map_err(failed("make opaque", path))
}

/// Where a link in `folder` leads, by its text alone, never above the root.
fn resolve<'a>(folder: &[&'a [u8]], target: &'a [u8]) -> Vec<&'a [u8]> {
    let mut resolved = if target.starts_with(b"/") { Vec::new() } else { folder.to_vec() };
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(resolved.pop()),
            _ => resolved.push(part),
        }
    }
    resolved
}

/// Removes a folder of this layer with all it holds. Its depth is bounded, so recursion and descriptors are.
fn remove_tree(parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        other => return other,
    }
    let folder =
        openat(parent, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let names: Vec<_> = Dir::read_from(&folder)?
        .map(|entry| entry.map(|entry| entry.file_name().to_owned()))
        .collect::<Result<_, _>>()?;
    for entry in names {
        if entry.as_bytes() == b"." || entry.as_bytes() == b".." {
            continue;
        }
        match unlinkat(&folder, &entry, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_tree(&folder, entry.as_bytes())?,
            other => other?,
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}
