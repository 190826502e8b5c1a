//! All effects of a worker behind one trait: the real host, or the simulator's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use ipnet::Ipv4Net;
use rswarm_types::TaskId;
use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::node::PortProblem;
use rswarm_types::session::{LogLine, StreamRequest};
use rswarm_types::spec::PortConfig;
use rswarm_types::units::TimestampMs;

pub use crate::health::{Check, ProbeResult};
pub use crate::plan::Container;

/// Why a task cannot be prepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// This node can never run it: the image does not exist, a mount is wrong.
    #[error("{0}")]
    Rejected(String),
    /// It may go better another time.
    #[error("{0}")]
    Failed(String),
}

/// Why a container did not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct StartFailure {
    pub text: String,
    /// 127 and 126 as in Docker.
    pub exit_code: Option<i32>,
}

/// What became of an order to the container networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Endpoint tables are as ordered.
    pub is_whole: bool,
    /// Sandboxes that exist now.
    pub sandboxes: BTreeSet<TaskId>,
    /// Sandboxes that are not as ordered: why, and whether that is final.
    pub failures: BTreeMap<TaskId, (String, bool)>,
    /// Published ports that this node does not answer.
    pub port_problems: Vec<PortProblem>,
    /// Host-mode ports with their numbers.
    pub host_ports: BTreeMap<TaskId, Vec<PortConfig>>,
    /// The gateway bridge's address and subnet: a hint for the next daemon.
    pub gateway: Option<Ipv4Net>,
}

/// A signal that the agent sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// What the service or the image asks for, else SIGTERM.
    Stop,
    Kill,
}

/// A node's machinery. Every method may be called again with the same arguments.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Wall time, for people.
    fn wall(&self) -> TimestampMs;

    /// A number that differs between nodes and calls, for jitter.
    fn random(&self) -> u64;

    /// Brings image and volumes. Dropped, nothing is half-done.
    async fn prepare(&self, task: &AssignedTask) -> Result<(), PrepareError>;

    /// Starts the container in its sandbox.
    async fn start(&self, task: &AssignedTask, assignments: &Assignments) -> Result<(), StartFailure>;

    /// How the health of the task's container is checked.
    async fn check(&self, task: &AssignedTask) -> Option<Check>;

    /// Sends a signal; a container that has ended is no error. `task` is what is known of it.
    async fn signal(&self, id: TaskId, task: Option<&AssignedTask>, signal: StopSignal) -> Result<(), String>;

    /// Removes what is left of a container, logs included; nothing left is no error.
    async fn remove(&self, id: TaskId) -> Result<(), String>;

    /// All containers of this node.
    fn containers(&self) -> BTreeMap<TaskId, Container>;

    /// Program and arguments of a container; empty = not known.
    fn argv(&self, id: TaskId) -> Vec<String>;

    /// Yields whenever [`Host::containers`] may have changed by itself.
    fn changes(&self) -> BoxStream<'static, ()>;

    /// Makes container networks as ordered, with these sandboxes and no others.
    async fn converge(&self, assignments: &Arc<Assignments>, sandboxes: &BTreeSet<TaskId>) -> Result<Networks, String>;

    /// Puts right what somebody else changed; says whether there was something.
    async fn repair(&self) -> Result<bool, String>;

    /// Waits until something happened that [`Host::repair`] must put right.
    async fn disturbed(&self);

    /// Sandboxes that exist.
    fn sandboxes(&self) -> BTreeSet<TaskId>;

    /// Runs a health check once.
    async fn probe(&self, id: TaskId, argv: &[String], timeout: Duration) -> ProbeResult;

    /// Lines of a container's log in batches; an error ends them.
    fn logs(&self, request: &StreamRequest) -> BoxStream<'static, Result<Vec<LogLine>, String>>;

    /// Removes container networks and all else that only this cluster needed. Returns what is left.
    async fn teardown(&self) -> Vec<String>;
}
