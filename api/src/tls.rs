//! Mutual TLS between nodes: TLS 1.3, the cluster's own root, no resumption.
//!
//! Resumption is off because a resumed session skips the client certificate, so that a removed or
//! demoted node would come back with its old identity.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper_util::rt::TokioIo;
use rswarm_types::limits::{SESSION_PING_PERIOD_MS, SESSION_PING_TIMEOUT_MS};
use rustls::client::ResolvesClientCert;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Channel, Endpoint};

use crate::identity::{Identity, IdentityError, MANAGER_NAME};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a TCP connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Handshakes under way at once; more wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;
/// A pause after `accept` failed (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What makes credentials unusable.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{what} holds no usable PEM")]
    Pem { what: &'static str },
    #[error("the key and the certificate do not fit together or cannot be used")]
    Key(#[source] rustls::Error),
    #[error("the node certificate names no node")]
    Identity(#[from] IdentityError),
}

/// A node's certificate, key and trusted root, replaceable while connections use them.
#[derive(Clone)]
pub struct Credentials {
    current: Arc<ArcSwap<Loaded>>,
}

struct Loaded {
    identity: Identity,
    key: Arc<CertifiedKey>,
    root: CertificateDer<'static>,
    verifier: Arc<dyn ClientCertVerifier>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Credentials").field(&self.identity()).finish()
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn load(root_pem: &str, chain_pem: &str, key_pem: &str) -> Result<Loaded, CredentialsError> {
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes())
        .map_err(|_| CredentialsError::Pem { what: "the root certificate" })?;
    let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|c| !c.is_empty())
        .ok_or(CredentialsError::Pem { what: "the node certificate" })?;
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
        .map_err(|_| CredentialsError::Pem { what: "the node key" })?;
    let identity = Identity::from_der(&chain[0])?;
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(CredentialsError::Key)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(&root)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|_| CredentialsError::Pem { what: "the root certificate" })?;
    Ok(Loaded { identity, key: Arc::new(key), root, verifier })
}

fn roots(root: &CertificateDer<'static>) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    store.add(root.clone()).map_err(CredentialsError::Key)?;
    Ok(store)
}

impl Credentials {
    /// Credentials from PEM texts: the root, the chain (leaf first), the key.
    ///
    /// # Errors
    /// When a text cannot be read, or key and certificate do not fit.
    pub fn from_pem(root: &str, chain: &str, key: &str) -> Result<Self, CredentialsError> {
        Ok(Self { current: Arc::new(ArcSwap::from_pointee(load(root, chain, key)?)) })
    }

    /// Takes new texts into use for every later handshake (renewal, promotion).
    ///
    /// # Errors
    /// As [`Credentials::from_pem`]; then the old ones stay.
    pub fn replace(&self, root: &str, chain: &str, key: &str) -> Result<(), CredentialsError> {
        self.current.store(Arc::new(load(root, chain, key)?));
        Ok(())
    }

    /// Who this node is now.
    pub fn identity(&self) -> Identity {
        self.current.load().identity
    }

