//! Containers as `rswarm ps` shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use rswarm_types::TaskId;
use rswarm_types::assignment::{AssignedNetwork, AssignedTask};
use rswarm_types::spec::{Mount, PortConfig};
use rswarm_types::units::TimestampMs;

use crate::agent::wall_ms;
use crate::plan::{Container, Local, Wellness};

/// One container of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    pub task: TaskId,
    /// `service.slot.task`.
    pub name: String,
    pub image: String,
    /// Program and arguments; empty = not known.
    pub command: String,
    /// Wall time, milliseconds since 1970; 0 = not known.
    pub created_at_ms: u64,
    /// `running`, `exited` or `dead`.
    pub state: String,
    /// `Up 3 minutes (healthy)`, `Exited (1) 2 hours ago`.
    pub status: String,
    /// Published ports of the task.
    pub ports: Vec<PortConfig>,
    /// Name of its service; empty = no service of this cluster.
    pub service: String,
    pub labels: BTreeMap<String, String>,
    /// 0 = not running.
    pub pid: u32,
    /// Wall time, milliseconds since 1970; 0 = not running.
    pub started_at_ms: u64,
    pub exit_code: Option<i32>,
    pub mounts: Vec<Mount>,
    /// Names, sorted.
    pub networks: Vec<String>,
    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub health: String,
}

/// The view of a task's container, which runs `argv`; none while there is no container.
pub fn view(
    id: TaskId,
    local: &Local,
    task: Option<&AssignedTask>,
    argv: &[String],
    networks: &[AssignedNetwork],
    now: TimestampMs,
) -> Option<ContainerView> {
    let container = local.container.as_ref()?;
    let at = wall_ms(container);
    let age = at.map(|at| words_for(now.since(at)));
    let (state, status) = match container {
        Container::Running { .. } => {
            let health = match &local.wellness {
                Wellness::Starting => " (health: starting)",
                Wellness::Healthy => " (healthy)",
                Wellness::Unhealthy(_) => " (unhealthy)",
                Wellness::Unknown | Wellness::Unchecked => "",
            };
            ("running", format!("Up {}{health}", age.unwrap_or_default()))
        }
        Container::Exited { code, .. } => ("exited", format!("Exited ({code}) {} ago", age.unwrap_or_default())),
        Container::Lost(why) => ("dead", format!("Dead: {why}")),
    };
    let spec = task.map(|t| &t.spec);
    let container_spec = spec.map(|s| &s.task.container);
    let (pid, started_at_ms) = match container {
        Container::Running { pid, started_at_ms } => (*pid, *started_at_ms),
        _ => (0, 0),
    };
    Some(ContainerView {
        task: id,
        name: task.map_or_else(|| id.to_string(), |t| format!("{}.{}.{id}", t.spec.name, t.slot)),
        image: container_spec.map(|c| c.image.clone()).unwrap_or_default(),
        command: argv.join(" "),
        created_at_ms: at.map_or(0, |at| at.0),
        state: state.into(),
        status,
        ports: if local.host_ports.is_empty() {
            task.map(|t| t.ports.clone()).unwrap_or_default()
        } else {
            all_ports(task, local)
        },
        service: spec.map(|s| s.name.clone()).unwrap_or_default(),
        labels: container_spec.map(|c| c.labels.clone()).unwrap_or_default(),
        pid,
        started_at_ms,
        exit_code: match container {
            Container::Exited { code, .. } => Some(*code),
            _ => None,
        },
        mounts: container_spec.map(|c| c.mounts.clone()).unwrap_or_default(),
        networks: task.map(|t| network_names(t, networks)).unwrap_or_default(),
        health: match &local.wellness {
            Wellness::Starting => "starting",
            Wellness::Healthy => "healthy",
            Wellness::Unhealthy(_) => "unhealthy",
            Wellness::Unknown | Wellness::Unchecked => "none",
        }
        .into(),
    })
}

