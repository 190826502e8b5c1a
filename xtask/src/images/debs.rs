//! Debian packages with everything that they depend on, resolved and fetched by apt as if nothing were installed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use super::recipes::Layer;
use crate::{Result, sh};

/// Needed by maintainer scripts, which are never run here, or by nobody in a container.
const UNUSED: &[&str] = &[
    "adduser",
    "cdebconf",
    "debconf",
    "debianutils",
    "dpkg",
    "init-system-helpers",
    "install-info",
    "iproute2",
    "libapt-pkg6.0",
    "libaudit-common",
    "libaudit1",
    "libcap-ng0",
    "libdb5.3",
    "libfile-find-rule-perl",
    "libgdbm-compat4",
    "libgdbm6",
    "libnumber-compare-perl",
    "libpam-modules",
    "libpam-modules-bin",
    "libpam0g",
    "libperl5.36",
    "libsemanage-common",
    "libsemanage2",
    "libsepol2",
    "libtext-glob-perl",
    "login",
    "lsb-base",
    "mawk",
    "mount",
    "passwd",
    "perl",
    "perl-base",
    "perl-modules-5.36",
    "sensible-utils",
    "sysvinit-utils",
    "tar",
    "usrmerge",
    "util-linux",
    "util-linux-extra",
];

/// The file names (`name_version_arch.deb`) of the layer's packages and their dependencies, sorted, without those of
/// the layer below.
pub fn closure(layer: &Layer) -> Result<Vec<String>> {
    let mut names = resolve(layer.packages)?;
    let below = resolve(layer.below)?;
    names.retain(|name| !below.contains(name));
    Ok(names)
}

/// Downloads them; returns their paths, sorted by name.
pub fn fetch(work: &Path, layer: &Layer) -> Result<Vec<PathBuf>> {
    let wanted = closure(layer)?;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let folder = work.join("debs");
    std::fs::create_dir_all(folder.join("partial"))?;
    let mut command = apt(layer.packages);
    command.arg("--download-only").args(["-o", &format!("Dir::Cache::archives={}", folder.display())]);
    // Root's folders are closed to apt's own user; root fetches.
    command.args(["-o", "APT::Sandbox::User=root"]);
    sh::output(&mut command)?;
    let paths: Vec<PathBuf> = wanted.iter().map(|name| folder.join(name)).collect();
    match paths.iter().find(|path| !path.exists()) {
        Some(path) => Err(format!("apt did not download {}", path.display()).into()),
        None => Ok(paths),
    }
}

/// Each set is asked for several times; apt takes half a second to answer.
static RESOLVED: Mutex<Vec<(Vec<&str>, Vec<String>)>> = Mutex::new(Vec::new());

fn resolve(packages: &[&'static str]) -> Result<Vec<String>> {
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let mut resolved = RESOLVED.lock().map_err(|_| "another thread panicked")?;
    if let Some((_, names)) = resolved.iter().find(|(asked, _)| asked == packages) {
        return Ok(names.clone());
    }
    let list = match uris(packages) {
        Ok(list) => list,
        Err(_) => {
            // A fresh machine may have no package lists yet.
            sh::run(&mut sh::command("apt-get", &["update", "-qq"]))?;
            uris(packages)?
        }
    };
    let mut names: Vec<String> = list.lines().filter_map(file_name).filter(|name| is_used(name)).collect();
    names.sort();
    resolved.push((packages.to_vec(), names.clone()));
    Ok(names)
}

/// Changes whenever `apt-get update` brought something: the time of the newest package list.
pub fn lists_stamp() -> String {
    let entries = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
    let newest = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok()).max();
    format!("{newest:?}")
}

fn uris(packages: &[&str]) -> Result<String> {
    sh::output(apt(packages).args(["--print-uris", "-qq"]))
}

/// `apt-get install` as on a machine without any package.
fn apt(packages: &[&str]) -> Command {
    let nothing_installed = ["-o", "Dir::State::status=/dev/null", "-o", "Dir::State::extended_states=/dev/null"];
    let mut command = sh::command("apt-get", &["-y", "--no-install-recommends", "-o", "Debug::NoLocking=1"]);
    command.args(nothing_installed).arg("install").args(packages);
    command
}

/// The second word of a line of `--print-uris`: `'http://…' name_version_arch.deb size hash`.
fn file_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    let (uri, name) = (words.next()?, words.next()?);
    (uri.starts_with('\'') && name.ends_with(".deb")).then(|| name.to_owned())
}

fn is_used(file: &str) -> bool {
    let name = file.split('_').next().unwrap_or(file);
    !UNUSED.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_read_from_what_apt_prints() {
        let line = "'http://deb.debian.org/debian/pool/main/g/glibc/libc6_2.36-9_amd64.deb' libc6_2.36-9_amd64.deb 2754 SHA256:ab";
        assert_eq!(file_name(line).as_deref(), Some("libc6_2.36-9_amd64.deb"));
        assert_eq!(file_name("Reading package lists..."), None);
        assert!(is_used("libc6_2.36-9_amd64.deb"));
        assert!(!is_used("perl-base_5.36_amd64.deb"));
    }
}
