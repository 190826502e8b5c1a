//! Addresses that people give: an address or the name of an interface, with or without a port.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rswarm_types::limits::CONTROL_PORT;

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error(
        "invalid {flag} \"{text}\": allowed is IP|INTERFACE[:PORT], e.g. 192.0.2.10, eth0, 192.0.2.10:2377 or [2001:db8::10]:2377"
    )]
    Form { flag: &'static str, text: String },
    #[error("invalid {flag} \"{text}\": this host has no such address or interface (it has: {there})")]
    Unknown { flag: &'static str, text: String, there: String },
    #[error(
        "could not choose an address to advertise, since this host has several ({there}); give one with --advertise-addr"
    )]
    Ambiguous { there: String },
    #[error(
        "could not choose an address to advertise, since this host has none but loopback; give one with --advertise-addr"
    )]
    None,
    #[error("invalid {flag} \"{text}\": an address that others can reach is needed, not a wildcard")]
    Wildcard { flag: &'static str, text: String },
    #[error(
        "invalid address of the manager \"{text}\": allowed is HOST[:PORT], e.g. 192.0.2.10, manager.example:2377 or \
         [2001:db8::10]:2377"
    )]
    Remote { text: String },
    #[error("the manager's name \"{host}\" is not known on this host: {reason}")]
    Name { host: String, reason: String },
    #[error(
        "invalid --listen-addr \"{listen}\": others are told {advertised}, of the other IP version\n       \
         listen on [::]:{port}, which takes connections of both, or advertise an address of the same version"
    )]
    Deaf { listen: IpAddr, advertised: IpAddr, port: u16 },
    #[error(
        "invalid --advertise-addr \"{advertised}\": this host has no such address (it has: {there})\n       \
         where a router translates it, say by which address of this host containers talk: --data-path-addr"
    )]
    Elsewhere { advertised: IpAddr, there: String },
}

/// An interface's address on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub interface: String,
    pub address: IpAddr,
    pub is_loopback: bool,
}

impl Local {
    /// Whether other hosts may see it: not loopback, nor of an interface that containers make.
    pub fn is_visible(&self) -> bool {
        !self.is_loopback && !is_ours(self)
    }
}

/// The addresses of this host's interfaces that are up, without link-local IPv6.
pub fn local_addresses() -> Vec<Local> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter(|a| a.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|a| {
            let storage = a.address?;
            let address = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
                (Some(v4), _) => IpAddr::V4(v4.ip()),
                (_, Some(v6)) if !v6.ip().is_unicast_link_local() => IpAddr::V6(v6.ip()),
                _ => return None,
            };
            Some(Local {
                interface: a.interface_name,
                address,
                is_loopback: a.flags.contains(InterfaceFlags::IFF_LOOPBACK),
            })
        })
        .collect()
}

fn list(there: &[Local]) -> String {
    let own = there.iter().filter(|l| !l.is_loopback);
    own.map(|l| format!("{} on {}", l.address, l.interface)).collect::<Vec<_>>().join(", ")
}

fn split(flag: &'static str, text: &str) -> Result<(String, u16), AddressError> {
    let form = || AddressError::Form { flag, text: text.to_owned() };
    if let Ok(socket) = text.parse::<SocketAddr>() {
        let (host, port) = (socket.ip().to_string(), socket.port());
        return if port > 0 { Ok((host, port)) } else { Err(form()) };
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok((bare.to_owned(), CONTROL_PORT));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|p| *p > 0).ok_or_else(form)?),
        None => (text, CONTROL_PORT),
    };
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    if is_name { Ok((host.to_owned(), port)) } else { Err(form()) }
}

