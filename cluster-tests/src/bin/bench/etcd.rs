//! Three members of etcd, one on each host of a lab, without TLS.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use prost::Message;
use rswarm_cluster_tests::lab::Lab;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::note;
use crate::swarm::{Quorum, await_until};
use crate::writes::{self, CLIENTS, Meter, VALUE_BYTES};

const HOSTS: [&str; 3] = ["m1", "m2", "m3"];
const PROCESS: &str = "etcd";
/// Longer than etcd lets a caller wait.
const TIMEOUT: Duration = Duration::from_secs(10);

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, Message)]
struct Put {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// An answer or a question without anything that is used.
#[derive(Clone, PartialEq, Message)]
struct Nothing {}

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member: u64,
}

/// `etcdserverpb.StatusResponse`.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

pub struct Etcd {
    lab: Lab,
    runtime: Runtime,
    channels: BTreeMap<&'static str, Channel>,
}

impl Etcd {
    pub fn new() -> Result<Etcd> {
        // The daemon's program is not used: etcd is spawned by its name.
        let lab = Lab::builder().hosts(HOSTS).binary("/usr/bin/etcd").build()?;
        let runtime = Runtime::new()?;
        let mut channels = BTreeMap::new();
        {
            let _inside = runtime.enter();
            for host in HOSTS {
                channels.insert(host, channel(&lab, host)?);
            }
        }
        let etcd = Etcd { lab, runtime, channels };
        for host in HOSTS {
            etcd.start(host)?;
        }
        etcd.await_whole()?;
        Ok(etcd)
    }

    pub fn writes(&self) -> Result<()> {
        note("etcd: 3 members without TLS, 1 KiB values, asked over gRPC at the leader's unix socket; so is rswarm");
        let leader = self.leader(HOSTS[0])?;
        for count in CLIENTS {
            self.runtime.block_on(async {
                let meter = Meter::default();
                let mut clients = JoinSet::new();
                let channels: Vec<Channel> =
                    (0..count.min(8)).map(|_| channel(&self.lab, &leader)).collect::<Result<_>>()?;
                for number in 0..count {
                    let (channel, meter) = (channels[number % channels.len()].clone(), meter.clone());
                    clients.spawn(async move {
                        let put = Put { key: format!("k{number}").into_bytes(), value: vec![7; VALUE_BYTES] };
                        loop {
                            let _: Nothing = call(channel.clone(), "/etcdserverpb.KV/Put", put.clone()).await?;
                            if !meter.count() {
                                return Ok(());
                            }
                        }
                    });
                }
                writes::measure("etcd", clients, meter).await
            })?;
        }
        Ok(())
    }

    fn status(&self, host: &str) -> Result<Status> {
        let channel = self.channels.get(host).context("unknown host")?.clone();
        self.runtime.block_on(call(channel, "/etcdserverpb.Maintenance/Status", Nothing {}))
    }
}

fn channel(lab: &Lab, host: &str) -> Result<Channel> {
    // etcd takes `unix://HOST:PORT` only, and makes a file of that name where it was started.
    let socket = lab.find(host)?.data_dir().join("etcd/client:1");
    Ok(Endpoint::try_from(format!("unix://{}", socket.display()))?.timeout(TIMEOUT).connect_lazy())
}

async fn call<Q, A>(channel: Channel, path: &'static str, question: Q) -> Result<A>
where
    Q: Message + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
{
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let answer = client.unary(Request::new(question), PathAndQuery::from_static(path), ProstCodec::<Q, A>::default());
    Ok(answer.await?.into_inner())
}

impl Quorum for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn members(&self) -> Vec<&str> {
        HOSTS.to_vec()
    }

    fn leader(&self, asked: &str) -> Result<String> {
        let leader = self.status(asked)?.leader;
        let is_leader = |host: &&str| {
            self.status(host).is_ok_and(|status| status.header.is_some_and(|header| header.member == leader))
        };
        Ok((*HOSTS.iter().find(|host| is_leader(host)).context("no member is the leader")?).to_owned())
    }

    fn is_whole(&self) -> bool {
        let leaders: Vec<u64> = HOSTS.iter().filter_map(|host| self.status(host).ok()).map(|s| s.leader).collect();
        leaders.len() == HOSTS.len() && leaders[0] != 0 && leaders.iter().all(|leader| *leader == leaders[0])
    }

    fn write(&self, host: &str, name: &str) -> Result<()> {
        let channel = self.channels.get(host).context("unknown host")?.clone();
        let put = Put { key: name.as_bytes().to_vec(), value: b"x".to_vec() };
        let _: Nothing = self.runtime.block_on(call(channel, "/etcdserverpb.KV/Put", put))?;
        Ok(())
    }

    fn kill(&self, host: &str) -> Result<()> {
        self.lab.find(host)?.kill(PROCESS)
    }

    fn start(&self, name: &str) -> Result<()> {
        let host = self.lab.find(name)?;
        std::fs::create_dir_all(host.data_dir().join("etcd"))?;
        let own = format!("http://{}:2380", host.address());
        let mut cluster = Vec::new();
        for other in HOSTS {
            cluster.push(format!("{other}=http://{}:2380", self.lab.find(other)?.address()));
        }
        let (cluster, client) = (cluster.join(","), format!("http://{}:2379", host.address()));
        let line = "cd /var/lib/rswarm/etcd && exec etcd \"$@\"";
        let mut words = vec!["sh", "-c", line, "etcd", "--name", name, "--data-dir", "/var/lib/rswarm/etcd/data"];
        words.extend(["--listen-client-urls", "unix://client:1", "--advertise-client-urls", &client]);
        words.extend([
            "--listen-peer-urls",
            &own,
            "--initial-advertise-peer-urls",
            &own,
            "--initial-cluster",
            &cluster,
        ]);
        let socket = host.data_dir().join("etcd/client:1");
        // One that was killed leaves it, and the next one would not begin.
        let _ = std::fs::remove_file(&socket);
        host.spawn(PROCESS, &words)?;
        await_until("etcd answers", || std::os::unix::net::UnixStream::connect(&socket).is_ok())
    }
}
