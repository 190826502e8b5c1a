//! The images of this node.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustix::fs::{FlockOperation, flock};
use tokio::sync::{OwnedMutexGuard, OwnedRwLockReadGuard, RwLock, Semaphore};

use super::blobs::Folders;
use super::config::{self, ImageConfig};
use super::digest::{Digest, ImageId};
use super::error::ImageError;
use super::index::{Index, LayerRecord, Record};
use super::limits::DOWNLOADS_AT_ONCE;
use super::reference::{Reference, familiar_name};
use super::registry::RegistryPolicy;

/// The images of this node: pulled, loaded, listed, removed. Cheap to clone; all clones are one store.
#[derive(Clone)]
pub struct ImageStore {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub folders: Folders,
    pub index: Index,
    pub policy: RegistryPolicy,
    /// Read by whoever brings content, written by whoever sweeps it.
    pub activity: Arc<RwLock<()>>,
    /// A sweep could not be done because content was coming.
    pub sweep_wanted: AtomicBool,
    pub downloads: Semaphore,
    pub unpacks: Semaphore,
    pub blob_locks: Locks,
    pub layer_locks: Locks,
    /// A second daemon on the same folder is refused by the kernel.
    _lock: File,
}

/// An image, ready to run.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its config.
    pub id: ImageId,
    /// Its defaults for containers.
    pub config: ImageConfig,
    /// Unpacked layers, bottom first: give them to [`mount_rootfs`](super::mount_rootfs).
    pub layers: Vec<PathBuf>,
    /// `nginx:latest`.
    pub repo_tags: Vec<String>,
    /// `nginx@sha256:…`.
    pub repo_digests: Vec<String>,
    /// Bytes of its files.
    pub size: u64,
}

/// One line of `image ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The digest of its config.
    pub id: ImageId,
    /// `nginx:latest`; none for an image whose name went to another one.
    pub repo_tags: Vec<String>,
    /// `nginx@sha256:…`; none for an image that was never at a registry.
    pub repo_digests: Vec<String>,
    /// When the image says that it was built, RFC 3339.
    pub created: Option<String>,
    /// Bytes of its files, unpacked.
    pub size: u64,
}

/// What a pull, load or push is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The blob that this is about; none for the image as a whole.
    pub layer: Option<Digest>,
    /// The step.
    pub step: PullStep,
}

/// One step of a pull, load or push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PullStep {
    /// The name stands for this manifest.
    Resolved(Digest),
    /// It is here (pull) or there (push) already.
    Exists,
    /// Bytes received.
    Downloading {
        /// So far.
        done: u64,
        /// Of these.
        total: u64,
    },
    /// Bytes sent.
    Uploading {
        /// So far.
        done: u64,
        /// Of these.
        total: u64,
    },
    /// Tried again, because of this.
    Retrying(String),
    /// Being unpacked.
    Unpacking,
    /// Ready.
    Done,
}

pub(super) type Report<'a> = &'a (dyn Fn(PullProgress) + Send + Sync);

/// Keeps content from being swept while it has no record yet. Blocking work that outlives its caller holds a clone.
pub(super) type Activity = Arc<OwnedRwLockReadGuard<()>>;

/// One lock for each digest in work: what two pulls share is brought once.
#[derive(Default)]
pub(super) struct Locks(Mutex<HashMap<Digest, Weak<tokio::sync::Mutex<()>>>>);

impl Locks {
    pub(super) async fn lock(&self, digest: Digest) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            match locks.get(&digest).and_then(Weak::upgrade) {
                Some(lock) => lock,
                None => {
                    let lock = Arc::default();
                    locks.insert(digest, Arc::downgrade(&lock));
                    lock
                }
            }
        };
        lock.lock_owned().await
    }
}

/// What is known of an image that came: where its blobs and layers are is known by their digests.
pub(super) struct Arrived {
    pub id: ImageId,
    pub manifest: Digest,
    pub index: Option<Digest>,
    pub created: Option<String>,
    pub layers: Vec<LayerRecord>,
    pub tags: Vec<String>,
    pub repo_digest: Option<String>,
}

/// One layer to bring: its blob, and what it must unpack to.
#[derive(Clone, Copy)]
pub(super) struct LayerPlan {
    pub blob: Digest,
    pub diff_id: Digest,
    pub chain: Digest,
}

