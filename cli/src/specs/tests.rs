use std::time::Duration;

use rswarm_types::spec::*;
use rswarm_types::{Bytes, NanoCpus};

use super::*;
use crate::args::service::Service;
use crate::args::{self, Command};

fn around() -> Surroundings<'static> {
    Surroundings {
        env: &|name| (name == "HOME").then(|| "/root".to_owned()),
        read: &|path| match path.to_str() {
            Some("a.env") => Ok("# comment\nA=1\nB=2\nHOME\n".into()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        },
    }
}

fn command(line: &str) -> Command {
    let words = rswarm_types::parse::split_words(line).unwrap();
    args::parse(words.into_iter().map(Into::into)).unwrap().command
}

fn create(flags: &str) -> Result<ServiceSpec> {
    let Command::Service(service) = command(&format!("rswarm service create {flags}")) else { panic!() };
    let Service::Create(args) = *service else { panic!() };
    service_spec(&args, &around())
}

fn created(flags: &str) -> ServiceSpec {
    create(&format!("--name web {flags} nginx")).unwrap_or_else(|e| panic!("{flags}: {e}"))
}

fn update(spec: &ServiceSpec, flags: &str) -> Result<ServiceSpec> {
    let Command::Service(service) = command(&format!("rswarm service update {flags} web")) else { panic!() };
    let Service::Update(args) = *service else { panic!() };
    let mut spec = spec.clone();
    let id = |name: &str| (name == "front").then(|| "frontid".to_owned());
    change_service(&args, &mut spec, &id, &around())?;
    Ok(spec)
}

#[test]
fn a_service_without_flags_has_swarms_defaults() {
    let expected = ServiceSpec {
        name: "web".into(),
        task: TaskSpec {
            container: ContainerSpec { image: "nginx".into(), ..Default::default() },
            ..Default::default()
        },
        ..Default::default()
    };
    assert_eq!(created(""), expected);
    assert_eq!(expected.task.restart.delay, Duration::from_secs(5));
    assert_eq!(expected.update, None, "an update setting that was not given stays open");
}

#[test]
fn flags_go_to_their_fields() {
    let spec = created(
        "--env-file a.env -e B=3 -e HOME -e C --label l=1 --container-label c=2 --mount type=bind,src=/a,dst=/b,ro \
         --network name=back,alias=db -p 8080:80 -p published=53,target=53,protocol=udp,mode=host --constraint \
         node.role==worker --placement-pref spread=node.labels.zone --host a:10.0.0.1 --dns 9.9.9.9 --dns-search x \
         --group 5 --sysctl net.ipv4.ip_forward=0 --ulimit nofile=10:20 --cap-add cap_net_raw --cap-drop chown",
    );
    let container = &spec.task.container;
    assert_eq!(container.env, ["A=1", "B=3", "HOME=/root", "C"]);
    assert_eq!((spec.labels["l"].as_str(), container.labels["c"].as_str()), ("1", "2"));
    assert!(container.mounts[0].read_only && container.mounts[0].kind == MountKind::Bind);
    assert_eq!(
        (spec.task.networks[0].target.as_str(), &spec.task.networks[0].aliases[..]),
        ("back", &["db".to_owned()][..])
    );
    let port = |protocol, target, published, mode| PortConfig { protocol, target, published, mode, address: None };
    assert_eq!(
        spec.endpoint.ports,
        [port(Protocol::Tcp, 80, 8080, PublishMode::Ingress), port(Protocol::Udp, 53, 53, PublishMode::Host)]
    );
    assert_eq!(spec.task.placement.constraints, ["node.role==worker"]);
    assert_eq!(spec.task.placement.preferences[0].descriptor, "node.labels.zone");
    assert_eq!((container.hosts[0].name.as_str(), container.dns.search[0].as_str()), ("a", "x"));
    assert_eq!(
        (&container.cap_add[..], &container.cap_drop[..]),
        (&["NET_RAW".to_owned()][..], &["CHOWN".to_owned()][..])
    );
}

