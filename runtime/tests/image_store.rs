//! The store on disk: loading archives, names, removal, and what survives damage.
#![expect(clippy::unwrap_used, reason = "tests")]

mod image_support;

use std::io::Cursor;
use std::path::Path;

use image_support::{Built, build, chain, gzip, host_arch, refused, simple, store, tar_of};
use rswarm_runtime::image::{Digest, ImageError, ImageStore, RegistryPolicy, Removed, mount_rootfs, unmount_rootfs};

async fn load(store: &ImageStore, archive: Vec<u8>) -> Result<Vec<String>, ImageError> {
    let loaded = store.load(Cursor::new(archive)).await?;
    Ok(loaded.into_iter().flat_map(|image| image.references).collect())
}

fn files(path: &Path) -> usize {
    std::fs::read_dir(path).unwrap().count()
}

struct Mounted(std::path::PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = unmount_rootfs(&self.0);
    }
}

#[tokio::test]
async fn docker_archives_are_loaded_plain_and_packed_and_can_be_mounted() {
    for (number, pack) in [
        (0, None),
        (1, Some(gzip as fn(&[u8]) -> Vec<u8>)),
        (2, Some((|bytes| zstd::encode_all(bytes, 1).unwrap()) as fn(&[u8]) -> Vec<u8>)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = store(&folder.path().join("images"));
        let built = simple("loaded");
        let archive = built.docker_save(Some("counter"));
        let archive = pack.map_or(archive.clone(), |pack| pack(&archive));
        assert_eq!(load(&store, archive).await.unwrap(), ["counter:latest"], "{number}");
        let image = store.get("counter").unwrap();
        assert_eq!(image.id.to_string(), built.id());
        assert_eq!(image.config.env, ["A=b"]);
        assert_eq!(image.config.cmd, ["/run"]);
        assert_eq!(image.config.exposed_ports, ["80/tcp"]);
        assert_eq!(image.layers.len(), 2);
        assert_eq!(image.size, 16);
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        let root = Mounted(folder.path().join("root"));
        mount_rootfs(&image.layers, &folder.path().join("upper"), &folder.path().join("work"), &root.0, false).unwrap();
        assert_eq!(std::fs::read_to_string(root.0.join("etc/name")).unwrap(), "loaded");
        assert_eq!(std::fs::read_to_string(root.0.join("etc/keep")).unwrap(), "kept");
    }
}

#[tokio::test]
async fn oci_layouts_are_loaded_with_and_without_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let built = simple("oci");
    assert_eq!(
        load(&store, built.oci_layout(Some("lab.example:5000/app:v1"))).await.unwrap(),
        ["lab.example:5000/app:v1"]
    );
    assert_eq!(store.get("lab.example:5000/app:v1").unwrap().id.to_string(), built.id());
    let other = simple("nameless");
    assert_eq!(load(&store, other.oci_layout(Some("v2"))).await.unwrap(), [""; 0]);
    assert_eq!(store.get(&other.id()).unwrap().repo_tags, [""; 0]);
    assert_eq!(store.get(&other.digest()).unwrap().id.to_string(), other.id(), "found by the manifest's digest, too");
}

