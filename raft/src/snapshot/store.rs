//! Which snapshot counts.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::file::{SnapshotFile, SnapshotWriter};
use super::{SNAPSHOT_FOLDER, SnapshotError};
use crate::crypt::Keys;
use crate::disk::{Disk, explain};
use crate::machine::SnapshotSource;
use crate::member::LogPosition;
use crate::types::{SnapshotMeta, position};

/// The snapshots of one member. The newest is kept; the one before goes once it is replaced.
pub(crate) struct SnapshotStore {
    disk: Arc<dyn Disk>,
    keys: Arc<Keys>,
    current: Mutex<Option<Arc<SnapshotFile>>>,
    temporaries: AtomicU64,
}

impl SnapshotStore {
    /// Opens the folder: unfinished files go, the newest snapshot is checked.
    pub fn open(disk: &Arc<dyn Disk>, keys: Arc<Keys>) -> Result<Self, SnapshotError> {
        let fail = |name: &str, error: &io::Error| SnapshotError::Io(explain(disk.as_ref(), name, error));
        disk.create_folder(SNAPSHOT_FOLDER).map_err(|error| fail(SNAPSHOT_FOLDER, &error))?;
        let mut names = disk.list(SNAPSHOT_FOLDER).map_err(|error| fail(SNAPSHOT_FOLDER, &error))?;
        names.retain(|name| name.ends_with(".tmp") || name.ends_with(".snap"));
        // Names sort by index.
        let newest = names.iter().rev().find(|name| name.ends_with(".snap")).cloned();
        for name in names.iter().filter(|name| Some(*name) != newest.as_ref()) {
            let name = format!("{SNAPSHOT_FOLDER}/{name}");
            disk.remove(&name).map_err(|error| fail(&name, &error))?;
        }
        let current = match newest {
            None => None,
            Some(name) => {
                let name = format!("{SNAPSHOT_FOLDER}/{name}");
                let path = disk.describe(&name);
                let file = SnapshotFile::open(disk, &keys, name).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                        SnapshotError::Damaged { path, reason: error.to_string() }
                    }
                    _ => SnapshotError::Io(error),
                })?;
                Some(Arc::new(file))
            }
        };
        let temporaries = AtomicU64::new(0);
        Ok(Self { disk: Arc::clone(disk), keys, current: Mutex::new(current), temporaries })
    }

    /// Refuses a folder whose snapshot lacks entries that were purged from the log.
    pub fn check_reaches(&self, purged: Option<LogPosition>) -> Result<(), SnapshotError> {
        let reached = self.current().and_then(|file| file.meta.last_log_id.as_ref().map(position));
        match purged.filter(|purged| reached < Some(*purged)) {
            Some(purged) => Err(SnapshotError::Missing { path: self.disk.describe(SNAPSHOT_FOLDER), purged }),
            None => Ok(()),
        }
    }

    /// The snapshot that counts.
    pub fn current(&self) -> Option<Arc<SnapshotFile>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a temporary file.
    pub fn writer(&self, meta: SnapshotMeta) -> io::Result<SnapshotWriter> {
        let number = self.temporaries.fetch_add(1, Ordering::Relaxed);
        SnapshotWriter::create(&self.disk, &self.keys, format!("{SNAPSHOT_FOLDER}/{number}.tmp"), meta)
    }

    /// Writes a snapshot and lets it count, unless a newer one does by then.
    pub fn build(&self, meta: SnapshotMeta, source: Box<dyn SnapshotSource>) -> io::Result<Arc<SnapshotFile>> {
        let mut writer = self.writer(meta)?;
        source.write(&mut writer)?;
        writer.flush()?;
        self.adopt(writer.finish()?)
    }

    /// Lets a whole snapshot count; a newer one stays.
    pub fn adopt(&self, file: SnapshotFile) -> io::Result<Arc<SnapshotFile>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|current| current.meta.last_log_id > file.meta.last_log_id) {
            return Ok(Arc::new(file));
        }
        let (index, term) = file.meta.last_log_id.map_or((0, 0), |id| (id.index, id.leader_id.term));
        let name = format!("{SNAPSHOT_FOLDER}/{index:020}-{term:020}.snap");
        let kept: Arc<SnapshotFile> = Arc::from(Box::new(file).keep(name)?);
        let synced = self.disk.sync_folder(SNAPSHOT_FOLDER);
        synced.map_err(|error| explain(self.disk.as_ref(), SNAPSHOT_FOLDER, &error))?;
        if let Some(old) = current.replace(Arc::clone(&kept)).filter(|old| old.name() != kept.name()) {
            // A transfer that still reads it holds it open; if it stays, the next start removes it.
            if let Err(error) = self.disk.remove(old.name()) {
                tracing::warn!(error = %error, file = old.name(), "an old snapshot could not be removed");
            }
        }
        Ok(kept)
    }
}
