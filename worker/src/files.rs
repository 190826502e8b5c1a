//! Texts of a container's `/etc/resolv.conf` and `/etc/hosts`. Pure.

use std::net::{IpAddr, Ipv4Addr};

use rswarm_types::spec::container::DnsConfig;

/// The DNS server in each sandbox.
const RESOLVER: &str = "127.0.0.11";
const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                         fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";
/// Debian's address of a host's own name where it has no other.
const OWN_NAME: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));

/// For a container in a network: our resolver, and what is asked of it. A search list and options that the service
/// does not give are those of the host's file (Docker's rule).
pub fn resolv_conf(dns: &DnsConfig, host: &str) -> String {
    let search = if dns.search.is_empty() { last_of(host, &["search", "domain"]) } else { dns.search.clone() };
    // A single dot switches the host's search list off (Docker's rule).
    let search: Vec<String> = search.into_iter().filter(|s| s != ".").collect();
    let mut text = String::new();
    if !search.is_empty() {
        text.push_str(&format!("search {}\n", search.join(" ")));
    }
    text.push_str(&format!("nameserver {RESOLVER}\n"));
    let mut options = if dns.options.is_empty() { all_of(host, "options") } else { dns.options.clone() };
    if !options.iter().any(|o| o.starts_with("ndots:")) {
        options.insert(0, "ndots:0".into());
    }
    text.push_str(&format!("options {}\n", options.join(" ")));
    text
}

/// The words after the last of these keywords.
fn last_of(resolv_conf: &str, keywords: &[&str]) -> Vec<String> {
    let of = |line: &str| {
        let mut words = line.split_whitespace();
        keywords.contains(&words.next()?).then(|| words.map(str::to_owned).collect())
    };
    resolv_conf.lines().rev().find_map(of).unwrap_or_default()
}

/// The words after every line of this keyword: later options add to earlier ones (resolv.conf(5)).
fn all_of(resolv_conf: &str, keyword: &str) -> Vec<String> {
    let lines = resolv_conf.lines().map(str::split_whitespace);
    let of = lines.filter_map(|mut words| (words.next()? == keyword).then_some(words));
    of.flatten().map(str::to_owned).collect()
}

/// The container's own name and nothing else.
pub fn hosts(hostname: &str, addresses: &[IpAddr]) -> String {
    let own = if addresses.is_empty() { &[OWN_NAME][..] } else { addresses };
    let short = hostname.split_once('.').map(|(short, _)| format!(" {short}")).unwrap_or_default();
    let lines = own.iter().map(|address| format!("{address}\t{hostname}{short}\n"));
    std::iter::once(LOCALHOST.to_owned()).chain(lines).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolver_is_ours_and_the_search_list_the_service_s_or_the_host_s() {
        let host = "nameserver 1.1.1.1\nsearch a.example b.example\noptions edns0\noptions rotate\n";
        let of = |search: &[&str], options: &[&str]| DnsConfig {
            search: search.iter().map(|s| (*s).into()).collect(),
            options: options.iter().map(|s| (*s).into()).collect(),
            ..Default::default()
        };
        for (dns, expected) in [
            (of(&[], &[]), "search a.example b.example\nnameserver 127.0.0.11\noptions ndots:0 edns0 rotate\n"),
            (of(&["c"], &["timeout:1"]), "search c\nnameserver 127.0.0.11\noptions ndots:0 timeout:1\n"),
            (of(&["."], &["ndots:2"]), "nameserver 127.0.0.11\noptions ndots:2\n"),
        ] {
            assert_eq!(resolv_conf(&dns, host), expected);
        }
        let bare = "domain a.example\n";
        assert_eq!(resolv_conf(&of(&[], &[]), bare), "search a.example\nnameserver 127.0.0.11\noptions ndots:0\n");
        assert_eq!(resolv_conf(&of(&[], &[]), ""), "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn a_container_finds_itself_by_name() {
        let text = hosts("web.example", &[[10, 0, 1, 3].into(), "fd00::3".parse().unwrap()]);
        assert!(text.ends_with("\n10.0.1.3\tweb.example web\nfd00::3\tweb.example web\n"), "{text}");
        assert!(hosts("web", &[]).ends_with("\n127.0.1.1\tweb\n"));
        assert!(text.starts_with("127.0.0.1\tlocalhost\n"));
    }
}
