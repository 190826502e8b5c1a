//! `network create` to a spec.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use rswarm_types::spec::{Ipam, NetworkDriver, NetworkSpec, SubnetSpec};
use rswarm_types::validate;

use super::Problems;
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
        internal: args.internal,
        attachable: args.attachable,
        ingress: args.ingress,
    };
    problems.broken(validate::network_spec(&spec));
    problems.finish()?;
    Ok(spec)
}

/// Each gateway and range goes to the subnet that holds it.
fn subnets(args: &Create, problems: &mut Problems) -> Vec<SubnetSpec> {
    let mut subnets: Vec<SubnetSpec> = args
        .subnet
        .iter()
        .filter_map(|text| net("--subnet", text, problems))
        .map(|subnet| SubnetSpec { subnet: subnet.trunc(), gateway: None, range: None })
        .collect();
    for text in &args.gateway {
        let Ok(gateway) = text.parse::<Ipv4Addr>() else {
            problems.add("--gateway", format!("\"{text}\": not an IPv4 address{}", ipv6_note(text)));
            continue;
        };
        match subnets.iter_mut().find(|s| s.subnet.contains(&gateway)) {
            Some(subnet) if subnet.gateway.is_none() => subnet.gateway = Some(gateway),
            Some(_) => problems.add("--gateway", format!("\"{text}\": its subnet has a gateway already")),
            None => problems.add("--gateway", format!("\"{text}\": no --subnet holds it")),
        }
    }
    for text in &args.ip_range {
        let Some(range) = net("--ip-range", text, problems) else { continue };
        match subnets.iter_mut().find(|s| s.subnet.contains(&range)) {
            Some(subnet) if subnet.range.is_none() => subnet.range = Some(range.trunc()),
            Some(_) => problems.add("--ip-range", format!("\"{text}\": its subnet has a range already")),
            None => problems.add("--ip-range", format!("\"{text}\": no --subnet holds it")),
        }
    }
    subnets
}

fn net(flag: &str, text: &str, problems: &mut Problems) -> Option<Ipv4Net> {
    let net = text.parse().ok();
    if net.is_none() {
        let note = ipv6_note(text);
        problems.add(
            flag,
            format!("\"{text}\": not an IPv4 subnet{note}\n       allowed: ADDRESS/LENGTH, e.g. 10.9.0.0/24"),
        );
    }
    net
}

fn ipv6_note(text: &str) -> &'static str {
    if text.contains(':') { "; IPv6 is not built yet" } else { "" }
}
