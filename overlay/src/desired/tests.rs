//! What follows from assignments, as data.

use std::collections::{BTreeMap, BTreeSet};

use rswarm_types::spec::{Protocol, PublishMode};

use super::*;
use crate::fixture::{Cluster, tcp};
use crate::model::ruleset::{Family, TableName, Value};
use crate::model::{Mac, Namespace};

fn nodes() -> [Ipv4Addr; 3] {
    [[10, 99, 0, 1].into(), [10, 99, 0, 2].into(), [10, 99, 0, 3].into()]
}

/// Facts of a node that has given gateway addresses 172.18.0.2 and up, and holds all ports.
fn facts(cluster: &Cluster, node: usize) -> HostFacts {
    let mut facts = HostFacts::new(nodes()[node], "172.18.0.1/16".parse().unwrap());
    for (index, task) in cluster.local(node).into_iter().enumerate() {
        facts.gateway_addresses.insert(task, [172, 18, 0, 2 + index as u8].into());
        facts.dns.insert(task, DnsPorts { udp: 5, tcp: 6 });
    }
    facts.held = (1..=u16::MAX).map(|p| (Protocol::Tcp, p)).collect();
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
    assert_eq!(addresses, ["eth0 10.1.1.10/24", "eth1 172.18.0.2/16"]);
    let routes: Vec<_> = sandbox.routes.iter().map(|r| (r.to.to_string(), r.via)).collect();
    assert_eq!(routes, [("0.0.0.0/0".to_owned(), Some([172, 18, 0, 1].into()))]);
    let outer = |device: &str| &desired.veths[&(task, device.to_owned())].0;
    assert_eq!(*outer("eth0"), NamespaceKey::Network(network));
    assert_eq!(*outer("eth1"), NamespaceKey::Host);
}

#[test]
fn only_remote_endpoints_are_forwarded_to() {
    let (cluster, network, _) = web();
    let namespace = &wanted(&cluster, 0).world.namespaces[&NamespaceKey::Network(network)];
    let to: Vec<_> = namespace.forwarding.iter().map(|((_, mac), to)| (*mac, *to)).collect();
    assert_eq!(to, [(Mac([2, 0x42, 10, 1, 1, 11]), nodes()[1])]);
    assert_eq!(namespace.neighbours.len(), 1);
}

#[test]
fn a_virtual_address_has_the_ready_tasks_of_nodes_that_are_up() {
    let (mut cluster, _, [first, second]) = web();
    let classes = |cluster: &Cluster| {
        let sandbox = &wanted(cluster, 0).world.namespaces[&NamespaceKey::Sandbox(first)];
        elements(sandbox, Family::Ip, "rswarm_lb", "vips")
    };
    let vip = vec![10, 1, 1, 200];
    assert_eq!(classes(&cluster), [(vip.clone(), goes_to("n2"))]);
    cluster.set_state(second, EndpointState::Draining);
    assert_eq!(classes(&cluster), [(vip.clone(), goes_to("n1"))]);
    cluster.set_state(second, EndpointState::Ready);
    cluster.peers[1].is_up = false;
    assert_eq!(classes(&cluster), [(vip.clone(), goes_to("n1"))]);
    cluster.set_state(first, EndpointState::Starting);
    assert_eq!(classes(&cluster), [(vip, goes_to("n0"))]);
}

#[test]
fn connections_of_a_draining_task_live_until_it_is_gone_or_its_node_is() {
    let (mut cluster, _, [first, second]) = web();
    let backends =
        |cluster: &Cluster| wanted(cluster, 0).world.namespaces[&NamespaceKey::Sandbox(first)].backends.clone();
    let remote: Ipv4Addr = [10, 1, 1, 11].into();
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
    assert_eq!(published, [(key, goes_to("n1"))]);
    assert_eq!(elements(wanted(&cluster, 1).world.host(), Family::Inet, "rswarm", "pub4"), []);
}

#[test]
fn vxlan_frames_are_taken_from_all_nodes_and_this_one_only() {
    let (cluster, _, _) = web();
    let nodes = elements(wanted(&cluster, 0).world.host(), Family::Inet, "rswarm", "nodes");
    let last: Vec<_> = nodes.iter().map(|(key, _)| key[3]).collect();
    assert_eq!(last, [1, 2, 3]);
}

#[test]
fn an_internal_task_without_ports_has_no_way_out_and_with_ports_may_only_answer() {
    let (mut cluster, network, [task, _]) = web();
    cluster.networks[1].internal = true;
    let desired_with = wanted(&cluster, 0);
    let internal = elements(desired_with.world.host(), Family::Inet, "rswarm", "internal");
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
    cluster.tasks[0].task.attachments[0].address = [9, 9, 9, 9].into();
    let bad = wanted(&cluster, 0);
    let reason = "9.9.9.9 is in no subnet of network back".to_owned();
    assert_eq!(bad.failures, [(Subject::Task(task), reason)]);
    let mut facts = facts(&cluster, 1);
    facts.gateway_addresses.clear();
    let full = desired(&cluster.assignments(1), &facts, &cluster.local(1));
    let reason = "no address is free on the gateway bridge (172.18.0.0/16)".to_owned();
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
