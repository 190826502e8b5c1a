//! What can go wrong in a command, for people and as an exit code.

use std::process::ExitCode;

use rswarm_api::status::to_refusal;
use rswarm_types::Refusal;
use rswarm_types::validate::Violation;
use tonic::{Code, Status};

/// What ended a command. The text says what is wrong and what to do; the kind is the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Anything without a code of its own.
    #[error("{0}")]
    Failed(String),
    /// The command line, or the spec it makes, breaks rules.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, the object is in use or has changed meanwhile.
    #[error("{0}")]
    Conflict(String),
    /// No daemon, no swarm, no manager or no leader; nothing was changed.
    #[error("{0}")]
    NoManager(String),
    /// The change may or may not have happened.
    #[error("outcome unknown: {0}\n       look at the present state before you repeat the command")]
    OutcomeUnknown(String),
    #[error("{0}")]
    Denied(String),
    /// Each was about another object; the rest of the command was done.
    #[error("{}", lines(.0))]
    Several(Vec<Error>),
    /// The output was cut off by its reader, which is no failure.
    #[error("the reader of the output is gone")]
    OutputClosed,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// 0 ok, 1 error, 2 usage, 3 not found, 4 conflict, 5 no manager, 6 outcome unknown, 7 permission.
    pub fn code(&self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotFound(_) => 3,
            Self::Conflict(_) => 4,
            Self::NoManager(_) => 5,
            Self::OutcomeUnknown(_) => 6,
            Self::Denied(_) => 7,
            Self::Several(errors) => {
                let mut codes = errors.iter().map(Self::code);
                let first = codes.next().unwrap_or(1);
                if codes.all(|code| code == first) { first } else { 1 }
            }
        }
    }

    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code())
    }

    /// What stderr shows: one `error: …` for each problem.
    pub fn report(&self) -> String {
        match self {
            Self::OutputClosed => String::new(),
            Self::Several(errors) => errors.iter().map(Self::report).collect(),
            other => format!("error: {other}\n"),
        }
    }

    /// The error of several, or none.
    pub fn gather(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// Broken rules, each a line of its own.
    pub fn violations(violations: &[Violation]) -> Self {
        Self::Several(violations.iter().map(|v| Self::Usage(v.to_string())).collect())
    }
}

fn lines(errors: &[Error]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if let Some(refusal) = to_refusal(&status) {
            return refusal.into();
        }
        let text = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument => Self::Usage(text),
            Code::NotFound => Self::NotFound(text),
            Code::AlreadyExists | Code::Aborted => Self::Conflict(text),
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied(text),
            Code::FailedPrecondition | Code::Unavailable => Self::NoManager(text),
            Code::DeadlineExceeded => Self::OutcomeUnknown(text),
            Code::Unimplemented if text.is_empty() => {
                Self::Failed("the daemon does not know this call: it is of another version than this program".into())
            }
            _ if text.is_empty() => Self::Failed(format!("the daemon answered only: {}", status.code())),
            _ => Self::Failed(text),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Invalid(violations) if violations.len() > 1 => Self::violations(&violations),
            Refusal::Invalid(_) => Self::Usage(text),
            Refusal::NotFound { .. } => Self::NotFound(text),
            Refusal::Conflict(_) | Refusal::Stale { .. } => Self::Conflict(text),
            Refusal::Denied(_) => Self::Denied(text),
            Refusal::Exhausted(_) | Refusal::Unsupported(_) => Self::Failed(text),
        }
    }
}

impl From<rswarm_api::WireError> for Error {
    fn from(error: rswarm_api::WireError) -> Self {
        Self::Failed(format!("the daemon's answer cannot be read: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rswarm_api::status::from_refusal;

    fn code(refusal: &Refusal) -> u8 {
        Error::from(from_refusal(refusal)).code()
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        assert_eq!(code(&Refusal::invalid("name", "it is empty")), 2);
        assert_eq!(code(&Refusal::not_found("service", "web")), 3);
        assert_eq!(code(&Refusal::Conflict("taken".into())), 4);
        assert_eq!(code(&Refusal::Stale { kind: "service".into(), name: "web".into(), at: 2, from: 1 }), 4);
        assert_eq!(code(&Refusal::Denied("no".into())), 7);
        assert_eq!(code(&Refusal::Exhausted("full".into())), 1);
    }

    #[test]
    fn statuses_without_a_refusal_have_one_too() {
        let of = |code| Error::from(Status::new(code, "why")).code();
        assert_eq!(of(Code::FailedPrecondition), 5);
        assert_eq!(of(Code::Unavailable), 5);
        assert_eq!(of(Code::DeadlineExceeded), 6);
        assert_eq!(of(Code::PermissionDenied), 7);
        assert_eq!(of(Code::Internal), 1);
    }

    #[test]
    fn several_errors_share_a_code_only_if_it_is_the_same() {
        let missing = || Error::NotFound("service \"a\" not found".into());
        assert_eq!(Error::Several(vec![missing(), missing()]).code(), 3);
        assert_eq!(Error::Several(vec![missing(), Error::Denied("no".into())]).code(), 1);
        let text = Error::Several(vec![missing(), missing()]).report();
        assert_eq!(text, "error: service \"a\" not found\nerror: service \"a\" not found\n");
    }

    #[test]
    fn all_violations_are_shown_each_as_an_error() {
        let violations = ["one", "two"].map(|f| Violation { field: f.into(), message: "bad".into() });
        let text = Error::from(from_refusal(&Refusal::Invalid(violations.into()))).report();
        assert_eq!(text, "error: invalid one: bad\nerror: invalid two: bad\n");
    }
}
