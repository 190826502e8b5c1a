//! The host of a real node: containers by `runtime`, networks by `overlay`, images and volumes from their stores.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use rswarm_overlay::desired::{Isolation, isolation};
use rswarm_overlay::{Overlay, Subject};
use rswarm_runtime::image::{Image, ImageError, ImageStore, RegistryAuth, RegistryError};
use rswarm_runtime::volume::VolumeStore;
use rswarm_runtime::{ContainerState, LogQuery, NetNs, NodePaths, Runtime, Sandbox, container_plan, signal};
use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::node::PortProblem;
use rswarm_types::session::{LogLine, StreamRequest};
use rswarm_types::spec::{MountKind, PublishMode};
use rswarm_types::units::TimestampMs;
use rswarm_types::{NodeId, TaskId};
use tokio::sync::broadcast::error::RecvError;

use crate::files;
use crate::health::{Check, ProbeResult, check_of};
use crate::host::{Host, Networks, PrepareError, StartFailure, StopSignal};
use crate::limits::LOG_BATCH_LINES;
use crate::plan::Container;

const NS_PER_MS: u64 = 1_000_000;
/// Waits this long after the overlay said that it cannot watch.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// See the module.
pub struct RealHost {
    pub node: NodeId,
    pub runtime: Runtime,
    pub images: ImageStore,
    pub volumes: VolumeStore,
    pub overlay: Overlay,
    /// Cgroups made for netd, removed at the end.
    pub netd_cgroups: Vec<PathBuf>,
    /// One pull of a name at a time; the others find it done.
    pub pulls: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl RealHost {
    async fn image(&self, reference: &str) -> Option<Image> {
        let (images, name) = (self.images.clone(), reference.to_owned());
        tokio::task::spawn_blocking(move || images.get(&name)).await.ok().flatten()
    }

    /// The image, pulled unless it is here.
    async fn bring_image(&self, task: &AssignedTask) -> Result<Image, PrepareError> {
        let reference = &task.spec.task.container.image;
        let lock = {
            let mut pulls = self.pulls.lock().unwrap_or_else(PoisonError::into_inner);
            pulls.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(pulls.entry(reference.clone()).or_default())
        };
        let _pulling = lock.lock().await;
        if let Some(image) = self.image(reference).await {
            return Ok(image);
        }
        let auth = RegistryAuth::from_docker_header(&task.registry_auth.0)
            .map_err(|error| PrepareError::Rejected(chain(&error)))?;
        self.images.pull(reference, auth.as_ref(), |_| {}).await.map_err(|error| pull_error(reference, &error))
    }

    fn sandbox(&self, task: &AssignedTask, assignments: &Assignments) -> Sandbox {
        let spec = &task.spec.task.container;
        let host_file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let kind = isolation(task, &assignments.networks);
        if kind == Isolation::Host {
            let own = host_file("/proc/sys/kernel/hostname").trim().to_owned();
            return Sandbox {
                netns: NetNs::Host,
                hostname: if spec.hostname.is_empty() { own } else { spec.hostname.clone() },
                resolv_conf: host_file("/etc/resolv.conf"),
                hosts: host_file("/etc/hosts"),
            };
        }
        let hostname = if spec.hostname.is_empty() { task.id.short() } else { spec.hostname.clone() };
        let addresses: Vec<IpAddr> = task.attachments.iter().flat_map(|a| a.addresses.iter()).collect();
        Sandbox {
            netns: NetNs::Path(self.overlay.sandbox_path(task.id)),
            hosts: files::hosts(&hostname, &addresses),
            resolv_conf: match kind {
                Isolation::Alone => String::new(),
                _ => files::resolv_conf(&spec.dns, &host_file("/etc/resolv.conf")),
            },
            hostname,
        }
    }

    fn make_volumes(&self, task: &AssignedTask) -> Result<(), PrepareError> {
        let mounts = task.spec.task.container.mounts.iter();
        for mount in mounts.filter(|m| m.kind == MountKind::Volume && !m.source.is_empty()) {
            self.volumes
                .create(&mount.source, &mount.volume.labels)
                .map_err(|error| PrepareError::Rejected(format!("volume {}: {}", mount.source, chain(&error))))?;
        }
        for mount in task.spec.task.container.mounts.iter().filter(|m| m.kind == MountKind::Bind) {
            if !mount.bind.create_source && !std::path::Path::new(&mount.source).exists() {
                let text = format!(
                    "invalid mount config for type \"bind\": bind source path does not exist: {}",
                    mount.source
                );
                return Err(PrepareError::Rejected(text));
            }
        }
        Ok(())
    }

    fn stop_signal(&self, task: Option<&AssignedTask>) -> i32 {
        let spec = task.map(|t| &t.spec.task.container);
        let own = spec.map(|s| s.stop_signal.clone()).filter(|s| !s.is_empty());
        let text = own.or_else(|| self.images.get(&spec?.image)?.config.stop_signal);
        text.and_then(|t| signal::number(&t).ok()).unwrap_or(libc::SIGTERM)
    }
}

/// Removes an empty cgroup and those above it that it leaves empty, as the runtime does for a container's.
fn remove_cgroup(cgroup: &Path) -> std::io::Result<()> {
    match fs::remove_dir(cgroup) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // One in use refuses, as does the hierarchy's mount point.
    let mut above = cgroup.parent();
    while let Some(folder) = above.filter(|folder| fs::remove_dir(folder).is_ok()) {
        above = folder.parent();
    }
    Ok(())
}

/// What the runtime does not know about an image makes it worth another try, or not.
fn pull_error(reference: &str, error: &ImageError) -> PrepareError {
    let text = chain(error);
    match error {
        ImageError::Registry(RegistryError::NotFound { .. }) => {
            PrepareError::Rejected(format!("No such image: {reference}: {text}"))
        }
        ImageError::Registry(error) if error.is_transient() => PrepareError::Failed(text),
        ImageError::Io { .. } | ImageError::Index(_) | ImageError::CutOff(_) => PrepareError::Failed(text),
        _ => PrepareError::Rejected(text),
    }
}

/// An error with everything underneath, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = cause.source();
    }
    text
}

