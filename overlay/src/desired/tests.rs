//! What follows from assignments, as data.

use std::collections::{BTreeMap, BTreeSet};

use rswarm_types::spec::{Protocol, PublishMode};

use super::*;
use crate::fixture::{Cluster, both, tcp};
use crate::model::ruleset::{Family, TableName, Value};
use crate::model::{LinkKind, Mac, Namespace};

fn nodes() -> [IpAddr; 3] {
    [[10, 99, 0, 1].into(), [10, 99, 0, 2].into(), [10, 99, 0, 3].into()]
}

/// Facts of a node that has given gateway addresses 172.18.0.2 and up, and holds all ports.
fn facts(cluster: &Cluster, node: usize) -> HostFacts {
    let mut facts = HostFacts::new(nodes()[node], crate::gateway::example());
    for (index, task) in cluster.local(node).into_iter().enumerate() {
        facts.gateway_addresses.insert(task, [172, 18, 0, 2 + index as u8].into());
        facts.dns.insert(task, DnsPorts { udp: 5, tcp: 6 });
    }
    let held = |port| PublishedPort { protocol: Protocol::Tcp, port, address: None };
    facts.held = (1..=u16::MAX).map(held).collect();
    facts
}

fn wanted(cluster: &Cluster, node: usize) -> Desired {
    desired(&cluster.assignments(node), &facts(cluster, node), &cluster.local(node))
}

fn elements(namespace: &Namespace, family: Family, table: &str, set: &str) -> Vec<(Vec<u8>, Value)> {
    let table = &namespace.tables[&TableName::new(family, table)];
    table.sets[set].elements.clone().into_iter().collect()
}

fn goes_to(chain: &str) -> Value {
    Value::GoTo(chain.into())
}

/// web: two tasks, on nodes 0 and 1, on one network, 8080 → 80.
fn web() -> (Cluster, NetworkId, [TaskId; 2]) {
    let mut cluster = Cluster::new(&nodes());
    let network = cluster.network("back");
    let web = cluster.service("web", &[network], &[tcp(PublishMode::Ingress, 8080, 80)]);
    let tasks = [cluster.task(web, 0), cluster.task(web, 1)];
    (cluster, network, tasks)
}

#[test]
fn a_sandbox_has_an_interface_per_network_and_the_gateway_last() {
    let (cluster, network, [task, _]) = web();
    let desired = wanted(&cluster, 0);
    assert_eq!(desired.failures, []);
    let sandbox = &desired.world.namespaces[&NamespaceKey::Sandbox(task)];
    let names: Vec<_> = sandbox.links.keys().map(String::as_str).collect();
    assert_eq!(names, ["eth0", "eth1", "lo"]);
    assert_eq!(sandbox.links["eth0"].mac, Some(Mac([2, 0x42, 10, 1, 1, 10])));
    assert_eq!(sandbox.links["eth0"].mtu, 1450);
    let addresses: Vec<_> = sandbox.addresses.iter().map(|(d, a)| format!("{d} {a}")).collect();
    let expected = ["eth0 10.1.1.10/24", "eth0 fd00:a:1:1::a/64", "eth1 172.18.0.2/16", "eth1 fd18::ac12:2/64"];
    assert_eq!(addresses, expected);
    let routes: Vec<_> = sandbox.routes.iter().map(|r| format!("{} {}", r.to, r.via.unwrap())).collect();
    assert_eq!(routes, ["0.0.0.0/0 172.18.0.1", "::/0 fd18::1"]);
    assert_eq!(sandbox.links["eth1"].kind, LinkKind::Macvlan);
    let outer = &desired.veths[&(NamespaceKey::Sandbox(task), "eth0".to_owned())];
    assert_eq!(*outer, (NamespaceKey::Network(network), names::network_veth(task)));
}

#[test]
fn only_remote_endpoints_are_forwarded_to() {
    let (cluster, network, _) = web();
    let namespace = &wanted(&cluster, 0).world.namespaces[&NamespaceKey::Network(network)];
    let to: Vec<_> = namespace.forwarding.iter().map(|((_, mac), to)| (*mac, *to)).collect();
    assert_eq!(to, [(Mac([2, 0x42, 10, 1, 1, 11]), nodes()[1])]);
    let neighbours: Vec<_> = namespace.neighbours.keys().map(|(_, address)| *address).collect();
    assert_eq!(neighbours, both([10, 1, 1, 11]).iter().collect::<Vec<_>>());
}

