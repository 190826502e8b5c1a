//! Removing images, and the content that no image needs any more.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use super::digest::{Digest, ImageId};
use super::error::ImageError;
use super::index::Record;
use super::reference::{Reference, familiar_name};
use super::store::{ImageStore, Inner};

/// One line of what `image rm` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone: `nginx:latest`.
    Untagged(String),
    /// An image or a layer is gone: `sha256:…`.
    Deleted(String),
}

impl ImageStore {
    /// Removes a name; the image with it if that was its last one. An id removes all names, if they are of one
    /// repository or with `force`. An image that a container uses keeps its last name, `force` or not: its layers are
    /// that container's root. Blocking.
    ///
    /// # Errors
    /// No such image, in use, or named in several repositories.
    pub fn remove(
        &self,
        reference: &str,
        force: bool,
        in_use: &dyn Fn(&ImageId) -> bool,
    ) -> Result<Vec<Removed>, ImageError> {
        let inner = &self.inner;
        let mut removed = Vec::new();
        {
            let _lock = inner.index.lock();
            let record = inner.find(reference)?;
            let gone = names_to_remove(&record, reference, force)?;
            let is_last = record.tags.iter().chain(&record.repo_digests).all(|name| gone.contains(name));
            if is_last && in_use(&record.id) {
                return Err(ImageError::InUse { reference: reference.to_owned(), id: record.id });
            }
            removed.extend(gone.iter().map(|name| Removed::Untagged(familiar_name(name).to_owned())));
            if is_last {
                inner.index.delete(&record)?;
                removed.push(Removed::Deleted(record.id.to_string()));
            } else {
                let mut record = record;
                record.tags.retain(|tag| !gone.contains(tag));
                record.repo_digests.retain(|name| !gone.contains(name));
                inner.index.put(record, &inner.folders)?;
                return Ok(removed);
            }
        }
        removed.extend(self.collect_garbage()?);
        Ok(removed)
    }

    /// Removes blobs and layers that no image has: the rest of failed pulls, and of images whose names moved on and
    /// were removed. While a pull, load or push is under way it is left to that one's end. Blocking.
    ///
    /// # Errors
    /// The file system's.
    pub fn collect_garbage(&self) -> Result<Vec<Removed>, ImageError> {
        let inner = &self.inner;
        inner.sweep_wanted.store(true, Ordering::Release);
        let Ok(_alone) = inner.activity.try_write() else { return Ok(Vec::new()) };
        inner.sweep_wanted.store(false, Ordering::Release);
        let layers = inner.sweep()?;
        Ok(layers.into_iter().map(|chain| Removed::Deleted(chain.to_string())).collect())
    }
}

impl Inner {
    fn sweep(&self) -> Result<Vec<Digest>, ImageError> {
        let records = self.index.all()?;
        let blobs: BTreeSet<_> = records.iter().flat_map(Record::blobs).collect();
        let layers: BTreeSet<_> = records.iter().flat_map(|record| &record.layers).map(|layer| layer.chain).collect();
        self.folders.sweep(|blob| blobs.contains(&blob), |chain| layers.contains(&chain))
    }
}

/// The names that go: the one given, with the digests of its repository if it is the last tag there; or all of them.
fn names_to_remove(record: &Record, text: &str, force: bool) -> Result<BTreeSet<String>, ImageError> {
    let named = Reference::parse(text).ok().and_then(|reference| {
        let name = match reference.digest() {
            Some(digest) => reference.digested_name(digest),
            None => reference.tagged_name()?,
        };
        let is_name = record.tags.contains(&name) || record.repo_digests.contains(&name);
        is_name.then_some((name, reference.name()))
    });
    let all = || record.tags.iter().chain(&record.repo_digests).cloned().collect::<BTreeSet<_>>();
    if let Some((name, repository)) = named {
        let is_tag = record.tags.contains(&name);
        let others = record.tags.iter().any(|tag| *tag != name && repository_of(tag) == repository);
        let mut gone = BTreeSet::from([name]);
        if is_tag && !others {
            gone.extend(record.repo_digests.iter().filter(|digest| repository_of(digest) == repository).cloned());
        }
        return Ok(gone);
    }
    let repositories: BTreeSet<_> =
        record.tags.iter().chain(&record.repo_digests).map(|name| repository_of(name)).collect();
    if repositories.len() > 1 && !force {
        let names = record.tags.iter().map(|tag| familiar_name(tag)).collect::<Vec<_>>().join(", ");
        return Err(ImageError::SeveralNames { id: record.id, names });
    }
    Ok(all())
}

fn repository_of(name: &str) -> &str {
    match name.split_once('@') {
        Some((repository, _)) => repository,
        None => name.rsplit_once(':').map_or(name, |(repository, _)| repository),
    }
}
