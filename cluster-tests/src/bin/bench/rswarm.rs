//! Our daemons, one on each host of a lab.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rswarm_api::pb;
use rswarm_api::pb::control_api_client::ControlApiClient;
use rswarm_api::pb::node_api_client::NodeApiClient;
use rswarm_cluster_tests::lab::cluster::{self, Cluster};
use rswarm_cluster_tests::lab::{self, Lab};
use rswarm_types::RequestId;
use rswarm_types::task_state::TaskState;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

use crate::swarm::{IMAGE, NETWORK, Quorum, Swarm};
use crate::writes::{self, CLIENTS, Meter, VALUE_BYTES};

/// Longer than the daemon lets a caller wait.
const TIMEOUT: Duration = Duration::from_secs(25);

pub struct Rswarm {
    cluster: Cluster,
    managers: Vec<String>,
    runtime: Runtime,
    channels: Mutex<BTreeMap<String, Channel>>,
}

impl Rswarm {
    /// Managers m1… and workers w1…, with the image loaded and the network made.
    pub fn new(managers: usize, workers: usize) -> Result<Rswarm> {
        let cluster = Cluster::new(managers, workers);
        let managers = (1..=managers).map(|number| format!("m{number}")).collect();
        let rswarm = Rswarm { cluster, managers, runtime: Runtime::new()?, channels: Mutex::default() };
        rswarm.cli(&["network", "create", "--driver", "overlay", NETWORK])?;
        Ok(rswarm)
    }

    /// Each client changes a label of a service of its own.
    pub fn writes(&self) -> Result<()> {
        let leader = self.leader("m1")?;
        for count in CLIENTS {
            self.runtime.block_on(async {
                let meter = Meter::default();
                let mut clients = JoinSet::new();
                let channels: Vec<Channel> =
                    (0..count.min(8)).map(|_| self.new_channel(&leader)).collect::<Result<_>>()?;
                for number in 0..count {
                    let control = control(channels[number % channels.len()].clone());
                    clients.spawn(relabel(control, format!("writes-{count}-{number}"), meter.clone()));
                }
                writes::measure("rswarm", clients, meter).await
            })?;
        }
        Ok(())
    }

    fn new_channel(&self, host: &str) -> Result<Channel> {
        let socket = self.cluster.lab.find(host)?.socket();
        Ok(Endpoint::try_from(format!("unix://{}", socket.display()))?.timeout(TIMEOUT).connect_lazy())
    }

    fn channel(&self, host: &str) -> Result<Channel> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(host) {
            return Ok(channel.clone());
        }
        let _inside = self.runtime.enter();
        let channel = self.new_channel(host)?;
        channels.insert(host.to_owned(), channel.clone());
        Ok(channel)
    }

    fn nodes(&self, asked: &str) -> Result<Vec<pb::NodeView>> {
        let mut control = control(self.channel(asked)?);
        let answer = self.runtime.block_on(async move { control.list_nodes(pb::Empty {}).await })?;
        Ok(answer.into_inner().nodes)
    }
}

fn control(channel: Channel) -> ControlApiClient<Channel> {
    ControlApiClient::new(channel)
}

/// A question that changes something carries an id of its own.
fn change<Q>(question: Q) -> Result<Request<Q>> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("no random bits")?;
    let id = RequestId(u128::from_be_bytes(bytes)).to_string();
    let mut request = Request::new(question);
    request.metadata_mut().insert("rswarm-request", id.parse()?);
    Ok(request)
}

/// A service without tasks.
fn empty_service(name: &str) -> pb::ServiceSpec {
    let replicated = pb::service_mode::Mode::Replicated(pb::Replicated { replicas: 0 });
    let container = pb::ContainerSpec { image: IMAGE.to_owned(), ..pb::ContainerSpec::default() };
    pb::ServiceSpec {
        name: name.to_owned(),
        mode: Some(pb::ServiceMode { mode: Some(replicated) }),
        task: Some(pb::TaskSpec { container: Some(container), ..pb::TaskSpec::default() }),
        ..pb::ServiceSpec::default()
    }
}

