//! Stacks: many services and networks in one entry, all or nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use rswarm_types::command::{Answer, StackChange, StackOutcome};
use rswarm_types::limits::BATCH_CHANGES_MAX;
use rswarm_types::network::Network;
use rswarm_types::service::Service;
use rswarm_types::{Refusal, ServiceId};

use super::Draft;
use crate::allocate::with_kept_numbers;

/// Label of everything that a stack made (Docker's).
const STACK_LABEL: &str = "com.docker.stack.namespace";

fn is_of_stack(labels: &BTreeMap<String, String>, stack: &str) -> bool {
    labels.get(STACK_LABEL).is_some_and(|name| name == stack)
}

impl Draft {
    pub(super) fn deploy_stack(&mut self, stack: &StackChange) -> Result<Answer, Refusal> {
        let changes = stack.networks.len() + stack.services.len();
        if changes > BATCH_CHANGES_MAX {
            return Err(Refusal::Exhausted(format!(
                "stack \"{}\" has {changes} services and networks: one deploy takes at most {BATCH_CHANGES_MAX}",
                stack.name,
            )));
        }
        let mut outcomes = Vec::new();
        if stack.prune {
            let is_listed = |service: &Service| stack.services.iter().any(|s| s.spec.name == service.spec.name);
            for service in self.services_of_stack(&stack.name) {
                if !is_listed(&service) {
                    self.remove_service(service.id)?;
                    outcomes.push(StackOutcome::ServiceRemoved { name: service.spec.name.clone(), id: service.id });
                }
            }
        }
        for network in &stack.networks {
            if !self.state.indexes.network_names.contains_key(&network.spec.name) {
                let id = self.create_network(network.id, &network.spec)?;
                outcomes.push(StackOutcome::NetworkCreated { name: network.spec.name.clone(), id });
            }
        }
        let mut existing: BTreeMap<String, ServiceId> = BTreeMap::new();
        for wanted in &stack.services {
            let name = &wanted.spec.name;
            if let Some(id) = self.state.indexes.service_names.get(name).copied() {
                let service = self.service(id)?;
                if !is_of_stack(&service.spec.labels, &stack.name) {
                    return Err(Refusal::Conflict(format!(
                        "service name \"{name}\" is already in use by service {}, which is not of stack \"{}\"",
                        id.short(),
                        stack.name,
                    )));
                }
                existing.insert(name.clone(), id);
                self.give_up_ports(service, &wanted.spec.endpoint.ports);
            }
        }
        for wanted in &stack.services {
            let name = wanted.spec.name.clone();
            outcomes.push(match existing.get(&name) {
                Some(id) => {
                    let auth = Some(&wanted.auth).filter(|auth| !auth.0.is_empty());
                    let changed = self.change_service(*id, &wanted.spec, auth, false)?;
                    StackOutcome::ServiceUpdated { name, id: *id, changed }
                }
                None => {
                    self.create_service(wanted.id, &wanted.spec, &wanted.auth)?;
                    StackOutcome::ServiceCreated { name, id: wanted.id }
                }
            });
        }
        Ok(Answer::Stack(outcomes))
    }

    /// Frees the ports that the new spec does not ask for, so that services of one stack can swap
    /// ports in one deploy, whatever their order.
    fn give_up_ports(&mut self, mut service: Service, wanted: &[rswarm_types::spec::PortConfig]) {
        let wanted = with_kept_numbers(wanted, &service.ports);
        let count = service.ports.len();
        service.ports.retain(|port| wanted.contains(port));
        if service.ports.len() != count {
            self.put_service(service);
        }
    }

    pub(super) fn remove_stack(&mut self, name: &str) -> Result<Answer, Refusal> {
        let services = self.services_of_stack(name);
        let is_ours = |network: &&Arc<Network>| !network.removing && is_of_stack(&network.spec.labels, name);
        let networks: Vec<Network> = self.state.networks().filter(is_ours).map(|n| n.as_ref().clone()).collect();
        if services.is_empty() && networks.is_empty() {
            return Err(Refusal::not_found("stack", name));
        }
        let mut outcomes = Vec::new();
        for service in services {
            self.remove_service(service.id)?;
            outcomes.push(StackOutcome::ServiceRemoved { name: service.spec.name.clone(), id: service.id });
        }
        for network in networks {
            self.remove_network(network.id)?;
            outcomes.push(StackOutcome::NetworkRemoved { name: network.spec.name, id: network.id });
        }
        Ok(Answer::Stack(outcomes))
    }

    fn services_of_stack(&self, name: &str) -> Vec<Service> {
        let is_ours = |service: &&Arc<Service>| !service.removing && is_of_stack(&service.spec.labels, name);
        self.state.services().filter(is_ours).map(|s| s.as_ref().clone()).collect()
    }
}
