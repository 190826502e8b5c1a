use std::net::Ipv6Addr;

use rswarm_api::{Wire, pb};
use rswarm_types::network::{Addresses, Network};
use rswarm_types::service::VirtualIp;
use rswarm_types::spec::{Balance, SubnetSpec};
use rswarm_types::task::Task;

use super::*;
use crate::trust::Trust;
use crate::view::{NodeView, ServiceView};

fn id(number: u8) -> bytes::Bytes {
    let mut id = [0; 16];
    id[15] = number;
    bytes::Bytes::copy_from_slice(&id)
}

fn golden_service() -> ServiceView {
    let task = pb::TaskSpec {
        container: Some(pb::ContainerSpec {
            image: "nginx:1.27@sha256:abc".into(),
            env: vec!["A=1".into()],
            privileges: Some(Default::default()),
            dns: Some(Default::default()),
            cap_add: vec!["NET_RAW".into()],
            ..Default::default()
        }),
        resources: Some(pb::Resources { limit_memory: 64 << 20, ..Default::default() }),
        restart: Some(pb::RestartPolicy { condition: 2, delay: 5_000_000_000, ..Default::default() }),
        placement: Some(pb::Placement { constraints: vec!["node.role==worker".into()], ..Default::default() }),
        ..Default::default()
    };
    let ports = vec![pb::PortConfig { target: 80, published: 8080, ..Default::default() }];
    let spec = pb::ServiceSpec {
        name: "web".into(),
        task: Some(task),
        mode: Some(pb::ServiceMode { mode: Some(pb::service_mode::Mode::Replicated(pb::Replicated { replicas: 3 })) }),
        endpoint: Some(pb::EndpointSpec { ports: ports.clone(), ..Default::default() }),
        ..Default::default()
    };
    let service = pb::Service {
        id: id(1),
        meta: Some(pb::Meta { version: 12, created_at: 1_000, updated_at: 2_500 }),
        spec: Some(spec),
        ports,
        vips: vec![VirtualIp { network: ingress().id, addresses: both(2) }.to_pb()],
        update: Some(pb::UpdateStatus {
            state: 1,
            message: "task web.1 failed".into(),
            started_at: 2_000,
            ..Default::default()
        }),
        ..Default::default()
    };
    ServiceView::read(pb::ServiceView { service: Some(service), running: 2, desired: 3, completed: 0 }).unwrap()
}

/// Addresses of the ingress network.
fn both(last: u8) -> Addresses {
    let six = Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, last.into());
    Addresses { v4: Some([10, 0, 0, last].into()), v6: Some(six) }
}

fn ingress() -> Network {
    Wire::from_pb(pb::Network {
        id: id(9),
        meta: Some(pb::Meta { version: 1, created_at: 1_000, updated_at: 1_000 }),
        spec: Some(pb::NetworkSpec {
            name: "ingress".into(),
            ipam: Some(Default::default()),
            ingress: true,
            ..Default::default()
        }),
        vni: 4096,
        blocks: vec![
            pb::SubnetBlock { subnet: "10.0.0.0/24".into(), gateway: "10.0.0.1".into(), range: "10.0.0.0/24".into() },
            pb::SubnetBlock { subnet: "fd00:7::/64".into(), gateway: "fd00:7::1".into(), range: "fd00:7::/112".into() },
        ],
        removing: false,
    })
    .unwrap()
}

#[test]
fn a_service_has_dockers_shape_and_defaults() {
    let networks = [(ingress().id, ingress())].into();
    let shown = service(&golden_service().service, &networks).pretty();
    assert_eq!(shown, include_str!("../../tests/golden/service.json").trim_end());
}

#[test]
fn a_template_may_ask_for_what_a_service_lacks() {
    let mut view = golden_service();
    view.service.update = None;
    let json = service(&view.service, &Networks::new());
    assert!(json.to_template() != gtmpl_ng::Value::Nil);
    let text = crate::inspect::text(vec![json], Some("{{if .UpdateStatus}}x{{end}}{{.Spec.Name}}"));
    assert_eq!(text.unwrap(), "web\n");
}

