//! Published ports: numbers for those that have none, clashes named.

use rswarm_types::limits::DYNAMIC_PORTS;
use rswarm_types::spec::{PortConfig, PublishMode, ServiceSpec};
use rswarm_types::{Refusal, ServiceId};

use crate::apply::Draft;

/// The ports of a spec, with the numbers that the service already has for those that name none.
///
/// A number is kept for the same target, protocol, mode and address, unless another port asks for it.
pub(crate) fn with_kept_numbers(wanted: &[PortConfig], old: &[PortConfig]) -> Vec<PortConfig> {
    let mut out: Vec<PortConfig> = wanted.to_vec();
    for at in 0..out.len() {
        if out[at].published != 0 || out[at].mode == PublishMode::Host {
            continue;
        }
        let is_same = |p: &&PortConfig| p.published != 0 && PortConfig { published: 0, ..**p } == out[at];
        let is_free = |p: &&PortConfig| !out.iter().any(|other| other.meets(p));
        if let Some(kept) = old.iter().filter(is_same).find(is_free) {
            out[at].published = kept.published;
        }
    }
    out
}

/// Whether ports of two services need one number of the same addresses on the same node. Two ports of host mode may
/// be on different nodes: the scheduler sees to it.
pub(crate) fn clash(a: &PortConfig, b: &PortConfig) -> bool {
    a.meets(b) && (a.mode == PublishMode::Ingress || b.mode == PublishMode::Ingress)
}

impl Draft {
    /// The service's ports with their numbers.
    pub(crate) fn published_ports(
        &self,
        service: ServiceId,
        spec: &ServiceSpec,
        old: &[PortConfig],
    ) -> Result<Vec<PortConfig>, Refusal> {
        let mut ports = with_kept_numbers(&spec.endpoint.ports, old);
        for (at, port) in ports.iter().enumerate().filter(|(_, port)| port.published != 0) {
            if ports[..at].iter().any(|other| other.meets(port)) {
                return Err(Refusal::invalid(
                    "publish",
                    format!("port {}/{} is published twice", port.published, port.protocol),
                ));
            }
            self.check_port(service, port)?;
        }
        for at in 0..ports.len() {
            if ports[at].published == 0 && ports[at].mode == PublishMode::Ingress {
                ports[at].published = self.free_port(&ports, ports[at])?;
            }
        }
        Ok(ports)
    }

    fn check_port(&self, service: ServiceId, port: &PortConfig) -> Result<(), Refusal> {
        let users = self.state.services_of_port(port.published, port.protocol).filter(|other| *other != service);
        for other in users.filter_map(|other| self.state.service(other)) {
            let Some(taken) = other.ports.iter().find(|taken| clash(taken, port)) else { continue };
            let name = &other.spec.name;
            let on = port.address.map_or_else(String::new, |address| format!(" on {address}"));
            return Err(Refusal::Conflict(format!(
                "port {}/{}{on} is already published by service \"{name}\" ({})\n       \
                 publish another port, or remove it: rswarm service update --publish-rm {} {name}",
                port.published,
                port.protocol,
                other.id.short(),
                taken.target,
            )));
        }
        Ok(())
    }

    fn free_port(&self, own: &[PortConfig], port: PortConfig) -> Result<u16, Refusal> {
        let is_free = |number: &u16| {
            self.state.services_of_port(*number, port.protocol).next().is_none()
                && !own.iter().any(|p| (p.published, p.protocol) == (*number, port.protocol))
        };
        DYNAMIC_PORTS.clone().find(is_free).ok_or_else(|| {
            Refusal::Exhausted(format!(
                "no {} port is free between {} and {}: publish port {} with a number of your own",
                port.protocol,
                DYNAMIC_PORTS.start(),
                DYNAMIC_PORTS.end(),
                port.target,
            ))
        })
    }
}
