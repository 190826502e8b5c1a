//! Services: names, ports, versions, rollback, stacks.

mod common;

use std::net::Ipv6Addr;
use std::sync::Arc;

use common::{Cell, port, spec, spec_on};
use rswarm_types::command::{Answer, Body, Change, NetworkSpecWithId, StackChange, StackOutcome, StackService};
use rswarm_types::service::{Service, UpdateState, UpdateStatus};
use rswarm_types::spec::{EndpointMode, NetworkSpec, PortConfig, Protocol, PublishMode, ServiceMode, ServiceSpec};
use rswarm_types::{NetworkId, Refusal, ServiceId};

fn get(cell: &Cell, id: ServiceId) -> Service {
    cell.state.service(id).expect("it exists").as_ref().clone()
}

fn publishing(name: &str, ports: &[PortConfig]) -> ServiceSpec {
    let mut spec = spec(name);
    spec.endpoint.ports = ports.to_vec();
    spec
}

#[test]
fn a_port_clash_names_the_service_and_what_to_do() {
    let mut cell = Cell::new();
    let web = cell.service(50, publishing("web", &[port(80, 8080)]));
    let text = cell.create(51, publishing("api", &[port(8000, 8080)])).expect_err("refused").to_string();
    assert_eq!(
        text,
        format!(
            "port 8080/tcp is already published by service \"web\" ({})\n       \
             publish another port, or remove it: rswarm service update --publish-rm 80 web",
            web.short()
        )
    );
}

#[test]
fn ingress_clashes_with_both_modes_and_host_only_with_ingress() {
    let host = PortConfig { mode: PublishMode::Host, ..port(80, 8080) };
    let local = PortConfig { address: Some([127, 0, 0, 1].into()), ..port(80, 8080) };
    for (first, second, accepted) in [
        (port(80, 8080), port(80, 8080), false),
        (port(80, 8080), host, false),
        (host, port(80, 8080), false),
        (host, host, true),
        (port(80, 8080), PortConfig { protocol: Protocol::Udp, ..port(80, 8080) }, true),
        (local, local, false),
        (local, port(80, 8080), false),
        (port(80, 8080), local, false),
        (local, PortConfig { address: Some([10, 0, 0, 1].into()), ..local }, true),
        (local, PortConfig { address: Some(Ipv6Addr::LOCALHOST.into()), ..local }, true),
        (local, PortConfig { mode: PublishMode::Host, ..local }, false),
        (local, PortConfig { protocol: Protocol::Sctp, ..local }, true),
    ] {
        let mut cell = Cell::new();
        cell.service(50, publishing("a", &[first]));
        assert_eq!(cell.create(51, publishing("b", &[second])).is_ok(), accepted, "{first:?} {second:?}");
    }
}

#[test]
fn ports_without_a_number_get_the_lowest_free_and_keep_it() {
    let mut cell = Cell::new();
    let a = cell.service(50, publishing("a", &[port(80, 0), port(81, 30_001)]));
    let b = cell.service(51, publishing("b", &[port(80, 0)]));
    let numbers = |service: Service| service.ports.iter().map(|p| p.published).collect::<Vec<_>>();
    assert_eq!(numbers(get(&cell, a)), [30_000, 30_001]);
    assert_eq!(numbers(get(&cell, b)), [30_002]);
    cell.run(Body::RemoveService { id: a }).expect("it exists");
    cell.update(b, |spec| spec.endpoint.ports.push(port(90, 0))).expect("accepted");
    assert_eq!(numbers(get(&cell, b)), [30_002, 30_000], "kept, and the lowest free for the new one");
}

