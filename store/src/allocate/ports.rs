//! Published ports: numbers for those that have none, clashes named.

use rswarm_types::limits::DYNAMIC_PORTS;
use rswarm_types::spec::{PortConfig, PublishMode, ServiceSpec};
use rswarm_types::{Refusal, ServiceId};

use crate::apply::Draft;

/// The ports of a spec, with the numbers that the service already has for those that name none.
///
/// A number is kept for the same target, protocol and mode, unless another port asks for it.
pub(crate) fn with_kept_numbers(wanted: &[PortConfig], old: &[PortConfig]) -> Vec<PortConfig> {
    let mut out: Vec<PortConfig> = wanted.to_vec();
    for at in 0..out.len() {
        if out[at].published != 0 || out[at].mode == PublishMode::Host {
            continue;
        }
        let same_kind = |p: &&PortConfig| {
            p.published != 0 && (p.target, p.protocol, p.mode) == (out[at].target, out[at].protocol, out[at].mode)
        };
        let is_asked =
            |p: &&PortConfig| !out.iter().any(|other| (other.published, other.protocol) == (p.published, p.protocol));
        if let Some(kept) = old.iter().filter(same_kind).find(is_asked) {
            out[at].published = kept.published;
        }
    }
    out
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
            let is_same = |other: &&PortConfig| (other.published, other.protocol) == (port.published, port.protocol);
            if ports[..at].iter().any(|other| is_same(&other)) {
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
        let clashes = |(mode, other): &(PublishMode, ServiceId)| {
            *other != service && (*mode == PublishMode::Ingress || port.mode == PublishMode::Ingress)
        };
        let mut users = self.state.services_of_port(port.published, port.protocol);
        let Some(other) = users.find(clashes).and_then(|(_, other)| self.state.service(other)) else {
            return Ok(());
        };
        let is_same = |p: &&PortConfig| (p.published, p.protocol) == (port.published, port.protocol);
        let target = other.ports.iter().find(is_same).map_or(port.published, |p| p.target);
        let name = &other.spec.name;
        Err(Refusal::Conflict(format!(
            "port {}/{} is already published by service \"{name}\" ({})\n       \
             publish another port, or remove it: rswarm service update --publish-rm {target} {name}",
            port.published,
            port.protocol,
            other.id.short(),
        )))
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
