//! Rules of a network.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::name::name_problem;
use super::{Found, Violation, duplicates};
use crate::limits;
use crate::network::{first_host, overlap};
use crate::spec::{NetworkDriver, NetworkSpec, SubnetSpec};

/// The one driver option that is known.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// Prefix lengths of an IPv4 subnet that leave room for a gateway and tasks.
const SUBNET_PREFIXES: RangeInclusive<u8> = 8..=29;

/// Prefix lengths of an IPv6 subnet: from what one site has to 65536 hosts.
const SUBNET_PREFIXES_IPV6: RangeInclusive<u8> = 48..=112;

/// Every rule that a network breaks; empty = valid.
pub fn network_spec(spec: &NetworkSpec) -> Vec<Violation> {
    let mut found = Found::default();
    found.add_some("name", name_problem(&spec.name));
    found.labels("label", spec.labels.keys());
    let predefined = match spec.name.as_str() {
        "host" => Some(NetworkDriver::Host),
        "none" => Some(NetworkDriver::Null),
        _ => None,
    };
    match (spec.driver, predefined) {
        (driver, Some(own)) => {
            found.check(driver == own, "name", || format!("\"{}\" is predefined; choose another name", spec.name));
        }
        (NetworkDriver::Overlay, None) => {
            found.check(spec.name != "bridge", "name", || "\"bridge\" is reserved; choose another name".into());
        }
        (driver, None) => {
            found.add("driver", format!("there is only one {driver} network, which is predefined; allowed is overlay"))
        }
    }
    if spec.ingress {
        found.check(!spec.internal, "internal", || "the ingress network cannot be internal".into());
        found.check(!spec.attachable, "attachable", || "the ingress network cannot be attachable".into());
    }
    if spec.driver != NetworkDriver::Overlay {
        found.check(!spec.ipv6, "ipv6", || format!("the {} network has no addresses of its own", spec.driver));
        found.check(spec.ipam.subnets.is_empty(), "subnet", || {
            format!("the {} network has no addresses of its own", spec.driver)
        });
    }
    for (key, value) in &spec.driver_opts {
        driver_option(&mut found, spec, key, value);
    }
    subnets(&mut found, spec);
    found.0
}

fn driver_option(found: &mut Found, spec: &NetworkSpec, key: &str, value: &str) {
    match key {
        MTU_OPTION => {
            let minimum = if spec.has_ipv6() { limits::OVERLAY_MTU_MIN_IPV6 } else { limits::OVERLAY_MTU_MIN };
            let range = minimum..=limits::OVERLAY_MTU_MAX;
            found.check(value.parse().is_ok_and(|mtu: u32| range.contains(&mtu)), "opt", || {
                format!("{MTU_OPTION} is \"{value}\"; allowed are {}-{}", range.start(), range.end())
            });
        }
        "encrypted" => found.add("opt", "encrypted networks are not built yet"),
        _ => found.add("opt", format!("\"{key}\" is not known; allowed is {MTU_OPTION}")),
    }
}