#[async_trait]
impl Host for RealHost {
    fn wall(&self) -> TimestampMs {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        use std::hash::{BuildHasher, Hasher};
        // The standard library seeds each of these from the operating system.
        std::collections::hash_map::RandomState::new().build_hasher().finish()
    }

    async fn prepare(&self, task: &AssignedTask) -> Result<(), PrepareError> {
        self.make_volumes(task)?;
        let image = self.bring_image(task).await?;
        // What is wrong with the spec is said now, not at the start.
        let sandbox =
            Sandbox { netns: NetNs::None, hostname: task.id.short(), resolv_conf: String::new(), hosts: String::new() };
        let node = NodePaths { volumes: self.volumes.path() };
        container_plan(
            &task.id.to_string(),
            &task.spec,
            &image.config,
            &image.layers,
            &sandbox,
            node,
            self.runtime.defaults(),
        )
        .map(drop)
        .map_err(|error| PrepareError::Rejected(error.to_string()))
    }

    async fn start(&self, task: &AssignedTask, assignments: &Assignments) -> Result<(), StartFailure> {
        let failed = |text: String| StartFailure { text, exit_code: None };
        let image = self.bring_image(task).await.map_err(|error| failed(error.to_string()))?;
        self.make_volumes(task).map_err(|error| failed(error.to_string()))?;
        let sandbox = self.sandbox(task, assignments);
        let node = NodePaths { volumes: self.volumes.path() };
        let plan = container_plan(
            &task.id.to_string(),
            &task.spec,
            &image.config,
            &image.layers,
            &sandbox,
            node,
            self.runtime.defaults(),
        )
        .map_err(|error| failed(error.to_string()))?;
        let started = self.runtime.start(plan).await;
        started.map(drop).map_err(|error| StartFailure { exit_code: error.exit_code(), text: chain(&error) })
    }

