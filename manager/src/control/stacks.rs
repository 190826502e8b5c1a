//! Stacks: one entry, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rswarm_api::{Wire, pb, status};
use rswarm_types::command::{Answer, Body, StackChange};
use rswarm_types::limits::{BATCH_BYTES_MAX, BATCH_CHANGES_MAX};
use rswarm_types::{NetworkId, Refusal, ServiceId, validate};
use tonic::{Request, Status};

use super::authorize::Need;
use super::services::prepare;
use super::{ControlService, refuse};

impl ControlService {
    pub(super) async fn deploy(&self, request: Request<pb::StackChange>) -> Result<pb::StackAnswer, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let mut change: StackChange = Wire::from_pb(request.into_inner()).map_err(status::from_wire)?;
        check_bound(&change)?;
        let snapshot = self.read().await?;
        let state = &snapshot.state;
        let edge = self.core.consensus.edge();
        let mut own = BTreeMap::new();
        let mut violations = Vec::new();
        for network in &mut change.networks {
            violations.extend(validate::network_spec(&network.spec));
            // A network that exists keeps its id; `apply` leaves it as it is.
            network.id = match state.find_network(&network.spec.name) {
                Ok(existing) if existing.spec.name == network.spec.name => existing.id,
                _ => NetworkId(edge.random()),
            };
            own.insert(network.spec.name.clone(), network.id.to_string());
        }
        if !violations.is_empty() {
            return Err(refuse(Refusal::Invalid(violations)));
        }
        for service in &mut change.services {
            service.id = ServiceId(edge.random());
            let spec = prepare(state, service.spec.as_ref().clone(), &|name| own.get(name).cloned())?;
            service.spec = Arc::new(spec);
        }
        let body = Body::DeployStack(Box::new(change));
        stack_answer(self.propose(&permit, body).await?)
    }

    pub(super) async fn drop_stack(&self, request: Request<pb::Ref>) -> Result<pb::StackAnswer, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let body = Body::RemoveStack { name: request.into_inner().name };
        stack_answer(self.propose(&permit, body).await?)
    }
}

fn check_bound(change: &StackChange) -> Result<(), Status> {
    let objects = change.networks.len() + change.services.len();
    let bytes = prost::Message::encoded_len(&change.to_pb());
    if objects > BATCH_CHANGES_MAX || bytes > BATCH_BYTES_MAX {
        let text = format!(
            "the stack has {objects} objects in {bytes} bytes; a stack is applied as a whole, and at most \
             {BATCH_CHANGES_MAX} objects in {BATCH_BYTES_MAX} bytes are allowed; split it into several stacks"
        );
        return Err(refuse(Refusal::invalid("stack", text)));
    }
    Ok(())
}

fn stack_answer(answer: Answer) -> Result<pb::StackAnswer, Status> {
    match answer {
        Answer::Stack(outcomes) => Ok(pb::StackAnswer { outcomes: outcomes.to_pb(), warnings: Vec::new() }),
        other => Err(Status::internal(format!("unexpected answer {other:?}"))),
    }
}
