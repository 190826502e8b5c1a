//! Commands, answers and snapshot records: what the log and snapshots hold.

use std::net::IpAddr;

use rswarm_types::command::*;
use rswarm_types::refusal::Refusal;
use rswarm_types::units::TimestampMs;
use rswarm_types::validate::Violation;
use rswarm_types::{NetworkId, NodeId};

use crate::pb;
use crate::wire::{Wire, WireError, required, wire_struct};

wire_struct!(Caller => pb::Caller { node, role });
wire_struct!(Command => pb::Command { at, wall, request, needs_level; caller, body });
wire_struct!(NetworkSpecWithId => pb::NetworkSpecWithId { id; spec });
wire_struct!(StackService => pb::StackService { id, auth; spec });
wire_struct!(StackChange => pb::StackChange { name, networks, services, prune });
wire_struct!(NewTask => pb::NewTask {
    id, service, spec_version, node, desired, start_after, replaces, is_restart; slot
});
wire_struct!(Violation => pb::Violation { field, message });
wire_struct!(RestartHistory => pb::RestartHistory { service, spec_version, attempts, times, failures; slot });
wire_struct!(RetiredNumber => pb::RetiredNumber { number, until });
wire_struct!(Cursor => pb::Cursor { at, index, node_number, vni, addresses });
wire_struct!(RequestRecord => pb::RequestRecord { caller, request, body_hash, at; answer });

impl Wire for (NodeId, TimestampMs) {
    type Pb = pb::Failure;
    fn to_pb(&self) -> pb::Failure {
        pb::Failure { node: self.0.to_pb(), at: self.1.to_pb() }
    }
    fn from_pb(pb: pb::Failure) -> Result<Self, WireError> {
        Ok((Wire::from_pb(pb.node)?, Wire::from_pb(pb.at)?))
    }
}

/// The last address given in a network, of its family.
impl Wire for (NetworkId, IpAddr) {
    type Pb = pb::LastAddress;
    fn to_pb(&self) -> pb::LastAddress {
        pb::LastAddress { network: self.0.to_pb(), address: self.1.to_pb() }
    }
    fn from_pb(pb: pb::LastAddress) -> Result<Self, WireError> {
        Ok((Wire::from_pb(pb.network)?, Wire::from_pb(pb.address)?))
    }
}

impl Wire for Body {
    type Pb = pb::Body;

    fn to_pb(&self) -> pb::Body {
        use pb::body::{self as m, Body as Pb};
        let body = match self {
            Self::Init { cluster, node, networks } => Pb::Init(m::Init {
                cluster: Some(cluster.to_pb()),
                node: Some(node.to_pb()),
                networks: networks.to_pb(),
            }),
            Self::Tick => Pb::Tick(m::Tick {}),
            Self::UpdateCluster { version, spec } => {
                Pb::UpdateCluster(m::UpdateCluster { version: *version, spec: Some(spec.to_pb()) })
            }
            Self::RotateTokens { tokens, worker, manager } => {
                Pb::RotateTokens(m::RotateTokens { tokens: Some(tokens.to_pb()), worker: *worker, manager: *manager })
            }
            Self::Admit { node, role, key_hash, address, availability } => Pb::Admit(m::Admit {
                node: node.to_pb(),
                role: role.to_pb(),
                key_hash: key_hash.to_pb(),
                address: address.to_pb(),
                availability: availability.to_pb(),
            }),
            Self::UpdateNode { node, version, spec } => {
                Pb::UpdateNode(m::UpdateNode { node: node.to_pb(), version: *version, spec: Some(spec.to_pb()) })
            }
            Self::RemoveNode { node, force } => Pb::RemoveNode(m::RemoveNode { node: node.to_pb(), force: *force }),
            Self::OpenSession { node, boot_id, description, address, raft_lost, sandboxes } => {
                Pb::OpenSession(m::OpenSession {
                    node: node.to_pb(),
                    boot_id: boot_id.clone(),
                    description: Some(description.to_pb()),
                    address: address.to_pb(),
                    raft_lost: *raft_lost,
                    sandboxes: sandboxes.to_pb(),
                })
            }
            Self::DescribeNode { node, description } => {
                Pb::DescribeNode(m::DescribeNode { node: node.to_pb(), description: Some(description.to_pb()) })
            }
            Self::SetNodeState { node, epoch, state, message, grace_until } => Pb::SetNodeState(m::SetNodeState {
                node: node.to_pb(),
                epoch: *epoch,
                state: state.to_pb(),
                message: message.clone(),
                grace_until: grace_until.to_pb(),
            }),
            Self::SetMembership { node, role, member, is_voter } => Pb::SetMembership(m::SetMembership {
                node: node.to_pb(),
                role: role.to_pb(),
                member: member.to_pb(),
                is_voter: *is_voter,
            }),
            Self::CreateNetwork { id, spec } => {
                Pb::CreateNetwork(m::CreateNetwork { id: id.to_pb(), spec: Some(spec.to_pb()) })
            }
            Self::RemoveNetwork { id } => Pb::RemoveNetwork(m::RemoveNetwork { id: id.to_pb() }),
            Self::CreateService { id, spec, auth } => {
                Pb::CreateService(m::CreateService { id: id.to_pb(), spec: Some(spec.to_pb()), auth: auth.to_pb() })
            }
            Self::UpdateService { id, version, spec, auth, rollback } => Pb::UpdateService(m::UpdateService {
                id: id.to_pb(),
                version: *version,
                spec: Some(spec.to_pb()),
                auth: auth.to_pb(),
                rollback: *rollback,
            }),
            Self::RemoveService { id } => Pb::RemoveService(m::RemoveService { id: id.to_pb() }),
            Self::DeployStack(change) => Pb::DeployStack(change.to_pb()),
            Self::RemoveStack { name } => Pb::RemoveStack(m::RemoveStack { name: name.clone() }),
            Self::Reconcile(changes) => Pb::Reconcile(m::Reconcile { changes: changes.to_pb() }),
            Self::Report { node, epoch, statuses } => {
                Pb::Report(m::Report { node: node.to_pb(), epoch: *epoch, statuses: statuses.to_pb() })
            }
        };
        pb::Body { body: Some(body) }
    }