    async fn check(&self, task: &AssignedTask) -> Option<Check> {
        let spec = &task.spec.task.container;
        let image = self.image(&spec.image).await;
        check_of(spec.healthcheck.as_ref(), image.as_ref().and_then(|i| i.config.healthcheck.as_ref()))
    }

    async fn signal(&self, id: TaskId, task: Option<&AssignedTask>, signal: StopSignal) -> Result<(), String> {
        let id = id.to_string();
        let sent = match signal {
            StopSignal::Stop => self.runtime.signal(&id, self.stop_signal(task)),
            StopSignal::Kill => self.runtime.kill(&id),
        };
        match sent {
            Ok(()) | Err(rswarm_runtime::OperateError::NotFound(_)) => Ok(()),
            Err(error) => Err(chain(&error)),
        }
    }

    async fn remove(&self, id: TaskId) -> Result<(), String> {
        self.runtime.delete(&id.to_string(), true).await.map_err(|error| chain(&error))
    }

    fn containers(&self) -> BTreeMap<TaskId, Container> {
        let observed = self.runtime.observe().into_iter().filter_map(|o| {
            let container = match o.state {
                ContainerState::Running { pid, started_at_ns } => {
                    Container::Running { pid, started_at_ms: started_at_ns / NS_PER_MS }
                }
                ContainerState::Exited(exit) => {
                    Container::Exited { code: exit.code, oom: exit.oom, at_ms: exit.at_ns / NS_PER_MS }
                }
                ContainerState::Lost(why) => Container::Lost(why),
            };
            // Others are not the cluster's.
            Some((o.id.parse().ok()?, container))
        });
        observed.collect()
    }

