//! People who use the cluster while it is being hurt: they retry with the same request id, and remember what they
//! were told is done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rswarm_store::State;
use rswarm_types::command::{Answer, Body, Caller};
use rswarm_types::limits::CLIENT_RETRY_MS;
use rswarm_types::node::Node;
use rswarm_types::service::{RegistryAuth, Service};
use rswarm_types::spec::{
    Availability, Healthcheck, NetworkAttachment, NetworkSpec, NodeSpec, PortConfig, PublishMode, Resources,
    RestartCondition, RestartPolicy, Role, ServiceMode, ServiceSpec, UpdateConfig, UpdateOrder,
};
use rswarm_types::units::{Bytes, NanoCpus};
use rswarm_types::{NetworkId, NodeId, RequestId, ServiceId, validate};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::Cluster;
use super::dice::Dice;
use super::host::Host;
use crate::invariants::i01_acknowledged_writes::Write;
use rswarm_manager::consensus::ProposeError;

const NAMES: [&str; 6] = ["web", "api", "db", "cache", "agent", "batch"];
const NETWORKS: [&str; 3] = ["front", "back", "side"];
const READ_PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(100);
/// Tasks of one service, at most.
const REPLICAS: u64 = 5;
/// Nodes that are kept away from work at one time, at most.
const AWAY: usize = 2;

/// One person, at one host.
pub struct Client {
    pub cluster: Arc<Cluster>,
    pub home: NodeId,
    pub dice: Dice,
}

struct Wish {
    body: Body,
    /// What an answer to it promises.
    promises: fn(&Body, &Answer) -> Option<Write>,
}

impl Client {
    /// Asks for one thing after another.
    pub async fn run(self, until: Instant) {
        while Instant::now() < until {
            sleep(self.dice.millis(50, 600)).await;
            if let Some(wish) = self.wish().await {
                self.ask(wish, until).await;
            }
        }
    }

    fn manager(&self) -> Option<Arc<Host>> {
        let up: Vec<Arc<Host>> = self.cluster.managers().filter(|h| h.serving().is_some()).cloned().collect();
        self.dice.pick(&up).cloned()
    }

    async fn look(&self) -> Option<State> {
        let host = self.manager()?;
        let (serving, process) = (host.serving()?, host.process()?);
        let reading = timeout(READ_PATIENCE, serving.core.consensus.read());
        tokio::select! {
            biased;
            () = process.dead.cancelled() => None,
            read = reading => read.ok()?.ok().map(|snapshot| snapshot.state),
        }
    }

    /// Proposes on some manager until one answers, or until it may not be asked any more.
    async fn ask(&self, wish: Wish, until: Instant) {
        let request = RequestId(self.dice.wide());
        let caller = Caller { node: self.home, role: Role::Worker };
        let trace = self.cluster.network.trace();
        if let Body::RemoveService { id: ServiceId(id) } | Body::RemoveNetwork { id: NetworkId(id) } = &wish.body {
            self.cluster.witness.condemn(*id);
        }
        trace.note(format!("client {} asks {}", request.short(), words(&wish.body)));
        let deadline = (Instant::now() + Duration::from_millis(CLIENT_RETRY_MS)).min(until + Duration::from_secs(3));
        while Instant::now() < deadline {
            match self.attempt(wish.body.clone(), request, caller, deadline).await {
                Some(Ok((index, answer))) => {
                    trace.note(format!("client {} done at {index}", request.short()));
                    if let Some(write) = (wish.promises)(&wish.body, &answer) {
                        self.cluster.witness.acknowledge(self.home, request, write);
                    }
                    return;
                }
                Some(Err(ProposeError::Refused(refusal))) => {
                    trace.note(format!("client {} refused: {refusal}", request.short()));
                    return;
                }
                Some(Err(_)) | None => sleep(PAUSE).await,
            }
        }
        trace.note(format!("client {} gives up", request.short()));
    }

    async fn attempt(
        &self,
        body: Body,
        request: RequestId,
        caller: Caller,
        deadline: Instant,
    ) -> Option<Result<(u64, Answer), ProposeError>> {
        let host = self.manager()?;
        let (serving, process) = (host.serving()?, host.process()?);
        tokio::select! {
            biased;
            () = process.dead.cancelled() => None,
            () = tokio::time::sleep_until(deadline) => None,
            outcome = serving.core.consensus.propose(body, request, caller) => Some(outcome),
        }
    }