    fn from_pb(pb: pb::Body) -> Result<Self, WireError> {
        use pb::body::Body as Pb;
        Ok(match pb.body.ok_or(WireError::Missing("Body.body"))? {
            Pb::Init(m) => Self::Init {
                cluster: required(m.cluster, "Init.cluster")?,
                node: required(m.node, "Init.node")?,
                networks: Wire::from_pb(m.networks)?,
            },
            Pb::Tick(_) => Self::Tick,
            Pb::UpdateCluster(m) => {
                Self::UpdateCluster { version: m.version, spec: required(m.spec, "UpdateCluster.spec")? }
            }
            Pb::RotateTokens(m) => Self::RotateTokens {
                tokens: required(m.tokens, "RotateTokens.tokens")?,
                worker: m.worker,
                manager: m.manager,
            },
            Pb::Admit(m) => Self::Admit {
                node: Wire::from_pb(m.node)?,
                role: Wire::from_pb(m.role)?,
                key_hash: Wire::from_pb(m.key_hash)?,
                address: Wire::from_pb(m.address)?,
                availability: Wire::from_pb(m.availability)?,
            },
            Pb::UpdateNode(m) => Self::UpdateNode {
                node: Wire::from_pb(m.node)?,
                version: m.version,
                spec: required(m.spec, "UpdateNode.spec")?,
            },
            Pb::RemoveNode(m) => Self::RemoveNode { node: Wire::from_pb(m.node)?, force: m.force },
            Pb::OpenSession(m) => Self::OpenSession {
                node: Wire::from_pb(m.node)?,
                boot_id: m.boot_id,
                description: required(m.description, "OpenSession.description")?,
                address: Wire::from_pb(m.address)?,
                raft_lost: m.raft_lost,
                sandboxes: Wire::from_pb(m.sandboxes)?,
            },
            Pb::DescribeNode(m) => Self::DescribeNode {
                node: Wire::from_pb(m.node)?,
                description: required(m.description, "DescribeNode.description")?,
            },
            Pb::SetNodeState(m) => Self::SetNodeState {
                node: Wire::from_pb(m.node)?,
                epoch: m.epoch,
                state: Wire::from_pb(m.state)?,
                message: m.message,
                grace_until: Wire::from_pb(m.grace_until)?,
            },
            Pb::SetMembership(m) => Self::SetMembership {
                node: Wire::from_pb(m.node)?,
                role: Wire::from_pb(m.role)?,
                member: Wire::from_pb(m.member)?,
                is_voter: m.is_voter,
            },
            Pb::CreateNetwork(m) => {
                Self::CreateNetwork { id: Wire::from_pb(m.id)?, spec: required(m.spec, "CreateNetwork.spec")? }
            }
            Pb::RemoveNetwork(m) => Self::RemoveNetwork { id: Wire::from_pb(m.id)? },
            Pb::CreateService(m) => Self::CreateService {
                id: Wire::from_pb(m.id)?,
                spec: required(m.spec, "CreateService.spec")?,
                auth: Wire::from_pb(m.auth)?,
            },
            Pb::UpdateService(m) => Self::UpdateService {
                id: Wire::from_pb(m.id)?,
                version: m.version,
                spec: required(m.spec, "UpdateService.spec")?,
                auth: Wire::from_pb(m.auth)?,
                rollback: m.rollback,
            },
            Pb::RemoveService(m) => Self::RemoveService { id: Wire::from_pb(m.id)? },
            Pb::DeployStack(m) => Self::DeployStack(Wire::from_pb(m)?),
            Pb::RemoveStack(m) => Self::RemoveStack { name: m.name },
            Pb::Reconcile(m) => Self::Reconcile(Wire::from_pb(m.changes)?),
            Pb::Report(m) => {
                Self::Report { node: Wire::from_pb(m.node)?, epoch: m.epoch, statuses: Wire::from_pb(m.statuses)? }
            }
        })
    }
}

