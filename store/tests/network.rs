//! Networks, subnets and addresses.

mod common;

use common::{Cell, INGRESS, MANAGER, port, spec, spec_on};
use ipnet::IpNet;
use rswarm_store::Holder;
use rswarm_types::command::{Body, Change};
use rswarm_types::spec::{ClusterSpec, EndpointMode, Ipam, NetworkSpec};
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{NetworkId, TaskId};

fn subnets(cell: &Cell, id: NetworkId) -> Vec<String> {
    cell.state.network(id).expect("it exists").blocks.iter().map(|b| b.subnet.to_string()).collect()
}

fn with_subnet(name: &str, subnet: &str) -> NetworkSpec {
    let subnet: IpNet = subnet.parse().expect("a subnet");
    NetworkSpec { name: name.into(), ipam: Ipam { subnets: vec![subnet.into()] }, ..NetworkSpec::default() }
}

#[test]
fn ingress_takes_the_first_subnet_and_reserves_its_gateways() {
    let cell = Cell::new();
    assert_eq!(subnets(&cell, INGRESS), ["10.0.0.0/24", "fd00:0:7::/64"]);
    let held: Vec<_> = cell.state.addresses(INGRESS).map(|(a, h)| (a.to_string(), h)).collect();
    assert_eq!(
        held,
        [
            ("10.0.0.1".to_owned(), Holder::Gateway),
            ("10.0.0.2".to_owned(), Holder::Node(MANAGER)),
            ("10.0.0.254".to_owned(), Holder::ReturnGateway),
            ("fd00:0:7::1".to_owned(), Holder::Gateway),
            ("fd00:0:7::2".to_owned(), Holder::Node(MANAGER)),
            ("fd00:0:7::fffe".to_owned(), Holder::ReturnGateway),
        ]
    );
}

#[test]
fn networks_take_the_lowest_free_subnet_but_the_next_vni() {
    let mut cell = Cell::new();
    let a = cell.network(10, "a");
    let b = cell.network(11, "b");
    assert_eq!((subnets(&cell, a), subnets(&cell, b)), (vec!["10.0.1.0/24".into()], vec!["10.0.2.0/24".into()]));
    let vni = |cell: &Cell, id| cell.state.network(id).expect("it exists").vni;
    assert_eq!((vni(&cell, a), vni(&cell, b)), (4097, 4098));
    cell.run(Body::RemoveNetwork { id: a }).expect("nobody uses it");
    let c = cell.network(12, "c");
    assert_eq!(subnets(&cell, c), ["10.0.1.0/24"]);
    assert_eq!(vni(&cell, c), 4099);
}

#[test]
fn a_cut_steps_over_subnets_that_users_named() {
    let mut cell = Cell::new();
    cell.run(Body::CreateNetwork { id: NetworkId(20), spec: with_subnet("big", "10.0.0.0/23") })
        .expect_err("it overlaps with ingress");
    cell.run(Body::CreateNetwork { id: NetworkId(21), spec: with_subnet("big", "10.0.2.0/23") }).expect("free");
    cell.run(Body::CreateNetwork { id: NetworkId(22), spec: with_subnet("odd", "10.0.1.128/25") }).expect("free");
    let next = cell.network(23, "next");
    assert_eq!(subnets(&cell, next), ["10.0.4.0/24"]);
}

#[test]
fn an_overlap_names_the_other_network() {
    let mut cell = Cell::new();
    cell.run(Body::CreateNetwork { id: NetworkId(20), spec: with_subnet("web", "172.20.0.0/16") }).expect("free");
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(21), spec: with_subnet("x", "172.20.5.0/24") });
    assert_eq!(text, "subnet 172.20.5.0/24 overlaps with network \"web\" (172.20.0.0/16)");
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(21), spec: with_subnet("x", "172.16.0.0/12") });
    assert!(text.contains("\"web\""), "{text}");
}

