//! Services and tasks.

use std::sync::Arc;

use rswarm_api::{Wire, pb, status};
use rswarm_store::State;
use rswarm_types::command::{Answer, Body};
use rswarm_types::node::Node;
use rswarm_types::service::{RegistryAuth, Service};
use rswarm_types::spec::{Availability, ServiceMode, ServiceSpec};
use rswarm_types::task::Task;
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::{Refusal, ServiceId, validate};
use tonic::{Request, Status};

use super::authorize::Need;
use super::{ControlService, found, node_named, refuse};

/// Label that names the stack of an object (Docker's).
pub(super) const STACK_LABEL: &str = "com.docker.stack.namespace";

/// Checks every field, and replaces the names of networks by their ids.
///
/// `own` names networks that the same call makes.
pub(super) fn prepare(
    state: &State,
    mut spec: ServiceSpec,
    own: &dyn Fn(&str) -> Option<String>,
) -> Result<ServiceSpec, Status> {
    let mut violations = validate::service_spec(&spec);
    for attachment in &mut spec.task.networks {
        if let Some(id) = own(&attachment.target) {
            attachment.target = id;
            continue;
        }
        match state.find_network(&attachment.target) {
            Ok(network) if network.spec.ingress => violations.push(validate::Violation {
                field: "--network".into(),
                message: format!(
                    "\"{}\" is the routing mesh's network; services join it by publishing a port",
                    attachment.target
                ),
            }),
            Ok(network) => attachment.target = network.id.to_string(),
            Err(refusal) => violations.push(validate::Violation {
                field: "--network".into(),
                message: format!(
                    "{refusal}; create it with: rswarm network create --driver overlay {}",
                    attachment.target
                ),
            }),
        }
    }
    if violations.is_empty() { Ok(spec) } else { Err(refuse(Refusal::Invalid(violations))) }
}

fn spec_from(pb: Option<pb::ServiceSpec>) -> Result<ServiceSpec, Status> {
    let pb = pb.ok_or_else(|| Status::invalid_argument("no spec"))?;
    Wire::from_pb(pb).map_err(status::from_wire)
}

/// The service with its counts, without its registry credentials.
pub(super) fn view(state: &State, service: &Service) -> pb::ServiceView {
    let tasks = || state.tasks_of_service(service.id);
    let running =
        tasks().filter(|t| t.status.state == TaskState::Running && t.desired <= DesiredState::Running).count();
    let desired = match service.spec.mode {
        ServiceMode::Replicated { replicas } => replicas,
        ServiceMode::Global => count(state.nodes().filter(|n| takes_global(state, service, n)).count()),
    };
    let completed = tasks().filter(|t| t.status.state == TaskState::Complete).count();
    let mut shown = service.to_pb();
    shown.registry_auth.clear();
    pb::ServiceView { service: Some(shown), running: count(running), desired, completed: count(completed) }
}

/// Whether a global service has, or should have, a task on the node.
fn takes_global(state: &State, service: &Service, node: &Node) -> bool {
    let has = state.tasks_of_service(service.id).any(|t| t.node == Some(node.id) && t.is_live());
    has || (node.is_schedulable()
        && node.spec.availability == Availability::Active
        && service
            .spec
            .task
            .placement
            .constraints
            .iter()
            .all(|text| rswarm_types::constraint::Constraint::parse(text).is_ok_and(|c| c.matches(node))))
}

fn count(n: usize) -> u64 {
    n as u64
}

impl ControlService {
    pub(super) async fn make_service(
        &self,
        request: Request<pb::CreateServiceRequest>,
    ) -> Result<pb::ServiceAnswer, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let message = request.into_inner();
        let snapshot = self.read().await?;
        let spec = prepare(&snapshot.state, spec_from(message.spec)?, &|_| None)?;
        let id = ServiceId(self.core.consensus.edge().random());
        let body = Body::CreateService { id, spec: Arc::new(spec), auth: RegistryAuth(message.registry_auth) };
        let answer = self.propose(&permit, body).await?;
        Ok(service_answer(answer, id))
    }

    pub(super) async fn change_service(
        &self,
        request: Request<pb::UpdateServiceRequest>,
    ) -> Result<pb::ServiceAnswer, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let message = request.into_inner();
        let snapshot = self.read().await?;
        let service = found(snapshot.state.find_service(&message.name))?;
        let spec = if message.rollback {
            service.spec.as_ref().clone()
        } else {
            prepare(&snapshot.state, spec_from(message.spec)?, &|_| None)?
        };
        let body = Body::UpdateService {
            id: service.id,
            version: message.version,
            spec: Arc::new(spec),
            auth: message.registry_auth.map(RegistryAuth),
            rollback: message.rollback,
        };
        let id = service.id;
        let answer = self.propose(&permit, body).await?;
        Ok(service_answer(answer, id))
    }

    pub(super) async fn drop_service(&self, request: Request<pb::Ref>) -> Result<pb::Empty, Status> {
        let permit = self.permit(&request, Need::Write)?;
        let snapshot = self.read().await?;
        let id = found(snapshot.state.find_service(&request.into_inner().name))?.id;
        self.propose(&permit, Body::RemoveService { id }).await?;
        Ok(pb::Empty {})
    }

    pub(super) async fn services(&self, request: Request<pb::Empty>) -> Result<pb::ServiceList, Status> {
        self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        let state = &snapshot.state;
        Ok(pb::ServiceList { services: state.services().filter(|s| !s.removing).map(|s| view(state, s)).collect() })
    }

    pub(super) async fn service(&self, request: Request<pb::Ref>) -> Result<pb::ServiceView, Status> {
        self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        let service = found(snapshot.state.find_service(&request.into_inner().name))?;
        Ok(view(&snapshot.state, service))
    }

    pub(super) async fn tasks(&self, request: Request<pb::ListTasksRequest>) -> Result<pb::TaskList, Status> {
        let permit = self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        let state = &snapshot.state;
        let wanted = request.into_inner();
        let tasks: Vec<&Arc<Task>> = if !wanted.service.is_empty() {
            state.tasks_of_service(found(state.find_service(&wanted.service))?.id).collect()
        } else if !wanted.node.is_empty() {
            state.tasks_on_node(node_named(state, &wanted.node, permit.node)?.id).collect()
        } else if !wanted.stack.is_empty() {
            state
                .services()
                .filter(|s| s.spec.labels.get(STACK_LABEL) == Some(&wanted.stack))
                .flat_map(|s| state.tasks_of_service(s.id))
                .collect()
        } else {
            state.tasks().collect()
        };
        Ok(pb::TaskList { tasks: tasks.into_iter().map(|t| t.to_pb()).collect() })
    }

    pub(super) async fn task(&self, request: Request<pb::Ref>) -> Result<pb::Task, Status> {
        self.permit(&request, Need::Read)?;
        let snapshot = self.read().await?;
        Ok(found(snapshot.state.find_task(&request.into_inner().name))?.to_pb())
    }
}

fn service_answer(answer: Answer, id: ServiceId) -> pb::ServiceAnswer {
    match answer {
        Answer::Service { id, version } => pb::ServiceAnswer { id: id.to_pb(), version, warnings: Vec::new() },
        _ => pb::ServiceAnswer { id: id.to_pb(), ..Default::default() },
    }
}