#[test]
fn a_virtual_address_has_the_ready_tasks_of_nodes_that_are_up() {
    let (mut cluster, _, [first, second]) = web();
    let classes = |cluster: &Cluster| {
        let sandbox = &wanted(cluster, 0).world.namespaces[&NamespaceKey::Sandbox(first)];
        elements(sandbox, Family::Inet, "rswarm_lb", "vips4")
    };
    let vip = vec![10, 1, 1, 200];
    assert_eq!(classes(&cluster), [(vip.clone(), goes_to("n2v4"))]);
    cluster.set_state(second, EndpointState::Draining);
    assert_eq!(classes(&cluster), [(vip.clone(), goes_to("n1v4"))]);
    cluster.set_state(second, EndpointState::Ready);
    cluster.peers[1].is_up = false;
    assert_eq!(classes(&cluster), [(vip.clone(), goes_to("n1v4"))]);
    cluster.set_state(first, EndpointState::Starting);
    assert_eq!(classes(&cluster), [(vip, goes_to("n0v4"))]);
}

#[test]
fn connections_of_a_draining_task_live_until_it_is_gone_or_its_node_is() {
    let (mut cluster, _, [first, second]) = web();
    let backends =
        |cluster: &Cluster| wanted(cluster, 0).world.namespaces[&NamespaceKey::Sandbox(first)].backends.clone();
    let remote: IpAddr = [10, 1, 1, 11].into();
    cluster.set_state(second, EndpointState::Draining);
    assert!(backends(&cluster).contains(&remote));
    cluster.peers[1].is_up = false;
    assert!(!backends(&cluster).contains(&remote));
    cluster.peers[1].is_up = true;
    cluster.set_state(second, EndpointState::Dead);
    assert!(!backends(&cluster).contains(&remote));
}

#[test]
fn a_published_port_goes_to_the_gateway_here_and_to_ingress_addresses_elsewhere() {
    let (cluster, _, _) = web();
    let backends = |node: usize| -> BTreeSet<Vec<u8>> {
        let host = wanted(&cluster, node).world.host().clone();
        let values = elements(&host, Family::Inet, "rswarm", "be4").into_iter().map(|(_, v)| v);
        values.map(|v| if let Value::Bytes(bytes) = v { bytes } else { vec![] }).collect()
    };
    let (here, there) = (vec![172, 18, 0, 2, 0, 80, 0, 0], vec![10, 0, 0, 101, 0, 80, 0, 0]);
    assert_eq!(backends(0), BTreeSet::from([here.clone(), there.clone()]));
    assert_eq!(backends(1), BTreeSet::from([here, vec![10, 0, 0, 100, 0, 80, 0, 0]]));
    // A node without a task answers too.
    assert_eq!(backends(2), BTreeSet::from([vec![10, 0, 0, 100, 0, 80, 0, 0], there]));
}

#[test]
fn a_port_that_netd_does_not_hold_is_not_translated() {
    let (cluster, _, _) = web();
    let mut facts = facts(&cluster, 2);
    facts.held.clear();
    let desired = desired(&cluster.assignments(2), &facts, &BTreeSet::new());
    assert_eq!(elements(desired.world.host(), Family::Inet, "rswarm", "pub4"), []);
}

#[test]
fn a_host_mode_port_is_translated_on_the_tasks_node_only() {
    let mut cluster = Cluster::new(&nodes());
    let port = tcp(PublishMode::Host, 0, 80);
    let service = cluster.service("web", &[], &[port]);
    let task = cluster.task(service, 0);
    let mut facts = facts(&cluster, 0);
    facts.host_ports = BTreeMap::from([((task, port), 30_007)]);
    let here = desired(&cluster.assignments(0), &facts, &cluster.local(0));
    let key = vec![6, 0, 0, 0, 0x75, 0x37, 0, 0];
    let published = elements(here.world.host(), Family::Inet, "rswarm", "pub4");
    assert_eq!(published, [(key, goes_to("npub1v4"))]);
    assert_eq!(elements(wanted(&cluster, 1).world.host(), Family::Inet, "rswarm", "pub4"), []);
}

