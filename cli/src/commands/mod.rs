//! What each command does: asks the daemon, and prints.

use std::path::PathBuf;

use rswarm_api::{Wire, pb};
use rswarm_types::network::Network;

use crate::args::{Cli, Command, cluster as cluster_args};
use crate::client::{Client, socket_path};
use crate::docker_json::Networks;
use crate::errors::Result;
use crate::view::{NodeNames, NodeView, ServiceView, node_names};

mod cluster;
mod image;
mod info;
mod login;
mod network;
mod node;
mod resolve;
mod service;
mod service_change;
mod service_logs;
mod stack;
mod volume;

/// Runs a command that talks to the daemon.
///
/// # Errors
/// The command's.
pub async fn run(cli: Cli) -> Result<()> {
    let path = socket_path(&cli.host)?;
    match cli.command {
        // These have something to say without a daemon.
        Command::Version(args) => info::version(&path, &args).await,
        Command::Logout(args) => login::logout(&args),
        command => with_daemon(path, command).await,
    }
}

async fn with_daemon(path: PathBuf, command: Command) -> Result<()> {
    let client = Client::connect(&path).await?;
    match command {
        Command::Init(args) => cluster::init(&client, args).await,
        Command::Join(args) => cluster::join(&client, args).await,
        Command::JoinToken(args) => cluster::join_token(&client, args).await,
        Command::Leave(args) => cluster::leave(&client, args).await,
        Command::Swarm(swarm) => match swarm {
            cluster_args::Swarm::Init(args) => cluster::init(&client, args).await,
            cluster_args::Swarm::Join(args) => cluster::join(&client, args).await,
            cluster_args::Swarm::JoinToken(args) => cluster::join_token(&client, args).await,
            cluster_args::Swarm::Leave(args) => cluster::leave(&client, args).await,
        },
        Command::Node(args) => node::run(&client, args).await,
        Command::Service(args) => service::run(&client, *args).await,
        Command::Stack(args) => stack::run(&client, args).await,
        Command::Network(args) => network::run(&client, args).await,
        Command::Volume(args) => volume::run(&client, args).await,
        Command::Image(args) => image::run(&client, args).await,
        Command::Login(args) => login::login(&client, args).await,
        Command::Ps(args) => info::containers(&client, &args).await,
        Command::Info(args) => info::info(&client, &args).await,
        // `main` and `run` took these.
        Command::Daemon(_) | Command::Version(_) | Command::Logout(_) => Ok(()),
    }
}

/// Every node.
async fn nodes(client: &Client) -> Result<Vec<NodeView>> {
    let list = client.read(pb::Empty {}, async |mut c, r| c.list_nodes(r).await).await?;
    list.nodes.into_iter().map(|node| NodeView::read(node).map_err(Into::into)).collect()
}

/// What to call each node.
async fn names(client: &Client) -> Result<NodeNames> {
    Ok(node_names(&nodes(client).await?))
}

/// Every service.
async fn services(client: &Client) -> Result<Vec<ServiceView>> {
    let list = client.read(pb::Empty {}, async |mut c, r| c.list_services(r).await).await?;
    list.services.into_iter().map(|service| ServiceView::read(service).map_err(Into::into)).collect()
}

/// One service.
async fn service_named(client: &Client, name: &str) -> Result<ServiceView> {
    let name = crate::client::reference(name);
    let view = client.read(name, async |mut c, r| c.get_service(r).await).await?;
    Ok(ServiceView::read(view)?)
}

/// Every network.
async fn networks(client: &Client) -> Result<Networks> {
    let list = client.read(pb::Empty {}, async |mut c, r| c.list_networks(r).await).await?;
    let networks: Vec<Network> = Wire::from_pb(list.networks)?;
    Ok(networks.into_iter().map(|network| (network.id, network)).collect())
}
