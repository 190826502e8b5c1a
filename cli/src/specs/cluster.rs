//! `init` to the cluster's settings.

use ipnet::IpNet;
use rswarm_types::parse::parse_duration;
use rswarm_types::spec::{Availability, ClusterSpec};
use rswarm_types::{limits, validate};

use super::{Problems, choice};
use crate::args::cluster::Init;
use crate::errors::Result;

/// The settings that the flags describe, and the availability of the first node.
///
/// # Errors
/// Everything that is wrong with them, also what is not built yet.
pub fn cluster_spec(args: &Init) -> Result<(ClusterSpec, Availability)> {
    args.later.refuse()?;
    let mut problems = Problems::default();
    let mut spec = ClusterSpec { task_history_limit: args.task_history_limit, ..ClusterSpec::default() };
    spec.snapshot_interval = args.snapshot_interval;
    if args.max_snapshots != 0 {
        problems.say("--max-snapshots other than 0 is not built yet");
    }
    match u16::try_from(args.data_path_port) {
        Ok(0) => spec.data_path_port = limits::DATA_PATH_PORT,
        Ok(port) => spec.data_path_port = port,
        Err(_) => problems.add("--data-path-port", format!("\"{}\": not a port", args.data_path_port)),
    }
    match u8::try_from(args.default_addr_pool_mask_length) {
        Ok(bits) => spec.subnet_bits = bits,
        Err(_) => problems.add(
            "--default-addr-pool-mask-length",
            format!("\"{}\": longer than an address", args.default_addr_pool_mask_length),
        ),
    }
    let mut pools = Vec::new();
    for text in &args.default_addr_pool {
        match text.parse::<IpNet>() {
            Ok(pool) => pools.push(pool),
            Err(_) => problems.add(
                "--default-addr-pool",
                format!("\"{text}\": not a subnet\n       allowed: ADDRESS/LENGTH, e.g. 10.0.0.0/8 or fd00:5::/48"),
            ),
        }
    }
    if pools.iter().any(|pool| pool.addr().is_ipv4()) {
        spec.address_pools = pools;
    } else {
        // Those of IPv4 stay as they are where only others are given.
        spec.address_pools.extend(pools);
    }
    if let Some(expiry) = problems.read("--cert-expiry", Some(&args.cert_expiry), parse_duration) {
        spec.cert_expiry = expiry;
    }
    let availability = problems.read("--availability", Some(&args.addresses.availability), choice);
    problems.broken(validate::cluster_spec(&spec));
    problems.finish()?;
    Ok((spec, availability.unwrap_or_default()))
}
