//! The registry token protocol, as far as `oci-client` does not speak it: identity tokens and `login`.

use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::auth::RegistryAuth;
use super::limits::ANSWER_MAX;
use super::registry::{Endpoint, RegistryError};
use super::registry_error::words;

const CLIENT_ID: &str = "rswarm";

/// How a registry wants to be told who asks.
#[derive(Debug, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

/// Reads one `WWW-Authenticate` value: `Bearer realm="…",service="…"`.
fn read_challenge(value: &str) -> Option<Challenge> {
    let (scheme, mut rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    while let Some((key, after)) = rest.split_once('=') {
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_once(',').map_or((after, ""), |(value, after)| (value.trim(), after)),
        };
        match key.trim().trim_start_matches(',').trim() {
            "realm" => realm = Some(value.to_owned()),
            "service" => service = Some(value.to_owned()),
            _ => {}
        }
        rest = after;
    }
    realm.map(|realm| Challenge::Bearer { realm, service })
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

fn protocol(endpoint: &Endpoint, answer: &str) -> RegistryError {
    RegistryError::Protocol { registry: endpoint.registry.clone(), answer: answer.to_owned() }
}

/// Asks a registry whether it wants to know who asks: `None` if it does not.
async fn challenge(endpoint: &Endpoint) -> Result<Option<Challenge>, RegistryError> {
    let answer =
        endpoint.http.get(format!("{}/v2/", endpoint.base)).send().await.map_err(|error| endpoint.failed(&error))?;
    match answer.status() {
        StatusCode::OK => Ok(None),
        StatusCode::UNAUTHORIZED => {
            let challenges = answer.headers().get_all(WWW_AUTHENTICATE);
            let known = challenges.iter().filter_map(|value| read_challenge(value.to_str().ok()?)).next();
            known.map(Some).ok_or_else(|| protocol(endpoint, "it asks for authentication of an unknown kind"))
        }
        StatusCode::NOT_FOUND => Err(protocol(endpoint, "it does not speak the registry protocol (404 for /v2/)")),
        status => {
            let body = endpoint.body(answer, ANSWER_MAX).await.unwrap_or_default();
            Err(RegistryError::Answer {
                reference: "/v2/".to_owned(),
                registry: endpoint.registry.clone(),
                status: status.as_u16(),
                answer: words(&body),
                retry_after_s: None,
            })
        }
    }
}

async fn read_token(endpoint: &Endpoint, request: reqwest::RequestBuilder) -> Result<String, RegistryError> {
    let answer = request.send().await.map_err(|error| endpoint.failed(&error))?;
    let status = answer.status();
    let body = endpoint.body(answer, ANSWER_MAX).await?;
    if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
        return Err(RegistryError::LoginRefused { registry: endpoint.registry.clone(), answer: words(&body) });
    }
    if !status.is_success() {
        return Err(RegistryError::Answer {
            reference: "a token".to_owned(),
            registry: endpoint.registry.clone(),
            status: status.as_u16(),
            answer: words(&body),
            retry_after_s: None,
        });
    }
    let token =
        serde_json::from_slice::<TokenAnswer>(&body).ok().and_then(|answer| answer.access_token.or(answer.token));
    token.ok_or_else(|| protocol(endpoint, "its token service answered without a token"))
}

/// Secrets of an HTTPS registry go to an HTTPS realm only.
fn realm_url(endpoint: &Endpoint, realm: &str, parameters: &[(&str, &str)]) -> Result<reqwest::Url, RegistryError> {
    let url = reqwest::Url::parse_with_params(realm, parameters)
        .map_err(|_| protocol(endpoint, "its token service has no valid address"))?;
    let is_safe = url.scheme() == "https" || (url.scheme() == "http" && endpoint.base.starts_with("http://"));
    if is_safe { Ok(url) } else { Err(protocol(endpoint, "its token service is not reached by HTTPS")) }
}

async fn exchange(
    endpoint: &Endpoint,
    realm: &str,
    service: Option<&str>,
    token: &str,
    scope: Option<&str>,
) -> Result<String, RegistryError> {
    let url = realm_url(endpoint, realm, &[])?;
    let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", CLIENT_ID)];
    form.extend(service.map(|service| ("service", service)));
    form.extend(scope.map(|scope| ("scope", scope)));
    // A form has the shape of a query.
    let encoded =
        reqwest::Url::parse_with_params("http://form/", &form).ok().and_then(|url| url.query().map(str::to_owned));
    let request = endpoint
        .http
        .post(url)
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(encoded.unwrap_or_default());
    read_token(endpoint, request).await
}

/// Exchanges an identity token for one that reads or writes a repository.
pub(super) async fn exchange_identity_token(
    endpoint: &Endpoint,
    token: &str,
    scope: Option<&str>,
) -> Result<String, RegistryError> {
    match challenge(endpoint).await? {
        Some(Challenge::Bearer { realm, service }) => {
            exchange(endpoint, &realm, service.as_deref(), token, scope).await
        }
        _ => Err(protocol(endpoint, "it knows no identity tokens: log in with a user name and a password")),
    }
}

/// Whether a registry accepts credentials. A registry that asks nobody accepts all.
pub(super) async fn check(endpoint: &Endpoint, auth: &RegistryAuth) -> Result<(), RegistryError> {
    let request = endpoint.http.get(format!("{}/v2/", endpoint.base));
    let request = match (challenge(endpoint).await?, auth) {
        (None, _) => return Ok(()),
        (Some(_), RegistryAuth::RegistryToken(token)) => request.bearer_auth(token),
        (Some(Challenge::Basic), RegistryAuth::Password { username, password }) => {
            request.basic_auth(username, Some(password))
        }
        (Some(Challenge::Basic), RegistryAuth::IdentityToken(_)) => {
            return Err(protocol(endpoint, "it knows no identity tokens: log in with a user name and a password"));
        }
        (Some(Challenge::Bearer { realm, service }), RegistryAuth::IdentityToken(token)) => {
            request.bearer_auth(exchange(endpoint, &realm, service.as_deref(), token, None).await?)
        }
        (Some(Challenge::Bearer { realm, service }), RegistryAuth::Password { username, password }) => {
            let mut parameters = vec![("account", username.as_str()), ("client_id", CLIENT_ID)];
            parameters.extend(service.as_deref().map(|service| ("service", service)));
            let url = realm_url(endpoint, &realm, &parameters)?;
            request
                .bearer_auth(read_token(endpoint, endpoint.http.get(url).basic_auth(username, Some(password))).await?)
        }
    };
    let answer = request.send().await.map_err(|error| endpoint.failed(&error))?;
    if answer.status().is_success() {
        return Ok(());
    }
    let body = endpoint.body(answer, ANSWER_MAX).await.unwrap_or_default();
    Err(RegistryError::LoginRefused { registry: endpoint.registry.clone(), answer: words(&body) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_and_without_quotes() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) })
        };
        for (value, expected) in [
            (r#"Bearer realm="https://a/token",service="b, c",scope="x""#, bearer("https://a/token", Some("b, c"))),
            ("bearer realm=https://a/token , service=b", bearer("https://a/token", Some("b"))),
            (r#"Bearer service="b", realm="https://a?x=y""#, bearer("https://a?x=y", Some("b"))),
            (r#"Basic realm="x""#, Some(Challenge::Basic)),
            ("Basic", Some(Challenge::Basic)),
            (r#"Bearer service="b""#, None),
            (r#"Bearer realm="unclosed"#, None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(read_challenge(value), expected, "{value}");
        }
    }
}
