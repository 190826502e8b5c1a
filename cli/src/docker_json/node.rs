//! `Node`.

use rswarm_types::spec::{Platform, Role};

use super::object;
use crate::json::{Json, Object, list};
use crate::trust::Trust;
use crate::view::NodeView;

/// A processor in the words of `uname`, which Docker has here; constraints take Go's too.
pub fn architecture(platform: &Platform) -> &str {
    match platform.architecture.as_str() {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        other => other,
    }
}

/// A node. `Control` and `PortProblems` are ours. Without `trust` nothing is said of certificates.
pub fn node(view: &NodeView, trust: Option<&Trust>) -> Json {
    let node = &view.node;
    let description = &node.description;
    let engine = Object::new()
        .with("EngineVersion", &description.engine_version)
        .with_some("Labels", &description.engine_labels);
    let described = Object::new()
        .with("Hostname", &description.hostname)
        .with(
            "Platform",
            Object::new()
                .with("Architecture", architecture(&description.platform))
                .with("OS", &description.platform.os),
        )
        .with("Resources", Object::new().with("NanoCPUs", description.cpus.0).with("MemoryBytes", description.memory.0))
        .with("Engine", engine)
        .with_some(
            "PortProblems",
            list(&description.port_problems, |problem| {
                Object::new()
                    .with("Port", problem.port)
                    .with("Protocol", problem.protocol.to_string())
                    .with("Reason", &problem.reason)
            }),
        );
    let described = match trust {
        Some(trust) => described.with("TLSInfo", tls(trust)),
        None => described,
    };
    let status = Object::new()
        .with("State", node.status.state.to_string())
        .with_some("Message", &node.status.message)
        .with("Addr", node.status.address.map(|a| a.to_string()).unwrap_or_default());
    let manager = (node.membership.role == Role::Manager).then(|| {
        Object::new()
            .with_some("Leader", view.is_leader)
            .with("Reachability", if view.is_reachable { "reachable" } else { "unreachable" })
            .with("Addr", description.control_address.map(|a| a.to_string()).unwrap_or_default())
    });
    let spec = Object::new()
        .with_some("Name", &node.spec.name)
        .with("Labels", &node.spec.labels)
        .with("Role", node.spec.role.to_string())
        .with("Availability", node.spec.availability.to_string())
        .with("Control", node.spec.control.to_string());
    let shown = object(&node.id.to_string(), &node.meta)
        .with("Spec", spec)
        .with("Description", described)
        .with("Status", status);
    match manager {
        Some(manager) => shown.with("ManagerStatus", manager).into(),
        None => shown.with("_ManagerStatus", Json::Null).into(),
    }
}

fn tls(trust: &Trust) -> Object {
    Object::new()
        .with("TrustRoot", &trust.root)
        .with("CertIssuerSubject", &trust.subject)
        .with("CertIssuerPublicKey", &trust.public_key)
}
