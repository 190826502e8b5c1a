//! The node's own files: who it is, and its certificate. Replaced by write, fsync, rename, fsync.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rswarm_api::tls::{Credentials, CredentialsError};
use serde::{Deserialize, Serialize};

/// Why the node's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error("{} cannot be used", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("the data folder {} is in use by another daemon (process {holder}); give this one a folder of its own with --data-dir", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("the node's certificate cannot be used")]
    Credentials(#[from] CredentialsError),
}

/// Who this node is, as `init` or `join` left it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFile {
    /// Layout of this file.
    pub version: u32,
    pub cluster: String,
    pub node: String,
    /// Raft member id; 0 = a worker.
    pub member: u64,
    pub listen: SocketAddr,
    pub advertise: SocketAddr,
    pub data_path: IpAddr,
    /// Managers last known.
    pub managers: Vec<SocketAddr>,
    pub snapshot_interval: u64,
}

/// The data folder, locked.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// The three PEM texts of a node.
#[derive(Clone)]
pub struct CertificateFiles {
    pub root: String,
    pub chain: String,
    pub key: String,
}

impl CertificateFiles {
    /// # Errors
    /// When they do not fit together.
    pub fn credentials(&self) -> Result<Credentials, CredentialsError> {
        Credentials::from_pem(&self.root, &self.chain, &self.key)
    }
}

impl DataDir {
    /// Makes the folder if missing, and locks it.
    ///
    /// # Errors
    /// When another daemon holds it, or it cannot be made.
    pub fn open(path: &Path) -> Result<Self, FilesError> {
        make_dir(path, 0o700)?;
        let lock_path = path.join("lock");
        let error = |source| FilesError::Io { path: lock_path.clone(), source };
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(error)?;
        if rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = std::fs::read_to_string(&lock_path).unwrap_or_default();
            return Err(FilesError::Locked { path: path.to_owned(), holder: holder.trim().to_owned() });
        }
        lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(error)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Who this node is; `None` before `init` or `join`.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn node(&self) -> Result<Option<NodeFile>, FilesError> {
        let path = self.join("node.json");
        let Some(text) = read(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| FilesError::Damaged { path, reason: e.to_string() })
    }

    /// # Errors
    /// The operating system's.
    pub fn save_node(&self, node: &NodeFile) -> Result<(), FilesError> {
        let text = serde_json::to_string_pretty(node).unwrap_or_default();
        replace(&self.join("node.json"), text.as_bytes())
    }

    /// The certificate files; `None` before `init` or `join`.
    ///
    /// # Errors
    /// The operating system's.
    pub fn certificates(&self) -> Result<Option<CertificateFiles>, FilesError> {
        let dir = self.join("certificates");
        let (root, chain, key) =
            (read(&dir.join("root.pem"))?, read(&dir.join("node.pem"))?, read(&dir.join("node.key"))?);
        Ok(match (root, chain, key) {
            (Some(root), Some(chain), Some(key)) => Some(CertificateFiles { root, chain, key }),
            _ => None,
        })
    }

