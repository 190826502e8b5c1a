//! The networks that a stack declares and its services join.

use std::collections::BTreeMap;

use ipnet::IpNet;
use rswarm_types::spec::{NetworkAttachment, NetworkDriver, NetworkSpec, SubnetSpec};
use rswarm_types::validate;

use super::{Context, labels};
use crate::StackNetwork;
use crate::report::Report;
use crate::tree::{Entry, Node, Place, Value};

const NETWORK_KEYS: [&str; 9] =
    ["attachable", "driver", "driver_opts", "enable_ipv6", "external", "internal", "ipam", "labels", "name"];
const IPAM_KEYS: [&str; 2] = ["config", "driver"];
const SUBNET_KEYS: [&str; 4] = ["aux_addresses", "gateway", "ip_range", "subnet"];
const ATTACHMENT_KEYS: [&str; 2] = ["aliases", "driver_opts"];

/// Networks that every node has; nothing is resolved in them.
const PREDEFINED: [&str; 3] = ["bridge", "host", "none"];

/// The network of services that name none.
const DEFAULT: &str = "default";

/// Networks by their name in the file.
pub struct Networks {
    declared: BTreeMap<String, Declared>,
}

struct Declared {
    network: StackNetwork,
    is_used: bool,
}

/// Reads the top-level `networks`.
pub fn declared(context: &Context<'_>, node: Option<&Node>, report: &mut Report<'_>) -> Networks {
    let own = NetworkSpec {
        name: context.scoped(DEFAULT),
        labels: context.labelled(BTreeMap::new()),
        ..NetworkSpec::default()
    };
    let mut declared =
        BTreeMap::from([(DEFAULT.to_owned(), Declared { network: StackNetwork::Own(own), is_used: false })]);
    if let Some(node) = node.filter(|node| node.value != Value::Null) {
        for entry in report.any_map("networks", node) {
            let network = network(context, entry, report);
            declared.insert(entry.key.clone(), Declared { network, is_used: false });
        }
    }
    Networks { declared }
}

fn network(context: &Context<'_>, entry: &Entry, report: &mut Report<'_>) -> StackNetwork {
    let path = format!("networks.{}", entry.key);
    let node = &entry.value;
    let mut spec = NetworkSpec { name: context.scoped(&entry.key), ..NetworkSpec::default() };
    if node.value == Value::Null {
        spec.labels = context.labelled(BTreeMap::new());
        return StackNetwork::Own(spec);
    }
    let entries = report.map(&path, node, &NETWORK_KEYS);
    if let Some(name) = external_name(&path, entry, report) {
        return StackNetwork::External { name };
    }
    let mut own_labels = BTreeMap::new();
    for Entry { key, value, .. } in entries {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "name" => spec.name = report.text(&path, value).unwrap_or_default(),
            "driver" => driver(&path, value, report),
            "driver_opts" => {
                let pairs = report.pairs(&path, value);
                spec.driver_opts = pairs.into_iter().map(|pair| (pair.key, pair.value.unwrap_or_default())).collect();
            }
            "enable_ipv6" => spec.ipv6 = report.boolean(&path, value).unwrap_or_default(),
            "internal" => spec.internal = report.boolean(&path, value).unwrap_or_default(),
            "attachable" => spec.attachable = report.boolean(&path, value).unwrap_or_default(),
            "labels" => own_labels = labels(&path, value, report),
            "ipam" => spec.ipam.subnets = ipam(&path, value, report),
            _ => {}
        }
    }
    spec.labels = context.labelled(own_labels);
    for violation in validate::network_spec(&spec) {
        let (key, parent) = match violation.field.as_str() {
            "opt" => ("driver_opts", node),
            "subnet" | "gateway" | "ip-range" | "aux-address" => ("ipam", node),
            "label" => ("labels", node),
            "ipv6" => ("enable_ipv6", node),
            _ => (violation.field.as_str(), node),
        };
        let place = parent.key_place(key).unwrap_or(entry.place);
        report.error(place, format!("{path}.{key}: {}", violation.message));
    }
    StackNetwork::Own(spec)
}

/// The name of an external object: `external: true` (its own key, or `name`), or
/// `external: {name: …}`. Other settings contradict it.
pub fn external_name(path: &str, entry: &Entry, report: &mut Report<'_>) -> Option<String> {
    let node = &entry.value;
    let external = node.get("external")?;
    let given = node.get("name").and_then(|name| report.text(&format!("{path}.name"), name));
    let name = match &external.value {
        Value::Map(_) => {
            let path = format!("{path}.external");
            report.map(&path, external, &["name"]);
            let inner = external.get("name").and_then(|name| report.text(&format!("{path}.name"), name));
            if inner.is_some() && given.is_some() {
                report.error(external.place, format!("{path}.name and name are both given; use name"));
            }
            inner.or(given)
        }
        _ => {
            if !report.boolean(&format!("{path}.external"), external)? {
                return None;
            }
            given
        }
    };
    for other in node.entries() {
        if !matches!(other.key.as_str(), "external" | "name") && !other.key.starts_with("x-") {
            report.error(other.place, format!("{path}: \"external\" and \"{}\" contradict each other", other.key));
        }
    }
    Some(name.unwrap_or_else(|| entry.key.clone()))
}

fn driver(path: &str, node: &Node, report: &mut Report<'_>) {
    let Some(name) = report.text(path, node) else { return };
    if !name.is_empty() && name != NetworkDriver::Overlay.to_string() {
        report
            .error(node.place, format!("{path} is \"{name}\", which is not built yet for stacks; allowed is overlay"));
    }
}

