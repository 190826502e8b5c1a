//! From a registry to this node.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use oci_client::RegistryOperation;

use super::auth::RegistryAuth;
use super::config::{self, ConfigError};
use super::digest::{Digest, ImageId};
use super::error::ImageError;
use super::limits::DOWNLOADS_AT_ONCE;
use super::manifest::{self, Descriptor, Document, Manifest};
use super::reference::Reference;
use super::registry::{BlobReport, Fetched, Session};
use super::store::{Activity, Arrived, Image, ImageStore, LayerPlan, PullProgress, PullStep, Report};

/// What a name stood for when its registry was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The name in its short form, with its tag and without its digest: `nginx:latest`.
    pub reference: String,
    /// The manifest's or index' digest: `sha256:…`.
    pub digest: String,
    /// (os, architecture) in Go's words: what the image runs on.
    pub platforms: Vec<(String, String)>,
}

impl Resolved {
    /// `nginx:latest@sha256:…`: what a task shall run.
    #[must_use]
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.reference, self.digest)
    }
}

impl ImageStore {
    /// Asks the registry what a name stands for, and what that runs on. Of the image only its config is kept.
    ///
    /// # Errors
    /// The name is none, the registry cannot be asked or says no, or it is no image.
    ///
    /// # Cancel safety
    /// Nothing is left behind that garbage collection does not find.
    pub async fn resolve(&self, reference: &str, auth: Option<&RegistryAuth>) -> Result<Resolved, ImageError> {
        let reference = Reference::parse(reference)?;
        let session = Session::open(&self.inner.policy, &reference, auth, RegistryOperation::Pull).await?;
        let fetched = session.manifest(&selector(&reference)).await?;
        let platforms = match parse(&reference, &fetched.bytes)? {
            Document::Index(entries) => manifest::platforms(&entries),
            Document::Image(manifest) => {
                let activity = self.begin().await;
                self.bring_blob(&session, &manifest.config, &|_| {}).await?;
                let (config, _) = self.read_config(&reference, manifest.config.digest)?;
                self.end(activity).await;
                vec![(manifest::normal_os(&config.os), manifest::normal_arch(&config.arch))]
            }
        };
        let short = reference.familiar();
        let short = short.split_once('@').map_or(short.as_str(), |(name, _)| name);
        Ok(Resolved { reference: short.to_owned(), digest: fetched.digest.to_string(), platforms })
    }

    /// Brings an image here, ready to run: `name[:tag][@digest]`. Blobs come in parallel, are checked, and go on where
    /// an earlier try ended; what several pulls share comes once. An image that is named by its digest and is here
    /// already is not asked for again.
    ///
    /// # Errors
    /// Names the image, the registry and its answer, and what to do.
    ///
    /// # Cancel safety
    /// What was downloaded is used by the next pull; no half image is ever seen.
    pub async fn pull(
        &self,
        reference: &str,
        auth: Option<&RegistryAuth>,
        progress: impl Fn(PullProgress) + Send + Sync,
    ) -> Result<Image, ImageError> {
        let reference = Reference::parse(reference)?;
        let activity = self.begin().await;
        let pulled = self.pull_in(&reference, auth, &activity, &progress).await;
        self.end(activity).await;
        pulled
    }

    async fn pull_in(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
        activity: &Activity,
        report: Report<'_>,
    ) -> Result<Image, ImageError> {
        if let Some(digest) = reference.digest() {
            let (store, name) = (self.clone(), reference.digested_name(digest));
            if let Some(image) = tokio::task::spawn_blocking(move || store.get(&name)).await? {
                report(PullProgress { layer: None, step: PullStep::Exists });
                return Ok(image);
            }
        }
        let session = Session::open(&self.inner.policy, reference, auth, RegistryOperation::Pull).await?;
        let named = session.manifest(&selector(reference)).await?;
        report(PullProgress { layer: None, step: PullStep::Resolved(named.digest) });
        let (index, chosen, manifest) = choose(reference, &session, named).await?;
        let index = match index {
            Some(index) => Some(self.put_blob(index.bytes).await?),
            None => None,
        };
        let manifest_digest = self.put_blob(chosen.bytes).await?;

        // The config is no layer: only its troubles are told.
        let troubles = |progress: PullProgress| {
            if matches!(progress.step, PullStep::Retrying(_)) {
                report(progress);
            }
        };
        self.bring_blob(&session, &manifest.config, &troubles).await?;
        let (config, diff_ids) = self.read_config(reference, manifest.config.digest)?;
        let layers = plan_layers(reference, &diff_ids, &manifest)?;
        let session = &session;
        // Owned: with a borrowed blob the compiler cannot prove the stream `Send`.
        let layers: Vec<(Descriptor, LayerPlan)> =
            layers.into_iter().map(|(blob, plan)| (blob.clone(), plan)).collect();
        let layers = futures::stream::iter(layers.into_iter().map(|(blob, plan)| async move {
            self.bring_blob(session, &blob, report).await?;
            self.unpack(&reference.familiar(), plan, activity, report).await
        }));
        let layers = layers.buffered(2 * DOWNLOADS_AT_ONCE).try_collect().await?;
        let arrived = Arrived {
            id: ImageId(manifest.config.digest),
            manifest: manifest_digest,
            index,
            created: config.created,
            layers,
            tags: if reference.digest().is_some() { Vec::new() } else { reference.tagged_name().into_iter().collect() },
            repo_digest: Some(reference.digested_name(index.unwrap_or(manifest_digest))),
        };
        let inner = Arc::clone(&self.inner);
        let image = tokio::task::spawn_blocking(move || inner.commit(arrived)).await??;
        report(PullProgress { layer: None, step: PullStep::Done });
        Ok(image)
    }

