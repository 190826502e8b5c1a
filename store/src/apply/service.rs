//! Services: made, updated, rolled back, removed.
//!
//! A service's version moves with its spec only, not with the progress of its update: `service
//! update` must not be refused because a slot was replaced meanwhile.

use std::sync::Arc;

use rswarm_types::command::Answer;
use rswarm_types::service::{RegistryAuth, Service, UpdateState, UpdateStatus};
use rswarm_types::spec::{EndpointSpec, NetworkDriver, PublishMode, ServiceMode, ServiceSpec, TaskSpec};
use rswarm_types::{NetworkId, Refusal, ServiceId, TimestampMs};

use super::{Draft, check_version};

/// Whether tasks made of either spec are alike, so that none needs to be replaced.
///
/// Not compared: the service's labels, mode and update settings, how connections are balanced, and the placement (tasks
/// whose node still matches stay).
pub fn makes_same_tasks(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    let made_of = |spec: &'_ ServiceSpec| {
        let EndpointSpec { mode, balance: _, ports } = spec.endpoint.clone();
        let TaskSpec { container, resources, restart, placement: _, networks, log_driver, force_update } =
            spec.task.clone();
        ((container, resources, restart, networks, log_driver, force_update), (mode, ports))
    };
    made_of(a) == made_of(b)
}

impl Draft {
    pub(super) fn create_service(
        &mut self,
        id: ServiceId,
        spec: &Arc<ServiceSpec>,
        auth: &RegistryAuth,
    ) -> Result<Answer, Refusal> {
        if let Some(other) = self.state.indexes.service_names.get(&spec.name) {
            return Err(Refusal::Conflict(format!(
                "service name \"{}\" is already in use by service {}",
                spec.name,
                other.short(),
            )));
        }
        if self.state.service(id).is_some() {
            return Err(Refusal::Conflict(format!("service id {id} is taken")));
        }
        let spec = self.with_network_ids(spec)?;
        let ports = self.published_ports(id, &spec, &[])?;
        let vips = self.virtual_ips(&spec, &[])?;
        self.put_service(Service {
            id,
            meta: self.made(),
            spec,
            previous: None,
            spec_version: self.index,
            ports,
            vips,
            update: None,
            removing: false,
            registry_auth: auth.clone(),
        });
        Ok(Answer::Service { id, version: self.index })
    }

    pub(super) fn update_service(
        &mut self,
        id: ServiceId,
        version: u64,
        spec: &Arc<ServiceSpec>,
        auth: Option<&RegistryAuth>,
        rollback: bool,
    ) -> Result<Answer, Refusal> {
        let service = self.service(id)?;
        check_version("service", &service.spec.name, service.meta.version, version)?;
        let spec = match &service.previous {
            Some(previous) if rollback => Arc::clone(previous),
            None if rollback => {
                return Err(Refusal::Conflict(format!(
                    "service \"{}\" does not have a previous spec to roll back to",
                    service.spec.name,
                )));
            }
            _ => Arc::clone(spec),
        };
        self.resume(&service);
        self.change_service(id, &spec, auth, rollback)?;
        let version = self.service(id)?.meta.version;
        Ok(Answer::Service { id, version })
    }

    /// Any update of a service whose update is paused lets it go on, as in Swarm.
    fn resume(&mut self, service: &Service) {
        let Some(status) = &service.update else { return };
        let (state, message) = match status.state {
            UpdateState::Paused => (UpdateState::Updating, "update resumed"),
            UpdateState::RollbackPaused => (UpdateState::RollbackStarted, "rollback resumed"),
            _ => return,
        };
        // What failed before counts no more.
        let status = UpdateStatus { state, message: message.into(), started: self.at, ..status.clone() };
        self.put_service(Service { update: Some(status), ..service.clone() });
    }

