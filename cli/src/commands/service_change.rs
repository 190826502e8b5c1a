//! `service create`, `update`, `rollback`, `scale`.

use std::time::Duration;

use rswarm_api::{Wire, pb};
use rswarm_types::ServiceId;
use rswarm_types::id::to_base36;
use rswarm_types::parse::parse_network;
use rswarm_types::spec::{ServiceMode, ServiceSpec};

use super::image::credentials;
use super::{names, networks, resolve, service_named};
use crate::args::service::{Create, Scale};
use crate::args::service_flags::WaitFlags;
use crate::args::service_update::Update;
use crate::client::{Client, reference, retry_stale};
use crate::errors::{Error, Result};
use crate::output::{line, note};
use crate::specs::{self, Surroundings};
use crate::view::{NodeNames, ServiceView};
use crate::wait::{Awaited, converge};

/// What is wrong already does not wait longer for what else is.
const LOOK_DEADLINE: Duration = Duration::from_secs(1);

fn surroundings() -> Surroundings<'static> {
    Surroundings { env: &|name| std::env::var(name).ok(), read: &|path| std::fs::read_to_string(path) }
}

/// A name for a service that was given none.
fn random_name() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::Failed(format!("no random bits: {e}")))?;
    let digits = to_base36(u128::from_be_bytes(bytes));
    // The first digits of 128 bits in base 36 are not evenly spread; the last ones are.
    Ok(format!("service-{}", digits.chars().rev().take(8).collect::<String>()))
}

fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| note(&format!("warning: {warning}\n")));
}

/// Waits for services, unless that is not wanted.
async fn wait(client: &Client, services: &[Awaited], flags: &WaitFlags) -> Result<()> {
    if flags.detach {
        return Ok(());
    }
    let nodes = node_names(client).await?;
    converge(client, services, &nodes, flags.quiet).await
}

/// Names for global tasks; a wait goes on without them.
async fn node_names(client: &Client) -> Result<NodeNames> {
    match names(client).await {
        Err(Error::Denied(_)) => Ok(NodeNames::new()),
        other => other,
    }
}

pub async fn create(client: &Client, mut args: Create) -> Result<()> {
    if args.name.is_empty() {
        args.name = random_name()?;
    }
    let mut spec = match specs::service_spec(&args, &surroundings()) {
        Ok(spec) => spec,
        Err(error) => return Err(with_unknown_networks(client, error, &args.network).await),
    };
    let image = spec.task.container.image.clone();
    if !args.flags.no_resolve_image {
        resolve::pin(client, &mut spec).await?;
    }
    let registry_auth = if args.flags.with_registry_auth { credentials(&image)? } else { String::new() };
    let request = pb::CreateServiceRequest { spec: Some(spec.to_pb()), registry_auth };
    let answer = client.change(request, async |mut c, r| c.create_service(r).await).await?;
    warn(&answer.warnings);
    let id: ServiceId = Wire::from_pb(answer.id)?;
    line(&id.to_string())?;
    wait(client, &[Awaited { id: id.to_string(), name: args.name }], &args.flags.wait).await
}

