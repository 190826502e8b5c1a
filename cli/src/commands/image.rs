//! `image …`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::StreamExt;
use rswarm_api::pb;
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;
use tonic::Streaming;

use crate::args::image::{Image, Load, Ls, Rm};
use crate::client::{Client, is_missing};
use crate::config::{self, Config};
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::human::now;
use crate::output::{line, note, out};
use crate::render;

/// Bytes of an archive in one message.
const CHUNK_BYTES: usize = 256 << 10;

pub async fn run(client: &Client, command: Image) -> Result<()> {
    match command {
        Image::Pull(args) => {
            args.later.refuse()?;
            let request = transfer(args.image)?;
            let progress = client.node(request, async |mut c, r| c.pull_image(r).await).await?;
            follow(client, progress, args.quiet).await
        }
        Image::Push(args) => {
            args.later.refuse()?;
            let request = transfer(args.image)?;
            let progress = client.node(request, async |mut c, r| c.push_image(r).await).await?;
            follow(client, progress, args.quiet).await
        }
        Image::Load(args) => load(client, args).await,
        Image::Ls(args) => ls(client, args).await,
        Image::Rm(args) => rm(client, args).await,
    }
}

fn transfer(reference: String) -> Result<pb::PullImageRequest> {
    let registry_auth = credentials(&reference)?;
    Ok(pb::PullImageRequest { reference, registry_auth })
}

/// What this user's file has for an image's registry.
pub fn credentials(image: &str) -> Result<String> {
    Ok(Config::load(&config::path()?)?.header_for(image))
}

/// A line for each change of a layer; what was made at the end, on stdout.
async fn follow(client: &Client, mut progress: Streaming<pb::ImageProgress>, quiet: bool) -> Result<()> {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    loop {
        let Some(step) = progress.message().await.map_err(|status| client.explain(status))? else { return Ok(()) };
        if !step.done.is_empty() {
            line(&step.done)?;
        }
        if quiet || step.status.is_empty() || told.get(&step.layer) == Some(&step.status) {
            continue;
        }
        let layer: String = step.layer.trim_start_matches("sha256:").chars().take(12).collect();
        match layer.is_empty() {
            true => note(&format!("{}\n", step.status)),
            false => note(&format!("{layer}: {}\n", step.status)),
        }
        told.insert(step.layer, step.status);
    }
}

async fn load(client: &Client, args: Load) -> Result<()> {
    args.later.refuse()?;
    let archive: Box<dyn AsyncRead + Send + Unpin> = match &args.input {
        Some(path) => Box::new(open(path).await?),
        None if std::io::IsTerminal::is_terminal(&std::io::stdin()) => {
            return Err(Error::Usage("no archive: name one with --input FILE, or pipe it in".into()));
        }
        None => Box::new(tokio::io::stdin()),
    };
    let (failed, failure) = tokio::sync::oneshot::channel();
    // The call has no place for our own error: it ends the stream, and is told below.
    let chunks = ReaderStream::with_capacity(archive, CHUNK_BYTES).scan(Some(failed), |failed, chunk| {
        std::future::ready(match (chunk, failed.take()) {
            (Ok(data), kept) => {
                *failed = kept;
                Some(pb::ImageChunk { data })
            }
            (Err(error), Some(failed)) => {
                // The receiver waits below until this is dropped.
                let _ = failed.send(error);
                None
            }
            (Err(_), None) => None,
        })
    });
    let reply = client.node(chunks, async |mut c, r| c.load_image(r).await).await;
    if let Ok(error) = failure.await {
        return Err(Error::Failed(format!("the archive cannot be read: {error}")));
    }
    for name in reply?.loaded {
        line(&format!("Loaded image: {name}"))?;
    }
    Ok(())
}

async fn open(path: &PathBuf) -> Result<tokio::fs::File> {
    let file = tokio::fs::File::open(path).await;
    file.map_err(|e| Error::Failed(format!("{} cannot be opened: {e}", path.display())))
}

async fn ls(client: &Client, args: Ls) -> Result<()> {
    args.later.refuse()?;
    let filters = Filters::parse(&args.filter, &render::image::FILTERS)?;
    let images = client.node(pb::Empty {}, async |mut c, r| c.list_images(r).await).await?.images;
    let shown = render::image::Shown {
        no_trunc: args.no_trunc,
        digests: args.digests,
        repository: args.repository.as_deref(),
        now: now(),
    };
    out(&render::image::listing(images, &filters, shown)?.show(&args.list)?)
}

async fn rm(client: &Client, args: Rm) -> Result<()> {
    args.later.refuse()?;
    let mut failed = Vec::new();
    for reference in args.images {
        let request = pb::RemoveImageRequest { reference, force: args.force };
        match client.node(request, async |mut c, r| c.remove_image(r).await).await {
            Ok(reply) => {
                reply.untagged.iter().try_for_each(|name| line(&format!("Untagged: {name}")))?;
                reply.deleted.iter().try_for_each(|id| line(&format!("Deleted: {id}")))?;
            }
            Err(error) if args.force && is_missing(&error) => {}
            Err(error) => failed.push(error),
        }
    }
    Error::gather(failed)
}