    async fn wish(&self) -> Option<Wish> {
        let state = self.look().await?;
        let services: Vec<&Arc<Service>> = state.services().filter(|s| !s.removing).collect();
        let service = self.dice.pick(&services).copied();
        match self.dice.below(100) {
            0..25 => self.create(&state),
            25..45 => self.scale(service?),
            45..60 => self.change(service?),
            60..65 => Some(roll_back(service?)),
            65..77 => Some(remove(service?.id)),
            77..90 => self.node(&state),
            90..96 => self.network(&state),
            _ => self.remove_network(&state),
        }
    }

    fn create(&self, state: &State) -> Option<Wish> {
        let name = *self.dice.pick(&NAMES)?;
        let spec = random_spec(&self.dice, name, state);
        let problems = validate::service_spec(&spec);
        assert!(problems.is_empty(), "the script asks for what is not valid: {problems:?}");
        let id = ServiceId(self.dice.wide());
        let body = Body::CreateService { id, spec: Arc::new(spec), auth: RegistryAuth::default() };
        Some(Wish { body, promises: service_written })
    }

    fn scale(&self, service: &Service) -> Option<Wish> {
        let ServiceMode::Replicated { .. } = service.spec.mode else { return None };
        let mode = ServiceMode::Replicated { replicas: self.dice.below(REPLICAS + 1) };
        Some(update(service, ServiceSpec { mode, ..service.spec.as_ref().clone() }, false))
    }

    fn change(&self, service: &Service) -> Option<Wish> {
        let mut spec = service.spec.as_ref().clone();
        match self.dice.below(4) {
            0 => spec.task.force_update += 1,
            1 => spec.update = Some(random_update(&self.dice)),
            2 => spec.task.placement.constraints = random_constraints(&self.dice),
            _ => spec.task.container.image = format!("image:{}", self.dice.below(1_000)),
        }
        Some(update(service, spec, false))
    }

    fn node(&self, state: &State) -> Option<Wish> {
        let nodes: Vec<&Arc<Node>> = state.nodes().collect();
        let away: Vec<&Arc<Node>> =
            nodes.iter().copied().filter(|n| n.spec.availability != Availability::Active).collect();
        let (node, availability) = if away.len() >= AWAY || (!away.is_empty() && self.dice.chance(50)) {
            (*self.dice.pick(&away)?, Availability::Active)
        } else {
            let drain = self.dice.chance(70);
            (*self.dice.pick(&nodes)?, if drain { Availability::Drain } else { Availability::Pause })
        };
        let spec = NodeSpec { availability, ..node.spec.clone() };
        let body = Body::UpdateNode { node: node.id, version: node.meta.version, spec };
        Some(Wish { body, promises: node_written })
    }

    fn network(&self, state: &State) -> Option<Wish> {
        let free: Vec<&str> = NETWORKS.into_iter().filter(|name| state.find_network(name).is_err()).collect();
        let name = *self.dice.pick(&free)?;
        let spec = NetworkSpec { name: name.into(), ..NetworkSpec::default() };
        let body = Body::CreateNetwork { id: NetworkId(self.dice.wide()), spec };
        Some(Wish { body, promises: network_written })
    }

    fn remove_network(&self, state: &State) -> Option<Wish> {
        let own = |name: &String| NETWORKS.contains(&name.as_str());
        let all: Vec<NetworkId> = state.networks().filter(|n| !n.removing && own(&n.spec.name)).map(|n| n.id).collect();
        let id = *self.dice.pick(&all)?;
        Some(Wish { body: Body::RemoveNetwork { id }, promises: network_written })
    }
}

fn update(service: &Service, spec: ServiceSpec, rollback: bool) -> Wish {
    let (id, version) = (service.id, service.meta.version);
    let body = Body::UpdateService { id, version, spec: Arc::new(spec), auth: None, rollback };
    Wish { body, promises: service_written }
}

fn roll_back(service: &Service) -> Wish {
    update(service, service.spec.as_ref().clone(), true)
}

fn remove(id: ServiceId) -> Wish {
    Wish { body: Body::RemoveService { id }, promises: service_written }
}