#[test]
fn names_of_networks_are_unique_and_some_are_reserved() {
    let mut cell = Cell::new();
    cell.network(10, "web");
    for (name, part) in
        [("web", "already in use"), ("host", "predefined"), ("none", "predefined"), ("ingress", "predefined")]
    {
        let spec = NetworkSpec { name: name.into(), ..NetworkSpec::default() };
        let text = cell.refused(Body::CreateNetwork { id: NetworkId(11), spec });
        assert!(text.contains(part), "{name}: {text}");
    }
    let spec = NetworkSpec { name: "second".into(), ingress: true, ..NetworkSpec::default() };
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(11), spec });
    assert_eq!(text, "network \"ingress\" is already the ingress network");
    for id in [2, 3] {
        let text = cell.refused(Body::RemoveNetwork { id: NetworkId(id) });
        assert!(text.contains("predefined"), "{text}");
    }
}

#[test]
fn a_network_in_use_is_not_removed_and_the_service_is_named() {
    let mut cell = Cell::new();
    let web = cell.network(10, "web");
    let mut rr = spec_on("api", &["web"]);
    rr.endpoint.mode = EndpointMode::DnsRr;
    let service = cell.service(50, rr);
    let text = cell.refused(Body::RemoveNetwork { id: web });
    assert_eq!(text, "network \"web\" is in use by service \"api\"\n       remove the service first");
    cell.run(Body::RemoveService { id: service }).expect("it exists");
    cell.run(Body::RemoveNetwork { id: web }).expect("nobody uses it");
    assert!(cell.state.network(web).is_none());
}

#[test]
fn a_removed_network_keeps_its_subnet_until_its_last_task_let_go() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let web = cell.network(10, "web");
    let service = cell.service(50, spec_on("api", &["web"]));
    let task = cell.assigned(100, service, 1, node);
    cell.run(Body::RemoveService { id: service }).expect("it exists");
    cell.run(Body::RemoveNetwork { id: web }).expect("only tasks that stop use it");
    assert!(cell.state.network(web).expect("still there").removing);
    cell.state.find_network("web").expect_err("its name is gone");
    let again = cell.network(11, "web");
    assert_eq!(subnets(&cell, again), ["10.0.2.0/24"]);

    cell.reconcile(vec![Change::ForgetNetwork { network: web }]);
    assert!(cell.state.network(web).is_some(), "a task and a VIP still hold addresses");
    cell.report(task, TaskState::Shutdown, true);
    cell.reconcile(vec![Change::RemoveTask { task }, Change::ForgetService { service }]);
    assert!(cell.state.service(service).is_none());
    cell.reconcile(vec![Change::ForgetNetwork { network: web }]);
    assert!(cell.state.network(web).is_none());
}

#[test]
fn addresses_are_given_next_fit_and_come_back_only_with_the_sandbox() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    cell.network(10, "web");
    let service = cell.service(50, spec_on("api", &["web"]));
    let vip = cell.state.service(service).expect("it exists").vips[0].addresses;
    assert_eq!(vip.to_string(), "10.0.1.2");
    let address = |cell: &Cell, task| cell.task(task).attachments[0].addresses.to_string();

    let first = cell.assigned(100, service, 1, node);
    assert_eq!(address(&cell, first), "10.0.1.3");
    cell.report(first, TaskState::Failed, false);
    cell.reconcile(vec![Change::RemoveTask { task: first }]);
    assert!(cell.state.task(first).is_some(), "a task that holds an address is never reaped");
    let second = cell.pending(101, service, 1);
    assert_eq!(address(&cell, second), "10.0.1.4");
    cell.report(first, TaskState::Failed, true);
    cell.reconcile(vec![Change::RemoveTask { task: first }]);
    assert!(cell.state.task(first).is_none());
    let third = cell.pending(102, service, 2);
    assert_eq!(address(&cell, third), "10.0.1.5", "a freed address is not reused at once");
}

