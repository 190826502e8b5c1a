//! Which images there are, and their names.
//!
//! One small file per image (`records/<id>.json`) is the truth; a sled tree in `index/` answers lookups. The tree may
//! be removed or damaged: it is set aside and filled again from the records.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::blobs::{Folders, replace_file};
use super::digest::{Digest, ImageId};
use super::error::ImageError;
use super::limits::INDEX_CACHE;

/// All that is remembered of an image; the rest is in its manifest and config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub id: ImageId,
    /// The manifest's blob.
    pub manifest: Digest,
    /// The index that the manifest was chosen from.
    pub index: Option<Digest>,
    /// Bottom first.
    pub layers: Vec<LayerRecord>,
    /// `docker.io/library/nginx:latest`.
    pub tags: BTreeSet<String>,
    /// `docker.io/library/nginx@sha256:…`.
    pub repo_digests: BTreeSet<String>,
    /// When the image says that it was built.
    pub created: Option<String>,
    /// Grows with each naming: of two records with one tag, the later one has it.
    pub named: u64,
}

/// One layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerRecord {
    /// The layer as transferred.
    pub blob: Digest,
    /// The layer and all below it, unpacked.
    pub chain: Digest,
    /// Bytes of its files.
    pub size: u64,
}

impl Record {
    pub(super) fn blobs(&self) -> impl Iterator<Item = Digest> {
        [self.id.0, self.manifest].into_iter().chain(self.index).chain(self.layers.iter().map(|layer| layer.blob))
    }
}

/// The records, and their names.
pub(super) struct Index {
    db: sled::Db,
    images: sled::Tree,
    names: sled::Tree,
    records: PathBuf,
    /// Held over read-change-write of records.
    change: Mutex<()>,
}

impl Index {
    /// Opens the index under the store's folder, rebuilding it when it cannot be used.
    pub(super) fn open(root: &Path, folders: &Folders) -> Result<Self, ImageError> {
        let records = root.join("records");
        fs::create_dir_all(&records).map_err(ImageError::io("make the folder", &records))?;
        let path = root.join("index");
        let index = match open_trees(&path).and_then(|trees| Self::fill(trees, records.clone(), folders)) {
            Ok(index) => index,
            Err(error @ ImageError::Io { .. }) => return Err(error),
            Err(error) => {
                let aside = root.join("index.damaged");
                tracing::warn!(error = %error, path = %aside.display(), "image index set aside and rebuilt");
                let _ = fs::remove_dir_all(&aside);
                fs::rename(&path, &aside).map_err(ImageError::io("set aside", &path))?;
                Self::fill(open_trees(&path)?, records, folders)?
            }
        };
        Ok(index)
    }

    /// Makes the trees say what the records say.
    fn fill(
        (db, images, names): (sled::Db, sled::Tree, sled::Tree),
        records: PathBuf,
        folders: &Folders,
    ) -> Result<Self, ImageError> {
        let index = Self { db, images, names, records, change: Mutex::new(()) };
        let mut found = index.read_records()?;
        found.sort_by_key(|record| record.named);
        let known: BTreeSet<_> = index.all()?.into_iter().map(|record| record.id).collect();
        for gone in known.difference(&found.iter().map(|record| record.id).collect()) {
            index.images.remove(gone.0.hex())?;
        }
        index.names.clear()?;
        let mut taken = BTreeSet::new();
        for record in found.iter_mut().rev() {
            let before = record.tags.len();
            record.tags.retain(|tag| taken.insert(tag.clone()));
            if record.tags.len() < before {
                index.write_record(record, folders)?;
            }
            index.enter(record)?;
        }
        index.db.flush()?;
        Ok(index)
    }