#[test]
fn vxlan_frames_are_taken_from_all_nodes_and_this_one_only() {
    let (cluster, _, _) = web();
    let nodes = elements(wanted(&cluster, 0).world.host(), Family::Inet, "rswarm", "vteps4");
    let last: Vec<_> = nodes.iter().map(|(key, _)| key[3]).collect();
    assert_eq!(last, [1, 2, 3]);
}

#[test]
fn an_internal_task_without_ports_has_no_way_out_and_with_ports_may_only_answer() {
    let (mut cluster, network, [task, _]) = web();
    cluster.networks[1].internal = true;
    let desired_with = wanted(&cluster, 0);
    let internal = elements(desired_with.world.host(), Family::Inet, "rswarm", "internal4");
    assert_eq!(internal, [(vec![172, 18, 0, 2], Value::None)]);
    cluster.tasks[0].task.ports.clear();
    let desired = wanted(&cluster, 0);
    let sandbox = &desired.world.namespaces[&NamespaceKey::Sandbox(task)];
    assert!(!sandbox.links.contains_key("eth1"));
    assert!(sandbox.routes.is_empty());
    assert!(desired.world.namespaces.contains_key(&NamespaceKey::Network(network)));
}

#[test]
fn another_block_of_the_network_is_reached_on_link() {
    let (mut cluster, _, [task, _]) = web();
    let mut second = cluster.networks[1].blocks[0];
    second.subnet = "10.1.77.0/24".parse().unwrap();
    cluster.networks[1].blocks.push(second);
    let sandbox = &wanted(&cluster, 0).world.namespaces[&NamespaceKey::Sandbox(task)];
    let on_link = sandbox.routes.iter().find(|r| r.to == second.subnet).unwrap();
    assert_eq!((on_link.via, on_link.device.as_str()), (None, "eth0"));
}

#[test]
fn what_cannot_be_made_is_named_and_the_rest_is_made() {
    let (mut cluster, network, [task, _]) = web();
    cluster.networks[1].vni = 1 << 24;
    let bad = wanted(&cluster, 0);
    assert_eq!(
        bad.failures,
        [(Subject::Network(network), "the VNI is 16777216: allowed are 1 to 16777215".to_owned())]
    );
    assert!(bad.untouched.contains(&NamespaceKey::Sandbox(task)));
    cluster.networks[1].vni = 4097;
    cluster.tasks[0].task.attachments[0].addresses = IpAddr::from([9, 9, 9, 9]).into();
    let bad = wanted(&cluster, 0);
    let reason = "9.9.9.9 is in no subnet of network back".to_owned();
    assert_eq!(bad.failures, [(Subject::Task(task), reason)]);
    let mut facts = facts(&cluster, 1);
    facts.gateway_addresses.clear();
    let full = desired(&cluster.assignments(1), &facts, &cluster.local(1));
    let reason = "no address is free on the gateway (172.18.0.0/16)".to_owned();
    assert_eq!(full.failures, [(Subject::Task(cluster.tasks[1].task.id), reason)]);
}

#[test]
fn tasks_on_the_hosts_network_or_on_none_get_no_interfaces() {
    use rswarm_types::spec::NetworkAttachment;
    let (mut cluster, _, [task, _]) = web();
    let mut with = |target: &str| {
        let task = &mut cluster.tasks[0].task;
        task.attachments.clear();
        let target = NetworkAttachment { target: target.into(), ..NetworkAttachment::default() };
        std::sync::Arc::make_mut(&mut task.spec).task.networks = vec![target];
        wanted(&cluster, 0)
    };
    let alone = with("none");
    let sandbox = &alone.world.namespaces[&NamespaceKey::Sandbox(task)];
    assert_eq!(sandbox.links.keys().collect::<Vec<_>>(), ["lo"]);
    assert!(sandbox.tables.is_empty());
    let host = with("host");
    let reason = "a task on the host's network has no sandbox".to_owned();
    assert_eq!(host.failures, [(Subject::Task(task), reason)]);
}

