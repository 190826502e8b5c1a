//! `--publish` and the `ports` of compose files.

use std::net::IpAddr;

use super::ParseError;
use super::csv::split_csv;
use crate::spec::{PortConfig, Protocol};

const SHORT_ALLOWED: &str =
    "[[HOST_IP:][PUBLISHED]:]TARGET[/tcp|/udp|/sctp] with ports 1-65535, e.g. 8080:80, 127.0.0.1:8080:80 or [::1]::80";
const LONG_ALLOWED: &str = "target=PORT[,published=PORT][,protocol=tcp|udp|sctp][,mode=ingress|host]\
     [,host_ip=ADDRESS] with ports 1-65535";

/// Reads the short form `[[HOST_IP:][PUBLISHED]:]TARGET[/PROTOCOL]`, where both ports may be ranges and an IPv6 address
/// stands in brackets, or the long form `target=…,published=…,protocol=…,mode=…,host_ip=…`.
///
/// The addresses `0.0.0.0` and `[::]` are every address of both families, as no address is.
///
/// # Errors
/// On a port out of range, ranges of different lengths, what is no address, an unknown key.
pub fn parse_publish(text: &str) -> Result<Vec<PortConfig>, ParseError> {
    if text.contains('=') { long(text).map(|port| vec![port]) } else { short(text) }
}

fn short(text: &str) -> Result<Vec<PortConfig>, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, SHORT_ALLOWED);
    let (ports, protocol) = match text.rsplit_once('/') {
        Some((ports, protocol)) => (ports, parse_protocol(protocol).map_err(error)?),
        None => (text, Protocol::Tcp),
    };
    let (address, ports) = split_address(ports).map_err(error)?;
    let (published, target) = match ports.split_once(':') {
        Some((published, target)) => (published, target),
        None if address.is_some() => {
            return Err(error(format!("no published port; for a chosen one write \"::{ports}\"")));
        }
        None => ("", ports),
    };
    let address = address.map(parse_host_address).transpose().map_err(error)?.flatten();
    let target = range(target).map_err(|bad| error(format!("target port is \"{bad}\"")))?;
    let published = match published {
        "" => None,
        text => Some(range(text).map_err(|bad| error(format!("published port is \"{bad}\"")))?),
    };
    let port = |target, published| PortConfig { protocol, target, published, address, ..PortConfig::default() };
    let length = |(from, to): (u16, u16)| to - from;
    match published {
        None => Ok((target.0..=target.1).map(|t| port(t, 0)).collect()),
        Some(published) if length(published) == length(target) => {
            Ok((published.0..=published.1).zip(target.0..=target.1).map(|(p, t)| port(t, p)).collect())
        }
        Some(published) if length(target) == 0 => Ok((published.0..=published.1).map(|p| port(target.0, p)).collect()),
        Some(published) => Err(error(format!(
            "{} published ports for {} target ports",
            u32::from(length(published)) + 1,
            u32::from(length(target)) + 1
        ))),
    }
}

/// The host address, if there is one, and what follows it: `PUBLISHED:TARGET`, `:TARGET` or `TARGET`.
fn split_address(text: &str) -> Result<(Option<&str>, &str), String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or("a bracket is not closed")?;
        let ports = rest.strip_prefix(':').ok_or_else(|| format!("no ports after the address \"[{address}]\""))?;
        return Ok((Some(address), ports));
    }
    match text.match_indices(':').map(|(at, _)| at).collect::<Vec<_>>()[..] {
        [] | [_] => Ok((None, text)),
        [end, _] => Ok((Some(&text[..end]), &text[end + 1..])),
        _ => Err("an IPv6 address stands in brackets: [::1]:8080:80".into()),
    }
}

/// Reads the address to publish on, in brackets or without; a wildcard is no address.
///
/// # Errors
/// With the problem alone, for the caller to put the whole value around it.
pub fn parse_host_address(text: &str) -> Result<Option<IpAddr>, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address: IpAddr = bare.parse().map_err(|_| format!("host address is \"{text}\""))?;
    Ok(Some(address.to_canonical()).filter(|address| !address.is_unspecified()))
}

