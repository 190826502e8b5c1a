//! Where netd keeps its files, below the daemon's run folder.

use std::path::{Path, PathBuf};

/// `<run-dir>/netd/`, of mode 0700.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    pub fn new(run_dir: &Path) -> Self {
        Self { folder: run_dir.join("netd") }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the daemon asks.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("netd.sock")
    }

    /// Locked by the netd in charge.
    pub fn lock(&self) -> PathBuf {
        self.folder.join("lock")
    }

    /// The table in force, with the ports in use.
    pub fn table(&self) -> PathBuf {
        self.folder.join("table.json")
    }

    pub fn log(&self) -> PathBuf {
        self.folder.join("netd.log")
    }
}
