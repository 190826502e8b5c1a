//! `info`, `version`, `ps`.

use std::path::Path;

use rswarm_api::pb;

use crate::args::{Ps, Show, ShowVersion};
use crate::client::Client;
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::human::now;
use crate::output::{note, out};
use crate::{inspect, render};

pub async fn info(client: &Client, args: &Show) -> Result<()> {
    let info = client.node(pb::Empty {}, async |mut c, r| c.info(r).await).await?;
    match args.format.as_deref() {
        None | Some("") => out(&render::info::info_text(&info))?,
        format => return out(&inspect::text(vec![render::info::info_json(&info)], format)?),
    }
    info.warnings.iter().for_each(|warning| note(&format!("warning: {warning}\n")));
    Ok(())
}

pub async fn version(path: &Path, args: &ShowVersion) -> Result<()> {
    let server = async {
        let client = Client::connect(path).await?;
        client.node(pb::Empty {}, async |mut c, r| c.info(r).await).await
    };
    let (server, failed): (_, Option<Error>) = match server.await {
        Ok(info) => (Some(info), None),
        Err(error) => (None, Some(error)),
    };
    match args.format.as_deref() {
        None | Some("") => out(&render::info::version_text(server.as_ref()))?,
        format => out(&inspect::text(vec![render::info::version_json(server.as_ref())], format)?)?,
    }
    failed.map_or(Ok(()), Err)
}

pub async fn containers(client: &Client, args: &Ps) -> Result<()> {
    let filters = Filters::parse(&args.filter, &render::container::FILTERS)?;
    let last = match (args.latest, usize::try_from(args.last)) {
        (true, _) => Some(1),
        (false, Ok(last)) if last > 0 => Some(last),
        _ => None,
    };
    // A filter by state looks at all of them, as with Docker.
    let is_by_state = filters.has("status") || filters.has("exited");
    // Of what is compared with others, the others need not run.
    let all = args.all || last.is_some() || is_by_state;
    let is_by_age = filters.has("before") || filters.has("since");
    // Measuring takes time: it is done where the result is shown.
    let size = args.size || args.list.format.as_deref().is_some_and(|format| format.contains(".Size"));
    let request = pb::ContainersRequest { all: all || is_by_age, size };
    let list = client.node(request, async |mut c, r| c.containers(r).await).await?;
    let shown = render::container::Shown { all, last, no_trunc: args.no_trunc, size: args.size, now: now() };
    out(&render::container::listing(list.containers, &filters, shown)?.show(&args.list)?)
}
