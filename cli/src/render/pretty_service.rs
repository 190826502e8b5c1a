//! `service inspect --pretty`.

use std::fmt::Write;

use rswarm_types::parse::format_duration;
use rswarm_types::spec::{ContainerSpec, Healthcheck, MountKind, Resources, ServiceMode, UpdateConfig};
use rswarm_types::{Bytes, NanoCpus};

use crate::docker_json::Networks;
use crate::human::{capital, duration};
use crate::view::ServiceView;
use rswarm_types::TimestampMs;

/// Lines of names with values, and their parts indented.
#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, name: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{}", format!("{name:<16}{value}").trim_end());
    }

    /// A line, unless the value is empty.
    fn some(&mut self, name: &str, value: impl std::fmt::Display) {
        let value = value.to_string();
        if !value.is_empty() {
            self.line(name, value);
        }
    }
}

/// A service for people.
pub fn text(view: &ServiceView, networks: &Networks, now: TimestampMs) -> String {
    let service = &view.service;
    let spec = &service.spec;
    let mut page = Page::default();
    page.line("ID:", service.id);
    page.line("Name:", &spec.name);
    if !spec.labels.is_empty() {
        page.line("Labels:", "");
        spec.labels.iter().for_each(|(key, value)| page.line(&format!(" {key}={value}"), ""));
    }
    match spec.mode {
        ServiceMode::Replicated { replicas } => {
            page.line("Service Mode:", "Replicated");
            page.line(" Replicas:", replicas);
        }
        ServiceMode::Global => page.line("Service Mode:", "Global"),
    }
    update_status(&mut page, view, now);
    page.line("Placement:", "");
    let placement = &spec.task.placement;
    page.some(" Constraints:", placement.constraints.join(", "));
    let preferences: Vec<String> = placement.preferences.iter().map(|p| format!("spread={}", p.descriptor)).collect();
    page.some(" Preferences:", preferences.join(", "));
    if placement.max_replicas_per_node > 0 {
        page.line(" Max Replicas Per Node:", format!(" {}", placement.max_replicas_per_node));
    }
    rollout(&mut page, "UpdateConfig:", &spec.update.unwrap_or_default());
    rollout(&mut page, "RollbackConfig:", &spec.rollback.unwrap_or_default());
    container(&mut page, &spec.task.container);
    resources(&mut page, &spec.task.resources);
    let names: Vec<&str> = spec
        .task
        .networks
        .iter()
        .map(|attachment| {
            let known = attachment.target.parse().ok().and_then(|id| networks.get(&id));
            known.map_or(attachment.target.as_str(), |network| network.spec.name.as_str())
        })
        .collect();
    page.some("Networks:", names.join(" "));
    page.line("Endpoint Mode:", spec.endpoint.mode);
    let balance = spec.endpoint.balance;
    if balance.by_client {
        page.line(" Affinity:", balance.affinity());
    }
    if balance.prefers_local {
        page.line(" Prefer:", balance.prefer());
    }
    if !service.ports.is_empty() {
        page.line("Ports:", "");
    }
    for port in &service.ports {
        page.line(" PublishedPort", format!("= {}", port.published));
        if let Some(address) = port.address {
            page.line("  HostIP", format!("= {address}"));
        }
        page.line("  Protocol", format!("= {}", port.protocol));
        page.line("  TargetPort", format!("= {}", port.target));
        page.line("  PublishMode", format!("= {}", port.mode));
    }
    if let Some(check) = &spec.task.container.healthcheck {
        health(&mut page, check);
    }
    page.0
}

fn update_status(page: &mut Page, view: &ServiceView, now: TimestampMs) {
    let Some(status) = &view.service.update else { return };
    page.line("UpdateStatus:", "");
    page.line(" State:", status.state);
    let ago = |at: TimestampMs| format!("{} ago", duration(now.since(at)).to_lowercase());
    if status.started_at.0 > 0 {
        page.line(" Started:", ago(status.started_at));
    }
    if status.completed_at.0 > 0 {
        page.line(" Completed:", ago(status.completed_at));
    }
    page.some(" Message:", &status.message);
}

fn rollout(page: &mut Page, name: &str, config: &UpdateConfig) {
    page.line(name, "");
    page.line(" Parallelism:", config.parallelism);
    if !config.delay.is_zero() {
        page.line(" Delay:", format_duration(config.delay));
    }
    page.line(" On failure:", config.failure_action);
    page.line(" Monitoring Period:", format!(" {}", format_duration(config.monitor)));
    page.line(" Max failure ratio:", " 0");
    page.line(" Update order:", config.order);
}

fn container(page: &mut Page, container: &ContainerSpec) {
    page.line("ContainerSpec:", "");
    page.line(" Image:", &container.image);
    page.some(" Command:", container.command.join(" "));
    page.some(" Args:", container.args.join(" "));
    page.some(" Env:", container.env.join(" "));
    page.some(" Dir:", &container.dir);
    page.some(" User:", &container.user);
    page.some(" Hostname:", &container.hostname);
    if let Some(init) = container.init {
        page.line(" Init:", init);
    }
    page.some(" CapabilityAdd:", container.cap_add.join(", "));
    page.some(" CapabilityDrop:", container.cap_drop.join(", "));
    page.some(" StopSignal:", &container.stop_signal);
    if let Some(grace) = container.stop_grace {
        page.line(" StopGracePeriod:", format!(" {}", format_duration(grace)));
    }
    if !container.mounts.is_empty() {
        page.line("Mounts:", "");
    }
    for mount in &container.mounts {
        let kind = match mount.kind {
            MountKind::Volume => "volume",
            MountKind::Bind => "bind",
            MountKind::Tmpfs => "tmpfs",
        };
        page.line(" Target:", &mount.target);
        page.some("  Source:", &mount.source);
        page.line("  ReadOnly:", mount.read_only);
        page.line("  Type:", kind);
    }
}

fn resources(page: &mut Page, resources: &Resources) {
    page.line("Resources:", "");
    let cpu = |cpu: NanoCpus| if cpu.0 == 0 { String::new() } else { cpu.to_string() };
    let memory = |memory: Bytes| if memory.0 == 0 { String::new() } else { memory.to_string() };
    if resources.reserve_cpu.0 > 0 || resources.reserve_memory.0 > 0 {
        page.line(" Reservations:", "");
        page.some("  CPU:", cpu(resources.reserve_cpu));
        page.some("  Memory:", memory(resources.reserve_memory));
    }
    if resources.limit_cpu.0 > 0 || resources.limit_memory.0 > 0 || resources.limit_pids > 0 {
        page.line(" Limits:", "");
        page.some("  CPU:", cpu(resources.limit_cpu));
        page.some("  Memory:", memory(resources.limit_memory));
        if resources.limit_pids > 0 {
            page.line("  Pids:", resources.limit_pids);
        }
    }
}

fn health(page: &mut Page, check: &Healthcheck) {
    page.line("Healthcheck:", "");
    let times = [
        (" Interval", check.interval),
        (" Timeout", check.timeout),
        (" StartPeriod", check.start_period),
        (" StartInterval", check.start_interval),
    ];
    for (name, time) in times {
        if let Some(time) = time {
            page.line(name, format!("= {}", format_duration(time)));
        }
    }
    if check.retries > 0 {
        page.line(" Retries", format!("= {}", check.retries));
    }
    page.line(" Tests:", "");
    page.line(&format!("  {}", capital(&check.test.join(" "))), "");
}