#[test]
fn tasks_of_the_same_networks_share_their_virtual_addresses() {
    let (mut cluster, _, [first, _]) = web();
    let second = cluster.task(cluster.services[0].id, 0);
    let desired = wanted(&cluster, 0);
    let table = |task| {
        let name = names::balancer_table();
        desired.world.namespaces[&NamespaceKey::Sandbox(task)].tables[&name].clone()
    };
    assert!(std::sync::Arc::ptr_eq(&table(first), &table(second)));
}

#[test]
fn a_service_that_prefers_local_tasks_leads_elsewhere_only_without_one() {
    let (mut cluster, _, [first, _]) = web();
    cluster.services[0].balance.prefers_local = true;
    let backends = |cluster: &Cluster, node: usize| {
        let world = wanted(cluster, node).world;
        let published = rules::published_in(&world.host().tables[&names::host_table()]);
        let address =
            |backends: Vec<rules::Backend>| backends.iter().map(|b| b.address.to_string()).collect::<Vec<_>>();
        published.into_iter().filter(|((_, v), _)| *v == Version::V4).flat_map(|(_, b)| address(b)).collect::<Vec<_>>()
    };
    assert_eq!(backends(&cluster, 0), ["172.18.0.2"]);
    assert_eq!(backends(&cluster, 2), ["10.0.0.100", "10.0.0.101"]);
    let sandbox = &wanted(&cluster, 0).world.namespaces[&NamespaceKey::Sandbox(first)];
    let balanced = rules::balanced_in(&sandbox.tables[&names::balancer_table()]);
    assert_eq!(balanced[&IpAddr::from([10, 1, 1, 200])], [IpAddr::from([10, 1, 1, 10])]);
    cluster.set_state(first, EndpointState::Draining);
    assert_eq!(backends(&cluster, 0), ["10.0.0.101"]);
}

