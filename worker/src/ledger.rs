//! What a worker must still know after a restart: its orders, how far the cluster's history has come, what it said.
//!
//! Registry credentials are never written. A ledger that cannot be read is moved aside: managers tell everything
//! again, and until they do nothing is started or stopped.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use prost::Message as _;
use rswarm_api::{Wire, pb};
use rswarm_types::TaskId;
use rswarm_types::assignment::{Assignments, LogId};
use rswarm_types::task::TaskStatus;

use crate::limits::LEDGER_CACHE_BYTES;

mod memory;

pub use memory::MemoryLedger;

const ORDERS: &[u8] = b"orders";
const GATEWAY: &[u8] = b"gateway";
const STATUSES: &str = "statuses";
/// An earlier worker of this process may still be closing the files.
const OPEN_TRIES: u32 = 20;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("the ledger {path} cannot be moved aside", path = path.display())]
    Aside { path: PathBuf, source: io::Error },
    #[error("the ledger {path} cannot be made", path = path.display())]
    Make { path: PathBuf, reason: String },
    #[error("the ledger cannot be written")]
    Write(#[from] sled::Error),
}

/// Where a ledger is kept.
#[derive(Clone, Debug)]
pub enum LedgerPlace {
    Folder(PathBuf),
    /// The simulator's.
    Memory(MemoryLedger),
}

impl LedgerPlace {
    /// Removes the ledger; none is no error.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn remove(&self) -> io::Result<()> {
        match self {
            Self::Folder(path) => match tokio::fs::remove_dir_all(path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
            },
            Self::Memory(memory) => {
                memory.clear();
                Ok(())
            }
        }
    }
}

/// Durable memory of a worker.
#[derive(Debug)]
pub enum Ledger {
    Folder(Folder),
    Memory(MemoryLedger),
}

/// A ledger on disk.
#[derive(Debug)]
pub struct Folder {
    db: sled::Db,
    statuses: sled::Tree,
}

/// What was in the ledger.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    pub orders: Option<Assignments>,
    pub statuses: Vec<(TaskId, TaskStatus)>,
    pub gateway: Option<Ipv4Net>,
}

impl Ledger {
    /// The simulator's ledger, with what is in it.
    pub fn in_memory(memory: MemoryLedger) -> (Self, Remembered) {
        let remembered = memory.read();
        (Self::Memory(memory), remembered)
    }

    /// Opens the ledger in a folder, or makes a new one. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be written at all.
    pub fn open(path: &Path) -> Result<(Self, Remembered), LedgerError> {
        let why = match Self::read(path) {
            Ok(opened) => return Ok(opened),
            Err(why) => why,
        };
        let aside = path.with_extension("damaged");
        tracing::error!(ledger = %path.display(), aside = %aside.display(), why, "the ledger is damaged; a new one is made");
        let moved = match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::rename(path, &aside),
        };
        moved.map_err(|source| LedgerError::Aside { path: path.to_owned(), source })?;
        Self::read(path).map_err(|reason| LedgerError::Make { path: path.to_owned(), reason })
    }

    fn read(path: &Path) -> Result<(Self, Remembered), String> {
        // sled panics on some damage.
        let read = catch_unwind(AssertUnwindSafe(|| {
            let db = open_db(path).map_err(|e| e.to_string())?;
            let statuses = db.open_tree(STATUSES).map_err(|e| e.to_string())?;
            let folder = Folder { db, statuses };
            let remembered = folder.remembered()?;
            Ok((Self::Folder(folder), remembered))
        }));
        read.unwrap_or_else(|_| Err("reading it panicked".to_owned()))
    }

    /// Remembers orders, without registry credentials. [`Ledger::flush`] makes it durable.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_orders(&self, orders: &Assignments) -> Result<(), LedgerError> {
        let mut orders = orders.clone();
        for task in &mut orders.tasks {
            task.registry_auth = Default::default();
        }
        match self {
            Self::Folder(folder) => drop(folder.db.insert(ORDERS, orders.to_pb().encode_to_vec())?),
            Self::Memory(memory) => memory.put_orders(orders),
        }
        Ok(())
    }

    /// Remembers the newest status of a task.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_status(&self, task: TaskId, status: &TaskStatus) -> Result<(), LedgerError> {
        match self {
            Self::Folder(folder) => {
                let report = (task, status.clone()).to_pb();
                folder.statuses.insert(task.to_bytes(), report.encode_to_vec())?;
            }
            Self::Memory(memory) => memory.put_status(task, status.clone()),
        }
        Ok(())
    }

    /// Forgets a task.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn forget(&self, task: TaskId) -> Result<(), LedgerError> {
        match self {
            Self::Folder(folder) => drop(folder.statuses.remove(task.to_bytes())?),
            Self::Memory(memory) => memory.forget(task),
        }
        Ok(())
    }

    /// Remembers the gateway bridge.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn put_gateway(&self, gateway: Ipv4Net) -> Result<(), LedgerError> {
        match self {
            Self::Folder(folder) => drop(folder.db.insert(GATEWAY, gateway.to_string().as_bytes())?),
            Self::Memory(memory) => memory.put_gateway(gateway),
        }
        Ok(())
    }

    /// Returns once everything put is on disk.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn flush(&self) -> Result<(), LedgerError> {
        match self {
            Self::Folder(folder) => drop(folder.db.flush_async().await?),
            Self::Memory(memory) => memory.flush(),
        }
        Ok(())
    }
}

