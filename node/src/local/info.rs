//! What a node says of itself.

use std::sync::Arc;

use rswarm_api::{Wire, pb};
use rswarm_manager::Snapshot;
use rswarm_types::spec::Role;
use tonic::Status;

use super::LocalApi;
use crate::describe;
use crate::renewal;

/// Milliseconds since 1970 of an RFC 3339 time; 0 when it is none.
pub(super) fn unix_ms(text: &str) -> u64 {
    text.parse::<jiff::Timestamp>().ok().and_then(|t| u64::try_from(t.as_millisecond()).ok()).unwrap_or(0)
}

impl LocalApi {
    pub(super) async fn node_info(&self, _: pb::Empty) -> Result<pb::NodeInfo, Status> {
        let daemon = &self.daemon;
        let settings = &daemon.settings;
        let trouble = daemon.trouble.lock().await.clone();
        let containers = daemon.runtime.observe();
        let running =
            containers.iter().filter(|c| matches!(c.state, rswarm_runtime::ContainerState::Running { .. })).count();
        let mut info = pb::NodeInfo {
            version: crate::VERSION.into(),
            hostname: describe::hostname(),
            swarm_state: if trouble.is_some() { "error".into() } else { "inactive".into() },
            swarm_error: trouble.unwrap_or_default(),
            data_dir: daemon.data.path().display().to_string(),
            runtime: settings.runtime.as_ref().map_or_else(|| "embedded".into(), |p| p.display().to_string()),
            cgroup_version: describe::cgroup_version().into(),
            cpus: describe::cpus(),
            memory: describe::memory(),
            kernel: describe::kernel(),
            operating_system: describe::operating_system(),
            architecture: std::env::consts::ARCH.into(),
            containers: u32::try_from(containers.len()).unwrap_or(u32::MAX),
            containers_running: u32::try_from(running).unwrap_or(u32::MAX),
            images: u32::try_from(daemon.images.list().len()).unwrap_or(u32::MAX),
            labels: settings.labels.clone(),
            cgroup_parent: settings.cgroup_parent.clone(),
            insecure_registries: settings.insecure_registries.clone(),
            default_capabilities: settings.default_capabilities.names().into_iter().map(str::to_owned).collect(),
            no_new_privileges: settings.no_new_privileges,
            ..Default::default()
        };
        let guard = daemon.member.lock().await;
        let Some(member) = guard.as_ref() else { return Ok(info) };
        let identity = member.identity();
        info.node = identity.node.to_pb();
        info.cluster = identity.cluster.to_pb();
        info.advertise_address = member.file.advertise.to_string();
        info.managers = member.worker.managers().iter().map(ToString::to_string).collect();
        info.is_manager = identity.role == Role::Manager && member.manager.is_some();
        info.swarm_state = if member.worker.connected().is_some() { "active".into() } else { "pending".into() };
        if let Some((_, to)) = daemon.data.certificates().ok().flatten().and_then(|f| renewal::validity(&f.chain)) {
            info.cert_expires = jiff::Timestamp::from_second(to).map(|t| t.to_string()).unwrap_or_default();
        }
        if let Some(running) = &member.manager {
            let core = running.manager.core();
            add_manager_facts(&mut info, &core.consensus.local());
            let status = core.consensus.engine().status();
            info.leader = status.leader.map(|(_, address)| address).unwrap_or_default();
            info.raft_term = status.term;
            let timing = rswarm_manager::manager::Timing::default();
            info.election = format!(
                "heartbeat {} ms, election {}-{} ms",
                timing.heartbeat_ms, timing.election_min_ms, timing.election_max_ms
            );
            if let Some(fatal) = status.fatal {
                info.swarm_state = "error".into();
                info.swarm_error = format!("this manager stopped: {fatal}");
            }
        }
        Ok(info)
    }

    pub(super) async fn container_list(&self, request: pb::ContainersRequest) -> Result<pb::ContainerList, Status> {
        let views = {
            let guard = self.daemon.member.lock().await;
            let Some(member) = guard.as_ref() else { return Ok(pb::ContainerList::default()) };
            member.worker.containers().await
        };
        let containers = views.into_iter().filter(|c| request.all || c.state == "running").map(|c| pb::Container {
            id: c.task.to_string(),
            name: c.name,
            image: c.image,
            command: c.command,
            created_at: c.created_at_ms,
            state: c.state,
            status: c.status,
            ports: c.ports.to_pb(),
            service: c.service,
            labels: c.labels,
            pid: c.pid,
            started_at: c.started_at_ms,
            exit_code: c.exit_code,
            mounts: c.mounts.to_pb(),
            networks: c.networks,
            health: c.health,
            size_written: 0,
            size_whole: 0,
        });
        let mut containers: Vec<pb::Container> = containers.collect();
        if request.size {
            let daemon = Arc::clone(&self.daemon);
            let measure = move || {
                for container in &mut containers {
                    let written = bytes_below(&daemon.data.join("containers").join(&container.id).join("upper"));
                    let image = daemon.images.get(&container.image).map_or(0, |image| image.size);
                    (container.size_written, container.size_whole) = (written, written + image);
                }
                containers
            };
            containers = tokio::task::spawn_blocking(measure).await.map_err(|e| Status::internal(e.to_string()))?;
        }
        Ok(pb::ContainerList { containers })
    }
}

/// Bytes of the files in a folder; what goes away meanwhile counts nothing.
fn bytes_below(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => 0,
    };
    entries.flatten().map(size).sum()
}

fn add_manager_facts(info: &mut pb::NodeInfo, snapshot: &Snapshot) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    info.nodes = count(snapshot.state.nodes().count());
    info.manager_count = count(snapshot.state.nodes().filter(|n| n.membership.role == Role::Manager).count());
    info.raft_applied = snapshot.at.index;
}
