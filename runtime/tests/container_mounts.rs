//! What a container sees of file systems, and what it may change.
#![allow(clippy::unwrap_used, reason = "tests")]

mod container_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use container_support::Lab;
use rswarm_runtime::volume::VolumeStore;
use rswarm_runtime::{Backend, NetNs};
use rswarm_types::spec::{Mount, MountKind};
use rswarm_types::units::{Bytes, NanoCpus};

fn mount(kind: MountKind, source: &str, target: &str) -> Mount {
    Mount { kind, source: source.to_owned(), target: target.to_owned(), ..Mount::default() }
}

async fn a_read_only_root_refuses_writes_but_not_in_mounts(lab: Lab) {
    let ended = lab
        .shell("t", "touch /x; touch /etc/x; touch /tmp/ok && echo tmp; touch /dev/shm/ok && echo shm", |service| {
            let spec = &mut service.task.container;
            spec.read_only = true;
            spec.mounts.push(mount(MountKind::Tmpfs, "", "/tmp"));
        })
        .await;
    assert_eq!(ended.stdout, ["tmp", "shm"]);
    assert_eq!(ended.stderr.iter().filter(|l| l.contains("Read-only file system")).count(), 2, "{:?}", ended.stderr);
    // And a writable one keeps the image as it was.
    lab.shell("w", "echo changed > /data/sub/file", |_| {}).await;
    assert_eq!(fs::read_to_string(lab.dir.path().join("layer/data/sub/file")).unwrap(), "from the image\n");
}

async fn binds_volumes_and_tmpfs_are_where_they_were_asked_for(lab: Lab) {
    let volumes = VolumeStore::open(lab.dir.path().join("volumes")).unwrap();
    volumes.create("filled", &BTreeMap::new()).unwrap();
    volumes.create("empty", &BTreeMap::new()).unwrap();
    let host = lab.dir.path().join("host");
    fs::create_dir_all(host.join("deep")).unwrap();
    fs::write(host.join("deep/file"), "of the host\n").unwrap();
    let source = host.display().to_string();
    let line = "cat /b/deep/file; touch /b/new; touch /r/no; cat /f/sub/file /data/sub/file; ls /e | wc -l; \
                echo w > /f/written; grep -E ' /t tmpfs' /proc/mounts; stat -c %a /t; cat /s; ls /a/made";
    let ended = lab
        .shell("t", line, |service| {
            let mut no_copy = mount(MountKind::Volume, "empty", "/e");
            no_copy.volume.no_copy = true;
            let mut read_only = mount(MountKind::Bind, &source, "/r");
            read_only.read_only = true;
            let mut tmpfs = mount(MountKind::Tmpfs, "", "/t");
            tmpfs.tmpfs.size = Bytes(1 << 20);
            tmpfs.tmpfs.mode = Some(0o750);
            let mut made = mount(MountKind::Bind, &format!("{source}/made/here"), "/a/made");
            made.bind.create_source = true;
            service.task.container.mounts = vec![
                mount(MountKind::Bind, &source, "/b"),
                read_only,
                mount(MountKind::Volume, "filled", "/data"),
                no_copy,
                tmpfs,
                mount(MountKind::Bind, &format!("{source}/deep/file"), "/s"),
                made,
                mount(MountKind::Volume, "filled", "/f"),
            ];
        })
        .await;
    let said: Vec<&str> = ended.stdout.iter().map(String::as_str).collect();
    assert_eq!(said[..4], ["of the host", "from the image", "from the image", "0"], "{:?}", ended.stderr);
    for option in ["rw", "nosuid", "nodev", "noexec", "size=1024k", "mode=750"] {
        assert!(said[4].contains(option), "{option}: {}", said[4]);
    }
    assert_eq!(said[5..], ["750", "of the host"]);
    assert!(ended.stderr.iter().any(|l| l.contains("/r/no") && l.contains("Read-only")), "{:?}", ended.stderr);
    assert!(host.join("new").exists() && host.join("made/here").is_dir());
    assert_eq!(fs::read_to_string(volumes.path().join("filled/_data/written")).unwrap(), "w\n");
    assert_eq!(lab.runtime().volume_users("filled"), ["t"]);
    // The volume's content outlives the container.
    lab.runtime().delete("t", true).await.unwrap();
    assert_eq!(lab.runtime().volume_users("filled"), [""; 0]);
    let ended = lab
        .shell("u", "cat /sub/file; cat /v", |service| {
            let mut part = mount(MountKind::Volume, "filled", "/sub");
            part.volume.subpath = "sub".to_owned();
            let mut file = mount(MountKind::Volume, "filled", "/v");
            file.volume.subpath = "written".to_owned();
            service.task.container.mounts = vec![part, file];
        })
        .await;
    assert_eq!(ended.stdout, ["from the image", "w"], "{:?}", ended.stderr);
}

