//! Netlink, the kernel's message socket: attributes, messages, batches and dumps.
//!
//! Shared by [`crate::net`] (rtnetlink) and [`crate::nfnl`] (nfnetlink). Everything is synchronous:
//! the kernel does the work inside `send`, so that a reply is there when `send` returns.

mod attribute;
mod socket;

pub use attribute::{Attributes, Writer, attribute};
pub use socket::{Message, NetlinkError, Socket, notifications};
