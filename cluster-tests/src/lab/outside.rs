//! A name server outside of the cluster, and work inside a network namespace.

use std::fs::File;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// What a [`NameServer`] answers for every name below `example`.
pub const OUTSIDE: [u8; 4] = [192, 0, 2, 1];

const HEADER_BYTES: usize = 12;
/// How soon a server notices that it was dropped.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs `work` in the network namespace that a file holds, on a thread of its own.
///
/// # Errors
/// If it cannot be entered, or `work` fails or panics.
pub fn within<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let file = File::open(namespace).with_context(|| format!("cannot open {}", namespace.display()))?;
    let inside = move || {
        setns(file, CloneFlags::CLONE_NEWNET)?;
        work()
    };
    std::thread::spawn(inside).join().map_err(|_| anyhow!("the work inside {} panicked", namespace.display()))?
}

/// Answers questions over UDP, on a thread of its own, until it is dropped. Names below `example` exist and have one
/// IPv4 address, [`OUTSIDE`].
#[derive(Debug)]
pub struct NameServer {
    /// The thread has another: when this one is the last, it ends.
    asked: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// Listens at an address in a network namespace.
    ///
    /// # Errors
    /// If it cannot.
    pub fn start(namespace: &Path, at: SocketAddr) -> Result<NameServer> {
        let socket = within(namespace, move || {
            let socket = UdpSocket::bind(at).with_context(|| format!("cannot listen at {at}"))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            Ok(socket)
        })?;
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&asked);
        std::thread::spawn(move || serve(&socket, &shared));
        Ok(NameServer { asked })
    }

    /// The names that it was asked for so far, as they were written.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn serve(socket: &UdpSocket, asked: &Arc<Mutex<Vec<String>>>) {
    let mut query = [0; 4096];
    while Arc::strong_count(asked) > 1 {
        let Ok((length, client)) = socket.recv_from(&mut query) else { continue };
        if let Some((name, answer)) = answer(&query[..length]) {
            asked.lock().unwrap_or_else(PoisonError::into_inner).push(name);
            // A client that is gone has no port any more.
            let _ = socket.send_to(&answer, client);
        }
    }
}

/// The name in a query, and its answer.
fn answer(query: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut labels: Vec<String> = Vec::new();
    let mut place = HEADER_BYTES;
    while *query.get(place)? != 0 {
        let end = place + 1 + usize::from(query[place]);
        labels.push(String::from_utf8_lossy(query.get(place + 1..end)?).into_owned());
        place = end;
    }
    let name = labels.join(".");
    let is_known = name.ends_with(".example");
    let end = place + 5;
    let mut answer = query.get(..end)?.to_vec();
    answer[2..4].copy_from_slice(&[0x81, if is_known { 0x80 } else { 0x83 }]);
    answer[6..HEADER_BYTES].fill(0);
    if is_known && answer[end - 4..] == [0, 1, 0, 1] {
        answer[7] = 1;
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        answer.extend(OUTSIDE);
    }
    Some((name, answer))
}
