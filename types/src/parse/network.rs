//! `--network`.

use super::ParseError;
use super::csv::split_csv;
use crate::spec::NetworkAttachment;

const ALLOWED: &str = "NETWORK or name=NETWORK[,alias=NAME]...[,driver-opt=KEY=VALUE]...";

/// Options of `--network` that Docker reads for containers; services cannot have them yet.
const LATER: [&str; 5] = ["ip", "ip6", "mac-address", "link-local-ip", "gw-priority"];

/// Reads `NETWORK` or `name=NETWORK,alias=…,driver-opt=K=V`.
///
/// # Errors
/// On a missing name, an unknown key, or a key that is not built yet.
pub fn parse_network(text: &str) -> Result<NetworkAttachment, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, ALLOWED);
    let mut network = NetworkAttachment::default();
    if !text.contains('=') {
        network.target = text.trim().into();
    } else {
        for field in split_csv(text).map_err(error)? {
            let Some((key, value)) = field.split_once('=') else {
                return Err(error(format!("\"{field}\" is not KEY=VALUE")));
            };
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match key.as_str() {
                "name" => network.target = value.into(),
                "alias" => network.aliases.push(value.to_ascii_lowercase()),
                "driver-opt" => match value.split_once('=') {
                    Some((name, text)) if !name.is_empty() => {
                        network.driver_opts.insert(name.trim().to_ascii_lowercase(), text.trim().into());
                    }
                    _ => return Err(error(format!("driver-opt \"{value}\" is not KEY=VALUE"))),
                },
                key if LATER.contains(&key) => return Err(error(format!("{key} is not built yet for services"))),
                _ => return Err(error(format!("unknown key \"{key}\""))),
            }
        }
    }
    if network.target.is_empty() { Err(error("no network name".into())) } else { Ok(network) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read() {
        assert_eq!(parse_network("front").unwrap().target, "front");
        let network = parse_network("name=front,alias=Web,alias=www,driver-opt=a.b=c").unwrap();
        assert_eq!(
            (network.target.as_str(), &network.aliases[..]),
            ("front", &["web".to_string(), "www".to_string()][..])
        );
        assert_eq!(network.driver_opts["a.b"], "c");
    }

    #[test]
    fn bad_networks_say_what_is_wrong() {
        for (text, problem) in [
            ("", "no network name"),
            ("alias=x", "no network name"),
            ("name=a,ip=10.0.0.1", "ip is not built yet for services"),
            ("name=a,gw-priority=1", "gw-priority is not built yet for services"),
            ("name=a,colour=red", "unknown key \"colour\""),
            ("name=a,web", "\"web\" is not KEY=VALUE"),
            ("name=a,driver-opt=x", "driver-opt \"x\" is not KEY=VALUE"),
        ] {
            assert_eq!(parse_network(text).unwrap_err().problem, problem, "{text}");
        }
    }
}
