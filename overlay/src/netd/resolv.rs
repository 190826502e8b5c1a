//! The host's DNS servers, read again when their file changes.

use std::fs::Metadata;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::limits::{RESOLV_CONF_PERIOD, UPSTREAMS_MAX};

/// Where DNS is spoken.
pub const DNS_PORT: u16 = 53;

/// The servers that a resolv.conf names.
#[derive(Debug)]
pub struct HostServers {
    path: PathBuf,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    looked_at: Option<Instant>,
    stamp: Option<Stamp>,
    servers: Arc<[SocketAddr]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl HostServers {
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: Mutex::default() }
    }

    /// The servers as of at most [`RESOLV_CONF_PERIOD`] ago; none if the file names none. While the
    /// file is gone, the last ones.
    pub fn get(&self) -> Arc<[SocketAddr]> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked_at.is_none_or(|at| at.elapsed() >= RESOLV_CONF_PERIOD) {
            seen.looked_at = Some(Instant::now());
            self.look(&mut seen);
        }
        Arc::clone(&seen.servers)
    }

    fn look(&self, seen: &mut Seen) {
        let stamp = std::fs::metadata(&self.path).ok().map(|m| Stamp::of(&m));
        if stamp.is_none() || stamp == seen.stamp {
            return;
        }
        match std::fs::read(&self.path) {
            Ok(text) => {
                seen.stamp = stamp;
                seen.servers = parse(&String::from_utf8_lossy(&text)).into();
                tracing::info!(path = %self.path.display(), servers = ?seen.servers, "host dns servers read");
            }
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "host dns servers not read");
            }
        }
    }
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino(), bytes: file.size(), changed: (file.mtime(), file.mtime_nsec()) }
    }
}

/// The first servers of a resolv.conf (resolv.conf(5)). An address with a zone (`fe80::1%eth0`) is
/// passed over: it means nothing without its interface.
fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, DNS_PORT))
        .take(UPSTREAMS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_three_readable_servers_count() {
        for (text, expected) in [
            ("", &[][..]),
            ("search a b\noptions ndots:1\n", &[]),
            ("nameserver 127.0.0.53\n", &["127.0.0.53:53"]),
            ("  nameserver\t1.1.1.1 # first\n#nameserver 2.2.2.2\n", &["1.1.1.1:53"]),
            ("nameserver fe80::1%eth0\nnameserver 2001:db8::1", &["[2001:db8::1]:53"]),
            ("nameservers 1.1.1.1\nnameserver nobody\nnameserver", &[]),
            (
                "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4",
                &["1.0.0.1:53", "1.0.0.2:53", "1.0.0.3:53"],
            ),
        ] {
            let found: Vec<String> = parse(text).iter().map(SocketAddr::to_string).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
