//! Who may ask for what: the local socket and managers everything, a worker what its node's
//! `control` allows.

use rswarm_api::identity::Peer;
use rswarm_types::command::Caller;
use rswarm_types::spec::{Control, Role};
use rswarm_types::{NodeId, Refusal, RequestId};
use tonic::{Request, Status};

use super::{ControlService, refuse};

/// Metadata key of the request id.
const REQUEST_KEY: &str = "rswarm-request";

/// A call that may go on.
#[derive(Clone, Copy, Debug)]
pub struct Permit {
    pub caller: Caller,
    pub request: RequestId,
    /// The node whose daemon made the call: what `self` means.
    pub node: NodeId,
}

/// What a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Read,
    Write,
}

impl ControlService {
    /// Judges a call by its peer and the replicated state.
    pub(super) fn permit<T>(&self, request: &Request<T>, need: Need) -> Result<Permit, Status> {
        let id = request_id(request)?;
        let permit = |node, role| Permit { caller: Caller { node, role }, request: id, node };
        match Peer::of(request)? {
            Peer::Local => Ok(permit(self.node, Role::Manager)),
            Peer::Anonymous(_) => Err(Status::unauthenticated("a certificate of the cluster is needed")),
            Peer::Node(identity) => {
                let snapshot = self.core.consensus.local();
                let node = snapshot
                    .state
                    .node(identity.node)
                    .ok_or_else(|| refuse(Refusal::Denied("this node was removed from the cluster".into())))?;
                let allowed = match node.membership.role {
                    Role::Manager => Control::Full,
                    Role::Worker => node.spec.control,
                };
                let enough = match need {
                    Need::Read => allowed >= Control::Read,
                    Need::Write => allowed >= Control::Full,
                };
                if enough {
                    Ok(permit(node.id, node.membership.role))
                } else {
                    Err(refuse(Refusal::Denied(denial(&node.display_name(), allowed, need))))
                }
            }
        }
    }
}

fn denial(node: &str, allowed: Control, need: Need) -> String {
    let (what, level) = match need {
        Need::Read => ("read the cluster's state", "read"),
        Need::Write => ("change the cluster", "full"),
    };
    format!(
        "node \"{node}\" is a worker and may not {what}: its control is \"{allowed}\"\n       \
         allow it on a manager with: rswarm node update --control {level} {node}"
    )
}

fn request_id<T>(request: &Request<T>) -> Result<RequestId, Status> {
    let Some(value) = request.metadata().get(REQUEST_KEY) else { return Ok(RequestId::default()) };
    value
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Status::invalid_argument("rswarm-request must be a 25-character id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_the_command_that_would_allow_the_call() {
        let text = denial("w1", Control::None, Need::Write);
        assert!(text.contains("control is \"none\""), "{text}");
        assert!(text.contains("rswarm node update --control full w1"), "{text}");
    }
}
