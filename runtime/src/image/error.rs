//! What can go wrong with an image, as its users see it.

use std::io;
use std::path::{Path, PathBuf};

use super::archive::ArchiveError;
use super::config::ConfigError;
use super::digest::{Digest, ImageId};
use super::manifest::ManifestError;
use super::reference::ReferenceError;
use super::registry::RegistryError;
use super::unpack::LayerError;

/// Why an operation on images failed. `Display` says this level only: print the chain of sources with it.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The name is not one.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The registry could not be used, or said no.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The archive given to `load` is not usable.
    #[error("cannot load the archive")]
    Archive(#[from] ArchiveError),
    /// The manifest of an image is refused.
    #[error("image \"{reference}\" cannot be used")]
    Manifest {
        /// Whose.
        reference: String,
        /// Why.
        #[source]
        source: ManifestError,
    },
    /// The config of an image is refused.
    #[error("image \"{reference}\" cannot be used")]
    Config {
        /// Whose.
        reference: String,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// A layer could not be unpacked.
    #[error("cannot unpack layer {} of image \"{reference}\"", layer.short())]
    Layer {
        /// Whose.
        reference: String,
        /// Which, by the digest of its blob.
        layer: Digest,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
    /// Not in this store.
    #[error("no such image: {0}")]
    Unknown(String),
    /// A short id that fits several images.
    #[error("the id {0} fits several images: give more digits")]
    Ambiguous(String),
    /// A container uses it.
    #[error("image \"{reference}\" ({}) is used by a container: remove the container first", id.0.short())]
    InUse {
        /// What was to be removed.
        reference: String,
        /// Its identity.
        id: ImageId,
    },
    /// Several repositories name it.
    #[error("image {} has names in several repositories ({names}): remove these, or use force", id.0.short())]
    SeveralNames {
        /// Its identity.
        id: ImageId,
        /// The names.
        names: String,
    },
    /// A digest cannot be a target: it names one content only.
    #[error("\"{0}\" has a digest, a tag is needed")]
    Pinned(String),
    /// A blob that a push needs is gone.
    #[error("blob {digest} of image \"{reference}\" is not in this store: pull or load the image again")]
    BlobMissing {
        /// Whose.
        reference: String,
        /// Which.
        digest: Digest,
    },
    /// Another process works in this folder.
    #[error("the image store {} is in use by another process", path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// A `--insecure-registry` that is no registry.
    #[error("invalid insecure registry \"{0}\": allowed is HOST[:PORT]")]
    Insecure(String),
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// The index, which is rebuilt from the other files when its folder is removed.
    #[error("cannot use the image index (it may be removed while the daemon is stopped, and is then rebuilt)")]
    Index(#[from] sled::Error),
    /// The work was cut off by a panic or by the end of the daemon.
    #[error("the work on the image was cut off")]
    CutOff(#[from] tokio::task::JoinError),
}

impl ImageError {
    /// For `map_err`: names the step and the path.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
