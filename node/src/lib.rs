//! The daemon: one node, with its worker role, its manager role, and the way between them.

mod address;
mod admission;
mod daemon;
mod describe;
mod files;
mod gateway;
mod local;
mod membership;
mod options;
mod renewal;
mod serve;

pub use daemon::run_daemon;
pub use describe::VERSION;
pub use options::{CONFIG_FILE, DATA_DIR, DaemonOptions, RUN_DIR};
