//! Rules that every spec keeps. All violations are reported at once.

use std::fmt;

mod cluster;
mod container;
mod name;
mod network;
mod service;

pub use cluster::{cluster_spec, node_spec};
pub use container::{CAPABILITIES, is_signal};
pub use name::{image_reference, stack_name};
pub use network::network_spec;
pub use service::service_spec;

/// One broken rule: the field, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub field: String,
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {}: {}", self.field, self.message)
    }
}

/// Violations as they are found. A field's first word is the flag's name without dashes.
#[derive(Default)]
struct Found(Vec<Violation>);

impl Found {
    fn add(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.0.push(Violation { field: field.into(), message: message.into() });
    }

    fn check(&mut self, holds: bool, field: &str, message: impl FnOnce() -> String) {
        if !holds {
            self.add(field, message());
        }
    }

    fn add_some(&mut self, field: &str, problem: Option<String>) {
        if let Some(problem) = problem {
            self.add(field, problem);
        }
    }

    fn labels<'a>(&mut self, field: &str, keys: impl Iterator<Item = &'a String>) {
        for key in keys {
            self.add_some(field, crate::parse::label::check_label_key(key));
        }
    }
}

/// The first value that an earlier one equals, for each such value.
fn duplicates<T: Ord + Clone>(values: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = std::collections::BTreeSet::new();
    let mut twice = std::collections::BTreeSet::new();
    for value in values {
        if !seen.insert(value.clone()) {
            twice.insert(value);
        }
    }
    twice.into_iter().collect()
}
