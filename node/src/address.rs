//! Addresses that people give: an address or the name of an interface, with or without a port.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rswarm_types::limits::CONTROL_PORT;

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("invalid {flag} \"{text}\": allowed is IP|INTERFACE[:PORT], e.g. 192.0.2.10, eth0 or 192.0.2.10:2377")]
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
        "invalid address of the manager \"{text}\": allowed is HOST[:PORT], e.g. 192.0.2.10 or manager.example:2377"
    )]
    Remote { text: String },
    #[error("the manager's name \"{host}\" is not known on this host: {reason}")]
    Name { host: String, reason: String },
    #[error("containers cannot talk by {0}: only IPv4 is carried; give such an address with --data-path-addr")]
    NotIpv4(IpAddr),
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
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Ok((socket.ip().to_string(), socket.port()));
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok((text.to_owned(), CONTROL_PORT));
    }
    let form = || AddressError::Form { flag, text: text.to_owned() };
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok().filter(|p| *p > 0).ok_or_else(form)?),
        None => (text, CONTROL_PORT),
    };
    let is_name = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@".contains(c));
    if is_name { Ok((host.to_owned(), port)) } else { Err(form()) }
}

/// `--advertise-addr`; empty = the host's only address.
///
/// # Errors
/// See [`AddressError`].
pub fn advertise(text: &str, there: &[Local]) -> Result<SocketAddr, AddressError> {
    const FLAG: &str = "--advertise-addr";
    if text.is_empty() {
        let own: Vec<&Local> = there.iter().filter(|l| !l.is_loopback && l.address.is_ipv4() && !is_ours(l)).collect();
        return match own[..] {
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
pub fn is_ours(local: &Local) -> bool {
    ["rsw", "docker", "veth", "br-", "virbr", "cni"].iter().any(|p| local.interface.starts_with(p))
}

/// `--listen-addr`; empty = every address.
///
/// # Errors
/// See [`AddressError`].
pub fn listen(text: &str, there: &[Local]) -> Result<SocketAddr, AddressError> {
    const FLAG: &str = "--listen-addr";
    if text.is_empty() {
        return Ok(SocketAddr::new(IpAddr::from([0, 0, 0, 0]), CONTROL_PORT));
    }
    let (host, port) = split(FLAG, text)?;
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Ok(SocketAddr::new(address, port)),
        _ => Ok(SocketAddr::new(resolve_own(FLAG, text, &host, there)?, port)),
    }
}

/// `--data-path-addr`, always an address of this host; empty = the advertised one.
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
    if address.is_ipv4() { Ok(address) } else { Err(AddressError::NotIpv4(address)) }
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
        all.extend(addresses.iter().map(|(name, a)| Local {
            interface: (*name).into(),
            address: (*a).into(),
            is_loopback: false,
        }));
        all
    }

    #[test]
    fn one_address_is_chosen_and_several_are_listed() {
        let one = there(&[("eth0", [10, 99, 0, 1]), ("rsw_gw", [172, 18, 0, 1])]);
        assert_eq!(advertise("", &one), Ok(([10, 99, 0, 1], 2377).into()));
        let two = there(&[("eth0", [10, 99, 0, 1]), ("eth1", [10, 98, 0, 1])]);
        let error = advertise("", &two).expect_err("ambiguous").to_string();
        assert!(error.contains("10.98.0.1 on eth1"), "{error}");
        assert_eq!(advertise("", &there(&[])), Err(AddressError::None));
    }

    #[test]
    fn interfaces_ports_and_nonsense() {
        let host = there(&[("eth0", [10, 99, 0, 1])]);
        let cases: [(&str, Option<SocketAddr>); 7] = [
            ("eth0", Some(([10, 99, 0, 1], 2377).into())),
            ("eth0:4000", Some(([10, 99, 0, 1], 4000).into())),
            ("10.0.0.9:1", Some(([10, 0, 0, 9], 1).into())),
            ("10.0.0.9", Some(([10, 0, 0, 9], 2377).into())),
            ("eth9", None),
            ("eth0:0", None),
            ("0.0.0.0", None),
        ];
        for (text, expected) in cases {
            assert_eq!(advertise(text, &host).ok(), expected, "{text}");
        }
        assert_eq!(listen("0.0.0.0:99", &host), Ok(([0, 0, 0, 0], 99).into()));
    }

    #[test]
    fn what_is_bound_or_carries_traffic_is_an_address_of_this_host() {
        let host = there(&[("eth0", [10, 99, 0, 1])]);
        let six =
            [Local { interface: "lo".into(), address: IpAddr::from([0u16, 0, 0, 0, 0, 0, 0, 1]), is_loopback: true }];
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
        says(data_path("::1", own, &six).expect_err("refused"), &["--data-path-addr", "::1", "only IPv4"]);
        says(listen("1.2.3.4", &host).expect_err("refused"), &["--listen-addr", "1.2.3.4", "10.99.0.1 on eth0"]);
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
