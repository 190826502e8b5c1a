//! One layer's tar, unpacked into a folder that overlayfs can stack.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use rustix::fs::FileType;

use super::compression::{Bounded, TooLong, decoder};
use super::digest::{Digest, Hashing};
use super::limits::{DIRECTORY_NAMES_MAX, LAYER_RATIO_FLOOR, LAYER_RATIO_MAX, LAYER_UNPACKED_MAX};
use super::tarball::{Kind, Member, TarError, each_member, parts};
use super::tree::{Tree, TreeError};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Leftovers of aufs in old images: `.wh..wh.plnk`, `.wh..wh.aufs`. They describe nothing.
const AUFS: &[u8] = b".wh..wh.";
const BUFFER: usize = 256 << 10;

/// Why a layer could not be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The blob is not there or cannot be read.
    #[error("cannot read the layer's blob")]
    Blob(#[source] io::Error),
    /// An entry could not be made, or the archive is bad.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The content is not what the image's config names.
    #[error("the layer unpacks to {actual}, the image's config names {expected}")]
    DiffId {
        /// The config's.
        expected: Digest,
        /// The content's.
        actual: Digest,
    },
}

impl From<TarError> for LayerError {
    fn from(error: TarError) -> Self {
        Self::Tree(TreeError::Archive(error))
    }
}

/// How many bytes a layer of so many packed bytes may unpack to.
fn bound(packed: u64) -> TooLong {
    let by_ratio = packed.saturating_mul(LAYER_RATIO_MAX).max(LAYER_RATIO_FLOOR);
    TooLong { max: by_ratio.min(LAYER_UNPACKED_MAX), packed }
}

/// Unpacks a blob into an existing empty folder, and checks it against the config's digest of the tar.
/// Returns the bytes of the files made.
pub(super) fn unpack(blob: &Path, diff_id: Digest, into: &Path) -> Result<u64, LayerError> {
    let file = File::open(blob).map_err(LayerError::Blob)?;
    let packed = file.metadata().map_err(LayerError::Blob)?.len();
    unpack_stream(file, bound(packed), diff_id, into)
}

fn unpack_stream(packed: impl Read, bound: TooLong, diff_id: Digest, into: &Path) -> Result<u64, LayerError> {
    let mut tar = Hashing::new(Bounded::new(decoder(packed).map_err(LayerError::Blob)?, bound));
    let mut layer = Layer { tree: Tree::open(into)?, times: Vec::new(), names: 0, bytes: 0, buffer: vec![0; BUFFER] };
    each_member(&mut tar, |member, content| layer.add(member, content))?;
    // The digest covers what follows the end mark, too.
    while tar.read(&mut layer.buffer).map_err(TarError::Read)? > 0 {}
    layer.finish()?;
    let actual = tar.finish();
    if actual == diff_id { Ok(layer.bytes) } else { Err(LayerError::DiffId { expected: diff_id, actual }) }
}

struct Layer {
    tree: Tree,
    /// Folders and their times: set at the end, for each file made in a folder changes it.
    times: Vec<(Vec<u8>, (i64, i64))>,
    names: usize,
    bytes: u64,
    buffer: Vec<u8>,
}

impl Layer {
    fn add(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), LayerError> {
        self.tree.count(&member.path)?;
        let path = parts(&member.path)?;
        let Some((name, parent)) = path.split_last() else {
            if member.kind != Kind::Directory {
                return Err(TarError::refused(&member.path, "the root of a layer must be a folder").into());
            }
            self.remember_time(member)?;
            return Ok(self.tree.root_folder(member)?);
        };
        if path[0].starts_with(AUFS) && path != [OPAQUE] {
            return Ok(());
        }
        let parent = self.tree.directory(parent)?;
        if *name == OPAQUE {
            return Ok(self.tree.opaque(&parent, &member.path)?);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(TarError::refused(&member.path, "it is a whiteout of nothing").into());
            }
            return Ok(self.tree.whiteout(&parent, hidden, &member.path)?);
        }
        match member.kind {
            Kind::File => {
                let buffer = &mut self.buffer;
                self.bytes += self.tree.file(&parent, name, member, |file| copy(content, file, buffer))?;
            }
            Kind::Directory => {
                self.tree.folder(&parent, name, member)?;
                self.remember_time(member)?;
            }
            Kind::Symlink => self.tree.symlink(&parent, name, member)?,
            Kind::HardLink => self.tree.hard_link(&parent, name, member, &parts(&member.link)?)?,
            Kind::CharDevice => self.tree.node(&parent, name, member, FileType::CharacterDevice)?,
            Kind::BlockDevice => self.tree.node(&parent, name, member, FileType::BlockDevice)?,
            Kind::Fifo => self.tree.node(&parent, name, member, FileType::Fifo)?,
        }
        Ok(())
    }

    fn remember_time(&mut self, member: &Member) -> Result<(), LayerError> {
        self.names += member.path.len();
        if self.names > DIRECTORY_NAMES_MAX {
            return Err(TarError::refused(&member.path, "the names of the layer's folders exceed 64 MiB").into());
        }
        self.times.push((member.path.clone(), member.modified));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), LayerError> {
        for (path, modified) in self.times.drain(..).rev() {
            self.tree.set_time(&parts(&path)?, modified)?;
        }
        let skipped = self.tree.skipped_xattrs();
        if skipped > 0 {
            tracing::warn!(count = skipped, "extended attributes of a layer were left out");
        }
        Ok(())
    }
}

fn copy(content: &mut dyn Read, file: &mut File, buffer: &mut [u8]) -> io::Result<u64> {
    let mut copied = 0;
    loop {
        let read = content.read(buffer)?;
        if read == 0 {
            return Ok(copied);
        }
        file.write_all(&buffer[..read])?;
        copied += read as u64;
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
