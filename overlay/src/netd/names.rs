//! Which name means what to one sandbox. Pure: a question in, an answer out.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use super::protocol::{NetworkNames, SandboxDns};

/// The names of one network, ready to be looked up.
#[derive(Debug, Default)]
pub struct NetworkIndex {
    source: NetworkNames,
    /// `.` and the network's name, lower case.
    suffix: String,
    /// Lower-case name → addresses to answer. A known name may have none.
    forward: HashMap<String, Vec<IpAddr>>,
    reverse: HashMap<IpAddr, Vec<String>>,
}

/// What one sandbox can name.
#[derive(Debug, Default)]
pub struct Names {
    networks: Vec<Arc<NetworkIndex>>,
    own_names: HashSet<String>,
    own_addresses: Vec<IpAddr>,
    internal_only: bool,
    servers: Vec<IpAddr>,
}

/// What is asked about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// A records.
    V4,
    /// AAAA records.
    V6,
    /// PTR records.
    Pointer,
    /// SRV records.
    Service,
    /// Whatever there is of the above.
    Any,
    /// Any other type, such as MX: known names have none.
    Other,
}

/// What netd says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Addresses(Vec<IpAddr>),
    Pointers(Vec<String>),
    /// Who takes connections at a port.
    Service {
        port: u16,
        targets: Vec<Target>,
    },
    /// The name is known and has nothing (or nothing healthy) of this type.
    Empty,
    /// The name does not exist.
    Missing,
    /// Not ours: somebody outside may know.
    Forward,
}

/// One host of an SRV answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `web.1.<task id>.<network>`: it has exactly these addresses.
    pub name: String,
    pub addresses: Vec<IpAddr>,
}

impl NetworkIndex {
    pub fn new(source: NetworkNames) -> Self {
        let mut index = Self { suffix: format!(".{}", source.name.to_ascii_lowercase()), ..Self::default() };
        for service in &source.services {
            let ready = service.tasks.iter().filter(|task| task.ready);
            let ready: Vec<IpAddr> = ready.flat_map(|task| task.addresses.iter().copied()).collect();
            let named = if ready.is_empty() || service.vips.is_empty() { &ready } else { &service.vips };
            for name in std::iter::once(&service.name).chain(&service.aliases) {
                index.add(name, named);
                index.add(&format!("tasks.{name}"), &ready);
            }
            index.add_reverse(&service.vips, &service.name, &source.name);
            for task in &service.tasks {
                let addresses = if task.ready { &task.addresses[..] } else { &[] };
                for name in std::iter::once(&task.name).chain(&task.others) {
                    index.add(name, addresses);
                }
                index.add_reverse(&task.addresses, &task.name, &source.name);
            }
        }
        index.source = source;
        index
    }

    /// What this was made from, so that an unchanged network keeps its index.
    pub fn source(&self) -> &NetworkNames {
        &self.source
    }

    fn add(&mut self, name: &str, addresses: &[IpAddr]) {
        let known = self.forward.entry(name.to_ascii_lowercase()).or_default();
        // Names that several services share are few; a service of thousands of tasks is not compared with itself.
        if known.is_empty() {
            known.extend_from_slice(addresses);
            return;
        }
        for address in addresses {
            if !known.contains(address) {
                known.push(*address);
            }
        }
    }

    fn add_reverse(&mut self, addresses: &[IpAddr], name: &str, network: &str) {
        for address in addresses {
            self.reverse.entry(*address).or_default().push(format!("{name}.{network}"));
        }
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
        if let Some(known) = self.addresses(name) {
            return addresses_of(known, wanted, turn);
        }
        if let Some((port, host)) = service_name(name)
            && let Some(known) = self.addresses(host)
        {
            return self.answer_service(port, known, wanted, turn);
        }
        self.outside()
    }

    fn outside(&self) -> Answer {
        if self.internal_only { Answer::Missing } else { Answer::Forward }
    }