#[test]
fn a_client_is_led_to_the_same_slot_by_every_node() {
    let (mut cluster, ..) = web();
    cluster.services[0].balance.by_client = true;
    let ends = |node: usize| {
        let mut facts = facts(&cluster, node);
        // Whatever was there before has no say.
        let port = PublishedPort { protocol: Protocol::Tcp, port: 8080, address: None };
        let backend = |address: [u8; 4]| rules::Backend { address: address.into(), port: 80 };
        let before = vec![backend([10, 0, 0, 101]), backend([10, 0, 0, 100])];
        facts.slots.published.insert((port, Version::V4), before);
        let desired = desired(&cluster.assignments(node), &facts, &cluster.local(node));
        let table = &desired.world.host().tables[&names::host_table()];
        let slots = rules::published_in(table)[&(port, Version::V4)].clone();
        assert!(table.chains.contains_key("hpub2v4"), "{:?}", table.chains.keys());
        slots.iter().map(|b| b.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ends(0), ["172.18.0.2", "10.0.0.101"]);
    assert_eq!(ends(1), ["10.0.0.100", "172.18.0.2"]);
    assert_eq!(ends(2), ["10.0.0.100", "10.0.0.101"]);
}

#[test]
fn a_port_of_one_address_is_translated_there_only() {
    let mut cluster = Cluster::new(&nodes());
    let at: IpAddr = "fd99::1".parse().unwrap();
    let port = PortConfig { address: Some(at), ..tcp(PublishMode::Ingress, 8080, 80) };
    let service = cluster.service("web", &[], &[port]);
    cluster.task(service, 0);
    let mut facts = facts(&cluster, 0);
    facts.held = BTreeSet::from([PublishedPort::of(&port)]);
    let desired = desired(&cluster.assignments(0), &facts, &cluster.local(0));
    let published = rules::published_in(&desired.world.host().tables[&names::host_table()]);
    let backend = rules::Backend { address: "fd18::ac12:2".parse().unwrap(), port: 80 };
    assert_eq!(published, BTreeMap::from([((PublishedPort::of(&port), Version::V6), vec![backend])]));
}

#[test]
fn a_container_is_believed_its_own_addresses_only() {
    let (cluster, network, [task, _]) = web();
    let desired = wanted(&cluster, 0);
    let mac = [2, 0x42, 172, 18, 0, 2, 0, 0];
    let senders = elements(desired.world.host(), Family::Inet, "rswarm", "senders4");
    assert_eq!(senders, [([&mac[..], &[172, 18, 0, 2]].concat(), Value::None)]);
    let namespace = &desired.world.namespaces[&NamespaceKey::Network(network)];
    for (set, address) in
        [("senders4", vec![10, 1, 1, 10]), ("senders6", both([10, 1, 1, 10]).v6.unwrap().octets().into())]
    {
        let senders = elements(namespace, Family::Bridge, "rswarm", set);
        let mut port = names::network_veth(task).into_bytes();
        port.resize(16, 0);
        let mac = [2, 0x42, 10, 1, 1, 10, 0, 0];
        assert_eq!(senders, [([port, mac.to_vec(), address].concat(), Value::None)]);
    }
}

#[test]
fn a_host_without_ipv6_gives_its_containers_none_from_outside() {
    let (cluster, _, [task, _]) = web();
    let mut facts = facts(&cluster, 0);
    facts.gateway.v6 = None;
    let desired = desired(&cluster.assignments(0), &facts, &cluster.local(0));
    let host = desired.world.host();
    assert!(host.routes.iter().all(|r| r.to.addr().is_ipv4()) && host.rules.len() == 1);
    assert!(!host.sysctls.contains_key("net/ipv6/conf/all/forwarding"));
    let sandbox = &desired.world.namespaces[&NamespaceKey::Sandbox(task)];
    let v6: Vec<_> = sandbox.addresses.iter().filter(|(_, net)| net.addr().is_ipv6()).collect();
    assert_eq!(v6, [&("eth0".to_owned(), "fd00:a:1:1::a/64".parse().unwrap())]);
}

#[test]
fn a_data_path_over_ipv6_leaves_less_room_and_carries_no_frames_of_others() {
    let mut cluster = Cluster::new(&["fd99::1".parse().unwrap(), "fd99::2".parse().unwrap(), [10, 99, 0, 3].into()]);
    let network = cluster.network("back");
    let web = cluster.service("web", &[network], &[]);
    let task = cluster.task(web, 0);
    cluster.task(web, 1);
    cluster.task(web, 2);
    let mut facts = facts(&cluster, 0);
    facts.data_path = cluster.peers[0].address;
    let desired = desired(&cluster.assignments(0), &facts, &cluster.local(0));
    let sandbox = &desired.world.namespaces[&NamespaceKey::Sandbox(task)];
    assert_eq!(sandbox.links["eth0"].mtu, 1430);
    let namespace = &desired.world.namespaces[&NamespaceKey::Network(network)];
    assert_eq!(namespace.forwarding.values().collect::<Vec<_>>(), [&cluster.peers[1].address]);
    assert_eq!(desired.failures.len(), 1);
    assert!(desired.failures[0].1.contains("over IPv4 or over IPv6, not both"), "{:?}", desired.failures);
    facts.path_mtu = 9_000;
    let wide = super::desired(&cluster.assignments(0), &facts, &cluster.local(0));
    assert_eq!(wide.world.namespaces[&NamespaceKey::Sandbox(task)].links["eth0"].mtu, 1450);
}

#[test]
fn a_host_that_listens_to_routers_goes_on_when_it_forwards() {
    let (cluster, ..) = web();
    let mut facts = facts(&cluster, 0);
    facts.advertised = BTreeSet::from(["zlan0".to_owned()]);
    let want = desired(&cluster.assignments(0), &facts, &cluster.local(0));
    let ops = crate::diff::diff(&want, &World::default());
    let at = |setting: &str| {
        let is_it = |op: &crate::model::Op| matches!(&op.change, crate::model::Change::SetSysctl { name, .. } if name == setting);
        ops.iter().position(is_it).unwrap()
    };
    assert!(at("net/ipv6/conf/zlan0/accept_ra") < at("net/ipv6/conf/all/forwarding"));
}
