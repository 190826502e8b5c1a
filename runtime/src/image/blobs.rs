//! The store's folders: content by digest, unpacked layers by chain, and what is unfinished.
//!
//! A name appears only by rename, after its content was checked and synced: what is found can be trusted.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::digest::Digest;
use super::error::ImageError;
use super::limits::JSON_MAX;
use super::unpack::{self, LayerError};

/// `blobs/sha256/<hex>`, `layers/<hex>/`, `tmp/`.
#[derive(Debug)]
pub(super) struct Folders {
    root: PathBuf,
    next: AtomicU64,
}

/// Something unfinished in `tmp/`: removed unless it was renamed away.
pub(super) struct Unfinished(PathBuf);

impl Unfinished {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Whatever stays is removed when the store is next opened.
        let _ = if self.0.is_dir() { fs::remove_dir_all(&self.0) } else { fs::remove_file(&self.0) };
    }
}

impl Folders {
    /// Makes the folders, and removes what an earlier process left unfinished. Partial downloads stay.
    pub(super) fn open(root: &Path) -> Result<Self, ImageError> {
        let folders = Self { root: root.to_owned(), next: AtomicU64::new(0) };
        // Layers hold set-user-id files and devices of strangers: nobody else may reach them here.
        fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(ImageError::io("set the mode of", root))?;
        for folder in [folders.blob_folder(), folders.layer_folder(), folders.unfinished_folder()] {
            fs::create_dir_all(&folder).map_err(ImageError::io("make the folder", &folder))?;
        }
        folders.empty_unfinished(|name| name.ends_with(".partial"))?;
        Ok(folders)
    }