    async fn put_blob(&self, bytes: Vec<u8>) -> Result<Digest, ImageError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || inner.folders.put(&bytes)).await?
    }

    /// Downloads a blob unless it is here.
    async fn bring_blob(&self, session: &Session, blob: &Descriptor, report: Report<'_>) -> Result<(), ImageError> {
        let tell = |step| report(PullProgress { layer: Some(blob.digest), step });
        let _lock = self.inner.blob_locks.lock(blob.digest).await;
        let folders = &self.inner.folders;
        if folders.has_blob(blob.digest) {
            tell(PullStep::Exists);
            return Ok(());
        }
        let _slot = self.inner.downloads.acquire().await.expect("the semaphore is never closed");
        tell(PullStep::Downloading { done: 0, total: blob.size });
        let partial = folders.partial(blob.digest);
        let told = |news: BlobReport<'_>| {
            tell(match news {
                BlobReport::Moved(done) => PullStep::Downloading { done, total: blob.size },
                BlobReport::Retrying(error) => PullStep::Retrying(error.to_string()),
            });
        };
        session.download(blob.digest, blob.size, &partial, &told).await?;
        let (inner, digest) = (Arc::clone(&self.inner), blob.digest);
        tokio::task::spawn_blocking(move || inner.folders.adopt(&partial, digest)).await?
    }

    fn read_config(
        &self,
        reference: &Reference,
        digest: Digest,
    ) -> Result<(config::ImageConfig, Vec<Digest>), ImageError> {
        let json = self.inner.folders.read(digest)?;
        config::parse(&json).map_err(|source| ImageError::Config { reference: reference.familiar(), source })
    }
}

/// What to ask the registry for: the digest if there is one.
fn selector(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

fn parse(reference: &Reference, bytes: &[u8]) -> Result<Document, ImageError> {
    manifest::parse(bytes).map_err(|source| ImageError::Manifest { reference: reference.familiar(), source })
}

/// The image for this host: (the index that it was chosen from, its manifest, the same read).
async fn choose(
    reference: &Reference,
    session: &Session,
    named: Fetched,
) -> Result<(Option<Fetched>, Fetched, Manifest), ImageError> {
    let refused = |source| ImageError::Manifest { reference: reference.familiar(), source };
    let entries = match parse(reference, &named.bytes)? {
        Document::Image(manifest) => return Ok((None, named, manifest)),
        Document::Index(entries) => entries,
    };
    let entry = manifest::select(&entries, &manifest::host_platform()).map_err(refused)?;
    let chosen = session.manifest(&entry.digest.to_string()).await?;
    match parse(reference, &chosen.bytes)? {
        Document::Image(manifest) => Ok((Some(named), chosen, manifest)),
        Document::Index(_) => Err(refused(manifest::ManifestError::Nested)),
    }
}

/// Pairs a manifest's layers with the config's digests of what they unpack to.
fn plan_layers<'a>(
    reference: &Reference,
    diff_ids: &[Digest],
    manifest: &'a Manifest,
) -> Result<Vec<(&'a Descriptor, LayerPlan)>, ImageError> {
    if diff_ids.len() != manifest.layers.len() {
        let source = ConfigError::LayerCount { diff_ids: diff_ids.len(), layers: manifest.layers.len() };
        return Err(ImageError::Config { reference: reference.familiar(), source });
    }
    let chains = config::chain_ids(diff_ids);
    let pairs = manifest.layers.iter().zip(diff_ids).zip(chains);
    Ok(pairs
        .map(|((layer, diff_id), chain)| (layer, LayerPlan { blob: layer.digest, diff_id: *diff_id, chain }))
        .collect())
}
