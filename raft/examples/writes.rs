//! How many writes per second three members commit, in one process on one disk, beside what the disk itself can do.
//!
//! `cargo run --release -p rswarm-raft --example writes [FOLDER]`. Commands have 1 KiB; every one is on two disks, that is
//! in two files and flushed, before it counts. The disk's own rate is that of one file: a write of one group and an
//! `fdatasync`, one after the other.

mod shared;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rswarm_raft::{Folder, Raft};
use shared::{Failure, Net};

const COMMAND_BYTES: usize = 1024;
const MEASURED: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(1);

/// Writes and flushes groups of `records` commands; commands per second.
fn disk_rate(folder: &Path, records: usize) -> std::io::Result<f64> {
    let path = folder.join("disk");
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, 16 << 20)?;
    let group = vec![7; records * COMMAND_BYTES];
    let (began, mut written, mut at) = (Instant::now(), 0, 0);
    while began.elapsed() < MEASURED / 2 {
        file.write_all_at(&group, at)?;
        file.sync_data()?;
        written += records;
        at = (at + group.len() as u64) % ((16 << 20) - group.len() as u64);
    }
    let rate = written as f64 / began.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}

async fn write_rate(leader: &Raft, clients: usize) -> Result<(f64, Duration), Failure> {
    let began = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..clients {
        let leader = leader.clone();
        tasks.spawn(async move {
            let command = Bytes::from(vec![7; COMMAND_BYTES]);
            let mut times = Vec::new();
            while began.elapsed() < WARM_UP + MEASURED {
                let proposed = Instant::now();
                leader.propose(command.clone()).await?;
                if began.elapsed() > WARM_UP {
                    times.push(proposed.elapsed());
                }
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    times.sort();
    Ok((times.len() as f64 / MEASURED.as_secs_f64(), times[times.len() / 2]))
}

async fn measure(folder: &Path) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    for records in [1, 16, 64] {
        let rate = disk_rate(folder, records)?;
        writeln!(out, "disk: groups of {records:3} commands: {rate:9.0} commands/s")?;
    }
    let net = Net::default();
    let mut members = Vec::new();
    for id in 1..=3 {
        let disk = Arc::new(Folder::open(folder.join(id.to_string()))?);
        members.push(net.start(id, disk, |_| {}).await?);
    }
    shared::form(&members).await?;
    let leader = &members[0];
    for clients in [1, 64, 256] {
        let (rate, median) = write_rate(leader, clients).await?;
        writeln!(out, "three members: {clients:3} clients: {rate:9.0} writes/s, median {median:?}")?;
    }
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
    let folder = tempfile::Builder::new().prefix("raft-writes").tempdir_in(folder)?;
    tokio::runtime::Runtime::new()?.block_on(measure(folder.path()))
}
