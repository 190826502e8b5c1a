use rswarm_api::{Wire, pb};
use rswarm_types::TimestampMs;
use rswarm_types::spec::Protocol;
use rswarm_types::task::Task;

use super::*;
use crate::filter::Filters;
use crate::listing::{ListArgs, Listing};
use crate::view::{NodeNames, NodeView, ServiceView};

fn id(number: u8) -> bytes::Bytes {
    let mut id = [0; 16];
    id[0] = 0x80;
    id[15] = number;
    bytes::Bytes::copy_from_slice(&id)
}

fn show(listing: Listing) -> String {
    listing.show(&ListArgs::default()).unwrap()
}

fn filters(given: &[&str], allowed: &[&str]) -> Filters {
    Filters::parse(&given.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), allowed).unwrap()
}

fn node(number: u8, hostname: &str, role: i32, state: i32) -> NodeView {
    let node = pb::Node {
        id: id(number),
        meta: Some(pb::Meta::default()),
        spec: Some(pb::NodeSpec { role, ..Default::default() }),
        description: Some(pb::NodeDescription {
            hostname: hostname.into(),
            platform: Some(pb::Platform::default()),
            engine_version: "0.1.0".into(),
            ..Default::default()
        }),
        status: Some(pb::NodeStatus { state, ..Default::default() }),
        membership: Some(pb::Membership { role, ..Default::default() }),
        number: u32::from(number),
        key_hash: vec![0; 32].into(),
        ..Default::default()
    };
    NodeView::read(pb::NodeView {
        node: Some(node),
        is_leader: hostname == "m1",
        is_reachable: state == 2,
        is_self: hostname == "m2",
    })
    .unwrap()
}

fn nodes() -> Vec<NodeView> {
    vec![node(3, "w1", 0, 1), node(1, "m1", 1, 2), node(2, "m2", 1, 2), node(4, "m3", 1, 1)]
}

#[test]
fn node_ls_marks_itself_and_says_who_leads() {
    let shown = show(super::node::listing(nodes(), &Filters::default()).unwrap());
    assert_eq!(
        shown,
        "\
ID                            HOSTNAME   STATUS    AVAILABILITY   MANAGER STATUS   ENGINE VERSION
7ksyyizzkutudzbv8aqztecjl     m1         Ready     Active         Leader           0.1.0
7ksyyizzkutudzbv8aqztecjm *   m2         Ready     Active         Reachable        0.1.0
7ksyyizzkutudzbv8aqztecjo     m3         Down      Active         Unreachable      0.1.0
7ksyyizzkutudzbv8aqztecjn     w1         Down      Active                          0.1.0
"
    );
}

#[test]
fn node_ls_filters_and_formats() {
    let by = |given: &[&str]| {
        let listing = super::node::listing(nodes(), &filters(given, &super::node::FILTERS)).unwrap();
        let format = Some("{{.Hostname}},{{.Status}},{{.ManagerStatus}}".into());
        listing.show(&ListArgs { format, quiet: false }).unwrap()
    };
    assert_eq!(by(&["role=worker"]), "w1,Down,\n");
    assert_eq!(by(&["name=m", "role=manager"]), "m1,Ready,Leader\nm2,Ready,Reachable\nm3,Down,Unreachable\n");
    assert_eq!(by(&["membership=pending"]), "");
    let wrong = super::node::listing(nodes(), &filters(&["role=boss"], &super::node::FILTERS));
    assert!(wrong.err().unwrap().to_string().contains("manager, worker"));
}

fn spec(name: &str) -> pb::ServiceSpec {
    pb::ServiceSpec {
        name: name.into(),
        labels: [("com.docker.stack.namespace".to_owned(), "shop".to_owned())].into(),
        task: Some(pb::TaskSpec {
            container: Some(pb::ContainerSpec {
                image: "docker.io/library/nginx:1.27@sha256:abc".into(),
                privileges: Some(Default::default()),
                dns: Some(Default::default()),
                ..Default::default()
            }),
            resources: Some(Default::default()),
            restart: Some(Default::default()),
            placement: Some(Default::default()),
            ..Default::default()
        }),
        mode: Some(pb::ServiceMode { mode: Some(pb::service_mode::Mode::Replicated(pb::Replicated { replicas: 3 })) }),
        endpoint: Some(Default::default()),
        ..Default::default()
    }
}

