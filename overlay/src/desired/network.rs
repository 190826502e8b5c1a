//! An overlay network's namespace: a bridge, a VXLAN device, and where each remote endpoint is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rswarm_types::assignment::AssignedNetwork;
use rswarm_types::network::Addresses;
use rswarm_types::spec::NetworkDriver;

use super::{Desired, Subject, View, rules};
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
                        desired.give_up(NamespaceKey::Sandbox(task.id));
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
    namespace.links.insert(names::BRIDGE.into(), Link::new(LinkKind::Bridge, mac, view.mtu(network)));
    let kind = LinkKind::Vxlan { vni: network.vni, local: view.facts.data_path, port: view.data_path_port() };
    let mut vxlan = Link::new(kind, None, view.mtu(network));
    vxlan.master = Some(names::BRIDGE.into());
    vxlan.suppresses_neighbours = true;
    namespace.links.insert(names::VXLAN.into(), vxlan);
    let data_path = view.facts.data_path;
    for (endpoint, addresses) in view.endpoints.get(&network.id).into_iter().flatten() {
        if view.is_local(endpoint) {
            continue;
        }
        // One that was removed: its endpoints go with the next table.
        let Some(host) = view.peers.get(&endpoint.node).map(|p| p.address) else { continue };
        if host.is_ipv4() == data_path.is_ipv4() {
            add_remote(&mut namespace, *addresses, host);
        } else {
            let text = format!(
                "node {} has the data path address {host} and this one {data_path}: a network is carried over IPv4 \
                 or over IPv6, not both",
                endpoint.node
            );
            failures.push((Subject::Network(network.id), text));
        }
    }
    Ok(namespace)
}

fn add_remote(namespace: &mut Namespace, addresses: Addresses, host: IpAddr) {
    let mac = Mac::of_addresses(addresses);
    namespace.forwarding.insert((names::VXLAN.into(), mac), host);
    for address in addresses.iter() {
        namespace.neighbours.insert((names::BRIDGE.into(), address), mac);
    }
}

/// The outer ends of the interfaces of local tasks.
fn add_ports(view: &View<'_>, network: &AssignedNetwork, namespace: &mut Namespace, desired: &Desired) {
    let mut senders = BTreeSet::new();
    for task in &view.tasks {
        let is_made = desired.world.namespaces.contains_key(&NamespaceKey::Sandbox(task.id));
        let attachment = task.attachments.iter().find(|a| a.network == network.id);
        let Some(attachment) = attachment.filter(|_| is_made) else { continue };
        let name = names::network_veth(task.id);
        let mut port = Link::new(LinkKind::Veth, None, view.mtu(network));
        port.master = Some(names::BRIDGE.into());
        namespace.links.insert(name.clone(), port);
        let mac = Mac::of_addresses(attachment.addresses);
        senders.extend(attachment.addresses.iter().map(|address| (name.clone(), (mac, address))));
    }
    namespace.tables.insert(names::guard_table(), Arc::new(rules::guard(&senders)));
}
