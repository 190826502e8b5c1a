//! Where a member keeps its files: a folder, or the simulator's memory.

mod folder;
mod memory;

use std::io;
use std::sync::Arc;

pub use folder::Folder;
pub use memory::{Fault, MemoryDisk, Operation};

/// A folder of files, named by paths with `/` between parts.
///
/// The second implementation, [`MemoryDisk`], is the simulator's: it forgets what was not flushed, and fails on demand.
pub trait Disk: Send + Sync + 'static {
    /// The name of a file as people should read it.
    fn describe(&self, name: &str) -> String;

    /// Makes a folder and those above it, readable by the owner alone. It may exist.
    ///
    /// # Errors
    /// The operating system's.
    fn create_folder(&self, name: &str) -> io::Result<()>;

    /// Makes a new file, readable by the owner alone, to read and write.
    ///
    /// # Errors
    /// The operating system's, also when the file exists.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Opens an existing file to read and write.
    ///
    /// # Errors
    /// The operating system's.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// The names in a folder, sorted; empty if there is no such folder.
    ///
    /// # Errors
    /// The operating system's.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what had that name.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// The operating system's.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Its length in bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    ///
    /// # Errors
    /// The operating system's.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `out` from `offset`.
    ///
    /// # Errors
    /// The operating system's, also when the file ends before.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data` at `offset`.
    ///
    /// # Errors
    /// The operating system's.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Sets aside space for `bytes` bytes of zeros, so that later writes within them neither grow the file nor fail for space.
    ///
    /// # Errors
    /// The operating system's.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Makes all that was written durable, with the length (`fdatasync`).
    ///
    /// # Errors
    /// The operating system's. After one, nothing is known about what was written.
    fn sync(&self) -> io::Result<()>;
}

/// Replaces a small file so that a reader finds the old or the new one, whatever happens.
pub(crate) fn replace(disk: &dyn Disk, folder: &str, name: &str, content: &[u8]) -> io::Result<()> {
    let temporary = format!("{name}.tmp");
    if disk.list(folder)?.iter().any(|entry| path(folder, entry) == temporary) {
        disk.remove(&temporary)?;
    }
    let file = disk.create(&temporary)?;
    file.write_at(0, content)?;
    file.sync()?;
    disk.rename(&temporary, name)?;
    disk.sync_folder(folder)
}

/// Reads a whole small file.
pub(crate) fn read(file: &dyn DiskFile) -> io::Result<Vec<u8>> {
    let mut out = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_at(0, &mut out)?;
    Ok(out)
}

/// `entry` inside `folder`, where "" is the top.
pub(crate) fn path(folder: &str, entry: &str) -> String {
    if folder.is_empty() { entry.to_owned() } else { format!("{folder}/{entry}") }
}

/// Adds to an I/O error what was being done and to which file, keeping its kind.
pub(crate) fn explain(disk: &dyn Disk, name: &str, error: &io::Error) -> io::Error {
    let text = match error.kind() {
        io::ErrorKind::StorageFull => "no space left on device".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("{text} ({})", disk.describe(name)))
}
