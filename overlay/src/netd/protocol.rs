//! What the daemon and netd say to each other: whole tables, as length-prefixed JSON on a socket.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use rswarm_types::{NetworkId, TaskId};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::limits::FRAME_BYTES_MAX;
use crate::ports::PublishedPort;

/// Raised when an older netd would misread a request: the daemon then starts its own version.
pub const PROTOCOL_VERSION: u32 = 2;

/// All that netd should serve on this node. Loading one replaces the last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetdTable {
    /// Chosen by the daemon and returned by [`Response::Hello`]; netd does not compare it.
    pub version: u64,
    /// Sandboxes that are up: a namespace with loopback up, mounted at `netns`.
    pub sandboxes: Vec<SandboxDns>,
    /// Networks that a sandbox above is in.
    pub networks: Vec<NetworkNames>,
    /// Ports that this node answers.
    pub published: Vec<PublishedPort>,
}

/// The DNS server of one sandbox, at 127.0.0.11 inside it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxDns {
    #[serde(with = "text")]
    pub task: TaskId,
    /// A file that holds the network namespace.
    pub netns: PathBuf,
    /// The port to bind if it is free, such as the one the sandbox's rule names. `None`: the last
    /// one, or any.
    #[serde(default)]
    pub udp_port: Option<u16>,
    /// See `udp_port`.
    #[serde(default)]
    pub tcp_port: Option<u16>,
    /// In the order of the attachments: the first network that has a name answers for it.
    #[serde(with = "text::list")]
    pub networks: Vec<NetworkId>,
    /// Names that no network has are answered with NXDOMAIN and never leave the node.
    #[serde(default)]
    pub internal_only: bool,
    /// `--dns`: asked from inside the sandbox, in place of the host's servers.
    #[serde(default)]
    pub servers: Vec<IpAddr>,
    /// Its own names (hostname, task name, container id), known whether it is ready or not.
    #[serde(default)]
    pub names: Vec<String>,
    /// Its own addresses, for `names`.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
}

/// The names of one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkNames {
    #[serde(with = "text")]
    pub id: NetworkId,
    /// `web.NAME` finds `web` in this network only; and the suffix of reverse answers.
    pub name: String,
    /// Reverse look-ups inside these are never forwarded.
    #[serde(default, with = "text::list")]
    pub subnets: Vec<IpNet>,
    pub services: Vec<ServiceNames>,
}

/// A service in one network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceNames {
    pub name: String,
    #[serde(default)]
    pub aliases: Vec<String>,
    /// At most one of each family. None with dnsrr: the name answers with the tasks.
    #[serde(default)]
    pub vips: Vec<IpAddr>,
    #[serde(default)]
    pub tasks: Vec<TaskNames>,
}

/// A task in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskNames {
    /// `web.1.<task id>`.
    pub name: String,
    /// Other names of its container: its id, short id and hostname.
    #[serde(default)]
    pub others: Vec<String>,
    /// At most one of each family.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Healthy and not draining: others are known, but not answered.
    pub ready: bool,
}

/// What netd did with a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// One for each sandbox whose sockets are open.
    pub sandboxes: Vec<DnsPorts>,
    /// Sandboxes whose sockets could not be opened, and why. Tried again with the next table.
    #[serde(default)]
    pub failures: Vec<SandboxFailure>,
    /// One for each published port of the table, in its order.
    pub published: Vec<HeldPort>,
}

/// Where a sandbox's DNS server listens on 127.0.0.11 inside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsPorts {
    #[serde(with = "text")]
    pub task: TaskId,
    pub udp_port: u16,
    pub tcp_port: u16,
}

/// A sandbox without DNS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxFailure {
    #[serde(with = "text")]
    pub task: TaskId,
    pub problem: String,
}

/// A published port, held or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldPort {
    #[serde(flatten)]
    pub port: PublishedPort,
    /// Why it is not held, such as `port 8080/tcp is held by nginx (pid 1234)`. Tried again with
    /// the next table.
    #[serde(default)]
    pub problem: Option<String>,
}

/// What the daemon asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Who are you?
    Hello,
    Load(NetdTable),
    /// End. With `forget`, the saved table goes too (leave); without, the next netd takes it up.
    Stop {
        forget: bool,
    },
}

/// What netd answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Response {
    Hello(Hello),
    Loaded(Reply),
    Stopping,
    /// The request could not be read or done.
    Refused(String),
}

/// Which netd this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// See [`PROTOCOL_VERSION`].
    pub protocol: u32,
    /// Of the program.
    pub version: String,
    pub pid: u32,
    /// [`NetdTable::version`] of the table in force.
    pub table: u64,
}

