//! `node inspect --pretty`.

use std::fmt::Write;

use rswarm_types::spec::Role;
use rswarm_types::units::{Bytes, NanoCpus};

use super::node::manager_status;
use crate::docker_json::architecture;
use crate::human::{capital, pretty_time};
use crate::trust::Trust;
use crate::view::NodeView;

/// A node for people.
pub fn text(view: &NodeView, trust: Option<&Trust>) -> String {
    let node = &view.node;
    let description = &node.description;
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{}", format!("{name:<24}{value}").trim_end());
    };
    line("ID:", &node.id.to_string());
    if !node.spec.name.is_empty() {
        line("Name:", &node.spec.name);
    }
    if !node.spec.labels.is_empty() {
        line("Labels:", "");
        node.spec.labels.iter().for_each(|(key, value)| line(&format!(" - {key}={value}"), ""));
    }
    line("Hostname:", &description.hostname);
    line("Joined at:", &pretty_time(node.meta.created_at));
    line("Status:", "");
    line(" State:", &capital(&node.status.state.to_string()));
    if !node.status.message.is_empty() {
        line(" Message:", &node.status.message);
    }
    line(" Availability:", &capital(&node.spec.availability.to_string()));
    line(" Address:", &node.status.address.map(|a| a.to_string()).unwrap_or_default());
    line(" Control:", &capital(&node.spec.control.to_string()));
    if node.membership.role == Role::Manager {
        line("Manager Status:", "");
        line(" Address:", &description.control_address.map(|a| a.to_string()).unwrap_or_default());
        line(" Raft Status:", if view.is_reachable { "Reachable" } else { "Unreachable" });
        line(" Leader:", if manager_status(view) == "Leader" { "Yes" } else { "No" });
    }
    line("Platform:", "");
    line(" Operating System:", &description.platform.os);
    line(" Architecture:", architecture(&description.platform));
    line("Resources:", "");
    line(" CPUs:", &NanoCpus(description.cpus.0).to_string());
    line(" Memory:", &Bytes(description.memory.0).to_string());
    line("Engine Version:", &description.engine_version);
    if !description.engine_labels.is_empty() {
        line("Engine Labels:", "");
        description.engine_labels.iter().for_each(|(key, value)| line(&format!(" - {key}={value}"), ""));
    }
    if let Some(trust) = trust {
        line("TLS Info:", "");
        line(" TrustRoot:", "");
        trust.root.lines().for_each(|text| line(text, ""));
        line(" Issuer Subject:", &trust.subject);
        line(" Issuer Public Key:", &trust.public_key);
    }
    if !description.port_problems.is_empty() {
        line("Published ports that this node does not answer:", "");
        for problem in &description.port_problems {
            line(&format!(" - {}/{}: {}", problem.port, problem.protocol, problem.reason), "");
        }
    }
    out
}