#[test]
fn a_port_on_one_address_keeps_its_chosen_number_and_names_the_address_in_a_clash() {
    let mut cell = Cell::new();
    let local = PortConfig { address: Some([127, 0, 0, 1].into()), ..port(80, 0) };
    let a = cell.service(50, publishing("a", &[local]));
    let b = cell.service(51, publishing("b", &[port(80, 0), PortConfig { protocol: Protocol::Sctp, ..port(80, 0) }]));
    let numbers = |service: Service| service.ports.iter().map(|p| p.published).collect::<Vec<_>>();
    assert_eq!((numbers(get(&cell, a)), numbers(get(&cell, b))), (vec![30_000], vec![30_001, 30_000]));
    cell.update(a, |spec| spec.task.container.image = "nginx:2".into()).expect("accepted");
    assert_eq!(numbers(get(&cell, a)), [30_000]);
    let text = cell.create(52, publishing("c", &[PortConfig { published: 30_001, ..local }])).expect_err("refused");
    let expected = format!("port 30001/tcp on 127.0.0.1 is already published by service \"b\" ({})", b.short());
    assert!(text.to_string().starts_with(&expected), "{text}");

    let both = [127, 128].map(|n| PortConfig { address: Some([n, 0, 0, 1].into()), ..port(80, 9000) });
    cell.service(53, publishing("d", &both));
    let twice = publishing("e", &[port(80, 9001), PortConfig { published: 9001, ..local }]);
    let text = cell.create(54, twice).expect_err("refused").to_string();
    assert!(text.contains("port 9001/tcp is published twice"), "{text}");
}

#[test]
fn a_name_and_a_port_are_free_as_soon_as_the_service_is_removed() {
    let mut cell = Cell::new();
    let web = cell.service(50, publishing("web", &[port(80, 8080)]));
    let text = cell.create(51, spec("web")).expect_err("refused").to_string();
    assert_eq!(text, format!("service name \"web\" is already in use by service {}", web.short()));
    cell.run(Body::RemoveService { id: web }).expect("it exists");
    cell.service(51, publishing("web", &[port(80, 8080)]));
    assert_eq!(cell.state.find_service("web").map(|s| s.id), Ok(ServiceId(51)));
    let text = cell.refused(Body::RemoveService { id: web });
    assert_eq!(text, format!("service \"{web}\" not found"));
}

