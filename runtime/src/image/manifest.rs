//! Manifests and indexes of Docker (schema 2) and OCI, and the choice of this host's variant.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::limits::{BLOB_MAX, JSON_MAX, LAYERS_MAX};

pub(super) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(super) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(super) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Everything that a registry may answer with.
pub(super) const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// A reference to content by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What an image variant runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// One image: its config and its layers, bottom first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Manifest {
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

/// What a name may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Document {
    Image(Manifest),
    Index(Vec<Descriptor>),
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of the expected shape.
    #[error("the manifest is not valid")]
    Json(#[from] serde_json::Error),
    /// Docker's first format, or an unknown later one.
    #[error("the manifest has schema version {0}, allowed is 2: push the image again with a current client")]
    Schema(u64),
    /// A manifest that reads as an image for one reader and as an index for another (CVE-2021-41190).
    #[error("the manifest names both layers and manifests")]
    Ambiguous,
    /// Neither an image nor an index.
    #[error("the manifest names neither layers nor manifests")]
    Empty,
    /// A Helm chart, a signature and the like.
    #[error("\"{0}\" is not a container image")]
    NotAnImage(String),
    /// A layer that we can't unpack: encrypted or kept outside of registries.
    #[error("a layer has the media type \"{0}\", allowed are tar, tar+gzip and tar+zstd")]
    LayerType(String),
    /// A layer larger than the bound.
    #[error("blob {digest} has {size} bytes, allowed are {max}")]
    TooBig {
        /// Which.
        digest: Digest,
        /// How many bytes.
        size: u64,
        /// How many are allowed.
        max: u64,
    },
    /// More layers than overlayfs can stack.
    #[error("the image has {0} layers, allowed are {LAYERS_MAX}")]
    TooManyLayers(usize),
    /// An index that offers nothing for this host.
    #[error("no variant for {wanted}, it offers {offered}")]
    NoPlatform {
        /// This host.
        wanted: String,
        /// What the index names.
        offered: String,
    },
    /// An index inside of an index.
    #[error("an index inside of an index is not supported")]
    Nested,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    schema_version: Option<u64>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or an index, and checks everything that can be checked without the blobs.
pub(super) fn parse(json: &[u8]) -> Result<Document, ManifestError> {
    let raw: Raw = serde_json::from_slice(json)?;
    match raw.schema_version {
        Some(2) => {}
        other => return Err(ManifestError::Schema(other.unwrap_or(0))),
    }
    if raw.manifests.is_some() && (raw.layers.is_some() || raw.config.is_some()) || raw.fs_layers.is_some() {
        return Err(ManifestError::Ambiguous);
    }
    if let Some(manifests) = raw.manifests {
        return Ok(Document::Index(manifests));
    }
    let (Some(config), Some(layers)) = (raw.config, raw.layers) else { return Err(ManifestError::Empty) };
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        return Err(ManifestError::NotAnImage(config.media_type));
    }
    if layers.len() > LAYERS_MAX {
        return Err(ManifestError::TooManyLayers(layers.len()));
    }
    for (blob, max) in layers.iter().map(|layer| (layer, BLOB_MAX)).chain([(&config, JSON_MAX)]) {
        if blob.size > max {
            return Err(ManifestError::TooBig { digest: blob.digest, size: blob.size, max });
        }
    }
    if let Some(layer) = layers.iter().find(|layer| !is_layer(&layer.media_type)) {
        return Err(ManifestError::LayerType(layer.media_type.clone()));
    }
    Ok(Document::Image(Manifest { config, layers }))
}

fn is_layer(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.layer.v1.tar"
            | "application/vnd.oci.image.layer.v1.tar+gzip"
            | "application/vnd.oci.image.layer.v1.tar+zstd"
            | "application/vnd.docker.image.rootfs.diff.tar"
            | "application/vnd.docker.image.rootfs.diff.tar.gzip"
            | "application/vnd.docker.image.rootfs.diff.tar.zstd"
    )
}

/// Writes the manifest of an image that came without one. `layers`: digest, size and how it is compressed.
pub(super) fn compose(config: (Digest, u64), layers: &[(Digest, u64, super::compression::Compression)]) -> Vec<u8> {
    let blob = |media_type: String, digest, size| Descriptor {
        media_type,
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let layers: Vec<_> = layers
        .iter()
        .map(|(digest, size, compression)| {
            blob(format!("application/vnd.oci.image.layer.v1.tar{}", compression.media_suffix()), *digest, *size)
        })
        .collect();
    let document = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": blob(OCI_CONFIG.to_owned(), config.0, config.1),
        "layers": layers,
    });
    serde_json::to_vec(&document).expect("a tree of strings and numbers is always JSON")
}

/// The media type that a stored manifest must be pushed with: its own, or what its content says.
pub(super) fn media_type_of(json: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
    }
    let own = serde_json::from_slice::<Typed>(json).ok().and_then(|typed| typed.media_type);
    own.unwrap_or_else(|| match parse(json) {
        Ok(Document::Index(_)) => OCI_INDEX.to_owned(),
        _ => OCI_MANIFEST.to_owned(),
    })
}

/// This host, in Go's words.
pub(super) fn host_platform() -> (String, String) {
    (normal_os(std::env::consts::OS), normal_arch(std::env::consts::ARCH))
}

/// Go's name of an operating system.
pub(super) fn normal_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// Go's name of an architecture.
pub(super) fn normal_arch(arch: &str) -> String {
    match arch.to_ascii_lowercase().as_str() {
        "x86_64" | "x86-64" | "x64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        "i386" | "i686" | "x86" => "386".to_owned(),
        "armhf" | "armel" | "armv7l" | "armv6l" => "arm".to_owned(),
        "powerpc64le" => "ppc64le".to_owned(),
        other => other.to_owned(),
    }
}

