//! `--host` and `extra_hosts`.

use std::net::IpAddr;

use super::ParseError;
use crate::spec::HostEntry;

const ALLOWED: &str = "HOST:ADDRESS or HOST=ADDRESS, e.g. db:10.0.0.5 or db=fd00::5";

/// Reads `HOST:ADDRESS` or `HOST=ADDRESS`; an IPv6 address may stand in brackets.
///
/// # Errors
/// On an empty name or what is no address; `host-gateway` is not built yet.
pub fn parse_host(text: &str) -> Result<HostEntry, ParseError> {
    let error = |problem: String| ParseError::new(text, problem, ALLOWED);
    let Some((name, address)) = text.split_once('=').or_else(|| text.split_once(':')) else {
        return Err(error("no address".into()));
    };
    let (name, address) = (name.trim(), address.trim());
    if name.is_empty() || name.contains(char::is_whitespace) {
        return Err(error(format!("host name is \"{name}\"")));
    }
    if address == "host-gateway" {
        return Err(error("host-gateway is not built yet".into()));
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().map_err(|_| error(format!("address is \"{address}\"")))?;
    Ok(HostEntry { name: name.into(), address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read() {
        for (text, name, address) in [
            ("db:10.0.0.5", "db", "10.0.0.5"),
            ("db=10.0.0.5", "db", "10.0.0.5"),
            ("db:fd00::5", "db", "fd00::5"),
            ("db=[fd00::5]", "db", "fd00::5"),
        ] {
            assert_eq!(
                parse_host(text),
                Ok(HostEntry { name: name.into(), address: address.parse().unwrap() }),
                "{text}"
            );
        }
    }

    #[test]
    fn bad_hosts_say_what_is_wrong() {
        for (text, problem) in [
            ("db", "no address"),
            (":10.0.0.5", "host name is \"\""),
            ("db:10.0.0", "address is \"10.0.0\""),
            ("db:host-gateway", "host-gateway is not built yet"),
        ] {
            assert_eq!(parse_host(text).unwrap_err().problem, problem, "{text}");
        }
    }
}
