//! What people write on command lines and in compose files, read into the nouns of this crate.
//!
//! Every reader is pure; where a value may come from the environment the caller hands a lookup in.

pub mod choice;
pub mod csv;
pub mod duration;
pub mod env;
pub mod host;
pub mod label;
pub mod mount;
pub mod network;
pub mod placement_pref;
pub mod port;
pub mod size;
pub mod ulimit;
pub mod user;
pub mod words;

pub use duration::{format_duration, parse_duration};
pub use env::{EnvFileError, parse_env, parse_env_file};
pub use host::parse_host;
pub use label::parse_label;
pub use mount::{ShortVolume, parse_mount, parse_tmpfs, parse_volume};
pub use network::parse_network;
pub use placement_pref::parse_placement_pref;
pub use port::parse_publish;
pub use size::{parse_bytes, parse_cpus};
pub use ulimit::parse_ulimit;
pub use user::parse_user;
pub use words::split_words;

/// A value that is not what its field takes.
///
/// Reads well after the field's name: `invalid --publish "8080:99999": target port is "99999"`,
/// then a line with what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{value}\": {problem}\n       allowed: {allowed}")]
pub struct ParseError {
    /// What was written.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What may be written instead.
    pub allowed: String,
}

impl ParseError {
    /// An error about `value`.
    pub fn new(value: impl Into<String>, problem: impl Into<String>, allowed: impl Into<String>) -> Self {
        Self { value: value.into(), problem: problem.into(), allowed: allowed.into() }
    }
}

/// Go's `strconv.ParseBool`, which Docker's option values follow.
pub(crate) fn parse_go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
