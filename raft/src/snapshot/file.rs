//! The layout of a snapshot file.
//!
//! ```text
//! magic u32 · version u32 · key u32 · salt 12 · meta bytes u32 · sealed meta
//! frames: 64 KiB of the snapshot each, sealed; the last one is shorter, maybe empty, and sealed as the last
//! plain bytes u64 · plain crc u32 · crc of all before u32
//! ```

use std::io;
use std::sync::Arc;

use crate::codec::{Decoder, Encoder, Malformed};
use crate::crypt::{Keys, Salt, TAG_BYTES, new_salt};
use crate::disk::{Disk, DiskFile, explain};
use crate::limits::FRAME_BYTES;
use crate::types::SnapshotMeta;

const MAGIC: u32 = 0x4e53_5352; // "RSSN"
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 28;
const TRAILER_BYTES: u64 = 16;
const META_NUMBER: u64 = u64::MAX;

/// One snapshot's bytes, as both ends of a transfer know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransferId {
    /// The length of the snapshot.
    pub bytes: u64,
    /// Its checksum.
    pub crc: u32,
}

/// Writes a snapshot file, as temporary.
pub(crate) struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    keys: Arc<Keys>,
    name: String,
    file: Arc<dyn DiskFile>,
    meta: SnapshotMeta,
    salt: Salt,
    offset: u64,
    file_crc: u32,
    frame: Vec<u8>,
    frames: u64,
    id: TransferId,
    finished: bool,
}

impl SnapshotWriter {
    pub fn create(disk: &Arc<dyn Disk>, keys: &Arc<Keys>, name: String, meta: SnapshotMeta) -> io::Result<Self> {
        let salt = new_salt()?;
        let file = disk.create(&name).map_err(|error| explain(disk.as_ref(), &name, &error))?;
        let mut writer = Self {
            disk: Arc::clone(disk),
            keys: Arc::clone(keys),
            name,
            file,
            salt,
            offset: 0,
            file_crc: 0,
            frame: Vec::with_capacity(FRAME_BYTES),
            frames: 0,
            id: TransferId { bytes: 0, crc: 0 },
            finished: false,
            meta,
        };
        writer.header()?;
        Ok(writer)
    }

    fn header(&mut self) -> io::Result<()> {
        let mut plain = Encoder::default();
        plain.snapshot_meta(&self.meta);
        let mut sealed = Vec::new();
        self.keys.seal_into(&mut sealed, &self.salt, META_NUMBER, 0, b"meta", &plain.finish());
        let mut header = Encoder::with_capacity(HEADER_BYTES + sealed.len());
        header.u32(MAGIC);
        header.u32(VERSION);
        header.u32(self.keys.current());
        header.raw(&self.salt);
        header.bytes(&sealed);
        self.put(&header.finish())
    }

    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        let written = self.file.write_at(self.offset, data);
        written.map_err(|error| explain(self.disk.as_ref(), &self.name, &error))?;
        self.offset += data.len() as u64;
        self.file_crc = crc32c::crc32c_append(self.file_crc, data);
        Ok(())
    }

    fn seal_frame(&mut self, last: bool) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(self.frame.len() + TAG_BYTES);
        self.keys.seal_into(&mut sealed, &self.salt, self.frames, u32::from(last), b"frame", &self.frame);
        self.frames += 1;
        self.frame.clear();
        self.put(&sealed)
    }

    /// What was written so far.
    pub fn id(&self) -> TransferId {
        self.id
    }

    /// Ends the file and makes it durable, still as temporary.
    pub fn finish(mut self) -> io::Result<SnapshotFile> {
        self.seal_frame(true)?;
        let mut trailer = Encoder::default();
        trailer.u64(self.id.bytes);
        trailer.u32(self.id.crc);
        self.put(&trailer.finish())?;
        let crc = self.file_crc;
        self.put(&crc.to_le_bytes())?;
        self.file.sync().map_err(|error| explain(self.disk.as_ref(), &self.name, &error))?;
        self.finished = true;
        let frames_at = self.offset - TRAILER_BYTES - sealed_bytes(self.id.bytes);
        Ok(SnapshotFile {
            disk: Arc::clone(&self.disk),
            keys: Arc::clone(&self.keys),
            name: self.name.clone(),
            temporary: true,
            file: Arc::clone(&self.file),
            meta: self.meta.clone(),
            key: self.keys.current(),
            salt: self.salt,
            frames_at,
            id: self.id,
        })
    }
}

