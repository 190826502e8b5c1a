//! The gateway's subnets and the addresses in them, which are this node's own affair.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rswarm_types::TaskId;
use rswarm_types::network::Addresses;

/// The host's addresses on the gateway, with their subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    pub v4: Ipv4Net,
    /// `None` where the host has no IPv6, or no subnet was free.
    pub v6: Option<Ipv6Net>,
}

impl Gateway {
    /// The host's own.
    pub fn nets(self) -> impl Iterator<Item = IpNet> {
        std::iter::once(IpNet::V4(self.v4)).chain(self.v6.map(IpNet::V6))
    }

    pub fn subnets(self) -> impl Iterator<Item = IpNet> {
        self.nets().map(|net| net.trunc())
    }

    /// A container's, of which the IPv4 one was chosen: the other ends in the same four octets.
    pub fn container(self, v4: Ipv4Addr) -> Addresses {
        let v6 = self.v6.map(|net| Ipv6Addr::from(u128::from(net.network()) | u128::from(u32::from(v4))));
        Addresses { v4: Some(v4), v6 }
    }
}

/// Subnets to try, as Docker does: 172.18-31.0.0/16, then 192.168.x.0/20. The address is the host's.
fn candidates() -> impl Iterator<Item = Ipv4Net> {
    let large = (18..32).map(|second| Ipv4Net::new_assert(Ipv4Addr::new(172, second, 0, 1), 16));
    let small = (0..=255u8).step_by(16);
    large.chain(small.map(|third| Ipv4Net::new_assert(Ipv4Addr::new(192, 168, third, 1), 20)))
}

/// Unique local ones, for which nobody else has a reason.
fn candidates_v6() -> impl Iterator<Item = Ipv6Net> {
    let prefix = |third| Ipv6Addr::new(0xfd72, 0x7377, 0x6172, third, 0, 0, 0, 1);
    (0x18..0x32).map(move |third| Ipv6Net::new_assert(prefix(third), 64))
}

/// The host's address and subnet: the hint if nothing is in its way, else the first that meets
/// none of the destinations (routes of the host, subnets of overlays). Default routes do not count.
pub fn choose(hint: Option<Ipv4Net>, taken: &[IpNet]) -> Option<Ipv4Net> {
    hint.into_iter().chain(candidates()).find(|net| is_free((*net).into(), taken))
}

/// As [`choose`], for IPv6.
pub fn choose_v6(taken: &[IpNet]) -> Option<Ipv6Net> {
    candidates_v6().find(|net| is_free((*net).into(), taken))
}

fn is_free(net: IpNet, taken: &[IpNet]) -> bool {
    let (net, contains) = (net.trunc(), |one: &IpNet, address: IpAddr| one.contains(&address));
    let meets =
        |other: &IpNet| other.prefix_len() > 0 && (contains(&net, other.network()) || contains(other, net.network()));
    !taken.iter().any(meets)
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

/// The gateway of a host with both versions.
#[cfg(test)]
pub fn example() -> Gateway {
    Gateway { v4: "172.18.0.1/16".parse().unwrap(), v6: Some("fd18::1/64".parse().unwrap()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
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
    fn an_ipv6_subnet_is_chosen_likewise_and_holds_all_containers() {
        let first = choose_v6(&nets(&["::/0", "172.18.0.0/16"])).unwrap();
        assert_eq!(first.to_string(), "fd72:7377:6172:18::1/64");
        assert_eq!(choose_v6(&nets(&["fd72:7377:6172:18::/64"])).unwrap().to_string(), "fd72:7377:6172:19::1/64");
        assert_eq!(choose_v6(&nets(&["fd00::/8"])), None);
        let gateway = Gateway { v4: "172.18.0.1/16".parse().unwrap(), v6: Some(first) };
        let container = gateway.container([172, 18, 0, 9].into());
        assert_eq!(container.to_string(), "172.18.0.9, fd72:7377:6172:18::ac12:9");
        assert!(gateway.subnets().all(|net| container.iter().filter(|a| net.contains(a)).count() == 1));
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