#[test]
fn single_values_go_to_their_fields() {
    let spec = created(
        "--replicas 3 --replicas-max-per-node 2 --limit-cpu 0.5 --limit-memory 64m --limit-pids 100 --reserve-cpu .25 \
         --reserve-memory 32m --restart-condition on-failure --restart-delay 1s --restart-max-attempts 4 \
         --restart-window 2m --update-parallelism 0 --update-delay 2s --update-monitor 7s --update-order start-first \
         --rollback-order start-first --stop-grace-period 30s --stop-signal SIGINT --tty --read-only --init=false \
         --user 1000:1000 --workdir /srv --hostname h --entrypoint 'sh -c' --oom-score-adj -5 --log-driver local \
         --log-opt max-size=1m --endpoint-mode vip --health-cmd 'curl -f localhost' --health-interval 5s \
         --health-retries 2",
    );
    assert_eq!(spec.mode, ServiceMode::Replicated { replicas: 3 });
    assert_eq!(
        spec.task.resources,
        Resources {
            limit_cpu: NanoCpus(500_000_000),
            limit_memory: Bytes(64 << 20),
            limit_pids: 100,
            reserve_cpu: NanoCpus(250_000_000),
            reserve_memory: Bytes(32 << 20)
        }
    );
    assert_eq!(
        spec.task.restart,
        RestartPolicy {
            condition: RestartCondition::OnFailure,
            delay: Duration::from_secs(1),
            max_attempts: 4,
            window: Duration::from_secs(120)
        }
    );
    let update = spec.update.unwrap();
    assert_eq!(
        (update.parallelism, update.order, update.monitor),
        (0, UpdateOrder::StartFirst, Duration::from_secs(7))
    );
    assert_eq!(spec.rollback.unwrap().order, UpdateOrder::StartFirst);
    let container = &spec.task.container;
    assert_eq!((container.tty, container.read_only, container.init), (true, true, Some(false)));
    assert_eq!(container.command, ["sh", "-c"]);
    let health = container.healthcheck.as_ref().unwrap();
    assert_eq!(health.test, ["CMD-SHELL", "curl -f localhost"]);
    assert_eq!((health.interval, health.retries), (Some(Duration::from_secs(5)), 2));
    assert_eq!(spec.task.log_driver.unwrap().options["max-size"], "1m");
}

#[test]
fn a_global_service_takes_no_replicas() {
    assert_eq!(created("--mode global").mode, ServiceMode::Global);
    let error = create("--mode global --replicas 2 nginx").unwrap_err().to_string();
    assert!(error.contains("--replicas"), "{error}");
}