impl Wire for Change {
    type Pb = pb::Change;

    fn to_pb(&self) -> pb::Change {
        use pb::change::{self as m, Change as Pb};
        let change = match self {
            Self::CreateTask(task) => Pb::CreateTask(task.to_pb()),
            Self::AllocateTask { task } => Pb::AllocateTask(m::AllocateTask { task: task.to_pb() }),
            Self::AssignTask { task, version, node } => {
                Pb::AssignTask(m::AssignTask { task: task.to_pb(), version: *version, node: node.to_pb() })
            }
            Self::ExplainTask { task, version, error } => {
                Pb::ExplainTask(m::ExplainTask { task: task.to_pb(), version: *version, error: error.clone() })
            }
            Self::SetDesired { task, version, desired, reason } => Pb::SetDesired(m::SetDesired {
                task: task.to_pb(),
                version: *version,
                desired: desired.to_pb(),
                reason: reason.clone(),
            }),
            Self::OrphanTask { task, reason } => {
                Pb::OrphanTask(m::OrphanTask { task: task.to_pb(), reason: reason.clone() })
            }
            Self::RemoveTask { task } => Pb::RemoveTask(m::RemoveTask { task: task.to_pb() }),
            Self::SetUpdateStatus { service, version, status } => Pb::SetUpdateStatus(m::SetUpdateStatus {
                service: service.to_pb(),
                version: *version,
                status: Some(status.to_pb()),
            }),
            Self::ForgetService { service } => Pb::ForgetService(m::ForgetService { service: service.to_pb() }),
            Self::ForgetNetwork { network } => Pb::ForgetNetwork(m::ForgetNetwork { network: network.to_pb() }),
        };
        pb::Change { change: Some(change) }
    }

    fn from_pb(pb: pb::Change) -> Result<Self, WireError> {
        use pb::change::Change as Pb;
        Ok(match pb.change.ok_or(WireError::Missing("Change.change"))? {
            Pb::CreateTask(m) => Self::CreateTask(Wire::from_pb(m)?),
            Pb::AllocateTask(m) => Self::AllocateTask { task: Wire::from_pb(m.task)? },
            Pb::AssignTask(m) => {
                Self::AssignTask { task: Wire::from_pb(m.task)?, version: m.version, node: Wire::from_pb(m.node)? }
            }
            Pb::ExplainTask(m) => {
                Self::ExplainTask { task: Wire::from_pb(m.task)?, version: m.version, error: m.error }
            }
            Pb::SetDesired(m) => Self::SetDesired {
                task: Wire::from_pb(m.task)?,
                version: m.version,
                desired: Wire::from_pb(m.desired)?,
                reason: m.reason,
            },
            Pb::OrphanTask(m) => Self::OrphanTask { task: Wire::from_pb(m.task)?, reason: m.reason },
            Pb::RemoveTask(m) => Self::RemoveTask { task: Wire::from_pb(m.task)? },
            Pb::SetUpdateStatus(m) => Self::SetUpdateStatus {
                service: Wire::from_pb(m.service)?,
                version: m.version,
                status: required(m.status, "SetUpdateStatus.status")?,
            },
            Pb::ForgetService(m) => Self::ForgetService { service: Wire::from_pb(m.service)? },
            Pb::ForgetNetwork(m) => Self::ForgetNetwork { network: Wire::from_pb(m.network)? },
        })
    }
}