fn service(number: u8, name: &str, change: impl Fn(&mut pb::Service)) -> ServiceView {
    let mut service = pb::Service {
        id: id(number),
        meta: Some(pb::Meta::default()),
        spec: Some(spec(name)),
        ports: vec![pb::PortConfig { target: 80, published: 8080, ..Default::default() }],
        ..Default::default()
    };
    change(&mut service);
    ServiceView::read(pb::ServiceView { service: Some(service), running: 2, desired: 3, completed: 0 }).unwrap()
}

#[test]
fn service_ls_counts_replicas_and_shows_ports() {
    let global = service(2, "agent", |s| {
        let spec = s.spec.as_mut().unwrap();
        spec.mode = Some(pb::ServiceMode { mode: Some(pb::service_mode::Mode::Global(pb::Global {})) });
        spec.task.as_mut().unwrap().placement.as_mut().unwrap().max_replicas_per_node = 2;
        s.ports.clear();
    });
    let all = || vec![service(1, "web", |_| ()), global.clone()];
    assert_eq!(
        show(super::service::listing(all(), &Filters::default()).unwrap()),
        "\
ID             NAME      MODE         REPLICAS               IMAGE        PORTS
7ksyyizzkutu   agent     global       2/3 (max 2 per node)   nginx:1.27   
7ksyyizzkutu   web       replicated   2/3                    nginx:1.27   *:8080->80/tcp
"
    );
    let only = super::service::listing(all(), &filters(&["mode=global"], &super::service::FILTERS)).unwrap();
    assert_eq!(only.records.len(), 1);
    let label = Some("{{.Label \"com.docker.stack.namespace\"}}".to_owned());
    let shown = super::service::listing(all(), &Filters::default()).unwrap();
    assert_eq!(shown.show(&ListArgs { format: label, quiet: false }).unwrap(), "shop\nshop\n");
}

#[test]
fn stack_ls_counts_services() {
    let other = service(3, "lonely", |s| s.spec.as_mut().unwrap().labels.clear());
    let all = [service(1, "a", |_| ()), service(2, "b", |_| ()), other];
    assert_eq!(show(super::stack::listing(&all)), "NAME      SERVICES\nshop      2\n");
}

/// One task: number, slot, state, age in seconds, desired, error.
fn task(number: u8, slot: u64, state: u32, age: u64, desired: i32, error: &str) -> Task {
    let at = 1_000_000 - age * 1_000;
    Wire::from_pb(pb::Task {
        id: id(number),
        meta: Some(pb::Meta { created_at: at, ..Default::default() }),
        service: id(1),
        slot: Some(pb::Slot { number: slot, node: Default::default() }),
        node: (state > 64).then(|| id(9)),
        spec: Some(spec("web")),
        status: Some(pb::TaskStatus { state, at, error: error.into(), ..Default::default() }),
        desired,
        ..Default::default()
    })
    .unwrap()
}

fn shown(nodes: &NodeNames, no_resolve: bool, no_trunc: bool) -> super::task::Shown<'_> {
    super::task::Shown { nodes, no_resolve, no_trunc, now: TimestampMs(1_000_000) }
}

fn names() -> NodeNames {
    let node: rswarm_types::NodeId = Wire::from_pb(id(9)).unwrap();
    [(node, "w1".to_owned())].into()
}

fn history() -> Vec<Task> {
    vec![
        task(1, 1, 704, 65, 2, "task: non-zero exit (1): something went badly wrong"),
        task(3, 2, 64, 0, 1, "no suitable node"),
        task(2, 1, 512, 5, 1, ""),
    ]
}

#[test]
fn service_ps_shows_a_slots_history_under_its_task() {
    let shown = show(super::task::listing(history(), &Filters::default(), shown(&names(), false, false)).unwrap());
    assert_eq!(
        shown,
        "\
ID             NAME        IMAGE        NODE      DESIRED STATE   CURRENT STATE                    ERROR                             PORTS
7ksyyizzkutu   web.1       nginx:1.27   w1        Running         Running 5 seconds ago                                              
7ksyyizzkutu    \\_ web.1   nginx:1.27   w1        Shutdown        Failed about a minute ago        \"task: non-zero exit (1): som…\"   
7ksyyizzkutu   web.2       nginx:1.27             Running         Pending less than a second ago   \"no suitable node\"                
"
    );
}