#[test]
fn a_session_frees_what_it_does_not_list() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    cell.network(10, "web");
    let service = cell.service(50, spec_on("api", &["web"]));
    let [kept, gone, live] = [1, 2, 3].map(|n| cell.assigned(100 + u128::from(n), service, n, node));
    cell.report(kept, TaskState::Failed, false);
    cell.report(gone, TaskState::Failed, false);
    cell.report(live, TaskState::Running, false);
    cell.session(node, vec![kept]);
    assert!(!cell.task(kept).status.sandbox_gone);
    assert!(cell.task(gone).status.sandbox_gone);
    assert_eq!(cell.task(live).status.state, TaskState::Running);
    assert!(!cell.task(live).status.sandbox_gone);
}

#[test]
fn a_full_network_grows_by_a_block_unless_the_user_named_its_subnet() {
    let spec = ClusterSpec { subnet_bits: 29, ..ClusterSpec::default() };
    let mut cell = Cell::with(spec);
    let web = cell.network(10, "web");
    let service = cell.service(50, spec_on("api", &["web"]));
    // A /29 has six addresses: gateway, VIP and four tasks.
    for slot in 1..=6 {
        let task = cell.pending(100 + u128::from(slot), service, slot);
        assert_eq!(cell.task(task).status.state, TaskState::Pending);
    }
    assert_eq!(subnets(&cell, web), ["10.0.0.8/29", "10.0.0.16/29"]);

    let named = with_subnet("small", "192.168.7.0/30");
    cell.run(Body::CreateNetwork { id: NetworkId(11), spec: named }).expect("free");
    let service = cell.service(51, spec_on("one", &["small"]));
    let task = cell.pending(200, service, 1);
    let task = cell.task(task);
    assert_eq!(task.status.state, TaskState::New);
    assert_eq!(
        task.status.error,
        "no address is free in network \"small\" (192.168.7.0/30)\n       \
         remove tasks, or use a network with a larger --subnet"
    );
    assert_eq!(cell.state.allocation_problem(task).as_deref(), Some(task.status.error.as_str()));
    let text = cell.create(52, spec_on("two", &["small"])).expect_err("no VIP is free").to_string();
    assert!(text.starts_with("no address is free in network \"small\""), "{text}");
}

/// A network with IPv6 and these subnets.
fn dual(name: &str, subnets: &[&str]) -> NetworkSpec {
    let subnets = subnets.iter().map(|text| text.parse::<IpNet>().expect("a subnet").into()).collect();
    NetworkSpec { name: name.into(), ipam: Ipam { subnets }, ipv6: true, ..NetworkSpec::default() }
}

