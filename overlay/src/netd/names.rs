//! Which name means what to one sandbox. Pure: a question in, an answer out.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::protocol::{NetworkNames, SandboxDns};

/// The names of one network, ready to be looked up.
#[derive(Debug, Default)]
pub struct NetworkIndex {
    source: NetworkNames,
    /// `.` and the network's name, lower case.
    suffix: String,
    /// Lower-case name → addresses to answer. A known name may have none.
    forward: HashMap<String, Vec<Ipv4Addr>>,
    reverse: HashMap<Ipv4Addr, Vec<String>>,
}

/// What one sandbox can name.
#[derive(Debug, Default)]
pub struct Names {
    networks: Vec<Arc<NetworkIndex>>,
    own_names: HashSet<String>,
    own_addresses: Vec<Ipv4Addr>,
    internal_only: bool,
    servers: Vec<IpAddr>,
}

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// An A record.
    Address,
    /// A PTR record.
    Pointer,
    /// Any other type, such as AAAA or SRV: known names have none.
    Other,
}

/// What netd says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<Ipv4Addr>),
    Pointers(Vec<String>),
    /// The name is known and has nothing (or nothing healthy) of this type.
    Empty,
    /// The name does not exist.
    Missing,
    /// Not ours: somebody outside may know.
    Forward,
}

impl NetworkIndex {
    pub fn new(source: NetworkNames) -> Self {
        let mut index = Self { suffix: format!(".{}", source.name.to_ascii_lowercase()), ..Self::default() };
        for service in &source.services {
            let ready: Vec<Ipv4Addr> = service.tasks.iter().filter(|t| t.ready).map(|t| t.address).collect();
            let named = match service.vip {
                Some(vip) if !ready.is_empty() => vec![vip],
                _ => ready.clone(),
            };
            for name in std::iter::once(&service.name).chain(&service.aliases) {
                index.add(name, &named);
                index.add(&format!("tasks.{name}"), &ready);
            }
            if let Some(vip) = service.vip {
                index.add_reverse(vip, &service.name, &source.name);
            }
            for task in &service.tasks {
                let address = if task.ready { &[task.address][..] } else { &[] };
                for name in std::iter::once(&task.name).chain(&task.others) {
                    index.add(name, address);
                }
                index.add_reverse(task.address, &task.name, &source.name);
            }
        }
        index.source = source;
        index
    }

    /// What this was made from, so that an unchanged network keeps its index.
    pub fn source(&self) -> &NetworkNames {
        &self.source
    }

    fn add(&mut self, name: &str, addresses: &[Ipv4Addr]) {
        let known = self.forward.entry(name.to_ascii_lowercase()).or_default();
        for address in addresses {
            if !known.contains(address) {
                known.push(*address);
            }
        }
    }

    fn add_reverse(&mut self, address: Ipv4Addr, name: &str, network: &str) {
        self.reverse.entry(address).or_default().push(format!("{name}.{network}"));
    }
}

impl Names {
    /// `networks` are those of the sandbox, in its order.
    pub fn new(sandbox: &SandboxDns, networks: Vec<Arc<NetworkIndex>>) -> Self {
        Self {
            networks,
            own_names: sandbox.names.iter().map(|n| n.to_ascii_lowercase()).collect(),
            own_addresses: sandbox.addresses.clone(),
            internal_only: sandbox.internal_only,
            servers: sandbox.servers.clone(),
        }
    }

    /// `--dns`; empty means the host's.
    pub fn servers(&self) -> &[IpAddr] {
        &self.servers
    }

    /// Answers a question.
    ///
    /// `name` is lower case, without the last dot. `turn` picks the order of the addresses: draw it
    /// anew for each question.
    pub fn answer(&self, name: &str, wanted: Wanted, turn: u64) -> Answer {
        if let Some(address) = reverse_address(name) {
            return self.answer_reverse(address, wanted);
        }
        match self.addresses(name) {
            Some(_) if wanted != Wanted::Address => Answer::Empty,
            Some([]) => Answer::Empty,
            Some(addresses) => {
                let mut addresses = addresses.to_vec();
                shuffle(&mut addresses, turn);
                Answer::Addresses(addresses)
            }
            None => self.outside(),
        }
    }

    fn outside(&self) -> Answer {
        if self.internal_only { Answer::Missing } else { Answer::Forward }
    }

    /// The first that has any: the networks in order, `name.network`, the sandbox itself.
    fn addresses(&self, name: &str) -> Option<&[Ipv4Addr]> {
        let plain = self.networks.iter().filter_map(|network| network.forward.get(name));
        let qualified = self.networks.iter().filter_map(|network| {
            let name = name.strip_suffix(network.suffix.as_str())?;
            network.forward.get(name)
        });
        let own = self.own_names.contains(name).then_some(&self.own_addresses);
        let mut known = None;
        for found in plain.chain(qualified).chain(own) {
            if !found.is_empty() {
                return Some(found);
            }
            known = Some(&found[..]);
        }
        known
    }

    fn answer_reverse(&self, address: Ipv4Addr, wanted: Wanted) -> Answer {
        let names = self.networks.iter().find_map(|network| network.reverse.get(&address));
        match names {
            Some(_) if wanted != Wanted::Pointer => Answer::Empty,
            Some(names) => Answer::Pointers(names.clone()),
            None if self.is_private(address) => Answer::Missing,
            None => self.outside(),
        }
    }

    fn is_private(&self, address: Ipv4Addr) -> bool {
        let mut subnets = self.networks.iter().flat_map(|network| &network.source.subnets);
        subnets.any(|subnet| subnet.contains(&address))
    }
}