impl Wire for Refusal {
    type Pb = pb::Refusal;

    fn to_pb(&self) -> pb::Refusal {
        use pb::refusal::{Invalid, NotFound, Refusal as Pb, Stale};
        let refusal = match self {
            Self::Invalid(violations) => Pb::Invalid(Invalid { violations: violations.to_pb() }),
            Self::NotFound { kind, name } => Pb::NotFound(NotFound { kind: kind.clone(), name: name.clone() }),
            Self::Conflict(text) => Pb::Conflict(text.clone()),
            Self::Stale { kind, name, at, from } => {
                Pb::Stale(Stale { kind: kind.clone(), name: name.clone(), at: *at, from: *from })
            }
            Self::Denied(text) => Pb::Denied(text.clone()),
            Self::Exhausted(text) => Pb::Exhausted(text.clone()),
            Self::Unsupported(text) => Pb::Unsupported(text.clone()),
        };
        pb::Refusal { refusal: Some(refusal) }
    }

    fn from_pb(pb: pb::Refusal) -> Result<Self, WireError> {
        use pb::refusal::Refusal as Pb;
        Ok(match pb.refusal.ok_or(WireError::Missing("Refusal.refusal"))? {
            Pb::Invalid(m) => Self::Invalid(Wire::from_pb(m.violations)?),
            Pb::NotFound(m) => Self::NotFound { kind: m.kind, name: m.name },
            Pb::Conflict(text) => Self::Conflict(text),
            Pb::Stale(m) => Self::Stale { kind: m.kind, name: m.name, at: m.at, from: m.from },
            Pb::Denied(text) => Self::Denied(text),
            Pb::Exhausted(text) => Self::Exhausted(text),
            Pb::Unsupported(text) => Self::Unsupported(text),
        })
    }
}

impl Wire for StackOutcome {
    type Pb = pb::StackOutcome;

    fn to_pb(&self) -> pb::StackOutcome {
        use pb::stack_outcome::{Named, Outcome as Pb};
        let named = |name: &String, id, changed| Named { name: name.clone(), id, changed };
        let outcome = match self {
            Self::NetworkCreated { name, id } => Pb::NetworkCreated(named(name, id.to_pb(), true)),
            Self::ServiceCreated { name, id } => Pb::ServiceCreated(named(name, id.to_pb(), true)),
            Self::ServiceUpdated { name, id, changed } => Pb::ServiceUpdated(named(name, id.to_pb(), *changed)),
            Self::ServiceRemoved { name, id } => Pb::ServiceRemoved(named(name, id.to_pb(), true)),
            Self::NetworkRemoved { name, id } => Pb::NetworkRemoved(named(name, id.to_pb(), true)),
        };
        pb::StackOutcome { outcome: Some(outcome) }
    }

    fn from_pb(pb: pb::StackOutcome) -> Result<Self, WireError> {
        use pb::stack_outcome::Outcome as Pb;
        Ok(match pb.outcome.ok_or(WireError::Missing("StackOutcome.outcome"))? {
            Pb::NetworkCreated(m) => Self::NetworkCreated { name: m.name, id: Wire::from_pb(m.id)? },
            Pb::ServiceCreated(m) => Self::ServiceCreated { name: m.name, id: Wire::from_pb(m.id)? },
            Pb::ServiceUpdated(m) => {
                Self::ServiceUpdated { name: m.name, id: Wire::from_pb(m.id)?, changed: m.changed }
            }
            Pb::ServiceRemoved(m) => Self::ServiceRemoved { name: m.name, id: Wire::from_pb(m.id)? },
            Pb::NetworkRemoved(m) => Self::NetworkRemoved { name: m.name, id: Wire::from_pb(m.id)? },
        })
    }
}

impl Wire for Answer {
    type Pb = pb::Answer;