    /// Gives the service another spec; whether that changed anything.
    pub(super) fn change_service(
        &mut self,
        id: ServiceId,
        spec: &Arc<ServiceSpec>,
        auth: Option<&RegistryAuth>,
        rollback: bool,
    ) -> Result<bool, Refusal> {
        let mut service = self.service(id)?;
        let spec = self.with_network_ids(spec)?;
        if let Some(auth) = auth.filter(|auth| **auth != service.registry_auth) {
            service.registry_auth = auth.clone();
            self.put_service(service.clone());
        }
        if *service.spec == *spec {
            return Ok(false);
        }
        if service.spec.name != spec.name {
            return Err(Refusal::Conflict(format!(
                "service \"{}\" can't be renamed to \"{}\": make a new one",
                service.spec.name, spec.name,
            )));
        }
        let is_global = |spec: &ServiceSpec| matches!(spec.mode, ServiceMode::Global);
        if is_global(&service.spec) != is_global(&spec) {
            return Err(Refusal::Conflict(format!(
                "the mode of service \"{}\" can't change between replicated and global: make a new one",
                service.spec.name,
            )));
        }
        service.ports = self.published_ports(id, &spec, &service.ports)?;
        service.vips = self.virtual_ips(&spec, &service.vips)?;
        if !makes_same_tasks(&service.spec, &spec) {
            service.spec_version = self.index;
            let has_tasks = self.state.tasks_of_service(id).any(|task| task.is_live());
            service.update = has_tasks.then(|| self.started_update(rollback));
        }
        service.previous = Some(std::mem::replace(&mut service.spec, spec));
        self.touch(&mut service.meta);
        self.put_service(service);
        Ok(true)
    }

    fn started_update(&self, rollback: bool) -> UpdateStatus {
        let (state, message) = if rollback {
            (UpdateState::RollbackStarted, "manually requested rollback")
        } else {
            (UpdateState::Updating, "update in progress")
        };
        UpdateStatus {
            state,
            message: message.into(),
            started: self.at,
            last_slot: TimestampMs(0),
            started_at: self.wall,
            completed_at: TimestampMs(0),
        }
    }

    /// Its name and ports are free at once; its addresses once its last task is gone.
    pub(super) fn remove_service(&mut self, id: ServiceId) -> Result<(), Refusal> {
        let mut service = self.service(id)?;
        service.removing = true;
        self.touch(&mut service.meta);
        self.put_service(service);
        Ok(())
    }

    /// The last step of a removal; nothing while there are tasks.
    pub(super) fn forget_service(&mut self, id: ServiceId) {
        let is_removing = self.state.service(id).is_some_and(|service| service.removing);
        if !is_removing || self.state.tasks_of_service(id).next().is_some() {
            return;
        }
        self.changed.services.insert(id);
        let slots: Vec<_> = self.state.restarts_of_service(id).map(|history| history.slot).collect();
        for slot in slots {
            self.state.remove_restarts(id, slot);
        }
        self.state.remove_service(id);
    }

    pub(super) fn set_update_status(&mut self, id: ServiceId, version: u64, status: &UpdateStatus) {
        if let Ok(service) = self.service(id)
            && service.meta.version == version
            && service.update.as_ref() != Some(status)
        {
            self.put_service(Service { update: Some(status.clone()), ..service });
        }
    }

    /// The spec with the ids of its networks in place of names. Networks that tasks can't join are
    /// refused.
    fn with_network_ids(&self, spec: &Arc<ServiceSpec>) -> Result<Arc<ServiceSpec>, Refusal> {
        let mut ids: Vec<NetworkId> = Vec::new();
        for wanted in &spec.task.networks {
            let network = self.state.find_network(&wanted.target)?;
            if network.spec.ingress {
                return Err(Refusal::invalid(
                    "network",
                    format!("\"{}\" is the ingress network: it is joined by publishing a port", network.spec.name),
                ));
            }
            if network.spec.driver == NetworkDriver::Host
                && spec.endpoint.ports.iter().any(|port| port.mode == PublishMode::Ingress)
            {
                return Err(Refusal::invalid(
                    "publish",
                    "on the host network ports can only be published with mode=host",
                ));
            }
            ids.push(network.id);
        }
        let targets = || ids.iter().map(ToString::to_string);
        if targets().eq(spec.task.networks.iter().map(|n| n.target.clone())) {
            return Ok(Arc::clone(spec));
        }
        let mut spec = spec.as_ref().clone();
        for (wanted, target) in spec.task.networks.iter_mut().zip(targets()) {
            wanted.target = target;
        }
        Ok(Arc::new(spec))
    }
}
