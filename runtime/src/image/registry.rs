//! Talking to one registry about one repository.
//!
//! Blobs and pushes go through `oci-client`, streamed. Manifests are read here, for their size has a bound.

use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use oci_client::RegistryOperation;
use oci_client::client::{BlobResponse, Client, ClientConfig, ClientProtocol};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use tokio::io::AsyncWriteExt as _;

use super::auth::RegistryAuth;
use super::digest::{Digest, Hasher};
use super::error::ImageError;
use super::limits::{
    ANSWER_MAX, CONNECT_TIMEOUT_MS, JSON_MAX, PROGRESS_STEP, READ_TIMEOUT_MS, RETRY_AFTER_MAX_S, RETRY_DELAY_MS,
    TRIES_MAX,
};
use super::manifest::ACCEPTED;
use super::reference::{Reference, is_registry, split_port};
use super::registry_error::Asking;
pub use super::registry_error::RegistryError;

const USER_AGENT: &str = concat!("rswarm/", env!("CARGO_PKG_VERSION"));
const UPLOAD_CHUNK: usize = 1 << 20;

/// Which registries may be spoken to without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryPolicy {
    /// `HOST[:PORT]`; without a port every port of the host is meant. Loopback addresses are always allowed.
    pub insecure: Vec<String>,
}

impl RegistryPolicy {
    pub(super) fn check(&self) -> Result<(), ImageError> {
        match self.insecure.iter().find(|registry| !is_registry(registry)) {
            Some(registry) => Err(ImageError::Insecure(registry.clone())),
            None => Ok(()),
        }
    }

    /// Whether a registry is spoken to by plain HTTP.
    pub(super) fn is_plain(&self, registry: &str) -> bool {
        is_loopback(registry)
            || self.insecure.iter().any(|allowed| {
                let (host, port) = split_port(allowed);
                if port.is_some() {
                    allowed.eq_ignore_ascii_case(registry)
                } else {
                    host.eq_ignore_ascii_case(split_port(registry).0)
                }
            })
    }
}

fn bare_host(registry: &str) -> &str {
    split_port(registry).0.trim_start_matches('[').trim_end_matches(']')
}

