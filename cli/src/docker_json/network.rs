//! `Network`.

use std::collections::BTreeMap;

use rswarm_types::network::Network;
use rswarm_types::spec::NetworkDriver;
use rswarm_types::task::Task;

use crate::human::rfc3339;
use crate::json::{Json, Object, list};

/// A service on a network, for `--verbose`.
pub struct Attached {
    pub name: String,
    /// Its address there; none with dnsrr.
    pub vip: Option<String>,
    pub ports: Vec<String>,
    /// Its live tasks with their addresses there and their node's address.
    pub tasks: Vec<(Task, String, String)>,
}

/// A network. `services` is given for `--verbose`.
pub fn network(network: &Network, services: Option<&[Attached]>) -> Json {
    let spec = &network.spec;
    let config = list(&network.blocks, |block| {
        Object::new()
            .with("Subnet", block.subnet.to_string())
            .with_some("IPRange", (block.range != block.subnet).then(|| block.range.to_string()))
            .with("Gateway", block.gateway.to_string())
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
        .with("EnableIPv6", false)
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

fn attached(service: &Attached) -> Object {
    Object::new().with("VIP", service.vip.clone().unwrap_or_default()).with("Ports", &service.ports).with(
        "Tasks",
        list(&service.tasks, |(task, address, node)| {
            Object::new()
                .with("Name", task.name())
                .with("EndpointIP", address)
                .with("Info", Object::new().with("Host IP", node))
        }),
    )
}
