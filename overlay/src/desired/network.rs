//! An overlay network's namespace: a bridge, a VXLAN device, and where each remote endpoint is.

use std::net::{IpAddr, Ipv4Addr};

use rswarm_types::assignment::AssignedNetwork;
use rswarm_types::spec::NetworkDriver;

use super::{Desired, Subject, View};
use crate::model::{Link, LinkKind, Mac, Namespace, NamespaceKey, names};

/// A VNI has 24 bits, and 0 means none.
const VNI_MAX: u32 = (1 << 24) - 1;

pub(super) fn add(view: &View<'_>, desired: &mut Desired) {
    for network in &view.assignments.networks {
        let is_here = view.tasks.iter().any(|t| t.attachments.iter().any(|a| a.network == network.id));
        if network.ingress || network.driver != NetworkDriver::Overlay || !is_here {
            continue;
        }
        match namespace(view, network, &mut desired.failures) {
            Ok(mut namespace) => {
                add_ports(view, network, &mut namespace, desired);
                desired.world.namespaces.insert(NamespaceKey::Network(network.id), namespace);
            }
            Err(reason) => {
                // Its tasks' interfaces have nowhere to go.
                let key = NamespaceKey::Network(network.id);
                for task in &view.tasks {
                    if task.attachments.iter().any(|a| a.network == network.id) {
                        desired.world.namespaces.remove(&NamespaceKey::Sandbox(task.id));
                        desired.veths.retain(|(owner, _), _| *owner != task.id);
                    }
                }
                desired.veths.retain(|_, (outer, _)| *outer != key);
                desired.failures.push((Subject::Network(network.id), reason));
            }
        }
    }
}

fn namespace(
    view: &View<'_>,
    network: &AssignedNetwork,
    failures: &mut Vec<(Subject, String)>,
) -> Result<Namespace, String> {
    if network.vni == 0 || network.vni > VNI_MAX {
        return Err(format!("the VNI is {}: allowed are 1 to {VNI_MAX}", network.vni));
    }
    let block = network.blocks.first().ok_or("the network has no subnet")?;
    let mut namespace = Namespace::new_born();
    // Without a MAC of its own the bridge takes a port's, and forgets its neighbours each time.
    let mac = Some(Mac::of_address(block.gateway));
    namespace.links.insert(names::BRIDGE.into(), Link::new(LinkKind::Bridge, mac, network.mtu));
    let kind = LinkKind::Vxlan { vni: network.vni, local: view.facts.data_path, port: view.data_path_port() };
    let mut vxlan = Link::new(kind, None, network.mtu);
    vxlan.master = Some(names::BRIDGE.into());
    vxlan.suppresses_neighbours = true;
    namespace.links.insert(names::VXLAN.into(), vxlan);
    for (endpoint, address) in view.endpoints.get(&network.id).into_iter().flatten() {
        if view.is_local(endpoint) {
            continue;
        }
        match view.peers.get(&endpoint.node).map(|p| p.address) {
            Some(IpAddr::V4(host)) => add_remote(&mut namespace, *address, host),
            Some(IpAddr::V6(host)) => failures.push((
                Subject::Network(network.id),
                format!("node {} has the data path address {host}: only IPv4 is carried", endpoint.node),
            )),
            // It was removed, and its endpoints go with the next table.
            None => {}
        }
    }
    Ok(namespace)
}

fn add_remote(namespace: &mut Namespace, address: Ipv4Addr, host: Ipv4Addr) {
    let mac = Mac::of_address(address);
    namespace.forwarding.insert((names::VXLAN.into(), mac), host);
    namespace.neighbours.insert((names::BRIDGE.into(), address), mac);
}

/// The outer ends of the interfaces of local tasks.
fn add_ports(view: &View<'_>, network: &AssignedNetwork, namespace: &mut Namespace, desired: &Desired) {
    for task in &view.tasks {
        let is_made = desired.world.namespaces.contains_key(&NamespaceKey::Sandbox(task.id));
        if is_made && task.attachments.iter().any(|a| a.network == network.id) {
            let mut port = Link::new(LinkKind::Veth, None, network.mtu);
            port.master = Some(names::BRIDGE.into());
            namespace.links.insert(names::network_veth(task.id), port);
        }
    }
}