impl ImageStore {
    /// Opens the store in a folder, making it where it is missing. Blocking.
    ///
    /// # Errors
    /// The folder cannot be used, another process uses it, or the policy names something that is no registry.
    pub fn open(path: &Path, policy: RegistryPolicy) -> Result<Self, ImageError> {
        policy.check()?;
        std::fs::create_dir_all(path).map_err(ImageError::io("make the folder", path))?;
        let path = path.canonicalize().map_err(ImageError::io("find", path))?;
        let lock_path = path.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(ImageError::io("open", &lock_path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(ImageError::Locked { path });
        }
        let folders = Folders::open(&path)?;
        let index = Index::open(&path, &folders)?;
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        Ok(Self {
            inner: Arc::new(Inner {
                folders,
                index,
                policy,
                activity: Arc::default(),
                sweep_wanted: AtomicBool::new(false),
                downloads: Semaphore::new(DOWNLOADS_AT_ONCE),
                unpacks: Semaphore::new(processors),
                blob_locks: Locks::default(),
                layer_locks: Locks::default(),
                _lock: lock,
            }),
        })
    }

    /// Finds an image by name, `name@digest`, id, `sha256:id` or the first digits of an id. An image whose files are
    /// damaged or gone is not found, so that it is pulled again. Blocking, for as long as reading a small file takes.
    #[must_use]
    pub fn get(&self, reference: &str) -> Option<Image> {
        let record = self.inner.find(reference).ok()?;
        self.inner
            .image(&record)
            .inspect_err(|error| tracing::warn!(image = %record.id, %error, "image is damaged"))
            .ok()
    }

    /// All images, the latest named first. Blocking, for as long as reading the index takes.
    #[must_use]
    pub fn list(&self) -> Vec<ImageSummary> {
        let mut records = self.inner.index.all().unwrap_or_else(|error| {
            tracing::error!(%error, "image index cannot be read");
            Vec::new()
        });
        records.sort_by_key(|record| std::cmp::Reverse(record.named));
        records.iter().map(summary).collect()
    }

    /// Gives an image another name. Blocking.
    ///
    /// # Errors
    /// No such image, or the target is no name with a tag.
    pub fn tag(&self, source: &str, target: &str) -> Result<(), ImageError> {
        let target = Reference::parse(target)?;
        let name = match (target.tagged_name(), target.digest()) {
            (Some(name), None) => name,
            _ => return Err(ImageError::Pinned(target.familiar())),
        };
        let _lock = self.inner.index.lock();
        let mut record = self.inner.find(source)?;
        record.tags.insert(name);
        self.inner.index.put(record, &self.inner.folders)
    }

    /// Whether a registry accepts credentials: what `login` asks before it stores them.
    ///
    /// # Errors
    /// It refuses them, or cannot be asked.
    pub async fn check_login(&self, registry: &str, auth: &super::RegistryAuth) -> Result<(), ImageError> {
        let name = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let name = name.trim_end_matches("/v1").trim_end_matches("/v2").trim_end_matches('/');
        // One grammar for registries: that of the names which use them.
        let reference = Reference::parse(&format!("{name}/login"))?;
        if reference.registry() == "docker.io" && !matches!(name, "docker.io" | "index.docker.io") {
            return Err(super::ReferenceError {
                text: registry.to_owned(),
                problem: super::ReferenceProblem::Registry(name.to_owned()),
            }
            .into());
        }
        let endpoint = super::registry::Endpoint::open(&self.inner.policy, reference.registry())?;
        Ok(super::registry::retry(|_| {}, || super::token::check(&endpoint, auth)).await?)
    }

    /// Waits until nothing is swept, and keeps it so.
    pub(super) async fn begin(&self) -> Activity {
        Arc::new(Arc::clone(&self.inner.activity).read_owned().await)
    }

    /// Sweeps, if somebody wanted it while content was coming.
    pub(super) async fn end(&self, activity: Activity) {
        drop(activity);
        if self.inner.sweep_wanted.load(Ordering::Acquire) {
            let store = self.clone();
            match tokio::task::spawn_blocking(move || store.collect_garbage()).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "unused image content not removed"),
                Err(error) => tracing::warn!(%error, "unused image content not removed"),
            }
        }
    }

    /// Unpacks a layer whose blob is here, unless that was done before.
    pub(super) async fn unpack(
        &self,
        reference: &str,
        layer: LayerPlan,
        activity: &Activity,
        report: Report<'_>,
    ) -> Result<LayerRecord, ImageError> {
        let tell = |step| report(PullProgress { layer: Some(layer.blob), step });
        let lock = self.inner.layer_locks.lock(layer.chain).await;
        let inner = Arc::clone(&self.inner);
        let size = if inner.folders.has_layer(layer.chain) {
            match inner.layer_size(layer.chain)? {
                Some(size) => size,
                None => tokio::task::spawn_blocking(move || inner.folders.measure(layer.chain)).await?,
            }
        } else {
            let _slot = inner.unpacks.acquire().await.expect("the semaphore is never closed");
            tell(PullStep::Unpacking);
            let (reference, activity) = (reference.to_owned(), Arc::clone(activity));
            let work = Arc::clone(&self.inner);
            tokio::task::spawn_blocking(move || {
                // This goes on when the caller does not wait any more: nobody else may touch the layer then.
                let _held = (lock, activity);
                work.folders.unpack(&reference, layer.blob, layer.diff_id, layer.chain)
            })
            .await??
        };
        tell(PullStep::Done);
        Ok(LayerRecord { blob: layer.blob, chain: layer.chain, size })
    }
}

