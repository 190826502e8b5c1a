//! A layer's folder: packages unpacked, documentation left out, files of our own added.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Stdio;

use super::debs;
use super::recipes::{Image, Layer};
use crate::{Result, sh};

/// Debian 12 keeps these as links into /usr; its packages still name the old places.
const MERGED: &[&str] = &["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

/// Nobody reads these in a container.
const PRUNED: &[&str] = &[
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/common-licenses",
];

/// Fills `root` with the layer's content. Only the lowest layer carries the links of [`MERGED`].
pub fn fill(work: &Path, root: &Path, layer: &Layer) -> Result<()> {
    for name in MERGED {
        std::fs::create_dir_all(root.join("usr").join(name))?;
        symlink(format!("usr/{name}"), root.join(name))?;
    }
    for deb in debs::fetch(work, layer)? {
        unpack(&deb, root)?;
    }
    for path in PRUNED {
        let _ = std::fs::remove_dir_all(root.join(path));
    }
    for triplet in std::fs::read_dir(root.join("usr/lib"))? {
        // Character sets that only iconv asks for.
        let _ = std::fs::remove_dir_all(triplet?.path().join("gconv"));
    }
    for (path, mode) in layer.folders {
        std::fs::create_dir_all(root.join(path))?;
        chmod(&root.join(path), *mode)?;
    }
    for (path, mode, text) in layer.files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(root))?;
        // Debian's own file may be a link to elsewhere: replace it, never write through it.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, text)?;
        chmod(&path, *mode)?;
    }
    for (path, target) in layer.links {
        let path = root.join(path);
        let _ = std::fs::remove_file(&path);
        symlink(target, &path)?;
    }
    if layer.has_busybox_links {
        busybox_links(root)?;
    }
    for name in MERGED {
        // Succeeds only if nothing came in.
        let _ = std::fs::remove_dir(root.join("usr").join(name));
        let is_lowest = layer.below.is_empty() && !layer.packages.is_empty();
        if !is_lowest || !root.join("usr").join(name).exists() {
            std::fs::remove_file(root.join(name))?;
        }
    }
    let _ = std::fs::remove_dir(root.join("usr"));
    Ok(())
}

/// Runs the image's own check in all its layers laid over each other.
pub fn verify(work: &Path, image: &Image) -> Result<()> {
    let root = work.join("verify");
    let _ = std::fs::remove_dir_all(&root);
    std::fs::create_dir_all(&root)?;
    for layer in &image.layers {
        let from = format!("{}/.", work.join("layers").join(layer.name).display());
        sh::output(&mut sh::command("cp", &["-a", &from, &root.display().to_string()]))?;
    }
    let mut command = sh::command("chroot", &[&root.display().to_string()]);
    command.args(image.verify).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    sh::output(&mut command).map_err(|e| format!("image {} is not complete: {e}", image.name))?;
    Ok(())
}

/// Every program of the static busybox that no package has brought, as a link to it.
fn busybox_links(root: &Path) -> Result<()> {
    let list = sh::output(&mut sh::command(root.join("usr/bin/busybox"), &["--list-full"]))?;
    for path in list.lines().filter(|path| !path.ends_with("/busybox")) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(root))?;
        if !path.exists() && !path.is_symlink() {
            symlink("/bin/busybox", &path)?;
        }
    }
    Ok(())
}

/// Unpacks a package, keeping the links of the merged /usr.
fn unpack(deb: &Path, root: &Path) -> Result<()> {
    let mut reader = sh::command("dpkg-deb", &["--fsys-tarfile"])
        .arg(deb)
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run dpkg-deb: {e}"))?;
    let stream = reader.stdout.take().ok_or("no pipe from dpkg-deb")?;
    let mut tar = sh::command("tar", &["-x", "--numeric-owner", "--keep-directory-symlink", "-C"]);
    let unpacked = tar.arg(root).stdin(stream).status()?;
    let read = reader.wait()?;
    if unpacked.success() && read.success() { Ok(()) } else { Err(format!("cannot unpack {}", deb.display()).into()) }
}

fn chmod(path: &Path, mode: u32) -> Result<()> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(())
}