fn subnets(found: &mut Found, spec: &NetworkSpec) {
    let subnets = &spec.ipam.subnets;
    for (index, SubnetSpec { subnet, gateway, range, aux_addresses }) in subnets.iter().enumerate() {
        let is_v4 = subnet.addr().is_ipv4();
        let prefixes = if is_v4 { SUBNET_PREFIXES } else { SUBNET_PREFIXES_IPV6 };
        found.check(is_v4 || spec.has_ipv6(), "subnet", || {
            format!("{subnet} is of IPv6, which the network does not have; say --ipv6 (in a stack: enable_ipv6: true)")
        });
        found.check(prefixes.contains(&subnet.prefix_len()), "subnet", || {
            format!("it is {subnet}; allowed are prefix lengths {}-{}", prefixes.start(), prefixes.end())
        });
        found.check(subnet.addr() == subnet.network(), "subnet", || {
            format!("it is {subnet}, which has host bits set; write {}", subnet.trunc())
        });
        found.check(is_for_hosts(subnet.network()), "subnet", || {
            format!("it is {subnet}; loopback, link-local and multicast addresses are not for containers")
        });
        for other in &subnets[..index] {
            found.check(!overlap(*subnet, other.subnet), "subnet", || format!("{subnet} overlaps {}", other.subnet));
        }
        if let Some(gateway) = gateway {
            found.check(is_host(*subnet, *gateway), "gateway", || {
                format!("it is {gateway}, not a host address of {subnet}")
            });
        }
        if let Some(range) = range {
            found.check(subnet.contains(range), "ip-range", || format!("it is {range}, not inside {subnet}"));
        }
        for (name, address) in aux_addresses {
            found.check(is_host(*subnet, *address), "aux-address", || {
                format!("{name} is {address}, not a host address of {subnet}")
            });
            found.check(*address != gateway.unwrap_or_else(|| first_host(*subnet)), "aux-address", || {
                format!("{name} is {address}, the gateway")
            });
        }
        for address in duplicates(aux_addresses.values()) {
            found.add("aux-address", format!("{address} is given twice"));
        }
    }
}

fn is_host(subnet: IpNet, address: IpAddr) -> bool {
    subnet.contains(&address) && address != subnet.network() && address != subnet.broadcast()
}

