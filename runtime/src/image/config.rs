//! What an image says about running it: Docker's and OCI's config document.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::digest::Digest;
use super::limits::LAYERS_MAX;

/// The defaults that an image brings for its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`: Go's names.
    pub arch: String,
    /// When the image was built, RFC 3339, if it says so.
    pub created: Option<String>,
    /// `KEY=value`.
    pub env: Vec<String>,
    /// The program in front of the arguments.
    pub entrypoint: Vec<String>,
    /// The default arguments.
    pub cmd: Vec<String>,
    /// Where the program starts; empty means `/`.
    pub workdir: String,
    /// `user[:group]`, names or numbers; empty means root.
    pub user: String,
    /// `80/tcp`, sorted.
    pub exposed_ports: Vec<String>,
    /// Paths that shall be volumes, sorted.
    pub volumes: Vec<String>,
    /// A name or a number; none means SIGTERM.
    pub stop_signal: Option<String>,
    /// Docker's extension.
    pub healthcheck: Option<ImageHealthcheck>,
    /// Labels of the image, not of its containers.
    pub labels: BTreeMap<String, String>,
}

/// Docker's health check. Zero means "the default"; times are nanoseconds, as Docker writes them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageHealthcheck {
    /// `[]` inherits, `["NONE"]` disables, `["CMD", …]` runs, `["CMD-SHELL", line]` runs in the shell.
    #[serde(deserialize_with = "null_is_default")]
    pub test: Vec<String>,
    /// Nanoseconds between two checks.
    #[serde(rename = "Interval")]
    pub interval_ns: u64,
    /// Nanoseconds that a check may take.
    #[serde(rename = "Timeout")]
    pub timeout_ns: u64,
    /// Nanoseconds after the start in which failures do not count.
    #[serde(rename = "StartPeriod")]
    pub start_period_ns: u64,
    /// Nanoseconds between two checks in the start period.
    #[serde(rename = "StartInterval")]
    pub start_interval_ns: u64,
    /// Failures in a row until the container is unhealthy.
    pub retries: u64,
}

/// Why a config document is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not the JSON of an image config.
    #[error("the image config is not valid")]
    Json(#[from] serde_json::Error),
    /// More layers than overlayfs can stack.
    #[error("the image has {0} layers, allowed are {LAYERS_MAX}")]
    TooManyLayers(usize),
    /// The config and the manifest contradict each other.
    #[error("the image config names {diff_ids} layers, the manifest {layers}")]
    LayerCount {
        /// In the config.
        diff_ids: usize,
        /// In the manifest.
        layers: usize,
    },
}

#[derive(Deserialize)]
struct Document {
    #[serde(default, deserialize_with = "null_is_default")]
    os: String,
    #[serde(default, deserialize_with = "null_is_default")]
    architecture: String,
    #[serde(default)]
    created: Option<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    config: Runtime,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default, deserialize_with = "null_is_default")]
    diff_ids: Vec<Digest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Runtime {
    #[serde(deserialize_with = "null_is_default")]
    user: String,
    #[serde(deserialize_with = "null_is_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    cmd: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    entrypoint: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    working_dir: String,
    #[serde(deserialize_with = "null_is_default")]
    exposed_ports: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(deserialize_with = "null_is_default")]
    volumes: BTreeMap<String, serde::de::IgnoredAny>,
    stop_signal: Option<String>,
    healthcheck: Option<ImageHealthcheck>,
    #[serde(deserialize_with = "null_is_default")]
    labels: BTreeMap<String, String>,
}

/// Go writes `null` for an empty list, map or text.
fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads a config document: the defaults for containers, and the digest of each layer's tar, bottom first.
pub(super) fn parse(json: &[u8]) -> Result<(ImageConfig, Vec<Digest>), ConfigError> {
    let document: Document = serde_json::from_slice(json)?;
    let diff_ids = document.rootfs.diff_ids;
    if diff_ids.len() > LAYERS_MAX {
        return Err(ConfigError::TooManyLayers(diff_ids.len()));
    }
    let run = document.config;
    let config = ImageConfig {
        os: document.os,
        arch: document.architecture,
        created: document.created.filter(|created| !created.is_empty()),
        env: run.env,
        entrypoint: run.entrypoint,
        cmd: run.cmd,
        workdir: run.working_dir,
        user: run.user,
        exposed_ports: run.exposed_ports.into_keys().collect(),
        volumes: run.volumes.into_keys().collect(),
        stop_signal: run.stop_signal.filter(|signal| !signal.is_empty()),
        healthcheck: run.healthcheck,
        labels: run.labels,
    };
    Ok((config, diff_ids))
}

/// The identity of each stack of layers, bottom first: the same layer on other layers is another chain (OCI's rule).
pub(super) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chains: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chains.push(match chains.last() {
            None => *diff_id,
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_docker_config_is_read_in_full() {
        let diff_id = Digest::of(b"layer");
        let json = format!(
            r#"{{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","history":[{{"empty_layer":true}}],
            "config":{{"User":"1000:1000","Env":["A=b"],"Cmd":["-v"],"Entrypoint":["/app"],"WorkingDir":"/srv","ExposedPorts":{{"80/tcp":{{}},"53/udp":{{}}}},
            "Volumes":{{"/data":{{}}}},"StopSignal":"SIGQUIT","Labels":{{"a":"b"}},
            "Healthcheck":{{"Test":["CMD-SHELL","true"],"Interval":30000000000,"Retries":3}}}},
            "rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        );
        let (config, diff_ids) = parse(json.as_bytes()).expect("parsed");
        assert_eq!(diff_ids, [diff_id]);
        assert_eq!((config.os.as_str(), config.arch.as_str(), config.user.as_str()), ("linux", "amd64", "1000:1000"));
        assert_eq!(config.exposed_ports, ["53/udp", "80/tcp"]);
        assert_eq!(config.volumes, ["/data"]);
        assert_eq!(
            (config.entrypoint, config.cmd, config.workdir),
            (vec!["/app".into()], vec!["-v".into()], "/srv".into())
        );
        assert_eq!(config.stop_signal.as_deref(), Some("SIGQUIT"));
        let check = config.healthcheck.expect("a health check");
        assert_eq!((check.interval_ns, check.retries, check.timeout_ns), (30_000_000_000, 3, 0));
    }

    #[test]
    fn go_nulls_are_empty() {
        let json = r#"{"architecture":"arm64","os":"linux","config":{"Env":null,"Cmd":null,"Entrypoint":null,"Volumes":null,"Labels":null,"User":"","StopSignal":""},"rootfs":{"diff_ids":null}}"#;
        let (config, diff_ids) = parse(json.as_bytes()).expect("parsed");
        assert_eq!(config, ImageConfig { os: "linux".into(), arch: "arm64".into(), ..ImageConfig::default() });
        assert!(diff_ids.is_empty());
        assert!(parse(br#"{"architecture":"arm64","os":"linux","config":null,"rootfs":{}}"#).is_ok());
    }

    #[test]
    fn a_document_without_layers_or_with_too_many_is_refused() {
        assert!(parse(b"{}").is_err());
        let ids = vec![format!("\"{}\"", Digest::of(b"")); 500].join(",");
        let error = parse(format!(r#"{{"rootfs":{{"diff_ids":[{ids}]}}}}"#).as_bytes()).expect_err("refused");
        assert_eq!(error.to_string(), "the image has 500 layers, allowed are 499");
    }

    #[test]
    fn chain_ids_follow_the_specification() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chains = chain_ids(&[a, b, b]);
        assert_eq!(chains[0], a);
        assert_eq!(chains[1], Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(chains[1], chains[2]);
    }
}