/// The address in `4.3.2.1.in-addr.arpa`.
fn reverse_address(name: &str) -> Option<Ipv4Addr> {
    let reversed: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [a, b, c, d] = reversed.octets();
    Some(Ipv4Addr::new(d, c, b, a))
}

/// Fisher and Yates, with the numbers of Marsaglia's xorshift.
fn shuffle<T>(list: &mut [T], turn: u64) {
    let mut state = turn | 1;
    for end in (1..list.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        list.swap(end, ((state >> 16) % (end as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{ServiceNames, TaskNames};
    use super::*;
    use rswarm_types::NetworkId;

    fn address(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 1, last)
    }

    fn task(name: &str, last: u8, ready: bool) -> TaskNames {
        TaskNames { name: name.into(), others: vec![format!("c{last}")], address: address(last), ready }
    }

    fn service(name: &str, vip: Option<u8>, tasks: Vec<TaskNames>) -> ServiceNames {
        ServiceNames { name: name.into(), aliases: vec![format!("{name}-alias")], vip: vip.map(address), tasks }
    }

    fn names(internal_only: bool) -> Names {
        let front = NetworkNames {
            id: NetworkId(1),
            name: "Front".into(),
            subnets: vec!["10.0.1.0/24".parse().unwrap()],
            services: vec![
                service(
                    "Web",
                    Some(2),
                    vec![task("web.1.a", 11, true), task("web.2.b", 12, true), task("web.3.c", 13, false)],
                ),
                service("rr", None, vec![task("rr.1.d", 21, true), task("rr.2.e", 22, true)]),
                service("down", Some(3), vec![task("down.1.f", 31, false)]),
                service("down-rr", None, vec![]),
                service("both", None, vec![]),
            ],
        };
        let back = NetworkNames {
            id: NetworkId(2),
            name: "back".into(),
            subnets: vec![],
            services: vec![
                service("web", Some(102), vec![task("web.9.z", 109, true)]),
                service("both", Some(103), vec![task("both.1.y", 110, true)]),
            ],
        };
        let sandbox = SandboxDns {
            internal_only,
            names: vec!["Me".into(), "down.1.f".into(), "web".into()],
            addresses: vec![address(31)],
            ..SandboxDns::default()
        };
        let networks = [front, back].map(|n| Arc::new(NetworkIndex::new(n)));
        Names::new(&sandbox, networks.to_vec())
    }

    #[test]
    fn names_mean_the_first_network_that_has_something_healthy() {
        let names = names(false);
        for (name, expected) in [
            ("web", vec![2]),
            ("web-alias", vec![2]),
            ("tasks.web", vec![11, 12]),
            ("tasks.web-alias", vec![11, 12]),
            ("web.1.a", vec![11]),
            ("c12", vec![12]),
            ("rr", vec![21, 22]),
            ("tasks.rr", vec![21, 22]),
            ("web.front", vec![2]),
            ("web.back", vec![102]),
            ("web.9.z", vec![109]),
            ("both", vec![103]),
            ("me", vec![31]),
            ("down.1.f", vec![31]),
        ] {
            let Answer::Addresses(mut found) = names.answer(name, Wanted::Address, 7) else {
                panic!("{name}: {:?}", names.answer(name, Wanted::Address, 7));
            };
            found.sort();
            let expected: Vec<_> = expected.into_iter().map(address).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_known_name_without_a_healthy_task_or_of_another_type_is_empty_not_missing() {
        for internal in [false, true] {
            let names = names(internal);
            for (name, wanted) in [
                ("down", Wanted::Address),
                ("tasks.down", Wanted::Address),
                ("down-rr", Wanted::Address),
                ("web.3.c", Wanted::Address),
                ("web", Wanted::Other),
                ("web", Wanted::Pointer),
                ("me", Wanted::Other),
                ("11.1.0.10.in-addr.arpa", Wanted::Address),
            ] {
                assert_eq!(names.answer(name, wanted, 1), Answer::Empty, "{name}");
            }
        }
    }

    #[test]
    fn unknown_names_go_outside_but_never_from_an_internal_sandbox() {
        for name in ["example.com", "nothing", "web.other", "tasks", "", "5.9.9.9.in-addr.arpa"] {
            assert_eq!(names(false).answer(name, Wanted::Address, 1), Answer::Forward, "{name}");
            assert_eq!(names(true).answer(name, Wanted::Address, 1), Answer::Missing, "{name}");
        }
    }

    #[test]
    fn reverse_names_are_of_tasks_and_vips_and_private_ones_stay_here() {
        let names = names(false);
        for (name, expected) in [
            ("11.1.0.10.in-addr.arpa", Answer::Pointers(vec!["web.1.a.Front".into()])),
            ("13.1.0.10.in-addr.arpa", Answer::Pointers(vec!["web.3.c.Front".into()])),
            ("2.1.0.10.in-addr.arpa", Answer::Pointers(vec!["Web.Front".into()])),
            ("102.1.0.10.in-addr.arpa", Answer::Pointers(vec!["web.back".into()])),
            ("99.1.0.10.in-addr.arpa", Answer::Missing),
            ("1.2.0.10.in-addr.arpa", Answer::Forward),
            ("0.10.in-addr.arpa", Answer::Forward),
        ] {
            assert_eq!(names.answer(name, Wanted::Pointer, 1), expected, "{name}");
        }
    }

    #[test]
    fn every_address_comes_first_about_as_often() {
        let names = names(false);
        let mut first: HashMap<Ipv4Addr, usize> = HashMap::new();
        for turn in 0..1000u64 {
            let turn = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            if let Answer::Addresses(list) = names.answer("rr", Wanted::Address, turn) {
                *first.entry(list[0]).or_default() += 1;
            }
        }
        assert!(first.values().all(|n| (350..650).contains(n)), "{first:?}");
    }
}
