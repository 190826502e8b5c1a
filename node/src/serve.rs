//! Sockets: the local one for people, and 2377 for nodes.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Ipv6V6Only;
use rswarm_api::pb::node_api_server::NodeApiServer;
use rswarm_api::tls::{Credentials, CredentialsError, accept};
use rswarm_manager::Manager;
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::gateway::Gateway;
use crate::local::LocalApi;

/// Group whose members may use the local socket.
const GROUP: &str = "rswarm";
/// Connections to the manager's port that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// Dead peers are noticed after two of these.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// When a server stops, calls under way may take so long; a peer that is dead would hold it until its keepalive.
const LAST_CALLS: Duration = Duration::from_secs(1);

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot listen on {}", path.display())]
    Unix {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "cannot listen on {address}: {reason}\n       stop what holds the port, or choose another with --listen-addr"
    )]
    Tcp { address: SocketAddr, reason: String },
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Serves the local socket until `stop`.
///
/// # Errors
/// When the socket cannot be made.
pub fn local(
    path: &Path,
    api: LocalApi,
    gateway: Gateway,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let error = |source| ServeError::Unix { path: path.to_owned(), source };
    // The data folder's lock says that no daemon serves it: what is there is a leftover.
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(error(e)),
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(error)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(error)?;
    if let Ok(Some(group)) = nix::unistd::Group::from_name(GROUP) {
        nix::unistd::chown(path, None, Some(group.gid)).map_err(|e| error(e.into()))?;
    }
    let server = tonic::transport::Server::builder()
        .add_service(NodeApiServer::new(api).max_decoding_message_size(4 << 20).max_encoding_message_size(usize::MAX))
        .add_service(gateway)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.clone().cancelled_owned());
    let shown = path.display().to_string();
    tasks.spawn(async move {
        if let Some(Err(error)) = until_last_calls(server, stop).await {
            tracing::error!(path = shown, %error, "the local socket is no longer served");
        }
    });
    Ok(())
}

/// What the server ends with; `None` once `stop` was so long ago that what is still open is given up.
async fn until_last_calls<T>(server: impl Future<Output = T>, stop: CancellationToken) -> Option<T> {
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(LAST_CALLS).await;
    };
    tokio::select! {
        ended = server => Some(ended),
        () = too_late => {
            tracing::info!("calls did not end in time");
            None
        }
    }
}

/// Listens on the manager's address; on `[::]` for IPv4 too, whatever the host's default is.
///
/// # Errors
/// When the port is held by something else.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        if address.is_ipv6() {
            setsockopt(&socket, Ipv6V6Only, &false)?;
        }
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|e: std::io::Error| ServeError::Tcp { address, reason: e.to_string() })
}

/// Serves a manager on 2377 until `stop`.
///
/// # Errors
/// When the credentials cannot be used.
pub fn manager(
    listener: TcpListener,
    manager: &Manager,
    credentials: &Credentials,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let incoming = ReceiverStream::new(accept(listener, credentials.server_config()?, tasks));
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .add_routes(manager.routes())
        .serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    tasks.spawn(async move {
        if let Some(Err(error)) = until_last_calls(server, stop).await {
            tracing::error!(%error, "port 2377 is no longer served");
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn every_address_is_those_of_both_versions_and_the_caller_is_known_by_his_own() {
        let listener = bind((Ipv6Addr::UNSPECIFIED, 0).into()).await.expect("this host has IPv6");
        let port = listener.local_addr().expect("bound").port();
        for to in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let call = TcpStream::connect((to, port)).await.expect("it listens");
            let (_, from) = listener.accept().await.expect("a connection");
            assert_eq!(from.ip().to_canonical(), call.local_addr().expect("connected").ip());
        }
        let taken = bind((Ipv6Addr::UNSPECIFIED, port).into()).await.expect_err("held").to_string();
        assert!(taken.contains(&format!("cannot listen on [::]:{port}")), "{taken}");
        let four = bind((Ipv4Addr::UNSPECIFIED, 0).into()).await.expect("a free port");
        assert!(four.local_addr().expect("bound").is_ipv4());
    }
}
