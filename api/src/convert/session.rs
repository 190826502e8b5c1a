//! The session between worker and manager.

use rswarm_types::NetworkId;
use rswarm_types::session::*;

use crate::pb;
use crate::wire::{Wire, WireError, required, wire_enum, wire_struct};

wire_enum!(Leaving { Restart = 0, Shutdown = 1 });
wire_enum!(CloseReason { Stale = 0, Superseded = 1, Clone = 2, Removed = 3 });
wire_struct!(Open => pb::Open { node, boot_id, sandboxes, raft_lost; applied, description });
wire_struct!(Settled => pb::Settled { everywhere, networks });
wire_struct!(StreamRequest => pb::StreamRequest { id, task, follow, tail, since_ns });

/// How far a network has settled.
impl Wire for (NetworkId, u64) {
    type Pb = pb::NetworkSettled;
    fn to_pb(&self) -> pb::NetworkSettled {
        pb::NetworkSettled { network: self.0.to_pb(), index: self.1 }
    }
    fn from_pb(pb: pb::NetworkSettled) -> Result<Self, WireError> {
        Ok((Wire::from_pb(pb.network)?, pb.index))
    }
}

impl Wire for LogLine {
    type Pb = pb::LogLine;
    fn to_pb(&self) -> pb::LogLine {
        pb::LogLine {
            task: self.task.to_pb(),
            node: self.node.to_pb(),
            is_stderr: self.is_stderr,
            at_ns: self.at_ns,
            text: self.text.clone().into(),
        }
    }
    fn from_pb(pb: pb::LogLine) -> Result<Self, WireError> {
        Ok(Self {
            task: Wire::from_pb(pb.task)?,
            node: Wire::from_pb(pb.node)?,
            is_stderr: pb.is_stderr,
            at_ns: pb.at_ns,
            text: pb.text.into(),
        })
    }
}

impl Wire for Up {
    type Pb = pb::UpMessage;
    fn to_pb(&self) -> pb::UpMessage {
        use pb::up_message::{Applied, Heartbeat, Statuses, Up as Pb};
        let up = match self {
            Self::Open(open) => Pb::Open(open.to_pb()),
            Self::Heartbeat => Pb::Heartbeat(Heartbeat {}),
            Self::Applied { index } => Pb::Applied(Applied { index: *index }),
            Self::Statuses { number, statuses } => {
                Pb::Statuses(Statuses { number: *number, statuses: statuses.to_pb() })
            }
            Self::Describe(description) => Pb::Describe(description.to_pb()),
            Self::GoingAway(leaving) => Pb::GoingAway(leaving.to_pb()),
        };
        pb::UpMessage { up: Some(up) }
    }
    fn from_pb(pb: pb::UpMessage) -> Result<Self, WireError> {
        use pb::up_message::Up as Pb;
        Ok(match pb.up.ok_or(WireError::Missing("UpMessage.up"))? {
            Pb::Open(open) => Self::Open(Wire::from_pb(open)?),
            Pb::Heartbeat(_) => Self::Heartbeat,
            Pb::Applied(applied) => Self::Applied { index: applied.index },
            Pb::Statuses(s) => Self::Statuses { number: s.number, statuses: Wire::from_pb(s.statuses)? },
            Pb::Describe(description) => Self::Describe(Wire::from_pb(description)?),
            Pb::GoingAway(leaving) => Self::GoingAway(Wire::from_pb(leaving)?),
        })
    }
}

impl Wire for Down {
    type Pb = pb::DownMessage;
    fn to_pb(&self) -> pb::DownMessage {
        use pb::down_message::{Behind, Closed, Down as Pb, NodeChange, Opened, Reported};
        let down = match self {
            Self::Opened { epoch } => Pb::Opened(Opened { epoch: *epoch }),
            Self::Behind { at } => Pb::Behind(Behind { at: Some(at.to_pb()) }),
            Self::Closed { reason, message } => Pb::Closed(Closed { reason: reason.to_pb(), message: message.clone() }),
            Self::Assignments(assignments) => Pb::Assignments(assignments.to_pb()),
            Self::Changes(delta) => Pb::Changes(delta.to_pb()),
            Self::Node { role, member, control } => {
                Pb::Node(NodeChange { role: role.to_pb(), member: member.to_pb(), control: control.to_pb() })
            }
            Self::Settled(settled) => Pb::Settled(settled.to_pb()),
            Self::Reported { number } => Pb::Reported(Reported { number: *number }),
            Self::Stream(request) => Pb::Stream(request.to_pb()),
        };
        pb::DownMessage { down: Some(down) }
    }
    fn from_pb(pb: pb::DownMessage) -> Result<Self, WireError> {
        use pb::down_message::Down as Pb;
        Ok(match pb.down.ok_or(WireError::Missing("DownMessage.down"))? {
            Pb::Opened(opened) => Self::Opened { epoch: opened.epoch },
            Pb::Behind(behind) => Self::Behind { at: required(behind.at, "Behind.at")? },
            Pb::Closed(closed) => Self::Closed { reason: Wire::from_pb(closed.reason)?, message: closed.message },
            Pb::Assignments(assignments) => Self::Assignments(Wire::from_pb(assignments)?),
            Pb::Changes(delta) => Self::Changes(Wire::from_pb(delta)?),
            Pb::Node(node) => Self::Node {
                role: Wire::from_pb(node.role)?,
                member: Wire::from_pb(node.member)?,
                control: Wire::from_pb(node.control)?,
            },
            Pb::Settled(settled) => Self::Settled(Wire::from_pb(settled)?),
            Pb::Reported(reported) => Self::Reported { number: reported.number },
            Pb::Stream(request) => Self::Stream(Wire::from_pb(request)?),
        })
    }
}