/// `--advertise-addr`; empty = the host's only address, of IPv4 if it has one.
///
/// # Errors
/// See [`AddressError`].
pub fn advertise(text: &str, there: &[Local]) -> Result<SocketAddr, AddressError> {
    const FLAG: &str = "--advertise-addr";
    if text.is_empty() {
        let (four, six): (Vec<&Local>, Vec<&Local>) =
            there.iter().filter(|l| l.is_visible()).partition(|l| l.address.is_ipv4());
        return match if four.is_empty() { six } else { four }[..] {
            [only] => Ok(SocketAddr::new(only.address, CONTROL_PORT)),
            [] => Err(AddressError::None),
            _ => Err(AddressError::Ambiguous { there: list(there) }),
        };
    }
    let (host, port) = split(FLAG, text)?;
    let address = resolve(FLAG, text, &host, there)?;
    Ok(SocketAddr::new(address, port))
}

/// Interfaces that containers make are no way to reach this host.
fn is_ours(local: &Local) -> bool {
    ["rsw", "docker", "veth", "br-", "virbr", "cni"].iter().any(|p| local.interface.starts_with(p))
}

/// `--listen-addr`; empty = every address: `[::]`, which takes IPv4 too, or `0.0.0.0` on a host without IPv6.
///
/// # Errors
/// See [`AddressError`]; also where nobody could reach what is advertised.
pub fn listen(text: &str, advertised: IpAddr, there: &[Local]) -> Result<SocketAddr, AddressError> {
    const FLAG: &str = "--listen-addr";
    if text.is_empty() {
        let has_ipv6 = there.iter().any(|l| l.address.is_ipv6());
        let every: IpAddr = if has_ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        return Ok(SocketAddr::new(every, CONTROL_PORT));
    }
    let (host, port) = split(FLAG, text)?;
    let address = match host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => address,
        _ => resolve_own(FLAG, text, &host, there)?,
    };
    if address.is_ipv4() != advertised.is_ipv4() && address != Ipv6Addr::UNSPECIFIED {
        return Err(AddressError::Deaf { listen: address, advertised, port });
    }
    Ok(SocketAddr::new(address, port))
}

/// `--data-path-addr`, always an address of this host; empty = the advertised one. All nodes need one of the same
/// version of IP: the cluster checks it when a node joins.
///
/// # Errors
/// See [`AddressError`].
pub fn data_path(text: &str, advertised: IpAddr, there: &[Local]) -> Result<IpAddr, AddressError> {
    const FLAG: &str = "--data-path-addr";
    let address = if text.is_empty() {
        let is_own = there.iter().any(|l| l.address == advertised);
        is_own.then_some(advertised).ok_or_else(|| AddressError::Elsewhere { advertised, there: list(there) })?
    } else if text.contains(':') && text.parse::<IpAddr>().is_err() {
        return Err(AddressError::Form { flag: FLAG, text: text.to_owned() });
    } else {
        resolve_own(FLAG, text, text, there)?
    };
    Ok(address)
}

/// As [`resolve`], but only addresses of this host.
fn resolve_own(flag: &'static str, text: &str, host: &str, there: &[Local]) -> Result<IpAddr, AddressError> {
    let address = resolve(flag, text, host, there)?;
    let is_own = there.iter().any(|l| l.address == address);
    is_own.then_some(address).ok_or_else(|| AddressError::Unknown { flag, text: text.to_owned(), there: list(there) })
}

fn resolve(flag: &'static str, text: &str, host: &str, there: &[Local]) -> Result<IpAddr, AddressError> {
    if let Ok(address) = host.parse::<IpAddr>() {
        if address.is_unspecified() {
            return Err(AddressError::Wildcard { flag, text: text.to_owned() });
        }
        // An address that the host has not may be one that a router translates to it.
        return Ok(address);
    }
    let on_interface = |v4: bool| there.iter().find(|l| l.interface == host && l.address.is_ipv4() == v4);
    on_interface(true).or_else(|| on_interface(false)).map(|l| l.address).ok_or_else(|| AddressError::Unknown {
        flag,
        text: text.to_owned(),
        there: list(there),
    })
}

