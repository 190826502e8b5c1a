use rswarm_api::{Wire, pb};
use rswarm_types::network::Network;

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
    let ports = vec![pb::PortConfig { protocol: 0, target: 80, published: 8080, mode: 0 }];
    let spec = pb::ServiceSpec {
        name: "web".into(),
        task: Some(task),
        mode: Some(pb::ServiceMode { mode: Some(pb::service_mode::Mode::Replicated(pb::Replicated { replicas: 3 })) }),
        endpoint: Some(pb::EndpointSpec { mode: 0, ports: ports.clone() }),
        ..Default::default()
    };
    let service = pb::Service {
        id: id(1),
        meta: Some(pb::Meta { version: 12, created_at: 1_000, updated_at: 2_500 }),
        spec: Some(spec),
        ports,
        vips: vec![pb::VirtualIp { network: id(9), address: u32::from_be_bytes([10, 0, 0, 2]) }],
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
        blocks: vec![pb::SubnetBlock {
            subnet: "10.0.0.0/24".into(),
            gateway: u32::from_be_bytes([10, 0, 0, 1]),
            range: "10.0.0.0/24".into(),
        }],
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
