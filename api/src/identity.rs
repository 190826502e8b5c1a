//! Who is at the other end of a connection, as its certificate proves.

use std::net::IpAddr;

use rswarm_types::spec::Role;
use rswarm_types::{ClusterId, NodeId};
use x509_parser::prelude::{FromDer, X509Certificate};

/// OU of a manager's certificate, and the DNS name that clients of managers check (SwarmKit's).
pub const MANAGER_NAME: &str = "swarm-manager";
/// OU of a worker's certificate.
pub const WORKER_NAME: &str = "swarm-worker";

/// The name that stands in certificates for a role.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Manager => MANAGER_NAME,
        Role::Worker => WORKER_NAME,
    }
}

/// What a node certificate says: CN = node, OU = role, O = cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub role: Role,
}

/// A certificate that names no node of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("the certificate cannot be read")]
    Unreadable,
    #[error("the certificate's {field} is \"{value}\", which is no {expected}")]
    Field { field: &'static str, value: String, expected: &'static str },
}

impl Identity {
    /// Reads the subject of a DER certificate. The chain must have been verified already.
    ///
    /// # Errors
    /// When the subject is not that of a node certificate.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
        let subject = certificate.subject();
        let text = |attribute: Option<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
            attribute.and_then(|a| a.as_str().ok()).unwrap_or_default().to_owned()
        };
        let field = |field, value: String, expected| IdentityError::Field { field, value, expected };
        let node = text(subject.iter_common_name().next());
        let cluster = text(subject.iter_organization().next());
        let role = match text(subject.iter_organizational_unit().next()).as_str() {
            MANAGER_NAME => Role::Manager,
            WORKER_NAME => Role::Worker,
            other => return Err(field("OU", other.to_owned(), "role")),
        };
        Ok(Self {
            node: node.parse().map_err(|_| field("CN", node, "node id"))?,
            cluster: cluster.parse().map_err(|_| field("O", cluster, "cluster id"))?,
            role,
        })
    }
}

/// Who calls, as the transport knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on this host who may open the daemon's socket.
    Local,
    /// A node with a certificate of the cluster.
    Node(Identity),
    /// No certificate: only the calls of `Ca` exist. With the address it comes from.
    Anonymous(Option<IpAddr>),
}

impl Peer {
    /// The peer of a request that came over TLS or over the local socket.
    ///
    /// # Errors
    /// When its certificate names no node.
    pub fn of<T>(request: &tonic::Request<T>) -> Result<Self, tonic::Status> {
        use tonic::transport::server::UdsConnectInfo;
        if request.extensions().get::<UdsConnectInfo>().is_some() {
            return Ok(Self::Local);
        }
        match request.peer_certs().as_deref().map(Vec::as_slice) {
            Some([leaf, ..]) => {
                Identity::from_der(leaf).map(Self::Node).map_err(|e| tonic::Status::unauthenticated(e.to_string()))
            }
            _ => Ok(Self::Anonymous(source(request))),
        }
    }
}

/// Where a request comes from. What a socket of both families calls `::ffff:192.0.2.1` is `192.0.2.1`.
pub fn source<T>(request: &tonic::Request<T>) -> Option<IpAddr> {
    request.remote_addr().map(|address| address.ip().to_canonical())
}