    fn to_pb(&self) -> pb::Answer {
        use pb::answer::{Answer as Pb, Done, ServiceAnswer, Stack};
        let answer = match self {
            Self::Done => Pb::Done(Done {}),
            Self::Node(id) => Pb::Node(id.to_pb()),
            Self::Network(id) => Pb::Network(id.to_pb()),
            Self::Service { id, version } => Pb::Service(ServiceAnswer { id: id.to_pb(), version: *version }),
            Self::Epoch(index) => Pb::Epoch(*index),
            Self::Stack(outcomes) => Pb::Stack(Stack { outcomes: outcomes.to_pb() }),
            Self::Tokens(tokens) => Pb::Tokens(tokens.to_pb()),
        };
        pb::Answer { answer: Some(answer) }
    }

    fn from_pb(pb: pb::Answer) -> Result<Self, WireError> {
        use pb::answer::Answer as Pb;
        Ok(match pb.answer.ok_or(WireError::Missing("Answer.answer"))? {
            Pb::Done(_) => Self::Done,
            Pb::Node(id) => Self::Node(Wire::from_pb(id)?),
            Pb::Network(id) => Self::Network(Wire::from_pb(id)?),
            Pb::Service(m) => Self::Service { id: Wire::from_pb(m.id)?, version: m.version },
            Pb::Epoch(index) => Self::Epoch(index),
            Pb::Stack(m) => Self::Stack(Wire::from_pb(m.outcomes)?),
            Pb::Tokens(tokens) => Self::Tokens(Wire::from_pb(tokens)?),
        })
    }
}

impl Wire for Result<Answer, Refusal> {
    type Pb = pb::AnswerOrRefusal;

    fn to_pb(&self) -> pb::AnswerOrRefusal {
        use pb::answer_or_refusal::Result as Pb;
        pb::AnswerOrRefusal {
            result: Some(match self {
                Ok(answer) => Pb::Answer(answer.to_pb()),
                Err(refusal) => Pb::Refusal(refusal.to_pb()),
            }),
        }
    }

    fn from_pb(pb: pb::AnswerOrRefusal) -> Result<Self, WireError> {
        use pb::answer_or_refusal::Result as Pb;
        Ok(match pb.result.ok_or(WireError::Missing("AnswerOrRefusal.result"))? {
            Pb::Answer(answer) => Ok(Wire::from_pb(answer)?),
            Pb::Refusal(refusal) => Err(Wire::from_pb(refusal)?),
        })
    }
}

impl Wire for Record {
    type Pb = pb::Record;

    fn to_pb(&self) -> pb::Record {
        use pb::record::Record as Pb;
        let record = match self {
            Self::Cluster(r) => Pb::Cluster(r.to_pb()),
            Self::Node(r) => Pb::Node(r.to_pb()),
            Self::Network(r) => Pb::Network(r.to_pb()),
            Self::Service(r) => Pb::Service(r.to_pb()),
            Self::Task(r) => Pb::Task(r.to_pb()),
            Self::Restarts(r) => Pb::Restarts(r.to_pb()),
            Self::Request(r) => Pb::Request(r.to_pb()),
            Self::Retired(r) => Pb::Retired(r.to_pb()),
            Self::Cursor(r) => Pb::Cursor(r.to_pb()),
        };
        pb::Record { record: Some(record), shared_spec: None }
    }

    fn from_pb(pb: pb::Record) -> Result<Self, WireError> {
        use pb::record::Record as Pb;
        Ok(match pb.record.ok_or(WireError::Missing("Record.record"))? {
            Pb::Cluster(r) => Self::Cluster(Wire::from_pb(r)?),
            Pb::Node(r) => Self::Node(Wire::from_pb(r)?),
            Pb::Network(r) => Self::Network(Wire::from_pb(r)?),
            Pb::Service(r) => Self::Service(Wire::from_pb(r)?),
            Pb::Task(r) => Self::Task(Wire::from_pb(r)?),
            Pb::Restarts(r) => Self::Restarts(Wire::from_pb(r)?),
            Pb::Request(r) => Self::Request(Wire::from_pb(r)?),
            Pb::Retired(r) => Self::Retired(Wire::from_pb(r)?),
            Pb::Cursor(r) => Self::Cursor(Wire::from_pb(r)?),
        })
    }
}
