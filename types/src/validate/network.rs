//! Rules of a network.

use super::name::name_problem;
use super::{Found, Violation};
use crate::limits;
use crate::spec::{NetworkDriver, NetworkSpec, SubnetSpec};

/// The one driver option that is known.
const MTU_OPTION: &str = "com.docker.network.driver.mtu";

/// Prefix lengths of a subnet that leave room for a gateway and tasks.
const SUBNET_PREFIXES: std::ops::RangeInclusive<u8> = 8..=29;

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
    for (key, value) in &spec.driver_opts {
        driver_option(&mut found, key, value);
    }
    subnets(&mut found, &spec.ipam.subnets);
    found.0
}

fn driver_option(found: &mut Found, key: &str, value: &str) {
    let range = limits::OVERLAY_MTU_MIN..=limits::OVERLAY_MTU_MAX;
    match key {
        MTU_OPTION => {
            found.check(value.parse().is_ok_and(|mtu: u32| range.contains(&mtu)), "opt", || {
                format!("{MTU_OPTION} is \"{value}\"; allowed are {}-{}", range.start(), range.end())
            });
        }
        "encrypted" => found.add("opt", "encrypted networks are not built yet"),
        _ => found.add("opt", format!("\"{key}\" is not known; allowed is {MTU_OPTION}")),
    }
}

fn subnets(found: &mut Found, subnets: &[SubnetSpec]) {
    for (index, spec) in subnets.iter().enumerate() {
        let SubnetSpec { subnet, gateway, range } = spec;
        let prefixes = SUBNET_PREFIXES;
        found.check(prefixes.contains(&subnet.prefix_len()), "subnet", || {
            format!("it is {subnet}; allowed are prefix lengths {}-{}", prefixes.start(), prefixes.end())
        });
        found.check(subnet.addr() == subnet.network(), "subnet", || {
            format!("it is {subnet}, which has host bits set; write {}", subnet.trunc())
        });
        for other in &subnets[..index] {
            let overlaps = subnet.contains(&other.subnet.network()) || other.subnet.contains(&subnet.network());
            found.check(!overlaps, "subnet", || format!("{subnet} overlaps {}", other.subnet));
        }
        if let Some(gateway) = gateway {
            let is_inside = subnet.contains(gateway) && *gateway != subnet.network() && *gateway != subnet.broadcast();
            found.check(is_inside, "gateway", || format!("it is {gateway}, not a host address of {subnet}"));
        }
        if let Some(range) = range {
            found.check(subnet.contains(range), "ip-range", || format!("it is {range}, not inside {subnet}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(subnets: &[&str]) -> NetworkSpec {
        let mut spec = NetworkSpec { name: "front".into(), ..NetworkSpec::default() };
        spec.ipam.subnets =
            subnets.iter().map(|s| SubnetSpec { subnet: s.parse().unwrap(), gateway: None, range: None }).collect();
        spec
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
        ];
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