#[test]
fn service_ps_can_show_everything_in_full() {
    let names = names();
    let listing = super::task::listing(history(), &Filters::default(), shown(&names, true, true)).unwrap();
    let text = listing
        .show(&ListArgs { format: Some("{{.ID}} {{.Name}} {{.Image}} {{.Node}} {{.Error}}".into()), quiet: false })
        .unwrap();
    let service = "7ksyyizzkutudzbv8aqztecjl";
    assert!(
        text.contains(&format!("{service}.1 docker.io/library/nginx:1.27@sha256:abc 7ksyyizzkutudzbv8aqztecjt")),
        "{text}"
    );
    assert!(text.contains("\"task: non-zero exit (1): something went badly wrong\""), "{text}");
}

#[test]
fn tasks_are_filtered() {
    let count = |given: &[&str]| {
        let names = names();
        let filters = filters(given, &super::task::FILTERS);
        super::task::listing(history(), &filters, shown(&names, false, false)).unwrap().records.len()
    };
    assert_eq!(count(&["desired-state=running"]), 2);
    assert_eq!(count(&["node=w1"]), 2);
    assert_eq!(count(&["name=web.2"]), 1);
    assert_eq!(count(&["desired-state=running", "desired-state=shutdown"]), 3);
}

#[test]
fn neighbouring_ports_are_one_range() {
    let port = |target, published| PortConfig { target, published, ..PortConfig::default() };
    assert_eq!(
        ports(&[port(81, 8081), port(80, 8080), port(443, 8443)], None),
        "*:8080-8081->80-81/tcp, *:8443->443/tcp"
    );
    assert_eq!(ports(&[port(80, 0)], None), "", "a port that has no number yet");
    assert_eq!(ports(&[port(80, 1)], Some(PublishMode::Host)), "");
    let on = |address: &str, port| PortConfig { address: address.parse().ok(), ..port };
    assert_eq!(
        ports(&[on("::1", port(80, 8080)), on("127.0.0.1", port(81, 8081)), port(80, 8080)], None),
        "*:8080->80/tcp, 127.0.0.1:8081->81/tcp, [::1]:8080->80/tcp"
    );
    assert_eq!(
        ports(&[on("127.0.0.1", port(80, 8080)), on("127.0.0.1", port(81, 8081)), on("::1", port(82, 8082))], None),
        "127.0.0.1:8080-8081->80-81/tcp, [::1]:8082->82/tcp"
    );
    assert_eq!(ports(&[PortConfig { protocol: Protocol::Sctp, ..port(9, 90) }], None), "*:90->9/sctp");
}

#[test]
fn images_have_a_row_for_each_name() {
    let image = pb::Image {
        id: "sha256:0123456789abcdef0123".into(),
        tags: vec!["docker.io/library/nginx:1.27".into(), "registry:5000/web:2".into()],
        digests: vec!["registry:5000/web@sha256:feed".into()],
        created_at: 1_000_000 - 7_200_000 / 10,
        size: 187_400_000,
    };
    let bare = pb::Image { id: "sha256:ffff".into(), size: 5, ..Default::default() };
    let shown =
        |repository, digests| super::image::Shown { no_trunc: false, digests, repository, now: TimestampMs(1_000_000) };
    let all = || vec![image.clone(), bare.clone()];
    assert_eq!(
        show(super::image::listing(all(), &Filters::default(), shown(None, false)).unwrap()),
        "\
REPOSITORY          TAG       IMAGE ID       CREATED          SIZE
nginx               1.27      0123456789ab   12 minutes ago   187MB
registry:5000/web   2         0123456789ab   12 minutes ago   187MB
<none>              <none>    ffff           N/A              5B
"
    );
    let count = |given: &[&str], repository| {
        let filters = filters(given, &super::image::FILTERS);
        super::image::listing(all(), &filters, shown(repository, true)).unwrap().records.len()
    };
    assert_eq!(count(&[], Some("nginx")), 1);
    assert_eq!(count(&[], Some("registry:5000/web:2")), 1);
    assert_eq!(count(&["dangling=true"], None), 1);
    assert_eq!(count(&["reference=ng*:1.*"], None), 1);
    assert_eq!(count(&["reference=registry*"], None), 0, "a star stays within a part");
}