#[test]
fn a_stale_update_is_refused_with_both_versions() {
    let mut cell = Cell::new();
    let web = cell.service(50, spec("web"));
    let version = get(&cell, web).meta.version;
    cell.update(web, |spec| spec.mode = ServiceMode::Replicated { replicas: 3 }).expect("accepted");
    let body = Body::UpdateService { id: web, version, spec: Arc::new(spec("web")), auth: None, rollback: false };
    match cell.run(body) {
        Err(Refusal::Stale { at, from, .. }) => assert!(at > from && from == version),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_what_tasks_are_made_of_moves_the_spec_version() {
    type Edit = fn(&mut ServiceSpec);
    let cases: [(&str, Edit, bool); 9] = [
        ("balance", |s| s.endpoint.balance.by_client = true, false),
        ("labels", |s| drop(s.labels.insert("a".into(), "b".into())), false),
        ("replicas", |s| s.mode = ServiceMode::Replicated { replicas: 9 }, false),
        ("update config", |s| s.update = Some(Default::default()), false),
        ("constraints", |s| s.task.placement.constraints.push("node.role == worker".into()), false),
        ("image", |s| s.task.container.image = "nginx:2".into(), true),
        ("limits", |s| s.task.resources.limit_pids = 7, true),
        ("force", |s| s.task.force_update += 1, true),
        ("ports", |s| s.endpoint.ports.push(port(80, 8080)), true),
    ];
    for (what, edit, moves) in cases {
        let mut cell = Cell::new();
        let web = cell.service(50, spec("web"));
        cell.pending(100, web, 1);
        let before = get(&cell, web);
        cell.update(web, edit).expect("accepted");
        let after = get(&cell, web);
        assert!(after.meta.version > before.meta.version, "{what}");
        assert_eq!(after.spec_version > before.spec_version, moves, "{what}");
        assert_eq!(after.update.map(|u| u.state), moves.then_some(UpdateState::Updating), "{what}");
    }
}

#[test]
fn an_equal_spec_changes_nothing() {
    let mut cell = Cell::new();
    cell.network(10, "net");
    let web = cell.service(50, spec_on("web", &["net"]));
    let before = get(&cell, web);
    cell.update(web, |spec| spec.task.networks[0].target = "net".into()).expect("accepted");
    assert_eq!(get(&cell, web), before);
    assert!(cell.changed.is_empty());
}

#[test]
fn rollback_goes_one_level_back_and_says_when_there_is_none() {
    let mut cell = Cell::new();
    let web = cell.service(50, spec("web"));
    let text = cell.rollback(web).expect_err("refused").to_string();
    assert_eq!(text, "service \"web\" does not have a previous spec to roll back to");
    cell.pending(100, web, 1);
    cell.update(web, |spec| spec.task.container.image = "nginx:2".into()).expect("accepted");
    cell.rollback(web).expect("there is one");
    let service = get(&cell, web);
    assert_eq!(service.spec.task.container.image, "nginx:1.27");
    assert_eq!(service.update.map(|u| u.state), Some(UpdateState::RollbackStarted));
    cell.rollback(web).expect("it goes forth again");
    assert_eq!(get(&cell, web).spec.task.container.image, "nginx:2");
}

#[test]
fn names_and_modes_never_change() {
    let mut cell = Cell::new();
    let web = cell.service(50, spec("web"));
    let text = cell.update(web, |spec| spec.name = "www".into()).expect_err("refused").to_string();
    assert!(text.contains("can't be renamed"), "{text}");
    let text = cell.update(web, |spec| spec.mode = ServiceMode::Global).expect_err("refused").to_string();
    assert!(text.contains("can't change between replicated and global"), "{text}");
}

#[test]
fn vips_of_networks_that_stay_are_kept() {
    let mut cell = Cell::new();
    for (id, name) in [(10, "a"), (11, "b"), (12, "c")] {
        cell.network(id, name);
    }
    let web = cell.service(50, spec_on("web", &["a", "b"]));
    let before = get(&cell, web).vips;
    cell.update(web, |spec| spec.task.networks = spec_on("web", &["c", "b"]).task.networks).expect("accepted");
    let after = get(&cell, web).vips;
    assert_eq!(after[1], before[1]);
    assert_eq!(after[0].network, NetworkId(12));
    assert_eq!(cell.state.addresses(NetworkId(10)).count(), 1, "only the gateway is left");
    cell.update(web, |spec| spec.endpoint.mode = EndpointMode::DnsRr).expect("accepted");
    assert!(get(&cell, web).vips.is_empty());
}

#[test]
fn a_paused_update_goes_on_with_the_next_update_even_of_an_equal_spec() {
    let mut cell = Cell::new();
    let web = cell.service(50, spec("web"));
    cell.pending(100, web, 1);
    cell.update(web, |spec| spec.task.container.image = "nginx:2".into()).expect("accepted");
    let version = get(&cell, web).meta.version;
    let paused =
        UpdateStatus { state: UpdateState::Paused, message: "a task failed".into(), ..UpdateStatus::default() };
    cell.reconcile(vec![Change::SetUpdateStatus { service: web, version: version - 1, status: paused.clone() }]);
    assert_eq!(get(&cell, web).update.map(|u| u.state), Some(UpdateState::Updating), "stale: dropped");
    cell.reconcile(vec![Change::SetUpdateStatus { service: web, version, status: paused }]);
    assert_eq!(get(&cell, web).update.map(|u| u.state), Some(UpdateState::Paused));
    assert_eq!(get(&cell, web).meta.version, version, "progress is not a version");
    cell.update(web, |_| ()).expect("accepted");
    assert_eq!(get(&cell, web).update.map(|u| u.state), Some(UpdateState::Updating));
}

fn stack(services: &[(u128, ServiceSpec)], prune: bool) -> Body {
    let label = |mut spec: ServiceSpec| {
        spec.labels.insert("com.docker.stack.namespace".into(), "shop".into());
        Arc::new(spec)
    };
    let mut network = NetworkSpec { name: "shop_default".into(), ..NetworkSpec::default() };
    network.labels.insert("com.docker.stack.namespace".into(), "shop".into());
    Body::DeployStack(Box::new(StackChange {
        name: "shop".into(),
        networks: vec![NetworkSpecWithId { id: NetworkId(30), spec: network }],
        services: services
            .iter()
            .map(|(id, s)| StackService { id: ServiceId(*id), spec: label(s.clone()), auth: Default::default() })
            .collect(),
        prune,
    }))
}

#[test]
fn a_stack_is_deployed_whole_updated_by_name_and_pruned() {
    let mut cell = Cell::new();
    let web = spec_on("shop_web", &["shop_default"]);
    let redis = spec_on("shop_redis", &["shop_default"]);
    let answer = cell.run(stack(&[(60, web.clone()), (61, redis)], false));
    let Ok(Answer::Stack(outcomes)) = answer else { panic!("{answer:?}") };
    assert_eq!(outcomes.len(), 3);
    assert!(matches!(&outcomes[0], StackOutcome::NetworkCreated { name, .. } if name == "shop_default"));

    let before = get(&cell, ServiceId(60));
    let answer = cell.run(stack(&[(70, web)], true));
    let Ok(Answer::Stack(outcomes)) = answer else { panic!("{answer:?}") };
    assert_eq!(
        outcomes,
        [
            StackOutcome::ServiceRemoved { name: "shop_redis".into(), id: ServiceId(61) },
            StackOutcome::ServiceUpdated { name: "shop_web".into(), id: ServiceId(60), changed: false },
        ]
    );
    assert_eq!(get(&cell, ServiceId(60)), before);

    let answer = cell.run(Body::RemoveStack { name: "shop".into() });
    let Ok(Answer::Stack(outcomes)) = answer else { panic!("{answer:?}") };
    assert_eq!(outcomes.len(), 2);
    let text = cell.refused(Body::RemoveStack { name: "shop".into() });
    assert_eq!(text, "stack \"shop\" not found");
}

#[test]
fn a_stack_that_fails_in_its_last_part_leaves_nothing() {
    let mut cell = Cell::new();
    cell.service(50, publishing("other", &[port(80, 8080)]));
    let before: Vec<_> = cell.state.records().collect();
    let bad = publishing("shop_web", &[port(80, 8080)]);
    let text = cell.refused(stack(&[(60, spec("shop_db")), (61, bad)], false));
    assert!(text.contains("service \"other\""), "{text}");
    let after: Vec<_> = cell.state.records().collect();
    assert_eq!(before[..before.len() - 1], after[..after.len() - 1], "only the cursor moved");
    let text = cell.refused(stack(&[(60, spec("other"))], false));
    assert!(text.contains("not of stack \"shop\""), "{text}");
}

#[test]
fn services_of_a_stack_swap_ports_in_one_deploy() {
    let mut cell = Cell::new();
    let two = |a, b| [(60, publishing("shop_a", &[port(80, a)])), (61, publishing("shop_b", &[port(80, b)]))];
    cell.run(stack(&two(8080, 9090), false)).expect("free");
    cell.run(stack(&two(9090, 8080), false)).expect("swapped");
    assert_eq!(get(&cell, ServiceId(60)).ports[0].published, 9090);
}

#[test]
fn a_stack_network_that_others_use_keeps_the_whole_stack() {
    let mut cell = Cell::new();
    cell.run(stack(&[(60, spec_on("shop_web", &["shop_default"]))], false)).expect("accepted");
    cell.service(50, spec_on("guest", &["shop_default"]));
    let text = cell.refused(Body::RemoveStack { name: "shop".into() });
    assert!(text.contains("\"shop_default\" is in use by service \"guest\""), "{text}");
    assert!(!get(&cell, ServiceId(60)).removing);
}

#[test]
fn services_are_found_by_id_name_and_prefix() {
    let mut cell = Cell::new();
    let base = 36u128.pow(24) * 7;
    cell.service(base, spec("web"));
    cell.service(base + 1, spec("api"));
    let id = ServiceId(base);
    assert_eq!(cell.state.find_service(&id.to_string()).map(|s| s.id), Ok(id));
    assert_eq!(cell.state.find_service("web").map(|s| s.id), Ok(id));
    let text = cell.state.find_service("7").expect_err("two match").to_string();
    assert!(text.starts_with("service \"7\" is ambiguous: 2 match (") && text.contains("api"), "{text}");
    cell.run(Body::RemoveService { id: ServiceId(base + 1) }).expect("it exists");
    assert_eq!(cell.state.find_service("7").map(|s| s.id), Ok(id));
    for text in ["", "8", "nobody", "ZZ", "zzzzzzzzzzzzzzzzzzzzzzzzzz"] {
        assert_eq!(cell.state.find_service(text), Err(Refusal::not_found("service", text)));
    }
}
