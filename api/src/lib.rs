//! Protobuf, its conversions, and typed peer identity: the only crate that knows the public
//! protobuf.

mod convert;
pub mod identity;
pub mod status;
pub mod tls;
pub mod wire;

pub use wire::{Wire, WireError};

/// The generated messages, clients and servers.
#[expect(clippy::all, reason = "generated")]
pub mod pb {
    tonic::include_proto!("rswarm.v1");
}
