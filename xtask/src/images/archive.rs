//! The archive: layers, configuration and manifest as `docker save` writes them. The same content gives the same bytes.

use std::path::{Path, PathBuf};

use super::recipes::{Config, Image};
use crate::json::quote;
use crate::{Result, sh};

/// Debian 12's release: every image's and file's time, so that two builds are equal.
const CREATED: &str = "2023-06-10T00:00:00Z";

/// A file and its SHA-256 in hex.
pub struct Blob {
    path: PathBuf,
    digest: String,
}

/// Packs a folder as a layer.
pub fn pack(root: &Path, tar: &Path) -> Result<Blob> {
    let mut command = sh::command("tar", &["--create", "--format=pax", "--pax-option=delete=atime,delete=ctime"]);
    command.args(["--sort=name", "--numeric-owner", "--xattrs", "--mtime", CREATED, "--file"]);
    sh::output(command.arg(tar).arg("--directory").arg(root).arg("."))?;
    Ok(Blob { path: tar.to_path_buf(), digest: sha256(tar)? })
}

/// Writes the image's archive to `target`, which appears only when it is whole.
pub fn write(work: &Path, image: &Image, layers: &[&Blob], target: &Path) -> Result<()> {
    let folder = work.join("archive");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let digests: Vec<&str> = layers.iter().map(|layer| layer.digest.as_str()).collect();
    for layer in layers {
        let place = folder.join(&layer.digest);
        std::fs::create_dir_all(&place)?;
        std::fs::hard_link(&layer.path, place.join("layer.tar"))?;
    }
    let config = folder.join("config.json");
    std::fs::write(&config, config_json(&image.config, &digests, &architecture()?))?;
    let name = format!("{}.json", sha256(&config)?);
    std::fs::rename(&config, folder.join(&name))?;
    std::fs::write(folder.join("manifest.json"), manifest_json(&name, &image.tags(), &digests))?;
    let partial = target.with_extension("partial");
    let mut command = sh::command("tar", &["--create", "--sort=name", "--numeric-owner", "--mtime", CREATED, "--file"]);
    sh::output(command.arg(&partial).arg("--directory").arg(&folder).arg("."))?;
    std::fs::rename(&partial, target)?;
    Ok(())
}

/// Debian's names of architectures are Go's for all that we run on.
fn architecture() -> Result<String> {
    Ok(sh::output(&mut sh::command("dpkg", &["--print-architecture"]))?.trim().to_owned())
}

fn sha256(path: &Path) -> Result<String> {
    let line = sh::output(sh::command("sha256sum", &[]).arg(path))?;
    Ok(line.split_whitespace().next().ok_or("sha256sum printed nothing")?.to_owned())
}

fn manifest_json(config: &str, tags: &[String], digests: &[&str]) -> String {
    let layers: Vec<String> = digests.iter().map(|digest| format!("{digest}/layer.tar")).collect();
    format!("[{{\"Config\":{},\"RepoTags\":{},\"Layers\":{}}}]\n", quote(config), list(tags), list(&layers))
}

fn config_json(config: &Config, digests: &[&str], architecture: &str) -> String {
    let mut members = vec![format!("\"Env\":{}", list(config.env)), format!("\"Cmd\":{}", list(config.cmd))];
    if !config.entrypoint.is_empty() {
        members.push(format!("\"Entrypoint\":{}", list(config.entrypoint)));
    }
    for (name, text) in [("WorkingDir", config.working_dir), ("StopSignal", config.stop_signal)] {
        if !text.is_empty() {
            members.push(format!("\"{name}\":{}", quote(text)));
        }
    }
    for (name, keys) in [("ExposedPorts", config.ports), ("Volumes", config.volumes)] {
        if !keys.is_empty() {
            let keys: Vec<String> = keys.iter().map(|key| format!("{}:{{}}", quote(key))).collect();
            members.push(format!("\"{name}\":{{{}}}", keys.join(",")));
        }
    }
    if let Some(health) = &config.health {
        let nanoseconds = |seconds: u32| u64::from(seconds) * 1_000_000_000;
        members.push(format!(
            "\"Healthcheck\":{{\"Test\":{},\"Interval\":{},\"Timeout\":{},\"Retries\":{}}}",
            list(health.test),
            nanoseconds(health.interval_s),
            nanoseconds(health.timeout_s),
            health.retries
        ));
    }
    let diff_ids: Vec<String> = digests.iter().map(|digest| format!("sha256:{digest}")).collect();
    let history: Vec<String> = digests
        .iter()
        .map(|_| format!("{{\"created\":\"{CREATED}\",\"created_by\":\"cargo xtask images\"}}"))
        .collect();
    format!(
        "{{\"architecture\":{},\"os\":\"linux\",\"created\":\"{CREATED}\",\"config\":{{{}}},\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":{}}},\"history\":[{}]}}\n",
        quote(architecture),
        members.join(","),
        list(&diff_ids),
        history.join(",")
    )
}

fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quote(item.as_ref())).collect();
    format!("[{}]", items.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::recipes;
    use crate::json::Json;

    #[test]
    fn the_configuration_says_what_the_recipe_says() {
        let image = recipes::all().into_iter().find(|i| i.name == "redis").unwrap();
        let config = Json::parse(&config_json(&image.config, &["aa", "bb"], "amd64")).unwrap();
        assert_eq!(config.get("architecture").text(), Some("amd64"));
        assert_eq!(config.get("config").get("Entrypoint").items()[0].text(), Some("redis-server"));
        assert_eq!(config.get("config").get("Volumes").get("/data"), &Json::Object(Vec::new()));
        assert_eq!(config.get("rootfs").get("diff_ids").items()[1].text(), Some("sha256:bb"));
        assert_eq!(config.get("history").items().len(), 2);
    }

    #[test]
    fn a_health_check_is_in_nanoseconds() {
        let image = recipes::all().into_iter().find(|i| i.name == "busybox-health").unwrap();
        let config = Json::parse(&config_json(&image.config, &["aa"], "amd64")).unwrap();
        let health = config.get("config").get("Healthcheck");
        assert_eq!(health.get("Interval"), &Json::Number("1000000000".into()));
        assert_eq!(health.get("Test").items()[0].text(), Some("CMD-SHELL"));
    }

    #[test]
    fn the_manifest_names_both_tags_and_every_layer() {
        let text = manifest_json("c.json", &["registry:5000/a:1".into(), "a:1".into()], &["aa"]);
        let manifest = Json::parse(&text).unwrap();
        assert_eq!(manifest.items()[0].get("RepoTags").items().len(), 2);
        assert_eq!(manifest.items()[0].get("Layers").items()[0].text(), Some("aa/layer.tar"));
    }
}