    /// The key goes first: a crash in between leaves a certificate that no longer fits, which
    /// `certificates` then reports, so the old key is kept beside it until the certificate is there.
    ///
    /// # Errors
    /// The operating system's.
    pub fn save_certificates(&self, files: &CertificateFiles) -> Result<(), FilesError> {
        // One folder is made whole and swapped in: root, chain and key change together.
        let next = self.join("certificates.next");
        remove_dir(&next)?;
        make_dir(&next, 0o700)?;
        replace(&next.join("root.pem"), files.root.as_bytes())?;
        replace(&next.join("node.pem"), files.chain.as_bytes())?;
        replace(&next.join("node.key"), files.key.as_bytes())?;
        let current = self.join("certificates");
        let error = |source| FilesError::Io { path: current.clone(), source };
        if current.exists() {
            rustix::fs::renameat_with(
                rustix::fs::CWD,
                &next,
                rustix::fs::CWD,
                &current,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .map_err(|e| error(e.into()))?;
            remove_dir(&next)?;
        } else {
            std::fs::rename(&next, &current).map_err(error)?;
        }
        sync_dir(&self.path)
    }

    /// Whether a Raft log of this node is here.
    pub fn has_raft(&self) -> bool {
        self.join("raft/keys.json").exists()
    }

    /// Removes the Raft folder (demotion, leave).
    ///
    /// # Errors
    /// The operating system's.
    pub fn wipe_raft(&self) -> Result<(), FilesError> {
        remove_dir(&self.join("raft"))?;
        sync_dir(&self.path)
    }

    /// Forgets the cluster: identity, certificate, log, ledger. Images and volumes stay.
    ///
    /// # Errors
    /// The operating system's; what could be removed is gone.
    pub fn forget_cluster(&self) -> Result<(), FilesError> {
        let path = self.join("node.json");
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(FilesError::Io { path, source }),
            _ => {}
        }
        for name in ["certificates", "certificates.next", "raft", "ledger"] {
            remove_dir(&self.join(name))?;
        }
        sync_dir(&self.path)
    }
}

fn read(path: &Path) -> Result<Option<String>, FilesError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(FilesError::Io { path: path.to_owned(), source }),
    }
}

/// Makes a folder and its parents.
///
/// # Errors
/// The operating system's.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), FilesError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(|source| FilesError::Io { path: path.to_owned(), source })
}

fn remove_dir(path: &Path) -> Result<(), FilesError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FilesError::Io { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn sync_dir(path: &Path) -> Result<(), FilesError> {
    File::open(path).and_then(|d| d.sync_all()).map_err(|source| FilesError::Io { path: path.to_owned(), source })
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), FilesError> {
    let temporary = path.with_extension("tmp");
    let error = |source| FilesError::Io { path: path.to_owned(), source };
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary).map_err(error)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(error)?;
    std::fs::rename(&temporary, path).map_err(error)?;
    sync_dir(path.parent().unwrap_or(Path::new("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeFile {
        NodeFile {
            version: 1,
            cluster: "c".into(),
            node: "n".into(),
            member: 7,
            listen: ([0, 0, 0, 0], 2377).into(),
            advertise: ([10, 99, 0, 1], 2377).into(),
            data_path: [10, 99, 0, 1].into(),
            managers: vec![],
            snapshot_interval: 10_000,
        }
    }

    #[test]
    fn a_second_daemon_on_the_same_folder_is_refused_and_told_by_whom() {
        let dir = tempfile::tempdir().expect("folder");
        let _first = DataDir::open(dir.path()).expect("free");
        let error = DataDir::open(dir.path()).expect_err("locked").to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    }

    #[test]
    fn what_was_saved_is_read_back_and_forgotten_on_leave() {
        let dir = tempfile::tempdir().expect("folder");
        let data = DataDir::open(dir.path()).expect("free");
        assert_eq!(data.node().expect("readable"), None);
        data.save_node(&node()).expect("saved");
        assert_eq!(data.node().expect("readable"), Some(node()));
        let files = CertificateFiles { root: "r".into(), chain: "c".into(), key: "k".into() };
        data.save_certificates(&files).expect("saved");
        data.save_certificates(&CertificateFiles { chain: "d".into(), ..files }).expect("saved again");
        assert_eq!(data.certificates().expect("readable").expect("there").chain, "d");
        data.forget_cluster().expect("forgotten");
        assert_eq!(data.node().expect("readable"), None);
        assert!(data.certificates().expect("readable").is_none());
    }

    #[test]
    fn a_damaged_identity_is_named() {
        let dir = tempfile::tempdir().expect("folder");
        let data = DataDir::open(dir.path()).expect("free");
        std::fs::write(dir.path().join("node.json"), "{").expect("written");
        assert!(data.node().expect_err("damaged").to_string().contains("node.json"));
    }
}
