//! Changes per second, by clients that each wait for one answer before they ask again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::task::JoinSet;

use crate::values;

/// How many clients ask at a time.
pub const CLIENTS: [usize; 3] = [1, 64, 256];
/// The size of what a client writes.
pub const VALUE_BYTES: usize = 1024;
const WARM_UP: Duration = Duration::from_secs(2);
const WINDOW: Duration = Duration::from_secs(3);
const WINDOWS: usize = 3;

/// What the clients of one run share.
#[derive(Clone, Default)]
pub struct Meter {
    written: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
}

impl Meter {
    /// Counts one change; whether to go on.
    pub fn count(&self) -> bool {
        self.written.fetch_add(1, Ordering::Relaxed);
        !self.is_over.load(Ordering::Relaxed)
    }
}

/// Lets the clients run and prints their rate in each of some windows.
pub async fn measure(who: &str, mut clients: JoinSet<Result<()>>, meter: Meter) -> Result<()> {
    let count = clients.len();
    tokio::time::sleep(WARM_UP).await;
    let mut rates = Vec::new();
    for _ in 0..WINDOWS {
        let (began, before) = (Instant::now(), meter.written.load(Ordering::Relaxed));
        tokio::time::sleep(WINDOW).await;
        let written = meter.written.load(Ordering::Relaxed) - before;
        rates.push(written as f64 / began.elapsed().as_secs_f64());
    }
    meter.is_over.store(true, Ordering::Relaxed);
    while let Some(client) = clients.join_next().await {
        client??;
    }
    eprintln!("{who}: {count} clients: {rates:.0?}");
    values(&format!("writes-{count}"), who, "/s", rates.into_iter());
    Ok(())
}
