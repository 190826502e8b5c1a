//! Published ports of a service.

use rswarm_types::parse::parse_publish;
use rswarm_types::parse::port::{parse_host_address, parse_protocol};
use rswarm_types::spec::{PortConfig, PublishMode};

use super::service::Origins;
use crate::report::Report;
use crate::tree::{Entry, Node, Value};

const PORT_KEYS: [&str; 5] = ["host_ip", "mode", "protocol", "published", "target"];

/// Reads `ports`, sorted by published port as Docker does.
pub fn ports(path: &str, node: &Node, origins: &mut Origins, report: &mut Report<'_>) -> Vec<PortConfig> {
    let mut ports = Vec::new();
    for item in report.list(path, node) {
        let more = match &item.value {
            Value::Map(_) => long(path, item, report).into_iter().collect(),
            _ => short(path, item, report),
        };
        for port in &more {
            // With the space before it, or 8080:80 would be found where 80:80 is meant.
            origins.add("publish", &format!(" {port}"), item.place);
        }
        ports.extend(more);
    }
    ports.sort_by_key(|port| port.published);
    ports
}

fn short(path: &str, node: &Node, report: &mut Report<'_>) -> Vec<PortConfig> {
    match report.text_or_number(path, node) {
        Some(Some(text)) => report.accept(path, node.place, parse_publish(&text)).unwrap_or_default(),
        Some(None) => {
            report.error(node.place, format!("{path} has an empty item"));
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn long(path: &str, node: &Node, report: &mut Report<'_>) -> Option<PortConfig> {
    let mut port = PortConfig { mode: PublishMode::Ingress, ..PortConfig::default() };
    let mut is_good = true;
    for Entry { key, value, .. } in report.map(path, node, &PORT_KEYS) {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "target" => port.target = number(&path, value, 1, report)?,
            "published" => port.published = number(&path, value, 0, report)?,
            "mode" => match report.choice(&path, value) {
                Some(mode) => port.mode = mode,
                None => is_good = false,
            },
            "host_ip" => {
                let text = report.text(&path, value)?;
                match parse_host_address(&text) {
                    Ok(address) => port.address = address,
                    Err(problem) => {
                        report.error(value.place, format!("{path}: {problem}; expected an address of the nodes"));
                        is_good = false;
                    }
                }
            }
            "protocol" => {
                let text = report.text(&path, value)?;
                match parse_protocol(&text) {
                    Ok(protocol) => port.protocol = protocol,
                    Err(problem) => {
                        report.error(value.place, format!("{path}: {problem}; allowed are tcp, udp, sctp"));
                        is_good = false;
                    }
                }
            }
            _ => {}
        }
    }
    if node.get("target").is_none() {
        report.error(node.place, format!("{path} has no target port"));
        return None;
    }
    is_good.then_some(port)
}

fn number(path: &str, node: &Node, minimum: u16, report: &mut Report<'_>) -> Option<u16> {
    let number = report.count(path, node)?;
    let port = u16::try_from(number).ok().filter(|port| *port >= minimum);
    if port.is_none() {
        report.error(node.place, format!("{path} is {number}; allowed are {minimum}-65535"));
    }
    port
}