impl Folder {
    fn remembered(&self) -> Result<Remembered, String> {
        let mut found = Remembered::default();
        if let Some(bytes) = self.db.get(ORDERS).map_err(|e| e.to_string())? {
            let message = pb::Assignments::decode(&bytes[..]).map_err(|e| e.to_string())?;
            found.orders = Some(Assignments::from_pb(message).map_err(|e| e.to_string())?);
        }
        for entry in &self.statuses {
            let (_, bytes) = entry.map_err(|e| e.to_string())?;
            let message = pb::TaskReport::decode(&bytes[..]).map_err(|e| e.to_string())?;
            found.statuses.push(Wire::from_pb(message).map_err(|e| e.to_string())?);
        }
        let gateway = self.db.get(GATEWAY).map_err(|e| e.to_string())?;
        found.gateway = gateway.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        Ok(found)
    }
}

fn open_db(path: &Path) -> sled::Result<sled::Db> {
    let config = sled::Config::new().path(path).cache_capacity(LEDGER_CACHE_BYTES).mode(sled::Mode::LowSpace);
    let mut tries = 1;
    loop {
        match config.open() {
            Err(sled::Error::Io(_)) if tries < OPEN_TRIES => {
                tries += 1;
                std::thread::sleep(OPEN_PAUSE);
            }
            done => return done,
        }
    }
}

/// Whether newer orders may replace what is known: the cluster's history never runs backwards.
pub fn may_follow(known: LogId, next: LogId) -> bool {
    next >= known
}

#[cfg(test)]
mod tests {
    use rswarm_types::assignment::AssignedTask;
    use rswarm_types::service::RegistryAuth;
    use rswarm_types::task_state::TaskState;

    use super::*;

    fn orders(index: u64) -> Assignments {
        let task = AssignedTask { id: TaskId(7), registry_auth: RegistryAuth("hunter2".into()), ..Default::default() };
        let log_id = LogId { era: 1, term: 2, index };
        Assignments { log_id, tasks: vec![task], ..Default::default() }
    }

    #[tokio::test]
    async fn everything_but_credentials_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let status = TaskStatus { state: TaskState::Running, pid: 5, ..Default::default() };
        {
            let (ledger, found) = Ledger::open(&path).unwrap();
            assert_eq!(found, Remembered::default());
            ledger.put_orders(&orders(4)).unwrap();
            ledger.put_status(TaskId(7), &status).unwrap();
            ledger.put_status(TaskId(8), &status).unwrap();
            ledger.forget(TaskId(8)).unwrap();
            ledger.put_gateway("172.18.0.1/16".parse().unwrap()).unwrap();
            ledger.flush().await.unwrap();
        }
        for file in walk(&path) {
            let content = fs::read(&file).unwrap();
            assert!(!content.windows(7).any(|w| w == b"hunter2"), "{}", file.display());
        }
        let (_, found) = Ledger::open(&path).unwrap();
        let found_orders = found.orders.unwrap();
        assert_eq!(found_orders.log_id, orders(4).log_id);
        assert_eq!(found_orders.tasks[0].registry_auth, RegistryAuth::default());
        assert_eq!(found.statuses, [(TaskId(7), status)]);
        assert_eq!(found.gateway, Some("172.18.0.1/16".parse().unwrap()));
    }

    fn walk(path: &Path) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
        }
        files
    }

    #[test]
    fn a_damaged_ledger_is_moved_aside_and_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        {
            let (ledger, _) = Ledger::open(&path).unwrap();
            let Ledger::Folder(folder) = ledger else { unreachable!() };
            folder.db.insert(ORDERS, &b"\xff\xff no orders"[..]).unwrap();
            folder.db.flush().unwrap();
        }
        let (_, found) = Ledger::open(&path).unwrap();
        assert_eq!(found, Remembered::default());
        assert!(dir.path().join("ledger.damaged").is_dir());
    }

    #[test]
    fn a_file_in_place_of_the_ledger_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        fs::write(&path, "no folder").unwrap();
        assert_eq!(Ledger::open(&path).unwrap().1, Remembered::default());
    }

    #[test]
    fn history_never_runs_backwards() {
        let at = |era, term, index| LogId { era, term, index };
        for (known, next, expected) in [
            (at(1, 1, 5), at(1, 1, 5), true),
            (at(1, 1, 5), at(1, 1, 4), false),
            (at(1, 1, 5), at(1, 2, 4), true),
            (at(1, 2, 5), at(2, 1, 1), true),
            (at(2, 1, 1), at(1, 9, 9), false),
        ] {
            assert_eq!(may_follow(known, next), expected, "{known:?} {next:?}");
        }
    }
}