/// A manager to join, `HOST[:PORT]`: all addresses of the host, in the order in which they are to be tried.
///
/// # Errors
/// When it is no address and no name that is known.
pub async fn remote(text: &str) -> Result<Vec<SocketAddr>, AddressError> {
    let (host, port) =
        split("address of the manager", text).map_err(|_| AddressError::Remote { text: text.to_owned() })?;
    let unknown = |reason: String| AddressError::Name { host: host.clone(), reason };
    let found = tokio::net::lookup_host((host.as_str(), port)).await.map_err(|e| unknown(e.to_string()))?;
    let mut addresses = Vec::new();
    for address in found {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err(unknown("the name has no address".into())) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(addresses: &[(&str, [u8; 4])]) -> Vec<Local> {
        let mut all = vec![Local { interface: "lo".into(), address: [127, 0, 0, 1].into(), is_loopback: true }];
        all.extend(addresses.iter().map(|(name, a)| local(name, *a)));
        all
    }

    fn local(interface: &str, address: impl Into<IpAddr>) -> Local {
        Local { interface: interface.into(), address: address.into(), is_loopback: false }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_address_is_chosen_and_several_are_listed() {
        let one = there(&[("eth0", [10, 99, 0, 1]), ("rsw_gw", [172, 18, 0, 1])]);
        assert_eq!(advertise("", &one), Ok(([10, 99, 0, 1], 2377).into()));
        let two = there(&[("eth0", [10, 99, 0, 1]), ("eth1", [10, 98, 0, 1])]);
        let error = advertise("", &two).expect_err("ambiguous").to_string();
        assert!(error.contains("10.98.0.1 on eth1"), "{error}");
        assert_eq!(advertise("", &there(&[])), Err(AddressError::None));
        let mut dual = one;
        dual.push(local("eth0", ip("2001:db8::1")));
        assert_eq!(advertise("", &dual), Ok(([10, 99, 0, 1], 2377).into()), "of both versions it is IPv4");
        let six = [local("eth0", ip("2001:db8::1")), local("rsw_gw", ip("fd00::1"))];
        assert_eq!(advertise("", &six), Ok((ip("2001:db8::1"), 2377).into()));
        let two = [local("eth0", ip("2001:db8::1")), local("eth0", ip("fd00::1"))];
        let error = advertise("", &two).expect_err("ambiguous").to_string();
        assert!(error.contains("2001:db8::1 on eth0, fd00::1 on eth0"), "{error}");
    }

    #[test]
    fn interfaces_ports_and_nonsense() {
        let mut host = there(&[("eth0", [10, 99, 0, 1])]);
        host.push(local("eth0", ip("2001:db8::1")));
        host.push(local("eth6", ip("2001:db8::6")));
        let cases: [(&str, Option<SocketAddr>); 15] = [
            ("eth0", Some(([10, 99, 0, 1], 2377).into())),
            ("eth0:4000", Some(([10, 99, 0, 1], 4000).into())),
            ("10.0.0.9:1", Some(([10, 0, 0, 9], 1).into())),
            ("10.0.0.9", Some(([10, 0, 0, 9], 2377).into())),
            ("eth9", None),
            ("eth0:0", None),
            ("10.99.0.1:0", None),
            ("0.0.0.0", None),
            ("2001:db8::1", Some((ip("2001:db8::1"), 2377).into())),
            ("[2001:db8::1]", Some((ip("2001:db8::1"), 2377).into())),
            ("[2001:db8::1]:4000", Some((ip("2001:db8::1"), 4000).into())),
            ("eth6", Some((ip("2001:db8::6"), 2377).into())),
            ("eth6:4000", Some((ip("2001:db8::6"), 4000).into())),
            ("[::]:4000", None),
            ("[2001:db8::1]:0", None),
        ];
        for (text, expected) in cases {
            assert_eq!(advertise(text, &host).ok(), expected, "{text}");
        }
    }

    #[test]
    fn who_listens_hears_what_is_advertised() {
        let four = there(&[("eth0", [10, 99, 0, 1])]);
        let mut dual = four.clone();
        dual.push(local("eth0", ip("2001:db8::1")));
        let (own4, own6) = (ip("10.99.0.1"), ip("2001:db8::1"));
        let every = |port| SocketAddr::new(ip("::"), port);
        assert_eq!(listen("", own4, &four), Ok(([0, 0, 0, 0], 2377).into()), "a host without IPv6");
        assert_eq!(listen("", own4, &dual), Ok(every(2377)));
        assert_eq!(listen("", own6, &dual), Ok(every(2377)));
        assert_eq!(listen("0.0.0.0:99", own4, &dual), Ok(([0, 0, 0, 0], 99).into()));
        assert_eq!(listen("[::]:99", own4, &dual), Ok(every(99)));
        assert_eq!(listen("[2001:db8::1]:99", own6, &dual), Ok(SocketAddr::new(own6, 99)));
        for (text, advertised) in [("0.0.0.0:99", own6), ("10.99.0.1:99", own6), ("[2001:db8::1]:99", own4)] {
            let error = listen(text, advertised, &dual).expect_err("nobody would be heard").to_string();
            assert!(error.contains(&advertised.to_string()) && error.contains("[::]:99"), "{error}");
        }
    }

    #[test]
    fn what_is_bound_or_carries_traffic_is_an_address_of_this_host() {
        let host = there(&[("eth0", [10, 99, 0, 1])]);
        let (own, other) = (IpAddr::from([10, 99, 0, 1]), IpAddr::from([1, 2, 3, 4]));
        assert_eq!(data_path("", own, &host), Ok(own));
        assert_eq!(data_path("eth0", other, &host), Ok(own), "a router may translate what is advertised");
        let says = |error: AddressError, words: &[&str]| {
            let text = error.to_string();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        says(
            data_path("", other, &host).expect_err("refused"),
            &["--advertise-addr", "1.2.3.4", "--data-path-addr", "10.99.0.1"],
        );
        says(
            data_path("1.2.3.4", own, &host).expect_err("refused"),
            &["--data-path-addr", "1.2.3.4", "10.99.0.1 on eth0"],
        );
        let six = [local("eth0", ip("2001:db8::1"))];
        assert_eq!(data_path("", ip("2001:db8::1"), &six), Ok(ip("2001:db8::1")));
        assert_eq!(data_path("eth0", own, &six), Ok(ip("2001:db8::1")));
        assert_eq!(data_path("2001:db8::1", own, &six), Ok(ip("2001:db8::1")));
        says(data_path("2001:db8::2", own, &six).expect_err("refused"), &["--data-path-addr", "2001:db8::2"]);
        says(listen("1.2.3.4", own, &host).expect_err("refused"), &["--listen-addr", "1.2.3.4", "10.99.0.1 on eth0"]);
    }

    #[tokio::test]
    async fn a_manager_is_named_by_address_or_by_name() {
        assert_eq!(remote("10.0.0.9").await, Ok(vec![([10, 0, 0, 9], 2377).into()]));
        assert_eq!(remote("[::1]:4000").await, Ok(vec!["[::1]:4000".parse().expect("an address")]));
        let local = remote("localhost:4000").await.expect("every host has it");
        assert!(local.iter().all(|a| a.ip().is_loopback() && a.port() == 4000), "{local:?}");
        let says = |error: AddressError, word: &str| assert!(error.to_string().contains(word), "{error}");
        says(remote("manager 1").await.expect_err("refused"), "allowed is HOST[:PORT]");
        says(remote("manager:0").await.expect_err("refused"), "allowed is HOST[:PORT]");
        says(remote("no-such-host.invalid").await.expect_err("refused"), "no-such-host.invalid");
    }
}
