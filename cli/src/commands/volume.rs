//! `volume …`.

use rswarm_api::pb;

use crate::args::volume::{Create, Inspect, Ls, Rm, Volume};
use crate::client::{Client, is_missing, reference};
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::output::{line, out};
use crate::specs::Problems;
use crate::{inspect, render};

pub async fn run(client: &Client, command: Volume) -> Result<()> {
    match command {
        Volume::Create(args) => create(client, args).await,
        Volume::Ls(args) => ls(client, args).await,
        Volume::Inspect(args) => inspect(client, args).await,
        Volume::Rm(args) => rm(client, args).await,
    }
}

async fn create(client: &Client, args: Create) -> Result<()> {
    args.later.refuse()?;
    let mut problems = Problems::default();
    if args.driver != "local" {
        problems.add("--driver", format!("\"{}\": only local volumes are built yet", args.driver));
    }
    if !args.opt.is_empty() {
        problems.say("--opt is not built yet: a local volume is a directory of this node");
    }
    let labels = problems.labels("--label", &args.label);
    problems.finish()?;
    let volume = pb::Volume {
        name: args.name.unwrap_or_default(),
        driver: args.driver,
        labels: labels.into_iter().collect(),
        ..Default::default()
    };
    line(&client.node(volume, async |mut c, r| c.create_volume(r).await).await?.name)
}

async fn ls(client: &Client, args: Ls) -> Result<()> {
    args.later.refuse()?;
    let filters = Filters::parse(&args.filter, &render::volume::FILTERS)?;
    let volumes = client.node(pb::Empty {}, async |mut c, r| c.list_volumes(r).await).await?.volumes;
    out(&render::volume::listing(volumes, &filters).show(&args.list)?)
}

async fn inspect(client: &Client, args: Inspect) -> Result<()> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.volumes {
        match client.node(reference(name), async |mut c, r| c.get_volume(r).await).await {
            Ok(volume) => found.push(render::volume::json(&volume)),
            Err(error) => missing.push(error),
        }
    }
    inspect::print(found, missing, args.format.as_deref())
}

async fn rm(client: &Client, args: Rm) -> Result<()> {
    let mut failed = Vec::new();
    for name in args.volumes {
        let request = pb::RemoveVolumeRequest { name: name.clone(), force: args.force };
        match client.node(request, async |mut c, r| c.remove_volume(r).await).await {
            Ok(_) => line(&name)?,
            Err(error) if args.force && is_missing(&error) => {}
            Err(error) => failed.push(error),
        }
    }
    Error::gather(failed)
}