fn is_for_hosts(address: IpAddr) -> bool {
    let is_link_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !address.is_loopback() && !address.is_multicast() && !address.is_unspecified() && !is_link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(subnets: &[&str]) -> NetworkSpec {
        let mut spec = NetworkSpec { name: "front".into(), ..NetworkSpec::default() };
        spec.ipam.subnets = subnets.iter().map(|s| s.parse::<IpNet>().unwrap().into()).collect();
        spec
    }

    fn dual(subnets: &[&str]) -> NetworkSpec {
        NetworkSpec { ipv6: true, ..net(subnets) }
    }

    #[test]
    fn each_broken_rule_of_a_network_is_named() {
        type Edit = fn(&mut NetworkSpec);
        let cases: &[(Edit, &str)] = &[
            (|n| n.name = "a b".into(), "invalid name: it is \"a b\""),
            (|n| n.name = "host".into(), "invalid name: \"host\" is predefined"),
            (|n| n.name = "bridge".into(), "\"bridge\" is reserved"),
            (|n| n.driver = NetworkDriver::Host, "invalid driver: there is only one host network"),
            (
                |n| {
                    n.ingress = true;
                    n.attachable = true;
                },
                "invalid attachable:",
            ),
            (
                |n| {
                    n.ingress = true;
                    n.internal = true;
                },
                "invalid internal:",
            ),
            (
                |n| {
                    n.driver_opts.insert("encrypted".into(), String::new());
                },
                "encrypted networks are not built yet",
            ),
            (
                |n| {
                    n.driver_opts.insert("x".into(), String::new());
                },
                "\"x\" is not known",
            ),
            (
                |n| {
                    n.driver_opts.insert(MTU_OPTION.into(), "9".into());
                },
                "is \"9\"; allowed are 576-",
            ),
            (|n| n.ipam = net(&["10.1.0.0/30"]).ipam, "allowed are prefix lengths 8-29"),
            (|n| n.ipam = net(&["10.1.0.1/24"]).ipam, "host bits set; write 10.1.0.0/24"),
            (|n| n.ipam = net(&["10.1.0.0/16", "10.1.4.0/24"]).ipam, "10.1.4.0/24 overlaps 10.1.0.0/16"),
            (
                |n| {
                    n.ipam = net(&["10.1.0.0/24"]).ipam;
                    n.ipam.subnets[0].gateway = Some([10, 1, 1, 1].into());
                },
                "invalid gateway: it is 10.1.1.1",
            ),
            (
                |n| {
                    n.ipam = net(&["10.1.0.0/24"]).ipam;
                    n.ipam.subnets[0].range = Some("10.2.0.0/25".parse().unwrap());
                },
                "invalid ip-range:",
            ),
            (
                |n| n.ipam = net(&["fd00::/64"]).ipam,
                "fd00::/64 is of IPv6, which the network does not have; say --ipv6",
            ),
            (|n| *n = dual(&["fd00::/113"]), "it is fd00::/113; allowed are prefix lengths 48-112"),
            (|n| *n = dual(&["fd00::1/64"]), "host bits set; write fd00::/64"),
            (|n| *n = dual(&["fd00::/64", "fd00::/80"]), "fd00::/80 overlaps fd00::/64"),
            (|n| *n = dual(&["fe80::/64"]), "it is fe80::/64; loopback, link-local and multicast"),
            (|n| n.ipam = net(&["224.0.0.0/8"]).ipam, "it is 224.0.0.0/8; loopback, link-local and multicast"),
            (
                |n| {
                    *n = dual(&["fd00::/64"]);
                    n.ipam.subnets[0].gateway = Some("10.1.0.1".parse().unwrap());
                },
                "invalid gateway: it is 10.1.0.1, not a host address of fd00::/64",
            ),
            (
                |n| {
                    *n = dual(&["fd00::/64"]);
                    n.ipam.subnets[0].range = Some("fd00:1::/80".parse().unwrap());
                },
                "invalid ip-range: it is fd00:1::/80",
            ),
            (
                |n| {
                    *n = dual(&["fd00::/64"]);
                    n.ipam.subnets[0].aux_addresses.insert("router".into(), "10.0.0.1".parse().unwrap());
                },
                "invalid aux-address: router is 10.0.0.1, not a host address of fd00::/64",
            ),
            (
                |n| {
                    *n = net(&["10.1.0.0/24"]);
                    let subnet = &mut n.ipam.subnets[0];
                    subnet.gateway = Some([10, 1, 0, 7].into());
                    subnet.aux_addresses.insert("router".into(), [10, 1, 0, 7].into());
                },
                "router is 10.1.0.7, the gateway",
            ),
            (
                |n| {
                    *n = net(&["10.1.0.0/24"]);
                    let aux = &mut n.ipam.subnets[0].aux_addresses;
                    aux.extend(["a", "b"].map(|name| (name.to_owned(), [10, 1, 0, 7].into())));
                },
                "invalid aux-address: 10.1.0.7 is given twice",
            ),
            (
                |n| {
                    *n = dual(&[]);
                    n.driver_opts.insert(MTU_OPTION.into(), "1279".into());
                },
                "is \"1279\"; allowed are 1280-",
            ),
            (
                |n| *n = NetworkSpec { name: "host".into(), driver: NetworkDriver::Host, ipv6: true, ..net(&[]) },
                "invalid ipv6: the host network has no addresses",
            ),
        ];
        assert_eq!(network_spec(&dual(&[])), []);
        assert_eq!(network_spec(&dual(&["10.1.0.0/24", "fd00::/64", "10.2.0.0/24", "fd00:0:0:1::/112"])), []);
        assert_eq!(network_spec(&net(&["10.1.0.0/24", "10.2.0.0/24"])), []);
        for (edit, expected) in cases {
            let mut spec = net(&[]);
            edit(&mut spec);
            let report: Vec<String> = network_spec(&spec).iter().map(ToString::to_string).collect();
            assert_eq!(report.len(), 1, "{expected}: {report:?}");
            assert!(report[0].contains(expected), "expected {expected}, got {report:?}");
        }
    }

    #[test]
    fn the_predefined_networks_are_valid() {
        for (name, driver) in [("host", NetworkDriver::Host), ("none", NetworkDriver::Null)] {
            assert_eq!(network_spec(&NetworkSpec { name: name.into(), driver, ..Default::default() }), []);
        }
    }
}
