//! Flags to specs. Pure: files and the environment are handed in.

use std::collections::BTreeMap;
use std::fmt::Display;

use rswarm_types::parse::{ParseError, parse_label};
use rswarm_types::validate::Violation;

use crate::errors::{Error, Result};

mod cluster;
mod create;
mod flags;
mod network;
mod node;
mod update;

pub use cluster::cluster_spec;
pub use create::service_spec;
pub use network::network_spec;
pub use node::change_node;
pub use update::change_service;

/// What a command line takes from its surroundings.
pub struct Surroundings<'a> {
    /// The caller's environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file that a flag names.
    pub read: &'a dyn Fn(&std::path::Path) -> std::io::Result<String>,
}

/// What is wrong with a command line; all of it is reported at once.
#[derive(Default)]
pub struct Problems(Vec<Error>);

impl Problems {
    /// A problem with a flag's value.
    pub fn add(&mut self, flag: &str, problem: impl Display) {
        self.0.push(Error::Usage(format!("invalid {flag} {problem}")));
    }

    /// A problem with the whole.
    pub fn say(&mut self, text: impl Into<String>) {
        self.0.push(Error::Usage(text.into()));
    }

    /// The value, or nothing and a problem.
    pub fn take<T, E: Display>(&mut self, flag: &str, read: std::result::Result<T, E>) -> Option<T> {
        read.map_err(|error| self.add(flag, error)).ok()
    }

    /// Reads a flag if it was given.
    pub fn read<T>(&mut self, flag: &str, text: Option<&String>, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        text.and_then(|text| self.take(flag, parse(text)))
    }

    /// Reads each value of a flag.
    pub fn each<T>(&mut self, flag: &str, texts: &[String], parse: impl Fn(&str) -> Parsed<T>) -> Vec<T> {
        texts.iter().filter_map(|text| self.take(flag, parse(text))).collect()
    }

    /// Reads `KEY=VALUE`s.
    pub fn labels(&mut self, flag: &str, texts: &[String]) -> BTreeMap<String, String> {
        self.each(flag, texts, parse_label).into_iter().collect()
    }

    /// The rules that the whole breaks: what the managers would refuse is refused here too, all at once.
    pub fn broken(&mut self, violations: Vec<Violation>) {
        violations.iter().for_each(|violation| self.say(violation.to_string()));
    }

    /// Nothing wrong, or all of it.
    ///
    /// # Errors
    /// Each problem.
    pub fn finish(self) -> Result<()> {
        Error::gather(self.0)
    }
}

type Parsed<T> = std::result::Result<T, ParseError>;

/// Reads a word of which one is chosen.
fn choice<T: std::str::FromStr<Err = ParseError>>(text: &str) -> Parsed<T> {
    text.parse()
}

#[cfg(test)]
mod tests;