/// The networks that a task is on: those of its spec, and the routing mesh where it has an address there.
fn network_names(task: &AssignedTask, networks: &[AssignedNetwork]) -> Vec<String> {
    let wanted = |network: &&AssignedNetwork| {
        let id = network.id.to_string();
        let is_named =
            task.spec.task.networks.iter().any(|wanted| wanted.target == id || wanted.target == network.name);
        is_named || (network.ingress && !task.ingress.is_empty())
    };
    let mut names: Vec<String> = networks.iter().filter(wanted).map(|network| network.name.clone()).collect();
    names.sort();
    names
}

/// Ports in host mode have the numbers that this node chose.
fn all_ports(task: Option<&AssignedTask>, local: &Local) -> Vec<PortConfig> {
    let of_cluster = task.into_iter().flat_map(|t| &t.ports);
    let others = of_cluster.filter(|p| p.mode == rswarm_types::spec::PublishMode::Ingress);
    others.chain(&local.host_ports).copied().collect()
}

/// Docker's words for a time.
fn words_for(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours) = (seconds / 60, seconds / 3_600);
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (s, 0, _) => format!("{s} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, m, 0) => format!("{m} minutes"),
        (_, _, 1) => "About an hour".into(),
        (_, _, h) if h < 48 => format!("{h} hours"),
        (_, _, h) if h < 24 * 14 => format!("{} days", h / 24),
        (_, _, h) => format!("{} weeks", h / 24 / 7),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn ages_are_docker_s_words() {
        for (seconds, expected) in [
            (0, "Less than a second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3_599, "59 minutes"),
            (3_600, "About an hour"),
            (7_200, "2 hours"),
            (3 * 86_400, "3 days"),
            (21 * 86_400, "3 weeks"),
        ] {
            assert_eq!(words_for(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_view_says_how_the_container_is() {
        let now = TimestampMs(100_000);
        let running = Container::Running { pid: 7, started_at_ms: 97_000 };
        let local = Local { container: Some(running), wellness: Wellness::Healthy, ..Local::default() };
        let argv = ["httpd".to_owned(), "-f".to_owned()];
        let shown = view(TaskId(1), &local, None, &argv, &[], now).unwrap();
        assert_eq!(shown.command, "httpd -f");
        assert_eq!((shown.state.as_str(), shown.status.as_str(), shown.pid), ("running", "Up 3 seconds (healthy)", 7));
        let exited = Container::Exited { code: 2, oom: false, at_ms: 40_000 };
        let shown =
            view(TaskId(1), &Local { container: Some(exited), ..Local::default() }, None, &[], &[], now).unwrap();
        assert_eq!((shown.status.as_str(), shown.exit_code), ("Exited (2) About a minute ago", Some(2)));
        assert_eq!(view(TaskId(1), &Local::default(), None, &[], &[], now), None);
    }

    #[test]
    fn a_view_names_networks_and_tells_mounts() {
        use rswarm_types::NetworkId;
        use rswarm_types::spec::{NetworkAttachment, ServiceSpec};

        let network = |number, name: &str, ingress| AssignedNetwork {
            id: NetworkId(number),
            name: name.into(),
            ingress,
            ..AssignedNetwork::default()
        };
        let networks = [network(1, "ingress", true), network(2, "other", false), network(3, "back", false)];
        let mut spec = ServiceSpec::default();
        spec.task.networks =
            vec![NetworkAttachment { target: NetworkId(3).to_string(), ..NetworkAttachment::default() }];
        spec.task.container.mounts = vec![Mount { source: "data".into(), ..Mount::default() }];
        let mut task =
            AssignedTask { spec: spec.into(), ingress: IpAddr::from([10, 0, 0, 9]).into(), ..Default::default() };
        let running = Container::Running { pid: 7, started_at_ms: 97_000 };
        let local = Local { container: Some(running), wellness: Wellness::Starting, ..Local::default() };
        let now = TimestampMs(100_000);
        let shown = view(TaskId(1), &local, Some(&task), &[], &networks, now).unwrap();
        assert_eq!(
            (shown.networks, shown.health.as_str()),
            (vec!["back".to_owned(), "ingress".to_owned()], "starting")
        );
        assert_eq!(shown.mounts[0].source, "data");
        task.ingress = Default::default();
        assert_eq!(view(TaskId(1), &local, Some(&task), &[], &networks, now).unwrap().networks, ["back"]);
    }
}