fn ipam(path: &str, node: &Node, report: &mut Report<'_>) -> Vec<SubnetSpec> {
    let mut subnets = Vec::new();
    for Entry { key, value, .. } in report.map(path, node, &IPAM_KEYS) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "driver" => {
                if let Some(name) = report.text(&path, value).filter(|name| name != "default") {
                    report.error(
                        value.place,
                        format!("{path} is \"{name}\", which is not built yet; allowed is default"),
                    );
                }
            }
            "config" => {
                for item in report.list(&path, value) {
                    subnets.extend(subnet(&path, item, report));
                }
            }
            _ => {}
        }
    }
    subnets
}

fn subnet(path: &str, node: &Node, report: &mut Report<'_>) -> Option<SubnetSpec> {
    report.map(path, node, &SUBNET_KEYS);
    let Some(value) = node.get("subnet") else {
        report.error(node.place, format!("{path} has no subnet"));
        return None;
    };
    let subnet = net(&format!("{path}.subnet"), value, report)?;
    let range = node.get("ip_range").and_then(|value| net(&format!("{path}.ip_range"), value, report));
    let gateway = node.get("gateway").and_then(|value| {
        let path = format!("{path}.gateway");
        let text = report.text(&path, value)?;
        report.address(&path, value.place, &text)
    });
    let mut aux_addresses = BTreeMap::new();
    if let Some(value) = node.get("aux_addresses") {
        let path = format!("{path}.aux_addresses");
        for pair in report.pairs(&path, value) {
            let text = pair.value.unwrap_or_default();
            let path = format!("{path}.{}", pair.key);
            aux_addresses.extend(report.address(&path, pair.place, &text).map(|address| (pair.key, address)));
        }
    }
    Some(SubnetSpec { subnet, gateway, range, aux_addresses })
}

fn net(path: &str, node: &Node, report: &mut Report<'_>) -> Option<IpNet> {
    let text = report.text(path, node)?;
    let net = text.parse().ok();
    if net.is_none() {
        report.error(node.place, format!("{path} is \"{text}\"; expected a network such as 10.1.0.0/24 or fd00::/64"));
    }
    net
}

/// One network of a service, as the file writes it.
struct Wanted {
    place: Place,
    name: String,
    aliases: Vec<String>,
    driver_opts: BTreeMap<String, String>,
}

impl Networks {
    /// The networks that a service joins, sorted by name; without any it joins the default one.
    pub fn of_service(&mut self, service: &Entry, report: &mut Report<'_>) -> Vec<NetworkAttachment> {
        let path = format!("services.{}.networks", service.key);
        let node = service.value.get("networks");
        let mut wanted = node.map_or_else(Vec::new, |node| wanted(&path, node, report));
        if wanted.is_empty() {
            wanted.push(Wanted {
                place: service.place,
                name: DEFAULT.into(),
                aliases: Vec::new(),
                driver_opts: BTreeMap::new(),
            });
        }
        let mut attachments: Vec<NetworkAttachment> = Vec::new();
        for Wanted { place, name, mut aliases, driver_opts } in wanted {
            let Some(declared) = self.declared.get_mut(&name) else {
                report.error(
                    place,
                    format!("{path}: undefined network \"{name}\"; declare it under the top-level networks"),
                );
                continue;
            };
            declared.is_used = true;
            let target = declared.network.name().to_owned();
            if !PREDEFINED.contains(&target.as_str()) && !aliases.contains(&service.key) {
                aliases.push(service.key.clone());
            }
            attachments.push(NetworkAttachment { target, aliases, driver_opts });
        }
        attachments.sort_by(|a, b| a.target.cmp(&b.target));
        attachments
    }

    /// The networks that some service joins, sorted by name.
    pub fn used(self) -> Vec<StackNetwork> {
        let used = self.declared.into_values().filter(|declared| declared.is_used);
        let mut networks: Vec<StackNetwork> = used.map(|declared| declared.network).collect();
        networks.sort_by(|a, b| a.name().cmp(b.name()));
        networks
    }
}

fn wanted(path: &str, node: &Node, report: &mut Report<'_>) -> Vec<Wanted> {
    if let Value::List(_) = node.value {
        let names = report.texts(path, node).into_iter();
        return names
            .map(|(place, name)| Wanted { place, name, aliases: Vec::new(), driver_opts: BTreeMap::new() })
            .collect();
    }
    let mut found = Vec::new();
    for entry in report.any_map(path, node) {
        let mut wanted =
            Wanted { place: entry.place, name: entry.key.clone(), aliases: Vec::new(), driver_opts: BTreeMap::new() };
        if entry.value.value != Value::Null {
            let path = format!("{path}.{}", entry.key);
            for Entry { key, value, .. } in report.map(&path, &entry.value, &ATTACHMENT_KEYS) {
                let path = format!("{path}.{key}");
                match key.as_str() {
                    "aliases" => {
                        wanted.aliases = report.texts(&path, value).into_iter().map(|(_, alias)| alias).collect()
                    }
                    "driver_opts" => {
                        let pairs = report.pairs(&path, value).into_iter();
                        wanted.driver_opts = pairs.map(|pair| (pair.key, pair.value.unwrap_or_default())).collect();
                    }
                    _ => {}
                }
            }
        }
        found.push(wanted);
    }
    found
}
