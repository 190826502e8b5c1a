//! Settings of the whole cluster.

use std::time::Duration;

use ipnet::IpNet;

use crate::limits;

/// Cluster-wide settings, `rswarm init`'s flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// Always "default", as Swarm names it.
    pub name: String,
    pub labels: std::collections::BTreeMap<String, String>,
    /// Pools from which networks without `--subnet` are cut, at least one of IPv4. Default 10.0.0.0/8; without a pool
    /// of IPv6, such subnets come from a local prefix of the cluster (RFC 4193).
    pub address_pools: Vec<IpNet>,
    /// Prefix length of one cut of IPv4, default 24; those of IPv6 have [`limits::SUBNET_BITS_IPV6`].
    pub subnet_bits: u8,
    /// UDP port of VXLAN, fixed at init.
    pub data_path_port: u16,
    /// Life of node certificates.
    pub cert_expiry: Duration,
    /// Finished tasks kept per slot; negative = all.
    pub task_history_limit: i64,
    /// Log entries between snapshots.
    pub snapshot_interval: u64,
}

impl Default for ClusterSpec {
    fn default() -> Self {
        Self {
            name: "default".into(),
            labels: Default::default(),
            address_pools: vec![IpNet::new_assert([10, 0, 0, 0].into(), 8)],
            subnet_bits: 24,
            data_path_port: limits::DATA_PATH_PORT,
            cert_expiry: Duration::from_millis(limits::CERT_EXPIRY_MS),
            task_history_limit: limits::TASK_HISTORY_LIMIT,
            snapshot_interval: limits::SNAPSHOT_INTERVAL,
        }
    }
}
