//! netd itself: takes tables from the daemon and makes them so.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rswarm_types::{NetworkId, TaskId};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::forward::{Exit, Forwarder};
use super::limits::ACCEPT_PAUSE;
use super::names::{Names, NetworkIndex};
use super::protocol::{
    Hello, NetdTable, PROTOCOL_VERSION, Reply, Request, Response, SandboxDns, SandboxFailure, read_frame, write_frame,
};
use super::published::Holder;
use super::resolv::HostServers;
use super::sandbox::Sandbox;
use super::sockets::{Doorman, Namespace, open_dns_sockets};

/// Why a table was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("sandbox {0} is in the table twice")]
    SandboxTwice(TaskId),
    #[error("network {0} is in the table twice")]
    NetworkTwice(NetworkId),
    #[error("sandbox {sandbox} is in network {network}, which is not in the table")]
    NetworkMissing { sandbox: TaskId, network: NetworkId },
    #[error("published port is 0: allowed are 1-65535")]
    PortZero,
}

/// What netd serves.
#[derive(Debug)]
pub struct Netd {
    table_path: PathBuf,
    doorman: Arc<Doorman>,
    forwarder: Arc<Forwarder>,
    networks: BTreeMap<NetworkId, Arc<NetworkIndex>>,
    sandboxes: BTreeMap<TaskId, Sandbox>,
    published: Holder,
    /// With the ports that are in use.
    table: NetdTable,
}

impl Netd {
    /// Serves nothing yet. Tables are saved to `table_path`.
    pub fn new(table_path: PathBuf, resolv_conf: PathBuf) -> Self {
        let doorman = Arc::new(Doorman::default());
        let forwarder = Forwarder::new(HostServers::new(resolv_conf), Arc::clone(&doorman));
        Self {
            table_path,
            doorman,
            forwarder: Arc::new(forwarder),
            networks: BTreeMap::new(),
            sandboxes: BTreeMap::new(),
            published: Holder::default(),
            table: NetdTable::default(),
        }
    }

    /// Takes up the table that the last netd saved. A lost or damaged one is an empty one: the
    /// daemon brings another.
    pub async fn resume(&mut self) {
        let text = match std::fs::read(&self.table_path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                tracing::warn!(path = %self.table_path.display(), %error, "saved table not read");
                return;
            }
        };
        let loaded = match serde_json::from_slice(&text) {
            Ok(table) => self.load(table).await.map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match loaded {
            Ok(reply) => tracing::info!(
                sandboxes = reply.sandboxes.len(),
                failures = reply.failures.len(),
                "saved table in force"
            ),
            Err(error) => tracing::warn!(error, "saved table not in force"),
        }
    }

    /// Makes a table so. When it returns, sandboxes that are not in it have no socket left.
    ///
    /// # Errors
    /// On a table that contradicts itself: then nothing is changed.
    pub async fn load(&mut self, mut table: NetdTable) -> Result<Reply, LoadError> {
        check(&table)?;
        self.index(&mut table);
        self.close_others(&table).await;
        let mut reply = Reply::default();
        for wanted in &mut table.sandboxes {
            match self.serve(wanted).await {
                Ok(ports) => {
                    wanted.udp_port = Some(ports.udp_port);
                    wanted.tcp_port = Some(ports.tcp_port);
                    reply.sandboxes.push(ports);
                }
                Err(error) => {
                    let problem = format!("dns sockets in {} cannot be opened: {error}", wanted.netns.display());
                    reply.failures.push(SandboxFailure { task: wanted.task, problem });
                }
            }
        }
        reply.published = self.published.hold(&table.published).await;
        self.table = table;
        if let Err(error) = self.save() {
            // Names matter more: it is in force, and lost only with both this process and the daemon.
            tracing::error!(path = %self.table_path.display(), %error, "table not saved");
        }
        Ok(reply)
    }

    /// Forgets the saved table.
    ///
    /// # Errors
    /// When its file cannot be removed.
    pub fn forget(&self) -> io::Result<()> {
        match std::fs::remove_file(&self.table_path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL_VERSION,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            table: self.table.version,
        }
    }

    /// Unchanged networks keep their index.
    fn index(&mut self, table: &mut NetdTable) {
        let mut old = std::mem::take(&mut self.networks);
        for network in &table.networks {
            let kept = old.remove(&network.id).filter(|index| index.source() == network);
            let index = kept.unwrap_or_else(|| Arc::new(NetworkIndex::new(network.clone())));
            self.networks.insert(network.id, index);
        }
    }

    async fn close_others(&mut self, table: &NetdTable) {
        let wanted: BTreeMap<TaskId, &Path> = table.sandboxes.iter().map(|s| (s.task, s.netns.as_path())).collect();
        // A path that is gone says nothing about the namespace: it may only be unpinned.
        let is_wanted = |task: &TaskId, sandbox: &Sandbox| {
            wanted.get(task).is_some_and(|path| {
                Namespace::identity_at(path).is_ok_and(|now| now == sandbox.namespace()) || !path.exists()
            })
        };
        let others: Vec<TaskId> = self.sandboxes.iter().filter(|(t, s)| !is_wanted(t, s)).map(|(t, _)| *t).collect();
        for task in others {
            if let Some(sandbox) = self.sandboxes.remove(&task) {
                sandbox.close().await;
                tracing::debug!(task.id = %task, "sandbox dns closed");
            }
        }
    }

