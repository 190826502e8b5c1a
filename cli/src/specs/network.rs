//! `network create` to a spec.

use std::net::IpAddr;

use ipnet::IpNet;
use rswarm_types::parse::{ParseError, parse_label};
use rswarm_types::spec::{Ipam, NetworkDriver, NetworkSpec, SubnetSpec};
use rswarm_types::validate;

use super::Problems;
use super::create::address;
use crate::args::network::Create;
use crate::errors::Result;

/// The network that the flags describe.
///
/// # Errors
/// Everything that is wrong with it, also what is not built yet.
pub fn network_spec(args: &Create) -> Result<NetworkSpec> {
    args.later.refuse()?;
    let mut problems = Problems::default();
    let is = |given: &str, known: &str| given.eq_ignore_ascii_case(known);
    if !is(&args.driver, "overlay") {
        problems.add(
            "--driver",
            format!("\"{}\": only overlay networks can be created yet\n       say: --driver overlay", args.driver),
        );
    }
    if args.scope.as_deref().is_some_and(|scope| !is(scope, "swarm")) {
        problems.say("a --scope other than swarm is not built yet");
    }
    if !is(&args.ipam_driver, "default") {
        problems.say("an --ipam-driver other than default is not built yet");
    }
    if !args.ipv4 {
        problems.say("--ipv4=false is not built yet");
    }
    let spec = NetworkSpec {
        name: args.name.clone(),
        labels: problems.labels("--label", &args.label),
        driver: NetworkDriver::Overlay,
        driver_opts: problems.labels("--opt", &args.opt),
        ipam: Ipam { subnets: subnets(args, &mut problems) },
        ipv6: args.ipv6,
        internal: args.internal,
        attachable: args.attachable,
        ingress: args.ingress,
    };
    problems.broken(validate::network_spec(&spec));
    problems.finish()?;
    Ok(spec)
}

/// Each gateway, range and reserved address goes to the subnet that holds it.
fn subnets(args: &Create, problems: &mut Problems) -> Vec<SubnetSpec> {
    let mut subnets: Vec<SubnetSpec> =
        problems.each("--subnet", &args.subnet, net).into_iter().map(|subnet| subnet.trunc().into()).collect();
    for gateway in problems.each("--gateway", &args.gateway, address) {
        match subnets.iter_mut().find(|s| s.subnet.contains(&gateway)) {
            Some(subnet) if subnet.gateway.is_none() => subnet.gateway = Some(gateway),
            Some(_) => problems.add("--gateway", format!("\"{gateway}\": its subnet has a gateway already")),
            None => problems.add("--gateway", format!("\"{gateway}\": no --subnet holds it")),
        }
    }
    for range in problems.each("--ip-range", &args.ip_range, net) {
        match subnets.iter_mut().find(|s| s.subnet.contains(&range)) {
            Some(subnet) if subnet.range.is_none() => subnet.range = Some(range.trunc()),
            Some(_) => problems.add("--ip-range", format!("\"{range}\": its subnet has a range already")),
            None => problems.add("--ip-range", format!("\"{range}\": no --subnet holds it")),
        }
    }
    for (name, reserved) in problems.each("--aux-address", &args.aux_address, named_address) {
        match subnets.iter_mut().find(|s| s.subnet.contains(&reserved)) {
            // The same name may stand in several subnets.
            Some(subnet) => {
                if subnet.aux_addresses.insert(name.clone(), reserved).is_some() {
                    problems
                        .add("--aux-address", format!("\"{name}\": its subnet has an address of this name already"));
                }
            }
            None => problems.add("--aux-address", format!("\"{name}={reserved}\": no --subnet holds it")),
        }
    }
    subnets
}

fn net(text: &str) -> std::result::Result<IpNet, ParseError> {
    text.parse().map_err(|_| ParseError::new(text, "not a subnet", "ADDRESS/LENGTH, e.g. 10.9.0.0/24 or fd00:9::/64"))
}

/// `NAME=IP`.
fn named_address(text: &str) -> std::result::Result<(String, IpAddr), ParseError> {
    let (name, value) = parse_label(text)?;
    match value.parse() {
        Ok(address) => Ok((name, address)),
        Err(_) => Err(ParseError::new(text, format!("address is \"{value}\""), "NAME=IP, e.g. router=10.9.0.5")),
    }
}