    /// The server's side: a client certificate is asked for and not required.
    ///
    /// # Errors
    /// When TLS 1.3 cannot be had from the provider.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, CredentialsError> {
        let resolver = Arc::new(Resolver(self.clone()));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(CredentialsError::Key)?
            .with_client_cert_verifier(Arc::clone(&resolver) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    fn client_config(&self) -> Result<Arc<ClientConfig>, CredentialsError> {
        let loaded = self.current.load();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(CredentialsError::Key)?
            .with_root_certificates(roots(&loaded.root)?)
            .with_client_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// A channel to a manager, with this node's certificate; connects when first used.
    pub fn channel(&self, address: SocketAddr) -> Channel {
        let credentials = self.clone();
        lazy(address, CALM, move || credentials.client_config())
    }

    /// A channel that breaks soon after its manager falls silent: a session must be open elsewhere before the node
    /// counts as Down.
    pub fn session_channel(&self, address: SocketAddr) -> Channel {
        let credentials = self.clone();
        lazy(address, PROMPT, move || credentials.client_config())
    }
}

/// A channel to a manager of a cluster whose root is known, without a certificate of one's own.
pub fn anonymous_channel(address: SocketAddr, root_pem: &str) -> Result<Channel, CredentialsError> {
    let root = CertificateDer::from_pem_slice(root_pem.as_bytes())
        .map_err(|_| CredentialsError::Pem { what: "the root certificate" })?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(CredentialsError::Key)?
        .with_root_certificates(roots(&root)?)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    Ok(lazy(address, CALM, move || Ok(Arc::clone(&config))))
}

/// A channel that trusts anybody: only to fetch the root, whose digest the token pins.
pub fn unverified_channel(address: SocketAddr) -> Result<Channel, CredentialsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(CredentialsError::Key)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TrustAnybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    Ok(lazy(address, CALM, move || Ok(Arc::clone(&config))))
}

/// How a connection finds out that the other end is gone.
#[derive(Clone, Copy)]
struct Ping {
    /// Asked when nothing came for so long.
    period: Duration,
    /// The answer must come within this.
    timeout: Duration,
}

const CALM: Ping = Ping { period: Duration::from_secs(5), timeout: Duration::from_secs(5) };
const PROMPT: Ping = Ping {
    period: Duration::from_millis(SESSION_PING_PERIOD_MS),
    timeout: Duration::from_millis(SESSION_PING_TIMEOUT_MS),
};

fn lazy(
    address: SocketAddr,
    ping: Ping,
    config: impl Fn() -> Result<Arc<ClientConfig>, CredentialsError> + Send + Sync + 'static,
) -> Channel {
    let config = Arc::new(config);
    let connector = tower::service_fn(move |_| {
        let config = Arc::clone(&config);
        async move {
            let tcp = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| {
                std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer to the connection request")
            })??;
            tcp.set_nodelay(true)?;
            let name = ServerName::try_from(MANAGER_NAME).map_err(std::io::Error::other)?;
            let config = config().map_err(std::io::Error::other)?;
            let tls =
                tokio::time::timeout(HANDSHAKE_TIMEOUT, TlsConnector::from(config).connect(name, tcp)).await.map_err(
                    |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer to the TLS handshake"),
                )??;
            Ok::<_, std::io::Error>(TokioIo::new(tls))
        }
    });
    Endpoint::from_static("http://manager.rswarm.invalid")
        .http2_keep_alive_interval(ping.period)
        .keep_alive_timeout(ping.timeout)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .connect_with_connector_lazy(connector)
}

/// Accepts connections and shakes hands, each in its own task, bounded in number and time.
///
/// Yields established connections only, as `tonic`'s `serve_with_incoming` wants them. Runs until
/// the returned receiver is dropped; the accept loop ends with the runtime.
pub fn accept(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    tasks: &tokio_util::task::TaskTracker,
) -> mpsc::Receiver<Result<TlsStream<TcpStream>, std::io::Error>> {
    let (sender, receiver) = mpsc::channel(HANDSHAKES_MAX);
    let acceptor = TlsAcceptor::from(config);
    let slots = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let handshakes = tasks.clone();
    tasks.spawn(async move {
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let tcp = tokio::select! {
                biased;
                () = sender.closed() => return,
                tcp = listener.accept() => tcp,
            };
            let (tcp, from) = match tcp {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (acceptor, sender) = (acceptor.clone(), sender.clone());
            handshakes.spawn(async move {
                let _slot = slot;
                let _ = tcp.set_nodelay(true);
                match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await {
                    // The receiver is gone: the server stops, and so does this connection.
                    Ok(Ok(tls)) => drop(sender.send(Ok(tls)).await),
                    Ok(Err(error)) => tracing::debug!(%from, %error, "handshake refused"),
                    Err(_) => tracing::debug!(%from, "handshake timed out"),
                }
            });
        }
    });
    receiver
}

/// Hands out whatever the credentials hold at the moment of the handshake.
#[derive(Debug)]
struct Resolver(Credentials);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().key))
    }
}

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current.load().key))
    }
    fn has_certs(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for Resolver {
    fn offer_client_auth(&self) -> bool {
        true
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: rustls::pki_types::UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.0.current.load().verifier.verify_client_cert(end_entity, intermediates, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.current.load().verifier.verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.current.load().verifier.verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current.load().verifier.supported_verify_schemes()
    }
}

/// Accepts any certificate: the join token's digest decides afterwards.
#[derive(Debug)]
struct TrustAnybody;

impl rustls::client::danger::ServerCertVerifier for TrustAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
