//! `network …`.

use rswarm_api::{Wire, pb};
use rswarm_types::NetworkId;
use rswarm_types::network::Network as NetworkNoun;
use rswarm_types::task::Task;

use super::{networks, nodes, services};
use crate::args::network::{Create, Inspect, Ls, Network, Rm};
use crate::client::{Client, is_missing, reference};
use crate::confirm::is_confirmed;
use crate::docker_json::{self, Attached};
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::output::{line, out};
use crate::view::ServiceView;
use crate::{inspect, render, specs};

pub async fn run(client: &Client, command: Network) -> Result<()> {
    match command {
        Network::Create(args) => create(client, *args).await,
        Network::Ls(args) => ls(client, args).await,
        Network::Inspect(args) => inspect(client, args).await,
        Network::Rm(args) => rm(client, args).await,
    }
}

async fn create(client: &Client, args: Create) -> Result<()> {
    let spec = specs::network_spec(&args)?.to_pb();
    line(&client.change(spec, async |mut c, r| c.create_network(r).await).await?.name)
}

async fn ls(client: &Client, args: Ls) -> Result<()> {
    let filters = Filters::parse(&args.filter, &render::network::FILTERS)?;
    let all: Vec<NetworkNoun> = networks(client).await?.into_values().collect();
    let services = services(client).await?;
    let is_used = |id: NetworkId| services.iter().any(|view| is_on(view, id));
    out(&render::network::listing(all, &filters, args.no_trunc, &is_used)?.show(&args.list)?)
}

fn is_on(view: &ServiceView, network: NetworkId) -> bool {
    view.service.spec.task.networks.iter().any(|attachment| attachment.target == network.to_string())
}

async fn inspect(client: &Client, args: Inspect) -> Result<()> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.networks {
        match client.read(reference(name), async |mut c, r| c.get_network(r).await).await {
            Ok(network) => {
                let network: NetworkNoun = Wire::from_pb(network)?;
                let attached = if args.verbose { Some(attached(client, &network).await?) } else { None };
                found.push(docker_json::network(&network, attached.as_deref()));
            }
            Err(error) => missing.push(error),
        }
    }
    inspect::print(found, missing, args.format.as_deref())
}

/// The services on a network.
async fn attached(client: &Client, network: &NetworkNoun) -> Result<Vec<Attached>> {
    let nodes = nodes(client).await?;
    let address_of = |task: &Task| {
        let view = nodes.iter().find(|view| Some(view.node.id) == task.node);
        view.and_then(|view| view.node.status.address).map(|a| a.to_string()).unwrap_or_default()
    };
    let list = client.read(pb::ListTasksRequest::default(), async |mut c, r| c.list_tasks(r).await).await?;
    let tasks: Vec<Task> = Wire::from_pb(list.tasks)?;
    let mut all: Vec<Attached> = services(client)
        .await?
        .iter()
        .filter_map(|view| {
            let service = &view.service;
            let vip = service.vips.iter().find(|vip| vip.network == network.id);
            let vip = vip.map(|vip| vip.addresses).unwrap_or_default();
            let own = tasks.iter().filter(|task| task.service == service.id && task.is_live());
            let there = own.filter_map(|task| {
                let attachment = task.attachments.iter().find(|a| a.network == network.id)?;
                Some((task.clone(), attachment.addresses, address_of(task)))
            });
            let tasks: Vec<_> = there.collect();
            (!vip.is_empty() || !tasks.is_empty()).then(|| Attached {
                name: service.spec.name.clone(),
                vip,
                ports: service.ports.iter().map(ToString::to_string).collect(),
                tasks,
            })
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Asks before the network of the routing mesh goes; all others go without a question.
async fn may_remove(client: &Client, name: &str) -> Result<bool> {
    let network: NetworkNoun = match client.read(reference(name), async |mut c, r| c.get_network(r).await).await {
        // The removal itself says so.
        Err(error) if is_missing(&error) => return Ok(true),
        found => Wire::from_pb(found?)?,
    };
    if !network.spec.ingress {
        return Ok(true);
    }
    let question = format!(
        "Network \"{}\" is the routing mesh: without it no service can publish ports in ingress mode, until another \
         is made with: rswarm network create --driver overlay --ingress NAME\nRemove it?",
        network.spec.name
    );
    is_confirmed(&question, "--force")
}

async fn rm(client: &Client, args: Rm) -> Result<()> {
    let mut failed = Vec::new();
    for name in &args.networks {
        if !args.force {
            match may_remove(client, name).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    failed.push(error);
                    continue;
                }
            }
        }
        match client.change(reference(name), async |mut c, r| c.remove_network(r).await).await {
            Ok(_) => line(name)?,
            Err(error) if args.force && is_missing(&error) => {}
            Err(error) => failed.push(error),
        }
    }
    Error::gather(failed)
}
