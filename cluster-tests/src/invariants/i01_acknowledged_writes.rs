//! I1: a write that was acknowledged is never lost: every manager ends with it, or with a later write to that object.

use std::collections::{BTreeMap, BTreeSet};

use rswarm_store::State;
use rswarm_types::command::Record;
use rswarm_types::{NetworkId, NodeId, RequestId, ServiceId};

use super::Violation;

const NAME: &str = "I1";

/// What a client was told is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// A service exists at this version, or a later one.
    Service(ServiceId, u64),
    ServiceGone(ServiceId),
    Network(NetworkId),
    NetworkGone(NetworkId),
    /// A node's settings.
    Node(NodeId),
}

/// Every acknowledgement that clients got.
#[derive(Clone, Debug, Default)]
pub struct Acknowledged {
    writes: Vec<(NodeId, RequestId, Write)>,
    /// Objects that somebody asked to remove, whatever came of it.
    condemned: BTreeSet<u128>,
}

impl Acknowledged {
    /// A client was told that its write is done.
    pub fn acknowledge(&mut self, caller: NodeId, request: RequestId, write: Write) {
        self.writes.push((caller, request, write));
    }

    /// A client asks to remove an object: from now on it may be gone.
    pub fn condemn(&mut self, object: u128) {
        self.condemned.insert(object);
    }

    pub fn len(&self) -> usize {
        self.writes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Compares with a manager's settled state. Requests are remembered by it, as long as they are fewer than
    /// the state keeps.
    pub fn check(&self, manager: &str, state: &State) -> Vec<Violation> {
        let remembered: BTreeMap<(NodeId, RequestId), bool> = state
            .records()
            .filter_map(|record| match record {
                Record::Request(request) => Some(((request.caller, request.request), request.answer.is_ok())),
                _ => None,
            })
            .collect();
        let mut violations = Vec::new();
        for (caller, request, write) in &self.writes {
            let lost = match remembered.get(&(*caller, *request)) {
                None => Some("it is not in the state's memory of requests"),
                Some(false) => Some("the state remembers it as refused"),
                Some(true) => (!self.shows(state, *write)).then_some("its effect is not there"),
            };
            if let Some(why) = lost {
                let text = format!("{manager} lost the acknowledged request {request} ({write:?}): {why}");
                violations.push(Violation::new(NAME, text));
            }
        }
        violations
    }

    fn shows(&self, state: &State, write: Write) -> bool {
        match write {
            Write::Service(id, _) | Write::ServiceGone(id) if state.service(id).is_none() => {
                self.condemned.contains(&id.0)
            }
            Write::Service(id, version) => state.service(id).is_some_and(|s| s.meta.version >= version),
            Write::ServiceGone(id) => state.service(id).is_some_and(|s| s.removing),
            Write::Network(id) => state.network(id).is_some() || self.condemned.contains(&id.0),
            Write::NetworkGone(id) => state.network(id).is_none_or(|n| n.removing),
            Write::Node(id) => state.node(id).is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rswarm_types::command::Body;
    use rswarm_types::service::RegistryAuth;

    use super::*;
    use crate::invariants::fixture::{Cluster, spec};

    const CALLER: NodeId = NodeId(1);

    fn create(cluster: &mut Cluster, id: u128, request: u128) -> u64 {
        let body = Body::CreateService {
            id: ServiceId(id),
            spec: spec(&format!("s{id}")).into(),
            auth: RegistryAuth::default(),
        };
        cluster.request(CALLER, RequestId(request), body)
    }

    #[test]
    fn a_write_that_is_there_or_was_removed_on_request_is_fine() {
        let mut cluster = Cluster::new();
        let mut acknowledged = Acknowledged::default();
        let version = create(&mut cluster, 10, 1);
        acknowledged.acknowledge(CALLER, RequestId(1), Write::Service(ServiceId(10), version));
        assert_eq!(acknowledged.check("m", &cluster.state), []);
        acknowledged.condemn(10);
        cluster.request(CALLER, RequestId(2), Body::RemoveService { id: ServiceId(10) });
        acknowledged.acknowledge(CALLER, RequestId(2), Write::ServiceGone(ServiceId(10)));
        assert_eq!(acknowledged.check("m", &cluster.state), []);
    }

    #[test]
    fn a_state_that_never_heard_of_an_acknowledged_write_is_caught() {
        let mut cluster = Cluster::new();
        let before = cluster.state.clone();
        let version = create(&mut cluster, 10, 1);
        let mut acknowledged = Acknowledged::default();
        acknowledged.acknowledge(CALLER, RequestId(1), Write::Service(ServiceId(10), version));
        let lost = acknowledged.check("m", &before);
        assert!(lost.len() == 1 && lost[0].text.contains("memory of requests"), "{lost:?}");
    }

    #[test]
    fn an_effect_that_is_undone_without_a_request_is_caught() {
        let mut cluster = Cluster::new();
        let mut acknowledged = Acknowledged::default();
        let version = create(&mut cluster, 10, 1);
        acknowledged.acknowledge(CALLER, RequestId(1), Write::Service(ServiceId(10), version + 1));
        let lost = acknowledged.check("m", &cluster.state);
        assert!(lost.len() == 1 && lost[0].text.contains("effect"), "{lost:?}");
        let mut acknowledged = Acknowledged::default();
        acknowledged.acknowledge(CALLER, RequestId(1), Write::ServiceGone(ServiceId(10)));
        assert_eq!(acknowledged.check("m", &cluster.state).len(), 1);
    }
}