#[test]
fn containers_are_newest_first_and_cut() {
    let container = |id: &str, created_at, state: &str| pb::Container {
        id: id.repeat(20),
        name: format!("web.1.{id}"),
        image: "nginx:1.27@sha256:abc".into(),
        command: "nginx -g daemon off; and more".into(),
        created_at,
        state: state.into(),
        status: "Up 5 seconds (healthy)".into(),
        service: "web".into(),
        exit_code: (state == "exited").then_some(137),
        ..Default::default()
    };
    let all = || vec![container("a", 900_000, "exited"), container("b", 995_000, "running")];
    let list = |given: &[&str], last| {
        let filters = filters(given, &super::container::FILTERS);
        let shown = super::container::Shown { all: true, last, now: TimestampMs(1_000_000), ..Default::default() };
        super::container::listing(all(), &filters, shown).unwrap()
    };
    assert_eq!(
        show(list(&[], Some(1))),
        "\
CONTAINER ID   IMAGE        COMMAND                  CREATED         STATUS                   PORTS     NAMES
bbbbbbbbbbbb   nginx:1.27   \"nginx -g daemon off…\"   5 seconds ago   Up 5 seconds (healthy)             web.1.b
"
    );
    assert_eq!(list(&["exited=137"], None).records.len(), 1);
    assert_eq!(list(&["status=running", "service=web"], None).records.len(), 1);
}

