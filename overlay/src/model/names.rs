//! Names of interfaces, tables and files.

use rswarm_types::{NetworkId, TaskId};

use super::NamespaceKey;
use super::ruleset::{Family, TableName};

/// What every interface of ours in the host's namespace begins with.
pub const HOST_PREFIX: &str = "rsw";
/// What the interfaces that forward between hosts and containers begin with.
pub const FORWARD_PREFIX: &str = "rswarm_";
/// Where this host meets its containers: the outer end of a pair.
pub const GATEWAY: &str = "rswarm_gw";
/// The inner end, on which the containers' interfaces stand.
pub const GATEWAY_INNER: &str = "rswarm_gwp";
/// The routed VXLAN device of the ingress network.
pub const INGRESS: &str = "rswarm_vxi";
/// The bridge of an overlay network, in its namespace.
pub const BRIDGE: &str = "br0";
/// The VXLAN device of an overlay network, in its namespace.
pub const VXLAN: &str = "vxlan0";
pub const LOOPBACK: &str = "lo";
/// What a device is called until it has its name, in a namespace other than the host's.
pub const UNNAMED: &str = "rswnew";

/// An interface's name has 15 characters: 4 of the prefix, the last 11 (56 bits) of the id.
const ID_TAIL: usize = 14;

/// The outer end of a task's interface in an overlay network.
pub fn network_veth(task: TaskId) -> String {
    format!("rswv{}", &task.to_string()[ID_TAIL..])
}

/// A task's nth interface, inside.
pub fn inner(index: usize) -> String {
    format!("eth{index}")
}

/// In the host's namespace: filters, published ports, masquerade.
pub fn host_table() -> TableName {
    TableName::new(Family::Inet, "rswarm")
}

/// In the host's namespace: the way back to the ingress node.
pub fn return_table() -> TableName {
    TableName::new(Family::Netdev, "rswarm")
}

/// In an overlay's namespace: who may send what from which port.
pub fn guard_table() -> TableName {
    TableName::new(Family::Bridge, "rswarm")
}

/// In a sandbox: virtual addresses.
pub fn balancer_table() -> TableName {
    TableName::new(Family::Inet, "rswarm_lb")
}

/// In a sandbox: port 53 of 127.0.0.11.
pub fn dns_table() -> TableName {
    TableName::new(Family::Ip, "rswarm_dns")
}

/// The tables that are ours in a namespace.
pub fn tables(of: NamespaceKey) -> Vec<TableName> {
    match of {
        NamespaceKey::Host => vec![host_table(), return_table()],
        NamespaceKey::Network(_) => vec![guard_table()],
        NamespaceKey::Sandbox(_) => vec![balancer_table(), dns_table()],
    }
}

/// The file that a namespace is mounted on.
pub fn pin(of: NamespaceKey) -> Option<String> {
    match of {
        NamespaceKey::Host => None,
        NamespaceKey::Network(id) => Some(format!("net-{id}")),
        NamespaceKey::Sandbox(id) => Some(format!("task-{id}")),
    }
}

/// What [`pin`] named.
pub fn unpin(file: &str) -> Option<NamespaceKey> {
    if let Some(id) = file.strip_prefix("net-") {
        return id.parse::<NetworkId>().ok().map(NamespaceKey::Network);
    }
    file.strip_prefix("task-")?.parse::<TaskId>().ok().map(NamespaceKey::Sandbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_fifteen_characters() {
        let task = TaskId(u128::MAX);
        for name in [network_veth(task), GATEWAY.into(), GATEWAY_INNER.into(), INGRESS.into()] {
            assert!(name.len() <= 15 && name.starts_with(HOST_PREFIX), "{name}");
        }
    }

    #[test]
    fn pins_name_their_namespace() {
        for key in [NamespaceKey::Network(NetworkId(7)), NamespaceKey::Sandbox(TaskId(u128::MAX))] {
            assert_eq!(unpin(&pin(key).unwrap()), Some(key));
        }
        assert_eq!(pin(NamespaceKey::Host), None);
        assert_eq!(unpin("task-x"), None);
    }
}
