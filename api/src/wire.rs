//! One trait between the nouns and their protobuf, and the macros that write it.
//!
//! Every conversion goes both ways and loses nothing; what cannot be read is an error, never a
//! default.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use rswarm_types::{Bytes as Size, MemberId, NanoCpus, TimestampMs};

/// A message that is not what this build understands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that must be there is not.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A value outside its type.
    #[error("{what} has the value {value}, which this build does not know")]
    Unknown { what: &'static str, value: String },
}

/// A noun that has a form on the wire.
pub trait Wire: Sized {
    /// The protobuf type of one value.
    type Pb;
    fn to_pb(&self) -> Self::Pb;
    /// # Errors
    /// When a required field is missing or a value is outside its type.
    fn from_pb(pb: Self::Pb) -> Result<Self, WireError>;
}

macro_rules! same {
    ($($t:ty),*) => {$(
        impl Wire for $t {
            type Pb = $t;
            fn to_pb(&self) -> $t { self.clone() }
            fn from_pb(pb: $t) -> Result<Self, WireError> { Ok(pb) }
        }
    )*};
}
same!(bool, u32, u64, i32, i64, String);

impl Wire for u16 {
    type Pb = u32;
    fn to_pb(&self) -> u32 {
        u32::from(*self)
    }
    fn from_pb(pb: u32) -> Result<Self, WireError> {
        Self::try_from(pb).map_err(|_| WireError::Unknown { what: "16-bit number", value: pb.to_string() })
    }
}

impl Wire for u8 {
    type Pb = u32;
    fn to_pb(&self) -> u32 {
        u32::from(*self)
    }
    fn from_pb(pb: u32) -> Result<Self, WireError> {
        Self::try_from(pb).map_err(|_| WireError::Unknown { what: "8-bit number", value: pb.to_string() })
    }
}

impl Wire for Duration {
    type Pb = u64;
    fn to_pb(&self) -> u64 {
        u64::try_from(self.as_nanos()).unwrap_or(u64::MAX)
    }
    fn from_pb(pb: u64) -> Result<Self, WireError> {
        Ok(Self::from_nanos(pb))
    }
}

macro_rules! number {
    ($($t:ident),*) => {$(
        impl Wire for $t {
            type Pb = u64;
            fn to_pb(&self) -> u64 { self.0 }
            fn from_pb(pb: u64) -> Result<Self, WireError> { Ok(Self(pb)) }
        }
    )*};
}
number!(TimestampMs, Size, NanoCpus, MemberId);

fn id_from(pb: &[u8], what: &'static str) -> Result<u128, WireError> {
    let bytes: [u8; 16] = pb.try_into().map_err(|_| WireError::Unknown { what, value: format!("{pb:02x?}") })?;
    Ok(u128::from_be_bytes(bytes))
}

macro_rules! id {
    ($($t:ident),*) => {$(
        impl Wire for rswarm_types::$t {
            type Pb = bytes::Bytes;
            fn to_pb(&self) -> bytes::Bytes { bytes::Bytes::copy_from_slice(&self.to_bytes()) }
            fn from_pb(pb: bytes::Bytes) -> Result<Self, WireError> { id_from(&pb, stringify!($t)).map(Self) }
        }
    )*};
}
id!(ClusterId, NodeId, ServiceId, TaskId, NetworkId, RequestId);

impl Wire for u128 {
    type Pb = bytes::Bytes;
    fn to_pb(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.to_be_bytes())
    }
    fn from_pb(pb: bytes::Bytes) -> Result<Self, WireError> {
        id_from(&pb, "128-bit number")
    }
}

impl Wire for [u8; 32] {
    type Pb = bytes::Bytes;
    fn to_pb(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(self)
    }
    fn from_pb(pb: bytes::Bytes) -> Result<Self, WireError> {
        Self::try_from(&pb[..])
            .map_err(|_| WireError::Unknown { what: "256-bit hash", value: format!("{} bytes", pb.len()) })
    }
}

impl Wire for Ipv4Addr {
    type Pb = u32;
    fn to_pb(&self) -> u32 {
        u32::from(*self)
    }
    fn from_pb(pb: u32) -> Result<Self, WireError> {
        Ok(Self::from(pb))
    }
}

impl Wire for Ipv6Addr {
    type Pb = bytes::Bytes;
    fn to_pb(&self) -> bytes::Bytes {
        bytes::Bytes::copy_from_slice(&self.octets())
    }
    fn from_pb(pb: bytes::Bytes) -> Result<Self, WireError> {
        id_from(&pb, "IPv6 address").map(Self::from_bits)
    }
}