#[test]
fn all_problems_of_a_command_line_come_at_once_and_name_flag_value_and_what_is_allowed() {
    let error = create("-p 8080:99999 --mount type=npipe,dst=/a --limit-memory lots --env-file none --mode x nginx");
    let text = error.unwrap_err().report();
    for part in [
        "error: invalid --publish \"8080:99999\": target port is \"99999\"\n       allowed: [[HOST_IP:][PUBLISHED]:]TARGET",
        "invalid --mount",
        "npipe is not built yet",
        "invalid --limit-memory \"lots\"",
        "invalid --env-file \"none\"",
        "invalid --mode \"x\"",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn unreadable_flags_and_broken_rules_come_at_once_whatever_is_changed() {
    fn check<T: std::fmt::Debug>(result: Result<T>, parts: &[&str]) {
        let text = result.unwrap_err().report();
        assert_eq!(text.matches("error: ").count(), parts.len(), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
    check(create("--name -bad- --limit-memory lots nginx"), &["--limit-memory", "-bad-"]);
    let old = created("--endpoint-mode dnsrr");
    check(update(&old, "--publish-add 80:80 --limit-memory lots"), &["--limit-memory", "dnsrr"]);
    let Command::Network(args::network::Network::Create(network)) =
        command("rswarm network create -d overlay --gateway x --opt =y b@d")
    else {
        panic!()
    };
    check(network_spec(&network), &["--gateway", "--opt", "b@d"]);
    let Command::Node(args::node::Node::Update(node)) =
        command("rswarm node update --availability gone --label-add =1 n1")
    else {
        panic!()
    };
    let mut old = NodeSpec { name: "-bad-".into(), ..NodeSpec::default() };
    check(change_node(&node, &mut old), &["--availability", "--label-add", "-bad-"]);
    let Command::Init(cluster) = command("rswarm init --availability gone --data-path-port 80 --cert-expiry x") else {
        panic!()
    };
    check(cluster_spec(&cluster), &["--availability", "--cert-expiry", "data-path-port"]);
}

#[test]
fn what_docker_has_and_we_have_not_is_refused_by_name() {
    for (flags, name) in [
        ("--mode replicated-job nginx", "replicated-job is not built yet"),
        ("--update-failure-action rollback nginx", "rollback is not built yet"),
        ("--rollback-failure-action continue nginx", "continue is not built yet"),
        ("--update-max-failure-ratio 0.1 nginx", "--update-max-failure-ratio other than 0 is not built yet"),
        ("--secret s nginx", "--secret is not built yet"),
        ("--network name=a,ip=10.0.0.1 nginx", "ip is not built yet"),
    ] {
        let error = create(flags).unwrap_err();
        assert!(error.to_string().contains(name), "{flags}: {error}");
        assert_eq!(error.code(), 2, "{flags}");
    }
    assert!(create("--update-max-failure-ratio 0 --update-failure-action pause --name web nginx").is_ok());
}

#[test]
fn rules_of_the_whole_spec_are_checked_before_anything_is_asked() {
    let error = create("--endpoint-mode dnsrr -p 80:80 nginx").unwrap_err().to_string();
    assert!(error.contains("dnsrr"), "{error}");
    let error = create("--name -bad- nginx").unwrap_err().to_string();
    assert!(error.contains("-bad-"), "{error}");
}

#[test]
fn an_update_without_flags_changes_nothing_and_force_only_its_counter() {
    let old = created("-e A=1 -p 80:80 --update-delay 1s --health-cmd x");
    assert_eq!(update(&old, "").unwrap(), old);
    let forced = update(&old, "--force").unwrap();
    assert_eq!(forced.task.force_update, 1);
}

#[test]
fn updates_add_replace_and_remove() {
    let old = created(
        "-e A=1 -e B=2 -l x=1 --mount type=volume,src=vol,dst=/v -p 8080:80 -p 9090:90/udp --constraint \
         'node.role == worker' --host a:10.0.0.1 --host b:10.0.0.2 --dns 9.9.9.9 --cap-add NET_RAW --ulimit \
         nofile=1:1 --network front",
    );
    let new = update(
        &old,
        "--env-add B=3 --env-add C=4 --env-rm A --label-rm x --label-add y=2 --mount-add type=tmpfs,dst=/v --publish-rm \
         80 --publish-add 8081:81 --constraint-rm node.role==worker --constraint-add node.hostname!=a --host-rm a \
         --dns-rm 9.9.9.9 --dns-add 1.1.1.1 --cap-drop NET_RAW --ulimit-add nofile=2:2 --network-rm frontid \
         --network-add back --image redis:7 --args 'a \"b c\"' --replicas 5",
    )
    .unwrap();
    let container = &new.task.container;
    assert_eq!(container.env, ["B=3", "C=4"]);
    assert_eq!(new.labels.into_iter().collect::<Vec<_>>(), [("y".to_owned(), "2".to_owned())]);
    assert_eq!((container.mounts.len(), container.mounts[0].kind), (1, MountKind::Tmpfs));
    let published: Vec<u16> = new.endpoint.ports.iter().map(|p| p.published).collect();
    assert_eq!(published, [9090, 8081], "udp 90 is not tcp 80");
    assert_eq!(new.task.placement.constraints, ["node.hostname!=a"]);
    assert_eq!(container.hosts[0].name, "b");
    assert_eq!(container.dns.nameservers[0].to_string(), "1.1.1.1");
    assert_eq!((container.cap_add.len(), &container.cap_drop[..]), (0, &["NET_RAW".to_owned()][..]));
    assert_eq!((container.ulimits.len(), container.ulimits[0].soft), (1, 2));
    assert_eq!(new.task.networks[0].target, "back");
    assert_eq!((container.image.as_str(), &container.args[..]), ("redis:7", &["a".to_owned(), "b c".to_owned()][..]));
    assert_eq!(new.mode, ServiceMode::Replicated { replicas: 5 });
}

#[test]
fn ports_of_one_address_are_added_beside_others_and_stand_in_for_all_addresses() {
    let texts = |spec: &ServiceSpec| spec.endpoint.ports.iter().map(ToString::to_string).collect::<Vec<_>>();
    let old = created("-p 127.0.0.1:8080:80 -p [::1]:9090:90/sctp");
    assert_eq!(texts(&old), ["127.0.0.1:8080:80/tcp", "[::1]:9090:90/sctp"]);
    let both = update(&old, "--publish-add [::1]:8080:80").unwrap();
    assert_eq!(texts(&both), ["127.0.0.1:8080:80/tcp", "[::1]:9090:90/sctp", "[::1]:8080:80/tcp"]);
    let all = update(&both, "--publish-add 8080:80 --publish-rm 90/sctp").unwrap();
    assert_eq!(texts(&all), ["8080:80/tcp"]);
    let one = update(&all, "--publish-add 127.0.0.1:8080:80").unwrap();
    assert_eq!(texts(&one), ["127.0.0.1:8080:80/tcp"]);
    let error = update(&one, "--publish-add [::]:8080:81").unwrap_err().to_string();
    assert!(error.contains("the service publishes the port twice, also as 127.0.0.1:8080:80/tcp"), "{error}");
}

#[test]
fn balance_is_set_word_by_word() {
    let balance = |by_client, prefers_local| Balance { by_client, prefers_local };
    let spec = created("--endpoint-affinity client-ip");
    assert_eq!(spec.endpoint.balance, balance(true, false));
    let spec = update(&spec, "--endpoint-prefer local").unwrap();
    assert_eq!(spec.endpoint.balance, balance(true, true));
    let spec = update(&spec, "--endpoint-affinity none").unwrap();
    assert_eq!(spec.endpoint.balance, balance(false, true));
    let spec = update(&spec, "--endpoint-prefer any").unwrap();
    assert_eq!(spec.endpoint.balance, balance(false, false));
    for (flags, part) in [
        ("--endpoint-affinity cookie nginx", "invalid --endpoint-affinity \"cookie\": unknown endpoint affinity"),
        ("--endpoint-prefer near nginx", "allowed: any, local"),
        ("--endpoint-mode dnsrr --endpoint-prefer local nginx", "invalid endpoint-prefer: with endpoint-mode dnsrr"),
    ] {
        let error = create(flags).unwrap_err().to_string();
        assert!(error.contains(part), "{flags}: {error}");
    }
}

#[test]
fn privileges_are_withheld_and_given_back() {
    let spec = created("--no-new-privileges");
    assert!(spec.task.container.privileges.no_new_privileges);
    assert!(update(&spec, "--no-healthcheck").unwrap().task.container.privileges.no_new_privileges);
    assert!(!update(&spec, "--no-new-privileges=false").unwrap().task.container.privileges.no_new_privileges);
}

#[test]
fn settings_that_are_updated_keep_their_neighbours() {
    let old = created("--update-delay 1s --update-order start-first --health-cmd x --health-interval 5s");
    let new = update(&old, "--update-parallelism 4 --health-retries 9").unwrap();
    let config = new.update.unwrap();
    assert_eq!((config.parallelism, config.delay, config.order), (4, Duration::from_secs(1), UpdateOrder::StartFirst));
    let health = new.task.container.healthcheck.unwrap();
    assert_eq!((health.test[1].as_str(), health.interval, health.retries), ("x", Some(Duration::from_secs(5)), 9));
    let off = update(&old, "--no-healthcheck").unwrap();
    assert!(off.task.container.healthcheck.unwrap().is_disabled());
    assert!(update(&old, "--no-healthcheck --health-cmd y").is_err());
}

#[test]
fn networks_are_added_once_and_removed_only_if_there() {
    let old = created("--network frontid");
    assert!(update(&old, "--network-add front").unwrap_err().to_string().contains("already"));
    assert!(update(&old, "--network-rm back").unwrap_err().to_string().contains("not on this network"));
}

#[test]
fn networks_are_read_with_gateways_and_ranges_in_their_subnets() {
    let network = |flags: &str| {
        let Command::Network(args::network::Network::Create(args)) = command(&format!("rswarm network create {flags}"))
        else {
            panic!()
        };
        network_spec(&args)
    };
    let spec = network(
        "-d overlay --subnet 10.1.0.0/24,10.2.0.0/24 --gateway 10.2.0.254 --ip-range 10.1.0.128/25 --opt \
         com.docker.network.driver.mtu=1400 --internal --attachable --label a=b net",
    )
    .unwrap();
    assert_eq!(spec.ipam.subnets[1].gateway.unwrap().to_string(), "10.2.0.254");
    assert_eq!(spec.ipam.subnets[0].range.unwrap().to_string(), "10.1.0.128/25");
    assert!(spec.internal && spec.attachable && !spec.ingress && !spec.ipv6);
    let spec = network(
        "-d overlay --ipv6 --subnet 10.1.0.0/24 --subnet fd00:1::/64 --subnet fd00:2::/64 --gateway fd00:2::9 \
         --ip-range fd00:1::5:0/112 --aux-address router=fd00:1::7 --aux-address router=10.1.0.7,dns=10.1.0.8 net",
    )
    .unwrap();
    let [four, one, two] = &spec.ipam.subnets[..] else { panic!("{spec:?}") };
    assert!(spec.ipv6 && one.gateway.is_none() && two.range.is_none());
    assert_eq!(two.gateway.unwrap().to_string(), "fd00:2::9");
    assert_eq!(one.range.unwrap().to_string(), "fd00:1::5:0/112");
    assert_eq!(one.aux_addresses["router"].to_string(), "fd00:1::7");
    assert_eq!(four.aux_addresses.values().map(ToString::to_string).collect::<Vec<_>>(), ["10.1.0.8", "10.1.0.7"]);
    for (flags, part) in [
        ("net", "--driver overlay"),
        ("-d macvlan net", "only overlay"),
        ("-d overlay --subnet fd00::/64 net", "invalid subnet: fd00::/64 is of IPv6"),
        ("-d overlay --ipv6=false --subnet fd00::/64 net", "say --ipv6"),
        ("-d overlay --ipv6 --subnet fd00::/120 net", "allowed are prefix lengths 48-112"),
        ("-d overlay --subnet 10.0.0.1 net", "invalid --subnet \"10.0.0.1\": not a subnet"),
        ("-d overlay --gateway x net", "invalid --gateway \"x\": not an address"),
        ("-d overlay --ipv6 --subnet fd00::/64 --gateway fd00::1,fd00::2 net", "has a gateway already"),
        ("-d overlay --subnet 10.0.0.0/24 --aux-address r=10.1.0.1 net", "\"r=10.1.0.1\": no --subnet holds it"),
        ("-d overlay --subnet 10.0.0.0/24 --aux-address r=x net", "address is \"x\""),
        (
            "-d overlay --subnet 10.0.0.0/24 --aux-address r=10.0.0.1 net",
            "invalid aux-address: r is 10.0.0.1, the gateway",
        ),
        (
            "-d overlay --subnet 10.0.0.0/24 --aux-address r=10.0.0.5,r=10.0.0.6 net",
            "has an address of this name already",
        ),
        ("-d overlay --gateway 10.0.0.1 net", "no --subnet holds it"),
        ("-d overlay --scope local net", "--scope"),
        ("-d overlay --ipv4=false net", "--ipv4=false"),
        ("-d overlay --config-only net", "--config-only is not built yet"),
    ] {
        let error = network(flags).unwrap_err().to_string();
        assert!(error.contains(part), "{flags}: {error}");
    }
}

#[test]
fn init_reads_the_clusters_settings() {
    let init = |flags: &str| {
        let Command::Init(args) = command(&format!("rswarm init {flags}")) else { panic!() };
        cluster_spec(&args)
    };
    assert_eq!(init("").unwrap(), (ClusterSpec::default(), Availability::Active));
    let (spec, _) = init(
        "--data-path-port 7000 --default-addr-pool 10.20.0.0/16 --default-addr-pool-mask-length 26 --cert-expiry 48h \
         --task-history-limit -1 --snapshot-interval 500",
    )
    .unwrap();
    assert_eq!((spec.data_path_port, spec.subnet_bits, spec.task_history_limit), (7000, 26, -1));
    assert_eq!(spec.cert_expiry, Duration::from_secs(48 * 3600));
    let pools = |flags: &str| {
        let (spec, _) = init(flags).unwrap();
        spec.address_pools.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(pools("--default-addr-pool fd00:5::/48"), ["10.0.0.0/8", "fd00:5::/48"], "that of IPv4 stays");
    assert_eq!(
        pools("--default-addr-pool fd00:5::/48,10.20.0.0/16 --default-addr-pool 10.30.0.0/16"),
        ["fd00:5::/48", "10.20.0.0/16", "10.30.0.0/16"]
    );
    for (flags, part) in [
        ("--default-addr-pool fd00::/65", "fd00::/65 is smaller than one subnet of it, /64"),
        ("--cert-expiry 1m", "cert"),
        ("--default-addr-pool x", "--default-addr-pool \"x\""),
        ("--availability gone", "--availability \"gone\""),
        ("--max-snapshots 1", "--max-snapshots"),
        ("--external-ca protocol=cfssl,url=https://x", "--external-ca is not built yet"),
        ("--dispatcher-heartbeat 5s", "--dispatcher-heartbeat is not built yet"),
    ] {
        let error = init(flags).unwrap_err().to_string();
        assert!(error.contains(part), "{flags}: {error}");
    }
}

#[test]
fn nodes_are_changed_field_by_field() {
    let change = |flags: &str, spec: &mut NodeSpec| {
        let Command::Node(args::node::Node::Update(args)) = command(&format!("rswarm node update {flags} n1")) else {
            panic!()
        };
        change_node(&args, spec)
    };
    let mut spec = NodeSpec { labels: [("a".to_owned(), "1".to_owned())].into(), ..NodeSpec::default() };
    change("--availability drain --role manager --control read --label-add b=2 --label-rm a", &mut spec).unwrap();
    assert_eq!((spec.availability, spec.role, spec.control), (Availability::Drain, Role::Manager, Control::Read));
    assert_eq!(spec.labels.keys().collect::<Vec<_>>(), ["b"]);
    let error = change("--availability gone --label-rm zz", &mut spec).unwrap_err().to_string();
    assert!(error.contains("active, pause, drain") && error.contains("no such label"), "{error}");
}