fn long(text: &str) -> Result<PortConfig, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, LONG_ALLOWED);
    let mut port = PortConfig::default();
    for field in split_csv(text).map_err(error)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(error(format!("\"{field}\" is not KEY=VALUE")));
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "target" => port.target = number(value).map_err(|bad| error(format!("target port is \"{bad}\"")))?,
            "published" if value == "0" => port.published = 0,
            "published" => {
                port.published = number(value).map_err(|bad| error(format!("published port is \"{bad}\"")))?
            }
            "protocol" => port.protocol = parse_protocol(value).map_err(error)?,
            "mode" => {
                port.mode = value.parse().map_err(|bad: ParseError| error(format!("mode is \"{}\"", bad.value)))?
            }
            "host_ip" => port.address = parse_host_address(value).map_err(error)?,
            _ => return Err(error(format!("unknown key \"{key}\""))),
        }
    }
    if port.target == 0 {
        return Err(error("no target port".into()));
    }
    Ok(port)
}

/// Reads `tcp`, `udp` or `sctp`, in any case.
///
/// # Errors
/// With the problem alone, for the caller to put the whole value around it.
pub fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(format!("protocol is \"{text}\"")),
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let Some((from, to)) = text.split_once('-') else {
        return number(text).map(|n| (n, n));
    };
    let (from, to) = (number(from)?, number(to)?);
    if from > to { Err(text.to_owned()) } else { Ok((from, to)) }
}

