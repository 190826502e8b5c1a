//! `service update`: changes put into the present spec.

use std::collections::BTreeMap;

use rswarm_types::parse::port::parse_protocol;
use rswarm_types::parse::{
    ParseError, parse_env, parse_host, parse_mount, parse_network, parse_placement_pref, parse_publish, parse_ulimit,
    split_words,
};
use rswarm_types::spec::{HostEntry, PortConfig, Protocol, ServiceSpec, share_address};
use rswarm_types::validate;

use super::create::{address, last_of_each};
use super::{Problems, Surroundings, flags};
use crate::args::service_update::Update;
use crate::errors::Result;

/// Puts the changes into a spec. `network_id` finds the id of a network that the user names.
///
/// # Errors
/// Everything that is wrong with the flags, and with the spec that they make.
pub fn change_service(
    args: &Update,
    spec: &mut ServiceSpec,
    network_id: &dyn Fn(&str) -> Option<String>,
    around: &Surroundings<'_>,
) -> Result<()> {
    args.later.refuse()?;
    let mut problems = Problems::default();
    labels(&mut spec.labels, ("--label-add", &args.label_add), &args.label_rm, &mut problems);
    container(args, spec, around, &mut problems);
    placement(args, spec, &mut problems);
    networks(args, spec, network_id, &mut problems);
    ports(args, &mut spec.endpoint.ports, &mut problems);
    if let Some(image) = &args.image {
        spec.task.container.image.clone_from(image);
    }
    if args.force {
        spec.task.force_update += 1;
    }
    flags::apply(&args.flags, spec, &mut problems);
    problems.broken(validate::service_spec(spec));
    problems.finish()
}

fn labels(
    labels: &mut BTreeMap<String, String>,
    (flag, add): (&str, &[String]),
    remove: &[String],
    problems: &mut Problems,
) {
    labels.retain(|key, _| !remove.contains(key));
    labels.extend(problems.labels(flag, add));
}

/// Removes what is named, then adds what is new; the order of the rest stays.
fn words(list: &mut Vec<String>, add: &[String], remove: &[String]) {
    list.retain(|word| !remove.contains(word));
    for word in add {
        if !list.contains(word) {
            list.push(word.clone());
        }
    }
}

fn container(args: &Update, spec: &mut ServiceSpec, around: &Surroundings<'_>, problems: &mut Problems) {
    let container = &mut spec.task.container;
    if let Some(words) = problems.read("--args", args.args.as_ref(), split_words) {
        container.args = words;
    }
    let label_add = ("--container-label-add", args.container_label_add.as_slice());
    labels(&mut container.labels, label_add, &args.container_label_rm, problems);
    let key = |text: &str| text.split('=').next().unwrap_or(text).to_owned();
    container.env.retain(|variable| !args.env_rm.iter().any(|gone| key(gone) == key(variable)));
    container.env.extend(problems.each("--env-add", &args.env_add, |text| parse_env(text, around.env)));
    container.env = last_of_each(std::mem::take(&mut container.env));
    words(&mut container.groups, &args.group_add, &args.group_rm);
    words(&mut container.dns.search, &args.dns_search_add, &args.dns_search_rm);
    words(&mut container.dns.options, &args.dns_option_add, &args.dns_option_rm);
    let servers_gone = problems.each("--dns-rm", &args.dns_rm, address);
    container.dns.nameservers.retain(|server| !servers_gone.contains(server));
    for server in problems.each("--dns-add", &args.dns_add, address) {
        if !container.dns.nameservers.contains(&server) {
            container.dns.nameservers.push(server);
        }
    }
    container.hosts.retain(|entry| !args.host_rm.iter().any(|gone| is_host(entry, gone)));
    for entry in problems.each("--host-add", &args.host_add, parse_host) {
        if !container.hosts.contains(&entry) {
            container.hosts.push(entry);
        }
    }
    let sysctl_add = ("--sysctl-add", args.sysctl_add.as_slice());
    labels(&mut container.sysctls, sysctl_add, &args.sysctl_rm, problems);
    container.ulimits.retain(|limit| !args.ulimit_rm.contains(&limit.name));
    for limit in problems.each("--ulimit-add", &args.ulimit_add, parse_ulimit) {
        container.ulimits.retain(|old| old.name != limit.name);
        container.ulimits.push(limit);
    }
    container.mounts.retain(|mount| !args.mount_rm.contains(&mount.target));
    for mount in problems.each("--mount-add", &args.mount_add, parse_mount) {
        container.mounts.retain(|old| old.target != mount.target);
        container.mounts.push(mount);
    }
}