    fn argv(&self, id: TaskId) -> Vec<String> {
        self.runtime.argv(&id.to_string())
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        let exits = self.runtime.exits();
        stream::unfold(exits, |mut exits| async move {
            match exits.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => Some(((), exits)),
                Err(RecvError::Closed) => None,
            }
        })
        .boxed()
    }

    async fn converge(&self, assignments: &Arc<Assignments>, sandboxes: &BTreeSet<TaskId>) -> Result<Networks, String> {
        let converged = self.overlay.converge(assignments, sandboxes).await.map_err(|error| chain(&error))?;
        let mut networks = Networks {
            is_whole: true,
            sandboxes: self.overlay.sandboxes().map_err(|error| chain(&error))?,
            gateway: self.overlay.gateway().await,
            ..Networks::default()
        };
        for (subject, reason) in converged.failures {
            match subject {
                Subject::Task(task) => {
                    networks.failures.insert(task, (format!("container network: {reason}"), false));
                }
                Subject::Network(network) => {
                    tracing::warn!(network.id = %network, reason, "a network is not as ordered");
                    networks.is_whole = false;
                    let local = assignments.tasks.iter().filter(|t| sandboxes.contains(&t.id));
                    for task in local.filter(|t| t.attachments.iter().any(|a| a.network == network)) {
                        networks.failures.insert(task.id, (format!("container network: {reason}"), false));
                    }
                }
                Subject::Node => {
                    tracing::warn!(reason, "this node's networks are not as ordered");
                    networks.is_whole = false;
                }
            }
        }
        for problem in converged.port_problems {
            if let Some(task) = problem.task {
                let text = format!(
                    "host-mode port {}/{} cannot be published: {}",
                    problem.port.published, problem.port.protocol, problem.reason
                );
                networks.failures.insert(task, (text, true));
            }
            networks.port_problems.push(PortProblem {
                port: problem.port.published,
                protocol: problem.port.protocol,
                reason: problem.reason,
            });
        }
        for task in assignments.tasks.iter().filter(|t| sandboxes.contains(&t.id)) {
            if task.ports.iter().any(|p| p.mode == PublishMode::Host) {
                networks.host_ports.insert(task.id, self.overlay.host_ports(task.id).await);
            }
        }
        Ok(networks)
    }

    async fn repair(&self) -> Result<bool, String> {
        self.overlay.repair().await.map_err(|error| chain(&error))
    }

    async fn disturbed(&self) {
        if let Err(error) = self.overlay.watch().await {
            tracing::warn!(error = chain(&error), "container networks cannot be watched; trying again");
            tokio::time::sleep(WATCH_AGAIN).await;
        }
    }

    fn sandboxes(&self) -> BTreeSet<TaskId> {
        self.overlay.sandboxes().unwrap_or_else(|error| {
            tracing::warn!(error = chain(&error), "sandboxes cannot be listed");
            BTreeSet::new()
        })
    }

    async fn probe(&self, id: TaskId, argv: &[String], timeout: Duration) -> ProbeResult {
        match self.runtime.exec(&id.to_string(), argv.to_vec(), Vec::new(), None, timeout).await {
            Ok(outcome) if outcome.code == Some(0) => ProbeResult::Healthy,
            Ok(outcome) if outcome.timed_out => {
                ProbeResult::Unhealthy(format!("the health check took longer than {timeout:?}"))
            }
            Ok(outcome) => {
                let output = String::from_utf8_lossy(&outcome.output).into_owned();
                let code = outcome.code.unwrap_or(-1);
                ProbeResult::Unhealthy(match output.trim() {
                    "" => format!("the health check exited with {code}"),
                    output => format!("the health check exited with {code}: {output}"),
                })
            }
            Err(error) => ProbeResult::Unhealthy(error.to_string()),
        }
    }

    fn logs(&self, request: &StreamRequest) -> BoxStream<'static, Result<Vec<LogLine>, String>> {
        let (task, node) = (request.task, self.node);
        if !self.containers().contains_key(&task) {
            let text = format!("task {task} has no container on this node (any more)");
            return stream::once(async { Err(text) }).boxed();
        }
        let query = LogQuery { tail: request.tail, since_ns: request.since_ns, follow: request.follow };
        let lines = self.runtime.logs(&task.to_string(), query);
        let batches = lines.ready_chunks(LOG_BATCH_LINES).map(move |batch| {
            let lines = batch.into_iter().map(|line| {
                let line = line.map_err(|error| format!("the log cannot be read: {error}"))?;
                Ok(LogLine { task, node, is_stderr: line.is_stderr, at_ns: line.at_ns, text: line.text })
            });
            lines.collect()
        });
        batches.boxed()
    }

    async fn teardown(&self) -> Vec<String> {
        let mut left = Vec::new();
        if let Err(errors) = self.overlay.teardown().await {
            left.extend(errors.iter().map(|error| chain(error)));
        }
        for cgroup in &self.netd_cgroups {
            if let Err(error) = remove_cgroup(cgroup) {
                left.push(format!("cgroup {}: {error}", cgroup.display()));
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_takes_the_parents_with_it_that_it_leaves_empty() {
        let hierarchy = tempfile::tempdir().unwrap();
        let folder = |name: &str| hierarchy.path().join(name);
        fs::create_dir_all(folder("a/rswarm/netd")).unwrap();
        fs::create_dir_all(folder("a/other")).unwrap();
        remove_cgroup(&folder("a/rswarm/netd")).unwrap();
        assert!(!folder("a/rswarm").exists() && folder("a/other").exists());
        fs::create_dir_all(folder("rswarm/netd/busy")).unwrap();
        assert!(remove_cgroup(&folder("rswarm/netd")).is_err());
        // Somebody was quicker.
        fs::create_dir_all(folder("b")).unwrap();
        remove_cgroup(&folder("b/netd")).unwrap();
        assert!(!folder("b").exists());
    }
}
