//! The simulator's disk: files in memory that lose what was not flushed when the power goes, and fail on demand.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile};

/// The unit in which an unflushed write survives a power cut or not.
const SECTOR: usize = 512;

/// A disk in memory, shared by its clones.
#[derive(Clone)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    /// Handles of a killed process have an older generation, and no longer reach the files.
    generation: u64,
}

/// An operation that a [`Fault`] can strike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// [`Disk::create`].
    Create,
    /// [`DiskFile::allocate`].
    Allocate,
    /// [`DiskFile::write_at`].
    Write,
    /// [`DiskFile::sync`] and [`Disk::sync_folder`].
    Sync,
}

/// An error that strikes once, after `skip` more operations of its kind went well.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// What fails.
    pub operation: Operation,
    /// How many go well first.
    pub skip: u32,
    /// What is reported.
    pub kind: io::ErrorKind,
}

#[derive(Default)]
struct State {
    generation: u64,
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    fault: Option<Fault>,
}

/// A file. What was set aside but never written takes no memory, and reads as zeros.
#[derive(Default)]
struct Node {
    current: Content,
    durable: Content,
    /// Where `current` was written since the last flush.
    dirty: Vec<Range<usize>>,
}

#[derive(Clone, Default)]
struct Content {
    len: usize,
    bytes: Vec<u8>,
}

impl Content {
    fn new(bytes: &[u8]) -> Self {
        Self { len: bytes.len(), bytes: bytes.to_vec() }
    }

    fn write(&mut self, at: usize, data: &[u8]) {
        let end = at + data.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[at..end].copy_from_slice(data);
        self.len = self.len.max(end);
    }

    fn read(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        if at.saturating_add(out.len()) > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let written = self.bytes.get(at..).unwrap_or_default();
        let written = &written[..written.len().min(out.len())];
        out[..written.len()].copy_from_slice(written);
        out[written.len()..].fill(0);
        Ok(())
    }

    fn whole(&self) -> Vec<u8> {
        let mut out = self.bytes.clone();
        out.resize(self.len, 0);
        out
    }
}

impl Node {
    fn new(content: &[u8]) -> Self {
        Self { current: Content::new(content), durable: Content::new(content), dirty: Vec::new() }
    }

    fn flush(&mut self) {
        for range in std::mem::take(&mut self.dirty) {
            self.durable.write(range.start, &self.current.bytes[range]);
        }
        self.durable.len = self.current.len;
    }

