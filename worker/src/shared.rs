//! What the parts of a worker know together. Each field has one writer, named beside it.

use std::net::SocketAddr;

use rswarm_types::NodeId;
use rswarm_types::assignment::LogId;
use rswarm_types::node::NodeDescription;
use rswarm_types::session::{Leaving, Settled};
use tokio::sync::watch;

use crate::news::News;
use crate::reports::Reports;

#[derive(Debug)]
pub struct Shared {
    pub node: NodeId,
    pub boot_id: String,
    pub raft_lost: bool,
    /// Filled by the agent, emptied by the session.
    pub reports: Reports,
    /// By the session.
    pub settled: watch::Sender<Settled>,
    /// Orders that are in the kernel; by the agent.
    pub applied: watch::Sender<LogId>,
    /// The newest orders taken; by the agent.
    pub seen: watch::Sender<LogId>,
    /// By the daemon, but for the port problems, which are the agent's.
    pub description: watch::Sender<NodeDescription>,
    /// By the agent, and by the daemon.
    pub managers: watch::Sender<Vec<SocketAddr>>,
    /// By the session.
    pub news: watch::Sender<News>,
    /// By whoever stops the worker.
    pub leaving: watch::Sender<Option<Leaving>>,
}

impl Shared {
    pub fn new(
        node: NodeId,
        boot_id: String,
        raft_lost: bool,
        description: NodeDescription,
        managers: Vec<SocketAddr>,
    ) -> Self {
        Self {
            node,
            boot_id,
            raft_lost,
            reports: Reports::default(),
            settled: watch::Sender::default(),
            applied: watch::Sender::new(LogId::default()),
            seen: watch::Sender::new(LogId::default()),
            description: watch::Sender::new(description),
            managers: watch::Sender::new(managers),
            news: watch::Sender::new(News::default()),
            leaving: watch::Sender::new(None),
        }
    }
}
