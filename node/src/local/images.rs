//! Images of this node, and the registries it speaks to.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures::StreamExt;
use rswarm_api::pb;
use rswarm_runtime::image::{
    Digest, ImageError, ImageId, ImageStore, PullProgress, PullStep, Reference, RegistryAuth, Removed,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::LocalApi;
use super::service::ProgressStream;
use crate::membership::chain;

/// Reports that wait for a slow reader; more are dropped, the last state counts.
const PROGRESS_QUEUE: usize = 256;
/// Bytes of an archive between the socket and the unpacker.
const LOAD_BUFFER: usize = 1 << 20;

type Report = Result<pb::ImageProgress, Status>;

/// Where a transfer's steps go, and what a finished one is called.
struct Teller(mpsc::Sender<Report>, &'static str);

impl Teller {
    /// A full queue loses a step on the way, never the result.
    fn tell(&self, progress: PullProgress) {
        let _ = self.0.try_send(Ok(shown(progress, self.1)));
    }
}

/// What was told of each layer of a pull: a layer either exists already or is completed, never both.
#[derive(Default)]
struct Layers {
    /// The blob is here; whether it must be unpacked is not known yet.
    held: BTreeSet<Digest>,
    finished: BTreeSet<Digest>,
    /// What the name stands for at its registry.
    manifest: Option<Digest>,
}

impl Layers {
    /// What to tell of a step.
    fn next(&mut self, progress: PullProgress) -> Option<PullProgress> {
        let Some(layer) = progress.layer else {
            if let PullStep::Resolved(digest) = progress.step {
                self.manifest = Some(digest);
            }
            return None;
        };
        if self.finished.contains(&layer) {
            return None;
        }
        match progress.step {
            PullStep::Exists => {
                self.held.insert(layer);
                None
            }
            PullStep::Done => {
                self.finished.insert(layer);
                let step = if self.held.remove(&layer) { PullStep::Exists } else { PullStep::Done };
                Some(PullProgress { layer: Some(layer), step })
            }
            step => {
                self.held.remove(&layer);
                Some(PullProgress { layer: Some(layer), step })
            }
        }
    }
}

/// A line of a transfer that is about no layer.
fn words(status: String) -> pb::ImageProgress {
    pb::ImageProgress { status, ..Default::default() }
}

/// `docker.io/library/nginx:1.27`: what was asked for, in full.
fn full_name(reference: &Reference) -> String {
    let name = reference.name();
    match (reference.tag(), reference.digest()) {
        (_, Some(digest)) => format!("{name}@{digest}"),
        (Some(tag), None) => format!("{name}:{tag}"),
        (None, None) => name,
    }
}

/// Both ends of a transfer's reports.
struct Reports {
    sender: mpsc::Sender<Report>,
    receiver: mpsc::Receiver<Report>,
}

fn refused(error: &ImageError) -> Status {
    let text = chain(error);
    match error {
        ImageError::Unknown(_) => Status::not_found(text),
        ImageError::InUse { .. } | ImageError::SeveralNames { .. } => Status::already_exists(text),
        ImageError::Reference(_) | ImageError::Ambiguous(_) => Status::invalid_argument(text),
        _ => Status::unknown(text),
    }
}

fn auth(header: &str) -> Result<Option<RegistryAuth>, Status> {
    RegistryAuth::from_docker_header(header).map_err(|e| Status::invalid_argument(chain(&e)))
}

/// Which image a name stands for here.
async fn known(images: &ImageStore, reference: &str) -> Option<ImageId> {
    let (images, reference) = (images.clone(), reference.to_owned());
    tokio::task::spawn_blocking(move || images.get(&reference).map(|image| image.id)).await.ok().flatten()
}

/// `done` is what a finished layer is called.
fn shown(progress: PullProgress, done: &str) -> pb::ImageProgress {
    let layer = progress.layer.map(|d| d.to_string()).unwrap_or_default();
    let (status, current, total) = match progress.step {
        PullStep::Resolved(digest) => (format!("Digest: {digest}"), 0, 0),
        PullStep::Exists => ("Already exists".into(), 0, 0),
        PullStep::Downloading { done, total } => ("Downloading".into(), done, total),
        PullStep::Uploading { done, total } => ("Pushing".into(), done, total),
        PullStep::Retrying(why) => (format!("Retrying: {why}"), 0, 0),
        PullStep::Unpacking => ("Extracting".into(), 0, 0),
        PullStep::Done => (done.into(), 0, 0),
    };
    pb::ImageProgress { layer, status, current, total, done: String::new() }
}

impl LocalApi {
    pub(super) async fn resolve(&self, request: pb::ResolveImageRequest) -> Result<pb::ResolvedImage, Status> {
        let auth = auth(&request.registry_auth)?;
        let resolved = self.daemon.images.resolve(&request.reference, auth.as_ref()).await.map_err(|e| refused(&e))?;
        Ok(pb::ResolvedImage {
            reference: resolved.pinned(),
            platforms: resolved
                .platforms
                .into_iter()
                .map(|(os, architecture)| pb::Platform { os, architecture })
                .collect(),
            warning: String::new(),
        })
    }

    pub(super) async fn pull(&self, request: pb::PullImageRequest) -> Result<ProgressStream, Status> {
        let auth = auth(&request.registry_auth)?;
        let reference = Reference::parse(&request.reference).map_err(|e| refused(&ImageError::Reference(e)))?;
        let images = self.daemon.images.clone();
        let (tell, reports) = Self::reports("Pull complete");
        let lines = reports.sender.clone();
        Ok(self.run(reports, async move {
            let say = async |text: String| {
                // A reader that left does not want it.
                let _ = lines.send(Ok(words(text))).await;
            };
            let selector = reference.digest().map(|digest| digest.to_string());
            let selector = selector.or_else(|| reference.tag().map(str::to_owned)).unwrap_or_default();
            say(format!("{selector}: Pulling from {}", reference.repository())).await;
            let before = known(&images, &request.reference).await;
            let layers = Mutex::new(Layers::default());
            let told = |step| {
                let next = layers.lock().unwrap_or_else(PoisonError::into_inner).next(step);
                if let Some(step) = next {
                    tell.tell(step);
                }
            };
            let image = images.pull(&request.reference, auth.as_ref(), told).await?;
            let manifest = layers.into_inner().unwrap_or_else(PoisonError::into_inner).manifest.or(reference.digest());
            if let Some(digest) = manifest {
                say(format!("Digest: {digest}")).await;
            }
            let is_news = before != Some(image.id);
            let what = if is_news { "Downloaded newer image for" } else { "Image is up to date for" };
            say(format!("Status: {what} {}", reference.familiar())).await;
            Ok(full_name(&reference))
        }))
    }

    pub(super) async fn push(&self, request: pb::PullImageRequest) -> Result<ProgressStream, Status> {
        let auth = auth(&request.registry_auth)?;
        let images = self.daemon.images.clone();
        let (tell, reports) = Self::reports("Pushed");
        Ok(self.run(reports, async move {
            images.push(&request.reference, auth.as_ref(), move |step| tell.tell(step)).await
        }))
    }

    fn reports(done: &'static str) -> (Teller, Reports) {
        let (sender, receiver) = mpsc::channel(PROGRESS_QUEUE);
        (Teller(sender.clone(), done), Reports { sender, receiver })
    }

    /// Runs a transfer to its end, even if the reader goes, and reports its result last.
    fn run(
        &self,
        reports: Reports,
        transfer: impl Future<Output = Result<String, ImageError>> + Send + 'static,
    ) -> ProgressStream {
        let Reports { sender, receiver } = reports;
        self.daemon.tasks.spawn(async move {
            let last = match transfer.await {
                Ok(done) => Ok(pb::ImageProgress { done, ..Default::default() }),
                Err(error) => Err(refused(&error)),
            };
            // A reader that left does not want it.
            let _ = sender.send(last).await;
        });
        ReceiverStream::new(receiver).boxed()
    }

    pub(super) async fn load(&self, mut chunks: Streaming<pb::ImageChunk>) -> Result<pb::LoadImageReply, Status> {
        let (mut writer, reader) = tokio::io::duplex(LOAD_BUFFER);
        let feed = async move {
            while let Some(chunk) = chunks.message().await? {
                if writer.write_all(&chunk.data).await.is_err() {
                    // The unpacker refused: its own error says why.
                    break;
                }
            }
            Ok::<_, Status>(())
        };
        let (fed, loaded) = tokio::join!(feed, self.daemon.images.load(reader));
        let loaded = loaded.map_err(|e| refused(&e))?;
        fed?;
        let lines = loaded
            .into_iter()
            .flat_map(|image| if image.references.is_empty() { vec![image.id.to_string()] } else { image.references });
        Ok(pb::LoadImageReply { loaded: lines.collect() })
    }

    pub(super) async fn image_list(&self, _: pb::Empty) -> Result<pb::ImageList, Status> {
        let images = self.daemon.images.list().into_iter().map(|image| pb::Image {
            id: image.id.to_string(),
            tags: image.repo_tags,
            digests: image.repo_digests,
            created_at: image.created.as_deref().map(crate::local::info::unix_ms).unwrap_or_default(),
            size: image.size,
        });
        Ok(pb::ImageList { images: images.collect() })
    }

    pub(super) async fn drop_image(&self, request: pb::RemoveImageRequest) -> Result<pb::RemoveImageReply, Status> {
        let used = self.images_in_use().await;
        let images = self.daemon.images.clone();
        let removed = tokio::task::spawn_blocking(move || {
            images.remove(&request.reference, request.force, &|id: &ImageId| used.contains(id))
        })
        .await
        .map_err(|e| Status::internal(e.to_string()))?
        .map_err(|e| refused(&e))?;
        let mut reply = pb::RemoveImageReply::default();
        for line in removed {
            match line {
                Removed::Untagged(name) => reply.untagged.push(name),
                Removed::Deleted(id) => reply.deleted.push(id),
            }
        }
        Ok(reply)
    }

    async fn images_in_use(&self) -> Vec<ImageId> {
        let containers = {
            let member = self.daemon.member.lock().await;
            match member.as_ref() {
                Some(member) => member.worker.containers().await,
                None => Vec::new(),
            }
        };
        containers.iter().filter_map(|c| self.daemon.images.get(&c.image)).map(|image| image.id).collect()
    }

    pub(super) async fn login(&self, request: pb::LoginRequest) -> Result<pb::LoginReply, Status> {
        let auth = auth(&request.registry_auth)?
            .ok_or_else(|| Status::invalid_argument("a user name and a password are needed"))?;
        self.daemon.images.check_login(&request.registry, &auth).await.map_err(|e| refused(&e))?;
        Ok(pb::LoginReply { status: "Login Succeeded".into(), identity_token: String::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_exists_already_or_is_completed_never_both() {
        let digest = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse::<Digest>().expect("a digest");
        let (here, blob, new) = (digest("a"), digest("b"), digest("c"));
        let mut layers = Layers::default();
        let mut told = Vec::new();
        for (layer, step) in [
            (None, PullStep::Resolved(digest("f"))),
            (Some(here), PullStep::Exists),
            (Some(blob), PullStep::Exists),
            (Some(new), PullStep::Downloading { done: 0, total: 1 }),
            (Some(here), PullStep::Done),
            (Some(blob), PullStep::Unpacking),
            (Some(blob), PullStep::Done),
            (Some(new), PullStep::Done),
            // Its second place in the image.
            (Some(new), PullStep::Exists),
            (Some(new), PullStep::Done),
        ] {
            told.extend(layers.next(PullProgress { layer, step }).map(|p| shown(p, "Pull complete")));
        }
        let told: Vec<String> = told.iter().map(|p| format!("{} {}", &p.layer[7..8], p.status)).collect();
        assert_eq!(told, ["c Downloading", "a Already exists", "b Extracting", "b Pull complete", "c Pull complete"]);
        assert_eq!(layers.manifest, Some(digest("f")));
    }

    #[test]
    fn the_last_line_names_what_was_asked_for() {
        for (asked, full) in
            [("nginx", "docker.io/library/nginx:latest"), ("registry:5001/nginx:1.22", "registry:5001/nginx:1.22")]
        {
            assert_eq!(full_name(&Reference::parse(asked).expect("a reference")), full);
        }
    }
}
