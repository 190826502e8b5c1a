//! `service create` to a spec.

use rswarm_types::parse::choice::ModeWord;
use rswarm_types::parse::{
    ParseError, parse_env, parse_env_file, parse_host, parse_mount, parse_network, parse_placement_pref, parse_publish,
    parse_ulimit,
};
use rswarm_types::spec::{ServiceMode, ServiceSpec};
use rswarm_types::validate;

use super::{Problems, Surroundings, choice, flags};
use crate::args::service::Create;
use crate::errors::Result;

/// The spec that the flags describe, with the image as written.
///
/// # Errors
/// Everything that is wrong with it.
pub fn service_spec(args: &Create, around: &Surroundings<'_>) -> Result<ServiceSpec> {
    args.later.refuse()?;
    let mut problems = Problems::default();
    let mut spec = ServiceSpec { name: args.name.clone(), ..ServiceSpec::default() };
    if problems.take("--mode", choice::<ModeWord>(&args.mode)) == Some(ModeWord::Global) {
        spec.mode = ServiceMode::Global;
    }
    spec.labels = problems.labels("--label", &args.label);
    let container = &mut spec.task.container;
    if let Some((image, rest)) = args.image_and_args.split_first() {
        container.image.clone_from(image);
        container.args = rest.to_vec();
    }
    container.labels = problems.labels("--container-label", &args.container_label);
    container.env = environment(args, around, &mut problems);
    container.groups.clone_from(&args.group);
    container.mounts = problems.each("--mount", &args.mount, parse_mount);
    container.hosts = problems.each("--host", &args.host, parse_host);
    container.dns.nameservers = problems.each("--dns", &args.dns, address);
    container.dns.search.clone_from(&args.dns_search);
    container.dns.options.clone_from(&args.dns_option);
    container.sysctls = problems.labels("--sysctl", &args.sysctl);
    container.ulimits = problems.each("--ulimit", &args.ulimit, parse_ulimit);
    spec.task.placement.constraints.clone_from(&args.constraint);
    spec.task.placement.preferences = problems.each("--placement-pref", &args.placement_pref, parse_placement_pref);
    spec.task.networks = problems.each("--network", &args.network, parse_network);
    spec.endpoint.ports = problems.each("--publish", &args.publish, parse_publish).concat();
    flags::apply(&args.flags, &mut spec, &mut problems);
    problems.broken(validate::service_spec(&spec));
    problems.finish()?;
    Ok(spec)
}

/// An address, in the form of the other readers.
pub(super) fn address(text: &str) -> std::result::Result<std::net::IpAddr, ParseError> {
    text.parse().map_err(|_| ParseError::new(text, "not an address", "an IPv4 or IPv6 address"))
}

/// Files first, then flags; of two values of one variable the later one wins.
fn environment(args: &Create, around: &Surroundings<'_>, problems: &mut Problems) -> Vec<String> {
    let mut all = Vec::new();
    for path in &args.env_file {
        let shown = path.display();
        match (around.read)(path) {
            Err(e) => problems.add("--env-file", format!("\"{shown}\": {e}")),
            Ok(text) => match parse_env_file(&text, around.env) {
                Ok(variables) => all.extend(variables),
                Err(e) => problems.add("--env-file", format!("\"{shown}\": {e}")),
            },
        }
    }
    all.extend(problems.each("--env", &args.env, |text| parse_env(text, around.env)));
    last_of_each(all)
}

/// Variables in order of first mention, each with its last value.
pub(super) fn last_of_each(all: Vec<String>) -> Vec<String> {
    let key = |text: &str| text.split('=').next().unwrap_or(text).to_owned();
    let mut out: Vec<String> = Vec::new();
    for variable in all {
        match out.iter_mut().find(|known| key(known) == key(&variable)) {
            Some(known) => *known = variable,
            None => out.push(variable),
        }
    }
    out
}