/// All that is wrong with a command line at once: also the networks that do not exist, which only
/// the managers know. Without their answer the rest is told.
async fn with_unknown_networks(client: &Client, error: Error, networks: &[String]) -> Error {
    let mut all = match error {
        Error::Several(all) => all,
        one => vec![one],
    };
    for wanted in networks.iter().filter_map(|text| parse_network(text).ok()) {
        let name = &wanted.target;
        let look = client.read(reference(name), async |mut c, r| c.get_network(r).await);
        match tokio::time::timeout(LOOK_DEADLINE, look).await {
            Ok(Err(Error::NotFound(why))) => all.push(Error::Usage(format!(
                "invalid --network: {why}; create it with: rswarm network create --driver overlay {name}"
            ))),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    Error::Several(all)
}

/// Sends a spec for the version that was looked at.
async fn send(client: &Client, view: &ServiceView, spec: &ServiceSpec, auth: Option<String>) -> Result<()> {
    let request = pb::UpdateServiceRequest {
        name: view.service.id.to_string(),
        version: view.service.meta.version,
        spec: Some(spec.to_pb()),
        registry_auth: auth,
        rollback: false,
    };
    let answer = client.change(request, async |mut c, r| c.update_service(r).await).await?;
    warn(&answer.warnings);
    Ok(())
}

pub async fn update(client: &Client, args: Update) -> Result<()> {
    if args.rollback {
        // Whatever else was given would be lost.
        let plain = Update {
            rollback: true,
            service: args.service.clone(),
            flags: crate::args::service_flags::SpecFlags { wait: args.flags.wait.clone(), ..Default::default() },
            ..Default::default()
        };
        if format!("{args:?}") != format!("{plain:?}") {
            return Err(Error::Usage("--rollback goes with no other change: leave the other flags out".into()));
        }
        return rollback(client, &args.service, &args.flags.wait).await;
    }
    let networks = networks(client).await?;
    let network_id = |name: &str| {
        networks.values().find(|n| n.spec.name == name || n.id.to_string() == name).map(|n| n.id.to_string())
    };
    let id = retry_stale(async || {
        let view = service_named(client, &args.service).await?;
        let mut spec = view.service.spec.as_ref().clone();
        specs::change_service(&args, &mut spec, &network_id, &surroundings())?;
        if args.image.is_some() {
            // What was known of the old image says nothing of the new one.
            spec.task.placement.platforms.clear();
            if !args.flags.no_resolve_image {
                resolve::pin(client, &mut spec).await?;
            }
        }
        let auth = match args.flags.with_registry_auth {
            true => Some(credentials(&spec.task.container.image)?),
            false => None,
        };
        send(client, &view, &spec, auth).await?;
        Ok(view.service.id)
    })
    .await?;
    line(&args.service)?;
    wait(client, &[Awaited { id: id.to_string(), name: args.service.clone() }], &args.flags.wait).await
}

pub async fn rollback(client: &Client, service: &str, flags: &WaitFlags) -> Result<()> {
    let id = retry_stale(async || {
        let view = service_named(client, service).await?;
        let request = pb::UpdateServiceRequest {
            name: view.service.id.to_string(),
            version: view.service.meta.version,
            spec: Some(view.service.spec.to_pb()),
            registry_auth: None,
            rollback: true,
        };
        let answer = client.change(request, async |mut c, r| c.update_service(r).await).await?;
        warn(&answer.warnings);
        Ok(view.service.id)
    })
    .await?;
    line(service)?;
    wait(client, &[Awaited { id: id.to_string(), name: service.to_owned() }], flags).await
}

/// `SERVICE=REPLICAS`.
fn wanted(text: &str) -> Result<(String, u64)> {
    let wrong = |problem: &str| {
        Error::Usage(format!("invalid scale \"{text}\": {problem}\n       allowed: SERVICE=REPLICAS, e.g. web=3"))
    };
    let (name, replicas) = text.split_once('=').ok_or_else(|| wrong("no \"=\""))?;
    let replicas = replicas.parse().map_err(|_| wrong("the number of replicas is not a whole number from 0"))?;
    if name.is_empty() { Err(wrong("no service")) } else { Ok((name.to_owned(), replicas)) }
}

pub async fn scale(client: &Client, args: Scale) -> Result<()> {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for text in &args.services {
        match wanted(text) {
            Ok((name, _)) if all.iter().any(|(other, _)| *other == name) => {
                failed.push(Error::Usage(format!("service \"{name}\" is named twice")));
            }
            Ok(one) => all.push(one),
            Err(error) => failed.push(error),
        }
    }
    Error::gather(failed)?;
    let (mut awaited, mut failed) = (Vec::new(), Vec::new());
    for (name, replicas) in all {
        let scaled = retry_stale(async || {
            let view = service_named(client, &name).await?;
            let mut spec = view.service.spec.as_ref().clone();
            match &mut spec.mode {
                ServiceMode::Replicated { replicas: present } => *present = replicas,
                ServiceMode::Global => {
                    let why = "a global service has one task on each node";
                    return Err(Error::Usage(format!("service \"{name}\" cannot be scaled: {why}")));
                }
            }
            send(client, &view, &spec, None).await?;
            Ok(view.service.id)
        });
        match scaled.await {
            Ok(id) => {
                line(&format!("{name} scaled to {replicas}"))?;
                awaited.push(Awaited { id: id.to_string(), name });
            }
            Err(error) => failed.push(error),
        }
    }
    let flags = WaitFlags { detach: args.detach, quiet: false };
    if let Err(error) = wait(client, &awaited, &flags).await {
        failed.push(error);
    }
    Error::gather(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_reads_service_and_number() {
        assert_eq!(wanted("web=3").unwrap(), ("web".into(), 3));
        for wrong in ["web", "web=", "web=-1", "=3", "web=x"] {
            let error = wanted(wrong).unwrap_err();
            assert!(error.code() == 2 && error.to_string().contains(wrong), "{error}");
        }
    }

    #[test]
    fn random_names_are_names() {
        let name = random_name().unwrap();
        assert!(rswarm_types::validate::stack_name(&name).is_none(), "{name}");
    }
}