fn number(text: &str) -> Result<u16, String> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        text.parse().ok().filter(|n| *n > 0).ok_or_else(|| text.to_owned())
    } else {
        Err(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::PublishMode::{Host, Ingress};
    use Protocol::{Sctp, Tcp, Udp};
    use proptest::prelude::*;

    #[test]
    fn short_and_long_forms_are_read() {
        for (text, ports) in [
            ("80", vec![(0, 80, Tcp, Ingress)]),
            ("8080:80", vec![(8080, 80, Tcp, Ingress)]),
            ("53:53/udp", vec![(53, 53, Udp, Ingress)]),
            ("53:53/UDP", vec![(53, 53, Udp, Ingress)]),
            (":80", vec![(0, 80, Tcp, Ingress)]),
            ("0.0.0.0:8080:80", vec![(8080, 80, Tcp, Ingress)]),
            ("3000-3001", vec![(0, 3000, Tcp, Ingress), (0, 3001, Tcp, Ingress)]),
            ("9000-9001:80-81", vec![(9000, 80, Tcp, Ingress), (9001, 81, Tcp, Ingress)]),
            ("9000-9001:80", vec![(9000, 80, Tcp, Ingress), (9001, 80, Tcp, Ingress)]),
            ("1-1:65535", vec![(1, 65535, Tcp, Ingress)]),
            ("target=80", vec![(0, 80, Tcp, Ingress)]),
            ("target=80,published=0", vec![(0, 80, Tcp, Ingress)]),
            ("published=8080,target=80,protocol=udp,mode=host", vec![(8080, 80, Udp, Host)]),
            ("5000:5000/sctp", vec![(5000, 5000, Sctp, Ingress)]),
            ("target=80,protocol=sctp", vec![(0, 80, Sctp, Ingress)]),
            ("0.0.0.0::80", vec![(0, 80, Tcp, Ingress)]),
            ("[::]:8080:80", vec![(8080, 80, Tcp, Ingress)]),
            ("target=80,host_ip=0.0.0.0", vec![(0, 80, Tcp, Ingress)]),
        ] {
            let expected: Vec<_> = ports
                .into_iter()
                .map(|(published, target, protocol, mode)| PortConfig {
                    protocol,
                    target,
                    published,
                    mode,
                    address: None,
                })
                .collect();
            assert_eq!(parse_publish(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_bad_port_is_named() {
        for (text, problem) in [
            ("", "target port is \"\""),
            ("8080:99999", "target port is \"99999\""),
            ("0:80", "published port is \"0\""),
            ("70000:80", "published port is \"70000\""),
            ("80:0", "target port is \"0\""),
            ("+80", "target port is \"+80\""),
            ("90-80", "target port is \"90-80\""),
            ("8000-8002:80-81", "3 published ports for 2 target ports"),
            ("80/icmp", "protocol is \"icmp\""),
            ("127.0.0.1:80", "published port is \"127.0.0.1\""),
            ("[::1]:80", "no published port; for a chosen one write \"::80\""),
            ("[::1]80", "no ports after the address \"[::1]\""),
            ("[::1:8080:80", "a bracket is not closed"),
            ("::1:8080:80", "an IPv6 address stands in brackets: [::1]:8080:80"),
            ("eth0:8080:80", "host address is \"eth0\""),
            ("[fe80::1%eth0]:8080:80", "host address is \"fe80::1%eth0\""),
            (":8080:80", "host address is \"\""),
            ("target=80,host_ip=node1", "host address is \"node1\""),
            ("target=80,mode=mesh", "mode is \"mesh\""),
            ("target=80,host=1", "unknown key \"host\""),
            ("published=80", "no target port"),
            ("target=80,udp", "\"udp\" is not KEY=VALUE"),
        ] {
            assert_eq!(parse_publish(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn a_host_address_is_read_and_printed_back() {
        for (text, printed) in [
            ("127.0.0.1:8080:80", "127.0.0.1:8080:80/tcp"),
            ("127.0.0.1::80", "127.0.0.1::80/tcp"),
            ("[::1]:53:53/udp", "[::1]:53:53/udp"),
            ("[2001:DB8::5]::80/sctp", "[2001:db8::5]::80/sctp"),
            ("[::ffff:192.0.2.1]:8080:80", "192.0.2.1:8080:80/tcp"),
            ("target=80,published=8080,host_ip=::1", "[::1]:8080:80/tcp"),
            ("target=80,host_ip=[::1],published=8080", "[::1]:8080:80/tcp"),
            ("8080:80", "8080:80/tcp"),
            ("80", "80/tcp"),
        ] {
            let ports = parse_publish(text).unwrap();
            assert_eq!(ports[0].to_string(), printed, "{text}");
            assert_eq!(parse_publish(printed).unwrap(), ports, "{printed}");
        }
        let range = parse_publish("127.0.0.1:8080-8081:80-81").unwrap();
        assert!(range.iter().all(|port| port.address == Some([127, 0, 0, 1].into())) && range.len() == 2);
    }

    #[test]
    fn ports_meet_on_a_common_address_only() {
        for (a, b, meets) in [
            ("80:1", "80:2", true),
            ("80:1", "127.0.0.1:80:2", true),
            ("127.0.0.1:80:1", "127.0.0.1:80:2", true),
            ("127.0.0.1:80:1", "[::1]:80:2", false),
            ("80:1", "81:1", false),
            ("80:1", "80:1/sctp", false),
            ("80", "80", false),
        ] {
            let [a, b] = [a, b].map(|text| parse_publish(text).unwrap()[0]);
            assert_eq!((a.meets(&b), b.meets(&a)), (meets, meets), "{a} {b}");
        }
    }

    #[test]
    fn port_out_of_range_names_the_port_and_the_range() {
        assert_eq!(
            parse_publish("8080:99999").unwrap_err().to_string(),
            "\"8080:99999\": target port is \"99999\"\n       allowed: [[HOST_IP:][PUBLISHED]:]TARGET[/tcp|/udp|/sctp] \
             with ports 1-65535, e.g. 8080:80, 127.0.0.1:8080:80 or [::1]::80"
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            address in prop::option::of(any::<IpAddr>()), published: u16, target in 1u16.., protocol in 0usize..3,
        ) {
            let address = address.map(|a| a.to_canonical()).filter(|a| !a.is_unspecified());
            let protocol = [Tcp, Udp, Sctp][protocol];
            let port = PortConfig { protocol, target, published, address, mode: Ingress };
            prop_assert_eq!(parse_publish(&port.to_string()), Ok(vec![port]));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9a-z:=,/.\\[\\]-]{0,30}") {
            let _ = parse_publish(&text);
        }
    }
}