impl io::Write for SnapshotWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = data.len().min(FRAME_BYTES - self.frame.len());
        self.frame.extend_from_slice(&data[..taken]);
        self.id.bytes += taken as u64;
        self.id.crc = crc32c::crc32c_append(self.id.crc, &data[..taken]);
        if self.frame.len() == FRAME_BYTES {
            self.seal_frame(false)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished {
            // What is left is removed at the next start.
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// The bytes that a snapshot of `plain` bytes takes once sealed.
fn sealed_bytes(plain: u64) -> u64 {
    plain + (plain / FRAME_BYTES as u64 + 1) * TAG_BYTES as u64
}

/// A whole snapshot file, open. A temporary one is removed when nobody needs it.
pub(crate) struct SnapshotFile {
    disk: Arc<dyn Disk>,
    keys: Arc<Keys>,
    name: String,
    temporary: bool,
    file: Arc<dyn DiskFile>,
    pub meta: SnapshotMeta,
    key: u32,
    salt: Salt,
    frames_at: u64,
    pub id: TransferId,
}

impl SnapshotFile {
    /// Opens a file that was once made durable, and checks that every byte of it still is what it was.
    pub fn open(disk: &Arc<dyn Disk>, keys: &Arc<Keys>, name: String) -> io::Result<Self> {
        let file = disk.open(&name)?;
        let len = file.len()?;
        let crc = check(file.as_ref(), len)?;
        let header_bytes = HEADER_BYTES.min(usize::try_from(len).unwrap_or(HEADER_BYTES));
        let mut header = read(file.as_ref(), 0, header_bytes)?;
        let meta_bytes = header.split_off(HEADER_BYTES - 4);
        let mut header = Decoder::new(header.into());
        let malformed = |error: Malformed| damaged(error.to_string());
        let magic = (header.u32("header").map_err(malformed)?, header.u32("header").map_err(malformed)?);
        if magic != (MAGIC, VERSION) {
            return Err(damaged(format!("it begins with {magic:x?}, not with {:x?}", (MAGIC, VERSION))));
        }
        let key = header.u32("header").map_err(malformed)?;
        let mut salt = Salt::default();
        salt.copy_from_slice(&header.raw(12, "header").map_err(malformed)?);
        let meta_bytes = Decoder::new(meta_bytes.into()).u32("header").map_err(malformed)?;
        let sealed = read(file.as_ref(), HEADER_BYTES as u64, meta_bytes as usize)?;
        let plain = keys.open(key, &salt, META_NUMBER, 0, b"meta", &sealed);
        let plain = plain.ok_or_else(|| damaged("its seal does not open"))?;
        let meta = Decoder::new(plain.into()).snapshot_meta().map_err(malformed)?;

        let mut trailer = Decoder::new(read(file.as_ref(), len - TRAILER_BYTES, 12)?.into());
        let bytes = trailer.u64("trailer").map_err(malformed)?;
        let id = TransferId { bytes, crc: trailer.u32("trailer").map_err(malformed)? };
        let frames_at = HEADER_BYTES as u64 + u64::from(meta_bytes);
        if frames_at + sealed_bytes(bytes) + TRAILER_BYTES != len {
            return Err(damaged(format!("it has {len} bytes, which do not fit its content")));
        }
        tracing::debug!(file = %disk.describe(&name), crc, "opened a snapshot");
        Ok(Self {
            disk: Arc::clone(disk),
            keys: Arc::clone(keys),
            name,
            temporary: false,
            file,
            meta,
            key,
            salt,
            frames_at,
            id,
        })
    }

    /// Up to `limit` bytes of the snapshot from `offset` on; empty at its end.
    pub fn read_at(&self, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut at = offset;
        while out.len() < limit && at < self.id.bytes {
            let number = at / FRAME_BYTES as u64;
            let frame = self.frame(number)?;
            let within = usize::try_from(at % FRAME_BYTES as u64).map_err(io::Error::other)?;
            let part = frame.get(within..).unwrap_or_default();
            let part = &part[..part.len().min(limit - out.len())];
            out.extend_from_slice(part);
            at += part.len() as u64;
        }
        Ok(out)
    }

    fn frame(&self, number: u64) -> io::Result<Vec<u8>> {
        let start = number * FRAME_BYTES as u64;
        let plain = usize::try_from((self.id.bytes - start).min(FRAME_BYTES as u64)).map_err(io::Error::other)?;
        let last = plain < FRAME_BYTES;
        let at = self.frames_at + number * (FRAME_BYTES + TAG_BYTES) as u64;
        let sealed = read(self.file.as_ref(), at, plain + TAG_BYTES)?;
        let opened = self.keys.open(self.key, &self.salt, number, u32::from(last), b"frame", &sealed);
        opened.ok_or_else(|| damaged(format!("the seal of frame {number} does not open")))
    }

    /// Reads the whole snapshot in order.
    pub fn reader(&self) -> SnapshotReader<'_> {
        SnapshotReader { file: self, offset: 0, frame: io::Cursor::default() }
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a temporary file lasting, under its lasting name.
    pub fn keep(mut self: Box<Self>, name: String) -> io::Result<Box<Self>> {
        self.disk.rename(&self.name, &name).map_err(|error| explain(self.disk.as_ref(), &self.name, &error))?;
        self.name = name;
        self.temporary = false;
        Ok(self)
    }
}

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        if self.temporary {
            // What is left is removed at the next start.
            let _ = self.disk.remove(&self.name);
        }
    }
}