#[tokio::test]
async fn an_archive_with_links_in_place_of_repeated_layers_is_loaded() {
    let built = simple("linked");
    let same = build(vec![built.tars[0].clone(), built.tars[0].clone()], gzip, host_arch());
    let config = format!("{}.json", Digest::of(&same.config).hex());
    let manifest =
        format!(r#"[{{"Config":"{config}","RepoTags":["linked:1"],"Layers":["a/layer.tar","b/layer.tar"]}}]"#);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    for (name, content) in [
        (config.as_str(), same.config.as_slice()),
        ("a/layer.tar", &same.tars[0]),
        ("manifest.json", manifest.as_bytes()),
    ] {
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    header.set_size(0);
    header.set_entry_type(tar::EntryType::Symlink);
    tar.append_link(&mut header, "b/layer.tar", "../a/layer.tar").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    assert_eq!(load(&store, tar.into_inner().unwrap()).await.unwrap(), ["linked:1"]);
    assert_eq!(store.get("linked:1").unwrap().layers.len(), 2);
}

#[tokio::test]
async fn archives_that_are_none_or_do_not_fit_are_refused_and_leave_nothing() {
    let built = simple("x");
    let broken = |change: &dyn Fn(&mut Built)| {
        let mut built = simple("x");
        change(&mut built);
        built
    };
    for (name, archive, expected) in [
        ("empty", Vec::new(), "neither a docker save archive"),
        ("text", b"hello".repeat(1000), "neither a docker save archive"),
        ("other tar", tar_of(&[("a", b"b")]), "neither a docker save archive"),
        ("bad json", tar_of(&[("manifest.json", b"{")]), "\"manifest.json\" is not valid"),
        (
            "missing config",
            tar_of(&[("manifest.json", br#"[{"Config":"x.json","Layers":[]}]"#)]),
            "\"x.json\" is missing",
        ),
        (
            "path outside",
            tar_of(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)]),
            "\"..\" would leave",
        ),
        ("bad name", built.docker_save(Some("Bad Name")), "invalid image reference"),
        (
            "wrong layer",
            broken(&|built| built.tars[1] = tar_of(&[("evil", b"x")])).docker_save(Some("x")),
            "the image's config names",
        ),
        (
            "wrong blob",
            broken(&|built| {
                built.blobs[1][20] ^= 1;
            })
            .oci_layout(Some("x:1")),
            "is missing",
        ),
        (
            "one layer too few",
            broken(&|built| {
                built.tars.pop();
            })
            .docker_save(Some("x")),
            "names 2 layers, the manifest 1",
        ),
        (
            "cut off",
            {
                let mut archive = built.docker_save(Some("x"));
                archive.truncate(4000);
                archive
            },
            "ends in the middle",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let error = refused(load(&store, archive).await);
        assert!(error.contains(expected), "{name}: {error}");
        assert!(store.list().is_empty(), "{name}");
        store.collect_garbage().unwrap();
        for path in ["blobs/sha256", "layers", "tmp", "records"] {
            assert_eq!(files(&folder.path().join(path)), 0, "{name}: {path}");
        }
    }
}

#[tokio::test]
async fn a_blob_that_is_not_what_its_name_says_is_refused() {
    let built = simple("x");
    let wrong = {
        let name = format!("blobs/sha256/{}", Digest::of(&built.blobs[0]).hex());
        let mut archive = tar::Builder::new(Vec::new());
        let layout = built.oci_layout(Some("x:1"));
        for entry in tar::Archive::new(&layout[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut header = entry.header().clone();
            let path = entry.path().unwrap().into_owned();
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
            if path.to_str() == Some(&name) {
                content[12] ^= 1;
            }
            archive.append_data(&mut header, path, &content[..]).unwrap();
        }
        archive.into_inner().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let error = refused(load(&store(folder.path()), wrong).await);
    assert!(error.contains("has the digest sha256:"), "{error}");
}

#[tokio::test]
async fn a_name_moves_to_the_image_that_was_loaded_last_and_survives_the_loss_of_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (simple("first"), simple("second"));
    {
        let store = store(folder.path());
        load(&store, first.docker_save(Some("app:1"))).await.unwrap();
        load(&store, second.docker_save(Some("app:1"))).await.unwrap();
        store.tag("app:1", "lab.example/app:two").unwrap();
    }
    let check = |store: &ImageStore| {
        assert_eq!(store.get("app:1").unwrap().id.to_string(), second.id());
        assert_eq!(store.get("lab.example/app:two").unwrap().id.to_string(), second.id());
        let list = store.list();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].repo_tags, ["app:1", "lab.example/app:two"]);
        assert_eq!(list[0].created.as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(list[1].repo_tags, [""; 0]);
        assert_eq!(store.get(&first.id()[..20]).map(|_| ()), None, "a short id has no prefix");
        assert_eq!(store.get(&first.id()["sha256:".len()..][..12]).unwrap().id.to_string(), first.id());
        assert!(store.get("app:2").is_none() && store.get("").is_none() && store.get("no such name").is_none());
    };
    check(&store(folder.path()));
    std::fs::remove_dir_all(folder.path().join("index")).unwrap();
    check(&store(folder.path()));
    for entry in std::fs::read_dir(folder.path().join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"damage".repeat(1000)).unwrap();
        }
    }
    check(&store(folder.path()));
    assert!(folder.path().join("index.damaged").exists());
}

#[tokio::test]
async fn an_image_whose_layer_is_gone_is_not_found_and_comes_back_by_loading_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let built = simple("x");
    load(&store, built.docker_save(Some("app"))).await.unwrap();
    std::fs::remove_dir_all(&store.get("app").unwrap().layers[1]).unwrap();
    assert!(store.get("app").is_none());
    load(&store, built.docker_save(Some("app"))).await.unwrap();
    assert_eq!(store.get("app").unwrap().layers.len(), 2);
}

#[tokio::test]
async fn removal_takes_names_first_and_shared_layers_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (first, second) = (simple("first"), simple("second"));
    load(&store, first.docker_save(Some("first"))).await.unwrap();
    load(&store, second.docker_save(Some("second"))).await.unwrap();
    store.tag("first", "other:1").unwrap();
    let layers = folder.path().join("layers");
    assert_eq!(files(&layers), 3, "the bottom layer is shared");

    let error = refused(store.remove(&first.id(), false, &|_| false));
    assert!(error.contains("names in several repositories (first:latest, other:1)"), "{error}");
    assert_eq!(
        store.remove("first", false, &|_| true).unwrap(),
        [Removed::Untagged("first:latest".into())],
        "not its last name"
    );
    let error = refused(store.remove("other:1", true, &|_| true));
    assert!(error.contains("is used by a container"), "{error}");
    let removed = store.remove("other:1", false, &|_| false).unwrap();
    assert_eq!(removed[..2], [Removed::Untagged("other:1".into()), Removed::Deleted(first.id())]);
    assert_eq!(removed.len(), 3, "one layer goes with it: {removed:?}");
    assert_eq!(files(&layers), 2);
    assert!(store.get("first").is_none() && store.get("second").is_some());

    store.tag("second", "third").unwrap();
    let removed = store.remove(&second.id(), true, &|_| false).unwrap();
    assert_eq!(removed.len(), 5, "{removed:?}");
    for path in ["blobs/sha256", "layers", "records", "tmp"] {
        assert_eq!(files(&folder.path().join(path)), 0, "{path}");
    }
    assert_eq!(chain(&store.remove("second", false, &|_| false).unwrap_err()), "no such image: second");
}

#[tokio::test]
async fn a_second_store_on_the_same_folder_and_a_bad_policy_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = store(folder.path());
    let error = chain(&ImageStore::open(folder.path(), RegistryPolicy::default()).err().unwrap());
    assert!(error.contains("in use by another process"), "{error}");
    let policy = RegistryPolicy { insecure: vec!["http://x".into()] };
    let error = chain(&ImageStore::open(&folder.path().join("b"), policy).err().unwrap());
    assert_eq!(error, "invalid insecure registry \"http://x\": allowed is HOST[:PORT]");
}
