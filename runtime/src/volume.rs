//! Local named volumes: a folder each, `<volumes>/NAME/_data`, with what was said at their creation beside it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::state::write_whole;

const DATA: &str = "_data";
const META: &str = "volume.json";
/// A file name's limit, with room for the suffix of a folder in the making.
const NAME_LENGTH_MAX: usize = 240;

/// A local volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub created_at_ms: u64,
    /// The folder that is mounted.
    pub data: PathBuf,
}

/// Why something cannot be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error(
        "volume name \"{0}\" is not allowed: allowed are 2 to {NAME_LENGTH_MAX} letters, digits, \"_\", \".\" and \"-\", beginning with a letter or digit"
    )]
    BadName(String),
    #[error("no such volume: {0}")]
    NotFound(String),
    #[error("volume {name} is in use by {}", users.join(", "))]
    InUse { name: String, users: Vec<String> },
    #[error("{path}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

#[derive(Default, Serialize, Deserialize)]
struct Meta {
    labels: BTreeMap<String, String>,
    created_at_ms: u64,
}

/// Whether Docker would take this name.
///
/// # Errors
/// On a name that is too short, too long, or has other characters.
pub fn check_name(name: &str) -> Result<(), VolumeError> {
    let fits = (2..=NAME_LENGTH_MAX).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if fits { Ok(()) } else { Err(VolumeError::BadName(name.to_owned())) }
}

/// Where a volume's content is.
pub fn data_path(volumes: &Path, name: &str) -> PathBuf {
    volumes.join(name).join(DATA)
}

/// All volumes of this node; the file system is the only record.
#[derive(Clone, Debug)]
pub struct VolumeStore {
    dir: PathBuf,
}

impl VolumeStore {
    /// Opens, or makes, the folder of volumes.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, VolumeError> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|source| VolumeError::Io { path: dir.clone(), source })?;
        for entry in fs::read_dir(&dir).map_err(|source| VolumeError::Io { path: dir.clone(), source })?.flatten() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                // Left by a creation that a crash interrupted; nobody was told of it.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { dir })
    }

    /// The folder of all volumes.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Makes a volume, or returns the one that exists (whose labels stay as they are).
    ///
    /// # Errors
    /// On a name that is not allowed, or when the folder cannot be made.
    pub fn create(&self, name: &str, labels: &BTreeMap<String, String>) -> Result<Volume, VolumeError> {
        check_name(name)?;
        match self.inspect(name) {
            Err(VolumeError::NotFound(_)) => {}
            found => return found,
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let meta = Meta { labels: labels.clone(), created_at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX) };
        // Made aside and renamed, so that a volume is whole or absent.
        let making = self.dir.join(format!(".{name}.{}", std::process::id()));
        let io = |source| VolumeError::Io { path: making.clone(), source };
        let made = fs::create_dir_all(making.join(DATA))
            .and_then(|()| write_whole(&making.join(META), &serde_json::to_vec(&meta).map_err(io::Error::other)?))
            .and_then(|()| fs::rename(&making, self.dir.join(name)));
        if let Err(error) = made {
            let _ = fs::remove_dir_all(&making);
            // Another creation of the same name was faster.
            return if matches!(error.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) {
                self.inspect(name)
            } else {
                Err(io(error))
            };
        }
        self.inspect(name)
    }

    /// One volume.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn inspect(&self, name: &str) -> Result<Volume, VolumeError> {
        check_name(name)?;
        let data = data_path(&self.dir, name);
        if !data.is_dir() {
            return Err(VolumeError::NotFound(name.to_owned()));
        }
        let path = self.dir.join(name).join(META);
        let meta: Meta = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|e| VolumeError::Io { path, source: io::Error::new(ErrorKind::InvalidData, e) })?,
            Err(e) if e.kind() == ErrorKind::NotFound => Meta::default(),
            Err(source) => return Err(VolumeError::Io { path, source }),
        };
        Ok(Volume { name: name.to_owned(), labels: meta.labels, created_at_ms: meta.created_at_ms, data })
    }

    /// All volumes, by name.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<Volume>, VolumeError> {
        let io = |source| VolumeError::Io { path: self.dir.clone(), source };
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(io)? {
            let name = entry.map_err(io)?.file_name();
            match name.to_str().map(|name| self.inspect(name)) {
                Some(Ok(volume)) => all.push(volume),
                // Not a volume, or removed a moment ago.
                Some(Err(VolumeError::NotFound(_) | VolumeError::BadName(_))) | None => {}
                Some(Err(error)) => return Err(error),
            }
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// Removes a volume and its content. `users` are the containers that mount it, see `Runtime::volume_users`.
    ///
    /// # Errors
    /// When it does not exist, or somebody uses it.
    pub fn remove(&self, name: &str, users: Vec<String>) -> Result<(), VolumeError> {
        self.inspect(name)?;
        if !users.is_empty() {
            return Err(VolumeError::InUse { name: name.to_owned(), users });
        }
        let path = self.dir.join(name);
        let gone = self.dir.join(format!(".{name}.removed.{}", std::process::id()));
        fs::rename(&path, &gone)
            .and_then(|()| fs::remove_dir_all(&gone))
            .map_err(|source| VolumeError::Io { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_docker_s() {
        for good in ["ab", "web_data", "a.b-c", "0x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", ".ab", "a/b", "..", "-ab", "a b", "é1", &"x".repeat(300)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_volume_is_made_once_listed_and_removed_when_free() {
        let dir = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(dir.path().join("volumes")).unwrap();
        let labels = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let made = store.create("db", &labels).unwrap();
        fs::write(made.data.join("file"), "x").unwrap();
        assert_eq!(store.create("db", &BTreeMap::new()).unwrap(), made);
        store.create("cache", &BTreeMap::new()).unwrap();
        fs::create_dir(dir.path().join("volumes/.half.1")).unwrap();
        let store = VolumeStore::open(dir.path().join("volumes")).unwrap();
        assert!(!dir.path().join("volumes/.half.1").exists());
        let names: Vec<String> = store.list().unwrap().into_iter().map(|v| v.name).collect();
        assert_eq!(names, ["cache", "db"]);
        let error = store.remove("db", vec!["web.1".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "volume db is in use by web.1");
        store.remove("db", Vec::new()).unwrap();
        assert_eq!(store.remove("db", Vec::new()).unwrap_err().to_string(), "no such volume: db");
        assert!(matches!(store.inspect("../x"), Err(VolumeError::BadName(_))));
    }
}