/// The snapshot's bytes in order.
pub(crate) struct SnapshotReader<'a> {
    file: &'a SnapshotFile,
    offset: u64,
    frame: io::Cursor<Vec<u8>>,
}

impl io::Read for SnapshotReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.frame.position() == self.frame.get_ref().len() as u64 {
            self.frame = io::Cursor::new(self.file.read_at(self.offset, FRAME_BYTES)?);
            self.offset += self.frame.get_ref().len() as u64;
        }
        self.frame.read(out)
    }
}

fn read(file: &dyn DiskFile, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; bytes];
    file.read_at(at, &mut out)?;
    Ok(out)
}

fn damaged(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// Checks the whole file against the checksum at its end.
fn check(file: &dyn DiskFile, len: u64) -> io::Result<u32> {
    if len < HEADER_BYTES as u64 + TRAILER_BYTES {
        return Err(damaged(format!("it has only {len} bytes")));
    }
    let mut crc = 0;
    let mut at = 0;
    while at < len - 4 {
        let part = usize::try_from((len - 4 - at).min(1 << 20)).map_err(io::Error::other)?;
        crc = crc32c::crc32c_append(crc, &read(file, at, part)?);
        at += part as u64;
    }
    if read(file, len - 4, 4)? != crc.to_le_bytes() {
        return Err(damaged("its checksum does not fit"));
    }
    Ok(crc)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;
    use crate::disk::MemoryDisk;
    use crate::types::log_id;

    fn written(disk: &Arc<dyn Disk>, keys: &Arc<Keys>, content: &[u8]) -> Box<SnapshotFile> {
        let meta = SnapshotMeta { last_log_id: Some(log_id(2, 7)), ..SnapshotMeta::default() };
        let mut writer = SnapshotWriter::create(disk, keys, "s.tmp".to_owned(), meta).unwrap();
        writer.write_all(content).unwrap();
        Box::new(writer.finish().unwrap())
    }

    #[test]
    fn a_snapshot_of_any_length_reads_back_whole_and_in_parts() {
        let keys = Arc::new(Keys::generate().unwrap());
        for len in [0, 1, FRAME_BYTES - 1, FRAME_BYTES, FRAME_BYTES + 1, 3 * FRAME_BYTES] {
            let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
            let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let fresh = written(&disk, &keys, &content).keep("s".to_owned()).unwrap();
            let opened = SnapshotFile::open(&disk, &keys, "s".to_owned()).unwrap();
            for file in [fresh.as_ref(), &opened] {
                let mut read = Vec::new();
                file.reader().read_to_end(&mut read).unwrap();
                assert_eq!(read, content);
                assert_eq!(file.meta.last_log_id, Some(log_id(2, 7)));
                assert_eq!(file.id, TransferId { bytes: len as u64, crc: crc32c::crc32c(&content) });
                let middle = len / 3;
                assert_eq!(file.read_at(middle as u64, len).unwrap(), content[middle..]);
            }
        }
    }

    #[test]
    fn every_damaged_byte_and_every_lost_end_is_noticed() {
        let keys = Arc::new(Keys::generate().unwrap());
        let memory = MemoryDisk::new();
        let disk: Arc<dyn Disk> = Arc::new(memory.clone());
        written(&disk, &keys, b"some state").keep("s".to_owned()).unwrap();
        let whole = memory.content("s").unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 4;
            memory.set_content("s", &bad);
            assert!(SnapshotFile::open(&disk, &keys, "s".to_owned()).is_err(), "byte {at}");
            memory.set_content("s", &whole[..at]);
            assert!(SnapshotFile::open(&disk, &keys, "s".to_owned()).is_err(), "cut to {at}");
        }
    }

    #[test]
    fn a_temporary_snapshot_goes_with_its_last_user() {
        let keys = Arc::new(Keys::generate().unwrap());
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let file = written(&disk, &keys, b"state");
        assert_eq!(disk.list("").unwrap(), ["s.tmp"]);
        drop(file);
        assert!(disk.list("").unwrap().is_empty());
    }
}