#[test]
fn a_node_has_dockers_shape() {
    let node = pb::Node {
        id: id(2),
        meta: Some(pb::Meta { version: 3, created_at: 1_000, updated_at: 1_000 }),
        spec: Some(pb::NodeSpec { role: 1, ..Default::default() }),
        description: Some(pb::NodeDescription {
            hostname: "m1".into(),
            platform: Some(pb::Platform { os: "linux".into(), architecture: "amd64".into() }),
            cpus: 2_000_000_000,
            memory: 4 << 30,
            engine_version: "0.1.0".into(),
            control_address: Some("10.0.0.1:2377".into()),
            ..Default::default()
        }),
        status: Some(pb::NodeStatus { state: 2, address: Some("10.0.0.1".into()), ..Default::default() }),
        membership: Some(pb::Membership { role: 1, member: 7, is_voter: true, raft_lost: false }),
        number: 1,
        key_hash: vec![0; 32].into(),
        ..Default::default()
    };
    let view = NodeView::read(pb::NodeView { node: Some(node), is_leader: true, is_reachable: true, is_self: true });
    let trust = Trust { root: "-----BEGIN…".into(), subject: "MBMx".into(), public_key: "MFkw".into() };
    let view = view.unwrap();
    let shown = super::node(&view, Some(&trust)).pretty();
    assert_eq!(shown, include_str!("../../tests/golden/node.json").trim_end());
}

#[test]
fn a_network_has_dockers_shape() {
    let shown = network(&ingress(), None).pretty();
    assert_eq!(shown, include_str!("../../tests/golden/network.json").trim_end());
}

#[test]
fn what_docker_has_no_field_for_has_one_beside_its_own() {
    let mut view = golden_service();
    let spec = std::sync::Arc::make_mut(&mut view.service.spec);
    spec.endpoint.balance = Balance { by_client: true, prefers_local: true };
    spec.endpoint.ports[0].address = Some([127, 0, 0, 1].into());
    let json = service(&view.service, &Networks::new());
    let text = |template| crate::inspect::text(vec![json.clone()], Some(template)).unwrap();
    assert_eq!(text("{{.Spec.EndpointSpec.Affinity}} {{.Spec.EndpointSpec.Prefer}}"), "client-ip local\n");
    assert_eq!(text("{{range .Spec.EndpointSpec.Ports}}{{.HostIP}}{{end}}"), "127.0.0.1\n");
    assert_eq!(
        text("{{range .Endpoint.VirtualIPs}}{{.Addr}} {{end}}"),
        "10.0.0.2 fd00:7::2 \n",
        "without the network's prefix lengths"
    );
}

#[test]
fn a_network_shows_what_is_reserved_in_it_and_who_is_on_it() {
    let mut network = ingress();
    let mut named = SubnetSpec::from(network.blocks[1].subnet);
    named.aux_addresses.insert("router".into(), Ipv6Addr::new(0xfd00, 7, 0, 0, 0, 0, 0, 9).into());
    network.spec.ipam.subnets = vec![named];
    let attached = super::Attached {
        name: "web".into(),
        vip: both(2),
        ports: vec!["[::1]:8080:80/tcp".into()],
        tasks: vec![(Task::default(), both(3), "10.99.0.1".into())],
    };
    let json = super::network(&network, Some(&[attached]));
    let text = |template| crate::inspect::text(vec![json.clone()], Some(template)).unwrap();
    assert_eq!(text("{{range .IPAM.Config}}{{with .AuxiliaryAddresses}}{{.router}}{{end}},{{end}}"), ",fd00:7::9,\n");
    assert_eq!(text("{{.Services.web.VIP}} {{.Services.web.VIPv6}}"), "10.0.0.2 fd00:7::2\n");
    assert_eq!(text("{{range .Services.web.Tasks}}{{.EndpointIP}} {{.EndpointIPv6}}{{end}}"), "10.0.0.3 fd00:7::3\n");
}
