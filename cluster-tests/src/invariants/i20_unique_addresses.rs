//! I20: no address, segment, node number or published port is held twice, on hosts that nobody reaches neither; and
//! what a host uses was allocated before.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rswarm_store::State;
use rswarm_types::service::VirtualIp;
use rswarm_types::spec::{PortConfig, PublishMode};
use rswarm_types::{NetworkId, TaskId};

use super::Violation;

const NAME: &str = "I20";

/// Something that only one may hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Address(NetworkId, IpAddr),
    Segment(u32),
    NodeNumber(u16),
    Port(u16, String),
}

/// Who holds what, as a state says, without the store's own indexes.
pub fn held(state: &State) -> Vec<(Thing, String)> {
    let mut held = Vec::new();
    let mut ingress = None;
    for network in state.networks() {
        let name = &network.spec.name;
        if network.vni != 0 {
            held.push((Thing::Segment(network.vni), format!("network {name}")));
        }
        for block in &network.blocks {
            held.push((Thing::Address(network.id, block.gateway), format!("the gateway of {name}")));
        }
        if network.spec.ingress {
            ingress = Some(network.id);
        }
    }
    for node in state.nodes() {
        let holder = format!("node {}", node.id.short());
        held.push((Thing::NodeNumber(node.number), holder.clone()));
        let all = ingress.into_iter().flat_map(|network| node.ingress.iter().map(move |a| Thing::Address(network, a)));
        held.extend(all.map(|thing| (thing, holder.clone())));
    }
    for service in state.services() {
        let name = &service.spec.name;
        let of_network = |vip: &VirtualIp| vip.addresses.iter().map(|a| (vip.network, a)).collect::<Vec<_>>();
        let vips = service.vips.iter().flat_map(of_network).map(|(network, a)| Thing::Address(network, a));
        held.extend(vips.map(|thing| (thing, format!("the VIP of {name}"))));
        let ports = service.ports.iter().filter(|p| !service.removing && p.mode == PublishMode::Ingress);
        let kind =
            |p: &PortConfig| p.address.map_or_else(|| p.protocol.to_string(), |a| format!("{} of {a}", p.protocol));
        held.extend(ports.map(|p| (Thing::Port(p.published, kind(p)), format!("service {name}"))));
    }
    for task in state.tasks().filter(|t| !t.status.sandbox_gone) {
        let own = task.attachments.iter().map(|a| (a.network, a.addresses));
        let all = own.chain(ingress.map(|network| (network, task.ingress)));
        let all = all.flat_map(|(network, addresses)| addresses.iter().map(move |a| Thing::Address(network, a)));
        held.extend(all.map(|thing| (thing, format!("task {}", task.name()))));
    }
    held
}

/// Finds what has two holders; `when` says at which moment.
pub fn check(when: &str, held: Vec<(Thing, String)>) -> Vec<Violation> {
    let mut holders: BTreeMap<Thing, String> = BTreeMap::new();
    let mut violations = Vec::new();
    for (thing, holder) in held {
        if let Some(other) = holders.insert(thing.clone(), holder.clone()) {
            let text = format!("{when} {thing:?} is held by {other} and by {holder}");
            violations.push(Violation::new(NAME, text));
        }
    }
    violations
}

/// An address that a host has given to a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InUse {
    pub host: String,
    pub task: TaskId,
    pub network: NetworkId,
    pub address: IpAddr,
}

/// Looks at the sandboxes that exist, wherever they are.
pub fn check_hosts(in_use: &[InUse]) -> Option<Violation> {
    let mut holders: BTreeMap<(NetworkId, IpAddr), &InUse> = BTreeMap::new();
    in_use.iter().find_map(|use_| {
        let other = holders.insert((use_.network, use_.address), use_).filter(|other| other.task != use_.task)?;
        let text = format!(
            "address {} is used by task {} on {} and by task {} on {}",
            use_.address, other.task, other.host, use_.task, use_.host,
        );
        Some(Violation::new(NAME, text))
    })
}

#[cfg(test)]
mod tests {
    use rswarm_types::task::Attachment;
    use rswarm_types::task_state::TaskState;

    use super::*;
    use crate::invariants::fixture::{Cluster, spec};

    fn attached(address: [u8; 4]) -> Vec<Attachment> {
        vec![Attachment { network: NetworkId(5), addresses: IpAddr::from(address).into(), aliases: Vec::new() }]
    }

    #[test]
    fn what_a_state_gave_away_is_listed_until_it_is_free_again() {
        let mut cluster = Cluster::new();
        cluster.service(10, spec("s"));
        cluster.task(10, 1, |task| task.attachments = attached([10, 1, 1, 5]));
        cluster.task(10, 2, |task| {
            task.attachments = attached([10, 1, 1, 6]);
            task.status.state = TaskState::Failed;
        });
        cluster.task(10, 3, |task| {
            task.attachments = attached([10, 1, 1, 7]);
            task.status.state = TaskState::Failed;
            task.status.sandbox_gone = true;
        });
        let held = held(&cluster.state);
        let is_held = |last| held.iter().any(|(t, _)| *t == Thing::Address(NetworkId(5), [10, 1, 1, last].into()));
        assert_eq!((is_held(5), is_held(6), is_held(7)), (true, true, false));
        assert!(held.iter().any(|(thing, _)| matches!(thing, Thing::NodeNumber(_))));
        assert!(held.iter().any(|(thing, _)| matches!(thing, Thing::Segment(_))));
        assert_eq!(check("now", held), []);
    }

    #[test]
    fn a_second_holder_of_anything_is_caught() {
        let address = |last| Thing::Address(NetworkId(5), IpAddr::from([10, 1, 1, last]));
        let port = |number, protocol: &str| Thing::Port(number, protocol.into());
        for (a, b, expected) in [
            (address(1), address(2), 0),
            (address(1), address(1), 1),
            (Thing::Segment(4096), Thing::Segment(4096), 1),
            (Thing::NodeNumber(1), Thing::NodeNumber(1), 1),
            (port(80, "tcp"), port(80, "udp"), 0),
            (port(80, "tcp"), port(80, "tcp"), 1),
        ] {
            let held = vec![(a, "one".to_owned()), (b, "two".to_owned())];
            assert_eq!(check("now", held.clone()).len(), expected, "{held:?}");
        }
    }

    #[test]
    fn two_sandboxes_with_one_address_are_caught_on_different_hosts_too() {
        let used = |host: &str, task, last| InUse {
            host: host.into(),
            task: TaskId(task),
            network: NetworkId(5),
            address: IpAddr::from([10, 1, 1, last]),
        };
        assert_eq!(check_hosts(&[used("a", 1, 5), used("b", 2, 6)]), None);
        assert!(check_hosts(&[used("a", 1, 5), used("b", 2, 5)]).is_some());
    }
}