    async fn serve(&mut self, wanted: &SandboxDns) -> io::Result<super::protocol::DnsPorts> {
        let networks = wanted.networks.iter().filter_map(|id| self.networks.get(id).cloned());
        let names = Names::new(wanted, networks.collect());
        if let Some(sandbox) = self.sandboxes.get(&wanted.task) {
            sandbox.set_names(names);
            return Ok(sandbox.ports());
        }
        let namespace = Namespace::open(&wanted.netns)?;
        let last = self.table.sandboxes.iter().find(|s| s.task == wanted.task);
        let udp: Vec<u16> = wanted.udp_port.into_iter().chain(last.and_then(|s| s.udp_port)).collect();
        let tcp: Vec<u16> = wanted.tcp_port.into_iter().chain(last.and_then(|s| s.tcp_port)).collect();
        let sockets = self.doorman.within(&namespace, move || open_dns_sockets(&udp, &tcp)).await?;
        let exit = Exit::new(Arc::clone(&self.forwarder), namespace.clone());
        let sandbox = Sandbox::start(wanted.task, namespace.identity(), sockets, names, exit)?;
        let ports = sandbox.ports();
        tracing::debug!(task.id = %wanted.task, udp = ports.udp_port, tcp = ports.tcp_port, "sandbox dns open"
        );
        self.sandboxes.insert(wanted.task, sandbox);
        Ok(ports)
    }

    fn save(&self) -> io::Result<()> {
        let next = self.table_path.with_extension("tmp");
        std::fs::write(&next, serde_json::to_vec(&self.table)?)?;
        std::fs::rename(&next, &self.table_path)
    }
}

fn check(table: &NetdTable) -> Result<(), LoadError> {
    let mut networks = BTreeSet::new();
    for network in &table.networks {
        if !networks.insert(network.id) {
            return Err(LoadError::NetworkTwice(network.id));
        }
    }
    let mut sandboxes = BTreeSet::new();
    for sandbox in &table.sandboxes {
        if !sandboxes.insert(sandbox.task) {
            return Err(LoadError::SandboxTwice(sandbox.task));
        }
        if let Some(network) = sandbox.networks.iter().find(|id| !networks.contains(id)) {
            return Err(LoadError::NetworkMissing { sandbox: sandbox.task, network: *network });
        }
    }
    if table.published.iter().any(|p| p.port == 0) {
        return Err(LoadError::PortZero);
    }
    Ok(())
}

/// Answers the daemon until `stop` is cancelled, by itself or by a request.
pub async fn serve(listener: UnixListener, netd: Netd, stop: CancellationToken) {
    let netd = Arc::new(Mutex::new(netd));
    let mut connections = JoinSet::new();
    loop {
        // All branches are cancel-safe.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let (netd, stop) = (Arc::clone(&netd), stop.clone());
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &netd, &stop).await {
                        tracing::warn!(%error, "connection to the daemon ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "connection of the daemon not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
}

async fn converse(mut stream: UnixStream, netd: &Mutex<Netd>, stop: &CancellationToken) -> io::Result<()> {
    loop {
        let request = match read_frame(&mut stream).await {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return write_frame(&mut stream, &Response::Refused(error.to_string())).await;
            }
            Err(error) => return Err(error),
        };
        let response = match request {
            Request::Hello => Response::Hello(netd.lock().await.hello()),
            Request::Load(table) => match netd.lock().await.load(table).await {
                Ok(reply) => Response::Loaded(reply),
                Err(error) => Response::Refused(error.to_string()),
            },
            Request::Stop { forget } => {
                let forgotten = if forget { netd.lock().await.forget() } else { Ok(()) };
                let response = match forgotten {
                    Ok(()) => Response::Stopping,
                    Err(error) => Response::Refused(format!("saved table not removed: {error}")),
                };
                write_frame(&mut stream, &response).await?;
                tracing::info!(forget, "asked to stop");
                stop.cancel();
                return Ok(());
            }
        };
        write_frame(&mut stream, &response).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::NetworkNames;
    use super::*;
    use crate::ports::PublishedPort;
    use rswarm_types::spec::Protocol;

    #[test]
    fn a_table_that_contradicts_itself_is_refused_by_name() {
        let network = |id| NetworkNames { id: NetworkId(id), ..NetworkNames::default() };
        let sandbox = |id, networks: &[u128]| SandboxDns {
            task: TaskId(id),
            networks: networks.iter().map(|n| NetworkId(*n)).collect(),
            ..SandboxDns::default()
        };
        let table = |sandboxes, networks| NetdTable { sandboxes, networks, ..NetdTable::default() };
        let zero = NetdTable {
            published: vec![PublishedPort { port: 0, protocol: Protocol::Tcp, address: None }],
            ..NetdTable::default()
        };
        let one = TaskId(1);
        for (table, expected) in [
            (table(vec![sandbox(1, &[]), sandbox(1, &[])], vec![]), format!("sandbox {one} is in the table twice")),
            (table(vec![], vec![network(1), network(1)]), format!("network {} is in the table twice", NetworkId(1))),
            (
                table(vec![sandbox(1, &[2])], vec![network(1)]),
                format!("sandbox {one} is in network {}, which is not in the table", NetworkId(2)),
            ),
            (zero, "published port is 0: allowed are 1-65535".to_owned()),
        ] {
            assert_eq!(check(&table).unwrap_err().to_string(), expected);
        }
        check(&table(vec![sandbox(1, &[1]), sandbox(2, &[1])], vec![network(1)])).unwrap();
    }
}
