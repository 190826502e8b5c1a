//! Why the cluster says no: the answer of `apply` and of the control API.

use crate::validate::Violation;

/// A refusal that changed nothing. The text is for people; the kind decides the exit code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request breaks rules; all of them are listed.
    #[error("{}", join(.0))]
    Invalid(Vec<Violation>),
    /// The object does not exist.
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: String, name: String },
    /// The name is taken, the object is in use, or the state forbids it.
    #[error("{0}")]
    Conflict(String),
    /// The change was decided on an older version.
    #[error(
        "update out of sequence: {kind} \"{name}\" is at version {at}, the change was made for {from}\n       look at it again and repeat the change"
    )]
    Stale { kind: String, name: String, at: u64, from: u64 },
    /// The caller may not do this.
    #[error("{0}")]
    Denied(String),
    /// Nothing free: addresses, ports, node numbers.
    #[error("{0}")]
    Exhausted(String),
    /// The command needs a newer feature level, or a request id came with another body.
    #[error("{0}")]
    Unsupported(String),
}

impl Refusal {
    /// A refusal for one field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation { field: field.into(), message: message.into() }])
    }

    /// A refusal because `name` is unknown.
    pub fn not_found(kind: &str, name: impl ToString) -> Self {
        Self::NotFound { kind: kind.to_owned(), name: name.to_string() }
    }
}

fn join(violations: &[Violation]) -> String {
    violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