#[test]
fn containers_tell_mounts_networks_and_size_and_are_filtered_by_them() {
    let mount = |kind, source: &str, target: &str| pb::Mount {
        kind,
        source: source.into(),
        target: target.into(),
        bind: Some(Default::default()),
        volume: Some(Default::default()),
        tmpfs: Some(Default::default()),
        ..Default::default()
    };
    let web = pb::Container {
        id: "a".repeat(25),
        name: "web.1.a".into(),
        state: "running".into(),
        health: "healthy".into(),
        created_at: 995_000,
        mounts: vec![mount(0, "a-volume-of-long-name", "/data"), mount(1, "/srv", "/srv"), mount(2, "", "/tmp")],
        networks: vec!["back".into(), "ingress".into()],
        ports: vec![pb::PortConfig { target: 80, published: 8080, ..Default::default() }],
        size_written: 2,
        size_whole: 187_400_002,
        ..Default::default()
    };
    let older = pb::Container {
        id: "b".repeat(25),
        name: "old.1.b".into(),
        state: "exited".into(),
        health: "none".into(),
        created_at: 900_000,
        ..Default::default()
    };
    let list = |given: &[&str], all: bool| {
        let shown = super::container::Shown { all, now: TimestampMs(1_000_000), ..Default::default() };
        let filters = filters(given, &super::container::FILTERS);
        super::container::listing(vec![web.clone(), older.clone()], &filters, shown)
    };
    let format = "{{.Mounts}}|{{.LocalVolumes}}|{{.Networks}}|{{.Size}}|{{.CreatedAt}}|{{.HealthStatus}}";
    let args = ListArgs { format: Some(format.into()), quiet: false };
    assert_eq!(
        list(&[], false).unwrap().show(&args).unwrap(),
        "a-volume-of-lo…,/srv|1|back,ingress|2B (virtual 187MB)|1970-01-01 00:16:35 +0000 UTC|healthy\n"
    );
    let args = ListArgs {
        format: Some("table {{.Mounts}}\\t{{.LocalVolumes}}\\t{{.Networks}}\\t{{.Size}}".into()),
        quiet: false,
    };
    assert!(list(&[], false).unwrap().show(&args).unwrap().starts_with("MOUNTS "), "they have titles too");
    for (filter, names) in [
        ("health=healthy", "web"),
        ("health=none", "old"),
        ("volume=/data", "web"),
        ("volume=a-volume-of-long-name", "web"),
        ("volume=other", ""),
        ("network=back", "web"),
        ("network=front", ""),
        ("publish=8080", "web"),
        ("publish=8000-9000/tcp", "web"),
        ("publish=8080/udp", ""),
        ("publish=80", ""),
        ("expose=80", "web"),
        ("before=web.1.a", "old"),
        ("since=bbbb", "web"),
        ("is-task=true", "web old"),
        ("is-task=false", ""),
    ] {
        let args = ListArgs { format: Some("{{.Names}}".into()), quiet: false };
        let shown = list(&[filter], true).unwrap().show(&args).unwrap();
        let shown: Vec<&str> = shown.lines().filter_map(|name| name.split('.').next()).collect();
        assert_eq!(shown.join(" "), names, "{filter}");
    }
    for (filter, said) in [("publish=web", "\"web\""), ("since=nobody", "\"nobody\""), ("health=well", "starting")] {
        let error = list(&[filter], true).err().unwrap().to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn networks_are_filtered_by_use_and_kind() {
    let network = |number: u8, name: &str, ingress| {
        Wire::from_pb(pb::Network {
            id: id(number),
            meta: Some(pb::Meta::default()),
            spec: Some(pb::NetworkSpec {
                name: name.into(),
                ipam: Some(Default::default()),
                ingress,
                ..Default::default()
            }),
            ..Default::default()
        })
        .unwrap()
    };
    let all = || vec![network(1, "ingress", true), network(2, "back", false)];
    let list = |given: &[&str]| {
        super::network::listing(all(), &filters(given, &super::network::FILTERS), false, &|_| false).unwrap()
    };
    assert_eq!(
        show(list(&[])),
        "NETWORK ID     NAME      DRIVER    SCOPE\n7ksyyizzkutu   back      overlay   swarm\n7ksyyizzkutu   ingress   overlay   swarm\n"
    );
    assert_eq!(list(&["dangling=true"]).records.len(), 1);
    assert_eq!(list(&["type=builtin"]).records.len(), 1);
}

#[test]
fn pretty_pages_read_well() {
    let view = service(1, "web", |s| {
        s.update = Some(pb::UpdateStatus {
            state: 1,
            message: "update paused".into(),
            started_at: 940_000,
            ..Default::default()
        });
    });
    let text = super::pretty_service::text(&view, &Default::default(), TimestampMs(1_000_000));
    for part in [
        "ID:             7ksyy",
        "Service Mode:   Replicated\n Replicas:      3\n",
        " State:         paused\n Started:       about a minute ago\n",
        "PublishedPort  = 8080",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let text = super::pretty_node::text(&nodes()[1], None);
    for part in ["Hostname:               m1\n", " Leader:                Yes\n", " Availability:          Active\n"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

#[test]
fn info_and_version_say_where_the_node_stands() {
    let info = pb::NodeInfo {
        version: "0.1.0".into(),
        hostname: "m1".into(),
        node: id(1),
        cluster: id(2),
        swarm_state: "active".into(),
        is_manager: true,
        cpus: 2,
        memory: 4 << 30,
        advertise_address: "10.99.0.1:2377".into(),
        architecture: "x86_64".into(),
        default_capabilities: vec!["CHOWN".into(), "KILL".into()],
        no_new_privileges: true,
        ..Default::default()
    };
    let text = super::info::info_text(&info);
    for part in [
        "Swarm: active\n",
        " NodeID: 7ksyyizzkutudzbv8aqztecjl\n",
        "CPUs: 2\n",
        "Total Memory: 4GiB\n",
        " Node Address: 10.99.0.1\n",
        "Architecture: x86_64\n",
        "Default Capabilities: CHOWN, KILL\n",
        "no-new-privileges",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let of = |format| crate::inspect::text(vec![super::info::info_json(&info)], Some(format)).unwrap();
    assert_eq!(of("{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}} {{.NCPU}}"), "active true 2\n");
    assert_eq!(of("{{.Swarm.NodeAddr}}"), "10.99.0.1\n", "the address alone, as Docker has it");
    let text = super::info::version_text(Some(&info));
    assert!(text.contains(" OS/Arch:      linux/amd64\n"), "{text}");
    assert!(text.contains("Server:\n Version:      0.1.0\n"), "{text}");
    assert!(!super::info::version_text(None).contains("Server:"));
}