#[test]
fn a_network_with_ipv6_has_addresses_of_both_families_and_one_without_has_not() {
    let mut cell = Cell::new();
    cell.run(Body::CreateNetwork { id: NetworkId(10), spec: dual("web", &[]) }).expect("free");
    cell.network(11, "old");
    assert_eq!(subnets(&cell, NetworkId(10)), ["10.0.1.0/24", "fd00:0:7:1::/64"]);
    assert_eq!(subnets(&cell, NetworkId(11)), ["10.0.2.0/24"]);
    let service = cell.service(50, spec_on("api", &["web", "old"]));
    let vips = |cell: &Cell| {
        let service = cell.state.service(service).expect("it exists");
        service.vips.iter().map(|vip| vip.addresses.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(vips(&cell), ["10.0.1.2, fd00:0:7:1::2", "10.0.2.2"]);
    let task = cell.pending(100, service, 1);
    let addresses = cell.task(task).attachments.iter().map(|a| a.addresses.to_string()).collect::<Vec<_>>();
    assert_eq!(addresses, ["10.0.1.3, fd00:0:7:1::3", "10.0.2.3"]);

    cell.update(service, |spec| spec.task.container.image = "nginx:2".into()).expect("accepted");
    assert_eq!(vips(&cell), ["10.0.1.2, fd00:0:7:1::2", "10.0.2.2"], "kept");
    cell.run(Body::RemoveService { id: service }).expect("it exists");
    cell.reconcile(vec![Change::RemoveTask { task }, Change::ForgetService { service }]);
    assert_eq!(cell.state.addresses(NetworkId(10)).count(), 2, "the gateways");
}

#[test]
fn cuts_of_ipv6_come_from_a_pool_of_the_cluster_if_it_has_one() {
    let mut spec = ClusterSpec::default();
    spec.address_pools.push("2001:db8:5::/63".parse().expect("a pool"));
    let mut cell = Cell::with(spec);
    assert_eq!(subnets(&cell, INGRESS), ["10.0.0.0/24", "2001:db8:5::/64"]);
    cell.run(Body::CreateNetwork { id: NetworkId(10), spec: dual("web", &[]) }).expect("free");
    assert_eq!(subnets(&cell, NetworkId(10)), ["10.0.1.0/24", "2001:db8:5:1::/64"]);
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(11), spec: dual("more", &[]) });
    assert_eq!(
        text,
        "no subnet of /64 is free in the address pools 2001:db8:5::/63\n       \
         remove a network, or name a subnet: --subnet"
    );
    cell.run(Body::RemoveNetwork { id: NetworkId(10) }).expect("nobody uses it");
    cell.run(Body::CreateNetwork { id: NetworkId(11), spec: dual("more", &[]) }).expect("free again");
    assert_eq!(subnets(&cell, NetworkId(11)), ["10.0.1.0/24", "2001:db8:5:1::/64"]);
}

#[test]
fn named_subnets_of_both_families_keep_their_gateways_ranges_and_reserved_addresses() {
    let mut cell = Cell::new();
    let mut spec = dual("web", &["2001:db8::/64", "172.20.0.0/29", "172.21.0.0/29"]);
    let [six, four, _] = &mut spec.ipam.subnets[..] else { panic!("three subnets") };
    six.gateway = Some("2001:db8::5:1".parse().expect("an address"));
    six.range = Some("2001:db8:0:0:8000::/112".parse().expect("a range"));
    six.aux_addresses.insert("router".into(), "2001:db8:0:0:8000::1".parse().expect("an address"));
    four.aux_addresses.insert("router".into(), [172, 20, 0, 2].into());
    cell.run(Body::CreateNetwork { id: NetworkId(10), spec }).expect("free");
    assert_eq!(subnets(&cell, NetworkId(10)), ["172.20.0.0/29", "172.21.0.0/29", "2001:db8::/64"]);

    let service = cell.service(50, spec_on("api", &["web"]));
    let mut addresses = vec![cell.state.service(service).expect("it exists").vips[0].addresses.to_string()];
    for slot in 1..=8 {
        let task = cell.pending(100 + u128::from(slot), service, slot);
        addresses.push(cell.task(task).attachments[0].addresses.to_string());
    }
    // Of the IPv4 subnets 172.20.0.1 and 172.21.0.1 are gateways.
    assert_eq!(addresses[0], "172.20.0.3, 2001:db8:0:0:8000::");
    assert_eq!(addresses[1], "172.20.0.4, 2001:db8::8000:0:0:2");
    assert_eq!(addresses[4], "172.21.0.2, 2001:db8::8000:0:0:5");
    assert_eq!(addresses[8], "172.21.0.6, 2001:db8::8000:0:0:9");
    let task = cell.pending(200, service, 9);
    assert_eq!(
        cell.task(task).status.error,
        "no address is free in network \"web\" (172.20.0.0/29, 172.21.0.0/29)\n       \
         remove tasks, or use a network with a larger --subnet"
    );
    cell.run(Body::RemoveService { id: service }).expect("it exists");
    let tasks = cell.state.tasks().map(|task| Change::RemoveTask { task: task.id }).collect();
    cell.reconcile(tasks);
    cell.reconcile(vec![Change::ForgetService { service }]);
    cell.run(Body::RemoveNetwork { id: NetworkId(10) }).expect("reserved addresses are nobody's");
    assert!(cell.state.network(NetworkId(10)).is_none());
}

