//! How a machine becomes a node, and how a node gets its next certificate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rswarm_api::identity::Identity;
use rswarm_types::command::{Answer, Body, Caller};
use rswarm_types::node::Node;
use rswarm_types::spec::{Availability, Role};
use rswarm_types::{ClusterId, NodeId, Refusal, RequestId};
use tokio::time::Instant;

use crate::assign::data_path_address;
use crate::ca::{self, CheckedRequest, Grant};
use crate::consensus::Consensus;
use crate::machine::Snapshot;
use crate::token::{self, TokenError};

/// Calls without a certificate, per source and second.
const ANONYMOUS_PER_SECOND: u32 = 10;
/// Bytes of a certificate request.
pub const CSR_BYTES_MAX: usize = 8 * 1_024;
/// Sources that are counted at once.
const SOURCES_MAX: usize = 10_000;

/// A certificate, with what its holder needs to begin.
#[derive(Clone, Debug)]
pub struct Issued {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub role: Role,
    /// PEM, leaf first.
    pub chain: String,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Request(#[from] ca::CaError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{0}")]
    Unavailable(String),
}

/// Who asks for a certificate.
#[derive(Clone, Copy, Debug)]
pub enum Applicant<'a> {
    /// A machine with a join token. `address` is where it calls from, `data_path` what its VXLAN frames come from.
    Joiner { token: &'a str, address: Option<IpAddr>, data_path: Option<IpAddr>, availability: Availability },
    /// A node with its present certificate.
    Member(Identity),
}

/// Checks the applicant, admits a joiner, signs.
///
/// # Errors
/// See [`AdmissionError`]; nothing is half-done.
pub async fn issue(consensus: &Consensus, csr: &str, applicant: Applicant<'_>) -> Result<Issued, AdmissionError> {
    if csr.len() > CSR_BYTES_MAX {
        let text = format!("{} bytes; at most {CSR_BYTES_MAX} are allowed", csr.len());
        return Err(Refusal::invalid("certificate request", text).into());
    }
    let request = ca::check_request(csr)?;
    match applicant {
        Applicant::Joiner { token, address, data_path, availability } => {
            let role = role_of(consensus, token).await?;
            if let Some(data_path) = data_path {
                check_data_path(&consensus.local(), data_path)?;
            }
            let body = Body::Admit {
                node: NodeId(consensus.edge().random()),
                role,
                key_hash: request.key_hash,
                address,
                availability,
            };
            let caller = Caller::default();
            match consensus.propose(body, RequestId::default(), caller).await {
                Ok((_, Answer::Node(node))) => sign(consensus, node, &request),
                Ok(_) => Err(AdmissionError::Unavailable("the cluster gave no node id".into())),
                Err(crate::consensus::ProposeError::Refused(refusal)) => Err(refusal.into()),
                Err(error) => Err(AdmissionError::Unavailable(error.to_string())),
            }
        }
        Applicant::Member(identity) => {
            consensus.read().await.map_err(|e| AdmissionError::Unavailable(e.to_string()))?;
            sign(consensus, identity.node, &request)
        }
    }
}

async fn role_of(consensus: &Consensus, given: &str) -> Result<Role, AdmissionError> {
    token::digest_of(given)?;
    // Rotated tokens must be refused by every manager at once.
    let snapshot = consensus.read().await.map_err(|e| AdmissionError::Unavailable(e.to_string()))?;
    let Some(cluster) = snapshot.state.cluster() else {
        return Err(AdmissionError::Unavailable("this manager has no cluster yet".into()));
    };
    token::check_root(given, &cluster.root.certificate)?;
    // Both are compared, whatever the first says.
    let is_worker = token::same(given, &cluster.tokens.worker);
    let is_manager = token::same(given, &cluster.tokens.manager);
    match (is_worker, is_manager) {
        (_, true) => Ok(Role::Manager),
        (true, _) => Ok(Role::Worker),
        _ => Err(TokenError::WrongSecret.into()),
    }
}

/// Refuses a node that could not exchange VXLAN frames with the others.
fn check_data_path(snapshot: &Snapshot, own: IpAddr) -> Result<(), Refusal> {
    let talks_otherwise = |node: &&Arc<Node>| {
        data_path_address(node).is_some_and(|address| address.to_canonical().is_ipv4() != own.is_ipv4())
    };
    let Some(other) = snapshot.state.nodes().find(talks_otherwise) else { return Ok(()) };
    let (wanted, given) = if own.is_ipv4() { ("IPv6", "IPv4") } else { ("IPv4", "IPv6") };
    let theirs = data_path_address(other).map_or_else(String::new, |address| address.to_string());
    Err(Refusal::Conflict(format!(
        "the containers of this node would talk by {own}, over {given}; those of the cluster talk over {wanted} \
         ({} by {theirs})\n       give an address of {wanted}: --data-path-addr",
        other.display_name(),
    )))
}

/// Signs for the role that the state holds now, never for the one that the applicant names.
fn sign(consensus: &Consensus, node: NodeId, request: &CheckedRequest) -> Result<Issued, AdmissionError> {
    let snapshot = consensus.local();
    let (Some(cluster), Some(record)) = (snapshot.state.cluster(), snapshot.state.node(node)) else {
        let text = format!("node {node} was removed from the cluster; join it again with: rswarm join");
        return Err(Refusal::Denied(text).into());
    };
    let role = record.membership.role;
    let grant = Grant {
        cluster: cluster.id,
        node,
        role,
        now: consensus.edge().wall(),
        life: cluster.spec.cert_expiry,
        serial: consensus.edge().random(),
    };
    let chain = ca::sign(&cluster.root, request, grant)?;
    Ok(Issued { node, cluster: cluster.id, role, chain })
}

/// Since when a source's calls are counted, and how many they are.
type Calls = (Option<Instant>, u32);

/// How often each source called without a certificate. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    sources: Arc<Mutex<BTreeMap<IpAddr, Calls>>>,
}

impl Gate {
    /// Whether one more call of this source may pass at `now`.
    pub fn admits(&self, source: Option<IpAddr>, now: Instant) -> bool {
        let Some(source) = source else { return true };
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= SOURCES_MAX {
            sources.retain(|_, (since, _)| since.is_some_and(|s| now.duration_since(s) < Duration::from_secs(1)));
        }
        let (since, count) = sources.entry(source).or_insert((None, 0));
        if since.is_none_or(|s| now.duration_since(s) >= Duration::from_secs(1)) {
            (*since, *count) = (Some(now), 0);
        }
        *count += 1;
        *count <= ANONYMOUS_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_slowed_and_others_are_not() {
        let (gate, now) = (Gate::default(), Instant::now());
        let (a, b) = (Some(IpAddr::from([10, 99, 0, 1])), Some(IpAddr::from([10, 99, 0, 2])));
        assert!((0..ANONYMOUS_PER_SECOND).all(|_| gate.admits(a, now)));
        assert!(!gate.admits(a, now));
        assert!(gate.admits(b, now));
        assert!(gate.admits(a, now + Duration::from_secs(1)));
    }
}
