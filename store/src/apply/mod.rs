//! One entry of the log: checked, applied whole or refused whole, remembered.

mod cluster;
mod network;
mod node;
mod reconcile;
mod report;
mod service;
mod stack;
mod task;

use rswarm_types::cluster::Meta;
use rswarm_types::command::{Answer, Body, Command, RequestRecord};
use rswarm_types::limits::{FEATURE_LEVEL, REQUESTS_KEPT_MIN, REQUESTS_KEPT_MS};
use rswarm_types::network::Network;
use rswarm_types::node::Node;
use rswarm_types::service::Service;
use rswarm_types::task::Task;
use rswarm_types::{NetworkId, NodeId, Refusal, RequestId, ServiceId, TaskId, TimestampMs};

pub use service::makes_same_tasks;

use crate::changed::Changed;
use crate::state::State;

/// What came of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For the proposer. A refusal changed nothing but time.
    pub result: Result<Answer, Refusal>,
    pub changed: Changed,
}

/// The state while an entry changes it: thrown away when the entry is refused.
pub(crate) struct Draft {
    pub state: State,
    pub changed: Changed,
    /// Log index of the entry.
    pub index: u64,
    pub at: TimestampMs,
    pub wall: TimestampMs,
}

impl State {
    /// Applies the entry at `index`. `body_hash` tells bodies apart that came with one request id.
    ///
    /// # Panics
    /// When `index` is not above the last one: the log was applied twice.
    pub fn apply(&mut self, index: u64, command: &Command, body_hash: [u8; 32]) -> Applied {
        assert!(index > self.position.index, "entry {index} was applied after entry {}", self.position.index);
        self.position.index = index;
        if command.at < self.position.at {
            return refused(Refusal::Conflict(format!(
                "cluster time would go back: the entry says {} ms, the state is at {} ms",
                command.at.0, self.position.at.0,
            )));
        }
        self.position.at = command.at;
        self.forget_what_expired();
        let level = self.cluster().map_or(FEATURE_LEVEL, |cluster| cluster.feature_level);
        if command.needs_level > level {
            return refused(Refusal::Unsupported(format!(
                "the command needs feature level {}, the cluster is at {level}\n       upgrade every manager first",
                command.needs_level,
            )));
        }
        if let Some(earlier) = self.requests.get(&(command.caller.node, command.request)) {
            let result = if earlier.record.body_hash == body_hash {
                earlier.record.answer.clone()
            } else {
                Err(Refusal::Unsupported(format!("request {} was already made with another body", command.request)))
            };
            return Applied { result, changed: Changed::default() };
        }
        let applied = self.apply_body(index, command);
        if command.request != RequestId(0) {
            self.put_request(RequestRecord {
                caller: command.caller.node,
                request: command.request,
                body_hash,
                at: command.at,
                answer: applied.result.clone(),
            });
        }
        applied
    }

    fn apply_body(&mut self, index: u64, command: &Command) -> Applied {
        // The reconcilers' and agents' entries drop what is stale and are never refused as a whole:
        // they are applied in place, so that nothing is copied.
        let never_refused = matches!(command.body, Body::Reconcile(_) | Body::Report { .. } | Body::Tick);
        let state = if never_refused { std::mem::take(self) } else { self.clone() };
        let mut draft = Draft { state, changed: Changed::default(), index, at: command.at, wall: command.wall };
        let result = draft.run(&command.body);
        if never_refused || result.is_ok() {
            *self = draft.state;
            Applied { result, changed: draft.changed }
        } else {
            Applied { result, changed: Changed::default() }
        }
    }

    /// Drops requests and resting node numbers whose time is over.
    fn forget_what_expired(&mut self) {
        let now = self.position.at;
        while self.requests.len() > REQUESTS_KEPT_MIN
            && let Some((at, caller, request)) = self.indexes.requests_by_time.get_min().copied()
            && now.0.saturating_sub(at.0) > REQUESTS_KEPT_MS
        {
            self.remove_request(caller, request);
        }
        let rested: Vec<u16> =
            self.retired.values().filter(|row| row.record.until <= now).map(|row| row.record.number).collect();
        for number in rested {
            self.remove_retired(number);
        }
    }
}

impl Draft {
    /// A draft of the next entry, to try something on.
    pub(crate) fn scratch(state: &State) -> Self {
        let index = state.index() + 1;
        Self { state: state.clone(), changed: Changed::default(), index, at: state.now(), wall: TimestampMs(0) }
    }

