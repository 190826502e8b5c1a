//! The session with a manager: opened, kept alive, and opened elsewhere when it breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rswarm_types::assignment::Assignments;
use rswarm_types::limits::HEARTBEAT_PERIOD_MS;
use rswarm_types::session::{CloseReason, Down, Leaving, Open, Up};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::agent::Event;
use crate::host::Host;
use crate::ledger::may_follow;
use crate::limits::{CONNECT_TIMEOUT, GOODBYE_TIMEOUT, OPENED_TIMEOUT, RESEND_AFTER, RETRY_PAUSE_MAX, RETRY_PAUSE_MIN};
use crate::link::{Connection, Link};
use crate::shared::Shared;

/// Why a session ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Try another manager.
    Broken(String),
    /// Another daemon with this identity: trying at once again would only fight it.
    Contested(String),
    Removed(String),
    /// The worker stops.
    Stopped,
}

/// Keeps a session open with some manager until `stop`, or until the node is removed.
pub struct SessionClient {
    pub shared: Arc<Shared>,
    pub link: Arc<dyn Link>,
    pub host: Arc<dyn Host>,
    pub agent: mpsc::Sender<Event>,
    pub stop: CancellationToken,
}

impl SessionClient {
    pub async fn run(self) {
        let mut last = None;
        let mut pauses = Pauses::default();
        let mut told = String::new();
        let mut leaving = self.shared.leaving.subscribe();
        loop {
            let managers = self.shared.managers.borrow().clone();
            let Some(manager) = next(&managers, last) else {
                let mut changed = self.shared.managers.subscribe();
                tokio::select! {
                    () = self.stop.cancelled() => return,
                    _ = changed.changed() => {}
                    () = tokio::time::sleep(RETRY_PAUSE_MAX) => {}
                }
                continue;
            };
            last = Some(manager);
            let mut was_open = false;
            let began = Instant::now();
            let end = self.session(manager, &mut was_open).await;
            self.shared.news.send_if_modified(|news| news.connected.take().is_some());
            // One that opens sessions and ends them at once is not worth hurrying for.
            if was_open && began.elapsed() >= RETRY_PAUSE_MAX {
                pauses = Pauses::default();
                told.clear();
            }
            let why = match end {
                End::Stopped => return,
                End::Removed(why) => {
                    tracing::error!(reason = why, "this node is not in the cluster any more");
                    self.shared.news.send_modify(|news| news.removed = Some(why));
                    return;
                }
                End::Contested(why) => {
                    pauses.longest();
                    why
                }
                End::Broken(why) => why,
            };
            if told != why {
                tracing::warn!(%manager, reason = why, "no session with this manager; trying the next");
                told = why;
            }
            if let Some(pause) = pauses.after_try(managers.len(), self.host.random()) {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    _ = leaving.changed() => return,
                    () = tokio::time::sleep(pause) => {}
                }
            }
        }
    }

    async fn session(&self, manager: SocketAddr, was_open: &mut bool) -> End {
        let mut leaving = self.shared.leaving.subscribe();
        if leaving.borrow_and_update().is_some() {
            return End::Stopped;
        }
        let connecting = timeout(CONNECT_TIMEOUT, self.link.connect(manager));
        let connection = tokio::select! {
            biased;
            () = self.stop.cancelled() => return End::Stopped,
            _ = leaving.changed() => return End::Stopped,
            connected = connecting => connected,
        };
        match connection {
            Ok(Ok(connection)) => match self.serve(manager, connection, leaving, was_open).await {
                Ok(never) => never,
                Err(end) => end,
            },
            Ok(Err(why)) => End::Broken(why),
            Err(_) => End::Broken("no answer to the connection request".into()),
        }
    }

    async fn serve(
        &self,
        manager: SocketAddr,
        connection: Connection,
        mut leaving: watch::Receiver<Option<Leaving>>,
        was_open: &mut bool,
    ) -> Result<End, End> {
        let Connection { up, mut down } = connection;
        let shared = &self.shared;
        let mut applied = shared.applied.subscribe();
        let mut description = shared.description.subscribe();
        let open = Open {
            node: shared.node,
            boot_id: shared.boot_id.clone(),
            applied: *applied.borrow_and_update(),
            sandboxes: self.host.sandboxes().into_iter().collect(),
            description: description.borrow_and_update().clone(),
            raft_lost: shared.raft_lost,
        };
        send(&up, Up::Open(Box::new(open)))?;
        shared.reports.resend();
        let deadline = Instant::now() + OPENED_TIMEOUT;
        let mut heartbeat = tokio::time::interval(Duration::from_millis(HEARTBEAT_PERIOD_MS));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut resend_at = Instant::now() + RESEND_AFTER;
        let mut is_first = true;
        let mut table = Table::default();
        let mut streams = JoinSet::new();
        loop {
            // Every branch is cancel-safe: channels, timers, and a stream that keeps what it has not yielded.
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Ok(End::Stopped),
                Ok(()) = leaving.changed() => {
                    let reason = *leaving.borrow_and_update();
                    if let Some(reason) = reason {
                        send(&up, Up::GoingAway(reason))?;
                        // The end of our half makes the manager end its own: then it has heard.
                        drop(up);
                        let _ = timeout(GOODBYE_TIMEOUT, async { while down.next().await.is_some() {} }).await;
                        return Ok(End::Stopped);
                    }
                }
                message = down.next() => {
                    let message = match message {
                        Some(Ok(message)) => message,
                        Some(Err(why)) => return Err(End::Broken(why)),
                        None => return Err(End::Broken("the manager ended the session".into())),
                    };
                    match message {
                        Down::Opened { epoch } => {
                            *was_open = true;
                            tracing::info!(%manager, epoch, "session open");
                            shared.news.send_modify(|news| news.connected = Some(manager));
                        }
                        Down::Behind { at } => {
                            return Err(End::Broken(format!("the manager is behind this node (it is at {})", at.index)));
                        }
                        Down::Closed { reason, message } => return Err(closed(reason, message)),
                        Down::Assignments(_) | Down::Changes(_) => {
                            let orders = table.follow(message).map_err(|why| End::Broken(why.into()))?;
                            let seen = *shared.seen.borrow();
                            if !may_follow(seen, orders.log_id) {
                                let text = format!("orders of log index {} come after {}", orders.log_id.index, seen.index);
                                return Err(End::Broken(text));
                            }
                            if *shared.applied.borrow() >= orders.log_id {
                                // Nothing will change here, and the manager waits for this word.
                                send(&up, Up::Applied { index: orders.log_id.index })?;
                            }
                            let event = Event::Orders { orders: Box::new(orders), is_first };
                            is_first = false;
                            if self.agent.send(event).await.is_err() {
                                return Ok(End::Stopped);
                            }
                        }
                        Down::Node { role, member, control } => {
                            shared.news.send_modify(|news| news.orders = Some((role, member, control)));
                        }
                        Down::Settled(settled) => { shared.settled.send_replace(settled); }
                        Down::Reported { number } => shared.reports.acknowledge(number),
                        Down::Stream(request) => {
                            let (link, lines) = (Arc::clone(&self.link), self.host.logs(&request));
                            streams.spawn(async move {
                                if let Err(error) = link.stream(manager, request.id, lines).await {
                                    tracing::debug!(task.id = %request.task, error, "log stream ended");
                                }
                            });
                        }
                    }
                }
                Ok(()) = applied.changed(), if *was_open => {
                    let index = applied.borrow_and_update().index;
                    send(&up, Up::Applied { index })?;
                }
                Ok(()) = description.changed(), if *was_open => {
                    let description = description.borrow_and_update().clone();
                    send(&up, Up::Describe(Box::new(description)))?;
                }
                () = shared.reports.changed(), if *was_open => self.report(&up, &mut resend_at)?,
                Some(_) = streams.join_next() => {}
                _ = heartbeat.tick(), if *was_open => {
                    send(&up, Up::Heartbeat)?;
                    // A batch left over from before the session was open.
                    self.report(&up, &mut resend_at)?;
                }
                () = sleep_until(deadline), if !*was_open => {
                    return Err(End::Broken("the manager did not open the session in time".into()));
                }
                () = sleep_until(resend_at), if *was_open && shared.reports.is_under_way() => {
                    shared.reports.resend();
                    self.report(&up, &mut resend_at)?;
                }
            }
        }
    }

    fn report(&self, up: &mpsc::Sender<Up>, resend_at: &mut Instant) -> Result<(), End> {
        let Some((number, statuses)) = self.shared.reports.batch() else { return Ok(()) };
        *resend_at = Instant::now() + RESEND_AFTER;
        send(up, Up::Statuses { number, statuses })
    }
}