    fn blob_folder(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    fn layer_folder(&self) -> PathBuf {
        self.root.join("layers")
    }

    fn unfinished_folder(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where a blob is, once it is there.
    pub(super) fn blob(&self, digest: Digest) -> PathBuf {
        self.blob_folder().join(digest.hex())
    }

    /// Where a chain's top layer is, once it is there.
    pub(super) fn layer(&self, chain: Digest) -> PathBuf {
        self.layer_folder().join(chain.hex())
    }

    /// Where a blob is while it is downloaded: the same for each try, so that it is resumed.
    pub(super) fn partial(&self, digest: Digest) -> PathBuf {
        self.unfinished_folder().join(format!("{}.partial", digest.hex()))
    }

    pub(super) fn has_blob(&self, digest: Digest) -> bool {
        self.blob(digest).is_file()
    }

    pub(super) fn has_layer(&self, chain: Digest) -> bool {
        self.layer(chain).is_dir()
    }

    /// A name in `tmp/` that nobody else uses.
    pub(super) fn unfinished(&self, kind: &str) -> Unfinished {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Unfinished(self.unfinished_folder().join(format!("{kind}-{number}")))
    }

    pub(super) fn unfinished_dir(&self, kind: &str) -> Result<Unfinished, ImageError> {
        let unfinished = self.unfinished(kind);
        fs::create_dir(unfinished.path()).map_err(ImageError::io("make the folder", unfinished.path()))?;
        Ok(unfinished)
    }

    /// Takes a complete and checked file over as a blob.
    pub(super) fn adopt(&self, file: &Path, digest: Digest) -> Result<(), ImageError> {
        let blob = self.blob(digest);
        File::open(file).and_then(|file| file.sync_all()).map_err(ImageError::io("sync", file))?;
        fs::rename(file, &blob).map_err(ImageError::io("store the blob", &blob))?;
        sync_folder(&self.blob_folder())
    }

    /// Stores bytes as a blob.
    pub(super) fn put(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let digest = Digest::of(bytes);
        if !self.has_blob(digest) {
            let file = self.unfinished("blob");
            fs::write(file.path(), bytes).map_err(ImageError::io("write", file.path()))?;
            self.adopt(file.path(), digest)?;
        }
        Ok(digest)
    }

    /// Reads a small blob, and checks it again: a manifest decides what runs.
    pub(super) fn read(&self, digest: Digest) -> Result<Vec<u8>, ImageError> {
        let path = self.blob(digest);
        let mut bytes = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(JSON_MAX + 1).read_to_end(&mut bytes));
        read.map_err(ImageError::io("read the blob", &path))?;
        if Digest::of(&bytes) != digest {
            let damaged = io::Error::new(io::ErrorKind::InvalidData, "its content has another digest");
            return Err(ImageError::io("read the blob", &path)(damaged));
        }
        Ok(bytes)
    }

    /// Unpacks a blob as the top layer of a chain. Returns the bytes of its files.
    pub(super) fn unpack(
        &self,
        reference: &str,
        digest: Digest,
        diff_id: Digest,
        chain: Digest,
    ) -> Result<u64, ImageError> {
        let into = self.unfinished_dir("layer")?;
        // A layer that does not speak of its root has the usual one, whatever the daemon's umask is.
        fs::set_permissions(into.path(), Permissions::from_mode(0o755))
            .map_err(ImageError::io("set the mode of", into.path()))?;
        let bytes = unpack::unpack(&self.blob(digest), diff_id, into.path()).map_err(|source: LayerError| {
            ImageError::Layer { reference: reference.to_owned(), layer: digest, source: Box::new(source) }
        })?;
        // One sync for all its files: a layer is either whole after a power cut, or it is not there.
        let folder = File::open(into.path()).map_err(ImageError::io("open the folder", into.path()))?;
        rustix::fs::syncfs(&folder).map_err(|errno| ImageError::io("sync", into.path())(errno.into()))?;
        let layer = self.layer(chain);
        fs::rename(into.path(), &layer).map_err(ImageError::io("store the layer", &layer))?;
        sync_folder(&self.layer_folder())?;
        Ok(bytes)
    }

    /// The bytes of a layer's files, by looking at each.
    pub(super) fn measure(&self, chain: Digest) -> u64 {
        let mut bytes = 0;
        let mut folders = vec![self.layer(chain)];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) if metadata.is_file() => bytes += metadata.len(),
                    _ => {}
                }
            }
        }
        bytes
    }

    /// Removes the blobs and layers that are not in use, and returns the layers removed. The caller sees to it that
    /// no pull or load is under way.
    pub(super) fn sweep(
        &self,
        is_used_blob: impl Fn(Digest) -> bool,
        is_used_layer: impl Fn(Digest) -> bool,
    ) -> Result<Vec<Digest>, ImageError> {
        for (digest, path) in list(&self.blob_folder())? {
            if !digest.is_some_and(&is_used_blob) {
                fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
            }
        }
        let mut removed = Vec::new();
        for (digest, path) in list(&self.layer_folder())? {
            if digest.is_some_and(&is_used_layer) {
                continue;
            }
            // Out of sight first: a layer is never seen half removed.
            let rest = self.unfinished("removed");
            fs::rename(&path, rest.path()).map_err(ImageError::io("remove", &path))?;
            removed.extend(digest);
        }
        self.empty_unfinished(|_| false)?;
        Ok(removed)
    }

    fn empty_unfinished(&self, keep: impl Fn(&str) -> bool) -> Result<(), ImageError> {
        let folder = self.unfinished_folder();
        for entry in fs::read_dir(&folder).map_err(ImageError::io("list", &folder))? {
            let entry = entry.map_err(ImageError::io("list", &folder))?;
            if entry.file_name().to_str().is_some_and(&keep) {
                continue;
            }
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(ImageError::io("remove", &path))?;
        }
        Ok(())
    }
}

fn list(folder: &Path) -> Result<Vec<(Option<Digest>, PathBuf)>, ImageError> {
    let entries = fs::read_dir(folder).map_err(ImageError::io("list", folder))?;
    entries
        .map(|entry| {
            let entry = entry.map_err(ImageError::io("list", folder))?;
            Ok((entry.file_name().to_str().and_then(Digest::from_hex), entry.path()))
        })
        .collect()
}

/// Makes renames in a folder last.
pub(super) fn sync_folder(folder: &Path) -> Result<(), ImageError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ImageError::io("sync the folder", folder))
}

/// Writes a file so that it is either the old or the new one, whatever happens.
pub(super) fn replace_file(path: &Path, bytes: &[u8], unfinished: &Unfinished) -> Result<(), ImageError> {
    let written = File::create(unfinished.path()).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(ImageError::io("write", unfinished.path()))?;
    fs::rename(unfinished.path(), path).map_err(ImageError::io("store", path))?;
    path.parent().map_or(Ok(()), sync_folder)
}
