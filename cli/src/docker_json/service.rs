//! `Service`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use rswarm_types::NetworkId;
use rswarm_types::limits::STOP_GRACE_MS;
use rswarm_types::network::Network;
use rswarm_types::service::{Service, UpdateStatus, VirtualIp};
use rswarm_types::spec::{
    EndpointSpec, Placement, Resources, RestartPolicy, ServiceMode, ServiceSpec, TaskSpec, UpdateConfig,
};

use super::container::container;
use super::{nanos, object, ports};
use crate::human::rfc3339;
use crate::json::{Json, Object, list};

/// Networks by id, for prefix lengths and names.
pub type Networks = BTreeMap<NetworkId, Network>;

/// A service, with Docker's defaults written out.
pub fn service(service: &Service, networks: &Networks) -> Json {
    let endpoint = Object::new()
        .with("Spec", endpoint_spec(&service.spec.endpoint))
        .with_some("Ports", ports(&service.ports))
        .with_some("VirtualIPs", virtual_ips(&service.vips, networks));
    let shown = object(&service.id.to_string(), &service.meta)
        .with("Spec", spec(&service.spec))
        .with_some("PreviousSpec", service.previous.as_ref().map(|previous| spec(previous)))
        .with("Endpoint", endpoint)
        .with_some("UpdateStatus", service.update.as_ref().map(update_status));
    // A template may ask for what is not there, as it may of Docker.
    let shown = ["PreviousSpec", "UpdateStatus"].iter().fold(shown, |shown, key| match shown.get(key) {
        Some(_) => shown,
        None => shown.with(&format!("_{key}"), Json::Null),
    });
    shown.into()
}

/// An entry for each family of each network.
fn virtual_ips(vips: &[VirtualIp], networks: &Networks) -> Json {
    let all: Vec<(NetworkId, IpAddr)> =
        vips.iter().flat_map(|vip| vip.addresses.iter().map(|address| (vip.network, address))).collect();
    list(&all, |(network, address)| {
        let mut blocks = networks.get(network).into_iter().flat_map(|network| &network.blocks);
        let addr = match blocks.find(|block| block.subnet.contains(address)) {
            Some(block) => format!("{address}/{}", block.subnet.prefix_len()),
            None => address.to_string(),
        };
        Object::new().with("NetworkID", network.to_string()).with("Addr", addr)
    })
}

fn spec(spec: &ServiceSpec) -> Object {
    let mode = match spec.mode {
        ServiceMode::Replicated { replicas } => {
            Object::new().with("Replicated", Object::new().with("Replicas", replicas))
        }
        ServiceMode::Global => Object::new().with("Global", Object::new()),
    };
    Object::new()
        .with("Name", &spec.name)
        .with("Labels", &spec.labels)
        .with("TaskTemplate", task(&spec.task))
        .with("Mode", mode)
        .with("UpdateConfig", update_config(&spec.update.unwrap_or_default()))
        .with("RollbackConfig", update_config(&spec.rollback.unwrap_or_default()))
        .with("EndpointSpec", endpoint_spec(&spec.endpoint))
}

fn task(task: &TaskSpec) -> Object {
    let mut shown = task.container.clone();
    shown.stop_grace = shown.stop_grace.or(Some(Duration::from_millis(STOP_GRACE_MS)));
    Object::new()
        .with("ContainerSpec", container(&shown))
        .with("Resources", resources(&task.resources))
        .with("RestartPolicy", restart(&task.restart))
        .with("Placement", placement(&task.placement))
        .with_some(
            "Networks",
            list(&task.networks, |attachment| {
                Object::new()
                    .with("Target", &attachment.target)
                    .with_some("Aliases", &attachment.aliases)
                    .with_some("DriverOpts", &attachment.driver_opts)
            }),
        )
        .with_some(
            "LogDriver",
            task.log_driver
                .as_ref()
                .map(|driver| Object::new().with_some("Name", &driver.name).with_some("Options", &driver.options)),
        )
        .with("ForceUpdate", task.force_update)
        .with("Runtime", "container")
}

fn resources(resources: &Resources) -> Object {
    Object::new()
        .with(
            "Limits",
            Object::new()
                .with_some("NanoCPUs", resources.limit_cpu.0)
                .with_some("MemoryBytes", resources.limit_memory.0)
                .with_some("Pids", resources.limit_pids),
        )
        .with(
            "Reservations",
            Object::new()
                .with_some("NanoCPUs", resources.reserve_cpu.0)
                .with_some("MemoryBytes", resources.reserve_memory.0),
        )
}

fn restart(policy: &RestartPolicy) -> Object {
    Object::new()
        .with("Condition", policy.condition.to_string())
        .with("Delay", nanos(policy.delay))
        .with("MaxAttempts", policy.max_attempts)
        .with_some("Window", nanos(policy.window))
}

fn placement(placement: &Placement) -> Object {
    Object::new()
        .with_some("Constraints", &placement.constraints)
        .with_some(
            "Preferences",
            list(&placement.preferences, |preference| {
                Object::new().with("Spread", Object::new().with("SpreadDescriptor", &preference.descriptor))
            }),
        )
        .with_some("MaxReplicas", placement.max_replicas_per_node)
        .with_some(
            "Platforms",
            list(&placement.platforms, |platform| {
                Object::new().with("Architecture", &platform.architecture).with("OS", &platform.os)
            }),
        )
}

fn update_config(config: &UpdateConfig) -> Object {
    Object::new()
        .with("Parallelism", config.parallelism)
        .with_some("Delay", nanos(config.delay))
        .with("FailureAction", config.failure_action.to_string())
        .with("Monitor", nanos(config.monitor))
        .with("MaxFailureRatio", 0u64)
        .with("Order", config.order.to_string())
}

fn endpoint_spec(endpoint: &EndpointSpec) -> Object {
    let EndpointSpec { mode, balance, ports: published } = endpoint;
    Object::new()
        .with("Mode", mode.to_string())
        .with_some("Affinity", balance.by_client.then(|| balance.affinity()))
        .with_some("Prefer", balance.prefers_local.then(|| balance.prefer()))
        .with_some("Ports", ports(published))
}

fn update_status(status: &UpdateStatus) -> Object {
    let time = |at: rswarm_types::TimestampMs| (at.0 > 0).then(|| rfc3339(at));
    Object::new()
        .with("State", status.state.to_string())
        .with_some("StartedAt", time(status.started_at))
        .with_some("CompletedAt", time(status.completed_at))
        .with("Message", &status.message)
}