    fn read_records(&self) -> Result<Vec<Record>, ImageError> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.records).map_err(ImageError::io("list", &self.records))? {
            let path = entry.map_err(ImageError::io("list", &self.records))?.path();
            let bytes = fs::read(&path).map_err(ImageError::io("read", &path))?;
            match serde_json::from_slice(&bytes) {
                Ok(record) => records.push(record),
                // The image is then pulled again; its content is swept.
                Err(error) => tracing::warn!(path = %path.display(), %error, "unreadable image record ignored"),
            }
        }
        Ok(records)
    }

    fn enter(&self, record: &Record) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec(record).expect("a record of strings and numbers is always JSON");
        self.images.insert(record.id.0.hex(), bytes)?;
        for name in record.tags.iter().chain(&record.repo_digests) {
            self.names.insert(name, record.id.0.hex().as_bytes())?;
        }
        Ok(())
    }

    fn record_path(&self, id: ImageId) -> PathBuf {
        self.records.join(format!("{}.json", id.0.hex()))
    }

    fn write_record(&self, record: &Record, folders: &Folders) -> Result<(), ImageError> {
        let bytes = serde_json::to_vec_pretty(record).expect("a record of strings and numbers is always JSON");
        replace_file(&self.record_path(record.id), &bytes, &folders.unfinished("record"))
    }

    /// Held by whoever reads a record to change it.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stores a record, and takes its names away from other images. The caller holds the lock.
    pub(super) fn put(&self, mut record: Record, folders: &Folders) -> Result<(), ImageError> {
        let all = self.all()?;
        record.named = 1 + all.iter().map(|other| other.named).max().unwrap_or(0);
        // The winner is durable first: a crash in between is settled by `named`.
        self.write_record(&record, folders)?;
        for mut other in all.into_iter().filter(|other| other.id != record.id && !other.tags.is_disjoint(&record.tags))
        {
            other.tags.retain(|tag| !record.tags.contains(tag));
            self.write_record(&other, folders)?;
            self.enter(&other)?;
        }
        if let Some(before) = self.by_id(record.id)? {
            for name in before.tags.difference(&record.tags).chain(before.repo_digests.difference(&record.repo_digests))
            {
                self.names.remove(name)?;
            }
        }
        self.enter(&record)?;
        self.db.flush()?;
        Ok(())
    }

    /// Forgets an image. The caller holds the lock.
    pub(super) fn delete(&self, record: &Record) -> Result<(), ImageError> {
        let path = self.record_path(record.id);
        fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
        super::blobs::sync_folder(&self.records)?;
        for name in record.tags.iter().chain(&record.repo_digests) {
            self.names.remove(name)?;
        }
        self.images.remove(record.id.0.hex())?;
        self.db.flush()?;
        Ok(())
    }

    pub(super) fn by_id(&self, id: ImageId) -> Result<Option<Record>, ImageError> {
        Ok(self.images.get(id.0.hex())?.and_then(|bytes| read(&bytes)))
    }

    /// By `docker.io/library/nginx:latest` or `…@sha256:…`.
    pub(super) fn by_name(&self, name: &str) -> Result<Option<Record>, ImageError> {
        let Some(hex) = self.names.get(name)? else { return Ok(None) };
        let id = std::str::from_utf8(&hex).ok().and_then(Digest::from_hex);
        id.map_or(Ok(None), |id| self.by_id(ImageId(id)))
    }

    /// By the first hex digits of an id: at most two, which is enough to see that they are not unique.
    pub(super) fn by_prefix(&self, hex: &str) -> Result<Vec<Record>, ImageError> {
        let mut found = Vec::new();
        for entry in self.images.scan_prefix(hex).take(2) {
            found.extend(read(&entry?.1));
        }
        Ok(found)
    }

    pub(super) fn all(&self) -> Result<Vec<Record>, ImageError> {
        let mut all = Vec::new();
        for entry in self.images.iter() {
            all.extend(read(&entry?.1));
        }
        Ok(all)
    }
}

fn read(bytes: &[u8]) -> Option<Record> {
    serde_json::from_slice(bytes).ok()
}

/// sled has panicked on damaged files: that is an error like any other here.
fn open_trees(path: &Path) -> Result<(sled::Db, sled::Tree, sled::Tree), ImageError> {
    let open = || {
        let db = sled::Config::new().path(path).cache_capacity(INDEX_CACHE).open()?;
        let trees = (db.open_tree("images")?, db.open_tree("names")?);
        // Reads each page once: damage shows now, not in the middle of a pull.
        for tree in [&trees.0, &trees.1] {
            for entry in tree.iter() {
                entry?;
            }
        }
        Ok::<_, sled::Error>((db, trees.0, trees.1))
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => Ok(opened?),
        Err(_) => Err(sled::Error::Unsupported("opening it panicked".to_owned()).into()),
    }
}