#[test]
fn a_full_ipv6_range_is_named_and_its_addresses_come_back() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let mut spec = dual("web", &["2001:db8::/64"]);
    spec.ipam.subnets[0].range = Some("2001:db8::4/126".parse().expect("a range"));
    cell.run(Body::CreateNetwork { id: NetworkId(10), spec }).expect("free");
    let service = cell.service(50, spec_on("api", &["web"]));
    let tasks = [1, 2, 3].map(|slot| cell.assigned(100 + u128::from(slot), service, slot, node));
    let fourth = cell.pending(104, service, 4);
    let error = cell.task(fourth).status.error.clone();
    assert!(error.starts_with("no address is free in network \"web\" (2001:db8::4/126)"), "{error}");
    assert!(cell.task(fourth).attachments.is_empty());
    cell.report(tasks[1], TaskState::Failed, true);
    cell.reconcile(vec![Change::AllocateTask { task: fourth }]);
    let addresses = cell.task(fourth).attachments[0].addresses;
    assert_eq!(addresses.v6.map(|a| a.to_string()).as_deref(), Some("2001:db8::6"));
}

#[test]
fn overlaps_and_addresses_of_the_wrong_family_are_refused_also_in_ipv6() {
    let mut cell = Cell::new();
    cell.run(Body::CreateNetwork { id: NetworkId(10), spec: dual("web", &["2001:db8::/64"]) }).expect("free");
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(11), spec: dual("x", &["2001:db8::/48"]) });
    assert_eq!(text, "subnet 2001:db8::/48 overlaps with network \"web\" (10.0.1.0/24, 2001:db8::/64)");
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(11), spec: dual("x", &["fd00:0:7::/80"]) });
    assert!(text.contains("overlaps with network \"ingress\""), "{text}");
    let spec = NetworkSpec { ipv6: false, ..dual("x", &["2001:db8:1::/64"]) };
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(11), spec });
    assert_eq!(text, "invalid subnet: \"2001:db8:1::/64\": the network has no IPv6");
    let mut spec = dual("x", &["2001:db8:1::/64"]);
    spec.ipam.subnets[0].gateway = Some([10, 0, 0, 1].into());
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(11), spec });
    assert_eq!(text, "invalid gateway: it lies outside of subnet \"2001:db8:1::/64\"");

    // A cut steps over what users named in the cluster's own prefix.
    cell.run(Body::CreateNetwork { id: NetworkId(11), spec: dual("x", &["fd00:0:7:1::/64"]) }).expect("free");
    cell.run(Body::CreateNetwork { id: NetworkId(12), spec: dual("y", &[]) }).expect("free");
    assert_eq!(subnets(&cell, NetworkId(12))[1], "fd00:0:7:2::/64");
}

#[test]
fn a_reserved_address_may_not_be_a_gateway_of_the_mesh() {
    let mut cell = Cell::new();
    cell.run(Body::RemoveNetwork { id: INGRESS }).expect("unused");
    let mut spec = NetworkSpec { ingress: true, ..dual("mesh", &["2001:db8::/64"]) };
    spec.ipam.subnets[0].aux_addresses.insert("a".into(), "2001:db8::fffe".parse().expect("an address"));
    let text = cell.refused(Body::CreateNetwork { id: NetworkId(9), spec });
    assert_eq!(text, "invalid aux-address: 2001:db8::fffe is a gateway of the network itself");
}

#[test]
fn an_explained_allocation_is_not_a_change_the_second_time() {
    let mut cell = Cell::new();
    cell.run(Body::CreateNetwork { id: NetworkId(11), spec: with_subnet("small", "192.168.7.0/30") }).expect("free");
    let service = cell.service(51, spec_on("one", &["small"]));
    let task = cell.pending(200, service, 1);
    let version = cell.task(task).meta.version;
    cell.reconcile(vec![Change::AllocateTask { task }]);
    assert_eq!(cell.task(task).meta.version, version);
    assert!(cell.changed.is_empty());
}