    fn run(&mut self, body: &Body) -> Result<Answer, Refusal> {
        match body {
            Body::Init { cluster, node, networks } => return self.init(cluster, node, networks),
            Body::Tick => return Ok(Answer::Done),
            _ if self.state.cluster.is_none() => {
                return Err(Refusal::Conflict("there is no cluster yet\n       make one: rswarm init".into()));
            }
            _ => {}
        }
        match body {
            Body::Init { .. } | Body::Tick => Ok(Answer::Done),
            Body::UpdateCluster { version, spec } => self.update_cluster(*version, spec),
            Body::RotateTokens { tokens, worker, manager } => self.rotate_tokens(tokens, *worker, *manager),
            Body::Admit { node, role, key_hash, address, availability } => {
                self.admit(*node, *role, key_hash, *address, *availability)
            }
            Body::UpdateNode { node, version, spec } => self.update_node(*node, *version, spec),
            Body::RemoveNode { node, force } => self.remove_node(*node, *force),
            Body::OpenSession { node, boot_id, description, address, raft_lost, sandboxes } => {
                let session = node::Session { boot_id, description, address: *address, raft_lost: *raft_lost };
                self.open_session(*node, session, sandboxes)
            }
            Body::DescribeNode { node, description } => self.describe_node(*node, description),
            Body::SetNodeState { node, epoch, state, message, grace_until } => {
                self.set_node_state(*node, *epoch, *state, message, *grace_until)
            }
            Body::SetMembership { node, role, member, is_voter } => {
                self.set_membership(*node, *role, *member, *is_voter)
            }
            Body::CreateNetwork { id, spec } => self.create_network(*id, spec).map(Answer::Network),
            Body::RemoveNetwork { id } => self.remove_network(*id).map(|()| Answer::Done),
            Body::CreateService { id, spec, auth } => self.create_service(*id, spec, auth),
            Body::UpdateService { id, version, spec, auth, rollback } => {
                self.update_service(*id, *version, spec, auth.as_ref(), *rollback)
            }
            Body::RemoveService { id } => self.remove_service(*id).map(|()| Answer::Done),
            Body::DeployStack(stack) => self.deploy_stack(stack),
            Body::RemoveStack { name } => self.remove_stack(name),
            Body::Reconcile(changes) => {
                changes.iter().for_each(|change| self.reconcile(change));
                Ok(Answer::Done)
            }
            Body::Report { node, epoch, statuses } => {
                self.report(*node, *epoch, statuses);
                Ok(Answer::Done)
            }
        }
    }

    /// Meta of an object that this entry makes.
    fn made(&self) -> Meta {
        Meta { version: self.index, created_at: self.wall, updated_at: self.wall }
    }

    /// Marks an object as changed by this entry.
    fn touch(&self, meta: &mut Meta) {
        meta.version = self.index;
        meta.updated_at = self.wall;
    }

    fn put_node(&mut self, node: Node) {
        self.changed.nodes.insert(node.id);
        self.state.put_node(node);
    }

    pub(crate) fn put_network(&mut self, network: Network) {
        self.changed.networks.insert(network.id);
        self.state.put_network(network);
    }

    fn put_service(&mut self, service: Service) {
        self.changed.services.insert(service.id);
        self.state.put_service(service);
    }

    fn put_task(&mut self, mut task: Task) {
        self.touch(&mut task.meta);
        self.note_task(&task);
        self.state.put_task(task);
    }

    fn note_task(&mut self, task: &Task) {
        self.changed.tasks.insert(task.id);
        self.changed.task_services.insert(task.service);
        self.changed.task_nodes.extend(task.node);
    }

    fn node(&self, id: NodeId) -> Result<Node, Refusal> {
        let node = self.state.node(id).ok_or_else(|| Refusal::not_found("node", id))?;
        Ok(node.as_ref().clone())
    }

    fn network(&self, id: NetworkId) -> Result<Network, Refusal> {
        let network = self.state.network(id).filter(|n| !n.removing);
        Ok(network.ok_or_else(|| Refusal::not_found("network", id))?.as_ref().clone())
    }

    fn service(&self, id: ServiceId) -> Result<Service, Refusal> {
        let service = self.state.service(id).filter(|s| !s.removing);
        Ok(service.ok_or_else(|| Refusal::not_found("service", id))?.as_ref().clone())
    }

    fn task(&self, id: TaskId) -> Option<Task> {
        self.state.task(id).map(|task| task.as_ref().clone())
    }
}

/// Refuses a change that was decided on another version.
fn check_version(kind: &str, name: &str, at: u64, from: u64) -> Result<(), Refusal> {
    if at == from {
        return Ok(());
    }
    Err(Refusal::Stale { kind: kind.into(), name: name.into(), at, from })
}

fn refused(refusal: Refusal) -> Applied {
    Applied { result: Err(refusal), changed: Changed::default() }
}