fn is_loopback(registry: &str) -> bool {
    let host = bare_host(registry);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The HTTP side of a registry: where it is, and a client for it.
pub(super) struct Endpoint {
    pub registry: String,
    /// `http://10.0.0.1:5000`
    pub base: String,
    pub http: reqwest::Client,
    is_plain: bool,
}

impl Endpoint {
    pub(super) fn open(policy: &RegistryPolicy, registry: &str) -> Result<Self, RegistryError> {
        install_crypto();
        let is_plain = policy.is_plain(registry);
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(Duration::from_millis(CONNECT_TIMEOUT_MS))
            .read_timeout(Duration::from_millis(READ_TIMEOUT_MS));
        if is_loopback(registry) {
            builder = builder.no_proxy();
        }
        let host = if registry == "docker.io" { "index.docker.io" } else { registry };
        Ok(Self {
            registry: registry.to_owned(),
            base: format!("{}://{host}", if is_plain { "http" } else { "https" }),
            http: builder.build().map_err(|error| RegistryError::from_http(registry, &error))?,
            is_plain,
        })
    }

    pub(super) fn failed(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::from_http(&self.registry, error)
    }

    /// Reads an answer's body, which may not be longer than `max` bytes.
    pub(super) async fn body(&self, mut answer: reqwest::Response, max: u64) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| self.failed(&error))? {
            if body.len() as u64 + chunk.len() as u64 > max {
                return Err(RegistryError::TooLong { registry: self.registry.clone(), max });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// The binary chooses the provider; a library user who did not gets the only one we link.
fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else was faster: then there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// A repository, with the right to read it or to write it.
pub(super) struct Session {
    endpoint: Endpoint,
    oci: Client,
    target: oci_client::Reference,
    auth: oci_client::secrets::RegistryAuth,
    bearer: Option<String>,
    asking: Asking,
}

/// A manifest as it came.
pub(super) struct Fetched {
    pub bytes: Vec<u8>,
    pub digest: Digest,
}

impl Session {
    /// Finds out how the registry wants to be asked, and gets a token if it wants one.
    pub(super) async fn open(
        policy: &RegistryPolicy,
        reference: &Reference,
        auth: Option<&RegistryAuth>,
        operation: RegistryOperation,
    ) -> Result<Self, RegistryError> {
        let endpoint = Endpoint::open(policy, reference.registry())?;
        let (registry, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
        let target = match (reference.tag(), reference.digest()) {
            (_, Some(digest)) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
            (tag, None) => oci_client::Reference::with_tag(registry, repository, tag.unwrap_or("latest").to_owned()),
        };
        let oci = Client::try_from(client_config(&endpoint, target.resolve_registry())).map_err(|error| {
            RegistryError::Protocol { registry: endpoint.registry.clone(), answer: error.to_string() }
        })?;
        let asking = Asking {
            reference: reference.familiar(),
            registry: endpoint.registry.clone(),
            with_credentials: auth.is_some(),
        };
        let auth = match auth {
            None => oci_client::secrets::RegistryAuth::Anonymous,
            Some(RegistryAuth::Password { username, password }) => {
                oci_client::secrets::RegistryAuth::Basic(username.clone(), password.clone())
            }
            Some(RegistryAuth::RegistryToken(token)) => oci_client::secrets::RegistryAuth::Bearer(token.clone()),
            Some(RegistryAuth::IdentityToken(token)) => {
                let actions = if operation == RegistryOperation::Push { "pull,push" } else { "pull" };
                let scope = format!("repository:{}:{actions}", reference.repository());
                let access =
                    retry(|_| {}, || super::token::exchange_identity_token(&endpoint, token, Some(&scope))).await?;
                oci_client::secrets::RegistryAuth::Bearer(access)
            }
        };
        let ask = async || oci.auth(&target, &auth, operation).await.map_err(|error| asking.failed(error));
        let bearer = retry(|_| {}, ask).await?;
        Ok(Self { endpoint, oci, target, auth, bearer, asking })
    }

    /// The manifest or index of a tag or digest, checked against the digest.
    pub(super) async fn manifest(&self, selector: &str) -> Result<Fetched, RegistryError> {
        retry(|_| {}, || self.manifest_once(selector)).await
    }

    async fn manifest_once(&self, selector: &str) -> Result<Fetched, RegistryError> {
        let Endpoint { base, http, .. } = &self.endpoint;
        let mut request =
            http.get(format!("{base}/v2/{}/manifests/{selector}", self.target.repository())).header(ACCEPT, ACCEPTED);
        request = match (&self.bearer, &self.auth) {
            (Some(token), _) | (None, oci_client::secrets::RegistryAuth::Bearer(token)) => request.bearer_auth(token),
            (None, oci_client::secrets::RegistryAuth::Basic(username, password)) => {
                request.basic_auth(username, Some(password))
            }
            (None, oci_client::secrets::RegistryAuth::Anonymous) => request,
        };
        let answer = request.send().await.map_err(|error| self.endpoint.failed(&error))?;
        let status = answer.status();
        if !status.is_success() {
            let retry_after_s = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.parse().ok());
            let body = self.endpoint.body(answer, ANSWER_MAX).await.unwrap_or_default();
            return Err(self.asking.refused(status.as_u16(), &body, retry_after_s));
        }
        let claimed =
            answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok()?.parse::<Digest>().ok());
        let bytes = self.endpoint.body(answer, JSON_MAX).await?;
        let digest = Digest::of(&bytes);
        match selector.parse().ok().or(claimed) {
            Some(expected) if expected != digest => {
                Err(RegistryError::Digest { registry: self.endpoint.registry.clone(), expected, actual: digest })
            }
            _ => Ok(Fetched { bytes, digest }),
        }
    }

    /// Downloads a blob into `partial`, going on where an earlier try ended. The file is complete, checked, and not
    /// yet synced when this returns.
    ///
    /// # Cancel safety
    /// What was written stays, and the next call goes on from there.
    pub(super) async fn download(
        &self,
        digest: Digest,
        size: u64,
        partial: &Path,
        report: &(dyn Fn(BlobReport<'_>) + Sync),
    ) -> Result<(), ImageError> {
        let mut tries = 0;
        loop {
            let before = tokio::fs::metadata(partial).await.map_or(0, |metadata| metadata.len());
            let error = match self.download_once(digest, size, partial, report).await {
                Ok(()) => return Ok(()),
                Err(ImageError::Registry(error)) => error,
                Err(error) => return Err(error),
            };
            let is_wrong = matches!(error, RegistryError::Digest { .. } | RegistryError::TooLong { .. });
            if is_wrong {
                // Nothing of it can be trusted.
                tokio::fs::remove_file(partial).await.map_err(ImageError::io("remove", partial))?;
            }
            let after = tokio::fs::metadata(partial).await.map_or(0, |metadata| metadata.len());
            tries = if after > before { 1 } else { tries + 1 };
            // A wrong end of a resumed download may be due to its beginning: that deserves one whole try.
            let again = error.is_transient() || (is_wrong && before > 0 && tries == 1);
            if !again || tries >= TRIES_MAX {
                return Err(error.into());
            }
            report(BlobReport::Retrying(&error));
            tokio::time::sleep(pause(tries, &error)).await;
        }
    }

    async fn download_once(
        &self,
        digest: Digest,
        size: u64,
        partial: &Path,
        report: &(dyn Fn(BlobReport<'_>) + Sync),
    ) -> Result<(), ImageError> {
        let (mut hasher, mut done) = hash_existing(partial, size).await?;
        let mut file = tokio::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(partial)
            .await
            .map_err(ImageError::io("open", partial))?;
        file.set_len(done).await.map_err(ImageError::io("write", partial))?;
        if done < size {
            let name = digest.to_string();
            // Also from 0, which a registry may answer whole: it is checked below, not by oci-client.
            let asked = self.oci.pull_blob_stream_partial(&self.target, name.as_str(), done, None).await;
            let stream = match asked.map_err(|error| self.asking.failed(error))? {
                BlobResponse::Partial(stream) => stream,
                BlobResponse::Full(stream) => {
                    // The registry knows no ranges: from the beginning.
                    (hasher, done) = (Hasher::default(), 0);
                    file.set_len(0).await.map_err(ImageError::io("write", partial))?;
                    stream
                }
            };
            use tokio::io::AsyncSeekExt as _;
            file.seek(std::io::SeekFrom::Start(done)).await.map_err(ImageError::io("write", partial))?;
            let received = self.receive(stream.stream, &mut file, &mut hasher, &mut done, size, partial, report).await;
            // What came is kept for the next try, whatever ended it.
            file.flush().await.map_err(ImageError::io("write", partial))?;
            received?;
        }
        let actual = hasher.finish();
        if done < size || actual != digest {
            let registry = self.endpoint.registry.clone();
            return Err(if done < size {
                RegistryError::Unreachable {
                    registry,
                    reason: format!("it ended blob {} after {done} of {size} bytes", digest.short()),
                }
                .into()
            } else {
                RegistryError::Digest { registry, expected: digest, actual }.into()
            });
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the state of one download, used in one place")]
    async fn receive(
        &self,
        mut stream: futures::stream::BoxStream<'static, std::io::Result<Bytes>>,
        file: &mut tokio::fs::File,
        hasher: &mut Hasher,
        done: &mut u64,
        size: u64,
        partial: &Path,
        report: &(dyn Fn(BlobReport<'_>) + Sync),
    ) -> Result<(), ImageError> {
        let mut reported = *done;
        while let Some(chunk) = stream.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                // oci-client checks whole answers itself; our own check follows and names both digests.
                Err(error) if *done == size && is_digest_complaint(&error) => break,
                Err(error) => return Err(RegistryError::from_stream(&self.endpoint.registry, &error).into()),
            };
            if *done + chunk.len() as u64 > size {
                return Err(RegistryError::TooLong { registry: self.endpoint.registry.clone(), max: size }.into());
            }
            hasher.update(&chunk);
            file.write_all(&chunk).await.map_err(ImageError::io("write", partial))?;
            *done += chunk.len() as u64;
            if *done - reported >= PROGRESS_STEP || *done == size {
                reported = *done;
                report(BlobReport::Moved(*done));
            }
        }
        Ok(())
    }

    /// Uploads a blob unless the repository has it. Returns whether it was sent.
    pub(super) async fn upload(
        &self,
        digest: Digest,
        blob: &Path,
        report: &(dyn Fn(BlobReport<'_>) + Sync),
    ) -> Result<bool, ImageError> {
        let name = digest.to_string();
        let exists = retry(
            |error| report(BlobReport::Retrying(error)),
            async || self.oci.blob_exists(&self.target, &name).await.map_err(|error| self.asking.failed(error)),
        );
        if exists.await? {
            return Ok(false);
        }
        let size = tokio::fs::metadata(blob).await.map_err(ImageError::io("read the blob", blob))?.len();
        retry(|error| report(BlobReport::Retrying(error)), || self.upload_once(&name, size, blob, report)).await?;
        Ok(true)
    }

    async fn upload_once(
        &self,
        name: &str,
        size: u64,
        blob: &Path,
        report: &(dyn Fn(BlobReport<'_>) + Sync),
    ) -> Result<(), RegistryError> {
        let local = |error: std::io::Error| RegistryError::Local { path: blob.to_owned(), reason: error.to_string() };
        let file = tokio::fs::File::open(blob).await.map_err(local)?;
        let (sent, mut progress) = tokio::sync::watch::channel(0_u64);
        let chunks = tokio_util::io::ReaderStream::with_capacity(file, UPLOAD_CHUNK).map(move |chunk| {
            let chunk = chunk?;
            sent.send_modify(|sent| *sent += chunk.len() as u64);
            Ok(chunk)
        });
        let mut push = std::pin::pin!(self.oci.push_blob_stream(&self.target, chunks, name, Some(size)));
        loop {
            tokio::select! {
                // Both are only polled again, never lost.
                pushed = &mut push => return pushed.map(drop).map_err(|error| self.asking.failed(error)),
                Ok(()) = progress.changed() => report(BlobReport::Moved(*progress.borrow_and_update())),
            }
        }
    }

    /// Puts a manifest under the reference's tag.
    pub(super) async fn put_manifest(&self, bytes: Vec<u8>, media_type: &str) -> Result<(), RegistryError> {
        let media_type = HeaderValue::from_str(media_type).map_err(|_| RegistryError::Protocol {
            registry: self.endpoint.registry.clone(),
            answer: format!("the manifest's {CONTENT_TYPE} is not printable"),
        })?;
        let bytes = Bytes::from(bytes);
        let put = async || {
            let put = self.oci.push_manifest_raw(&self.target, bytes.clone(), media_type.clone());
            put.await.map(drop).map_err(|error| self.asking.failed(error))
        };
        retry(|_| {}, put).await
    }
}

/// How one blob is doing.
pub(super) enum BlobReport<'a> {
    /// So many bytes are there.
    Moved(u64),
    /// It is tried again because of this.
    Retrying(&'a RegistryError),
}

fn is_digest_complaint(error: &std::io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<oci_client::errors::DigestError>())
}

fn client_config(endpoint: &Endpoint, host: &str) -> ClientConfig {
    let mut config = ClientConfig {
        protocol: if endpoint.is_plain {
            ClientProtocol::HttpsExcept(vec![host.to_owned()])
        } else {
            ClientProtocol::Https
        },
        use_monolithic_push: true,
        connect_timeout: Some(Duration::from_millis(CONNECT_TIMEOUT_MS)),
        read_timeout: Some(Duration::from_millis(READ_TIMEOUT_MS)),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    };
    if is_loopback(host) {
        // oci-client can't be told "no proxy": one that is never used keeps HTTP_PROXY of the environment out.
        config.http_proxy = Some("http://127.0.0.1:9".to_owned());
        config.no_proxy = Some(bare_host(host).to_owned());
    }
    config
}

/// The digest so far and the length of an unfinished download; nothing if there is none, or more than wanted.
async fn hash_existing(partial: &Path, size: u64) -> Result<(Hasher, u64), ImageError> {
    use tokio::io::AsyncReadExt as _;
    let mut file = match tokio::fs::File::open(partial).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((Hasher::default(), 0)),
        Err(error) => return Err(ImageError::io("open", partial)(error)),
    };
    let (mut hasher, mut done) = (Hasher::default(), 0);
    let mut buffer = vec![0; UPLOAD_CHUNK];
    loop {
        let read = file.read(&mut buffer).await.map_err(ImageError::io("read", partial))?;
        if read == 0 {
            return Ok(if done > size { (Hasher::default(), 0) } else { (hasher, done) });
        }
        hasher.update(&buffer[..read]);
        done += read as u64;
    }
}

fn pause(tries: u32, error: &RegistryError) -> Duration {
    match error.retry_after_s() {
        Some(seconds) => Duration::from_secs(seconds.min(RETRY_AFTER_MAX_S)),
        None => Duration::from_millis(RETRY_DELAY_MS << tries.saturating_sub(1).min(16)),
    }
}

/// Tries again what may go better the next time.
pub(super) async fn retry<T, F: Future<Output = Result<T, RegistryError>>>(
    on_retry: impl Fn(&RegistryError),
    mut attempt: impl FnMut() -> F,
) -> Result<T, RegistryError> {
    let mut tries = 1;
    loop {
        match attempt().await {
            Err(error) if error.is_transient() && tries < TRIES_MAX => {
                on_retry(&error);
                tokio::time::sleep(pause(tries, &error)).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_and_named_registries_are_spoken_to_without_tls() {
        let policy =
            RegistryPolicy { insecure: vec!["10.0.0.1:5000".into(), "lab.example".into(), "[fd00::1]".into()] };
        for registry in [
            "localhost",
            "localhost:5000",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:5000",
            "10.0.0.1:5000",
            "lab.example",
            "LAB.example:443",
            "[fd00::1]:5000",
        ] {
            assert!(policy.is_plain(registry), "{registry}");
        }
        for registry in [
            "docker.io",
            "10.0.0.1",
            "10.0.0.1:5001",
            "10.0.0.10:5000",
            "localhost.example",
            "x.lab.example",
            "[fd00::2]:5000",
            "127.0.0.1.example",
        ] {
            assert!(!policy.is_plain(registry), "{registry}");
        }
    }

    #[test]
    fn an_insecure_registry_must_be_a_host() {
        for registry in ["http://x", "x/y", "", "x:0", "x:y"] {
            let error = RegistryPolicy { insecure: vec![registry.into()] }.check().expect_err(registry).to_string();
            assert!(error.contains("allowed is HOST[:PORT]"), "{error}");
        }
        assert!(RegistryPolicy { insecure: vec!["x:5000".into(), "[::1]".into()] }.check().is_ok());
    }
}
