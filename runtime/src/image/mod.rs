//! Images: by what name they are found, how they come here, and what a container gets of them.
//!
//! An image is known by the digest of its config. A name is resolved to a digest once, at its registry; blobs are
//! checked against their digests while they come, layers against the config while they are unpacked.

mod archive;
mod auth;
mod blobs;
mod compression;
mod config;
mod digest;
mod error;
mod index;
pub mod limits;
mod manifest;
mod mount;
mod pull;
mod push;
mod reference;
mod registry;
mod registry_error;
mod remove;
mod store;
mod tarball;
mod token;
mod tree;
mod unpack;

pub use archive::{ArchiveError, LoadedImage};
pub use auth::{AuthError, RegistryAuth};
pub use compression::TooLong;
pub use config::{ConfigError, ImageConfig, ImageHealthcheck};
pub use digest::{Digest, DigestError, ImageId};
pub use error::ImageError;
pub use manifest::ManifestError;
pub use mount::{MountError, mount_rootfs, unmount_rootfs};
pub use pull::Resolved;
pub use reference::{Reference, ReferenceError, ReferenceProblem};
pub use registry::{RegistryError, RegistryPolicy};
pub use remove::Removed;
pub use store::{Image, ImageStore, ImageSummary, PullProgress, PullStep};
pub use tarball::TarError;
pub use tree::TreeError;
pub use unpack::LayerError;
