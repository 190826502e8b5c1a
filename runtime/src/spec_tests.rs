use super::*;
use rswarm_types::spec::{HostEntry, Ulimit};
use rswarm_types::units::{Bytes, NanoCpus};

fn sandbox(netns: NetNs) -> Sandbox {
    Sandbox {
        netns,
        hostname: "h".to_owned(),
        resolv_conf: "nameserver 127.0.0.11\n".to_owned(),
        hosts: "127.0.0.1\tlocalhost".to_owned(),
    }
}

fn own(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn service(container: ContainerSpec) -> ServiceSpec {
    let mut service = ServiceSpec::default();
    if container.command.is_empty() && container.args.is_empty() {
        service.task.container = ContainerSpec { args: own(&["run"]), ..container };
    } else {
        service.task.container = container;
    }
    service
}

fn plan_of(service: &ServiceSpec, image: &ImageConfig, netns: NetNs) -> Result<ContainerPlan, PlanError> {
    let node = NodePaths { volumes: Path::new("/v") };
    container_plan("t1", service, image, &[PathBuf::from("/l")], &sandbox(netns), node, Defaults::default())
}

fn plan(container: ContainerSpec, image: &ImageConfig) -> ContainerPlan {
    plan_of(&service(container), image, NetNs::None).unwrap()
}

fn refusals(container: ContainerSpec, netns: NetNs) -> Vec<String> {
    plan_of(&service(container), &ImageConfig::default(), netns).unwrap_err().violations
}

#[test]
fn the_node_says_what_containers_have_where_their_service_does_not() {
    let docker = Defaults { capabilities: DefaultCapabilities::Docker, no_new_privileges: true };
    let plan = |spec: ContainerSpec, defaults| {
        let node = NodePaths { volumes: Path::new("/v") };
        let layers = [PathBuf::from("/l")];
        let (service, image) = (service(spec), ImageConfig::default());
        container_plan("t1", &service, &image, &layers, &sandbox(NetNs::None), node, defaults).unwrap()
    };
    let of_node = plan(ContainerSpec::default(), docker);
    assert!(of_node.no_new_privileges && of_node.capabilities.len() == 14);
    assert!(of_node.capabilities.iter().any(|name| name == "NET_RAW"));
    let asked = plan(ContainerSpec { cap_drop: own(&["NET_RAW"]), ..ContainerSpec::default() }, docker);
    assert_eq!(asked.capabilities.len(), 13);
    let ours = plan(ContainerSpec::default(), Defaults::default());
    assert!(!ours.no_new_privileges && ours.capabilities.len() == 11);
}

#[test]
fn entrypoint_and_command_merge_as_docker_does() {
    let image = ImageConfig { entrypoint: own(&["/e"]), cmd: own(&["c"]), ..ImageConfig::default() };
    for (command, args, expected) in [
        (&[][..], &[][..], &["/e", "c"][..]),
        (&[], &["x", "y"], &["/e", "x", "y"]),
        (&["/n"], &[], &["/n"]),
        (&["/n"], &["x"], &["/n", "x"]),
    ] {
        let spec = ContainerSpec { command: own(command), args: own(args), ..ContainerSpec::default() };
        assert_eq!(argv(&spec, &image), expected, "{command:?} {args:?}");
    }
    let error = plan_of(&ServiceSpec::default(), &ImageConfig::default(), NetNs::None).unwrap_err();
    assert!(error.to_string().starts_with("no command: the image has none"), "{error}");
}

#[test]
fn variables_of_the_service_win_and_path_is_always_there() {
    let image = ImageConfig { env: own(&["A=1", "B=2", "PATH=/p"]), ..ImageConfig::default() };
    let spec = ContainerSpec { env: own(&["B=3", "A", "C=4=5"]), tty: true, ..ContainerSpec::default() };
    assert_eq!(env(&spec, &image, "h"), own(&["PATH=/p", "HOSTNAME=h", "TERM=xterm", "B=3", "C=4=5"]));
    let spec = ContainerSpec { env: own(&["PATH"]), ..ContainerSpec::default() };
    assert_eq!(env(&spec, &image, "h").last(), Some(&format!("PATH={DEFAULT_PATH}")));
}

#[test]
fn defaults_come_from_the_image() {
    let image = ImageConfig {
        workdir: "/srv".to_owned(),
        user: "web".to_owned(),
        stop_signal: Some("SIGQUIT".to_owned()),
        ..ImageConfig::default()
    };
    let got = plan(ContainerSpec::default(), &image);
    assert_eq!((got.cwd.as_str(), got.user.as_str(), got.stop_signal), ("/srv", "web", libc::SIGQUIT));
    let got = plan(
        ContainerSpec { dir: "/d".into(), user: "0".into(), stop_signal: "USR1".into(), ..ContainerSpec::default() },
        &image,
    );
    assert_eq!((got.cwd.as_str(), got.user.as_str(), got.stop_signal), ("/d", "0", libc::SIGUSR1));
    assert_eq!(plan(ContainerSpec::default(), &ImageConfig::default()).stop_signal, libc::SIGTERM);
    assert_eq!(got.capabilities.len(), 11);
    assert!(got.seccomp && !got.no_new_privileges && !got.init);
}

#[test]
fn hosts_lines_follow_the_given_text() {
    let host = HostEntry { name: "db".to_owned(), address: "10.0.0.1".parse().unwrap() };
    let got = plan(ContainerSpec { hosts: vec![host], ..ContainerSpec::default() }, &ImageConfig::default());
    assert_eq!(got.hosts, "127.0.0.1\tlocalhost\n10.0.0.1\tdb\n");
}

#[test]
fn mounts_are_ordered_and_the_image_s_volumes_become_anonymous_ones() {
    let mount = |kind, source: &str, target: &str| Mount {
        kind,
        source: source.to_owned(),
        target: target.to_owned(),
        ..Mount::default()
    };
    let image = ImageConfig { volumes: own(&["/data", "/cache/"]), ..ImageConfig::default() };
    let got = plan(
        ContainerSpec {
            mounts: vec![
                mount(MountKind::Bind, "/etc", "/a/b//c"),
                mount(MountKind::Volume, "vol", "/data"),
                mount(MountKind::Tmpfs, "", "/tmp/"),
                mount(MountKind::Volume, "", "/x"),
            ],
            ..ContainerSpec::default()
        },
        &image,
    );
    let targets: Vec<&str> = got.mounts.iter().map(|m| m.target.as_str()).collect();
    assert_eq!(targets, ["/data", "/tmp", "/x", "/cache", "/a/b/c"]);
    assert_eq!(got.volumes().collect::<Vec<_>>(), ["vol"]);
    assert_eq!(
        got.mounts[0].source,
        MountSource::Volume { name: "vol".into(), path: "/v/vol/_data".into(), subpath: String::new(), copy: true }
    );
    assert_eq!(got.mounts[2].source, MountSource::Anonymous { number: 0, copy: true });
    assert_eq!(got.mounts[3].source, MountSource::Anonymous { number: 1, copy: true });
}

#[test]
fn bad_mounts_are_all_named() {
    let mount = |kind, source: &str, target: &str| Mount {
        kind,
        source: source.to_owned(),
        target: target.to_owned(),
        ..Mount::default()
    };
    let mut shared = mount(MountKind::Bind, "/s", "/shared");
    shared.bind.propagation = "rshared".to_owned();
    let mut subpath = mount(MountKind::Volume, "v1", "/sub");
    subpath.volume.subpath = "a/../..".to_owned();
    let got = refusals(
        ContainerSpec {
            mounts: vec![
                mount(MountKind::Bind, "/x", "rel"),
                mount(MountKind::Bind, "/x", "/a/../b"),
                mount(MountKind::Bind, "rel", "/r"),
                mount(MountKind::Tmpfs, "x", "/t"),
                mount(MountKind::Volume, "../v", "/v"),
                mount(MountKind::Bind, "/x", "/proc"),
                shared,
                subpath,
            ],
            ..ContainerSpec::default()
        },
        NetNs::None,
    );
    assert_eq!(got.len(), 8, "{got:#?}");
    assert!(got[6].contains("rshared") && got[6].contains("not supported yet"));
}

#[test]
fn only_sysctls_of_the_container_s_own_namespaces_are_allowed() {
    let spec = |key: &str| ContainerSpec {
        sysctls: BTreeMap::from([(key.to_owned(), "1".to_owned())]),
        ..ContainerSpec::default()
    };
    for key in ["net.core.somaxconn", "net/ipv4/ip_forward", "kernel.shmmax", "fs.mqueue.msg_max", "kernel.sem"] {
        let got = plan(spec(key), &ImageConfig::default());
        assert_eq!(got.sysctls.get(&key.replace('/', ".")).map(String::as_str), Some("1"), "{key}");
    }
    for key in ["vm.swappiness", "kernel.panic", "kernel.shm..", "net..x", "fs.file-max"] {
        assert_eq!(refusals(spec(key), NetNs::None).len(), 1, "{key}");
    }
    assert!(refusals(spec("net.core.somaxconn"), NetNs::Host)[0].contains("host's network"));
    let host = plan_of(&service(ContainerSpec::default()), &ImageConfig::default(), NetNs::Host).unwrap();
    assert!(host.sysctls.is_empty());
}

#[test]
fn limits_are_converted_and_checked() {
    let mut limited = service(ContainerSpec {
        ulimits: vec![Ulimit { name: "nofile".into(), soft: 10, hard: -1 }],
        ..ContainerSpec::default()
    });
    limited.task.resources = Resources {
        limit_cpu: NanoCpus(1_500_000_000),
        limit_memory: Bytes(64 << 20),
        limit_pids: 9,
        ..Resources::default()
    };
    let got = plan_of(&limited, &ImageConfig::default(), NetNs::None).unwrap();
    assert_eq!(got.resources.cpu_quota_us, 150_000);
    assert_eq!(got.ulimits, [PlannedUlimit { name: "NOFILE".into(), soft: 10, hard: u64::MAX }]);
    limited.task.resources = Resources { limit_cpu: NanoCpus(1), limit_memory: Bytes(1), ..Resources::default() };
    limited.task.container.ulimits = vec![
        Ulimit { name: "files".into(), soft: 1, hard: 1 },
        Ulimit { name: "core".into(), soft: 2, hard: 1 },
        Ulimit { name: "core".into(), soft: -2, hard: 1 },
    ];
    limited.task.container.oom_score_adj = 1001;
    limited.task.container.cap_add = own(&["FLY"]);
    limited.task.container.stop_signal = "SIGWHAT".to_owned();
    let error = plan_of(&limited, &ImageConfig::default(), NetNs::None).unwrap_err();
    assert_eq!(error.violations.len(), 8, "{:#?}", error.violations);
}

#[test]
fn log_options_are_docker_s_or_refused() {
    let driver = |name: &str, options: &[(&str, &str)]| LogDriver {
        name: name.to_owned(),
        options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    };
    let mut bad = Vec::new();
    let read = |d: LogDriver, bad: &mut Vec<String>| log(&d, bad);
    assert_eq!(
        read(driver("json-file", &[("max-size", "1m"), ("max-file", "5")]), &mut bad),
        LogPlan { file_bytes: 1 << 20, files: 5 }
    );
    assert_eq!(read(driver("none", &[]), &mut bad).files, 0);
    assert!(bad.is_empty());
    read(driver("syslog", &[("tag", "x"), ("max-size", "0"), ("max-file", "0")]), &mut bad);
    assert_eq!(bad.len(), 4, "{bad:#?}");
}
