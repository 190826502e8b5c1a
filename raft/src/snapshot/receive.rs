//! Receiving a snapshot piece by piece.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;

use super::file::{SnapshotFile, SnapshotWriter, TransferId};
use super::store::SnapshotStore;
use crate::types::SnapshotMeta;

/// One piece of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub meta: SnapshotMeta,
    /// All of the snapshot.
    pub id: TransferId,
    /// Where this piece belongs.
    pub offset: u64,
    pub data: Bytes,
}

/// What a piece led to.
pub(crate) enum Received {
    /// The next piece should begin here; at the snapshot's end if it is being installed, and that is worth asking after.
    Next(u64),
    /// The snapshot is whole, and durable as a temporary file.
    Whole(Box<SnapshotFile>),
}

/// Takes the pieces of one snapshot at a time; the first piece of another one drops what there is.
pub(crate) struct Receiver {
    store: Arc<SnapshotStore>,
    under_way: Option<UnderWay>,
    installing: Option<(TransferId, SnapshotMeta)>,
}

struct UnderWay {
    meta: SnapshotMeta,
    id: TransferId,
    writer: SnapshotWriter,
}

impl Receiver {
    pub fn new(store: Arc<SnapshotStore>) -> Self {
        Self { store, under_way: None, installing: None }
    }

    /// Takes a piece. One that does not fit is answered with the place to go on from.
    pub fn accept(&mut self, chunk: &Chunk) -> io::Result<Received> {
        if self.installing.as_ref().is_some_and(|(id, meta)| (id, meta) == (&chunk.id, &chunk.meta)) {
            return Ok(Received::Next(chunk.id.bytes));
        }
        let same = |under_way: &UnderWay| under_way.id == chunk.id && under_way.meta == chunk.meta;
        let mut under_way = match self.under_way.take().filter(same) {
            Some(under_way) => under_way,
            None => {
                let writer = self.store.writer(chunk.meta.clone())?;
                UnderWay { meta: chunk.meta.clone(), id: chunk.id, writer }
            }
        };
        let have = under_way.writer.id().bytes;
        if have == chunk.offset {
            under_way.writer.write_all(&chunk.data)?;
        }
        let now = under_way.writer.id();
        if now.bytes < chunk.id.bytes {
            self.under_way = Some(under_way);
            return Ok(Received::Next(now.bytes));
        }
        if now != chunk.id {
            let text = format!("the snapshot arrived as {now:?}, and was sent as {:?}", chunk.id);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let whole = under_way.writer.finish()?;
        self.installing = Some((under_way.id, under_way.meta));
        Ok(Received::Whole(Box::new(whole)))
    }

    /// The last whole snapshot was installed, or will not be.
    pub fn installed(&mut self) {
        self.installing = None;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::crypt::Keys;
    use crate::disk::{Disk, MemoryDisk};
    use crate::snapshot::SNAPSHOT_FOLDER;
    use crate::types::log_id;

    fn chunk(content: &[u8], index: u64, offset: usize, len: usize) -> Chunk {
        let end = (offset + len).min(content.len());
        Chunk {
            meta: SnapshotMeta { last_log_id: Some(log_id(1, index)), ..SnapshotMeta::default() },
            id: TransferId { bytes: content.len() as u64, crc: crc32c::crc32c(content) },
            offset: offset as u64,
            data: Bytes::copy_from_slice(&content[offset..end]),
        }
    }

    fn receiver(disk: &Arc<dyn Disk>) -> Receiver {
        let keys = Arc::new(Keys::generate().unwrap());
        Receiver::new(Arc::new(SnapshotStore::open(disk, keys).unwrap()))
    }

    fn next(received: Received) -> u64 {
        match received {
            Received::Next(next) => next,
            Received::Whole(_) => panic!("the snapshot is whole already"),
        }
    }

    #[test]
    fn a_transfer_goes_on_where_it_stopped_and_repeated_pieces_are_harmless() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let mut receiver = receiver(&disk);
        let content = b"0123456789".as_slice();
        assert_eq!(next(receiver.accept(&chunk(content, 5, 0, 4)).unwrap()), 4);
        assert_eq!(next(receiver.accept(&chunk(content, 5, 0, 4)).unwrap()), 4);
        assert_eq!(next(receiver.accept(&chunk(content, 5, 8, 2)).unwrap()), 4);
        let Received::Whole(file) = receiver.accept(&chunk(content, 5, 4, 6)).unwrap() else { panic!("not whole") };
        let mut read = Vec::new();
        file.reader().read_to_end(&mut read).unwrap();
        assert_eq!(read, content);

        // Asked again while it is installed, and after.
        assert_eq!(next(receiver.accept(&chunk(content, 5, 0, 4)).unwrap()), 10);
        assert_eq!(next(receiver.accept(&chunk(content, 5, 10, 0)).unwrap()), 10);
        receiver.installed();
        assert_eq!(next(receiver.accept(&chunk(content, 5, 10, 0)).unwrap()), 0);
    }

    #[test]
    fn another_snapshot_drops_the_one_under_way() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let mut receiver = receiver(&disk);
        assert_eq!(next(receiver.accept(&chunk(b"0123456789", 5, 0, 4)).unwrap()), 4);
        assert_eq!(next(receiver.accept(&chunk(b"abcdefghij", 6, 0, 2)).unwrap()), 2);
        assert_eq!(disk.list(SNAPSHOT_FOLDER).unwrap().len(), 1, "the first one's file is gone");
    }

    #[test]
    fn a_snapshot_whose_bytes_differ_from_what_was_sent_is_refused() {
        let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::new());
        let mut receiver = receiver(&disk);
        let mut bad = chunk(b"0123456789", 5, 0, 10);
        bad.data = Bytes::from_static(b"0123456780");
        assert!(receiver.accept(&bad).is_err());
        assert!(disk.list(SNAPSHOT_FOLDER).unwrap().is_empty());
    }
}
