//! The joiner's side of admission: fetch the root, check it against the token, and only then send
//! the secret.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rswarm_api::pb::ca_client::CaClient;
use rswarm_api::tls::{Credentials, CredentialsError, anonymous_channel, unverified_channel};
use rswarm_api::{Wire, WireError, pb};
use rswarm_manager::ca::{self, CaError};
use rswarm_manager::token::{self, TokenError};
use rswarm_types::spec::{Availability, Role};
use rswarm_types::{ClusterId, NodeId};
use tonic::{Code, Status};

use crate::files::CertificateFiles;

/// Each step of a join may take so long.
const STEP_TIMEOUT: Duration = Duration::from_secs(15);

/// Why this machine is not a node, or its certificate is the old one.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "manager {address} cannot be reached: {reason}\n       check the address, that a manager runs there, and that 2377/tcp is open between the hosts"
    )]
    Unreachable { address: SocketAddr, reason: String },
    #[error("the manager has no address")]
    NoAddress,
    #[error("manager {address} refuses: {reason}")]
    Refused { address: SocketAddr, reason: String },
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("manager {address} answered what this build does not understand")]
    Wire {
        address: SocketAddr,
        #[source]
        source: WireError,
    },
}

/// An admitted node.
pub struct Admitted {
    pub node: NodeId,
    pub cluster: ClusterId,
    pub role: Role,
    pub files: CertificateFiles,
    pub managers: Vec<SocketAddr>,
}

fn failure(address: SocketAddr, status: &Status) -> AdmissionError {
    let reason = deepest(status);
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Unknown | Code::Cancelled => {
            AdmissionError::Unreachable { address, reason }
        }
        _ => AdmissionError::Refused { address, reason },
    }
}

/// The innermost reason: the outer ones only say "transport error".
fn deepest(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        text = error.to_string();
        source = error.source();
    }
    text
}

async fn within<T>(
    address: SocketAddr,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, AdmissionError> {
    match tokio::time::timeout(STEP_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(failure(address, &status)),
        Err(_) => Err(AdmissionError::Unreachable { address, reason: format!("no answer within {STEP_TIMEOUT:?}") }),
    }
}

/// As [`join`], by the first of these addresses that can be reached.
///
/// # Errors
/// The last one's, where none can be reached; or the refusal of one that was.
pub async fn join_any(
    addresses: &[SocketAddr],
    given: &str,
    data_path: IpAddr,
    availability: Availability,
) -> Result<Admitted, AdmissionError> {
    let mut last = AdmissionError::NoAddress;
    for address in addresses {
        match join(*address, given, data_path, availability).await {
            Err(error @ AdmissionError::Unreachable { .. }) => last = error,
            ended => return ended,
        }
    }
    Err(last)
}

/// Joins a cluster: the secret part of the token leaves this host only towards the root that the
/// token names.
///
/// # Errors
/// See [`AdmissionError`]; nothing is left behind.
pub async fn join(
    address: SocketAddr,
    given: &str,
    data_path: IpAddr,
    availability: Availability,
) -> Result<Admitted, AdmissionError> {
    token::digest_of(given)?;
    let mut stranger = CaClient::new(unverified_channel(address)?);
    let root = within(address, stranger.get_root_ca(pb::GetRootCaRequest {})).await?.certificate;
    token::check_root(given, &root)?;
    let request = ca::request()?;
    let mut manager = CaClient::new(anonymous_channel(address, &root)?);
    let message = pb::IssueCertificateRequest {
        csr: request.csr,
        token: given.to_owned(),
        availability: availability.to_pb(),
        data_path_address: Some(data_path.to_pb()),
    };
    let issued = within(address, manager.issue_certificate(message)).await?;
    admitted(address, issued, root, request.key)
}

/// A new certificate for a new key, on the strength of the present one; the role may have changed.
///
/// # Errors
/// See [`AdmissionError`]; the old certificate stays.
pub async fn renew(address: SocketAddr, credentials: &Credentials, root: &str) -> Result<Admitted, AdmissionError> {
    let request = ca::request()?;
    let mut manager = CaClient::new(credentials.channel(address));
    let message = pb::IssueCertificateRequest { csr: request.csr, ..Default::default() };
    let issued = within(address, manager.issue_certificate(message)).await?;
    admitted(address, issued, root.to_owned(), request.key)
}

fn admitted(
    address: SocketAddr,
    issued: pb::IssueCertificateReply,
    root: String,
    key: String,
) -> Result<Admitted, AdmissionError> {
    let wire = |source| AdmissionError::Wire { address, source };
    let files = CertificateFiles { root, chain: issued.chain, key };
    // A certificate that does not fit must not replace one that does.
    files.credentials()?;
    let mut managers: Vec<SocketAddr> = issued.managers.iter().filter_map(|m| m.parse().ok()).collect();
    if !managers.contains(&address) {
        managers.push(address);
    }
    Ok(Admitted {
        node: Wire::from_pb(issued.node).map_err(wire)?,
        cluster: Wire::from_pb(issued.cluster).map_err(wire)?,
        role: Wire::from_pb(issued.role).map_err(wire)?,
        files,
        managers,
    })
}