macro_rules! text {
    ($($t:ty = $what:literal),*) => {$(
        impl Wire for $t {
            type Pb = String;
            fn to_pb(&self) -> String { self.to_string() }
            fn from_pb(pb: String) -> Result<Self, WireError> {
                <$t>::from_str(&pb).map_err(|_| WireError::Unknown { what: $what, value: pb })
            }
        }
    )*};
}
text!(IpAddr = "IP address", SocketAddr = "socket address", IpNet = "subnet");

impl<T: Wire> Wire for Option<T> {
    type Pb = Option<T::Pb>;
    fn to_pb(&self) -> Self::Pb {
        self.as_ref().map(Wire::to_pb)
    }
    fn from_pb(pb: Self::Pb) -> Result<Self, WireError> {
        pb.map(T::from_pb).transpose()
    }
}

impl<T: Wire> Wire for Vec<T> {
    type Pb = Vec<T::Pb>;
    fn to_pb(&self) -> Self::Pb {
        self.iter().map(Wire::to_pb).collect()
    }
    fn from_pb(pb: Self::Pb) -> Result<Self, WireError> {
        pb.into_iter().map(T::from_pb).collect()
    }
}

impl Wire for BTreeMap<String, String> {
    type Pb = Self;
    fn to_pb(&self) -> Self {
        self.clone()
    }
    fn from_pb(pb: Self) -> Result<Self, WireError> {
        Ok(pb)
    }
}

impl Wire for BTreeMap<String, IpAddr> {
    type Pb = BTreeMap<String, String>;
    fn to_pb(&self) -> Self::Pb {
        self.iter().map(|(name, address)| (name.clone(), address.to_pb())).collect()
    }
    fn from_pb(pb: Self::Pb) -> Result<Self, WireError> {
        pb.into_iter().map(|(name, address)| Ok((name, Wire::from_pb(address)?))).collect()
    }
}

impl<T: Wire> Wire for Arc<T> {
    type Pb = T::Pb;
    fn to_pb(&self) -> T::Pb {
        (**self).to_pb()
    }
    fn from_pb(pb: T::Pb) -> Result<Self, WireError> {
        T::from_pb(pb).map(Self::new)
    }
}

impl<T: Wire> Wire for Box<T> {
    type Pb = T::Pb;
    fn to_pb(&self) -> T::Pb {
        (**self).to_pb()
    }
    fn from_pb(pb: T::Pb) -> Result<Self, WireError> {
        T::from_pb(pb).map(Self::new)
    }
}

/// Reads a field that protobuf may leave out and that must be there.
pub(crate) fn required<T: Wire>(pb: Option<T::Pb>, field: &'static str) -> Result<T, WireError> {
    T::from_pb(pb.ok_or(WireError::Missing(field))?)
}

/// A struct with the same field names on both sides; `;` separates plain fields from required
/// message fields.
macro_rules! wire_struct {
    ($t:path => $pb:path { $($plain:ident),* $(; $($msg:ident),*)? }) => {
        impl $crate::wire::Wire for $t {
            type Pb = $pb;
            fn to_pb(&self) -> $pb {
                $pb {
                    $($plain: $crate::wire::Wire::to_pb(&self.$plain),)*
                    $($($msg: Some($crate::wire::Wire::to_pb(&self.$msg)),)*)?
                }
            }
            fn from_pb(pb: $pb) -> Result<Self, $crate::wire::WireError> {
                Ok(Self {
                    $($plain: $crate::wire::Wire::from_pb(pb.$plain)?,)*
                    $($($msg: $crate::wire::required(pb.$msg, concat!(stringify!($pb), ".", stringify!($msg)))?,)*)?
                })
            }
        }
    };
}
pub(crate) use wire_struct;

/// A fieldless enum, by explicit numbers.
macro_rules! wire_enum {
    ($t:path { $($variant:ident = $number:literal),* }) => {
        impl $crate::wire::Wire for $t {
            type Pb = i32;
            fn to_pb(&self) -> i32 {
                match self { $(Self::$variant => $number,)* }
            }
            fn from_pb(pb: i32) -> Result<Self, $crate::wire::WireError> {
                match pb {
                    $($number => Ok(Self::$variant),)*
                    other => Err($crate::wire::WireError::Unknown { what: stringify!($t), value: other.to_string() }),
                }
            }
        }
    };
}
pub(crate) use wire_enum;
