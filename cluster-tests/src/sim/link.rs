//! Sessions over the simulated network: ordered streams that stall in a cut and break after a long one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use rswarm_api::identity::Identity;
use rswarm_manager::dispatcher::{Arrival, DOWN_QUEUE};
use rswarm_types::session::{Down, LogLine, Up};
use rswarm_worker::link::{Connection, Link};
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::network::{Death, HostId, Network, Process};

/// Messages on their way in one direction.
const WINDOW: usize = 64;
/// Either end gives a connection up after so long without a sign of the other (HTTP/2 pings, as `api` sets them).
const KEEPALIVE: Duration = Duration::from_secs(10);
/// A lost packet is sent again after so long.
const RESEND: Duration = Duration::from_millis(200);
const LOOK: Duration = Duration::from_millis(250);

/// A worker's way to managers.
pub struct SimLink {
    pub network: Network,
    pub process: Arc<Process>,
    pub identity: Identity,
}

#[async_trait]
impl Link for SimLink {
    async fn connect(&self, manager: SocketAddr) -> Result<Connection, String> {
        let lost = std::future::pending::<()>;
        let here = self.process.host;
        let Some(there) = HostId::at(manager) else { return Err(format!("{manager} is no manager")) };
        if self.process.is_dead() || !self.network.travel(here, there).await {
            lost().await;
        }
        let peer = self.network.process(there).and_then(|p| Some((p.serving()?, p)));
        if !self.network.travel(there, here).await || self.process.is_dead() {
            lost().await;
        }
        let Some((serving, peer)) = peer.filter(|(_, p)| !p.is_dead()) else {
            return Err("connection refused".to_owned());
        };
        let (up, sent_up) = mpsc::channel::<Up>(WINDOW);
        let (arrives_up, arrived_up) = mpsc::channel::<Up>(WINDOW);
        let (down, sent_down) = mpsc::channel::<Down>(DOWN_QUEUE);
        let (arrives_down, arrived_down) = mpsc::channel::<Result<Down, String>>(WINDOW);
        let wire = Arc::new(Wire {
            network: self.network.clone(),
            worker: Arc::clone(&self.process),
            manager: Arc::clone(&peer),
            broken: CancellationToken::new(),
            ended: AtomicU8::new(0),
        });
        let tasks = self.network.tasks();
        tasks.spawn(pump(Arc::clone(&wire), (here, there), sent_up, arrives_up, name_of_up, |up| up));
        tasks.spawn(pump(Arc::clone(&wire), (there, here), sent_down, arrives_down, name_of_down, Ok));
        tasks.spawn(supervise(wire));
        self.network.trace().note(format!("session {} {}", here.0, there.0));
        serving.core.serve(Arrival { identity: self.identity, address: Some(here.ip()), up: arrived_up, down });
        Ok(Connection { up, down: ReceiverStream::new(arrived_down).boxed() })
    }

    async fn stream(
        &self,
        _: SocketAddr,
        _: u128,
        _: BoxStream<'static, Result<Vec<LogLine>, String>>,
    ) -> Result<(), String> {
        Err("the simulator carries no logs".to_owned())
    }
}

/// One connection.
struct Wire {
    network: Network,
    worker: Arc<Process>,
    manager: Arc<Process>,
    broken: CancellationToken,
    /// Directions that came to their end.
    ended: AtomicU8,
}

impl Wire {
    fn has_dead_end(&self) -> bool {
        self.worker.is_dead() || self.manager.is_dead()
    }

    fn end(&self) {
        if self.ended.fetch_add(1, Ordering::Relaxed) == 1 {
            self.broken.cancel();
        }
    }

    /// Waits until a message can pass; `false` = it never will.
    async fn passes(&self, (from, to): (HostId, HostId)) -> bool {
        let mut mended = self.network.mended();
        loop {
            if self.has_dead_end() {
                self.broken.cancelled().await;
                return false;
            }
            if !self.network.is_cut(from, to) {
                return true;
            }
            tokio::select! {
                biased;
                () = self.broken.cancelled() => return false,
                _ = mended.changed() => {}
                () = self.worker.dead.cancelled() => {}
                () = self.manager.dead.cancelled() => {}
            }
        }
    }
}

/// Carries one direction, in order.
async fn pump<T, U>(
    wire: Arc<Wire>,
    way: (HostId, HostId),
    mut sent: mpsc::Receiver<T>,
    arrives: mpsc::Sender<U>,
    name: impl Fn(&T) -> &'static str,
    wrap: impl Fn(T) -> U,
) {
    let mut on_the_way: VecDeque<(Instant, T)> = VecDeque::new();
    let mut last = Instant::now();
    let mut is_open = true;
    while is_open || !on_the_way.is_empty() {
        let due = on_the_way.front().map_or(last, |(at, _)| *at);
        tokio::select! {
            biased;
            () = wire.broken.cancelled() => break,
            message = sent.recv(), if is_open && on_the_way.len() < WINDOW => match message {
                None => is_open = false,
                Some(message) => {
                    let delay = wire.network.delay(way.0, way.1).unwrap_or(RESEND);
                    last = last.max(Instant::now() + delay);
                    on_the_way.push_back((last, message));
                }
            },
            () = sleep_until(due), if !on_the_way.is_empty() => {
                if !wire.passes(way).await {
                    break;
                }
                let Some((_, message)) = on_the_way.pop_front() else { continue };
                wire.network.trace().note(format!("{} {} {}", name(&message), way.0.0, way.1.0));
                // An end that does not listen any more is no reason to stop sending to it: it will close.
                let _ = arrives.send(wrap(message)).await;
            }
        }
    }
    wire.end();
}

/// Breaks the connection when one end dies or hears nothing for too long.
async fn supervise(wire: Arc<Wire>) {
    let mut heard = Instant::now();
    loop {
        let (dead, alive) =
            if wire.worker.is_dead() { (&wire.worker, &wire.manager) } else { (&wire.manager, &wire.worker) };
        let is_cut = wire.network.is_cut(dead.host, alive.host) || wire.network.is_cut(alive.host, dead.host);
        match dead.death() {
            Some(Death::Killed) if !is_cut => {
                let delay = wire.network.delay(dead.host, alive.host).unwrap_or(RESEND);
                sleep(delay).await;
                break;
            }
            Some(_) => {}
            None if is_cut => {}
            None => heard = Instant::now(),
        }
        if heard.elapsed() >= KEEPALIVE {
            break;
        }
        tokio::select! {
            biased;
            () = wire.broken.cancelled() => return,
            () = dead.dead.cancelled(), if dead.death().is_none() => {}
            () = alive.dead.cancelled(), if dead.death().is_none() => {}
            () = sleep(LOOK) => {}
        }
    }
    wire.broken.cancel();
}

fn name_of_up(up: &Up) -> &'static str {
    match up {
        Up::Open(_) => "open",
        Up::Heartbeat => "heartbeat",
        Up::Applied { .. } => "applied",
        Up::Statuses { .. } => "statuses",
        Up::Describe(_) => "describe",
        Up::GoingAway(_) => "going-away",
    }
}

fn name_of_down(down: &Down) -> &'static str {
    match down {
        Down::Opened { .. } => "opened",
        Down::Behind { .. } => "behind",
        Down::Closed { .. } => "closed",
        Down::Assignments(_) => "assignments",
        Down::Changes(_) => "changes",
        Down::Node { .. } => "node",
        Down::Settled(_) => "settled",
        Down::Reported { .. } => "reported",
        Down::Stream(_) => "stream",
    }
}
