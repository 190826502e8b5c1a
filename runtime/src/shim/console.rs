//! The terminal of a container with `--tty`: the runtime sends its master end over a socket.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

/// Waits for the terminal's master end.
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// `folder` has a short path: a socket's may have 107 bytes.
    pub fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join("console");
        Ok(Self { socket: UnixListener::bind(&path)?, path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Call it once the container is made: the descriptor is waiting then.
    pub fn accept(self) -> io::Result<File> {
        let (stream, _) = self.socket.accept()?;
        let mut bytes = [0; 4_096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        rustix::net::recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
                && let Some(master) = descriptors.next()
            {
                return Ok(File::from(master));
            }
        }
        Err(io::Error::other("the runtime sent no terminal"))
    }
}