/// Reads one frame: four bytes of length, big-endian, then that much JSON. `None` at a clean end.
///
/// # Errors
/// When the connection breaks inside a frame, or the frame is too long or not the expected JSON
/// (`InvalidData`).
pub async fn read_frame<T, R>(from: &mut R) -> io::Result<Option<T>>
where
    T: for<'de> Deserialize<'de>,
    R: AsyncRead + Unpin,
{
    let mut length = [0; 4];
    if from.read(&mut length[..1]).await? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut length[1..]).await?;
    let length = u32::from_be_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a frame of {length} bytes: allowed are up to {FRAME_BYTES_MAX}"),
        ));
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body).await?;
    serde_json::from_slice(&body).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes what [`read_frame`] reads.
///
/// # Errors
/// When the connection breaks, or the value is too long for a frame (`InvalidInput`).
pub async fn write_frame<T, W>(to: &mut W, value: &T) -> io::Result<()>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, value)?;
    let length = frame.len() - 4;
    let prefix = u32::try_from(length).ok().filter(|l| *l <= FRAME_BYTES_MAX).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a frame of {length} bytes: allowed are up to {FRAME_BYTES_MAX}"),
        )
    })?;
    frame[..4].copy_from_slice(&prefix.to_be_bytes());
    to.write_all(&frame).await?;
    to.flush().await
}

/// Values that travel as they print.
mod text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(Error::custom)
    }

    pub mod list {
        use std::fmt::Display;
        use std::str::FromStr;

        use serde::de::{Deserialize, Deserializer, Error};
        use serde::ser::Serializer;

        pub fn serialize<T: Display, S: Serializer>(list: &[T], to: S) -> Result<S::Ok, S::Error> {
            to.collect_seq(list.iter().map(T::to_string))
        }

        pub fn deserialize<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
        where
            T: FromStr<Err: Display>,
            D: Deserializer<'de>,
        {
            let list = Vec::<String>::deserialize(from)?;
            list.iter().map(|item| item.parse().map_err(Error::custom)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rswarm_types::spec::Protocol;

    fn table() -> NetdTable {
        NetdTable {
            version: 7,
            sandboxes: vec![SandboxDns {
                task: TaskId(1),
                netns: "/run/netns/x".into(),
                udp_port: Some(5),
                networks: vec![NetworkId(2), NetworkId(3)],
                servers: vec![IpAddr::from([9, 9, 9, 9])],
                ..SandboxDns::default()
            }],
            networks: vec![NetworkNames {
                id: NetworkId(2),
                name: "back".into(),
                subnets: vec!["10.0.1.0/24".parse().unwrap()],
                services: vec![ServiceNames { name: "web".into(), ..ServiceNames::default() }],
            }],
            published: vec![PublishedPort { port: 80, protocol: Protocol::Udp, address: None }],
        }
    }

    #[tokio::test]
    async fn a_request_survives_the_wire_and_the_end_is_clean() {
        let (mut one, mut other) = tokio::io::duplex(1 << 16);
        let sent = Request::Load(table());
        write_frame(&mut one, &sent).await.unwrap();
        drop(one);
        assert_eq!(read_frame(&mut other).await.unwrap(), Some(sent));
        assert_eq!(read_frame::<Request, _>(&mut other).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_reply_survives_the_wire() {
        let (mut one, mut other) = tokio::io::duplex(1 << 16);
        let sent = Response::Loaded(Reply {
            sandboxes: vec![DnsPorts { task: TaskId(9), udp_port: 1, tcp_port: 2 }],
            failures: vec![SandboxFailure { task: TaskId(8), problem: "gone".into() }],
            published: vec![HeldPort {
                port: PublishedPort { port: 80, protocol: Protocol::Tcp, address: Some([10, 9, 0, 1].into()) },
                problem: Some("held".into()),
            }],
        });
        write_frame(&mut one, &sent).await.unwrap();
        assert_eq!(read_frame(&mut other).await.unwrap(), Some(sent));
    }

    #[tokio::test]
    async fn a_frame_that_is_too_long_cut_or_no_request_is_an_error() {
        for bytes in [
            (FRAME_BYTES_MAX + 1).to_be_bytes().to_vec(),
            vec![0, 0],
            vec![0, 0, 0, 4, b'{'],
            vec![0, 0, 0, 2, b'{', b'}'],
        ] {
            assert!(read_frame::<Request, _>(&mut bytes.as_slice()).await.is_err(), "{bytes:?}");
        }
    }
}