/// The platforms that an index offers, without build attestations (`unknown/unknown`).
pub(super) fn platforms(index: &[Descriptor]) -> Vec<(String, String)> {
    let mut platforms: Vec<_> = index
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .filter(|platform| platform.os != "unknown")
        .map(|platform| (normal_os(&platform.os), normal_arch(&platform.architecture)))
        .collect();
    platforms.sort();
    platforms.dedup();
    platforms
}

/// The entry of an index for a platform: the variant that every machine of that kind can run.
pub(super) fn select<'a>(
    index: &'a [Descriptor],
    (os, arch): &(String, String),
) -> Result<&'a Descriptor, ManifestError> {
    let rank = |entry: &Descriptor| {
        let platform = entry.platform.as_ref()?;
        if normal_os(&platform.os) != *os || normal_arch(&platform.architecture) != *arch {
            return None;
        }
        match (arch.as_str(), platform.variant.as_deref().unwrap_or("")) {
            (_, "") => Some(1),
            ("amd64", "v1") | ("arm64", "v8") | ("arm", "v7") => Some(0),
            ("arm", "v6") => Some(2),
            ("arm", "v5") => Some(3),
            _ => None,
        }
    };
    let best = index.iter().filter_map(|entry| Some((rank(entry)?, entry))).min_by_key(|(rank, _)| *rank);
    match best {
        Some((_, entry)) if entry.media_type == OCI_INDEX || entry.media_type == DOCKER_INDEX => {
            Err(ManifestError::Nested)
        }
        Some((_, entry)) => Ok(entry),
        None => {
            let mut offered: Vec<_> = index
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .filter(|platform| platform.os != "unknown")
                .map(|platform| {
                    let variant = platform.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
                    format!("{}/{}{variant}", platform.os, platform.architecture)
                })
                .collect();
            offered.dedup();
            let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
            Err(ManifestError::NoPlatform { wanted: format!("{os}/{arch}"), offered })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(os: &str, arch: &str, variant: Option<&str>, content: &str) -> Descriptor {
        Descriptor {
            media_type: OCI_MANIFEST.into(),
            digest: Digest::of(content.as_bytes()),
            size: 1,
            platform: Some(Platform { os: os.into(), architecture: arch.into(), variant: variant.map(Into::into) }),
            annotations: BTreeMap::new(),
        }
    }

    fn host(os: &str, arch: &str) -> (String, String) {
        (os.into(), arch.into())
    }

    #[test]
    fn the_variant_that_every_machine_runs_is_chosen() {
        let index = [
            entry("unknown", "unknown", None, "attestation"),
            entry("windows", "amd64", None, "windows"),
            entry("linux", "amd64", Some("v3"), "v3"),
            entry("linux", "x86_64", None, "plain"),
            entry("linux", "arm64", Some("v8"), "arm"),
            entry("linux", "arm", Some("v6"), "arm6"),
            entry("linux", "arm", Some("v7"), "arm7"),
        ];
        for (arch, content) in [("amd64", "plain"), ("arm64", "arm"), ("arm", "arm7")] {
            assert_eq!(
                select(&index, &host("linux", arch)).expect(arch).digest,
                Digest::of(content.as_bytes()),
                "{arch}"
            );
        }
        let error = select(&index, &host("linux", "s390x")).expect_err("none");
        assert_eq!(
            error.to_string(),
            "no variant for linux/s390x, it offers windows/amd64, linux/amd64/v3, linux/x86_64, linux/arm64/v8, linux/arm/v6, linux/arm/v7"
        );
        assert_eq!(platforms(&index).len(), 4);
    }

    #[test]
    fn this_host_is_named_in_gos_words() {
        for (name, expected) in [("x86_64", "amd64"), ("AMD64", "amd64"), ("aarch64", "arm64"), ("riscv64", "riscv64")]
        {
            assert_eq!(normal_arch(name), expected);
        }
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let digest = Digest::of(b"");
        let config = format!(r#""config":{{"mediaType":"{OCI_CONFIG}","digest":"{digest}","size":2}}"#);
        for (json, expected) in [
            ("[]".to_owned(), "not valid"),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema version 1"),
            (r#"{"schemaVersion":2}"#.to_owned(), "neither layers nor manifests"),
            (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.to_owned(), "both layers and manifests"),
            (
                format!(
                    r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{digest}","size":2}},"layers":[]}}"#
                ),
                "not a container image",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,{config},"layers":[{{"mediaType":"x+encrypted","digest":"{digest}","size":2}}]}}"#
                ),
                "x+encrypted",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,{config},"layers":[{{"mediaType":"x","digest":"{digest}","size":99999999999}}]}}"#
                ),
                "99999999999 bytes",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,{config},"layers":[{{"mediaType":"x","digest":"sha256:../x","size":1}}]}}"#
                ),
                "not valid",
            ),
            (
                format!(
                    r#"{{"schemaVersion":2,{config},"layers":[{{"mediaType":"x","digest":"{digest}","size":-1}}]}}"#
                ),
                "not valid",
            ),
        ] {
            let error = parse(json.as_bytes()).expect_err(&json).to_string();
            assert!(error.contains(expected), "{json}: {error}");
        }
    }

    #[test]
    fn a_composed_manifest_reads_back() {
        use super::super::compression::Compression;
        let digest = Digest::of(b"x");
        let json = compose((digest, 3), &[(digest, 4, Compression::None), (digest, 5, Compression::Zstd)]);
        let Document::Image(manifest) = parse(&json).expect("parsed") else { panic!("an image") };
        assert_eq!((manifest.config.size, manifest.layers[1].size), (3, 5));
        assert_eq!(media_type_of(&json), OCI_MANIFEST);
    }
}
