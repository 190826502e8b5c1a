//! Credentials for one registry, as Docker's `X-Registry-Auth` header carries them.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

/// Docker writes URL-safe base64 with padding, some clients the standard alphabet or none: all are read.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// How a user proves who they are to a registry. Never logged: `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// A user name and its password, or an access token that is used as one.
    Password {
        /// The user's name.
        username: String,
        /// The password.
        password: String,
    },
    /// A long-lived OAuth2 refresh token, exchanged for an access token at each use.
    IdentityToken(String),
    /// A bearer token, sent as it is.
    RegistryToken(String),
}

/// Why a text holds no credentials.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Not base64.
    #[error("invalid registry credentials: not base64")]
    Base64(#[source] base64::DecodeError),
    /// Not the JSON object that Docker sends. Its text is not shown: it holds secrets.
    #[error(
        "invalid registry credentials: not a JSON object with username and password, identitytoken or registrytoken"
    )]
    Json,
    /// A password without a user, or a user without a password.
    #[error("invalid registry credentials: username and password must both be given")]
    Incomplete,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct DockerAuth {
    #[serde(skip_serializing_if = "String::is_empty")]
    username: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    password: String,
    /// `base64(username:password)`, as `config.json` holds it.
    #[serde(skip_serializing_if = "String::is_empty")]
    auth: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    identitytoken: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    registrytoken: String,
}

impl RegistryAuth {
    /// Reads the value of Docker's `X-Registry-Auth` header. An empty text or object means "anonymous".
    ///
    /// # Errors
    /// The text is not base64 of Docker's JSON object, or half of a user and password is missing.
    pub fn from_docker_header(value: &str) -> Result<Option<Self>, AuthError> {
        let value = value.trim();
        if value.is_empty() {
            return Ok(None);
        }
        let json = URL_SAFE.decode(value).or_else(|_| STANDARD.decode(value)).map_err(AuthError::Base64)?;
        let mut given: DockerAuth = serde_json::from_slice(&json).map_err(|_| AuthError::Json)?;
        if given.username.is_empty() && given.password.is_empty() && !given.auth.is_empty() {
            let pair = STANDARD.decode(&given.auth).map_err(AuthError::Base64)?;
            let pair = String::from_utf8(pair).map_err(|_| AuthError::Json)?;
            let (username, password) = pair.split_once(':').ok_or(AuthError::Incomplete)?;
            given.username = username.to_owned();
            given.password = password.trim_end_matches('\0').to_owned();
        }
        Ok(match given {
            DockerAuth { registrytoken, .. } if !registrytoken.is_empty() => Some(Self::RegistryToken(registrytoken)),
            DockerAuth { identitytoken, .. } if !identitytoken.is_empty() => Some(Self::IdentityToken(identitytoken)),
            DockerAuth { username, password, .. } if username.is_empty() && password.is_empty() => None,
            DockerAuth { username, password, .. } if username.is_empty() || password.is_empty() => {
                return Err(AuthError::Incomplete);
            }
            DockerAuth { username, password, .. } => Some(Self::Password { username, password }),
        })
    }

    /// The value of Docker's `X-Registry-Auth` header.
    #[must_use]
    pub fn to_docker_header(&self) -> String {
        let mut object = DockerAuth::default();
        match self {
            Self::Password { username, password } => {
                object.username.clone_from(username);
                object.password.clone_from(password);
            }
            Self::IdentityToken(token) => object.identitytoken.clone_from(token),
            Self::RegistryToken(token) => object.registrytoken.clone_from(token),
        }
        URL_SAFE.encode(serde_json::to_vec(&object).expect("an object of strings is always JSON"))
    }
}

impl fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => {
                f.debug_struct("Password").field("username", username).field("password", &"<redacted>").finish()
            }
            Self::IdentityToken(_) => f.debug_tuple("IdentityToken").field(&"<redacted>").finish(),
            Self::RegistryToken(_) => f.debug_tuple("RegistryToken").field(&"<redacted>").finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(json: &str) -> String {
        URL_SAFE.encode(json)
    }

    #[test]
    fn every_kind_of_credential_survives_the_header() {
        for auth in [
            RegistryAuth::Password { username: "ada".into(), password: "s?>ret~:ü".into() },
            RegistryAuth::IdentityToken("id".into()),
            RegistryAuth::RegistryToken("reg".into()),
        ] {
            assert_eq!(RegistryAuth::from_docker_header(&auth.to_docker_header()).expect("read"), Some(auth));
        }
    }

    #[test]
    fn other_alphabets_missing_padding_and_the_auth_field_are_read() {
        let json = r#"{"username":"ada","password":"???>>>","email":"x","serveraddress":"y"}"#;
        let expected = RegistryAuth::Password { username: "ada".into(), password: "???>>>".into() };
        for text in [header(json), STANDARD.encode(json), header(json).trim_end_matches('=').to_owned()] {
            assert_eq!(RegistryAuth::from_docker_header(&text).expect("read"), Some(expected.clone()));
        }
        let pair = header(&format!(r#"{{"auth":"{}"}}"#, STANDARD.encode("ada:a:b")));
        let expected = RegistryAuth::Password { username: "ada".into(), password: "a:b".into() };
        assert_eq!(RegistryAuth::from_docker_header(&pair).expect("read"), Some(expected));
    }

    #[test]
    fn nothing_is_anonymous_and_half_is_refused() {
        assert_eq!(RegistryAuth::from_docker_header("").expect("read"), None);
        assert_eq!(RegistryAuth::from_docker_header(&header("{}")).expect("read"), None);
        for (text, expected) in [
            (header(r#"{"username":"ada"}"#), "must both be given"),
            (header(r#"{"password":"x"}"#), "must both be given"),
            (header("[1]"), "not a JSON object"),
            ("%%%".to_owned(), "not base64"),
        ] {
            let error = RegistryAuth::from_docker_header(&text).expect_err("refused").to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn debug_never_shows_a_secret() {
        let auth = RegistryAuth::Password { username: "ada".into(), password: "hunter2".into() };
        let shown = format!(
            "{auth:?} {:?} {:?}",
            RegistryAuth::IdentityToken("hunter2".into()),
            RegistryAuth::RegistryToken("hunter2".into())
        );
        assert!(shown.contains("ada") && !shown.contains("hunter2"), "{shown}");
    }
}
