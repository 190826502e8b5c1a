//! Whole files in, stacks or complaints out.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use rswarm_types::spec::container::DnsConfig;
use rswarm_types::spec::*;
use rswarm_types::units::{Bytes, NanoCpus};

use super::*;

fn file(path: &str, text: &str) -> ComposeFile {
    ComposeFile { path: path.into(), dir: "/srv/app".into(), text: text.into() }
}

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn no_files(path: &Path) -> io::Result<String> {
    Err(io::Error::new(io::ErrorKind::NotFound, format!("no such file: {}", path.display())))
}

fn load_texts(texts: &[&str], env: &BTreeMap<String, String>) -> Result<Stack, Vec<StackError>> {
    let files: Vec<ComposeFile> =
        texts.iter().enumerate().map(|(i, text)| file(&format!("{}.yml", i + 1), text)).collect();
    load("app", &files, env, &no_files)
}

/// The stack of one file.
fn stack(text: &str) -> Stack {
    load_texts(&[text], &env(&[])).unwrap_or_else(|errors| panic!("{}", joined(&errors)))
}

/// The one service of a file with `image: a` and these lines.
fn service(lines: &str) -> ServiceSpec {
    stack(&web(lines)).services.remove(0)
}

fn web(lines: &str) -> String {
    let mut text = String::from("services:\n  web:\n    image: a\n");
    for line in lines.lines() {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

fn complaints(texts: &[&str]) -> Vec<String> {
    load_texts(texts, &env(&[])).expect_err("the stack is bad").iter().map(ToString::to_string).collect()
}

fn joined(errors: &[StackError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let mut labels = env(pairs);
    labels.insert(NAMESPACE_LABEL.into(), "app".into());
    labels
}

const POLL: &str = r#"
version: "3.9"

x-update: &update
  parallelism: 2
  delay: 10s
  order: start-first

services:
  vote:
    image: example/vote:1.2
    command: python app.py --title "Cats or dogs"
    environment:
      OPTION_A: Cats
      OPTION_B: ${OPTION_B:-Dogs}
      WORKERS: 4
      SECRET_KEY:
    ports:
      - "5000:80"
    networks: [front]
    healthcheck:
      test: curl -f http://localhost/
      interval: 15s
      retries: 5
    deploy:
      replicas: ${REPLICAS}
      update_config: *update
      labels: {tier: web}
      resources:
        limits: {cpus: "0.50", memory: 128M}
        reservations: {memory: 64M}
      placement:
        constraints: [node.platform.os == linux]
        preferences: [{spread: node.labels.zone}]
  queue:
    image: redis:7
    volumes:
      - queue-data:/data
      - ./redis.conf:/etc/redis.conf:ro
    networks:
      front:
        aliases: [redis]
      back:
    deploy:
      endpoint_mode: dnsrr
      placement: {constraints: ["node.role == worker"]}
  janitor:
    image: example/janitor
    entrypoint: ["/bin/janitor", "--every", "1h"]
    networks: [back]
    logging:
      driver: json-file
      options: {max-size: 5m, max-file: 3}
    deploy:
      mode: global
      restart_policy: {condition: on-failure, delay: 2s, max_attempts: 3, window: 1m}

networks:
  front:
    attachable: true
    ipam:
      config: [{subnet: 10.9.0.0/24}]
  back: {internal: true, labels: [kind=private]}
  unused:
volumes:
  queue-data:
"#;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// The classic two-network poll, as specs.
#[test]
fn a_stack_file_becomes_its_networks_and_services() {
    let text = [POLL];
    let stack = load_texts(&text, &env(&[("REPLICAS", "3"), ("SECRET_KEY", "s3cret")])).unwrap();

    let back = NetworkSpec {
        name: "app_back".into(),
        labels: labels(&[("kind", "private")]),
        internal: true,
        ..NetworkSpec::default()
    };
    let mut front =
        NetworkSpec { name: "app_front".into(), labels: labels(&[]), attachable: true, ..NetworkSpec::default() };
    front.ipam.subnets.push(net("10.9.0.0/24").into());
    assert_eq!(stack.networks, [StackNetwork::Own(back), StackNetwork::Own(front)]);
    assert_eq!(stack.warnings, Vec::<String>::new());

    let attach = |target: &str, aliases: &[&str]| NetworkAttachment {
        target: target.into(),
        aliases: aliases.iter().map(ToString::to_string).collect(),
        ..NetworkAttachment::default()
    };
    let words = |text: &str| text.split('|').map(str::to_owned).collect::<Vec<_>>();

    let mut vote = ServiceSpec {
        name: "app_vote".into(),
        labels: labels(&[("tier", "web"), (IMAGE_LABEL, "example/vote:1.2")]),
        mode: ServiceMode::Replicated { replicas: 3 },
        update: Some(UpdateConfig {
            parallelism: 2,
            delay: Duration::from_secs(10),
            order: UpdateOrder::StartFirst,
            ..UpdateConfig::default()
        }),
        ..ServiceSpec::default()
    };
    vote.endpoint.ports = vec![PortConfig { target: 80, published: 5000, ..PortConfig::default() }];
    vote.task.container = ContainerSpec {
        image: "example/vote:1.2".into(),
        labels: labels(&[]),
        args: words("python|app.py|--title|Cats or dogs"),
        env: words("OPTION_A=Cats|OPTION_B=Dogs|SECRET_KEY=s3cret|WORKERS=4"),
        healthcheck: Some(Healthcheck {
            test: words("CMD-SHELL|curl -f http://localhost/"),
            interval: Some(Duration::from_secs(15)),
            retries: 5,
            ..Healthcheck::default()
        }),
        ..ContainerSpec::default()
    };
    vote.task.resources = Resources {
        limit_cpu: NanoCpus(500_000_000),
        limit_memory: Bytes(128 << 20),
        reserve_memory: Bytes(64 << 20),
        ..Resources::default()
    };
    vote.task.placement.constraints = words("node.platform.os == linux");
    vote.task.placement.preferences = vec![SpreadPreference { descriptor: "node.labels.zone".into() }];
    vote.task.networks = vec![attach("app_front", &["vote"])];
    assert_eq!(stack.services[0], vote);

    let mut queue =
        ServiceSpec { name: "app_queue".into(), labels: labels(&[(IMAGE_LABEL, "redis:7")]), ..ServiceSpec::default() };
    queue.endpoint.mode = EndpointMode::DnsRr;
    queue.task.container = ContainerSpec { image: "redis:7".into(), labels: labels(&[]), ..ContainerSpec::default() };
    let mut data = Mount { source: "app_queue-data".into(), target: "/data".into(), ..Mount::default() };
    data.volume.labels = labels(&[]);
    let config = Mount {
        kind: MountKind::Bind,
        source: "/srv/app/redis.conf".into(),
        target: "/etc/redis.conf".into(),
        read_only: true,
        ..Mount::default()
    };
    queue.task.container.mounts = vec![data, config];
    queue.task.placement.constraints = words("node.role == worker");
    queue.task.networks = vec![attach("app_back", &["queue"]), attach("app_front", &["redis", "queue"])];
    assert_eq!(stack.services[1], queue);

    let mut janitor = ServiceSpec {
        name: "app_janitor".into(),
        labels: labels(&[(IMAGE_LABEL, "example/janitor")]),
        mode: ServiceMode::Global,
        ..ServiceSpec::default()
    };
    janitor.task.container = ContainerSpec {
        image: "example/janitor".into(),
        labels: labels(&[]),
        command: words("/bin/janitor|--every|1h"),
        ..ContainerSpec::default()
    };
    janitor.task.log_driver =
        Some(LogDriver { name: "json-file".into(), options: env(&[("max-size", "5m"), ("max-file", "3")]) });
    janitor.task.restart = RestartPolicy {
        condition: RestartCondition::OnFailure,
        delay: Duration::from_secs(2),
        max_attempts: 3,
        window: Duration::from_secs(60),
    };
    janitor.task.networks = vec![attach("app_back", &["janitor"])];
    assert_eq!(stack.services[2], janitor);
    assert_eq!(stack.services.len(), 3);
}

#[test]
fn every_key_of_a_container_has_its_place_in_the_spec() {
    let spec = service(
        r#"
labels: [a=b, c]
hostname: web-1
working_dir: /srv
user: "1000:1000"
group_add: [audio, 44]
init: true
tty: yes
stdin_open: "true"
read_only: true
stop_signal: SIGINT
stop_grace_period: 1m30s
extra_hosts: ["db:10.0.0.5", "six=fd00::1"]
dns: 10.0.0.53
dns_search: [example.com]
dns_opt: ["ndots:2"]
cap_add: [CAP_NET_ADMIN, sys_time]
cap_drop: [ALL]
sysctls: {net.core.somaxconn: 1024}
ulimits: {nproc: 100, nofile: {soft: 10, hard: 20}}
oom_score_adj: -5
tmpfs: /run:size=64m
x-mine: [1, 2]
depends_on: [other]
"#,
    );
    let texts = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
    let expected = ContainerSpec {
        image: "a".into(),
        labels: labels(&[("a", "b"), ("c", "")]),
        hostname: "web-1".into(),
        dir: "/srv".into(),
        user: "1000:1000".into(),
        groups: texts(&["audio", "44"]),
        init: Some(true),
        tty: true,
        open_stdin: true,
        read_only: true,
        stop_signal: "SIGINT".into(),
        stop_grace: Some(Duration::from_secs(90)),
        hosts: vec![
            HostEntry { name: "db".into(), address: "10.0.0.5".parse().unwrap() },
            HostEntry { name: "six".into(), address: "fd00::1".parse().unwrap() },
        ],
        dns: DnsConfig {
            nameservers: vec!["10.0.0.53".parse().unwrap()],
            search: texts(&["example.com"]),
            options: texts(&["ndots:2"]),
        },
        cap_add: texts(&["NET_ADMIN", "SYS_TIME"]),
        cap_drop: texts(&["ALL"]),
        sysctls: env(&[("net.core.somaxconn", "1024")]),
        ulimits: vec![
            Ulimit { name: "nofile".into(), soft: 10, hard: 20 },
            Ulimit { name: "nproc".into(), soft: 100, hard: 100 },
        ],
        oom_score_adj: -5,
        mounts: vec![Mount {
            kind: MountKind::Tmpfs,
            target: "/run".into(),
            tmpfs: TmpfsOptions { size: Bytes(64 << 20), mode: None },
            ..Mount::default()
        }],
        ..ContainerSpec::default()
    };
    assert_eq!(spec.task.container, expected);
    assert_eq!(spec.task.networks[0].target, "app_default");
}

#[test]
fn a_service_without_networks_joins_the_stacks_default() {
    let plain = stack("services: {web: {image: a}}\n");
    let own = NetworkSpec { name: "app_default".into(), labels: labels(&[]), ..NetworkSpec::default() };
    assert_eq!(plain.networks, [StackNetwork::Own(own)]);
    let renamed = stack("services: {web: {image: a}}\nnetworks: {default: {name: shared, external: true}}\n");
    assert_eq!(renamed.networks, [StackNetwork::External { name: "shared".into() }]);
    assert_eq!(renamed.services[0].task.networks[0].target, "shared");
}

#[test]
fn external_networks_and_volumes_keep_their_names() {
    let text = "
services:
  web:
    image: a
    networks: [one, two, host_side]
    volumes: [data:/data, old:/old, named:/named]
networks:
  one: {external: true}
  two: {external: {name: second}}
  host_side: {name: third}
volumes:
  data: {external: true, name: store}
  old: {external: {name: older}}
  named: {name: exact, labels: {a: b}}
";
    let stack = stack(text);
    let names: Vec<&str> = stack.networks.iter().map(StackNetwork::name).collect();
    assert_eq!(names, ["one", "second", "third"]);
    assert!(matches!(stack.networks[2], StackNetwork::Own(_)));
    let sources: Vec<&str> = stack.services[0].task.container.mounts.iter().map(|m| m.source.as_str()).collect();
    assert_eq!(sources, ["store", "older", "exact"]);
    assert_eq!(stack.services[0].task.container.mounts[2].volume.labels, labels(&[("a", "b")]));
    assert!(stack.services[0].task.container.mounts[0].volume.labels.is_empty());
}

#[test]
fn the_hosts_network_has_no_aliases() {
    let text = "services: {web: {image: a, networks: [outside]}}\nnetworks: {outside: {external: true, name: host}}\n";
    let network = &stack(text).services[0].task.networks[0];
    assert_eq!((network.target.as_str(), network.aliases.len()), ("host", 0));
}

#[test]
fn ports_are_read_in_every_form_and_sorted() {
    let text = r#"
ports:
  - "9000-9001:80-81/udp"
  - 443
  - {target: 80, published: "8080", mode: host}
  - "1000:1"
  - "127.0.0.1:1001:1"
  - {target: 1, published: 1002, host_ip: "::1", protocol: sctp}
  - {target: 1, published: 1003, host_ip: 0.0.0.0}
"#;
    let ports: Vec<String> = service(text).endpoint.ports.iter().map(|p| format!("{p} {}", p.mode)).collect();
    assert_eq!(
        ports,
        [
            "443/tcp ingress",
            "1000:1/tcp ingress",
            "127.0.0.1:1001:1/tcp ingress",
            "[::1]:1002:1/sctp ingress",
            "1003:1/tcp ingress",
            "8080:80/tcp host",
            "9000:80/udp ingress",
            "9001:81/udp ingress"
        ]
    );
}

#[test]
fn networks_of_both_families_are_read() {
    let text = r#"
services: {web: {image: a, networks: [front, back]}}
networks:
  back: {enable_ipv6: true}
  front:
    enable_ipv6: true
    ipam:
      config:
        - subnet: 10.9.0.0/24
        - subnet: fd00:9::/64
          gateway: fd00:9::5
          ip_range: fd00:9::1:0/112
          aux_addresses: {router: "fd00:9::7"}
        - {subnet: 10.10.0.0/24, aux_addresses: [router=10.10.0.7]}
"#;
    let stack = stack(text);
    let specs: Vec<&NetworkSpec> = stack
        .networks
        .iter()
        .map(|network| match network {
            StackNetwork::Own(spec) => spec,
            StackNetwork::External { name } => panic!("{name}"),
        })
        .collect();
    let [back, front] = specs[..] else { panic!("{specs:?}") };
    assert!(back.ipv6 && front.ipv6 && back.ipam.subnets.is_empty());
    let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    let named = SubnetSpec {
        gateway: Some(address("fd00:9::5")),
        range: Some(net("fd00:9::1:0/112")),
        aux_addresses: [("router".to_owned(), address("fd00:9::7"))].into(),
        ..net("fd00:9::/64").into()
    };
    let last = SubnetSpec {
        aux_addresses: [("router".to_owned(), address("10.10.0.7"))].into(),
        ..net("10.10.0.0/24").into()
    };
    assert_eq!(front.ipam.subnets, [net("10.9.0.0/24").into(), named, last]);
}

#[test]
fn what_compose_has_no_words_for_stands_under_our_own_key() {
    let balance = |lines: &str| service(lines).endpoint.balance;
    assert_eq!(balance("tty: true"), Balance::default());
    assert_eq!(
        balance("x-rswarm: {affinity: client-ip, prefer: local}"),
        Balance { by_client: true, prefers_local: true }
    );
    assert_eq!(
        balance("x-rswarm: {prefer: any, affinity: client-ip}"),
        Balance { by_client: true, prefers_local: false }
    );
    assert_eq!(balance("x-other: {affinity: client-ip}"), Balance::default());
}

#[test]
fn long_volumes_are_read() {
    let text = r#"
volumes:
  - {type: bind, source: ../x, target: /x, read_only: true, bind: {propagation: rslave}}
  - {type: tmpfs, target: /run, tmpfs: {size: 1048576, mode: 0755}}
  - {type: volume, target: /cache, volume: {nocopy: true}, consistency: cached}
  - {type: bind, source: ~/y, target: /y}
"#;
    let files = [file("a.yml", &web(text))];
    let stack = load("app", &files, &env(&[("HOME", "/home/me")]), &no_files).unwrap();
    let mounts = &stack.services[0].task.container.mounts;
    assert_eq!(
        (mounts[0].source.as_str(), mounts[0].read_only, mounts[0].bind.propagation.as_str()),
        ("/srv/x", true, "rslave")
    );
    assert_eq!(mounts[1].tmpfs, TmpfsOptions { size: Bytes(1 << 20), mode: Some(0o755) });
    assert!(mounts[2].volume.no_copy && mounts[2].source.is_empty());
    assert_eq!(mounts[3].source, "/home/me/y");
}

#[test]
fn the_environment_is_gathered_as_docker_does() {
    let text = web("env_file: [one.env, /etc/two.env]\nenvironment: [A=own, EMPTY=, FROM_CALLER, UNSET, \"N=0440\"]\n");
    let read = |path: &Path| match path.to_str() {
        Some("/srv/app/one.env") => Ok("A=file\nB=1\n# no\nCALLER\nNOT_THERE\n".to_string()),
        Some("/etc/two.env") => Ok("B=2\n".to_string()),
        _ => no_files(path),
    };
    let caller = env(&[("FROM_CALLER", "x"), ("EMPTY", "filled"), ("CALLER", "y"), ("A", "not used")]);
    let stack = load("app", &[file("a.yml", &text)], &caller, &read).unwrap();
    let expected = ["A=own", "B=2", "CALLER=y", "EMPTY=filled", "FROM_CALLER=x", "N=0440", "UNSET"];
    assert_eq!(stack.services[0].task.container.env, expected);
    // In a mapping YAML has read the number, as Go does.
    assert_eq!(service("environment: {MODE: 0440, VERSION: 1.10}").task.container.env, ["MODE=288", "VERSION=1.1"]);
}

#[test]
fn env_files_that_cannot_be_read_are_named() {
    let text = web("env_file:\n  - gone.env\n  - bad.env\n");
    let read = |path: &Path| if path.ends_with("bad.env") { Ok("A=1\nb c=2\n".to_string()) } else { no_files(path) };
    let errors = load("app", &[file("a.yml", &text)], &env(&[]), &read).unwrap_err();
    assert_eq!(
        errors[0].to_string(),
        "a.yml:5:9: services.web.env_file: cannot read /srv/app/gone.env: no such file: /srv/app/gone.env"
    );
    assert!(errors[1].to_string().starts_with(
        "a.yml:6:9: services.web.env_file: /srv/app/bad.env: line 2: variable \"b c\" contains white space"
    ));
}

#[test]
fn restart_is_mapped_where_there_is_no_policy() {
    for (lines, condition, attempts) in [
        ("restart: always", RestartCondition::Any, 0),
        ("restart: \"no\"", RestartCondition::Any, 0),
        ("restart: no", RestartCondition::Any, 0),
        ("restart: on-failure:3", RestartCondition::OnFailure, 3),
        ("restart: on-failure\ndeploy: {restart_policy: {condition: none}}", RestartCondition::None, 0),
    ] {
        let policy = service(lines).task.restart;
        assert_eq!(
            (policy.condition, policy.max_attempts, policy.delay),
            (condition, attempts, Duration::from_secs(5)),
            "{lines}"
        );
    }
}

#[test]
fn later_files_win_by_the_rules_of_each_key() {
    let base = r#"
services:
  web:
    image: a:1
    command: run --old
    environment: [A=1, B=1]
    labels: {x: "1"}
    ports: ["80:80", "443:443"]
    volumes: ["data:/data", "/old:/etc/x"]
    dns: 10.0.0.1
    networks: [front]
    healthcheck: {test: old, retries: 3}
    logging: {driver: json-file, options: {max-size: 1m}}
    deploy:
      replicas: 1
      labels: [a=1]
      placement: {constraints: [node.role == worker]}
      resources: {limits: {memory: 64m}}
networks: {front: {internal: true}, back: {}}
volumes: {data: {}}
"#;
    let over = r#"
services:
  web:
    image: a:2
    command: [run, --new]
    environment: {B: 2, C: 3}
    labels: [y=2]
    ports: [{target: 8443, published: 443}, "9:9"]
    volumes: ["/new:/etc/x:ro", "/more:/more"]
    dns: [10.0.0.2]
    networks: {back: {aliases: [b]}}
    healthcheck: {test: new}
    logging: {options: {max-file: "2"}}
    deploy:
      replicas: 0
      labels: {b: 2}
      placement: {constraints: [node.labels.x == y]}
      resources: {limits: {cpus: "1"}}
  extra: {image: b}
networks: {front: {attachable: true}}
"#;
    let stack = load_texts(&[base, over], &env(&[])).unwrap();
    let spec = &stack.services[0];
    let container = &spec.task.container;
    assert_eq!(container.image, "a:2");
    assert_eq!(container.args, ["run", "--new"]);
    assert_eq!(container.env, ["A=1", "B=2", "C=3"]);
    assert_eq!(container.labels, labels(&[("x", "1"), ("y", "2")]));
    assert_eq!(
        spec.endpoint.ports.iter().map(|p| (p.published, p.target)).collect::<Vec<_>>(),
        [(9, 9), (80, 80), (443, 8443)]
    );
    assert_eq!(container.mounts.iter().map(|m| m.source.as_str()).collect::<Vec<_>>(), ["app_data", "/new", "/more"]);
    assert_eq!(container.dns.nameservers.len(), 2);
    assert_eq!(spec.task.networks.iter().map(|n| n.target.as_str()).collect::<Vec<_>>(), ["app_back", "app_front"]);
    assert_eq!(container.healthcheck.as_ref().map(|h| (h.test[1].as_str(), h.retries)), Some(("new", 3)));
    assert_eq!(spec.task.log_driver.as_ref().unwrap().options, env(&[("max-size", "1m"), ("max-file", "2")]));
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 0 });
    assert_eq!(spec.labels, labels(&[("a", "1"), ("b", "2"), (IMAGE_LABEL, "a:2")]));
    assert_eq!(spec.task.placement.constraints, ["node.role == worker", "node.labels.x == y"]);
    assert_eq!(
        (spec.task.resources.limit_memory, spec.task.resources.limit_cpu),
        (Bytes(64 << 20), NanoCpus(1_000_000_000))
    );
    assert_eq!(stack.services[1].name, "app_extra");
    let front = stack.networks.iter().find(|n| n.name() == "app_front").unwrap();
    assert!(matches!(front, StackNetwork::Own(spec) if spec.attachable && !spec.internal));
}

#[test]
fn errors_after_a_merge_name_the_file_they_came_from() {
    let errors =
        complaints(&["services:\n  web:\n    image: a\n    user: 5\n", "services:\n  web:\n    ports:\n      - x\n"]);
    assert_eq!(errors[0], "1.yml:4:11: services.web.user is a number; expected a string; put it in quotes");
    assert!(
        errors[1].starts_with("2.yml:4:9: invalid services.web.ports \"x\": target port is \"x\""),
        "{}",
        errors[1]
    );
}

/// Each line is wrong in one way, and the complaint stands at the exact place.
#[test]
fn what_is_wrong_is_said_at_its_line_and_column() {
    for (lines, place, message) in [
        ("imgae: b", "4:5", "unknown key \"imgae\" in services.web; did you mean \"image\"?"),
        ("profiles: [x]", "4:5", "unknown key \"profiles\" in services.web"),
        (
            "mem_limit: 5m",
            "4:5",
            "unsupported option services.web.mem_limit: set resource limits using deploy.resources",
        ),
        ("extends: {service: b}", "4:5", "unsupported option services.web.extends:"),
        ("secrets: [x]", "4:5", "services.web.secrets is not built yet"),
        ("configs: [x]", "4:5", "services.web.configs is not built yet"),
        ("isolation: hyperv", "4:5", "services.web.isolation is not built yet"),
        ("credential_spec: {file: x}", "4:5", "services.web.credential_spec is not built yet"),
        ("hostname: 5", "4:15", "services.web.hostname is a number; expected a string; put it in quotes"),
        ("hostname: \"{{.Node.Hostname}}\"", "4:5", "services.web.hostname: \"{{.Node.Hostname}}\" is a template"),
        ("image2: 5", "4:5", "unknown key \"image2\" in services.web; did you mean \"image\"?"),
        ("command: [a, 5]", "4:18", "services.web.command is a number; expected a string"),
        ("command: \"a 'b\"", "4:14", "services.web.command: a single quote is not closed"),
        ("tty: maybe", "4:10", "services.web.tty is a string; expected true or false"),
        ("environment: {A: true}", "4:22", "services.web.environment.A is a boolean; expected a string or a number"),
        ("environment: {A: \"{{.Task.Slot}}\"}", "4:19", "services.web.environment: the value of \"A\" is a template"),
        ("environment: x", "4:18", "services.web.environment is a string; expected a mapping or a list of KEY=VALUE"),
        ("ports: [\"80:99999\"]", "4:13", "invalid services.web.ports \"80:99999\": target port is \"99999\""),
        ("ports: [\"80:80/icmp\"]", "4:13", "protocol is \"icmp\""),
        (
            "ports: [{target: 80, protocol: icmp}]",
            "4:36",
            "services.web.ports.protocol: protocol is \"icmp\"; allowed are tcp, udp, sctp",
        ),
        ("ports: [\"eth0:80:80\"]", "4:13", "host address is \"eth0\""),
        (
            "ports: [{target: 80, host_ip: eth0}]",
            "4:35",
            "services.web.ports.host_ip: host address is \"eth0\"; expected an address of the nodes",
        ),
        (
            "ports: [\"8080:80\", \"80:80\", \"127.0.0.1:80:81\", \"81:81\"]",
            "4:33",
            "services.web.ports: 127.0.0.1:80:81/tcp: the service publishes the port twice, also as 80:80/tcp",
        ),
        ("x-rswarm: {affinity: cookie}", "4:26", "unknown endpoint affinity"),
        ("x-rswarm: {sticky: true}", "4:16", "unknown key \"sticky\" in services.web.x-rswarm"),
        (
            "x-rswarm: {prefer: local}\ndeploy: {endpoint_mode: dnsrr}",
            "4:16",
            "services.web.x-rswarm.prefer: with endpoint-mode dnsrr",
        ),
        ("ports: [{published: 80}]", "4:13", "services.web.ports has no target port"),
        ("ports: [{target: 70000}]", "4:22", "services.web.ports.target is 70000; allowed are 1-65535"),
        (
            "ports: [\"1:1\", \"2377:80\"]",
            "4:20",
            "services.web.ports: 2377:80/tcp: port 2377 belongs to the cluster itself",
        ),
        (
            "ports: [\"1:1\", \"1:2\"]",
            "4:20",
            "services.web.ports: 1:2/tcp: the service publishes the port twice, also as 1:1/tcp",
        ),
        ("volumes: [\"data:/data\"]", "4:15", "services.web.volumes: undefined volume \"data\""),
        ("volumes: [\"x:/y\"]", "4:15", "services.web.volumes: undefined volume \"x\""),
        ("volumes: [\"/a:b\"]", "4:15", "services.web.volumes: b: target is \"b\", not an absolute path"),
        ("volumes: [\"/a:/b\", \"/c:/b\"]", "4:24", "services.web.volumes: /b: two mounts have this target"),
        ("volumes: [{type: npipe, target: /a}]", "4:22", "mount type npipe is not built yet"),
        ("volumes: [{target: /a}]", "4:15", "services.web.volumes has no type"),
        ("networks: [front]", "4:16", "services.web.networks: undefined network \"front\""),
        (
            "networks: {default: {ipv4_address: 10.0.0.1}}",
            "4:26",
            "unknown key \"ipv4_address\" in services.web.networks.default",
        ),
        ("healthcheck: {test: [curl, x]}", "4:19", "services.web.healthcheck.test: test begins with \"curl\""),
        ("healthcheck: {interval: 5}", "4:29", "invalid services.web.healthcheck.interval \"5\": \"5\" has no unit"),
        ("healthcheck: {disable: true, test: x}", "4:40", "test and disable cannot be set at the same time"),
        ("cap_add: [NET_ADMIN, FLY]", "4:26", "services.web.cap_add: \"FLY\" is not a capability"),
        ("sysctls: [kernel.panic=1]", "4:15", "services.web.sysctls: \"kernel.panic\" is not a container's own"),
        ("ulimits: {nofile: {soft: 1}}", "4:15", "services.web.ulimits.nofile has no hard limit"),
        ("oom_score_adj: 2000", "4:5", "services.web.oom_score_adj: it is 2000; allowed are -1000 to 1000"),
        ("stop_signal: SIGFOO", "4:5", "services.web.stop_signal: it is \"SIGFOO\""),
        ("extra_hosts: [\"a:host-gateway\"]", "4:19", "host-gateway is not built yet"),
        ("dns: nope", "4:10", "services.web.dns is \"nope\"; expected an address"),
        ("logging: {driver: fluentd}", "4:23", "services.web.logging.driver: \"fluentd\" is not built yet"),
        ("logging: {options: {tag: x}}", "4:25", "services.web.logging.options: \"tag\" is not built yet"),
        ("restart: sometimes", "4:14", "services.web.restart is \"sometimes\"; allowed are no, always"),
        ("deploy: {mode: global-job}", "4:20", "mode global-job is not built yet"),
        ("deploy: {mode: global, replicas: 2}", "4:38", "services.web.deploy.replicas goes with mode replicated only"),
        ("deploy: {replicas: many}", "4:24", "services.web.deploy.replicas is \"many\"; expected a whole number"),
        ("deploy: {replicas: -1}", "4:24", "services.web.deploy.replicas is -1; expected 0 or more"),
        ("deploy: {replicas: 2000000}", "4:14", "services.web.deploy.replicas: it is 2000000; allowed are 0-1000000"),
        ("deploy: {update_config: {failure_action: rollback}}", "4:46", "failure action rollback is not built yet"),
        (
            "deploy: {update_config: {max_failure_ratio: 0.5}}",
            "4:49",
            "services.web.deploy.update_config.max_failure_ratio other than 0 is not built yet",
        ),
        ("deploy: {restart_policy: {condition: always}}", "4:42", "unknown restart condition"),
        ("deploy: {resources: {reservations: {generic_resources: []}}}", "4:41", "generic_resources is not built yet"),
        (
            "deploy: {resources: {limits: {memory: 1m}}}",
            "4:43",
            "services.web.deploy.resources.limits.memory: it is 1MiB; at least 6MiB",
        ),
        (
            "deploy: {placement: {constraints: [\"node.x == 1\"]}}",
            "4:40",
            "services.web.deploy.placement.constraints: \"node.x == 1\": unknown key \"node.x\"",
        ),
        (
            "deploy: {placement: {preferences: [{spread: node.id}]}}",
            "4:49",
            "descriptor is \"node.id\", not a node or engine label",
        ),
        (
            "deploy: {endpoint_mode: dnsrr}\nports: [\"1:1\"]",
            "5:13",
            "endpoint-mode dnsrr cannot publish in ingress mode",
        ),
    ] {
        let errors = complaints(&[&web(lines)]);
        assert_eq!(errors.len(), 1, "{lines}: {errors:#?}");
        assert!(errors[0].starts_with(&format!("1.yml:{place}: ")), "{lines}: {}", errors[0]);
        assert!(errors[0].contains(message), "{lines}: {}", errors[0]);
    }
}

#[test]
fn what_is_wrong_outside_services_is_said_too() {
    for (text, expected) in [
        ("x-a: 1\n", "1.yml:1:1: no services; expected a mapping"),
        (
            "servces: {}\nservices: {}\n",
            "1.yml:1:1: unknown key \"servces\" at the top level; did you mean \"services\"?",
        ),
        ("services: []\n", "1.yml:1:11: services is a list; expected a mapping"),
        ("services: {web: }\n", "1.yml:1:15: services.web is empty; expected a mapping"),
        (
            "version: \"2.4\"\nservices: {}\n",
            "1.yml:1:10: unsupported compose file version \"2.4\"; allowed are 3 to 3.13, or no version",
        ),
        ("services: {}\nsecrets: {}\n", "1.yml:2:1: secrets are not built yet"),
        ("services: {}\nconfigs: {}\n", "1.yml:2:1: configs are not built yet"),
        (
            "services: {}\nnetworks: {a: {driver: bridge}}\n",
            "1.yml:2:24: networks.a.driver is \"bridge\", which is not built yet for stacks; allowed is overlay",
        ),
        (
            "services: {}\nnetworks: {a: {driver_opts: {encrypted: \"\"}}}\n",
            "1.yml:2:16: networks.a.driver_opts: encrypted networks are not built yet",
        ),
        (
            "services: {}\nnetworks: {a: {ipam: {config: [{subnet: fd00::/64}]}}}\n",
            "1.yml:2:16: networks.a.ipam: fd00::/64 is of IPv6, which the network does not have; say --ipv6 (in a stack: enable_ipv6: true)",
        ),
        (
            "services: {}\nnetworks: {a: {enable_ipv6: true, ipam: {config: [{subnet: fd00::/120}]}}}\n",
            "1.yml:2:35: networks.a.ipam: it is fd00::/120; allowed are prefix lengths 48-112",
        ),
        (
            "services: {}\nnetworks: {a: {ipam: {config: [{subnet: x}]}}}\n",
            "1.yml:2:41: networks.a.ipam.config.subnet is \"x\"; expected a network such as 10.1.0.0/24 or fd00::/64",
        ),
        (
            "services: {}\nnetworks: {a: {ipam: {config: [{subnet: 10.1.0.0/24, aux_addresses: {r: x}}]}}}\n",
            "1.yml:2:70: networks.a.ipam.config.aux_addresses.r is \"x\"; expected an address",
        ),
        (
            "services: {}\nnetworks: {a: {external: true, driver: overlay}}\n",
            "1.yml:2:32: networks.a: \"external\" and \"driver\" contradict each other",
        ),
        (
            "services: {}\nnetworks: {a: {scope: x}}\n",
            "1.yml:2:16: unknown key \"scope\" in networks.a; allowed are attachable",
        ),
        (
            "services: {}\nvolumes: {a: {driver: nfs}}\n",
            "1.yml:2:23: volumes.a.driver is \"nfs\", which is not built yet; allowed is local",
        ),
        ("services: {}\nvolumes: {a: {driver_opts: {o: x}}}\n", "1.yml:2:15: volumes.a.driver_opts is not built yet"),
        ("services: {a.b: {image: a}}\n", "1.yml:1:12: services.a.b: it is \"app_a.b\"; allowed are 1-63"),
        ("services: {web: {build: .}}\n", "1.yml:1:12: services.web.image: no image"),
        (
            "services: {web: {image: \"${V:?set it}\"}}\n",
            "1.yml:1:25: services.web.image: required variable V is missing a value: set it",
        ),
        (
            "services: {web: {image: 1.10}}\n",
            "1.yml:1:25: services.web.image is a number; expected a string; put it in quotes",
        ),
        ("services: {web: {image: \"${V\"}}\n", "1.yml:1:25: services.web.image: invalid interpolation format"),
        ("services:\n  web:\n    image: a\n   bad: 1\n", "1.yml:4:"),
    ] {
        let errors = complaints(&[text]);
        assert!(errors[0].starts_with(expected), "{text}: {errors:#?}");
    }
}

#[test]
fn all_errors_come_at_once_sorted_by_place() {
    let text =
        "services:\n  b:\n    image: A\n    tty: x\n  a:\n    user: 1\n    foo: 1\n    image: a\nnetworks: {n: 5}\n";
    let errors = complaints(&[text]);
    let places: Vec<&str> = errors.iter().map(|e| &e[..e.find(": ").unwrap_or(0)]).collect();
    assert_eq!(places, ["1.yml:3:5", "1.yml:4:10", "1.yml:6:11", "1.yml:7:5", "1.yml:9:15"], "{errors:#?}");
}

#[test]
fn a_bad_stack_name_is_refused() {
    let errors = load("a.b", &[file("a.yml", "services: {}\n")], &env(&[]), &no_files).unwrap_err();
    assert!(errors[0].to_string().starts_with("invalid stack name: it is \"a.b\""));
    assert!(load("app", &[], &env(&[]), &no_files).unwrap_err()[0].message.contains("no compose file"));
}

#[test]
fn keys_that_docker_ignores_are_warned_about_in_its_words() {
    let text = web(
        "privileged: true\nbuild: .\nrestart: always\ncontainer_name: x\nexpose: [\"80\"]\nhostname: a$NOPE\nvolumes: [\"/a:/a:z\"]",
    );
    assert_eq!(
        stack(&text).warnings,
        [
            "The \"NOPE\" variable is not set. Defaulting to a blank string.",
            "Ignoring unsupported volume options: z (/a:/a:z)",
            "Ignoring unsupported options: build, privileged, restart",
            "Ignoring deprecated options:\n\ncontainer_name: Setting the container name is not supported.\n\nexpose: Exposing ports is \
             unnecessary - services on the same network can access each other's containers on any port.",
        ]
    );
}

#[test]
fn extensions_and_keys_are_not_interpolated() {
    let text = "x-a: ${NOT CLOSED\nservices: {web: {image: a, labels: {\"a$b\": \"$$c\"}}}\n";
    assert_eq!(stack(text).services[0].task.container.labels, labels(&[("a$b", "$c")]));
}

#[test]
fn merge_keys_share_settings_between_services() {
    let text = "
x-base: &base
  image: a
  environment: &env {A: 1, B: 1}
services:
  one: {<<: *base}
  two:
    <<: *base
    environment:
      <<: *env
      B: 2
";
    let stack = stack(text);
    assert_eq!(stack.services[0].task.container.env, ["A=1", "B=1"]);
    assert_eq!(stack.services[1].task.container.env, ["A=1", "B=2"]);
}

#[test]
fn a_bomb_is_refused_in_no_time() {
    let mut text = String::from("x-0: &a0 [\"lol\"]\n");
    for level in 1..60 {
        text.push_str(&format!("x-{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", ")));
    }
    text.push_str("services: {web: {image: a, command: *a59}}\n");
    let start = Instant::now();
    assert!(complaints(&[&text])[0].contains("aliases make the file too large"));
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
}

#[test]
fn nonsense_of_any_shape_is_refused_without_panic() {
    let values = [
        "",
        "~",
        "5",
        "x",
        "[]",
        "[1]",
        "[[]]",
        "[~]",
        "{}",
        "{a: 1}",
        "{a: ~}",
        "[{}]",
        "true",
        "2024-01-01",
        "\"${\"",
        "\"\\0\"",
    ];
    let service_keys = keys::SERVICE.iter().chain(&keys::UNSUPPORTED).copied();
    for key in service_keys.chain(["container_name", "mem_limit"]) {
        for value in values {
            let _ = load_texts(&[&web(&format!("{key}: {value}"))], &env(&[]));
        }
    }
    let deploy =
        ["mode", "replicas", "labels", "placement", "resources", "restart_policy", "update_config", "endpoint_mode"];
    for (key, value) in deploy.iter().flat_map(|key| values.map(|value| (key, value))) {
        let _ = load_texts(&[&web(&format!("deploy: {{{key}: {value}}}"))], &env(&[]));
    }
    for (key, value) in keys::TOP.iter().flat_map(|key| values.map(|value| (key, value))) {
        let _ = load_texts(&[&format!("{key}: {value}\nx: y\n")], &env(&[]));
        let _ = load_texts(&[&format!("services: {{}}\n{key}s: {{a: {value}}}\n"), &web(""), POLL], &env(&[]));
    }
}
