//! Whatever is there, whatever is wanted: the plan leads from the one to the other, and every step
//! of it is one that the kernel takes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use rswarm_types::TaskId;
use rswarm_types::spec::{Protocol, PublishMode};
use rswarm_types::task::EndpointState;

use crate::desired::{Desired, DnsPorts, HostFacts, desired, rules};
use crate::diff::diff;
use crate::fixture::{Cluster, tcp};
use crate::model::ruleset::{Family, RulesetChange, TableName};
use crate::model::{Change, ForeignChain, LinkKind, NamespaceKey, Op, Route, World, names};
use crate::ports::PublishedPort;

const NODES: u8 = 3;

/// A cluster in numbers: a task is (service, node, state).
#[derive(Clone, Debug)]
struct Shape {
    networks_of_services: Vec<Vec<bool>>,
    published: Vec<bool>,
    tasks: Vec<(usize, usize, u8)>,
    up: Vec<bool>,
    has_ingress: bool,
    /// Bits of local tasks with a sandbox.
    sandboxes: u16,
    forward_drop: bool,
    block_of_second: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let services = prop::collection::vec(prop::collection::vec(any::<bool>(), 3), 3);
    (
        services,
        prop::collection::vec(any::<bool>(), 3),
        prop::collection::vec((0..3usize, 0..usize::from(NODES), 0..4u8), 0..8),
        prop::collection::vec(any::<bool>(), usize::from(NODES)),
        any::<bool>(),
        any::<u16>(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(
            |(networks_of_services, published, tasks, up, has_ingress, sandboxes, forward_drop, block_of_second)| {
                Shape {
                    networks_of_services,
                    published,
                    tasks,
                    up,
                    has_ingress,
                    sandboxes,
                    forward_drop,
                    block_of_second,
                }
            },
        )
}

fn foreign_chain() -> ForeignChain {
    ForeignChain { table: TableName::new(Family::Ip, "filter"), chain: "FORWARD".into() }
}

/// What node 0 should be.
fn wanted(shape: &Shape) -> Desired {
    let addresses: Vec<IpAddr> = (1..=NODES).map(|n| [10, 99, 0, n].into()).collect();
    let mut cluster = Cluster::new(&addresses);
    let networks = ["a", "b", "c"].map(|name| cluster.network(name));
    if shape.block_of_second {
        let mut more = cluster.networks[2].blocks[0];
        more.subnet = "10.1.77.0/24".parse().unwrap();
        cluster.networks[2].blocks.push(more);
    }
    let mut services = Vec::new();
    for (index, on) in shape.networks_of_services.iter().enumerate() {
        let on: Vec<_> = networks.iter().zip(on).filter(|(_, is)| **is).map(|(n, _)| *n).collect();
        let port = tcp(PublishMode::Ingress, 8000 + index as u16, 80);
        let ports = if shape.published[index] { vec![port] } else { Vec::new() };
        services.push(cluster.service(&format!("s{index}"), &on, &ports));
    }
    for (service, node, state) in &shape.tasks {
        let task = cluster.task(services[*service], *node);
        let states = [EndpointState::Starting, EndpointState::Ready, EndpointState::Draining, EndpointState::Dead];
        cluster.set_state(task, states[usize::from(*state)]);
    }
    for (peer, is_up) in cluster.peers.iter_mut().zip(&shape.up) {
        peer.is_up = *is_up;
    }
    if !shape.has_ingress {
        cluster.networks.retain(|n| !n.ingress);
    }
    let mut facts = HostFacts::new(addresses[0], crate::gateway::example());
    let local: Vec<TaskId> = cluster.local(0).into_iter().collect();
    for (index, task) in local.iter().enumerate() {
        facts.gateway_addresses.insert(*task, [172, 18, 0, 2 + index as u8].into());
        if index % 2 == 0 {
            facts.dns.insert(*task, DnsPorts { udp: 5, tcp: 6 });
        }
    }
    let held = |port| PublishedPort { protocol: Protocol::Tcp, port, address: None };
    facts.held = (8000..8003).map(held).collect();
    facts.forward_drops = shape.forward_drop.then(foreign_chain).into_iter().collect();
    let chosen = |(index, task): (usize, &TaskId)| (shape.sandboxes >> index & 1 == 1).then_some(*task);
    let sandboxes: BTreeSet<_> = local.iter().enumerate().filter_map(chosen).collect();
    desired(&cluster.assignments(0), &facts, &sandboxes)
}

/// Does the plan; every step must be possible, and after each the checks must hold.
fn follow(desired: &Desired, world: &mut World, check: impl Fn(&World, &Op)) {
    for op in diff(desired, world) {
        if let Err(impossible) = world.apply(&op) {
            panic!("{impossible} at {op:?}");
        }
        check(world, &op);
    }
    for (key, namespace) in &mut world.namespaces {
        if let Some(want) = desired.world.namespaces.get(key) {
            namespace.backends.clone_from(&want.backends);
        }
    }
}

/// What somebody may do behind our back: each is one that a real kernel allows.
fn damage(world: &mut World, seeds: &[(u8, usize)]) {
    for (kind, seed) in seeds {
        let keys: Vec<_> = world.namespaces.keys().copied().collect();
        let namespace = keys[seed % keys.len()];
        let inside = &world.namespaces[&namespace];
        let links: Vec<_> = inside.links.keys().filter(|n| *n != "lo").cloned().collect();
        let link = links.get(seed / 7 % links.len().max(1)).cloned();
        let change = match (kind, link) {
            (0, Some(name)) => Change::DeleteLink { name },
            (1, Some(name)) => {
                let mut link = inside.links[&name].clone();
                link.is_up = false;
                Change::SetLink { name, link }
            }
            (2, Some(name)) => {
                let mut link = inside.links[&name].clone();
                (link.mtu, link.master) = (1_280, None);
                Change::SetLink { name, link }
            }
            (3, Some(device)) if inside.links[&device].is_up => Change::AddRoute(Route {
                table: 254,
                to: "10.66.0.0/24".parse().unwrap(),
                via: None,
                device,
                is_onlink: false,
            }),
            (4, _) => {
                let tables = &mut world.namespaces.entry(namespace).or_default().tables;
                tables.clear();
                continue;
            }
            (5, _) => {
                for table in world.namespaces.entry(namespace).or_default().tables.values_mut() {
                    for set in Arc::make_mut(table).sets.values_mut() {
                        set.elements.pop_last();
                    }
                }
                continue;
            }
            (6, _) => {
                for table in world.namespaces.entry(namespace).or_default().tables.values_mut() {
                    for chain in Arc::make_mut(table).chains.values_mut() {
                        chain.rules.truncate(1);
                    }
                }
                continue;
            }
            (7, _) if namespace != NamespaceKey::Host => Change::RemoveNamespace,
            _ => continue,
        };
        let _ = world.apply(&Op { namespace, change });
    }
}

/// Addresses that the host's maps send connections to, but that no route or pair leads to.
fn unreachable(world: &World) -> BTreeSet<IpAddr> {
    let host = world.host();
    let Some(table) = host.tables.get(&names::host_table()) else { return BTreeSet::new() };
    let is_reached = |address: &IpAddr| {
        host.routes.iter().any(|r| r.to.addr() == *address)
            || host.addresses.iter().any(|(_, net)| net.contains(address))
    };
    rules::backends_in(table).into_iter().filter(|a| !is_reached(a)).collect()
}

/// Remote addresses that a sandbox's maps send to, but whose host the network does not know.
fn unknown(world: &World) -> BTreeSet<IpAddr> {
    let networks = || world.namespaces.iter().filter(|(k, _)| matches!(k, NamespaceKey::Network(_)));
    let is_known = |address: &IpAddr| {
        networks().any(|(_, n)| n.neighbours.keys().any(|(_, a)| a == address))
            || world.namespaces.values().any(|n| n.addresses.iter().any(|(_, net)| net.addr() == *address))
    };
    let tables = world.namespaces.values().filter_map(|n| n.tables.get(&names::balancer_table()));
    tables.flat_map(|t| rules::backends_in(t)).filter(|a| !is_known(a)).collect()
}

/// The mesh's device is never up without the filters.
fn is_guarded(world: &World) -> bool {
    let is_up = |name: &str| world.host().links.get(name).is_some_and(|l| l.is_up);
    !is_up(names::INGRESS) || world.host().tables.contains_key(&names::host_table())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_wanted_is_reached_from_any_other_however_damaged(
        before in shape(),
        after in shape(),
        seeds in prop::collection::vec((0..8u8, any::<usize>()), 0..6),
    ) {
        let mut world = World::default();
        follow(&wanted(&before), &mut world, |_, _| {});
        damage(&mut world, &seeds);
        let desired = wanted(&after);
        follow(&desired, &mut world, |_, _| {});
        prop_assert_eq!(diff(&desired, &world), vec![]);
    }

    #[test]
    fn no_step_sends_packets_where_nothing_leads_or_opens_the_mesh_unguarded(
        before in shape(),
        after in shape(),
    ) {
        // A task's attachments never change.
        let after = Shape {
            networks_of_services: before.networks_of_services.clone(),
            published: before.published.clone(),
            tasks: {
                let same = before.tasks.iter().zip(&after.tasks);
                let moved = |(b, a): (&(usize, usize, u8), &(usize, usize, u8))| (b.0, b.1, a.2);
                same.map(moved).chain(after.tasks.iter().skip(before.tasks.len()).copied()).collect()
            },
            ..after
        };
        let mut world = World::default();
        follow(&wanted(&before), &mut world, |world, op| {
            assert!(is_guarded(world), "{op:?}");
        });
        let desired = wanted(&after);
        // A sandbox that should go may take local addresses with it at once.
        let remote: BTreeSet<_> = world.namespaces.values().chain(desired.world.namespaces.values())
            .flat_map(|n| n.neighbours.keys().map(|(_, a)| *a).chain(n.routes.iter().map(|r| r.to.addr())))
            .collect();
        let local = |address: &IpAddr| !remote.contains(address);
        let mut bad_before: BTreeSet<_> = unreachable(&world);
        bad_before.extend(unknown(&world));
        follow(&desired, &mut world, |world, op| {
            assert!(is_guarded(world), "{op:?}");
            let bad = unreachable(world).into_iter().chain(unknown(world));
            let new: Vec<_> = bad.filter(|a| !local(a) && !bad_before.contains(a)).collect();
            assert!(new.is_empty(), "{new:?} after {op:?}");
        });
    }

    #[test]
    fn leaving_leaves_nothing(before in shape(), seeds in prop::collection::vec((0..8u8, any::<usize>()), 0..4)) {
        let mut world = World::default();
        follow(&wanted(&before), &mut world, |_, _| {});
        damage(&mut world, &seeds);
        follow(&Desired::default(), &mut world, |_, _| {});
        for namespace in world.namespaces.values_mut() {
            namespace.sysctls.clear();
            namespace.backends = Arc::default();
        }
        prop_assert_eq!(world, World::default());
    }
}

#[test]
fn a_changed_backend_is_one_transaction_of_elements() {
    let mut cluster = Cluster::new(&[[10, 99, 0, 1].into(), [10, 99, 0, 2].into()]);
    let network = cluster.network("back");
    let web = cluster.service("web", &[network], &[]);
    let (here, _, third) = (cluster.task(web, 0), cluster.task(web, 1), cluster.task(web, 1));
    let mut facts = HostFacts::new([10, 99, 0, 1].into(), crate::gateway::example());
    facts.gateway_addresses.insert(here, [172, 18, 0, 2].into());
    let want = |c: &Cluster| desired(&c.assignments(0), &facts, &c.local(0));
    let mut world = World::default();
    follow(&want(&cluster), &mut world, |_, _| {});
    cluster.set_state(third, EndpointState::Draining);
    let ops = diff(&want(&cluster), &world);
    assert_eq!(ops.len(), 1, "{ops:?}");
    assert_eq!(ops[0].namespace, NamespaceKey::Sandbox(here));
    let Change::Ruleset { changes, .. } = &ops[0].change else { panic!("{ops:?}") };
    let is_small = |change: &RulesetChange| match change {
        RulesetChange::AddElements { elements, .. } => elements.len() == 1,
        RulesetChange::DeleteElements { elements, .. } => elements.len() == 1,
        // The class of two backends comes, and that of three goes.
        RulesetChange::AddChain { name, .. } => ["n2v4", "n2v6"].contains(&name.as_str()),
        RulesetChange::DeleteChain { name, .. } => ["n3v4", "n3v6"].contains(&name.as_str()),
        _ => false,
    };
    assert!(changes.iter().all(is_small), "{changes:?}");
}

#[test]
fn a_link_of_another_kind_is_made_anew_with_what_was_on_it() {
    let mut cluster = Cluster::new(&[[10, 99, 0, 1].into(), [10, 99, 0, 2].into()]);
    let network = cluster.network("back");
    let web = cluster.service("web", &[network], &[]);
    let here = cluster.task(web, 0);
    cluster.task(web, 1);
    let mut facts = HostFacts::new([10, 99, 0, 1].into(), crate::gateway::example());
    facts.gateway_addresses.insert(here, [172, 18, 0, 2].into());
    let want = desired(&cluster.assignments(0), &facts, &cluster.local(0));
    let mut world = World::default();
    follow(&want, &mut world, |_, _| {});
    let namespace = world.namespaces.get_mut(&NamespaceKey::Network(network)).unwrap();
    let vxlan = namespace.links.get_mut(names::VXLAN).unwrap();
    vxlan.kind = LinkKind::Vxlan { vni: 9, local: [10, 99, 0, 1].into(), port: 4789 };
    follow(&want, &mut world, |_, _| {});
    assert_eq!(diff(&want, &world), vec![]);
    assert_eq!(world.namespaces[&NamespaceKey::Network(network)].forwarding.len(), 1);
}