async fn cgroup_limits_are_set_and_cannot_be_lifted_from_inside(lab: Lab) {
    let line = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory/memory.soft_limit_in_bytes \
                /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us /sys/fs/cgroup/pids/pids.max; \
                echo -1 > /sys/fs/cgroup/memory/memory.limit_in_bytes || echo refused; \
                touch /sys/fs/cgroup/x || echo refused; mkdir /sys/fs/cgroup/cpu/x || echo refused; \
                echo 1 > /proc/sys/kernel/panic || echo refused; \
                ls /proc/acpi /sys/firmware 2>/dev/null | grep -v :; cat /proc/kcore | wc -c";
    let ended = lab
        .shell("t", line, |service| {
            service.task.resources.limit_memory = Bytes(64 << 20);
            service.task.resources.reserve_memory = Bytes(32 << 20);
            service.task.resources.limit_cpu = NanoCpus(500_000_000);
            service.task.resources.limit_pids = 20;
        })
        .await;
    let said: Vec<&str> = ended.stdout.iter().map(String::as_str).filter(|l| !l.is_empty()).collect();
    let expected = ["67108864", "33554432", "50000", "100000", "20", "refused", "refused", "refused", "refused", "0"];
    assert_eq!(said, expected, "{:?}", ended.stderr);
}

macro_rules! on_both {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { super::$name(super::Lab::embedded()).await; })*
        }
        mod runc {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                super::$name(super::Lab::new(super::Backend::Oci(super::PathBuf::from("runc")))).await;
            })*
        }
    };
}

on_both! {
    a_read_only_root_refuses_writes_but_not_in_mounts
    binds_volumes_and_tmpfs_are_where_they_were_asked_for
    cgroup_limits_are_set_and_cannot_be_lifted_from_inside
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mounted_is_named() {
    let lab = Lab::embedded();
    VolumeStore::open(lab.dir.path().join("volumes")).unwrap().create("vol", &BTreeMap::new()).unwrap();
    let data = lab.dir.path().join("volumes/vol/_data");
    std::os::unix::fs::symlink("/etc", data.join("out")).unwrap();
    let mut escaping = mount(MountKind::Volume, "vol", "/v");
    escaping.volume.subpath = "out/passwd".to_owned();
    for (id, mount, text) in [
        (
            "a",
            mount(MountKind::Bind, "/no/such/place", "/b"),
            "bind source path does not exist on this node: /no/such/place",
        ),
        ("b", mount(MountKind::Volume, "nothing", "/v"), "no such volume: nothing"),
        ("c", escaping, "volume-subpath \"out/passwd\""),
    ] {
        let mut service = lab.service(&["true"]);
        service.task.container.mounts = vec![mount];
        let error = lab.runtime().start(lab.plan_of(id, &service, NetNs::None)).await.unwrap_err();
        assert!(error.text.contains(text), "{error}");
    }
    let gone = NetNs::Path(PathBuf::from("/no/such/netns"));
    let error = lab.runtime().start(lab.plan_of("d", &lab.service(&["true"]), gone)).await.unwrap_err();
    assert!(error.text.contains("network namespace /no/such/netns"), "{error}");
    let mut service = lab.service(&["true"]);
    service.task.container.user = "nobody".to_owned();
    let error = lab.runtime().start(lab.plan_of("e", &service, NetNs::None)).await.unwrap_err();
    assert!(error.text.starts_with("user \"nobody\" is not in the image's /etc/passwd"), "{error}");
    assert_eq!(lab.leftovers(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_given_network_namespace_is_joined_and_the_host_s_is_shared() {
    let lab = Lab::embedded();
    let own = fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    let look = lab.service(&["ls", "-l", "/proc/self/ns/net"]);
    let ended = lab.run(lab.plan_of("h", &look, NetNs::Host)).await;
    assert!(ended.stdout[0].contains(&own), "{:?}", ended.stdout);
    // A process of the first container's namespace lends it to the second.
    lab.runtime().start(lab.plan("a", &["sleep", "600"])).await.unwrap();
    let path = PathBuf::from(format!("/proc/{}/ns/net", lab.pid_in("a", "init")));
    let given = fs::read_link(&path).unwrap().display().to_string();
    assert_ne!(given, own);
    let ended = lab.run(lab.plan_of("b", &look, NetNs::Path(path))).await;
    assert!(ended.stdout[0].contains(&given), "{:?}", ended.stdout);
}
