//! Every noun survives the wire, and what cannot be read is an error, never a default.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use prost::Message;
use rswarm_api::{Wire, WireError, pb};
use rswarm_types::assignment::{
    AssignedNetwork, AssignedService, AssignedTask, Assignments, Endpoint, LogId, NodeOrders, Peer,
};
use rswarm_types::command::{Body, Caller, Change, Command, Cursor, NewTask, Record, StackChange, StackService};
use rswarm_types::delta::{Delta, Gone};
use rswarm_types::network::{Addresses, Network, SubnetBlock};
use rswarm_types::node::{Node, NodeDescription, NodeState};
use rswarm_types::service::{RegistryAuth, Service, UpdateState, UpdateStatus, VirtualIp};
use rswarm_types::session::{CloseReason, Down, Leaving, Open, Settled, Up};
use rswarm_types::spec::container::DnsConfig;
use rswarm_types::spec::*;
use rswarm_types::task::{Attachment, EndpointState, Slot, Task, TaskStatus};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::units::{Bytes, NanoCpus, TimestampMs};
use rswarm_types::*;

fn full_spec() -> ServiceSpec {
    let text = |s: &str| s.to_owned();
    ServiceSpec {
        name: text("web"),
        labels: [(text("a"), text("1"))].into(),
        task: TaskSpec {
            container: ContainerSpec {
                image: text("nginx:1.27@sha256:00"),
                labels: [(text("b"), text("2"))].into(),
                command: vec![text("sh")],
                args: vec![text("-c"), text("exit 0")],
                env: vec![text("K=V")],
                hostname: text("h"),
                dir: text("/srv"),
                user: text("1:2"),
                groups: vec![text("3")],
                privileges: Privileges { no_new_privileges: true, seccomp_unconfined: true },
                tty: true,
                open_stdin: true,
                read_only: true,
                stop_signal: text("SIGINT"),
                stop_grace: Some(Duration::from_millis(1_500)),
                healthcheck: Some(Healthcheck {
                    test: vec![text("CMD"), text("true")],
                    interval: Some(Duration::from_secs(1)),
                    timeout: Some(Duration::from_secs(2)),
                    start_period: Some(Duration::from_secs(3)),
                    start_interval: Some(Duration::from_secs(4)),
                    retries: 5,
                }),
                mounts: vec![Mount {
                    kind: MountKind::Tmpfs,
                    source: text("s"),
                    target: text("/t"),
                    read_only: true,
                    bind: BindOptions { propagation: text("rslave"), non_recursive: true, create_source: true },
                    volume: VolumeOptions { no_copy: true, labels: Default::default(), subpath: text("x") },
                    tmpfs: TmpfsOptions { size: Bytes(64), mode: Some(0o1777) },
                }],
                hosts: vec![HostEntry { name: text("db"), address: [10, 0, 0, 9].into() }],
                dns: DnsConfig {
                    nameservers: vec![[9, 9, 9, 9].into()],
                    search: vec![text("s")],
                    options: vec![text("o")],
                },
                init: Some(false),
                sysctls: [(text("net.x"), text("1"))].into(),
                cap_add: vec![text("NET_RAW")],
                cap_drop: vec![text("ALL")],
                ulimits: vec![Ulimit { name: text("nofile"), soft: -1, hard: 9 }],
                oom_score_adj: -500,
            },
            resources: Resources {
                limit_cpu: NanoCpus(1),
                limit_memory: Bytes(2),
                limit_pids: 3,
                reserve_cpu: NanoCpus(4),
                reserve_memory: Bytes(5),
            },
            restart: RestartPolicy {
                condition: RestartCondition::OnFailure,
                delay: Duration::from_secs(1),
                max_attempts: 2,
                window: Duration::from_secs(3),
            },
            placement: Placement {
                constraints: vec![text("node.role == worker")],
                preferences: vec![SpreadPreference { descriptor: text("node.labels.zone") }],
                max_replicas_per_node: 7,
                platforms: vec![Platform { os: text("linux"), architecture: text("amd64") }],
            },
            networks: vec![NetworkAttachment {
                target: text("net"),
                aliases: vec![text("al")],
                driver_opts: [(text("k"), text("v"))].into(),
            }],
            log_driver: Some(LogDriver { name: text("json-file"), options: [(text("max-size"), text("1m"))].into() }),
            force_update: 11,
        },
        mode: ServiceMode::Replicated { replicas: 4 },
        update: Some(UpdateConfig { parallelism: 0, order: UpdateOrder::StartFirst, ..UpdateConfig::default() }),
        rollback: Some(UpdateConfig::default()),
        endpoint: EndpointSpec {
            mode: EndpointMode::DnsRr,
            balance: Balance { by_client: true, prefers_local: false },
            ports: vec![
                PortConfig {
                    protocol: Protocol::Udp,
                    target: 53,
                    published: 5353,
                    mode: PublishMode::Host,
                    address: Some(six(1)),
                },
                PortConfig { protocol: Protocol::Sctp, target: 9, ..PortConfig::default() },
            ],
        },
    }
}