impl Inner {
    pub(super) fn find(&self, text: &str) -> Result<Record, ImageError> {
        let unknown = || ImageError::Unknown(text.to_owned());
        let full = text.parse::<Digest>().ok().or_else(|| Digest::from_hex(text));
        if let Some(digest) = full {
            if let Some(record) = self.index.by_id(ImageId(digest))? {
                return Ok(record);
            }
            let suffix = format!("@{digest}");
            let by_manifest = |record: &Record| {
                record.manifest == digest || record.repo_digests.iter().any(|name| name.ends_with(&suffix))
            };
            return self.index.all()?.into_iter().find(by_manifest).ok_or_else(unknown);
        }
        let reference = Reference::parse(text)?;
        let name = match reference.digest() {
            Some(digest) => reference.digested_name(digest),
            None => reference.tagged_name().ok_or_else(unknown)?,
        };
        if let Some(record) = self.index.by_name(&name)? {
            return Ok(record);
        }
        if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            let mut found = self.index.by_prefix(text)?;
            if found.len() > 1 {
                return Err(ImageError::Ambiguous(text.to_owned()));
            }
            return found.pop().ok_or_else(unknown);
        }
        Err(unknown())
    }

    pub(super) fn image(&self, record: &Record) -> Result<Image, ImageError> {
        let json = self.folders.read(record.id.0)?;
        let (config, _) =
            config::parse(&json).map_err(|source| ImageError::Config { reference: record.id.to_string(), source })?;
        let mut layers = Vec::with_capacity(record.layers.len());
        for layer in &record.layers {
            let path = self.folders.layer(layer.chain);
            std::fs::symlink_metadata(&path).map_err(ImageError::io("find the layer", &path))?;
            layers.push(path);
        }
        let ImageSummary { id, repo_tags, repo_digests, size, .. } = summary(record);
        Ok(Image { id, config, layers, repo_tags, repo_digests, size })
    }

    fn layer_size(&self, chain: Digest) -> Result<Option<u64>, ImageError> {
        let records = self.index.all()?;
        Ok(records.iter().flat_map(|record| &record.layers).find(|layer| layer.chain == chain).map(|layer| layer.size))
    }

    /// Makes an image known, with its names. Blocking.
    pub(super) fn commit(&self, arrived: Arrived) -> Result<Image, ImageError> {
        let _lock = self.index.lock();
        let (mut tags, mut repo_digests) = match self.index.by_id(arrived.id)? {
            Some(before) => (before.tags, before.repo_digests),
            None => (BTreeSet::new(), BTreeSet::new()),
        };
        tags.extend(arrived.tags);
        repo_digests.extend(arrived.repo_digest);
        let record = Record {
            id: arrived.id,
            manifest: arrived.manifest,
            index: arrived.index,
            layers: arrived.layers,
            tags,
            repo_digests,
            created: arrived.created,
            named: 0,
        };
        self.index.put(record.clone(), &self.folders)?;
        self.image(&record)
    }
}

fn summary(record: &Record) -> ImageSummary {
    let familiar = |names: &BTreeSet<String>| names.iter().map(|name| familiar_name(name).to_owned()).collect();
    ImageSummary {
        id: record.id,
        repo_tags: familiar(&record.tags),
        repo_digests: familiar(&record.repo_digests),
        created: record.created.clone(),
        size: record.layers.iter().map(|layer| layer.size).sum(),
    }
}
