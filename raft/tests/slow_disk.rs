//! A cluster whose disks stall.

mod common;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::{Member, Net, Setup, form, write};
use rswarm_raft::{Disk, DiskFile, MemoryDisk, TokioRuntime};

/// A disk whose every flush of a file takes some milliseconds.
struct Slow(MemoryDisk, Arc<AtomicU64>);

struct SlowFile(Arc<dyn DiskFile>, Arc<AtomicU64>);

impl Slow {
    fn slow(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(SlowFile(file, Arc::clone(&self.1)))
    }
}

impl Disk for Slow {
    fn describe(&self, name: &str) -> String {
        self.0.describe(name)
    }
    fn create_folder(&self, name: &str) -> io::Result<()> {
        self.0.create_folder(name)
    }
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.slow(self.0.create(name)?))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(self.slow(self.0.open(name)?))
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

impl DiskFile for SlowFile {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stalled_flushes_slow_writes_down_and_depose_nobody() {
    let net = Net::<TokioRuntime>::new();
    let stall = Arc::new(AtomicU64::new(0));
    let mut members = Vec::new();
    for id in 1..=3 {
        let disk = Arc::new(Slow(MemoryDisk::new(), Arc::clone(&stall)));
        members.push(Setup::default().start(&net, id, disk).await.unwrap());
    }
    let all: Vec<&Member<TokioRuntime>> = members.iter().collect();
    form(&all).await;
    let term = members[0].raft.status().term;
    stall.store(300, Ordering::Relaxed);
    for number in 0..6 {
        let leader = write(&all, &format!("{number}")).await;
        assert_eq!(leader, members[0].raft.member());
    }
    assert!(members.iter().all(|member| member.raft.status().term == term));
    stall.store(0, Ordering::Relaxed);
    for member in members {
        member.raft.shutdown().await;
    }
}
