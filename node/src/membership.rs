//! This node's place in a cluster: made by `init`, got by `join`, changed by the cluster, left.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rswarm_api::identity::Identity;
use rswarm_api::tls::Credentials;
use rswarm_manager::ca::{self, Grant};
use rswarm_manager::manager::Timing;
use rswarm_manager::{InitRequest, Manager, ManagerConfig};
use rswarm_types::cluster::JoinTokens;
use rswarm_types::session::Leaving;
use rswarm_types::spec::{Availability, ClusterSpec, Role};
use rswarm_types::{ClusterId, MemberId, NodeId};
use rswarm_worker::{Worker, WorkerConfig, WorkerEvent};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::address::{self, AddressError};
use crate::admission::{self, AdmissionError};
use crate::daemon::Daemon;
use crate::describe;
use crate::files::{CertificateFiles, FilesError, NodeFile};
use crate::gateway::Target;
use crate::serve::{self, ServeError};

/// Layout of `node.json`.
const NODE_FILE_VERSION: u32 = 1;
/// A joined node should have a session after so long.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);

/// One that leaves looks so long for a manager to say goodbye to; longer, and silence has said it.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(3);
/// The manager's listener and its connections end within so long: after the last calls, with room to spare.
const SERVING_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Why the node's place did not change; nothing is half-done.
#[derive(Debug, thiserror::Error)]
pub enum MembershipError {
    #[error("this node is already part of a swarm; leave it first with: rswarm leave")]
    AlreadyIn,
    #[error("this node is not part of a swarm")]
    NotIn,
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error(transparent)]
    Admission(#[from] AdmissionError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error(transparent)]
    Serve(#[from] ServeError),
    #[error(transparent)]
    Ca(#[from] ca::CaError),
    #[error(transparent)]
    Manager(#[from] rswarm_manager::ManagerError),
    #[error("the worker does not start")]
    Worker(#[from] rswarm_worker::WorkerError),
    #[error("invalid settings:\n{0}")]
    Invalid(String),
}

/// A running manager with its listener.
pub struct RunningManager {
    pub manager: Manager,
    pub member: MemberId,
    stop: CancellationToken,
    /// The listener and its connections.
    serving: TaskTracker,
}

impl RunningManager {
    /// Hands over, stops, and serves no more: its port and its folder are free.
    pub async fn stop(self) {
        // A hand-over may need this manager's own vote: it answers until then.
        self.manager.stop().await;
        self.stop.cancel();
        self.serving.close();
        if tokio::time::timeout(SERVING_ENDS_WITHIN, self.serving.wait()).await.is_err() {
            // A handshake of a peer that says nothing; it holds neither the port nor the folder.
            tracing::info!(left = self.serving.len(), "connections of the manager did not end in time");
        }
    }
}

/// This node in its cluster.
pub struct Member {
    pub file: NodeFile,
    pub root: String,
    pub credentials: Credentials,
    pub worker: Worker,
    pub manager: Option<RunningManager>,
    pub control: rswarm_types::spec::Control,
    /// Ends the tasks that belong to this membership.
    pub stop: CancellationToken,
}

impl Member {
    pub fn identity(&self) -> Identity {
        self.credentials.identity()
    }
}

/// The flags of `init`.
pub struct Init {
    pub advertise: String,
    pub listen: String,
    pub data_path: String,
    pub availability: Availability,
    pub spec: ClusterSpec,
}

/// The flags of `join`.
pub struct Join {
    pub remote: String,
    pub token: String,
    pub advertise: String,
    pub listen: String,
    pub data_path: String,
    pub availability: Availability,
}

impl Daemon {
    /// Makes a cluster whose first manager is this node.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn init(self: &Arc<Self>, init: Init) -> Result<(NodeFile, JoinTokens), MembershipError> {
        let mut member = self.member.lock().await;
        if member.is_some() {
            return Err(MembershipError::AlreadyIn);
        }
        let violations = rswarm_types::validate::cluster_spec(&init.spec);
        if !violations.is_empty() {
            let all: Vec<String> = violations.iter().map(ToString::to_string).collect();
            return Err(MembershipError::Invalid(all.join("\n")));
        }
        let there = address::local_addresses();
        let advertise = address::advertise(&init.advertise, &there)?;
        let listen = address::listen(&init.listen, advertise.ip(), &there)?;
        let data_path = address::data_path(&init.data_path, advertise.ip(), &there)?;
        let listener = serve::bind(listen).await?;
        self.data.forget_cluster()?;

        let edge = &self.edge;
        let (cluster, node) = (ClusterId(edge.random()), NodeId(edge.random()));
        let member_id = MemberId(u64::try_from(edge.random() >> 64).unwrap_or(1).max(1));
        let root = ca::new_root(edge.wall())?;
        let request = ca::request()?;
        let checked = ca::check_request(&request.csr)?;
        let grant = Grant {
            cluster,
            node,
            role: Role::Manager,
            now: edge.wall(),
            life: init.spec.cert_expiry,
            serial: edge.random(),
        };
        let chain = ca::sign(&root, &checked, grant)?;
        let files = CertificateFiles { root: root.certificate.clone(), chain, key: request.key };
        let credentials = files.credentials().map_err(FilesError::from)?;
        let file = NodeFile {
            version: NODE_FILE_VERSION,
            cluster: cluster.to_string(),
            node: node.to_string(),
            member: member_id.0,
            listen,
            advertise,
            data_path,
            managers: vec![advertise],
            snapshot_interval: init.spec.snapshot_interval,
        };
        let manager = self.start_manager(&file, &credentials).await?;
        let description = describe::describe(&self.settings.labels, advertise, data_path);
        let request = InitRequest {
            root,
            spec: init.spec,
            address: advertise,
            availability: init.availability,
            description,
            key_hash: checked.key_hash,
        };
        let made = async {
            let tokens = manager.init(request).await?;
            self.data.save_certificates(&files)?;
            // From here on a restart finds the cluster.
            self.data.save_node(&file)?;
            Ok::<_, MembershipError>(tokens)
        };
        let tokens = match made.await {
            Ok(tokens) => tokens,
            Err(error) => {
                manager.stop().await;
                self.data.forget_cluster()?;
                return Err(error);
            }
        };
        let running = match self.serve_manager(&manager, member_id, listener, &credentials) {
            Ok(running) => running,
            Err(error) => {
                manager.stop().await;
                self.data.forget_cluster()?;
                return Err(error);
            }
        };
        *member = Some(self.begin_anew(file.clone(), files.root, credentials, Some(running)).await?);
        tracing::info!(cluster.id = %cluster, node.id = %node, "cluster made");
        Ok((file, tokens))
    }

    /// Joins a cluster with a token.
    ///
    /// # Errors
    /// See [`MembershipError`].
    pub async fn join(self: &Arc<Self>, join: Join) -> Result<(NodeFile, Role), MembershipError> {
        let mut member = self.member.lock().await;
        if member.is_some() {
            return Err(MembershipError::AlreadyIn);
        }
        let there = address::local_addresses();
        let advertise = address::advertise(&join.advertise, &there)?;
        let listen = address::listen(&join.listen, advertise.ip(), &there)?;
        let data_path = address::data_path(&join.data_path, advertise.ip(), &there)?;
        let remotes = address::remote(&join.remote).await?;
        let admitted = admission::join_any(&remotes, &join.token, data_path, join.availability).await?;
        self.data.forget_cluster()?;
        let credentials = admitted.files.credentials().map_err(FilesError::from)?;
        let file = NodeFile {
            version: NODE_FILE_VERSION,
            cluster: admitted.cluster.to_string(),
            node: admitted.node.to_string(),
            member: 0,
            listen,
            advertise,
            data_path,
            managers: admitted.managers,
            snapshot_interval: rswarm_types::limits::SNAPSHOT_INTERVAL,
        };
        if let Err(error) = self.data.save_certificates(&admitted.files).and_then(|()| self.data.save_node(&file)) {
            self.data.forget_cluster()?;
            return Err(error.into());
        }
        let started = self.begin_anew(file.clone(), admitted.files.root, credentials, None).await?;
        let worker = started.worker.clone();
        *member = Some(started);
        drop(member);
        let deadline = tokio::time::Instant::now() + JOIN_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let is_up = match admitted.role {
                Role::Worker => worker.connected().is_some(),
                Role::Manager => self.is_manager_ready().await,
            };
            if is_up {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tracing::info!(node.id = file.node, role = %admitted.role, "joined");
        Ok((file, admitted.role))
    }

    async fn is_manager_ready(&self) -> bool {
        let member = self.member.lock().await;
        let Some(running) = member.as_ref().and_then(|m| m.manager.as_ref()) else { return false };
        let snapshot = running.manager.core().consensus.local();
        snapshot.membership.voters.keys().any(|v| v.0 == running.member.0)
    }

    /// Goes on where the last daemon stopped, if this node is in a cluster.
    ///
    /// # Errors
    /// When what is stored cannot be used.
    pub async fn resume(self: &Arc<Self>) -> Result<(), MembershipError> {
        let Some(mut file) = self.data.node()? else { return Ok(()) };
        let Some(files) = self.data.certificates()? else {
            let text =
                "the node's certificates are gone; forget the cluster with: rswarm leave --force, and join again";
            return Err(MembershipError::Refused(text.into()));
        };
        let credentials = files.credentials().map_err(FilesError::from)?;
        let raft_lost = file.member != 0 && !self.data.has_raft();
        if raft_lost {
            tracing::warn!("the Raft folder is gone: the cluster gives this manager a new place");
            file.member = 0;
            self.data.save_node(&file)?;
        }
        let manager = if file.member == 0 {
            None
        } else {
            let listener = serve::bind(file.listen).await?;
            let manager = self.start_manager(&file, &credentials).await?;
            Some(self.serve_manager(&manager, MemberId(file.member), listener, &credentials)?)
        };
        let started = self.begin(file, files.root, credentials, manager, raft_lost).await?;
        *self.member.lock().await = Some(started);
        Ok(())
    }

    async fn start_manager(&self, file: &NodeFile, credentials: &Credentials) -> Result<Manager, MembershipError> {
        let identity = credentials.identity();
        let config = ManagerConfig {
            cluster: identity.cluster,
            node: identity.node,
            member: MemberId(file.member),
            folder: self.data.join("raft"),
            credentials: credentials.clone(),
            edge: self.edge.clone(),
            timing: Timing::default(),
            snapshot_interval: file.snapshot_interval,
        };
        Ok(Manager::start(config).await?)
    }

    fn serve_manager(
        &self,
        manager: &Manager,
        member: MemberId,
        listener: tokio::net::TcpListener,
        credentials: &Credentials,
    ) -> Result<RunningManager, MembershipError> {
        let (stop, serving) = (CancellationToken::new(), TaskTracker::new());
        serve::manager(listener, manager, credentials, &serving, stop.clone())?;
        self.gateway.set(Target::Here(manager.control()));
        Ok(RunningManager { manager: manager.clone(), member, stop, serving })
    }

    /// As [`Self::begin`] for a membership just made: where it does not begin, nothing of it is left.
    async fn begin_anew(
        self: &Arc<Self>,
        file: NodeFile,
        root: String,
        credentials: Credentials,
        manager: Option<RunningManager>,
    ) -> Result<Member, MembershipError> {
        let begun = self.begin(file, root, credentials, manager, false).await;
        if begun.is_err() {
            self.gateway.set(Target::Nowhere(crate::daemon::NOT_IN_A_SWARM.into()));
            self.data.forget_cluster()?;
        }
        begun
    }

    /// Starts the worker role and whatever watches over the membership; stops the manager where that fails.
    async fn begin(
        self: &Arc<Self>,
        file: NodeFile,
        root: String,
        credentials: Credentials,
        manager: Option<RunningManager>,
        raft_lost: bool,
    ) -> Result<Member, MembershipError> {
        let (worker, events) = match self.start_worker(&file, &credentials, manager.is_some(), raft_lost).await {
            Ok(started) => started,
            Err(error) => {
                if let Some(running) = manager {
                    running.stop().await;
                }
                return Err(error);
            }
        };
        let stop = CancellationToken::new();
        self.tasks.spawn(Arc::clone(self).follow(events, stop.clone()));
        self.tasks.spawn(crate::renewal::renew_in_time(Arc::clone(self), stop.clone()));
        let control = rswarm_types::spec::Control::None;
        Ok(Member { file, root, credentials, worker, manager, control, stop })
    }

    async fn start_worker(
        &self,
        file: &NodeFile,
        credentials: &Credentials,
        is_manager: bool,
        raft_lost: bool,
    ) -> Result<(Worker, mpsc::Receiver<WorkerEvent>), MembershipError> {
        let identity = credentials.identity();
        let mut managers = file.managers.clone();
        if is_manager {
            // This node's own manager is nearest.
            managers.retain(|m| *m != file.advertise);
            managers.insert(0, file.advertise);
        }
        let config = WorkerConfig {
            node: identity.node,
            cluster: identity.cluster,
            data_dir: self.data.path().to_owned(),
            run_dir: self.settings.run_dir.clone(),
            cgroup_parent: self.settings.cgroup_parent.clone(),
            exe: self.exe.clone(),
            data_path_address: file.data_path,
            runtime: self.runtime.clone(),
            images: self.images.clone(),
            volumes: self.volumes.clone(),
            credentials: credentials.clone(),
            managers,
            description: describe::describe(&self.settings.labels, file.advertise, file.data_path),
            boot_id: describe::boot_id(self.data.path()),
            raft_lost,
        };
        if !is_manager {
            self.gateway
                .set(Target::Nowhere("this node has no session with a manager yet; try again in a moment".into()));
        }
        Ok(Worker::start(config).await?)
    }

    /// Does what the cluster decides about this node.
    async fn follow(self: Arc<Self>, mut events: mpsc::Receiver<WorkerEvent>, stop: CancellationToken) {
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                event = events.recv() => event,
            };
            let Some(event) = event else { return };
            match event {
                WorkerEvent::Orders { role, member, control } => {
                    self.note_control(control).await;
                    if let Err(error) = self.become_role(role, member).await {
                        tracing::error!(error = chain(&error), %role, "the new role is not taken; trying again");
                    }
                }
                WorkerEvent::Connected(address) => self.connected(address).await,
                WorkerEvent::Disconnected => self.disconnected().await,
                WorkerEvent::Removed(reason) => {
                    tracing::error!(reason, "this node was removed from the cluster; leave with: rswarm leave --force");
                    self.gateway.set(Target::Nowhere(format!(
                        "this node was removed from the cluster ({reason}); clean it with: rswarm leave --force"
                    )));
                }
            }
        }
    }

    async fn note_control(&self, control: rswarm_types::spec::Control) {
        if let Some(member) = self.member.lock().await.as_mut() {
            member.control = control;
        }
    }

    async fn connected(&self, address: std::net::SocketAddr) {
        let mut guard = self.member.lock().await;
        let Some(member) = guard.as_mut() else { return };
        if member.manager.is_none() {
            self.gateway.set(Target::There(member.credentials.channel(address)));
        }
        let managers = member.worker.managers();
        if !managers.is_empty() && managers != member.file.managers {
            member.file.managers = managers;
            if let Err(error) = self.data.save_node(&member.file) {
                tracing::warn!(error = chain(&error), "the list of managers is not saved");
            }
        }
    }

    async fn disconnected(&self) {
        let guard = self.member.lock().await;
        if let Some(member) = guard.as_ref()
            && member.manager.is_none()
        {
            let tried: Vec<String> = member.worker.managers().iter().map(ToString::to_string).collect();
            self.gateway.set(Target::Nowhere(format!(
                "no manager can be reached (tried: {}); tasks on this node keep running",
                tried.join(", ")
            )));
        }
    }

    /// Takes the role that the cluster decided, step by step; every step may be repeated.
    fn become_role(&self, role: Role, id: MemberId) -> BoxFuture<'_, Result<(), MembershipError>> {
        Box::pin(self.take_role(role, id))
    }

    async fn take_role(&self, role: Role, id: MemberId) -> Result<(), MembershipError> {
        let mut guard = self.member.lock().await;
        let Some(member) = guard.as_mut() else { return Ok(()) };
        let running = member.manager.as_ref().map(|m| m.member);
        if role == Role::Manager && id != MemberId(0) && running == Some(id) {
            return Ok(());
        }
        if running.is_some() {
            self.retire_manager(member).await?;
        }
        if member.identity().role != role {
            self.renew(member).await?;
        }
        if role == Role::Manager && id != MemberId(0) {
            self.data.wipe_raft()?;
            let listener = serve::bind(member.file.listen).await?;
            let file = NodeFile { member: id.0, ..member.file.clone() };
            let manager = self.start_manager(&file, &member.credentials).await?;
            self.data.save_node(&file)?;
            member.file = file;
            member.manager = Some(self.serve_manager(&manager, id, listener, &member.credentials)?);
            tracing::info!(member.id = id.0, "this node is a manager");
        }
        Ok(())
    }

    /// Stops being a manager: no more votes, no more log.
    async fn retire_manager(&self, member: &mut Member) -> Result<(), MembershipError> {
        if let Some(running) = member.manager.take() {
            running.stop().await;
        }
        let file = NodeFile { member: 0, ..member.file.clone() };
        self.data.save_node(&file)?;
        member.file = file;
        self.data.wipe_raft()?;
        if let Some(address) = member.worker.connected() {
            self.gateway.set(Target::There(member.credentials.channel(address)));
        }
        tracing::info!("this node is a manager no more");
        Ok(())
    }

    /// Fetches a new certificate from any manager that answers.
    pub(crate) fn renew<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<(), MembershipError>> {
        Box::pin(self.fetch_certificate(member))
    }

    async fn fetch_certificate(&self, member: &Member) -> Result<(), MembershipError> {
        let mut managers = member.worker.managers();
        for known in &member.file.managers {
            if !managers.contains(known) {
                managers.push(*known);
            }
        }
        if let Some(near) = member.worker.connected() {
            managers.insert(0, near);
        }
        let mut last = None;
        for address in managers {
            match admission::renew(address, &member.credentials, &member.root).await {
                Ok(admitted) => {
                    let files = &admitted.files;
                    self.data.save_certificates(files)?;
                    member.credentials.replace(&files.root, &files.chain, &files.key).map_err(FilesError::from)?;
                    tracing::info!(role = %admitted.role, "certificate renewed");
                    return Ok(());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or(MembershipError::NotIn, MembershipError::from))
    }

    /// Leaves the cluster and cleans this host.
    ///
    /// # Errors
    /// A manager without `force`; or what could not be cleaned.
    pub async fn leave(self: &Arc<Self>, force: bool) -> Result<(), MembershipError> {
        let is_manager = {
            let guard = self.member.lock().await;
            match guard.as_ref() {
                None if self.data.node()?.is_some() && force => false,
                None => return Err(MembershipError::NotIn),
                Some(member) => member.manager.is_some(),
            }
        };
        if is_manager && !force {
            let text = "this node is a manager: without it the remaining managers may lack a majority\n       \
                        demote it first on another manager with: rswarm node demote; \
                        or leave all the same (it is demoted on the way where others remain) with: rswarm leave --force";
            return Err(MembershipError::Refused(text.into()));
        }
        if is_manager {
            self.step_down().await;
        }
        let mut guard = self.member.lock().await;
        if let Some(member) = guard.take() {
            member.stop.cancel();
            member.worker.stop(Leaving::Shutdown).await;
            if let Err(left) = member.worker.leave().await {
                for what in &left {
                    tracing::error!(what, "not cleaned up");
                }
            }
            if let Some(running) = member.manager {
                running.stop().await;
            }
        }
        self.data.forget_cluster()?;
        self.gateway.set(Target::Nowhere(crate::daemon::NOT_IN_A_SWARM.into()));
        tracing::info!("left the cluster");
        Ok(())
    }

    /// Asks the cluster to demote this manager, and waits a little: leaving must not cost a quorum.
    async fn step_down(&self) {
        let manager = {
            let guard = self.member.lock().await;
            guard.as_ref().and_then(|m| m.manager.as_ref()).map(|r| r.manager.clone())
        };
        let Some(manager) = manager else { return };
        let consensus = &manager.core().consensus;
        let snapshot = consensus.local();
        if snapshot.membership.voters.len() < 2 {
            return;
        }
        let identity = { self.member.lock().await.as_ref().map(Member::identity) };
        let Some(node) = identity.and_then(|i| snapshot.state.node(i.node).cloned()) else { return };
        let spec = rswarm_types::spec::NodeSpec { role: Role::Worker, ..node.spec.clone() };
        let body = rswarm_types::command::Body::UpdateNode { node: node.id, version: node.meta.version, spec };
        if let Err(error) = consensus.propose_own(body).await {
            tracing::warn!(%error, "not demoted before leaving");
            return;
        }
        let deadline = tokio::time::Instant::now() + JOIN_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let still = self.member.lock().await.as_ref().is_some_and(|m| m.manager.is_some());
            if !still {
                return self.find_another_manager().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        tracing::warn!("leaving without having been demoted: no majority of the managers answered");
    }
}

impl Daemon {
    /// Waits a little until the worker's session is with another node's manager, which then hears the goodbye.
    async fn find_another_manager(&self) {
        let deadline = tokio::time::Instant::now() + GOODBYE_PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let guard = self.member.lock().await;
            let Some(member) = guard.as_ref() else { return };
            if member.worker.connected().is_some_and(|manager| manager != member.file.advertise) {
                return;
            }
            drop(guard);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// An error with everything underneath, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
