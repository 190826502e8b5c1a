//! Rules of the cluster and of nodes.

use ipnet::IpNet;

use super::{Found, Violation};
use crate::limits;
use crate::network::overlap;
use crate::spec::{ClusterSpec, NodeSpec};

/// UDP ports that VXLAN may use (Docker's range).
const DATA_PATH_PORTS: std::ops::RangeInclusive<u16> = 1_024..=49_151;

/// Prefix lengths that address pools may be cut into.
const SUBNET_BITS: std::ops::RangeInclusive<u8> = 8..=29;

/// Every rule that the cluster's settings break; empty = valid.
pub fn cluster_spec(spec: &ClusterSpec) -> Vec<Violation> {
    let mut found = Found::default();
    found.check(spec.name == "default", "name", || format!("it is \"{}\"; allowed is \"default\"", spec.name));
    found.labels("label", spec.labels.keys());
    found.check(SUBNET_BITS.contains(&spec.subnet_bits), "default-addr-pool-mask-length", || {
        format!("it is {}; allowed are {}-{}", spec.subnet_bits, SUBNET_BITS.start(), SUBNET_BITS.end())
    });
    pools(&mut found, spec);
    let port = spec.data_path_port;
    found.check(DATA_PATH_PORTS.contains(&port), "data-path-port", || {
        format!("it is {port}; allowed are {}-{}", DATA_PATH_PORTS.start(), DATA_PATH_PORTS.end())
    });
    found.check(port != limits::GOSSIP_PORT && port != limits::ENCRYPTED_PORT, "data-path-port", || {
        format!("{port} is used by the cluster itself")
    });
    found.check(spec.cert_expiry.as_millis() >= u128::from(limits::CERT_EXPIRY_MIN_MS), "cert-expiry", || {
        let minimum = std::time::Duration::from_millis(limits::CERT_EXPIRY_MIN_MS);
        format!(
            "it is {}; at least {}",
            crate::parse::format_duration(spec.cert_expiry),
            crate::parse::format_duration(minimum)
        )
    });
    found.check(spec.snapshot_interval > 0, "snapshot-interval", || "it is 0; at least 1".into());
    found.0
}

fn pools(found: &mut Found, spec: &ClusterSpec) {
    let is_v4 = |pool: &IpNet| pool.addr().is_ipv4();
    found.check(spec.address_pools.iter().any(is_v4), "default-addr-pool", || "no address pool of IPv4".into());
    for (index, pool) in spec.address_pools.iter().enumerate() {
        let bits = if is_v4(pool) { spec.subnet_bits } else { limits::SUBNET_BITS_IPV6 };
        found.check(pool.prefix_len() <= bits, "default-addr-pool", || {
            format!("{pool} is smaller than one subnet of it, /{bits}")
        });
        found.check(pool.addr() == pool.network(), "default-addr-pool", || {
            format!("{pool} has host bits set; write {}", pool.trunc())
        });
        for other in &spec.address_pools[..index] {
            found.check(!overlap(*pool, *other), "default-addr-pool", || format!("{pool} overlaps {other}"));
        }
    }
}

/// Every rule that a node's settings break; empty = valid.
pub fn node_spec(spec: &NodeSpec) -> Vec<Violation> {
    let mut found = Found::default();
    if !spec.name.is_empty() {
        found.add_some("name", super::name::name_problem(&spec.name));
    }
    found.labels("label", spec.labels.keys());
    found.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_broken_rule_of_the_cluster_is_named() {
        type Edit = fn(&mut ClusterSpec);
        let cases: &[(Edit, &str)] = &[
            (|c| c.name = "x".into(), "invalid name: it is \"x\""),
            (|c| c.subnet_bits = 30, "invalid default-addr-pool-mask-length: it is 30; allowed are 8-29"),
            (|c| c.address_pools.clear(), "invalid default-addr-pool: no address pool of IPv4"),
            (|c| c.address_pools = vec!["fd00::/48".parse().unwrap()], "no address pool of IPv4"),
            (|c| c.address_pools.push("fd00::/65".parse().unwrap()), "fd00::/65 is smaller than one subnet of it, /64"),
            (
                |c| c.address_pools.extend(["fd00::/48", "fd00:0:0:5::/64"].map(|p| p.parse::<IpNet>().unwrap())),
                "fd00:0:0:5::/64 overlaps fd00::/48",
            ),
            (
                |c| c.address_pools = vec!["10.0.0.0/26".parse().unwrap()],
                "10.0.0.0/26 is smaller than one subnet of it, /24",
            ),
            (|c| c.address_pools = vec!["10.0.1.0/16".parse().unwrap()], "write 10.0.0.0/16"),
            (
                |c| c.address_pools = vec!["10.0.0.0/8".parse().unwrap(), "10.9.0.0/16".parse().unwrap()],
                "10.9.0.0/16 overlaps 10.0.0.0/8",
            ),
            (|c| c.data_path_port = 80, "invalid data-path-port: it is 80; allowed are 1024-49151"),
            (|c| c.data_path_port = 7946, "7946 is used by the cluster itself"),
            (
                |c| c.cert_expiry = std::time::Duration::from_secs(60),
                "invalid cert-expiry: it is 1m0s; at least 1h0m0s",
            ),
            (|c| c.snapshot_interval = 0, "invalid snapshot-interval"),
        ];
        assert_eq!(cluster_spec(&ClusterSpec::default()), []);
        let mut dual = ClusterSpec::default();
        dual.address_pools.push("fd00::/48".parse().unwrap());
        assert_eq!(cluster_spec(&dual), []);
        for (edit, expected) in cases {
            let mut spec = ClusterSpec::default();
            edit(&mut spec);
            let report: Vec<String> = cluster_spec(&spec).iter().map(ToString::to_string).collect();
            assert_eq!(report.len(), 1, "{expected}: {report:?}");
            assert!(report[0].contains(expected), "expected {expected}, got {report:?}");
        }
    }

    #[test]
    fn node_labels_need_a_key() {
        let mut spec = NodeSpec::default();
        assert_eq!(node_spec(&spec), []);
        spec.labels.insert(String::new(), "x".into());
        assert_eq!(node_spec(&spec)[0].to_string(), "invalid label: no label key");
    }
}
