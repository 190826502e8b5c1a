//! The gateway bridge's subnet and the addresses on it, which are this node's own affair.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rswarm_types::TaskId;

/// Subnets to try, as Docker does: 172.18-31.0.0/16, then 192.168.x.0/20. The address is the
/// bridge's.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let large = (18..32).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 1), 16));
    let small = (0..=255u8).step_by(16);
    large.chain(small.map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third, 1), 20)))
}

/// The bridge's address and subnet: the hint if nothing is in its way, else the first that meets
/// none of the destinations (routes of the host, subnets of overlays). Default routes do not count.
pub fn choose(hint: Option<Ipv4Net>, taken: &[Ipv4Net]) -> Option<Ipv4Net> {
    let meets = |one: &Ipv4Net, other: &Ipv4Net| {
        other.prefix_len() > 0 && (one.contains(&other.network()) || other.contains(&one.network()))
    };
    let is_free = |net: &Ipv4Net| !taken.iter().any(|other| meets(&net.trunc(), &other.trunc()));
    hint.into_iter().chain(candidates()).find(is_free)
}

/// Gives each task that has none an address: the next after `last`, so that a freed one rests.
/// Tasks for which none is left get none.
pub fn allocate(
    gateway: Ipv4Net,
    tasks: &BTreeSet<TaskId>,
    addresses: &mut BTreeMap<TaskId, Ipv4Addr>,
    last: &mut Ipv4Addr,
) {
    addresses.retain(|task, _| tasks.contains(task));
    let mut used: BTreeSet<Ipv4Addr> = addresses.values().copied().collect();
    used.insert(gateway.addr());
    let (first, end) = (u32::from(gateway.network()) + 1, u32::from(gateway.broadcast()));
    for task in tasks {
        if addresses.contains_key(task) {
            continue;
        }
        let start = u32::from(*last).saturating_add(1).clamp(first, end);
        let next = (start..end).chain(first..start).map(Ipv4Addr::from);
        let Some(address) = next.into_iter().find(|a| !used.contains(a)) else { return };
        used.insert(address);
        addresses.insert(*task, address);
        *last = address;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<Ipv4Net> {
        list.iter().map(|n| n.parse().unwrap()).collect()
    }

    fn chosen(hint: Option<&str>, taken: &[&str]) -> Option<String> {
        choose(hint.map(|h| h.parse().unwrap()), &nets(taken)).map(|n| n.to_string())
    }

    #[test]
    fn the_first_subnet_that_meets_no_route_is_chosen() {
        let is = |taken: &[&str], expected| assert_eq!(chosen(None, taken).as_deref(), Some(expected));
        is(&["0.0.0.0/0", "10.0.0.0/8"], "172.18.0.1/16");
        is(&["172.18.5.0/24"], "172.19.0.1/16");
        is(&["172.16.0.0/12"], "192.168.0.1/20");
        is(&["172.16.0.0/12", "192.168.1.0/24"], "192.168.16.1/20");
        assert_eq!(chosen(None, &["172.16.0.0/12", "192.168.0.0/16"]), None);
    }

    #[test]
    fn the_hint_is_taken_while_nothing_is_in_its_way() {
        assert_eq!(chosen(Some("10.9.0.1/24"), &[]).as_deref(), Some("10.9.0.1/24"));
        assert_eq!(chosen(Some("10.9.0.1/24"), &["10.0.0.0/8"]).as_deref(), Some("172.18.0.1/16"));
    }

    #[test]
    fn a_freed_address_rests_until_all_others_were_used() {
        let gateway: Ipv4Net = "10.9.0.1/29".parse().unwrap();
        let (mut addresses, mut last) = (BTreeMap::new(), gateway.addr());
        let mut seen = Vec::new();
        for task in 1..=6 {
            allocate(gateway, &BTreeSet::from([TaskId(task)]), &mut addresses, &mut last);
            seen.push(addresses[&TaskId(task)].octets()[3]);
        }
        assert_eq!(seen, [2, 3, 4, 5, 6, 2]);
    }

    #[test]
    fn a_full_subnet_gives_nothing_and_keeps_what_it_gave() {
        let gateway: Ipv4Net = "10.9.0.1/30".parse().unwrap();
        let (mut addresses, mut last) = (BTreeMap::new(), gateway.addr());
        let tasks = BTreeSet::from([TaskId(1), TaskId(2)]);
        allocate(gateway, &tasks, &mut addresses, &mut last);
        assert_eq!(addresses, BTreeMap::from([(TaskId(1), Ipv4Addr::new(10, 9, 0, 2))]));
    }
}
