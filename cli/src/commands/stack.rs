//! `stack …`.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use rswarm_api::pb::stack_outcome::{Named, Outcome};
use rswarm_api::{Wire, pb};
use rswarm_stack::{ComposeFile, IMAGE_LABEL, Stack as Loaded, StackNetwork};
use rswarm_types::spec::ServiceSpec;
use rswarm_types::task::Task;
use rswarm_types::{NetworkId, ServiceId};

use super::image::credentials;
use super::resolve::{self, Resolution};
use super::{names, services};
use crate::args::stack::{Deploy, Ls, Ps, Rm, Services, Stack};
use crate::client::{Client, reference};
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::human::now;
use crate::output::{line, note, out};
use crate::render;
use crate::view::{NodeNames, ServiceView};
use crate::wait::{Awaited, converge};

/// Keys of `--filter` of `stack services`.
const SERVICE_FILTERS: [&str; 5] = ["id", "label", "mode", "name", "node"];
/// The largest compose file that is read, in bytes; the reader has a bound of its own.
const FILE_BYTES_MAX: u64 = 8 << 20;

pub async fn run(client: &Client, command: Stack) -> Result<()> {
    match command {
        Stack::Deploy(args) => deploy(client, args).await,
        Stack::Ls(args) => ls(client, args).await,
        Stack::Ps(args) => ps(client, args).await,
        Stack::Services(args) => stack_services(client, args).await,
        Stack::Rm(args) => rm(client, args).await,
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Failed(format!("compose file {} cannot be read: {error}", path.display()))
}

fn compose_file(path: &PathBuf) -> Result<ComposeFile> {
    let failed = |error| unreadable(path, &error);
    let here = std::env::current_dir().map_err(failed)?;
    let mut text = String::new();
    let dir = if path.as_os_str() == "-" {
        std::io::stdin().lock().take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        here
    } else {
        let file = std::fs::File::open(path).map_err(failed)?;
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        let full = here.join(path);
        full.parent().map_or(here, Path::to_owned)
    };
    Ok(ComposeFile { path: path.clone(), dir, text })
}

fn load(args: &Deploy) -> Result<Loaded> {
    let files = args.compose_file.iter().map(compose_file).collect::<Result<Vec<_>>>()?;
    // What is not text cannot be meant by ${…}.
    let env: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect();
    rswarm_stack::load(&args.stack, &files, &env, &|path| std::fs::read_to_string(path))
        .map_err(|errors| Error::Several(errors.into_iter().map(|e| Error::Usage(e.to_string())).collect()))
}

async fn deploy(client: &Client, args: Deploy) -> Result<()> {
    let loaded = load(&args)?;
    loaded.warnings.iter().for_each(|warning| note(&format!("{warning}\n")));
    let mut own = Vec::new();
    let mut missing = Vec::new();
    for network in &loaded.networks {
        match network {
            StackNetwork::Own(spec) => {
                own.push(pb::NetworkSpecWithId { id: NetworkId::default().to_pb(), spec: Some(spec.to_pb()) });
            }
            StackNetwork::External { name } => {
                match client.read(reference(name), async |mut c, r| c.get_network(r).await).await {
                    Ok(_) => {}
                    Err(Error::NotFound(_)) => missing.push(Error::NotFound(format!(
                        "network \"{name}\" is declared as external, but could not be found\n       create it with: rswarm network create --driver overlay {name}"
                    ))),
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Error::gather(missing)?;
    let present: Vec<ServiceView> = services(client).await?;
    let mut sent = Vec::new();
    for mut spec in loaded.services {
        let auth = match args.with_registry_auth {
            true => credentials(&spec.task.container.image)?,
            false => String::new(),
        };
        let old = present.iter().find(|view| view.service.spec.name == spec.name);
        settle_image(client, &mut spec, old.map(|view| view.service.spec.as_ref()), &args.resolve_image).await?;
        sent.push(pb::StackService { id: ServiceId::default().to_pb(), spec: Some(spec.to_pb()), auth });
    }
    let change = pb::StackChange { name: args.stack.clone(), networks: own, services: sent, prune: args.prune };
    let answer = client.change(change, async |mut c, r| c.deploy_stack(r).await).await?;
    answer.warnings.iter().for_each(|warning| note(&format!("warning: {warning}\n")));
    let awaited = tell(&answer.outcomes)?;
    if args.detach {
        return Ok(());
    }
    let nodes = names(client).await.unwrap_or_else(|_| NodeNames::new());
    converge(client, &awaited, &nodes, args.quiet).await
}

/// Decides the image of a service: asked of the registry, or as it is in the cluster.
async fn settle_image(client: &Client, spec: &mut ServiceSpec, old: Option<&ServiceSpec>, when: &str) -> Result<()> {
    let image = spec.task.container.image.clone();
    let same = old.filter(|old| old.labels.get(IMAGE_LABEL) == Some(&image));
    if let Some(old) = old {
        // A forced update stays done.
        spec.task.force_update = old.task.force_update;
    }
    let is_asked = when == "always" || (when == "changed" && same.is_none());
    let answer = if is_asked { Some(resolve::resolve(client, &image).await?) } else { None };
    match (answer, same) {
        (Some(Resolution::Known { reference, platforms }), _) => resolve::put(spec, reference, platforms),
        // What runs is what the file says; a registry that does not answer is no reason to replace it.
        (_, Some(old)) => {
            resolve::put(spec, old.task.container.image.clone(), old.task.placement.platforms.clone());
        }
        (Some(Resolution::Unknown(why)), None) => resolve::warn(&image, &why),
        (None, None) => {}
    }
    Ok(())
}

fn id_of(named: &Named) -> Result<String> {
    let id: ServiceId = Wire::from_pb(named.id.clone())?;
    Ok(id.to_string())
}

/// Prints what was done, in Docker's words, and returns the services to wait for.
fn tell(outcomes: &[pb::StackOutcome]) -> Result<Vec<Awaited>> {
    let mut awaited = Vec::new();
    for outcome in outcomes.iter().filter_map(|o| o.outcome.as_ref()) {
        match outcome {
            Outcome::NetworkCreated(named) => line(&format!("Creating network {}", named.name))?,
            Outcome::ServiceCreated(named) => {
                line(&format!("Creating service {}", named.name))?;
                awaited.push(Awaited { id: id_of(named)?, name: named.name.clone() });
            }
            Outcome::ServiceUpdated(named) => {
                let id = id_of(named)?;
                line(&format!("Updating service {} (id: {id})", named.name))?;
                // Docker says so of each; what did not change needs no wait.
                if named.changed {
                    awaited.push(Awaited { id, name: named.name.clone() });
                }
            }
            Outcome::ServiceRemoved(named) => line(&format!("Removing service {}", named.name))?,
            Outcome::NetworkRemoved(named) => line(&format!("Removing network {}", named.name))?,
        }
    }
    Ok(awaited)
}

async fn ls(client: &Client, args: Ls) -> Result<()> {
    out(&render::stack::listing(&services(client).await?).show(&args.list)?)
}

fn nothing_found(stack: &str) -> Error {
    Error::NotFound(format!("nothing found in stack: {stack}"))
}

async fn tasks_of(client: &Client, stack: &str) -> Result<Vec<Task>> {
    let request = pb::ListTasksRequest { stack: stack.to_owned(), ..Default::default() };
    Ok(Wire::from_pb(client.read(request, async |mut c, r| c.list_tasks(r).await).await?.tasks)?)
}

async fn ps(client: &Client, args: Ps) -> Result<()> {
    let filters = Filters::parse(&args.tasks.filter, &render::task::FILTERS)?;
    let tasks = tasks_of(client, &args.stack).await?;
    if tasks.is_empty() {
        return Err(nothing_found(&args.stack));
    }
    let nodes = names(client).await?;
    let shown = render::task::Shown {
        nodes: &nodes,
        no_resolve: args.tasks.no_resolve,
        no_trunc: args.tasks.no_trunc,
        now: now(),
    };
    out(&render::task::listing(tasks, &filters, shown)?.show(&args.tasks.list)?)
}

async fn stack_services(client: &Client, args: Services) -> Result<()> {
    let filters = Filters::parse(&args.filter, &SERVICE_FILTERS)?;
    let mut all = services(client).await?;
    all.retain(|view| render::stack::of(view) == Some(args.stack.as_str()));
    if all.is_empty() {
        return Err(nothing_found(&args.stack));
    }
    if args.filter.iter().any(|filter| filter.starts_with("node=")) {
        let (tasks, nodes) = (tasks_of(client, &args.stack).await?, names(client).await?);
        all.retain(|view| {
            tasks.iter().filter(|task| task.service == view.service.id && task.is_live()).any(|task| {
                let id = task.node.map(|id| id.to_string()).unwrap_or_default();
                let name = task.node.and_then(|id| nodes.get(&id)).cloned().unwrap_or_default();
                filters.any("node", |value| !id.is_empty() && (id.starts_with(value) || name == value))
            })
        });
    }
    out(&render::service::listing(all, &filters)?.show(&args.list)?)
}

async fn rm(client: &Client, args: Rm) -> Result<()> {
    let mut failed = Vec::new();
    for stack in &args.stacks {
        match client.change(reference(stack), async |mut c, r| c.remove_stack(r).await).await {
            Ok(answer) if answer.outcomes.is_empty() => note(&format!("Nothing found in stack: {stack}\n")),
            Ok(answer) => {
                tell(&answer.outcomes)?;
                if !args.detach {
                    gone(client, &answer.outcomes).await?;
                }
            }
            Err(Error::NotFound(_)) => note(&format!("Nothing found in stack: {stack}\n")),
            Err(error) => failed.push(error),
        }
    }
    Error::gather(failed)
}

/// Waits until the services that were removed, and so their tasks, are gone.
async fn gone(client: &Client, outcomes: &[pb::StackOutcome]) -> Result<()> {
    for outcome in outcomes {
        let Some(Outcome::ServiceRemoved(named)) = &outcome.outcome else { continue };
        let id = id_of(named)?;
        'watch: loop {
            let mut watcher = match client.watch_service(&id).await {
                Ok(watcher) => watcher,
                Err(Error::NotFound(_)) => break,
                Err(error) => return Err(error),
            };
            while let Ok(Some(message)) = watcher.message().await {
                if message.removed {
                    break 'watch;
                }
            }
        }
    }
    Ok(())
}
