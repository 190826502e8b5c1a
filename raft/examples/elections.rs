//! How fast three members replace a leader that is cut off, and how often they replace one that is not.
//!
//! `cargo run --release -p rswarm-raft --example elections [FOLDER]`. For several timings: the time from the cut to the
//! first write that a majority has on disk, and the elections that nothing called for, while 256 clients write, while all
//! processors are busy besides, and while each flush takes 300 ms.

mod shared;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rswarm_raft::{Config, Disk, DiskFile, Folder, Raft};
use shared::{Failure, Net};

/// Heartbeat, shortest and longest election timeout, in milliseconds.
const TIMINGS: [(u64, u64, u64); 3] = [(50, 150, 300), (50, 100, 150), (25, 75, 150)];
const CUTS: usize = 40;
const WATCHED: Duration = Duration::from_secs(20);
const STALL_MS: u64 = 300;

/// A folder whose flushes take some milliseconds more.
struct Stalling(Folder, Arc<AtomicU64>);

struct StallingFile(Arc<dyn DiskFile>, Arc<AtomicU64>);

impl Stalling {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(StallingFile(file, Arc::clone(&self.1)))
    }
}

impl Disk for Stalling {
    fn describe(&self, name: &str) -> String {
        self.0.describe(name)
    }
    fn create_folder(&self, name: &str) -> io::Result<()> {
        self.0.create_folder(name)
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.0.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.wrap(self.0.open(name)?))
    }
    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.0.list(folder)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        self.0.sync_folder(folder)
    }
}

impl DiskFile for StallingFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, out)
    }
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, data)
    }
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.0.allocate(bytes)
    }
    fn sync(&self) -> io::Result<()> {
        std::thread::sleep(Duration::from_millis(self.1.load(Ordering::Relaxed)));
        self.0.sync()
    }
}

fn highest_term(members: &[Raft]) -> u64 {
    members.iter().map(|raft| raft.status().term).max().unwrap_or_default()
}

/// Writes until somebody accepts.
async fn write(members: &[Raft]) {
    loop {
        for raft in members.iter().filter(|raft| raft.status().is_leader()) {
            if raft.propose(Bytes::from_static(b"command")).await.is_ok() {
                return;
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// From a cut of the leader to the first write without it, sorted.
async fn failovers(net: &Net, members: &[Raft]) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..CUTS {
        write(members).await;
        let Some(leader) = members.iter().find(|raft| raft.status().is_leader()) else { continue };
        let others: Vec<Raft> = members.iter().filter(|raft| raft.member() != leader.member()).cloned().collect();
        net.reach().cut.insert(leader.member());
        let began = Instant::now();
        write(&others).await;
        times.push(began.elapsed());
        net.reach().cut.remove(&leader.member());
        // All agree again, and every lease is fresh.
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
    times.sort();
    times
}

/// Elections in [`WATCHED`] while `clients` write to whoever leads.
async fn elections_under_load(members: &[Raft], clients: usize) -> (u64, u64) {
    let (before, began) = (highest_term(members), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let members = members.to_vec();
        tasks.spawn(async move {
            let mut count = 0_u64;
            while began.elapsed() < WATCHED {
                write(&members).await;
                count += 1;
            }
            count
        });
    }
    let writes = tasks.join_all().await.into_iter().sum();
    (highest_term(members) - before, writes)
}

async fn measure(folder: &Path, (heartbeat, min, max): (u64, u64, u64)) -> Result<(), Failure> {
    let mut out = io::stdout();
    let (net, stall) = (Net::default(), Arc::new(AtomicU64::new(0)));
    let mut members = Vec::new();
    for id in 1..=3 {
        let disk = Stalling(Folder::open(folder.join(format!("{heartbeat}-{max}-{id}")))?, Arc::clone(&stall));
        let timed = |config: &mut Config| {
            (config.heartbeat_ms, config.election_min_ms, config.election_max_ms) = (heartbeat, min, max);
        };
        members.push(net.start(id, Arc::new(disk), timed).await?);
    }
    shared::form(&members).await?;
    let name = format!("{heartbeat} ms, {min}-{max} ms");

    let times = failovers(&net, &members).await;
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    writeln!(
        out,
        "{name}: {} cuts of the leader: first write after p50 {:?}, p90 {:?}, max {:?}",
        times.len(),
        at(50),
        at(90),
        at(100)
    )?;

    let (elections, writes) = elections_under_load(&members, 256).await;
    writeln!(out, "{name}: 256 clients, {WATCHED:?}: {elections} elections, {writes} writes")?;

    let stop = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism()?.get();
    let spinners: Vec<_> = (0..2 * cores)
        .map(|_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let (elections, writes) = elections_under_load(&members, 256).await;
    stop.store(true, Ordering::Relaxed);
    for spinner in spinners {
        let _ = spinner.join();
    }
    let busy = 2 * cores;
    writeln!(out, "{name}: the same with {busy} busy threads: {elections} elections, {writes} writes")?;

    stall.store(STALL_MS, Ordering::Relaxed);
    let (elections, writes) = elections_under_load(&members, 16).await;
    stall.store(0, Ordering::Relaxed);
    writeln!(out, "{name}: 16 clients, flushes of {STALL_MS} ms: {elections} elections, {writes} writes")?;
    for raft in &members {
        raft.shutdown().await;
    }
    net.clear();
    Ok(())
}

fn main() -> Result<(), Failure> {
    let folder = match std::env::args_os().nth(1) {
        Some(folder) => PathBuf::from(folder),
        None => std::env::temp_dir(),
    };
    let folder = tempfile::Builder::new().prefix("raft-elections").tempdir_in(folder)?;
    tokio::runtime::Runtime::new()?.block_on(async {
        for timing in TIMINGS {
            measure(folder.path(), timing).await?;
        }
        Ok(())
    })
}
