//! The only place where tables are written: each write keeps the indexes and the digest.

use std::net::IpAddr;
use std::sync::Arc;

use rswarm_types::cluster::Cluster;
use rswarm_types::command::{RequestRecord, RestartHistory, RetiredNumber};
use rswarm_types::network::Network;
use rswarm_types::node::Node;
use rswarm_types::service::Service;
use rswarm_types::spec::ServiceSpec;
use rswarm_types::task::{Slot, Task};
use rswarm_types::{NetworkId, NodeId, RequestId, ServiceId, TaskId};

use crate::canonical::{Canonical, WithSpec};
use crate::digest::{RowHash, Sum, Table, hash_row, hash_value};
use crate::state::State;

/// A record with its share of the digest.
#[derive(Debug)]
pub(crate) struct Row<T> {
    pub record: Arc<T>,
    hash: RowHash,
    /// Hash of the shared spec, for services and tasks.
    spec_hash: RowHash,
}

impl<T> Clone for Row<T> {
    fn clone(&self) -> Self {
        Self { record: Arc::clone(&self.record), hash: self.hash, spec_hash: self.spec_hash }
    }
}

impl<T: Canonical> Row<T> {
    fn new(table: Table, record: T) -> Self {
        let hash = hash_row(table, &record);
        Self { record: Arc::new(record), hash, spec_hash: [0; 32] }
    }
}

/// Takes the old row out of the sum and puts the new one in.
fn account<T>(sum: &mut Sum, old: Option<&Row<T>>, new: Option<&Row<T>>) {
    if let Some(row) = old {
        sum.subtract(&row.hash);
    }
    if let Some(row) = new {
        sum.add(&row.hash);
    }
}

impl State {
    pub(crate) fn put_cluster(&mut self, cluster: Cluster) {
        let row = Row::new(Table::Cluster, cluster);
        account(&mut self.sum, self.cluster.as_ref(), Some(&row));
        self.cluster = Some(row);
    }

    pub(crate) fn put_node(&mut self, node: Node) {
        let row = Row::new(Table::Nodes, node);
        let old = self.nodes.insert(row.record.id, row.clone());
        account(&mut self.sum, old.as_ref(), Some(&row));
        self.indexes.replace_node(old.as_ref().map(|r| &*r.record), Some(&row.record));
    }

    pub(crate) fn remove_node(&mut self, id: NodeId) {
        let old = self.nodes.remove(&id);
        account(&mut self.sum, old.as_ref(), None);
        self.indexes.replace_node(old.as_ref().map(|r| &*r.record), None);
    }

    pub(crate) fn put_network(&mut self, network: Network) {
        let row = Row::new(Table::Networks, network);
        let old = self.networks.insert(row.record.id, row.clone());
        account(&mut self.sum, old.as_ref(), Some(&row));
        self.indexes.replace_network(old.as_ref().map(|r| &*r.record), Some(&row.record));
    }

    pub(crate) fn remove_network(&mut self, id: NetworkId) {
        let old = self.networks.remove(&id);
        account(&mut self.sum, old.as_ref(), None);
        self.indexes.replace_network(old.as_ref().map(|r| &*r.record), None);
        if let Some(last) = self.address_cursors.remove(&id) {
            self.sum.subtract(&hash_row(Table::AddressCursors, &(id, last)));
        }
    }

    pub(crate) fn put_service(&mut self, service: Service) {
        let spec_hash = self.hash_of_service_spec(service.id, &service.spec);
        let hash = hash_row(Table::Services, &WithSpec(&service, &spec_hash));
        let row = Row { record: Arc::new(service), hash, spec_hash };
        let old = self.services.insert(row.record.id, row.clone());
        account(&mut self.sum, old.as_ref(), Some(&row));
        self.indexes.replace_service(old.as_ref().map(|r| &*r.record), Some(&row.record));
    }

    pub(crate) fn remove_service(&mut self, id: ServiceId) {
        let old = self.services.remove(&id);
        account(&mut self.sum, old.as_ref(), None);
        self.indexes.replace_service(old.as_ref().map(|r| &*r.record), None);
    }

    pub(crate) fn put_task(&mut self, task: Task) {
        let spec_hash = match self.tasks.get(&task.id) {
            Some(row) if Arc::ptr_eq(&row.record.spec, &task.spec) => row.spec_hash,
            _ => self.hash_of_service_spec(task.service, &task.spec),
        };
        let hash = hash_row(Table::Tasks, &WithSpec(&task, &spec_hash));
        let row = Row { record: Arc::new(task), hash, spec_hash };
        let old = self.tasks.insert(row.record.id, row.clone());
        account(&mut self.sum, old.as_ref(), Some(&row));
        self.indexes.replace_task(old.as_ref().map(|r| &*r.record), Some(&row.record));
    }

    pub(crate) fn remove_task(&mut self, id: TaskId) {
        let old = self.tasks.remove(&id);
        account(&mut self.sum, old.as_ref(), None);
        self.indexes.replace_task(old.as_ref().map(|r| &*r.record), None);
    }

    /// The hash that the service's row knows, where it holds the same allocation.
    fn hash_of_service_spec(&self, service: ServiceId, spec: &Arc<ServiceSpec>) -> RowHash {
        match self.services.get(&service) {
            Some(row) if Arc::ptr_eq(&row.record.spec, spec) => row.spec_hash,
            _ => hash_value(spec),
        }
    }

    pub(crate) fn put_restarts(&mut self, history: RestartHistory) {
        let row = Row::new(Table::Restarts, history);
        let old = self.restarts.insert((row.record.service, row.record.slot), row.clone());
        account(&mut self.sum, old.as_ref(), Some(&row));
    }

    pub(crate) fn remove_restarts(&mut self, service: ServiceId, slot: Slot) {
        let old = self.restarts.remove(&(service, slot));
        account(&mut self.sum, old.as_ref(), None);
    }

    pub(crate) fn put_request(&mut self, request: RequestRecord) {
        let row = Row::new(Table::Requests, request);
        let key = (row.record.caller, row.record.request);
        self.indexes.requests_by_time.insert((row.record.at, key.0, key.1));
        let old = self.requests.insert(key, row.clone());
        account(&mut self.sum, old.as_ref(), Some(&row));
    }

    pub(crate) fn remove_request(&mut self, caller: NodeId, request: RequestId) {
        let old = self.requests.remove(&(caller, request));
        account(&mut self.sum, old.as_ref(), None);
        if let Some(row) = old {
            self.indexes.requests_by_time.remove(&(row.record.at, caller, request));
        }
    }

    pub(crate) fn put_retired(&mut self, retired: RetiredNumber) {
        let row = Row::new(Table::Retired, retired);
        let old = self.retired.insert(retired.number, row.clone());
        account(&mut self.sum, old.as_ref(), Some(&row));
    }

    pub(crate) fn remove_retired(&mut self, number: u16) {
        let old = self.retired.remove(&number);
        account(&mut self.sum, old.as_ref(), None);
    }

    pub(crate) fn put_address_cursor(&mut self, network: NetworkId, address: IpAddr) {
        let old = self.address_cursors.get(&network).copied();
        if let Some(old) = old {
            self.sum.subtract(&hash_row(Table::AddressCursors, &(network, old)));
        }
        let mut last = old.unwrap_or_default();
        last.put(address);
        self.sum.add(&hash_row(Table::AddressCursors, &(network, last)));
        self.address_cursors.insert(network, last);
    }
}