fn service_written(body: &Body, answer: &Answer) -> Option<Write> {
    match (body, answer) {
        (Body::RemoveService { id }, _) => Some(Write::ServiceGone(*id)),
        (_, Answer::Service { id, version }) => Some(Write::Service(*id, *version)),
        _ => None,
    }
}

fn network_written(body: &Body, _: &Answer) -> Option<Write> {
    match body {
        Body::CreateNetwork { id, .. } => Some(Write::Network(*id)),
        Body::RemoveNetwork { id } => Some(Write::NetworkGone(*id)),
        _ => None,
    }
}

fn node_written(body: &Body, _: &Answer) -> Option<Write> {
    if let Body::UpdateNode { node, .. } = body { Some(Write::Node(*node)) } else { None }
}

fn words(body: &Body) -> String {
    match body {
        Body::CreateService { id, spec, .. } => format!("create {} {} {:?}", spec.name, id.short(), spec.mode),
        Body::UpdateService { spec, rollback: true, .. } => format!("rollback {}", spec.name),
        Body::UpdateService { spec, .. } => {
            format!("update {} {:?} {}", spec.name, spec.mode, spec.task.container.image)
        }
        Body::RemoveService { id } => format!("remove service {}", id.short()),
        Body::UpdateNode { node, spec, .. } => format!("node {} {}", node.short(), spec.availability),
        Body::CreateNetwork { spec, .. } => format!("network {}", spec.name),
        Body::RemoveNetwork { id } => format!("remove network {}", id.short()),
        _ => "something else".to_owned(),
    }
}

fn random_update(dice: &Dice) -> UpdateConfig {
    UpdateConfig {
        parallelism: dice.below(4),
        delay: Duration::ZERO,
        monitor: Duration::from_millis(300),
        order: if dice.chance(30) { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst },
        ..UpdateConfig::default()
    }
}

fn random_constraints(dice: &Dice) -> Vec<String> {
    if dice.chance(30) { vec!["node.role==worker".to_owned()] } else { Vec::new() }
}

/// Times are short, so that what was begun before the last fault ends within I12's bound.
fn random_spec(dice: &Dice, name: &str, state: &State) -> ServiceSpec {
    let is_global = dice.chance(20);
    let replicas = dice.below(REPLICAS + 1);
    let mut spec = ServiceSpec {
        name: name.to_owned(),
        labels: BTreeMap::new(),
        mode: if is_global { ServiceMode::Global } else { ServiceMode::Replicated { replicas } },
        update: Some(random_update(dice)),
        rollback: dice.chance(50).then(|| random_update(dice)),
        ..ServiceSpec::default()
    };
    let container = &mut spec.task.container;
    container.image = format!("image:{}", dice.below(10));
    container.stop_grace = Some(dice.millis(200, 600));
    if dice.chance(20) {
        let interval = Some(Duration::from_millis(300));
        let test = vec!["CMD".to_owned(), "true".to_owned()];
        container.healthcheck = Some(Healthcheck { test, interval, retries: 2, ..Healthcheck::default() });
    }
    spec.task.restart = RestartPolicy {
        condition: if dice.chance(70) { RestartCondition::Any } else { RestartCondition::OnFailure },
        delay: dice.millis(0, 800),
        ..RestartPolicy::default()
    };
    if dice.chance(40) {
        let reserve_cpu = NanoCpus(dice.between(1, 4) * 500_000_000);
        spec.task.resources =
            Resources { reserve_cpu, reserve_memory: Bytes(dice.below(3) << 30), ..Resources::default() };
    }
    spec.task.placement.constraints = random_constraints(dice);
    if dice.chance(60) {
        let own = state.networks().filter(|n| !n.removing && NETWORKS.contains(&n.spec.name.as_str()));
        let targets = own.map(|n| n.id.to_string()).filter(|_| dice.chance(70));
        spec.task.networks =
            targets.map(|target| NetworkAttachment { target, ..NetworkAttachment::default() }).collect();
    }
    if dice.chance(50) {
        let mode = if dice.chance(30) { PublishMode::Host } else { PublishMode::Ingress };
        let published = if dice.chance(30) { 0 } else { u16::try_from(8_000 + dice.below(6)).unwrap_or(8_000) };
        spec.endpoint.ports = vec![PortConfig { target: 80, published, mode, ..PortConfig::default() }];
    }
    spec
}