    /// The first that has any: the networks in order, `name.network`, the sandbox itself.
    fn addresses(&self, name: &str) -> Option<&[IpAddr]> {
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

    fn answer_service(&self, port: u16, known: &[IpAddr], wanted: Wanted, turn: u64) -> Answer {
        if known.is_empty() || !matches!(wanted, Wanted::Service | Wanted::Any) {
            return Answer::Empty;
        }
        let mut targets: Vec<Target> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for address in known {
            let Some(name) = self.names_of(*address).and_then(|names| names.first()) else {
                continue;
            };
            let place = *places.entry(name).or_insert(targets.len());
            if place == targets.len() {
                targets.push(Target { name: name.clone(), addresses: Vec::new() });
            }
            targets[place].addresses.push(*address);
        }
        shuffle(&mut targets, turn);
        if targets.is_empty() { Answer::Empty } else { Answer::Service { port, targets } }
    }

    fn answer_reverse(&self, address: IpAddr, wanted: Wanted) -> Answer {
        match self.names_of(address) {
            Some(_) if !matches!(wanted, Wanted::Pointer | Wanted::Any) => Answer::Empty,
            Some(names) => Answer::Pointers(names.to_vec()),
            None if self.is_private(address) => Answer::Missing,
            None => self.outside(),
        }
    }

    fn names_of(&self, address: IpAddr) -> Option<&[String]> {
        self.networks.iter().find_map(|network| network.reverse.get(&address)).map(Vec::as_slice)
    }

    fn is_private(&self, address: IpAddr) -> bool {
        let mut subnets = self.networks.iter().flat_map(|network| &network.source.subnets);
        subnets.any(|subnet| subnet.contains(&address))
    }
}

fn addresses_of(known: &[IpAddr], wanted: Wanted, turn: u64) -> Answer {
    let is_wanted = |address: &&IpAddr| match wanted {
        Wanted::V4 => address.is_ipv4(),
        Wanted::V6 => address.is_ipv6(),
        Wanted::Any => true,
        Wanted::Pointer | Wanted::Service | Wanted::Other => false,
    };
    let mut addresses: Vec<IpAddr> = known.iter().filter(is_wanted).copied().collect();
    shuffle(&mut addresses, turn);
    if addresses.is_empty() { Answer::Empty } else { Answer::Addresses(addresses) }
}

/// The port and the host in `_PORT._PROTOCOL.HOST` (RFC 2782). Ports inside a network are not declared, so any
/// number is one; a port by name is nobody's here.
fn service_name(name: &str) -> Option<(u16, &str)> {
    let (port, rest) = name.strip_prefix('_')?.split_once("._")?;
    let (protocol, host) = rest.split_once('.')?;
    let port = port.parse().ok().filter(|number| *number != 0 && port.bytes().all(|b| b.is_ascii_digit()))?;
    matches!(protocol, "tcp" | "udp" | "sctp").then_some((port, host))
}

/// The address in `4.3.2.1.in-addr.arpa` or in the 32 digits before `.ip6.arpa`.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(reversed) = name.strip_suffix(".in-addr.arpa") {
        let [a, b, c, d] = reversed.parse::<Ipv4Addr>().ok()?.octets();
        return Some(Ipv4Addr::new(d, c, b, a).into());
    }
    let mut value = 0u128;
    let mut digits = 0;
    for label in name.strip_suffix(".ip6.arpa")?.rsplit('.') {
        let mut characters = label.chars();
        let (Some(digit), None) = (characters.next().and_then(|c| c.to_digit(16)), characters.next()) else {
            return None;
        };
        digits += 1;
        value = value << 4 | u128::from(digit);
    }
    (digits == 32).then(|| Ipv6Addr::from_bits(value).into())
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

    fn address(last: u8) -> IpAddr {
        [10, 0, 1, last].into()
    }

    fn six(last: u16) -> IpAddr {
        [0xfd00, 0, 0, 0, 0, 0, 0, last].into()
    }

    fn task(name: &str, last: u8, ready: bool) -> TaskNames {
        TaskNames { name: name.into(), others: vec![format!("c{last}")], addresses: vec![address(last)], ready }
    }

    fn service(name: &str, vip: Option<u8>, tasks: Vec<TaskNames>) -> ServiceNames {
        ServiceNames {
            name: name.into(),
            aliases: vec![format!("{name}-alias")],
            vips: vip.map(address).into_iter().collect(),
            tasks,
        }
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
            let Answer::Addresses(mut found) = names.answer(name, Wanted::V4, 7) else {
                panic!("{name}: {:?}", names.answer(name, Wanted::V4, 7));
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
                ("down", Wanted::V4),
                ("tasks.down", Wanted::V4),
                ("down-rr", Wanted::V4),
                ("web.3.c", Wanted::V4),
                ("web", Wanted::Other),
                ("web", Wanted::V6),
                ("web", Wanted::Service),
                ("_80._tcp.web", Wanted::V4),
                ("_80._tcp.down", Wanted::Service),
                ("down", Wanted::Any),
                ("web", Wanted::Pointer),
                ("me", Wanted::Other),
                ("11.1.0.10.in-addr.arpa", Wanted::V4),
            ] {
                assert_eq!(names.answer(name, wanted, 1), Answer::Empty, "{name}");
            }
        }
    }

    #[test]
    fn unknown_names_go_outside_but_never_from_an_internal_sandbox() {
        for name in [
            "example.com",
            "nothing",
            "web.other",
            "tasks",
            "",
            "5.9.9.9.in-addr.arpa",
            "_80._tcp.example.com",
            "_http._tcp.web",
            "_0._tcp.web",
            "_+80._tcp.web",
            "_65536._tcp.web",
            "_80._quic.web",
            "80.tcp.web",
            "1.ip6.arpa",
        ] {
            assert_eq!(names(false).answer(name, Wanted::V4, 1), Answer::Forward, "{name}");
            assert_eq!(names(true).answer(name, Wanted::V4, 1), Answer::Missing, "{name}");
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

    /// A network with both families; the service `mixed` has a task without the second.
    fn dual() -> Names {
        let both = |name: &str, last: u8, has_six: bool| TaskNames {
            addresses: [address(last)].into_iter().chain(has_six.then(|| six(last.into()))).collect(),
            ..task(name, last, true)
        };
        let network = NetworkNames {
            id: NetworkId(3),
            name: "dual".into(),
            subnets: vec!["10.0.1.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            services: vec![
                ServiceNames {
                    vips: vec![address(2), six(2)],
                    ..service("web", None, vec![both("web.1.a", 11, true), both("web.2.b", 12, true)])
                },
                service("mixed", None, vec![both("mixed.1.a", 21, true), both("mixed.2.b", 22, false)]),
            ],
        };
        Names::new(&SandboxDns::default(), vec![Arc::new(NetworkIndex::new(network))])
    }

    #[test]
    fn each_family_is_answered_by_itself_and_both_to_any() {
        let names = dual();
        for (name, wanted, mut expected) in [
            ("web", Wanted::V4, vec![address(2)]),
            ("web", Wanted::V6, vec![six(2)]),
            ("web", Wanted::Any, vec![address(2), six(2)]),
            ("tasks.web", Wanted::V6, vec![six(11), six(12)]),
            ("mixed", Wanted::V4, vec![address(21), address(22)]),
            ("mixed", Wanted::V6, vec![six(21)]),
        ] {
            let Answer::Addresses(mut found) = names.answer(name, wanted, 3) else { panic!("{name} {wanted:?}") };
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{name} {wanted:?}");
        }
        assert_eq!(names.answer("mixed.2.b", Wanted::V6, 3), Answer::Empty);
    }

    #[test]
    fn addresses_of_the_sixth_version_have_reverse_names() {
        let names = dual();
        let reverse = |address: &str| {
            let nibbles = address.parse::<Ipv6Addr>().unwrap().to_bits();
            let digits = (0..32).map(|place| format!("{:x}.", nibbles >> (4 * place) & 15));
            names.answer(&format!("{}ip6.arpa", digits.collect::<String>()), Wanted::Pointer, 1)
        };
        assert_eq!(reverse("fd00::b"), Answer::Pointers(vec!["web.1.a.dual".into()]));
        assert_eq!(reverse("fd00::2"), Answer::Pointers(vec!["web.dual".into()]));
        assert_eq!(reverse("fd00::99"), Answer::Missing);
        assert_eq!(reverse("2001:db8::1"), Answer::Forward);
    }

    #[test]
    fn a_port_of_a_service_is_at_its_address_and_a_port_of_its_tasks_at_each_task() {
        let target = |name: &str, addresses: Vec<IpAddr>| Target { name: name.into(), addresses };
        let web = target("web.dual", vec![address(2), six(2)]);
        let tasks =
            [target("web.1.a.dual", vec![address(11), six(11)]), target("web.2.b.dual", vec![address(12), six(12)])];
        for (name, port, expected) in [
            ("_80._tcp.web", 80, vec![web.clone()]),
            ("_53._udp.web-alias.dual", 53, vec![web]),
            ("_9100._tcp.tasks.web", 9100, tasks.to_vec()),
            ("_1._sctp.web.2.b", 1, vec![tasks[1].clone()]),
            ("_80._tcp.mixed.2.b", 80, vec![target("mixed.2.b.dual", vec![address(22)])]),
        ] {
            for wanted in [Wanted::Service, Wanted::Any] {
                let Answer::Service { port: found_port, mut targets } = dual().answer(name, wanted, 9) else {
                    panic!("{name}")
                };
                targets.sort_by(|a, b| a.name.cmp(&b.name));
                assert_eq!((found_port, targets), (port, expected.clone()), "{name}");
            }
        }
        // Each target is a name that has these addresses.
        assert_eq!(dual().answer("web.1.a.dual", Wanted::V6, 1), Answer::Addresses(vec![six(11)]));
    }

    #[test]
    fn every_address_comes_first_about_as_often() {
        let names = names(false);
        let mut first: HashMap<IpAddr, usize> = HashMap::new();
        for turn in 0..1000u64 {
            let turn = turn.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            if let Answer::Addresses(list) = names.answer("rr", Wanted::V4, turn) {
                *first.entry(list[0]).or_default() += 1;
            }
        }
        assert!(first.values().all(|n| (350..650).contains(n)), "{first:?}");
    }
}
