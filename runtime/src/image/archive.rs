//! `docker save` archives and OCI layouts, loaded without a registry.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use tokio::io::AsyncRead;

use super::blobs::{Folders, Unfinished};
use super::compression::{Bounded, Compression, TooLong, decoder};
use super::config;
use super::digest::{Digest, Hashing, ImageId};
use super::error::ImageError;
use super::limits::{ARCHIVE_ENTRIES_MAX, ARCHIVE_MAX, BLOB_MAX, JSON_MAX};
use super::manifest::{self, Descriptor, Document, Manifest, ManifestError};
use super::reference::{Reference, familiar_name};
use super::store::{Arrived, ImageStore, LayerPlan};
use super::tarball::{Kind, TarError, each_member, parts, printable};

/// An image that came from an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its identity.
    pub id: ImageId,
    /// The names that the archive gives it, short; maybe none.
    pub references: Vec<String>,
}

/// Why an archive holds no image.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It cannot be read, or is hostile.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Neither layout.
    #[error("it is neither a docker save archive (manifest.json) nor an OCI layout (index.json)")]
    NoImages,
    /// A file that another one refers to is not there.
    #[error("\"{0}\" is missing from it")]
    Missing(String),
    /// A file of JSON is damaged.
    #[error("\"{file}\" is not valid")]
    Json {
        /// Which.
        file: String,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
    /// A blob is not what its name says.
    #[error("\"{file}\" has the digest {actual}")]
    Digest {
        /// Which.
        file: String,
        /// Its content's.
        actual: Digest,
    },
    /// A document is longer than allowed.
    #[error("\"{file}\" has {size} bytes, allowed are {max}")]
    TooBig {
        /// Which.
        file: String,
        /// How long.
        size: u64,
        /// How long it may be.
        max: u64,
    },
    /// A manifest in it is refused.
    #[error("its manifest cannot be used")]
    Manifest(#[from] ManifestError),
}

/// A file of the archive, kept under a number: its name is never a path here.
#[derive(Clone)]
struct Kept {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

/// An archive, read once to the end.
struct Contents {
    files: HashMap<Vec<u8>, Kept>,
    /// Docker's older archives hold a layer once and link to it.
    links: HashMap<Vec<u8>, Vec<u8>>,
    folder: Unfinished,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct OciIndex {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// An image whose blobs are in the store, its layers not unpacked yet.
struct Found {
    id: ImageId,
    manifest: Digest,
    index: Option<Digest>,
    created: Option<String>,
    layers: Vec<LayerPlan>,
    names: Vec<Reference>,
}

impl ImageStore {
    /// Loads the images of a `docker save` archive or of an OCI layout in a tar, plain or packed by gzip or zstd.
    ///
    /// # Errors
    /// The archive is none, is hostile, or its layers do not match its configs. Nothing is loaded then.
    ///
    /// # Cancel safety
    /// Reading goes on until the archive fails or ends; no half image is ever seen.
    pub async fn load(&self, archive: impl AsyncRead + Send + Unpin + 'static) -> Result<Vec<LoadedImage>, ImageError> {
        let activity = self.begin().await;
        let (inner, held) = (Arc::clone(&self.inner), Arc::clone(&activity));
        let archive = tokio_util::io::SyncIoBridge::new(archive);
        let found = tokio::task::spawn_blocking(move || {
            let _held = held;
            let contents = read(archive, inner.folders.unfinished_dir("load")?)?;
            contents.images(&inner.folders)
        });
        let loaded = match found.await? {
            Ok(found) => self.load_found(found, &activity).await,
            Err(error) => Err(error),
        };
        self.end(activity).await;
        loaded
    }

    async fn load_found(
        &self,
        found: Vec<Found>,
        activity: &super::store::Activity,
    ) -> Result<Vec<LoadedImage>, ImageError> {
        let mut ready = Vec::new();
        for image in found {
            let name = image.names.first().map_or_else(|| image.id.to_string(), Reference::familiar);
            let layers =
                futures::stream::iter(image.layers.iter().map(|layer| self.unpack(&name, *layer, activity, &|_| {})));
            let layers = layers.buffered(8).boxed().try_collect().await?;
            ready.push((image, layers));
        }
        // All or nothing: names appear once every layer of every image is here.
        let mut loaded = Vec::new();
        for (image, layers) in ready {
            let tags: Vec<String> = image.names.iter().filter_map(Reference::tagged_name).collect();
            let references = tags.iter().map(|tag| familiar_name(tag).to_owned()).collect();
            let arrived = Arrived {
                id: image.id,
                manifest: image.manifest,
                index: image.index,
                created: image.created,
                layers,
                tags,
                repo_digest: None,
            };
            let inner = Arc::clone(&self.inner);
            tokio::task::spawn_blocking(move || inner.commit(arrived)).await??;
            loaded.push(LoadedImage { id: image.id, references });
        }
        Ok(loaded)
    }
}

fn read(archive: impl Read, folder: Unfinished) -> Result<Contents, ImageError> {
    let bound = TooLong { max: ARCHIVE_MAX, packed: 0 };
    let mut tar = Bounded::new(decoder(archive).map_err(|error| ArchiveError::from(TarError::Read(error)))?, bound);
    let mut contents = Contents { files: HashMap::new(), links: HashMap::new(), folder };
    let mut entries = 0;
    let read = each_member(&mut tar, |member, content| {
        entries += 1;
        if entries > ARCHIVE_ENTRIES_MAX {
            return Err(TarError::refused(&member.path, "the archive has more than 100,000 entries").into());
        }
        let name = parts(&member.path)?.join(&b'/');
        match member.kind {
            Kind::Directory => {}
            Kind::File => {
                let kept = contents.keep(&name, member.size, content)?;
                contents.files.insert(name, kept);
            }
            Kind::HardLink => drop(contents.links.insert(name, parts(&member.link)?.join(&b'/'))),
            Kind::Symlink => {
                let target = link_target(&name, &member.link)
                    .ok_or_else(|| TarError::refused(&member.path, "it links out of the archive"))?;
                contents.links.insert(name, target);
            }
            _ => return Err(TarError::refused(&member.path, "an archive of images holds files only").into()),
        }
        Ok::<_, ArchiveError>(())
    });
    match read {
        // Plain text, a zip, an empty file: a user's slip, not a damaged tar.
        Err(ArchiveError::Tar(TarError::Read(error))) if contents.files.is_empty() && !is_bound(&error) => {
            Err(ArchiveError::NoImages.into())
        }
        Err(error) => Err(error.into()),
        Ok(()) => {
            // The sender may still write the padding: a pipe closed early would be its error.
            io::copy(&mut tar, &mut io::sink()).map_err(|error| ArchiveError::from(TarError::Read(error)))?;
            tracing::debug!(bytes = tar.passed(), files = contents.files.len(), "image archive read");
            Ok(contents)
        }
    }
}

fn is_bound(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<TooLong>())
}

/// Where a symbolic link of the archive leads, if inside of it.
fn link_target(name: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    if link.starts_with(b"/") {
        return None;
    }
    let mut target: Vec<&[u8]> = name.split(|byte| *byte == b'/').collect();
    target.pop();
    for part in link.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(target.pop()?),
            _ => target.push(part),
        }
    }
    Some(target.join(&b'/'))
}

impl Contents {
    fn keep(&self, name: &[u8], size: u64, content: &mut dyn Read) -> Result<Kept, ArchiveError> {
        if size > BLOB_MAX {
            return Err(ArchiveError::TooBig { file: printable(name), size, max: BLOB_MAX });
        }
        let path = self.folder.path().join(self.files.len().to_string());
        let mut content = Hashing::new(content);
        let copied = File::create(&path).and_then(|mut file| {
            let copied = io::copy(&mut content, &mut file)?;
            file.flush().map(|()| copied)
        });
        if copied.map_err(TarError::Read)? != size {
            return Err(TarError::refused(name, "the archive ends in the middle of it").into());
        }
        Ok(Kept { path, digest: content.finish(), size })
    }

    fn find(&self, name: &str) -> Result<&Kept, ArchiveError> {
        let missing = || ArchiveError::Missing(printable(name.as_bytes()));
        let mut key = parts(name.as_bytes())?.join(&b'/');
        // One link to another is more than any tool writes.
        for _ in 0..4 {
            if let Some(kept) = self.files.get(&key) {
                return Ok(kept);
            }
            key = self.links.get(&key).ok_or_else(missing)?.clone();
        }
        Err(missing())
    }

    fn document(&self, name: &str) -> Result<Vec<u8>, ArchiveError> {
        let kept = self.find(name)?;
        if kept.size > JSON_MAX {
            return Err(ArchiveError::TooBig { file: printable(name.as_bytes()), size: kept.size, max: JSON_MAX });
        }
        // A file taken over as a blob keeps its bytes, not its place.
        Ok(std::fs::read(&kept.path).map_err(TarError::Read)?)
    }

    fn json<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<T, ArchiveError> {
        serde_json::from_slice(&self.document(name)?)
            .map_err(|source| ArchiveError::Json { file: name.to_owned(), source })
    }

    /// The name and content of an OCI blob, checked.
    fn blob(&self, digest: Digest) -> Result<&Kept, ArchiveError> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let kept = self.find(&name)?;
        if kept.digest == digest { Ok(kept) } else { Err(ArchiveError::Digest { file: name, actual: kept.digest }) }
    }

    fn blob_document(&self, digest: Digest) -> Result<Vec<u8>, ArchiveError> {
        self.blob(digest)?;
        self.document(&format!("blobs/sha256/{}", digest.hex()))
    }

    /// Takes the blobs of all images over into the store.
    fn images(&self, folders: &Folders) -> Result<Vec<Found>, ImageError> {
        let is_oci = self.find("index.json").is_ok();
        let found = if self.find("manifest.json").is_ok() {
            let images: Vec<DockerImage> = self.json("manifest.json")?;
            let manifests = if is_oci { self.manifests_by_config()? } else { BTreeMap::new() };
            images.iter().map(|image| self.docker_image(image, &manifests, folders)).collect::<Result<Vec<_>, _>>()?
        } else if is_oci {
            let index: OciIndex = self.json("index.json")?;
            index.manifests.iter().map(|entry| self.oci_image(entry, folders)).collect::<Result<Vec<_>, _>>()?
        } else {
            Vec::new()
        };
        if found.is_empty() { Err(ArchiveError::NoImages.into()) } else { Ok(found) }
    }

    /// Newer Docker writes both layouts: the manifest there is the one that its registry knows.
    fn manifests_by_config(&self) -> Result<BTreeMap<Digest, (Digest, Manifest)>, ArchiveError> {
        let index: OciIndex = self.json("index.json")?;
        let mut manifests = BTreeMap::new();
        for entry in index.manifests {
            // Its blobs may be of another platform and left out.
            let Ok(bytes) = self.blob_document(entry.digest) else { continue };
            if let Ok(Document::Image(manifest)) = manifest::parse(&bytes)
                && manifest.layers.iter().all(|layer| self.blob(layer.digest).is_ok())
            {
                manifests.insert(manifest.config.digest, (entry.digest, manifest));
            }
        }
        Ok(manifests)
    }

    fn docker_image(
        &self,
        image: &DockerImage,
        manifests: &BTreeMap<Digest, (Digest, Manifest)>,
        folders: &Folders,
    ) -> Result<Found, ImageError> {
        let mut names = Vec::new();
        for tag in image.repo_tags.iter().flatten() {
            names.push(Reference::parse(tag)?);
        }
        let config = self.find(&image.config).map_err(ImageError::from)?;
        let mut layers = Vec::new();
        for layer in image.layers.iter().flatten() {
            layers.push(self.find(layer).map_err(ImageError::from)?);
        }
        let (created, diff_ids) = self.config(config, &image.config, layers.len(), &names)?;
        let manifest = match manifests.get(&config.digest) {
            Some((digest, _)) => {
                let kept = self.blob(*digest).map_err(ImageError::from)?;
                take(kept, folders)?;
                *digest
            }
            None => {
                let mut described = Vec::new();
                for layer in &layers {
                    described.push((layer.digest, layer.size, compression_of(layer)?));
                }
                folders.put(&manifest::compose((config.digest, config.size), &described))?
            }
        };
        let blobs: Vec<Digest> = match manifests.get(&config.digest) {
            Some((_, manifest)) if manifest.layers.len() == layers.len() => {
                manifest.layers.iter().map(|layer| layer.digest).collect()
            }
            _ => layers.iter().map(|layer| layer.digest).collect(),
        };
        for digest in &blobs {
            if let Ok(kept) = self.blob(*digest) {
                take(kept, folders)?;
            }
        }
        for kept in layers.iter().filter(|layer| blobs.contains(&layer.digest)).chain([&config]) {
            take(kept, folders)?;
        }
        Ok(Found { id: ImageId(config.digest), manifest, index: None, created, layers: plan(&diff_ids, &blobs), names })
    }

    fn oci_image(&self, entry: &Descriptor, folders: &Folders) -> Result<Found, ImageError> {
        let names = entry
            .annotations
            .get("io.containerd.image.name")
            .or_else(|| entry.annotations.get("org.opencontainers.image.ref.name"));
        // A bare word is a tag of an image whose name the layout does not tell.
        let names: Vec<_> = names
            .filter(|name| name.contains([':', '/']))
            .map(|name| Reference::parse(name))
            .transpose()?
            .into_iter()
            .collect();
        let bytes = self.blob_document(entry.digest)?;
        let (index, digest, manifest) = match manifest::parse(&bytes).map_err(ArchiveError::from)? {
            Document::Image(manifest) => (None, entry.digest, manifest),
            Document::Index(entries) => {
                let chosen = manifest::select(&entries, &manifest::host_platform()).map_err(ArchiveError::from)?;
                match manifest::parse(&self.blob_document(chosen.digest)?).map_err(ArchiveError::from)? {
                    Document::Image(manifest) => (Some(entry.digest), chosen.digest, manifest),
                    Document::Index(_) => return Err(ArchiveError::Manifest(ManifestError::Nested).into()),
                }
            }
        };
        let config = self.blob(manifest.config.digest)?;
        let (created, diff_ids) =
            self.config(config, &manifest.config.digest.to_string(), manifest.layers.len(), &names)?;
        let blobs: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest).collect();
        for digest in blobs.iter().copied().chain([digest, manifest.config.digest]).chain(index) {
            take(self.blob(digest)?, folders)?;
        }
        Ok(Found {
            id: ImageId(config.digest),
            manifest: digest,
            index,
            created,
            layers: plan(&diff_ids, &blobs),
            names,
        })
    }

    fn config(
        &self,
        kept: &Kept,
        file: &str,
        layers: usize,
        names: &[Reference],
    ) -> Result<(Option<String>, Vec<Digest>), ImageError> {
        let reference = names.first().map_or_else(|| printable(file.as_bytes()), Reference::familiar);
        if kept.size > JSON_MAX {
            return Err(
                ArchiveError::TooBig { file: printable(file.as_bytes()), size: kept.size, max: JSON_MAX }.into()
            );
        }
        let json = std::fs::read(&kept.path).map_err(ImageError::io("read", &kept.path))?;
        let refused = |source| ImageError::Config { reference: reference.clone(), source };
        let (config, diff_ids) = config::parse(&json).map_err(refused)?;
        if diff_ids.len() != layers {
            return Err(refused(config::ConfigError::LayerCount { diff_ids: diff_ids.len(), layers }));
        }
        Ok((config.created, diff_ids))
    }
}

impl From<TarError> for ImageError {
    fn from(error: TarError) -> Self {
        Self::Archive(ArchiveError::Tar(error))
    }
}

/// Takes a file over as a blob; the archive keeps using it under its old name.
fn take(kept: &Kept, folders: &Folders) -> Result<(), ImageError> {
    if folders.has_blob(kept.digest) {
        return Ok(());
    }
    let link = folders.unfinished("blob");
    std::fs::hard_link(&kept.path, link.path()).map_err(ImageError::io("link", &kept.path))?;
    folders.adopt(link.path(), kept.digest)
}

fn compression_of(kept: &Kept) -> Result<Compression, ImageError> {
    let mut first = [0; 4];
    let mut file = File::open(&kept.path).map_err(ImageError::io("read", &kept.path))?;
    let read = file.read(&mut first).map_err(ImageError::io("read", &kept.path))?;
    Ok(Compression::of(&first[..read]))
}

fn plan(diff_ids: &[Digest], blobs: &[Digest]) -> Vec<LayerPlan> {
    let layers = diff_ids.iter().zip(config::chain_ids(diff_ids)).zip(blobs);
    layers.map(|((diff_id, chain), blob)| LayerPlan { blob: *blob, diff_id: *diff_id, chain }).collect()
}
