//! `Network`.

use std::collections::BTreeMap;

use rswarm_types::network::{Addresses, Network, SubnetBlock};
use rswarm_types::spec::{NetworkDriver, NetworkSpec};
use rswarm_types::task::Task;

use crate::human::rfc3339;
use crate::json::{Json, Object, list};

/// A service on a network, for `--verbose`.
pub struct Attached {
    pub name: String,
    /// Its addresses there; none with dnsrr.
    pub vip: Addresses,
    pub ports: Vec<String>,
    /// Its live tasks with their addresses there and their node's address.
    pub tasks: Vec<(Task, Addresses, String)>,
}

/// A network. `services` is given for `--verbose`.
pub fn network(network: &Network, services: Option<&[Attached]>) -> Json {
    let spec = &network.spec;
    let config = list(&network.blocks, |block| {
        Object::new()
            .with("Subnet", block.subnet.to_string())
            .with_some("IPRange", (block.range != block.subnet).then(|| block.range.to_string()))
            .with("Gateway", block.gateway.to_string())
            .with_some("AuxiliaryAddresses", &reserved(spec, block))
    });
    let mut options: BTreeMap<String, String> = spec.driver_opts.clone();
    if spec.driver == NetworkDriver::Overlay {
        options.insert("com.docker.network.driver.overlay.vxlanid_list".into(), network.vni.to_string());
    }
    let shown = Object::new()
        .with("Name", &spec.name)
        .with("Id", network.id.to_string())
        .with("Created", rfc3339(network.meta.created_at))
        .with("Scope", "swarm")
        .with("Driver", spec.driver.to_string())
        .with("EnableIPv4", true)
        .with("EnableIPv6", spec.has_ipv6())
        .with("IPAM", Object::new().with("Driver", "default").with("Options", Json::Null).with("Config", config))
        .with("Internal", spec.internal)
        .with("Attachable", spec.attachable)
        .with("Ingress", spec.ingress)
        .with("ConfigFrom", Object::new().with("Network", ""))
        .with("ConfigOnly", false)
        .with("Containers", Json::Null)
        .with("Options", &options)
        .with("Labels", &spec.labels);
    match services {
        None => shown.into(),
        Some(services) => {
            let services = services.iter().fold(Object::new(), |all, one| all.with(&one.name, attached(one)));
            shown.with("Services", services).into()
        }
    }
}

/// The addresses of the block that the user keeps, by name.
fn reserved(spec: &NetworkSpec, block: &SubnetBlock) -> BTreeMap<String, String> {
    let named = spec.ipam.subnets.iter().find(|given| given.subnet == block.subnet);
    let all = named.into_iter().flat_map(|given| &given.aux_addresses);
    all.map(|(name, address)| (name.clone(), address.to_string())).collect()
}

/// Docker has room for one address; those of IPv6 have fields of their own.
fn attached(service: &Attached) -> Object {
    let text = |address: Option<String>| address.unwrap_or_default();
    let four = |of: &Addresses| text(of.v4.map(|address| address.to_string()));
    let six = |of: &Addresses| text(of.v6.map(|address| address.to_string()));
    Object::new()
        .with("VIP", four(&service.vip))
        .with_some("VIPv6", six(&service.vip))
        .with("Ports", &service.ports)
        .with(
            "Tasks",
            list(&service.tasks, |(task, addresses, node)| {
                Object::new()
                    .with("Name", task.name())
                    .with("EndpointIP", four(addresses))
                    .with_some("EndpointIPv6", six(addresses))
                    .with("Info", Object::new().with("Host IP", node))
            }),
        )
}
