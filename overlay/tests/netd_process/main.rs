//! netd as a real process that serves namespaces. Needs root, iproute2, util-linux and dnsutils.
#![allow(clippy::unwrap_used, reason = "tests")]

mod dns;
mod lab;
mod life;
