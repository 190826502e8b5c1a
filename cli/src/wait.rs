//! Waits until services have converged, and shows how.

use std::io::IsTerminal;
use std::time::Duration;

use futures::StreamExt;
use futures::future::Either;
use futures::stream::{self, BoxStream};
use rswarm_api::pb;
use rswarm_types::TimestampMs;

use crate::client::Client;
use crate::errors::{Error, Result};
use crate::human::now;
use crate::output::note;
use crate::progress::{Frame, Plain, Screen, Tracker, Verdict};
use crate::view::{NodeNames, Progress};

/// A service that is waited for.
#[derive(Clone, Debug)]
pub struct Awaited {
    pub id: String,
    pub name: String,
}

/// Where progress is shown.
enum Display {
    Nowhere,
    Lines(Vec<Plain>),
    Terminal(Screen),
}

/// Width of a terminal that does not say.
const WIDTH: usize = 80;

/// Messages of one service, from a new watcher whenever the old one breaks.
fn messages(client: Client, index: usize, id: String) -> BoxStream<'static, (usize, Result<Progress>)> {
    let open = None::<tonic::Streaming<pb::ServiceProgress>>;
    stream::unfold((client, id, open, false), move |(client, id, open, has_failed)| async move {
        if has_failed {
            return None;
        }
        let mut open = open;
        loop {
            let mut watcher = match open.take() {
                Some(watcher) => watcher,
                None => match client.watch_service(&id).await {
                    Ok(watcher) => watcher,
                    // Removed while the watcher was broken.
                    Err(Error::NotFound(_)) => {
                        return Some(((index, Ok(Progress::default())), (client, id, None, true)));
                    }
                    Err(error) => return Some(((index, Err(error)), (client, id, None, true))),
                },
            };
            match watcher.message().await {
                Ok(Some(message)) => {
                    let progress = Progress::read(message).map_err(Error::from);
                    return Some(((index, progress), (client, id, Some(watcher), false)));
                }
                // The manager stopped or lost its leader: another one goes on.
                Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    })
    .boxed()
}

/// Waits until all services have converged.
///
/// Ctrl-C ends the wait, not the operation, and is no error.
///
/// # Errors
/// When one of them pauses, is removed, or cannot get there.
pub async fn converge(client: &Client, services: &[Awaited], nodes: &NodeNames, quiet: bool) -> Result<()> {
    if services.is_empty() {
        return Ok(());
    }
    let mut display = match quiet {
        true => Display::Nowhere,
        false if std::io::stderr().is_terminal() => Display::Terminal(Screen::default()),
        false => Display::Lines(services.iter().map(|_| Plain::default()).collect()),
    };
    let all = services.iter().enumerate().map(|(index, s)| messages(client.clone(), index, s.id.clone()));
    let mut incoming = stream::select_all(all);
    let mut trackers: Vec<Option<Tracker>> = services.iter().map(|_| None).collect();
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let prefix = |index: usize| match (services.len(), services.get(index)) {
        (2.., Some(service)) => format!("{}: ", service.name),
        _ => String::new(),
    };
    loop {
        let looked: Vec<(Frame, Verdict)> = trackers
            .iter_mut()
            .map(|tracker| tracker.as_mut().map_or((Frame::default(), Verdict::Wait(None)), |t| t.look(nodes, now())))
            .collect();
        let failed: Vec<Error> = looked
            .iter()
            .enumerate()
            .filter_map(|(index, (_, verdict))| match verdict {
                Verdict::Failed(text) => Some(Error::Failed(format!("{}{text}", prefix(index)))),
                _ => None,
            })
            .collect();
        let is_over = !failed.is_empty() || looked.iter().all(|(_, verdict)| *verdict == Verdict::Converged);
        show(&mut display, &looked, &prefix, is_over);
        if is_over {
            return Error::gather(failed);
        }
        let wake = looked.iter().filter_map(|(_, v)| if let Verdict::Wait(at) = v { *at } else { None }).min();
        tokio::select! {
            message = incoming.next() => match message {
                Some((index, progress)) => {
                    let progress = progress?;
                    if let Some(tracker) = trackers.get_mut(index) {
                        tracker.get_or_insert_default().take(progress);
                    }
                }
                None => return Err(Error::NoManager("nobody tells any more how the services are".into())),
            },
            () = sleep_until(wake) => {}
            _ = &mut interrupt => {
                let ids: Vec<&str> = services.iter().map(|s| s.name.as_str()).collect();
                note(&format!("\nOperation continuing in background.\nUse `rswarm service ps {}` to check progress.\n", ids.join(" ")));
                return Ok(());
            }
        }
    }
}

fn show(display: &mut Display, looked: &[(Frame, Verdict)], prefix: &dyn Fn(usize) -> String, is_over: bool) {
    match display {
        Display::Nowhere => {}
        Display::Lines(plains) => {
            for (index, (plain, (frame, _))) in plains.iter_mut().zip(looked).enumerate() {
                note(&plain.lines(frame, &prefix(index)));
            }
        }
        Display::Terminal(screen) => {
            let frames: Vec<(String, Frame)> =
                looked.iter().enumerate().map(|(index, (frame, _))| (prefix(index), frame.clone())).collect();
            note(&screen.draw(&frames, width(), is_over));
        }
    }
}

/// Columns of the terminal.
fn width() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => WIDTH,
    }
}

async fn sleep_until(at: Option<TimestampMs>) {
    let sleep = match at {
        Some(at) => Either::Left(tokio::time::sleep(at.since(now()))),
        None => Either::Right(futures::future::pending()),
    };
    sleep.await;
}
