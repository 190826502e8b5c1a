//! From this node to a registry.

use std::sync::Arc;

use futures::TryStreamExt as _;
use oci_client::RegistryOperation;

use super::auth::RegistryAuth;
use super::digest::Digest;
use super::error::ImageError;
use super::limits::DOWNLOADS_AT_ONCE;
use super::manifest;
use super::reference::Reference;
use super::registry::{BlobReport, Session};
use super::store::{Activity, ImageStore, PullProgress, PullStep, Report};

impl ImageStore {
    /// Sends an image to the registry that its name names, as Docker does: tag it first. Returns the digest by which
    /// it can be pulled.
    ///
    /// # Errors
    /// No such image, a name with a digest, or the registry's answer.
    ///
    /// # Cancel safety
    /// Blobs that were sent stay there; the name appears last.
    pub async fn push(
        &self,
        reference: &str,
        auth: Option<&RegistryAuth>,
        progress: impl Fn(PullProgress) + Send + Sync,
    ) -> Result<String, ImageError> {
        let reference = Reference::parse(reference)?;
        if reference.digest().is_some() {
            return Err(ImageError::Pinned(reference.familiar()));
        }
        let activity = self.begin().await;
        let pushed = self.push_in(&reference, auth, &activity, &progress).await;
        self.end(activity).await;
        pushed.map(|digest| digest.to_string())
    }

    async fn push_in(
        &self,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
        _activity: &Activity,
        report: Report<'_>,
    ) -> Result<Digest, ImageError> {
        let name = reference.familiar();
        let record = self.inner.find(&name)?;
        let manifest = self.inner.folders.read(record.manifest)?;
        let session = Session::open(&self.inner.policy, reference, auth, RegistryOperation::Push).await?;
        let mut blobs: Vec<Digest> = record.layers.iter().map(|layer| layer.blob).chain([record.id.0]).collect();
        blobs.sort();
        blobs.dedup();
        let (session, name) = (&session, &name);
        let sent = futures::stream::iter(blobs.into_iter().map(Ok)).try_for_each_concurrent(
            DOWNLOADS_AT_ONCE / 2,
            |digest| async move {
                let tell = |step| report(PullProgress { layer: Some(digest), step });
                let blob = self.inner.folders.blob(digest);
                let total = match tokio::fs::metadata(&blob).await {
                    Ok(metadata) => metadata.len(),
                    Err(_) => return Err(ImageError::BlobMissing { reference: name.clone(), digest }),
                };
                let told = |news: BlobReport<'_>| {
                    tell(match news {
                        BlobReport::Moved(done) => PullStep::Uploading { done, total },
                        BlobReport::Retrying(error) => PullStep::Retrying(error.to_string()),
                    });
                };
                let sent = session.upload(digest, &blob, &told).await?;
                tell(if sent { PullStep::Done } else { PullStep::Exists });
                Ok(())
            },
        );
        sent.await?;
        let media_type = manifest::media_type_of(&manifest);
        session.put_manifest(manifest, &media_type).await?;
        let (inner, digested, id) = (Arc::clone(&self.inner), reference.digested_name(record.manifest), record.id);
        tokio::task::spawn_blocking(move || {
            let _lock = inner.index.lock();
            // It may have been removed meanwhile: then there is nothing to remember.
            match inner.index.by_id(id)? {
                Some(mut record) => {
                    record.repo_digests.insert(digested);
                    inner.index.put(record, &inner.folders)
                }
                None => Ok(()),
            }
        })
        .await??;
        report(PullProgress { layer: None, step: PullStep::Done });
        Ok(record.manifest)
    }
}