    fn cut_power(&mut self, coin: &mut impl FnMut() -> bool) {
        if self.durable.len != self.current.len && coin() {
            self.durable.len = self.current.len;
        }
        for range in std::mem::take(&mut self.dirty) {
            let mut at = range.start;
            while at < range.end {
                let end = ((at / SECTOR + 1) * SECTOR).min(range.end);
                if end <= self.durable.len && coin() {
                    self.durable.write(at, &self.current.bytes[at..end]);
                }
                at = end;
            }
        }
        self.current = self.durable.clone();
    }
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self { state: Arc::default(), generation: 0 }
    }

    /// Kills the process that uses this disk: its handles fail from now on, and nothing written is lost.
    /// The disk that comes back is for its next life.
    pub fn kill(&self) -> Self {
        let mut state = self.lock();
        state.generation += 1;
        state.fault = None;
        Self { state: Arc::clone(&self.state), generation: state.generation }
    }

    /// Cuts the power: as [`Self::kill`], and of what was not flushed each sector survives or not, as `coin` says.
    pub fn power_cut(&self, mut coin: impl FnMut() -> bool) -> Self {
        let next = self.kill();
        let mut state = self.lock();
        state.names = state.durable_names.clone();
        state.nodes.iter_mut().for_each(|node| node.cut_power(&mut coin));
        drop(state);
        next
    }

    /// Makes an operation fail; `None` heals.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// The whole content of a file, if it exists, for tests that damage it.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state.names.get(name).map(|node| state.nodes[*node].current.whole())
    }

    /// Replaces the content of a file, flushed, for tests that damage it.
    pub fn set_content(&self, name: &str, content: &[u8]) {
        let mut state = self.lock();
        if let Some(node) = state.names.get(name).copied() {
            state.nodes[node] = Node::new(content);
        }
    }

    /// A separate disk with the same files, all flushed.
    pub fn copy(&self) -> Self {
        let state = self.lock();
        let mut copy = State::default();
        for (name, node) in &state.names {
            let content = state.nodes[*node].current.clone();
            copy.names.insert(name.clone(), copy.nodes.len());
            copy.nodes.push(Node { current: content.clone(), durable: content, dirty: Vec::new() });
        }
        copy.durable_names = copy.names.clone();
        Self { state: Arc::new(Mutex::new(copy)), generation: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Only a panic inside this file could poison it, and then the numbers are still whole.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn live(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.generation == self.generation {
            return Ok(state);
        }
        Err(io::Error::other("the process that opened this was killed"))
    }
}

impl State {
    fn strike(&mut self, operation: Operation) -> io::Result<()> {
        let Some(fault) = self.fault.as_mut().filter(|fault| fault.operation == operation) else { return Ok(()) };
        if fault.skip > 0 {
            fault.skip -= 1;
            return Ok(());
        }
        let kind = fault.kind;
        self.fault = None;
        Err(kind.into())
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("no file {name}"))
}

impl Disk for MemoryDisk {
    fn describe(&self, name: &str) -> String {
        format!("memory:{name}")
    }

    fn create_folder(&self, _: &str) -> io::Result<()> {
        self.live().map(drop)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.live()?;
        state.strike(Operation::Create)?;
        if state.names.contains_key(name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("file {name} exists")));
        }
        let node = state.nodes.len();
        state.nodes.push(Node::default());
        state.names.insert(name.to_owned(), node);
        Ok(Arc::new(MemoryFile { disk: self.clone(), node }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let node = *self.live()?.names.get(name).ok_or_else(|| missing(name))?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), node }))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let state = self.live()?;
        let inside = state.names.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(inside.filter(|name| !name.contains('/')).map(str::to_owned).collect())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.live()?;
        let node = state.names.remove(from).ok_or_else(|| missing(from))?;
        state.names.insert(to.to_owned(), node);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.live()?.names.remove(name).map(drop).ok_or_else(|| missing(name))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let mut state = self.live()?;
        state.strike(Operation::Sync)?;
        let inside = |name: &str| name.rsplit_once('/').map_or("", |(parent, _)| parent) == folder;
        state.durable_names.retain(|name, _| !inside(name));
        let now: Vec<_> = state.names.iter().filter(|(name, _)| inside(name)).map(|(n, i)| (n.clone(), *i)).collect();
        state.durable_names.extend(now);
        Ok(())
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    node: usize,
}

impl DiskFile for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.live()?.nodes[self.node].current.len as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        self.disk.live()?.nodes[self.node].current.read(start, out)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.live()?;
        state.strike(Operation::Write)?;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let node = &mut state.nodes[self.node];
        node.current.write(start, data);
        node.dirty.push(start..start + data.len());
        Ok(())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.live()?;
        state.strike(Operation::Allocate)?;
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        let content = &mut state.nodes[self.node].current;
        content.len = content.len.max(len);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.live()?;
        state.strike(Operation::Sync)?;
        state.nodes[self.node].flush();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_power_cut_loses_what_was_not_flushed_and_a_kill_does_not() {
        let disk = MemoryDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(0, b"kept").unwrap();
        file.sync().unwrap();
        disk.sync_folder("").unwrap();
        file.write_at(0, b"lost").unwrap();
        disk.create("b").unwrap();

        let killed = disk.kill();
        assert_eq!(killed.content("a").unwrap(), b"lost");
        assert!(file.write_at(0, b"late").is_err(), "a dead process writes nothing");

        let cut = killed.power_cut(|| false);
        assert_eq!(cut.content("a").unwrap(), b"kept");
        assert_eq!(cut.list("").unwrap(), ["a"], "the name of b was never flushed");
    }

    #[test]
    fn a_fault_strikes_once_after_the_operations_it_skips() {
        let disk = MemoryDisk::new();
        let file = disk.create("a").unwrap();
        disk.set_fault(Some(Fault { operation: Operation::Sync, skip: 1, kind: io::ErrorKind::StorageFull }));
        assert!(file.sync().is_ok());
        assert_eq!(file.sync().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(file.sync().is_ok());
    }
}
