//! A registry's refusals, in words that say what to do.

use std::path::PathBuf;

use oci_client::errors::{OciDistributionError, OciErrorCode};

use super::digest::Digest;

/// Why a registry could not be used.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It has no such image.
    #[error("image \"{reference}\" not found at registry {registry} ({status})")]
    NotFound {
        /// What was asked for.
        reference: String,
        /// Of whom.
        registry: String,
        /// HTTP's.
        status: u16,
    },
    /// It wants to know who asks.
    #[error("registry {registry} wants authentication for \"{reference}\": run rswarm login {registry}")]
    LoginNeeded {
        /// What was asked for.
        reference: String,
        /// Of whom.
        registry: String,
    },
    /// It does not accept who asks.
    #[error("registry {registry} refused the credentials given{}: run rswarm login {registry}", explain(answer))]
    LoginRefused {
        /// Who.
        registry: String,
        /// Its words.
        answer: String,
    },
    /// It knows who asks, and says no.
    #[error("registry {registry} denied access to \"{reference}\"{}", explain(answer))]
    Denied {
        /// What was asked for.
        reference: String,
        /// Of whom.
        registry: String,
        /// Its words.
        answer: String,
    },
    /// No connection, or one that broke.
    #[error("cannot reach registry {registry}: {reason}")]
    Unreachable {
        /// Who.
        registry: String,
        /// The innermost cause.
        reason: String,
    },
    /// It speaks HTTP where HTTPS was expected.
    #[error(
        "registry {registry} does not speak TLS: if plain HTTP is meant, start the daemon with --insecure-registry {registry}"
    )]
    PlainHttp {
        /// Who.
        registry: String,
    },
    /// Its certificate is not trusted.
    #[error("cannot trust registry {registry}: {reason}")]
    Certificate {
        /// Who.
        registry: String,
        /// The verifier's words.
        reason: String,
    },
    /// Any other status.
    #[error("registry {registry} answered {status} for \"{reference}\"{}", explain(answer))]
    Answer {
        /// What was asked for.
        reference: String,
        /// Of whom.
        registry: String,
        /// HTTP's.
        status: u16,
        /// Its words.
        answer: String,
        /// How long it asked to wait.
        retry_after_s: Option<u64>,
    },
    /// Its content is not what its name says.
    #[error("registry {registry} sent {actual} for {expected}")]
    Digest {
        /// Who.
        registry: String,
        /// Asked for.
        expected: Digest,
        /// Got.
        actual: Digest,
    },
    /// It sent more than a bound or than its manifest promised.
    #[error("registry {registry} sent more than {max} bytes")]
    TooLong {
        /// Who.
        registry: String,
        /// The bound.
        max: u64,
    },
    /// It breaks the protocol.
    #[error("registry {registry}: {answer}")]
    Protocol {
        /// Who.
        registry: String,
        /// What happened.
        answer: String,
    },
    /// Our own file could not be read while it was sent.
    #[error("cannot read {}: {reason}", path.display())]
    Local {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn explain(answer: &str) -> String {
    if answer.is_empty() { String::new() } else { format!(" ({answer})") }
}

impl RegistryError {
    /// Whether the same request may go better the next time.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Answer { status, retry_after_s, .. } => {
                let can_wait = retry_after_s.is_none_or(|seconds| seconds <= super::limits::RETRY_AFTER_MAX_S);
                (*status == 429 || *status >= 500) && can_wait
            }
            _ => false,
        }
    }

    pub(super) fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Answer { retry_after_s, .. } => *retry_after_s,
            _ => None,
        }
    }

    pub(super) fn from_http(registry: &str, error: &reqwest::Error) -> Self {
        Self::from_chain(registry, error, error.is_timeout())
    }

    /// oci-client hides the HTTP error of a broken stream in an I/O error.
    pub(super) fn from_stream(registry: &str, error: &std::io::Error) -> Self {
        match error.get_ref() {
            Some(inner) => Self::from_chain(registry, inner, false),
            None => Self::Unreachable { registry: registry.to_owned(), reason: error.to_string() },
        }
    }

    fn from_chain(registry: &str, error: &(dyn std::error::Error + 'static), timed_out: bool) -> Self {
        let registry = registry.to_owned();
        let (mut innermost, mut refused, mut tls) = (error, false, None);
        let mut next = Some(error);
        while let Some(current) = next {
            innermost = current;
            tls = tls.or_else(|| current.downcast_ref::<rustls::Error>());
            let io = current.downcast_ref::<std::io::Error>();
            refused |= io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused);
            // An I/O error shows its content, and hides that it is its source.
            let content = io.and_then(std::io::Error::get_ref).map(|inner| inner as &(dyn std::error::Error + 'static));
            next = content.or_else(|| current.source());
        }
        match tls {
            Some(rustls::Error::InvalidMessage(_)) => Self::PlainHttp { registry },
            Some(rustls::Error::InvalidCertificate(reason)) => {
                Self::Certificate { registry, reason: reason.to_string() }
            }
            _ if refused => Self::Unreachable { registry, reason: "connection refused".to_owned() },
            _ if timed_out => Self::Unreachable { registry, reason: "timed out".to_owned() },
            _ => Self::Unreachable { registry, reason: innermost.to_string() },
        }
    }
}

/// Who asks whom for what.
pub(super) struct Asking {
    pub reference: String,
    pub registry: String,
    pub with_credentials: bool,
}

impl Asking {
    /// What a status and a body mean.
    pub(super) fn refused(&self, status: u16, body: &[u8], retry_after_s: Option<u64>) -> RegistryError {
        let answer = words(body);
        let (reference, registry) = (self.reference.clone(), self.registry.clone());
        match status {
            401 if self.with_credentials => RegistryError::LoginRefused { registry, answer },
            401 => RegistryError::LoginNeeded { reference, registry },
            403 => RegistryError::Denied { reference, registry, answer },
            404 => RegistryError::NotFound { reference, registry, status },
            _ => RegistryError::Answer { reference, registry, status, answer, retry_after_s },
        }
    }

    /// What an error of oci-client means.
    pub(super) fn failed(&self, error: OciDistributionError) -> RegistryError {
        let registry = self.registry.clone();
        match error {
            OciDistributionError::AuthenticationFailure(answer) if self.with_credentials => {
                RegistryError::LoginRefused { registry, answer: words(answer.as_bytes()) }
            }
            OciDistributionError::AuthenticationFailure(_) => self.refused(401, b"", None),
            OciDistributionError::UnauthorizedError { .. } => self.refused(401, b"", None),
            OciDistributionError::ServerError { code, message, .. } => self.refused(code, message.as_bytes(), None),
            OciDistributionError::RegistryError { envelope, .. } => {
                let status = envelope.errors.iter().find_map(|error| match error.code {
                    OciErrorCode::Unauthorized => Some(401),
                    OciErrorCode::Denied => Some(403),
                    OciErrorCode::Toomanyrequests => Some(429),
                    OciErrorCode::BlobUnknown
                    | OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::NotFound => Some(404),
                    _ => None,
                });
                let body = serde_json::to_vec(&envelope).unwrap_or_default();
                self.refused(status.unwrap_or(400), &body, None)
            }
            OciDistributionError::RequestError(error) => match error.status() {
                Some(status) => self.refused(status.as_u16(), b"", None),
                None => RegistryError::from_http(&registry, &error),
            },
            OciDistributionError::IoError(error) => RegistryError::from_stream(&registry, &error),
            other => RegistryError::Protocol { registry, answer: other.to_string() },
        }
    }
}

/// A registry's error document as one line of text: its messages, or what it said instead, cut short.
pub(super) fn words(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Envelope {
        #[serde(default)]
        errors: Vec<Fault>,
        #[serde(default)]
        details: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Fault {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) if !envelope.errors.is_empty() => {
            let faults = envelope
                .errors
                .into_iter()
                .map(|fault| if fault.message.is_empty() { fault.code } else { fault.message });
            faults.collect::<Vec<_>>().join(", ")
        }
        Ok(Envelope { details: Some(details), .. }) => details,
        _ => String::from_utf8_lossy(body).trim().to_owned(),
    };
    text.chars().take(300).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_image_the_registry_and_the_way_out() {
        let asking = |with_credentials| Asking {
            reference: "host:5000/app:v1".into(),
            registry: "host:5000".into(),
            with_credentials,
        };
        let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{}}]}"#;
        for (status, with_credentials, expected) in [
            (404, false, "image \"host:5000/app:v1\" not found at registry host:5000 (404)"),
            (
                401,
                false,
                "registry host:5000 wants authentication for \"host:5000/app:v1\": run rswarm login host:5000",
            ),
            (
                401,
                true,
                "registry host:5000 refused the credentials given (manifest unknown): run rswarm login host:5000",
            ),
            (403, true, "registry host:5000 denied access to \"host:5000/app:v1\" (manifest unknown)"),
            (503, true, "registry host:5000 answered 503 for \"host:5000/app:v1\" (manifest unknown)"),
        ] {
            assert_eq!(asking(with_credentials).refused(status, body, None).to_string(), expected);
        }
    }

    #[test]
    fn only_what_may_go_better_is_tried_again() {
        let asking = Asking { reference: "a".into(), registry: "b".into(), with_credentials: false };
        for (status, retry_after_s, expected) in [
            (429, None, true),
            (429, Some(30), true),
            (429, Some(3600), false),
            (500, None, true),
            (503, None, true),
            (404, None, false),
            (401, None, false),
            (400, None, false),
        ] {
            assert_eq!(
                asking.refused(status, b"", retry_after_s).is_transient(),
                expected,
                "{status} {retry_after_s:?}"
            );
        }
    }

    #[test]
    fn a_long_or_wild_answer_becomes_one_short_line() {
        assert_eq!(words(b"a\nb\x1b[2J"), "a b [2J");
        assert_eq!(words(&[b'x'; 1000]).len(), 300);
        assert_eq!(words(br#"{"details":"incorrect username or password"}"#), "incorrect username or password");
    }
}
