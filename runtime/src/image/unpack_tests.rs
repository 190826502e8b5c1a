use std::error::Error;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::PathBuf;

use tar::{EntryType, Header};

use super::*;

/// A tar written byte by byte, for no library writes the hostile ones.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn raw(
        mut self,
        kind: EntryType,
        name: &str,
        link: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.raw(EntryType::Regular, name, "", content, |_| {})
    }

    fn dir(self, name: &str) -> Self {
        self.raw(EntryType::Directory, name, "", b"", |header| header.set_mode(0o755))
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Symlink, name, target, b"", |_| {})
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.raw(EntryType::Link, name, target, b"", |_| {})
    }

    fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let length =
                (1..).map(|digits| rest + digits).find(|length| length.to_string().len() + rest == *length).unwrap();
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        self.raw(EntryType::XHeader, "pax", "", &content, |_| {})
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// Where a layer goes, with a secret beside it that no archive may touch.
struct Sandbox {
    folder: tempfile::TempDir,
}

impl Sandbox {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("layer")).unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        Self { folder }
    }

    fn layer(&self) -> PathBuf {
        self.folder.path().join("layer")
    }

    fn unpack(&self, tar: &[u8]) -> Result<u64, LayerError> {
        unpack_stream(tar, bound(tar.len() as u64), Digest::of(tar), &self.layer())
    }

    fn assert_nothing_outside(&self) {
        let mut names: Vec<_> =
            std::fs::read_dir(self.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["layer", "secret"]);
        let secret = self.folder.path().join("secret");
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
        assert_eq!(std::fs::metadata(&secret).unwrap().nlink(), 1);
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

#[test]
fn a_layer_is_unpacked_with_owners_modes_times_links_devices_and_attributes() {
    let sandbox = Sandbox::new();
    let capability = b"\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    let tar = Tar::default()
        .raw(EntryType::Directory, "./", "", b"", |header| header.set_mode(0o751))
        .raw(EntryType::Directory, "usr/bin/", "", b"", |header| header.set_mode(0o1777))
        .raw(EntryType::Regular, "usr/bin/su", "", b"root", |header| {
            header.set_mode(0o4755);
            header.set_uid(12);
            header.set_gid(34);
        })
        .link("usr/bin/su2", "/usr/bin/su")
        .symlink("bin", "usr/bin")
        .file("bin/through", b"the link")
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.a", b"1\n2"),
            ("mtime", b"1000000000.5"),
        ])
        .file("cap", b"c")
        .raw(EntryType::Char, "null", "", b"", |header| header.set_mode(0o666))
        .raw(EntryType::Fifo, "pipe", "", b"", |_| {})
        .raw(EntryType::Regular, "blank", "", b"", |header| {
            header.as_old_mut().uid = [0; 8];
            header.as_old_mut().gid = [b' '; 8];
        })
        .end();
    assert_eq!(sandbox.unpack(&tar).unwrap(), 4 + 8 + 1);
    assert!(sandbox.layer().join("blank").exists(), "a blank number is 0");
    let at = |path: &str| sandbox.layer().join(path);
    let su = std::fs::metadata(at("usr/bin/su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.mtime(), su.nlink()), (0o4755, 12, 34, 1_000_000_000, 2));
    let bin = std::fs::metadata(at("usr/bin")).unwrap();
    assert_eq!((bin.mode() & 0o7777, bin.mtime()), (0o1777, 1_000_000_000), "folder times are set after their files");
    assert_eq!(std::fs::metadata(sandbox.layer()).unwrap().mode() & 0o7777, 0o751);
    assert_eq!(std::fs::read(at("usr/bin/through")).unwrap(), b"the link");
    let null = std::fs::metadata(at("null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == rustix::fs::makedev(1, 3));
    assert!(std::fs::metadata(at("pipe")).unwrap().file_type().is_fifo());
    let mut value = [0; 64];
    let length = rustix::fs::getxattr(at("cap"), "security.capability", &mut value).unwrap();
    assert_eq!(&value[..length], capability);
    let length = rustix::fs::getxattr(at("cap"), "user.a", &mut value).unwrap();
    assert_eq!(&value[..length], b"1\n2");
    assert_eq!(std::fs::metadata(at("cap")).unwrap().mtime_nsec(), 500_000_000);
}

#[test]
fn hostile_archives_are_refused_by_name_and_write_nothing_outside() {
    let long = "x".repeat(5000);
    let deep = "d/".repeat(300);
    for (name, tar, expected) in [
        ("dot dot", Tar::default().file("../secret", b"x"), "\"..\" would leave"),
        ("dot dot inside", Tar::default().file("a/../../secret", b"x"), "\"..\" would leave"),
        ("dot dot in pax", Tar::default().pax(&[("path", b"../secret")]).file("a", b"x"), "\"..\" would leave"),
        ("hard link outside", Tar::default().link("a", "../secret"), "\"..\" would leave"),
        (
            "hard link through a symlink",
            Tar::default().symlink("up", "..").link("a", "up/secret"),
            "hard link to nothing",
        ),
        ("hard link to a folder", Tar::default().dir("d").link("a", "d"), "not a file"),
        (
            "symlink loop as ancestor",
            Tar::default().symlink("a", "b").symlink("b", "a").file("a/x", b"x"),
            "symbolic links",
        ),
        ("file as ancestor", Tar::default().file("a", b"x").file("a/b", b"x"), "not a folder"),
        ("whiteout of dot dot", Tar::default().file(".wh...", b""), "whiteout of nothing"),
        ("whiteout of dot", Tar::default().file(".wh..", b""), "whiteout of nothing"),
        ("whiteout of nothing", Tar::default().file("a/.wh.", b""), "whiteout of nothing"),
        ("pax size mismatch", Tar::default().pax(&[("size", b"512")]).file("a", b"x"), "different sizes"),
        (
            "two pax headers",
            Tar::default().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b""),
            "two extension headers",
        ),
        ("pax at the end", Tar::default().pax(&[("path", b"a")]), "ends after an extension header"),
        ("long path", Tar::default().pax(&[("path", long.as_bytes())]).file("a", b""), "longer than 4096"),
        ("long part", Tar::default().pax(&[("path", &long.as_bytes()[..300])]).file("a", b""), "longer than 255"),
        ("deep path", Tar::default().pax(&[("path", deep.as_bytes())]).dir("a"), "256 folders deep"),
        ("NUL in path", Tar::default().pax(&[("path", b"a\0b")]).file("a", b""), "NUL"),
        (
            "overlay redirect",
            Tar::default().pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/etc")]).dir("a"),
            "attribute of overlayfs",
        ),
        ("sparse", Tar::default().raw(EntryType::GNUSparse, "a", "", b"", |_| {}), "sparse"),
        ("pax sparse", Tar::default().pax(&[("GNU.sparse.major", b"1")]).file("a", b""), "sparse"),
        ("unknown type", Tar::default().raw(EntryType::new(b'Z'), "a", "", b"", |_| {}), "type is unknown"),
        (
            "content of a folder",
            Tar::default().raw(EntryType::Directory, "a", "", b"x", |_| {}),
            "only a file may have content",
        ),
        ("owner out of range", Tar::default().pax(&[("uid", b"4294967295")]).file("a", b""), "owner is out of range"),
        (
            "file as root",
            Tar::default().file("./", b"").raw(EntryType::Symlink, "./", "/", b"", |_| {}),
            "must be a folder",
        ),
        (
            "huge extension",
            Tar::default().raw(EntryType::XHeader, "a", "", b"", |header| header.set_size(1 << 40)),
            "longer than 1 MiB",
        ),
    ] {
        let sandbox = Sandbox::new();
        let error = chain(&sandbox.unpack(&tar.end()).expect_err(name));
        assert!(error.contains(expected), "{name}: {error}");
        sandbox.assert_nothing_outside();
    }
}

#[test]
fn names_that_look_dangerous_stay_inside() {
    let sandbox = Sandbox::new();
    let tar = Tar::default()
        .file("/etc/absolute", b"a")
        .symlink("root", "/")
        .file("root/through-root", b"b")
        .symlink("up", "../../../..")
        .file("up/through-up", b"c")
        .symlink("etc2", "/etc")
        .file("etc2/passwd", b"d")
        .symlink("later", "usr/lib")
        .file("later/made", b"e")
        .symlink("replaced", "/etc")
        .file("replaced", b"f")
        .dir("folder")
        .file("folder/x", b"")
        .file("folder", b"g")
        .end();
    sandbox.unpack(&tar).unwrap();
    for (path, content) in [
        ("etc/absolute", "a"),
        ("through-root", "b"),
        ("through-up", "c"),
        ("etc/passwd", "d"),
        ("usr/lib/made", "e"),
        ("replaced", "f"),
        ("folder", "g"),
    ] {
        assert_eq!(std::fs::read_to_string(sandbox.layer().join(path)).unwrap(), content, "{path}");
    }
    assert!(std::fs::symlink_metadata(sandbox.layer().join("replaced")).unwrap().is_file());
    sandbox.assert_nothing_outside();
}

#[test]
fn depth_is_bounded_through_symbolic_links_too() {
    let sandbox = Sandbox::new();
    let half = "d/".repeat(200);
    let tar = Tar::default()
        .pax(&[("path", half.as_bytes())])
        .dir("x")
        .pax(&[("linkpath", half.as_bytes())])
        .symlink("l", "x")
        .pax(&[("path", format!("l/{half}").as_bytes())])
        .dir("x")
        .end();
    let error = chain(&sandbox.unpack(&tar).unwrap_err());
    assert!(error.contains("256 folders deep"), "{error}");
}

#[test]
fn a_truncated_archive_is_refused() {
    let whole = Tar::default().file("a", &[b'x'; 2000]).end();
    for length in [100, 512, 1000, 2000] {
        let sandbox = Sandbox::new();
        assert!(sandbox.unpack(&whole[..length]).is_err(), "{length}");
    }
}

#[test]
fn content_that_is_not_what_the_config_names_is_refused() {
    let sandbox = Sandbox::new();
    let tar = Tar::default().file("a", b"x").end();
    let error = unpack_stream(&tar[..], bound(0), Digest::of(b"other"), &sandbox.layer()).unwrap_err();
    assert!(matches!(error, LayerError::DiffId { .. }), "{error}");
    // What follows the end mark counts.
    let mut longer = tar.clone();
    longer.extend_from_slice(b"hidden");
    assert!(matches!(
        unpack_stream(&longer[..], bound(0), Digest::of(&tar), &Sandbox::new().layer()),
        Err(LayerError::DiffId { .. })
    ));
}

/// A reader of zeros, as a bomb unpacks to.
struct Zeros(u64);

impl Read for Zeros {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = buffer.len().min(usize::try_from(self.0).unwrap_or(usize::MAX));
        buffer[..read].fill(0);
        self.0 -= read as u64;
        Ok(read)
    }
}

#[test]
fn bombs_are_refused_by_ratio_and_small_layers_of_zeros_are_not() {
    for (megabytes, is_bomb) in [(200_u64, true), (100, false)] {
        for pack in ["gzip", "zstd"] {
            let size = megabytes << 20;
            let head = Tar::default().raw(EntryType::Regular, "zeros", "", b"", |header| header.set_size(size)).0;
            let tar = head.chain(Zeros(size + 1024));
            let packed = if pack == "gzip" {
                let mut encoder = flate2::read::GzEncoder::new(tar, flate2::Compression::default());
                let mut packed = Vec::new();
                encoder.read_to_end(&mut packed).unwrap();
                packed
            } else {
                zstd::encode_all(tar, 1).unwrap()
            };
            let sandbox = Sandbox::new();
            let error = chain(
                &unpack_stream(&packed[..], bound(packed.len() as u64), Digest::of(b""), &sandbox.layer()).unwrap_err(),
            );
            let expected = if is_bomb { "unpacks to more than" } else { "the image's config names" };
            assert!(error.contains(expected), "{megabytes} MiB by {pack}: {error}");
        }
    }
    assert_eq!(bound(1 << 40).max, LAYER_UNPACKED_MAX);
    assert_eq!(bound(10 << 20).max, 2000 << 20);
}

/// Our reading against GNU tar's, of what both accept.
#[test]
fn gnu_tar_reads_the_same_tree() {
    let long = format!("{}/{}", "long".repeat(30), "name".repeat(40));
    let tar = Tar::default()
        .dir("a/")
        .file("a/b", b"1")
        .file("a/b", b"22")
        .symlink("a/link", "b")
        .link("a/hard", "a/b")
        .raw(EntryType::GNULongName, "././@LongLink", "", format!("{long}\0").as_bytes(), |_| {})
        .file("short", b"333")
        .pax(&[("path", "pax/ünïcode".as_bytes()), ("mtime", b"1234567890.25")])
        .file("x", b"4444")
        .raw(EntryType::Fifo, "fifo", "", b"", |_| {})
        .file("./dot/./x", b"5")
        .end();
    let (ours, theirs) = (Sandbox::new(), Sandbox::new());
    ours.unpack(&tar).unwrap();
    let archive = theirs.folder.path().join("secret");
    std::fs::write(&archive, &tar).unwrap();
    let status =
        std::process::Command::new("tar").arg("-xpf").arg(&archive).arg("-C").arg(theirs.layer()).status().unwrap();
    assert!(status.success());
    let listing = |root: PathBuf| {
        let script = "find . -mindepth 1 -printf '%P %y %m %U %G %l %s\\n' | sed -E 's/( d .*) [0-9]+$/\\1/' | sort; find . -type f -printf '%P %T@\\n' | sort; find . -type f | sort | xargs -d '\\n' sha256sum";
        let output = std::process::Command::new("sh").args(["-c", script]).current_dir(root).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(listing(ours.layer()), listing(theirs.layer()));
}
