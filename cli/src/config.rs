//! `~/.rswarm/config.json`: the registries that this user logged in to.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rswarm_runtime::image::RegistryAuth;
use serde::{Deserialize, Serialize};

use crate::errors::{Error, Result};

/// The key of the registry that images without a host come from, as Docker's file has it.
pub const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The file, in Docker's shape. Keys that others wrote are kept.
#[derive(Default, Serialize, Deserialize)]
pub struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// Credentials for one registry. Secret.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Login {
    /// `base64(user:password)`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    identitytoken: String,
}

/// Where the file is: in `$HOME`, which must be set.
///
/// # Errors
/// When there is no home.
pub fn path() -> Result<PathBuf> {
    match std::env::var_os("HOME") {
        Some(home) if !home.is_empty() => Ok(Path::new(&home).join(".rswarm/config.json")),
        _ => Err(Error::Failed("HOME is not set, so there is no place for credentials".into())),
    }
}

impl Config {
    /// Reads the file; a missing one is empty.
    ///
    /// # Errors
    /// When it cannot be read or is not JSON.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Error::Failed(format!("{} cannot be read: {e}", path.display()))),
        };
        // The parser's own text may quote the secret beside the mistake.
        serde_json::from_str(&text).map_err(|e| {
            let (line, column) = (e.line(), e.column());
            Error::Failed(format!(
                "{}:{line}:{column}: not the JSON of a configuration; mend or remove it",
                path.display()
            ))
        })
    }

    /// Writes the file, for its owner only, whole or not at all.
    ///
    /// # Errors
    /// The operating system's.
    pub fn save(&self, path: &Path) -> Result<()> {
        let failed = |e: std::io::Error| Error::Failed(format!("{} cannot be written: {e}", path.display()));
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        }
        let next = path.with_extension(format!("json.{}", std::process::id()));
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        let written = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&next)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
            .and_then(|()| fs::rename(&next, path));
        written.map_err(|e| {
            let _ = fs::remove_file(&next);
            failed(e)
        })
    }

    pub fn remember(&mut self, registry: &str, user: &str, password: &str, identity_token: &str) {
        let login = if identity_token.is_empty() {
            Login { auth: STANDARD.encode(format!("{user}:{password}")), identitytoken: String::new() }
        } else {
            Login { auth: STANDARD.encode(format!("{user}:")), identitytoken: identity_token.to_owned() }
        };
        self.auths.insert(registry.to_owned(), login);
    }

    /// Whether there was anything to forget.
    pub fn forget(&mut self, registry: &str) -> bool {
        self.auths.remove(registry).is_some()
    }

    /// The user that is logged in to a registry.
    pub fn user(&self, registry: &str) -> Option<String> {
        self.auths.get(registry).and_then(Login::pair).map(|(user, _)| user)
    }

    /// What the daemon hands to an image's registry; empty = anonymous.
    pub fn header_for(&self, image: &str) -> String {
        self.header(&registry_of(image))
    }

    fn header(&self, registry: &str) -> String {
        let Some(login) = self.auths.get(registry) else { return String::new() };
        if !login.identitytoken.is_empty() {
            return RegistryAuth::IdentityToken(login.identitytoken.clone()).to_docker_header();
        }
        login
            .pair()
            .filter(|(user, password)| !user.is_empty() && !password.is_empty())
            .map(|(username, password)| RegistryAuth::Password { username, password }.to_docker_header())
            .unwrap_or_default()
    }
}

impl Login {
    fn pair(&self) -> Option<(String, String)> {
        let text = String::from_utf8(STANDARD.decode(&self.auth).ok()?).ok()?;
        text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
    }
}

/// The registry that an image comes from, as a key of the file.
pub fn registry_of(image: &str) -> String {
    let name = image.split('@').next().unwrap_or(image);
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => registry_key(host),
        _ => DOCKER_HUB.into(),
    }
}

/// The key of the file for what the user calls a registry.
pub fn registry_key(registry: &str) -> String {
    let host = registry.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    match host {
        "" | "docker.io" | "index.docker.io" | "registry-1.docker.io" | "index.docker.io/v1" => DOCKER_HUB.into(),
        host => host.split('/').next().unwrap_or(host).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_registry_of_an_image_is_its_host() {
        for (image, registry) in [
            ("nginx", DOCKER_HUB),
            ("library/nginx:1", DOCKER_HUB),
            ("docker.io/library/nginx", DOCKER_HUB),
            ("localhost/nginx", "localhost"),
            ("registry:5000/a/b@sha256:00", "registry:5000"),
            ("ghcr.io/a/b:1", "ghcr.io"),
        ] {
            assert_eq!(registry_of(image), registry);
        }
        assert_eq!(registry_key("https://ghcr.io/"), "ghcr.io");
        assert_eq!(registry_key(""), DOCKER_HUB);
    }

    #[test]
    fn a_login_is_kept_for_its_owner_only_and_foreign_keys_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/config.json");
        let mut config = Config::load(&path).unwrap();
        config.remember("r:5000", "me", "pass:word", "");
        config.others.insert("psFormat".into(), "x".into());
        config.save(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let mut config = Config::load(&path).unwrap();
        assert_eq!(config.user("r:5000").as_deref(), Some("me"));
        let expected = RegistryAuth::Password { username: "me".into(), password: "pass:word".into() };
        let header = config.header_for("r:5000/image:1");
        assert_eq!(RegistryAuth::from_docker_header(&header).unwrap(), Some(expected));
        assert_eq!(config.header_for("nginx"), "");
        assert!(config.forget("r:5000") && !config.forget("r:5000"));
        assert!(config.others.contains_key("psFormat"));
    }

    #[test]
    fn a_damaged_file_is_named_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, "{\"auths\": \"s3cret").unwrap();
        let Err(error) = Config::load(&path) else { panic!("damaged") };
        let text = error.to_string();
        assert!(text.contains("config.json:1:") && !text.contains("s3cret"), "{text}");
    }
}