/// `--host-rm NAME` or `NAME:IP`.
fn is_host(entry: &HostEntry, gone: &str) -> bool {
    match parse_host(gone) {
        Ok(wanted) => wanted == *entry,
        Err(_) => entry.name == gone,
    }
}

fn placement(args: &Update, spec: &mut ServiceSpec, problems: &mut Problems) {
    let placement = &mut spec.task.placement;
    // Spaces in an expression mean nothing.
    let plain = |text: &str| text.split_whitespace().collect::<String>();
    placement.constraints.retain(|old| !args.constraint_rm.iter().any(|gone| plain(gone) == plain(old)));
    for new in &args.constraint_add {
        if !placement.constraints.iter().any(|old| plain(old) == plain(new)) {
            placement.constraints.push(new.clone());
        }
    }
    let gone = problems.each("--placement-pref-rm", &args.placement_pref_rm, parse_placement_pref);
    placement.preferences.retain(|preference| !gone.contains(preference));
    placement.preferences.extend(problems.each("--placement-pref-add", &args.placement_pref_add, parse_placement_pref));
}

fn networks(
    args: &Update,
    spec: &mut ServiceSpec,
    network_id: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) {
    let id = |name: &str| network_id(name).unwrap_or_else(|| name.to_owned());
    let networks = &mut spec.task.networks;
    for gone in &args.network_rm {
        let before = networks.len();
        networks.retain(|attachment| id(&attachment.target) != id(gone));
        if networks.len() == before {
            problems.add("--network-rm", format!("\"{gone}\": the service is not on this network"));
        }
    }
    for attachment in problems.each("--network-add", &args.network_add, parse_network) {
        if networks.iter().any(|old| id(&old.target) == id(&attachment.target)) {
            problems.add("--network-add", format!("\"{}\": the service is on this network already", attachment.target));
        } else {
            networks.push(attachment);
        }
    }
}

fn ports(args: &Update, ports: &mut Vec<PortConfig>, problems: &mut Problems) {
    for (target, protocol) in problems.each("--publish-rm", &args.publish_rm, target_port) {
        ports.retain(|port| (port.target, port.protocol) != (target, protocol));
    }
    for port in problems.each("--publish-add", &args.publish_add, parse_publish).concat() {
        ports.retain(|old| !is_replaced(old, &port));
        ports.push(port);
    }
}

/// Whether the new port stands in for the old one: the same target and number, where both could not be.
fn is_replaced(old: &PortConfig, new: &PortConfig) -> bool {
    let key = |port: &PortConfig| (port.target, port.published, port.protocol);
    key(old) == key(new) && share_address(old.address, new.address)
}

/// `--publish-rm TARGET[/PROTOCOL]`; a published port before it is passed over, as by Docker.
fn target_port(text: &str) -> std::result::Result<(u16, Protocol), ParseError> {
    let error =
        |problem: String| ParseError::new(text, problem, "TARGET[/tcp|/udp|/sctp] with a port 1-65535, e.g. 80");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let target = ports.rsplit(':').next().unwrap_or(ports);
    let port = target.parse().ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| error(format!("target port is \"{target}\"")))?;
    Ok((port, parse_protocol(protocol).map_err(error)?))
}