fn check<T: Wire + PartialEq + std::fmt::Debug>(value: &T)
where
    T::Pb: Message + Default,
{
    let bytes = value.to_pb().encode_to_vec();
    assert_eq!(&T::from_pb(T::Pb::decode(&bytes[..]).unwrap()).unwrap(), value);
}

fn command(body: Body) -> Command {
    Command {
        at: TimestampMs(5),
        wall: TimestampMs(6),
        request: RequestId(7),
        caller: Caller { node: NodeId(8), role: Role::Manager },
        needs_level: 1,
        body,
    }
}

#[test]
fn a_spec_with_every_field_set_survives() {
    check(&full_spec());
    check(&ServiceSpec { mode: ServiceMode::Global, ..full_spec() });
    check(&ServiceSpec { endpoint: EndpointSpec::default(), ..full_spec() });
    check(&ServiceSpec {
        endpoint: EndpointSpec {
            balance: Balance { by_client: false, prefers_local: true },
            ..EndpointSpec::default()
        },
        ..full_spec()
    });
    check(&ClusterSpec::default());
    check(&ClusterSpec { address_pools: vec![net("10.0.0.0/8"), net("fd00::/48")], ..ClusterSpec::default() });
}

fn six(last: u16) -> IpAddr {
    [0xfd00, 0, 0, 0, 0, 0, 0, last].into()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn both(last: u8) -> Addresses {
    [six(last.into()), [10, 0, 0, last].into()].into_iter().collect()
}

fn network() -> NetworkSpec {
    let named = SubnetSpec {
        subnet: net("fd00::/64"),
        gateway: Some(six(1)),
        range: Some(net("fd00::/112")),
        aux_addresses: [("router".to_owned(), six(9))].into(),
    };
    NetworkSpec {
        name: "net".into(),
        ipam: Ipam { subnets: vec![named, net("10.1.0.0/24").into()] },
        ipv6: true,
        attachable: true,
        ..NetworkSpec::default()
    }
}

#[test]
fn what_has_addresses_of_either_family_or_both_survives() {
    let block = |subnet: &str, gateway| SubnetBlock { subnet: net(subnet), gateway, range: net(subnet) };
    let blocks = vec![block("10.1.0.0/24", [10, 1, 0, 1].into()), block("fd00::/64", six(1))];
    check(&Record::Network(Box::new(Network { spec: network(), blocks: blocks.clone(), ..Network::default() })));
    check(&Record::Cursor(Cursor {
        addresses: vec![(NetworkId(1), [10, 0, 0, 9].into()), (NetworkId(1), six(9))],
        ..Cursor::default()
    }));
    for addresses in [both(7), six(7).into(), Addresses::from(IpAddr::from([10, 0, 0, 7])), Addresses::default()] {
        check(&Record::Node(Box::new(Node { ingress: addresses, ..Node::default() })));
        let vips = vec![VirtualIp { network: NetworkId(1), addresses }];
        check(&Record::Service(Box::new(Service { vips, ..Service::default() })));
        let attachments = vec![Attachment { network: NetworkId(1), addresses, aliases: vec!["a".into()] }];
        check(&Record::Task(Box::new(Task { attachments, ingress: addresses, ..Task::default() })));
    }
    check(&Assignments {
        node: NodeOrders { ingress: both(3), ..NodeOrders::default() },
        tasks: vec![AssignedTask {
            attachments: vec![Attachment { network: NetworkId(1), addresses: both(4), aliases: vec![] }],
            ingress: both(5),
            ports: full_spec().endpoint.ports,
            ..AssignedTask::default()
        }],
        networks: vec![AssignedNetwork { blocks, ..AssignedNetwork::default() }],
        services: vec![AssignedService {
            balance: Balance { by_client: true, prefers_local: true },
            vips: vec![(NetworkId(1), both(6))],
            ..AssignedService::default()
        }],
        endpoints: vec![Endpoint {
            task: TaskId(1),
            service: ServiceId(2),
            node: NodeId(3),
            node_number: 4,
            slot: Slot::Number(5),
            state: EndpointState::Ready,
            addresses: vec![(NetworkId(1), six(4).into())],
            ingress: both(5),
        }],
        peers: vec![Peer {
            id: NodeId(1),
            number: 1,
            address: six(2),
            addresses: vec![[10, 0, 0, 2].into(), six(2)],
            is_up: true,
            ingress: both(3),
        }],
        managers: vec!["[fd00::2]:2377".parse().unwrap()],
        ..Assignments::default()
    });
}

#[test]
fn an_address_of_the_wrong_length_is_an_error() {
    let mut task = Task { ingress: both(7), ..Task::default() }.to_pb();
    task.ingress = Some(pb::Addresses { v4: None, v6: Some(vec![1, 2, 3].into()) });
    assert!(matches!(Task::from_pb(task), Err(WireError::Unknown { what: "IPv6 address", .. })));
}

#[test]
fn commands_survive() {
    let spec = Arc::new(full_spec());
    let auth = RegistryAuth("secret".into());
    let bodies = [
        Body::Tick,
        Body::CreateNetwork { id: NetworkId(1), spec: network() },
        Body::CreateService { id: ServiceId(1), spec: Arc::clone(&spec), auth: auth.clone() },
        Body::UpdateService { id: ServiceId(1), version: 9, spec: Arc::clone(&spec), auth: None, rollback: true },
        Body::DeployStack(Box::new(StackChange {
            name: "s".into(),
            networks: vec![],
            services: vec![StackService { id: ServiceId(2), spec, auth }],
            prune: true,
        })),
        Body::SetNodeState {
            node: NodeId(1),
            epoch: 2,
            state: NodeState::Down,
            message: "m".into(),
            grace_until: TimestampMs(3),
        },
        Body::Report {
            node: NodeId(1),
            epoch: 2,
            statuses: vec![(
                TaskId(3),
                TaskStatus { state: TaskState::Failed, exit_code: Some(-1), ..Default::default() },
            )],
        },
        Body::Reconcile(vec![
            Change::CreateTask(Box::new(NewTask {
                slot: Slot::Node(NodeId(4)),
                replaces: Some(TaskId(1)),
                ..Default::default()
            })),
            Change::SetDesired { task: TaskId(1), version: 2, desired: DesiredState::Remove, reason: "r".into() },
            Change::SetUpdateStatus {
                service: ServiceId(1),
                version: 2,
                status: UpdateStatus { state: UpdateState::RollbackPaused, ..Default::default() },
            },
        ]),
    ];
    for body in bodies {
        check(&command(body));
    }
}

#[test]
fn sessions_survive() {
    let description = NodeDescription { feature_range: (1, 2), addresses: vec![six(1)], ..Default::default() };
    for up in [
        Up::Open(Box::new(Open { node: NodeId(1), description, sandboxes: vec![TaskId(2)], ..Default::default() })),
        Up::Heartbeat,
        Up::GoingAway(Leaving::Shutdown),
        Up::Statuses { number: 3, statuses: vec![(TaskId(1), TaskStatus::default())] },
    ] {
        check(&up);
    }
    for down in [
        Down::Opened { epoch: 1 },
        Down::Closed { reason: CloseReason::Clone, message: "m".into() },
        Down::Changes(Box::new(Delta {
            from: LogId { era: 1, term: 2, index: 3 },
            changed: Assignments { log_id: LogId { era: 1, term: 2, index: 4 }, ..Default::default() },
            gone: Gone {
                tasks: vec![TaskId(1)],
                networks: vec![NetworkId(2)],
                services: vec![ServiceId(3)],
                endpoints: vec![TaskId(4)],
                peers: vec![NodeId(5)],
            },
        })),
        Down::Settled(Settled { everywhere: u64::MAX, networks: vec![(NetworkId(1), 7), (NetworkId(2), 0)] }),
    ] {
        check(&down);
    }
}

#[test]
fn an_unknown_body_is_an_error_and_never_skipped() {
    let mut pb = command(Body::Tick).to_pb();
    pb.body = Some(pb::Body { body: None });
    assert_eq!(Command::from_pb(pb), Err(WireError::Missing("Body.body")));
    let mut spec = full_spec().to_pb();
    spec.endpoint = Some(pb::EndpointSpec { mode: 99, ..Default::default() });
    assert!(matches!(ServiceSpec::from_pb(spec), Err(WireError::Unknown { .. })));
}

#[test]
fn secrets_are_not_printed() {
    let body = Body::CreateService { id: ServiceId(1), spec: Arc::default(), auth: RegistryAuth("hunter2".into()) };
    assert!(!format!("{:?}", command(body)).contains("hunter2"));
}
