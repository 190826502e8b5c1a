use std::fs;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::image::digest::Digest;
use crate::image::unpack::unpack;

/// A folder for layers and a mount of them, unmounted whatever happens.
struct Stack {
    folder: tempfile::TempDir,
    layers: Vec<PathBuf>,
}

impl Stack {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["upper", "work", "root"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        Self { folder, layers: Vec::new() }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// A layer of files, and folders (a name that ends in a slash).
    fn layer(&mut self, entries: &[(&str, &str)]) {
        let mut tar = Builder::new(Vec::new());
        for (name, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(if name.ends_with('/') { EntryType::Directory } else { EntryType::Regular });
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            tar.append_data(&mut header, name, content.as_bytes()).unwrap();
        }
        let tar = tar.into_inner().unwrap();
        let path = self.at(&format!("layer{}", self.layers.len()));
        let blob = self.at("blob");
        fs::write(&blob, &tar).unwrap();
        fs::create_dir(&path).unwrap();
        unpack(&blob, Digest::of(&tar), &path).unwrap();
        self.layers.push(path);
    }

    fn names(&self, path: &str) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.at("root").join(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn mount(&self, read_only: bool) -> Result<(), MountError> {
        mount_rootfs(&self.layers, &self.at("upper"), &self.at("work"), &self.at("root"), read_only)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = unmount_rootfs(&self.at("root"));
    }
}

#[test]
fn whiteouts_hide_what_is_below_and_only_that() {
    let mut stack = Stack::new();
    stack.layer(&[
        ("keep", "0"),
        ("gone", "0"),
        ("dir/a", "0"),
        ("dir/b", "0"),
        ("opaque/old", "0"),
        ("again/old", "0"),
        ("twice/old", "0"),
        ("early/old", "0"),
    ]);
    stack.layer(&[
        (".wh.gone", ""),
        ("dir/.wh.a", ""),
        ("opaque/new", "1"),
        ("opaque/.wh..wh..opq", ""),
        // A folder that replaces one below: the whiteout first, or the folder first.
        (".wh.again", ""),
        ("again/new", "1"),
        ("twice/new", "1"),
        (".wh.twice", ""),
        ("early/", ""),
        (".wh.early", ""),
        (".wh..wh.plnk/1.2", "aufs"),
    ]);
    stack.mount(false).unwrap();
    assert_eq!(stack.names("."), ["again", "dir", "early", "keep", "opaque", "twice"]);
    assert_eq!(stack.names("dir"), ["b"]);
    assert_eq!(stack.names("opaque"), ["new"]);
    assert_eq!(stack.names("again"), ["new"]);
    assert_eq!(stack.names("twice"), ["new"]);
    assert_eq!(stack.names("early"), [""; 0]);
}

#[test]
fn the_last_layer_is_on_top_and_writes_go_to_the_upper_folder() {
    let mut stack = Stack::new();
    for content in ["bottom", "middle", "top"] {
        stack.layer(&[("same", content), (content, content)]);
    }
    stack.mount(false).unwrap();
    assert_eq!(fs::read_to_string(stack.at("root/same")).unwrap(), "top");
    assert_eq!(stack.names("."), ["bottom", "middle", "same", "top"]);
    fs::write(stack.at("root/same"), "written").unwrap();
    assert_eq!(fs::read_to_string(stack.at("upper/same")).unwrap(), "written");
    assert_eq!(fs::read_to_string(stack.at("layer2/same")).unwrap(), "top");
}

#[test]
fn a_read_only_root_cannot_be_written() {
    let mut stack = Stack::new();
    stack.layer(&[("a", "a")]);
    stack.mount(true).unwrap();
    let error = fs::write(stack.at("root/a"), "b").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn as_many_layers_as_an_image_may_have_can_be_mounted() {
    let mut stack = Stack::new();
    for number in 0..super::super::limits::LAYERS_MAX {
        let path = stack.at(&format!("plain{number}"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join(format!("{number}")), "").unwrap();
        stack.layers.push(path);
    }
    stack.mount(false).unwrap();
    assert_eq!(stack.names(".").len(), 499);
}

#[test]
fn a_refusal_carries_the_kernels_own_words() {
    let mut stack = Stack::new();
    for number in 0..501 {
        let path = stack.at(&format!("plain{number}"));
        fs::create_dir(&path).unwrap();
        stack.layers.push(path);
    }
    let error = stack.mount(false).unwrap_err().to_string();
    assert!(error.contains("501 layers") && error.contains("limit is 500"), "{error}");
    stack.layers.clear();
    assert!(matches!(stack.mount(false), Err(MountError::NoLayers)));
    stack.layers.push(stack.at("missing"));
    let error = stack.mount(false).unwrap_err().to_string();
    assert!(error.ends_with("/missing"), "{error}");
}

#[test]
fn kernels_without_the_new_call_get_the_old_one() {
    let mut stack = Stack::new();
    for content in ["bottom", "top"] {
        stack.layer(&[("same", content), (content, content)]);
    }
    mount_by_options(&stack.layers, &stack.at("upper"), &stack.at("work"), &stack.at("root"), false).unwrap();
    assert_eq!(fs::read_to_string(stack.at("root/same")).unwrap(), "top");
    assert_eq!(stack.names("."), ["bottom", "same", "top"]);
}

#[test]
fn unmounting_is_idempotent_and_works_while_in_use() {
    let mut stack = Stack::new();
    stack.layer(&[("a", "a")]);
    stack.mount(false).unwrap();
    let held = fs::File::open(stack.at("root/a")).unwrap();
    unmount_rootfs(&stack.at("root")).unwrap();
    assert_eq!(stack.names("."), [""; 0]);
    unmount_rootfs(&stack.at("root")).unwrap();
    unmount_rootfs(&stack.at("missing")).unwrap();
    drop(held);
}