/// The assignments as this session told them.
#[derive(Default)]
struct Table(Option<Assignments>);

impl Table {
    /// The table after the message.
    fn follow(&mut self, message: Down) -> Result<Assignments, &'static str> {
        let next = match message {
            Down::Assignments(whole) => Some(*whole),
            Down::Changes(delta) => self.0.take().and_then(|table| delta.apply(table)),
            _ => None,
        };
        self.0.clone_from(&next);
        next.ok_or("the manager's changes do not follow what it told before")
    }
}

fn send(up: &mpsc::Sender<Up>, message: Up) -> Result<(), End> {
    up.try_send(message).map_err(|_| End::Broken("the manager takes no more messages".into()))
}

fn closed(reason: CloseReason, message: String) -> End {
    match reason {
        CloseReason::Stale => End::Broken(message),
        CloseReason::Superseded | CloseReason::Clone => End::Contested(message),
        CloseReason::Removed => End::Removed(message),
    }
}

/// The manager after the last one tried.
fn next(managers: &[SocketAddr], last: Option<SocketAddr>) -> Option<SocketAddr> {
    let after = last.and_then(|l| managers.iter().position(|m| *m == l)).map_or(0, |at| at + 1);
    managers.get(after).or(managers.first()).copied()
}

/// How long to wait between tries: all managers at once, then doubling pauses between rounds.
#[derive(Debug)]
struct Pauses {
    tries: usize,
    next: Duration,
    must_pause: bool,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { tries: 0, next: RETRY_PAUSE_MIN, must_pause: false }
    }
}

impl Pauses {
    fn longest(&mut self) {
        self.next = RETRY_PAUSE_MAX;
        self.must_pause = true;
    }

    /// The pause after a failed try, with up to a fifth of jitter.
    fn after_try(&mut self, managers: usize, random: u64) -> Option<Duration> {
        self.tries += 1;
        // After a break every manager is tried at once, the last one too.
        if !std::mem::take(&mut self.must_pause) && (self.tries <= 1 || !self.tries.is_multiple_of(managers.max(1))) {
            return None;
        }
        let pause = self.next;
        self.next = (pause * 2).min(RETRY_PAUSE_MAX);
        let jitter = pause / 5;
        let less = Duration::from_nanos(random % u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX).max(1));
        Some(pause - less)
    }
}

#[cfg(test)]
mod tests;
