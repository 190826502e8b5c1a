//! The engine's own suite for stores, on ours.

use std::io::{self, Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::{Identity, LogStore, WriterMode, open};
use crate::TokioRuntime;
use crate::applier::Applier;
use crate::disk::{Disk, Folder, MemoryDisk};
use crate::machine::{Halt, SnapshotSource, StateMachine};
use crate::member::{ClusterTag, LogPosition, MemberId, Membership};
use crate::snapshot::SnapshotStore;
use crate::types::TypeConfig;

type C = TypeConfig<TokioRuntime>;

#[derive(Default)]
struct Nothing;

impl StateMachine for Nothing {
    fn apply(&mut self, _: LogPosition, _: &[u8]) -> Result<Bytes, Halt> {
        Ok(Bytes::new())
    }
    fn applied_blank(&mut self, _: LogPosition) {}
    fn applied_membership(&mut self, _: LogPosition, _: &Membership) {}
    fn snapshot(&self) -> Box<dyn SnapshotSource> {
        Box::new(Nothing)
    }
    fn restore(&mut self, _: LogPosition, _: &Membership, snapshot: &mut dyn Read) -> io::Result<()> {
        let mut content = Vec::new();
        snapshot.read_to_end(&mut content)?;
        assert_eq!(content, b"nothing");
        Ok(())
    }
}

impl SnapshotSource for Nothing {
    fn write(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"nothing")
    }
}

struct Builder(WriterMode);

impl StoreBuilder<C, LogStore, Applier, Option<tempfile::TempDir>> for Builder {
    async fn build(&self) -> Result<(Option<tempfile::TempDir>, LogStore, Applier), StorageError<C>> {
        let (guard, disk): (_, Arc<dyn Disk>) = match self.0 {
            WriterMode::Inline => (None, Arc::new(MemoryDisk::new())),
            WriterMode::Thread => {
                let folder = tempfile::tempdir().unwrap();
                let disk = Folder::open(folder.path()).unwrap();
                (Some(folder), Arc::new(disk))
            }
        };
        let opened = open(&disk, Identity { cluster: ClusterTag([1; 16]), member: MemberId(1) }).unwrap();
        let snapshots = Arc::new(SnapshotStore::open(&disk, Arc::clone(&opened.keys)).unwrap());
        let applier = Applier::new(Box::new(Nothing), snapshots, self.0);
        Ok((guard, LogStore::start(opened, self.0).unwrap(), applier))
    }
}

#[tokio::test]
async fn the_engines_suite_passes_in_memory() {
    Suite::test_all(Builder(WriterMode::Inline)).await.unwrap();
}

#[tokio::test]
async fn the_engines_suite_passes_on_files() {
    Suite::test_all(Builder(WriterMode::Thread)).await.unwrap();
}