#[test]
fn a_thousand_create_and_remove_cycles_leak_no_address() {
    let mut cell = Cell::new();
    let node = cell.worker(2);
    let web = cell.network(10, "web");
    let service = cell.service(50, spec_on("api", &["web"]));
    let before = cell.state.addresses(web).count();
    for n in 0..1_000 {
        let task = cell.assigned(1_000 + n, service, 1, node);
        cell.report(task, TaskState::Running, false);
        cell.desire(task, DesiredState::Remove);
        cell.report(task, TaskState::Shutdown, true);
        cell.reconcile(vec![Change::RemoveTask { task }]);
    }
    assert_eq!(cell.state.addresses(web).count(), before);
    assert_eq!(cell.state.network(web).expect("it exists").blocks.len(), 1);
    assert_eq!(cell.state.task_count(), 0);
}

#[test]
fn a_task_that_publishes_gets_an_ingress_address_and_one_on_the_host_network_none() {
    let mut cell = Cell::new();
    let mut web = spec("web");
    web.endpoint.ports = vec![port(80, 8080)];
    let service = cell.service(50, web);
    let task = cell.pending(100, service, 1);
    assert_eq!(cell.task(task).ingress.to_string(), "10.0.0.3, fd00:0:7::3");
    assert!(cell.state.service(service).expect("it exists").vips.is_empty());

    let service = cell.service(51, spec_on("agent", &["host"]));
    let task = cell.pending(101, service, 1);
    assert_eq!((cell.task(task).attachments.len(), cell.task(task).ingress.is_empty()), (0, true));
    assert_eq!(cell.task(task).status.state, TaskState::Pending);
}

#[test]
fn the_ingress_network_goes_and_comes_when_nothing_is_published() {
    let mut cell = Cell::new();
    let mut web = spec("web");
    web.endpoint.ports = vec![port(80, 8080)];
    let service = cell.service(50, web.clone());
    let text = cell.refused(Body::RemoveNetwork { id: INGRESS });
    assert!(text.contains("service \"web\", which publishes ports through it"), "{text}");
    cell.run(Body::RemoveService { id: service }).expect("it exists");
    cell.reconcile(vec![Change::ForgetService { service }]);
    cell.run(Body::RemoveNetwork { id: INGRESS }).expect("unused");
    assert!(cell.state.nodes().all(|node| node.ingress.is_empty()));

    let service = cell.service(51, web);
    let task = cell.pending(100, service, 1);
    assert!(cell.task(task).status.error.starts_with("there is no ingress network"));
    let spec = NetworkSpec { name: "mesh".into(), ingress: true, ..NetworkSpec::default() };
    cell.run(Body::CreateNetwork { id: NetworkId(9), spec }).expect("there is none");
    assert!(cell.state.nodes().all(|node| node.ingress.iter().count() == 2));
    cell.reconcile(vec![Change::AllocateTask { task: TaskId(100) }]);
    assert_eq!(cell.task(task).ingress.iter().count(), 2);
}

#[test]
fn nobody_joins_the_ingress_network_or_publishes_a_mesh_port_on_the_host() {
    let mut cell = Cell::new();
    let text = cell.create(50, spec_on("web", &["ingress"])).expect_err("refused").to_string();
    assert!(text.contains("joined by publishing a port"), "{text}");
    let mut host = spec_on("web", &["host"]);
    host.endpoint.ports = vec![port(80, 80)];
    let text = cell.create(50, host).expect_err("refused").to_string();
    assert!(text.contains("mode=host"), "{text}");
    let text = cell.create(50, spec_on("web", &["nowhere"])).expect_err("refused").to_string();
    assert_eq!(text, "network \"nowhere\" not found");
}
