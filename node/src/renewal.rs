//! Certificates are renewed at a random point between 50 and 80 % of their life.

use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio_util::sync::CancellationToken;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::daemon::Daemon;
use crate::membership::chain;

/// After a failed renewal: doubled each time (Swarm's step).
const BACKOFF_MIN: Duration = Duration::from_secs(5);
const BACKOFF_MAX: Duration = Duration::from_secs(3_600);
/// Timers longer than this are set anew, since clocks are corrected.
const SLEEP_MAX: Duration = Duration::from_secs(3_600);

/// From when to when a chain's leaf is valid, in Unix seconds.
pub fn validity(chain_pem: &str) -> Option<(i64, i64)> {
    let leaf = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).next()?.ok()?;
    let (_, certificate) = X509Certificate::from_der(&leaf).ok()?;
    let validity = certificate.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// When to renew, in Unix seconds: 50-80 % of the life, by 16 random bits.
fn due(not_before: i64, not_after: i64, chance: u16) -> i64 {
    let life = (not_after - not_before).max(0);
    let permille = 500 + i64::from(chance) * 300 / i64::from(u16::MAX);
    not_before + life * permille / 1_000
}

/// Renews this node's certificate for as long as it is in the cluster.
pub async fn renew_in_time(daemon: Arc<Daemon>, stop: CancellationToken) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let chance = u16::try_from(daemon.edge.random() & 0xffff).unwrap_or(0);
        let files = daemon.data.certificates().ok().flatten();
        let Some((from, to)) = files.and_then(|f| validity(&f.chain)) else { return };
        let at = due(from, to, chance);
        loop {
            let now = i64::try_from(daemon.edge.wall().0 / 1_000).unwrap_or(i64::MAX);
            let left = Duration::from_secs(u64::try_from(at - now).unwrap_or(0));
            if left.is_zero() {
                break;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(left.min(SLEEP_MAX)) => {}
            }
        }
        let renewed = {
            let guard = daemon.member.lock().await;
            match guard.as_ref() {
                Some(member) => daemon.renew(member).await,
                None => return,
            }
        };
        match renewed {
            Ok(()) => backoff = BACKOFF_MIN,
            Err(error) => {
                tracing::warn!(error = chain(&error), "certificate not renewed");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(backoff) => {}
                }
                backoff = (backoff * 2).min(BACKOFF_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_falls_between_half_and_four_fifths_of_the_life() {
        assert_eq!(due(1_000, 2_000, 0), 1_500);
        assert_eq!(due(1_000, 2_000, u16::MAX), 1_800);
        assert_eq!(due(2_000, 1_000, 7), 2_000);
    }
}
