//! What containers need every second and the kernel cannot hold by itself: one process per node.
//!
//! `rswarm netd` answers DNS in every sandbox and holds the sockets of published ports. It has its
//! own session, outlives the daemon, and serves the last table that it was given. The daemon finds
//! it again through its socket, and starts another if it dies, which takes up the saved table on
//! the same ports.
//!
//! In reading order: what is said ([`protocol`]), who says it ([`client`]), and behind the socket
//! the process, its server, and the parts that need no kernel (names, messages).

pub mod client;
pub mod limits;
pub mod protocol;

mod forward;
mod health;
mod layout;
mod names;
mod process;
mod published;
mod resolv;
mod sandbox;
mod server;
mod sockets;
mod sys;
mod turns;
mod wire;

pub use client::{Client, ClientError, Launch};
pub use process::main;
pub use protocol::{
    DnsPorts, HeldPort, Hello, NetdTable, NetworkNames, Reply, SandboxDns, SandboxFailure, ServiceNames, TaskNames,
};