async fn relabel(mut control: ControlApiClient<Channel>, name: String, meter: Meter) -> Result<()> {
    let create = pb::CreateServiceRequest { spec: Some(empty_service(&name)), ..pb::CreateServiceRequest::default() };
    control.create_service(change(create)?).await?;
    let view = control.get_service(pb::Ref { name: name.clone() }).await?.into_inner();
    let service = view.service.context("a service without content")?;
    let (mut version, mut spec) = (service.meta.unwrap_or_default().version, service.spec.unwrap_or_default());
    for number in 0_u64.. {
        spec.labels.insert("value".to_owned(), format!("{number:0VALUE_BYTES$}"));
        let update = pb::UpdateServiceRequest {
            name: name.clone(),
            version,
            spec: Some(spec.clone()),
            ..pb::UpdateServiceRequest::default()
        };
        version = control.update_service(change(update)?).await?.into_inner().version;
        if !meter.count() {
            break;
        }
    }
    Ok(())
}

impl Quorum for Rswarm {
    fn name(&self) -> &'static str {
        "rswarm"
    }

    fn lab(&self) -> &Lab {
        &self.cluster.lab
    }

    fn members(&self) -> Vec<&str> {
        self.managers.iter().map(String::as_str).collect()
    }

    fn leader(&self, asked: &str) -> Result<String> {
        let nodes = self.nodes(asked)?;
        let leader = nodes.into_iter().find(|node| node.is_leader).and_then(|view| view.node);
        Ok(leader.and_then(|node| node.description).context("no node is the leader")?.hostname)
    }

    fn is_whole(&self) -> bool {
        let hosts = self.cluster.names().count();
        // Every manager must know it by itself.
        self.managers.iter().all(|manager| {
            let nodes = self.nodes(manager).unwrap_or_default();
            let state = |view: &pb::NodeView| view.node.as_ref().and_then(|node| node.status.as_ref()).map(|s| s.state);
            let is_ready = |view: &&pb::NodeView| state(view) == Some(pb::NodeState::Ready as i32);
            let in_touch = nodes.iter().filter(|view| view.is_leader || view.is_reachable).count();
            nodes.iter().filter(is_ready).count() == hosts && in_touch >= self.managers.len()
        })
    }

    fn write(&self, host: &str, name: &str) -> Result<()> {
        let mut control = control(self.channel(host)?);
        let create =
            pb::CreateServiceRequest { spec: Some(empty_service(name)), ..pb::CreateServiceRequest::default() };
        let request = change(create)?;
        self.runtime.block_on(async move { control.create_service(request).await })?;
        Ok(())
    }

    fn kill(&self, host: &str) -> Result<()> {
        self.cluster.host(host).sigkill_daemon()
    }

    fn start(&self, host: &str) -> Result<()> {
        cluster::start(self.cluster.host(host))
    }
}

impl Swarm for Rswarm {
    fn cli(&self, args: &[&str]) -> Result<String> {
        let address = format!("unix://{}", self.cluster.host("m1").socket().display());
        let output = Command::new(lab::binary()?).args(["-H", &address]).args(args).output()?;
        if !output.status.success() {
            bail!("rswarm {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn running(&self, service: &str) -> Result<Vec<String>> {
        let nodes = self.nodes("m1")?.into_iter().filter_map(|view| view.node);
        let names: BTreeMap<Vec<u8>, String> =
            nodes.filter_map(|node| Some((node.id.to_vec(), node.description?.hostname))).collect();
        let mut control = control(self.channel("m1")?);
        let filter = pb::ListTasksRequest { service: service.to_owned(), ..pb::ListTasksRequest::default() };
        let answer = self.runtime.block_on(async move { control.list_tasks(filter).await })?;
        let is_running = |task: &pb::Task| {
            let state = task.status.as_ref().map_or(0, |status| status.state);
            task.desired == pb::DesiredState::Running as i32 && state == TaskState::Running as u32
        };
        let running = answer.into_inner().tasks.into_iter().filter(is_running);
        Ok(running.filter_map(|task| names.get(&task.node?.to_vec()).cloned()).collect())
    }

    fn containers(&self, host: &str) -> Result<usize> {
        let mut node = NodeApiClient::new(self.channel(host)?);
        let all = pb::ContainersRequest { all: true, size: false };
        let answer = self.runtime.block_on(async move { node.containers(all).await })?;
        Ok(answer.into_inner().containers.len())
    }

    fn workers(&self) -> Vec<&str> {
        self.cluster.workers().collect()
    }
}
