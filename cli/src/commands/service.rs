//! `service …`: what only looks or removes.

use rswarm_api::{Wire, pb};
use rswarm_types::task::Task;

use super::{names, networks, service_change, service_logs, service_named, services};
use crate::args::service::{Inspect, Ls, Ps, Rm, Service};
use crate::client::{Client, reference};
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::human::now;
use crate::output::{line, out};
use crate::{docker_json, inspect, render};

pub async fn run(client: &Client, command: Service) -> Result<()> {
    match command {
        Service::Create(args) => service_change::create(client, *args).await,
        Service::Ls(args) => ls(client, args).await,
        Service::Inspect(args) => inspect(client, args).await,
        Service::Ps(args) => ps(client, args).await,
        Service::Update(args) => service_change::update(client, *args).await,
        Service::Rollback(args) => service_change::rollback(client, &args.service, &args.wait).await,
        Service::Scale(args) => service_change::scale(client, args).await,
        Service::Rm(args) => rm(client, args).await,
        Service::Logs(args) => service_logs::run(client, args).await,
    }
}

async fn ls(client: &Client, args: Ls) -> Result<()> {
    let filters = Filters::parse(&args.filter, &render::service::FILTERS)?;
    out(&render::service::listing(services(client).await?, &filters)?.show(&args.list)?)
}

async fn inspect(client: &Client, args: Inspect) -> Result<()> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.services {
        match service_named(client, name).await {
            Ok(view) => found.push(view),
            Err(error) => missing.push(error),
        }
    }
    // Without anything found there is nothing to look up for it.
    let networks = if found.is_empty() { Default::default() } else { networks(client).await? };
    if args.inspect.pretty {
        let pages: Vec<String> =
            found.iter().map(|view| render::pretty_service::text(view, &networks, now())).collect();
        out(&pages.join("\n"))?;
        return Error::gather(missing);
    }
    let found = found.iter().map(|view| docker_json::service(&view.service, &networks)).collect();
    inspect::print(found, missing, args.inspect.format.as_deref())
}

async fn ps(client: &Client, args: Ps) -> Result<()> {
    let filters = Filters::parse(&args.tasks.filter, &render::task::FILTERS)?;
    let (mut tasks, mut missing) = (Vec::new(), Vec::new());
    for name in &args.services {
        let request = pb::ListTasksRequest { service: name.clone(), ..Default::default() };
        match client.read(request, async |mut c, r| c.list_tasks(r).await).await {
            Ok(list) => {
                let more: Vec<Task> = Wire::from_pb(list.tasks)?;
                tasks.extend(more);
            }
            Err(error) => missing.push(error),
        }
    }
    tasks.sort_by_key(|task| task.id);
    tasks.dedup_by_key(|task| task.id);
    if missing.len() < args.services.len() {
        let nodes = names(client).await?;
        let shown = render::task::Shown {
            nodes: &nodes,
            no_resolve: args.tasks.no_resolve,
            no_trunc: args.tasks.no_trunc,
            now: now(),
        };
        out(&render::task::listing(tasks, &filters, shown)?.show(&args.tasks.list)?)?;
    }
    Error::gather(missing)
}

async fn rm(client: &Client, args: Rm) -> Result<()> {
    let mut failed = Vec::new();
    for name in &args.services {
        match client.change(reference(name), async |mut c, r| c.remove_service(r).await).await {
            Ok(_) => line(name)?,
            Err(error) => failed.push(error),
        }
    }
    Error::gather(failed)
}
