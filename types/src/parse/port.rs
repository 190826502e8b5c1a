//! `--publish` and the `ports` of compose files.

use super::ParseError;
use super::csv::split_csv;
use crate::spec::{PortConfig, Protocol, PublishMode};

const SHORT_ALLOWED: &str = "[PUBLISHED:]TARGET[/tcp|/udp] with ports 1-65535, e.g. 8080:80";
const LONG_ALLOWED: &str = "target=PORT[,published=PORT][,protocol=tcp|udp][,mode=ingress|host] with ports 1-65535";

/// Reads the short form `[PUBLISHED:]TARGET[/PROTOCOL]`, where both may be ranges, or the long form
/// `target=…,published=…,protocol=…,mode=…`.
///
/// # Errors
/// On a port out of range, ranges of different lengths, an unknown key, and on what is not built
/// yet: a host address, sctp.
pub fn parse_publish(text: &str) -> Result<Vec<PortConfig>, ParseError> {
    if text.contains('=') { long(text).map(|port| vec![port]) } else { short(text) }
}

fn short(text: &str) -> Result<Vec<PortConfig>, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, SHORT_ALLOWED);
    let (ports, protocol) = match text.rsplit_once('/') {
        Some((ports, protocol)) => (ports, parse_protocol(protocol).map_err(error)?),
        None => (text, Protocol::Tcp),
    };
    let (front, target) = match ports.rsplit_once(':') {
        Some((front, target)) => (Some(front), target),
        None => (None, ports),
    };
    let published = match front.map(|f| f.rsplit_once(':').map_or((None, f), |(host, p)| (Some(host), p))) {
        None => None,
        Some((Some("0.0.0.0"), published)) => Some(published),
        Some((Some(host), _)) => {
            return Err(error(format!(
                "it names the host address \"{host}\"; publishing on one address is not built yet, ports are published on every address"
            )));
        }
        Some((None, published)) => Some(published),
    };
    let target = range(target).map_err(|bad| error(format!("target port is \"{bad}\"")))?;
    let published = match published {
        None | Some("") => None,
        Some(text) => Some(range(text).map_err(|bad| error(format!("published port is \"{bad}\"")))?),
    };
    let port = |target, published| PortConfig { protocol, target, published, ..PortConfig::default() };
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
            _ => return Err(error(format!("unknown key \"{key}\""))),
        }
    }
    if port.target == 0 {
        return Err(error("no target port".into()));
    }
    Ok(port)
}

/// Reads `tcp` or `udp`, in any case.
///
/// # Errors
/// With the problem alone, for the caller to put the whole value around it.
pub fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Err("protocol sctp is not built yet".into()),
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
    use Protocol::{Tcp, Udp};
    use PublishMode::{Host, Ingress};
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
        ] {
            let expected: Vec<_> = ports
                .into_iter()
                .map(|(published, target, protocol, mode)| PortConfig { protocol, target, published, mode })
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
            ("80/sctp", "protocol sctp is not built yet"),
            ("target=80,protocol=sctp", "protocol sctp is not built yet"),
            ("target=80,mode=mesh", "mode is \"mesh\""),
            ("target=80,host=1", "unknown key \"host\""),
            ("published=80", "no target port"),
            ("target=80,udp", "\"udp\" is not KEY=VALUE"),
        ] {
            assert_eq!(parse_publish(text).unwrap_err().problem, problem, "{text}");
        }
    }

    #[test]
    fn a_host_address_is_refused_by_name() {
        for text in ["127.0.0.1:8080:80", "127.0.0.1::80", "[::1]:8080:80"] {
            let error = parse_publish(text).unwrap_err();
            assert!(error.problem.contains("not built yet"), "{error}");
        }
    }

    #[test]
    fn port_out_of_range_names_the_port_and_the_range() {
        assert_eq!(
            parse_publish("8080:99999").unwrap_err().to_string(),
            "\"8080:99999\": target port is \"99999\"\n       allowed: [PUBLISHED:]TARGET[/tcp|/udp] with ports 1-65535, e.g. 8080:80"
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[0-9a-z:=,/.\\[\\]-]{0,30}") {
            let _ = parse_publish(&text);
        }
    }
}
