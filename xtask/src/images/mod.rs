//! `cargo xtask images`: real images from Debian packages, as `docker save` archives in target/images.

mod archive;
mod debs;
mod recipes;
mod rootfs;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

pub use recipes::REGISTRY;
use recipes::{Image, Layer};

use crate::{Result, install, lab, sh};

/// Where the archives are.
pub fn dir() -> PathBuf {
    sh::target_dir().join("images")
}

/// The archive of the image called `name`.
pub fn archive(name: &str) -> PathBuf {
    dir().join(format!("{name}.tar"))
}

/// The names in the demo's registry of these images.
pub fn references(names: &[&str]) -> Vec<String> {
    let images = recipes::all().into_iter().filter(|image| names.contains(&image.name));
    images.filter_map(|image| image.tags().into_iter().next()).collect()
}

/// The command: builds what is not there, and lists what is.
pub fn run() -> Result<ExitCode> {
    install::ensure(&[install::DEMO])?;
    build()?;
    for image in recipes::all() {
        let path = archive(image.name);
        let megabytes = std::fs::metadata(&path)?.len() / 1_000_000;
        println!("{:>4} MB  {}  {}", megabytes, path.display(), image.tags().join(" "));
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds every archive whose recipe or packages have changed since it was built.
pub fn build() -> Result<()> {
    let stale = stale()?;
    if stale.is_empty() {
        return Ok(());
    }
    lab::need_root("building images")?;
    let work = WorkFolder::make(dir().join("work"))?;
    let mut layers = Vec::new();
    for (image, key) in stale {
        eprintln!("building image {} from Debian packages", image.name);
        let _ = std::fs::remove_file(key_file(image.name));
        for layer in &image.layers {
            if !layers.iter().any(|(name, _)| *name == layer.name) {
                layers.push((layer.name, build_layer(&work.path, layer)?));
            }
        }
        rootfs::verify(&work.path, &image)?;
        let files: Vec<&archive::Blob> = image
            .layers
            .iter()
            .filter_map(|layer| layers.iter().find(|(name, _)| *name == layer.name).map(|(_, blob)| blob))
            .collect();
        archive::write(&work.path, &image, &files, &archive(image.name))?;
        std::fs::write(key_file(image.name), key)?;
    }
    Ok(())
}

/// The images to build, with the keys to write beside them.
///
/// A key's first line is the state of apt's package lists: while they and the recipe stay, apt need not be asked.
fn stale() -> Result<Vec<(Image, String)>> {
    std::fs::create_dir_all(dir())?;
    let lists = debs::lists_stamp();
    let mut found = Vec::new();
    for image in recipes::all() {
        let is_there = archive(image.name).exists();
        let old = std::fs::read_to_string(key_file(image.name)).unwrap_or_default();
        if is_there && old.starts_with(&format!("{lists}\n{image:?}\n")) {
            continue;
        }
        match key(&image).map(|key| format!("{lists}\n{key}")) {
            Ok(key) if is_there && old.split_once('\n').is_some_and(|(_, old)| key.ends_with(&format!("\n{old}"))) => {
                std::fs::write(key_file(image.name), key)?;
            }
            Ok(key) => found.push((image, key)),
            Err(error) if is_there => eprintln!("warning: {}: using the archive that is there: {error}", image.name),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn key_file(name: &str) -> PathBuf {
    dir().join(format!("{name}.key"))
}

/// All that an image is made of: its recipe, and its packages with their versions.
fn key(image: &Image) -> Result<String> {
    let mut text = format!("{image:?}\n");
    for layer in &image.layers {
        for deb in debs::closure(layer)? {
            text.push_str(&deb);
            text.push('\n');
        }
    }
    Ok(text)
}

/// Fills the layer's folder and packs it.
fn build_layer(work: &Path, layer: &Layer) -> Result<archive::Blob> {
    let root = work.join("layers").join(layer.name);
    std::fs::create_dir_all(&root)?;
    rootfs::fill(work, &root, layer)?;
    archive::pack(&root, &work.join(format!("{}.tar", layer.name)))
}

/// A folder for what is in the making, removed at the end.
struct WorkFolder {
    path: PathBuf,
}

impl WorkFolder {
    fn make(path: PathBuf) -> Result<WorkFolder> {
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        Ok(WorkFolder { path })
    }
}

impl Drop for WorkFolder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("warning: cannot remove {}: {error}", self.path.display());
        }
    }
}
