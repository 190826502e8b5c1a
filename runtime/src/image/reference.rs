//! Names of images: `[HOST[:PORT]/]PATH[:TAG][@sha256:…]`, read by Docker's rules.

use std::fmt;

use super::digest::{Digest, DigestError};

const DOCKER_HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Bytes of host and path together (Docker's rule).
const NAME_MAX: usize = 255;
/// Bytes of a tag (the registry specification's rule).
const TAG_MAX: usize = 128;

/// A fully qualified image name. At least one of tag and digest is present.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image reference \"{text}\": {problem}")]
pub struct ReferenceError {
    /// What was given.
    pub text: String,
    /// The rule that it breaks.
    pub problem: ReferenceProblem,
}

/// The rule that a reference breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceProblem {
    /// Nothing was given.
    #[error("it is empty, e.g. nginx:1.27 is allowed")]
    Empty,
    /// Host and path are too long.
    #[error("the name has {0} bytes, allowed are {NAME_MAX}")]
    TooLong(usize),
    /// The path has capital letters.
    #[error("the repository name must be lower case")]
    UpperCase,
    /// A part between slashes breaks the grammar.
    #[error("\"{0}\" is no repository name: allowed are a-z and 0-9, separated by one of . _ __ -")]
    Path(String),
    /// The part before the first slash is no host.
    #[error("\"{0}\" is no registry: allowed is HOST[:PORT], [IPV6][:PORT]")]
    Registry(String),
    /// The text after the colon is no tag.
    #[error("\"{0}\" is no tag: allowed are up to {TAG_MAX} of A-Z a-z 0-9 _ . -, not beginning with . or -")]
    Tag(String),
    /// The text after the @ is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// 64 hex digits would be taken for an id.
    #[error("64 hex digits are an image id, not a name")]
    LooksLikeId,
}

impl Reference {
    /// Reads a reference as Docker does: a missing registry is `docker.io`, a single word there lives under
    /// `library/`, a missing tag is `latest` unless a digest is given.
    ///
    /// # Errors
    /// Names the rule that the text breaks.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        Self::read(text).map_err(|problem| ReferenceError { text: text.chars().take(300).collect(), problem })
    }

    fn read(text: &str) -> Result<Self, ReferenceProblem> {
        if text.is_empty() {
            return Err(ReferenceProblem::Empty);
        }
        if Digest::from_hex(text).is_some() {
            return Err(ReferenceProblem::LooksLikeId);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse::<Digest>()?)),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') && !tag.ends_with(']') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ReferenceProblem::Tag(tag.to_owned()));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host_like(host) => (host, path),
            _ => (DOCKER_HUB, name),
        };
        if !is_registry(registry) {
            return Err(ReferenceProblem::Registry(registry.to_owned()));
        }
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        if path.is_empty() {
            return Err(ReferenceProblem::Empty);
        }
        if path.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ReferenceProblem::UpperCase);
        }
        if let Some(part) = path.split('/').find(|part| !is_path_component(part)) {
            return Err(ReferenceProblem::Path(part.to_owned()));
        }
        let repository =
            if registry == DOCKER_HUB && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path.to_owned() };
        let length = registry.len() + 1 + repository.len();
        if length > NAME_MAX {
            return Err(ReferenceProblem::TooLong(length));
        }
        let tag = match (tag, digest) {
            (Some(tag), _) => Some(tag.to_owned()),
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (None, Some(_)) => None,
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// The registry: `docker.io`, `10.0.0.1:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path at the registry: `library/nginx`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag; always there unless a digest is.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if the reference is pinned.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Registry and repository in full: `docker.io/library/nginx`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// `docker.io/library/nginx:latest`: the key of a tag.
    pub(super) fn tagged_name(&self) -> Option<String> {
        self.tag.as_ref().map(|tag| format!("{}:{tag}", self.name()))
    }

    /// `docker.io/library/nginx@sha256:…`: the key of a digest.
    pub(super) fn digested_name(&self, digest: Digest) -> String {
        format!("{}@{digest}", self.name())
    }

    /// The same image, pinned.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The short form that people use: `nginx:latest`, `nginx:1.27@sha256:…`, `host:5000/app:v1`.
    #[must_use]
    pub fn familiar(&self) -> String {
        let mut text = familiar_name(&self.name()).to_owned();
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(&digest.to_string());
        }
        text
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar())
    }
}

/// The short form of a full name, whatever follows it.
pub(super) fn familiar_name(full: &str) -> &str {
    match full.strip_prefix("docker.io/") {
        Some(path) => path.strip_prefix(OFFICIAL).filter(|rest| !rest.contains('/')).unwrap_or(path),
        None => full,
    }
}

fn is_host_like(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost" || text.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether a text is `HOST[:PORT]` or `[IPV6][:PORT]`.
pub(super) fn is_registry(text: &str) -> bool {
    let (host, port) = split_port(text);
    if let Some(port) = port
        && (port.starts_with('+') || port.parse::<u16>().map_or(true, |port| port == 0))
    {
        return false;
    }
    if let Some(address) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return address.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

/// Splits `HOST:PORT`, leaving the brackets of an IPv6 address on.
pub(super) fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= TAG_MAX
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    is_word(*first)
        && is_word(*last)
        && bytes.split(|byte| is_word(*byte)).all(|separator| {
            matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|byte| *byte == b'-')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, registry: &str, repository: &str, tag: Option<&str>, familiar: &str) {
        let reference = Reference::parse(text).expect(text);
        assert_eq!(reference.registry(), registry, "{text}");
        assert_eq!(reference.repository(), repository, "{text}");
        assert_eq!(reference.tag(), tag, "{text}");
        assert_eq!(reference.familiar(), familiar, "{text}");
        assert_eq!(Reference::parse(familiar), Ok(reference), "{text}");
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        check("nginx", "docker.io", "library/nginx", Some("latest"), "nginx:latest");
        check("nginx:1.27-alpine", "docker.io", "library/nginx", Some("1.27-alpine"), "nginx:1.27-alpine");
        check("grafana/loki", "docker.io", "grafana/loki", Some("latest"), "grafana/loki:latest");
        check("docker.io/nginx", "docker.io", "library/nginx", Some("latest"), "nginx:latest");
        check("index.docker.io/library/nginx", "docker.io", "library/nginx", Some("latest"), "nginx:latest");
        check("docker.io/library/a/b", "docker.io", "library/a/b", Some("latest"), "library/a/b:latest");
        check("localhost/app", "localhost", "app", Some("latest"), "localhost/app:latest");
        check("localhost:5000/app:v1", "localhost:5000", "app", Some("v1"), "localhost:5000/app:v1");
        check("10.0.0.1:5000/a/b/c", "10.0.0.1:5000", "a/b/c", Some("latest"), "10.0.0.1:5000/a/b/c:latest");
        check("[fd00::1]:5000/app", "[fd00::1]:5000", "app", Some("latest"), "[fd00::1]:5000/app:latest");
        check("[::1]/app", "[::1]", "app", Some("latest"), "[::1]/app:latest");
        check(
            "ghcr.io/Org/app".to_lowercase().as_str(),
            "ghcr.io",
            "org/app",
            Some("latest"),
            "ghcr.io/org/app:latest",
        );
        check("f/a__b.c-d---e", "docker.io", "f/a__b.c-d---e", Some("latest"), "f/a__b.c-d---e:latest");
        check("UPPER/app", "UPPER", "app", Some("latest"), "UPPER/app:latest");
        check("app:5000", "docker.io", "library/app", Some("5000"), "app:5000");
    }

    #[test]
    fn a_digest_replaces_the_default_tag_and_keeps_a_given_one() {
        let digest = Digest::of(b"x");
        let pinned = format!("nginx@{digest}");
        check(&pinned, "docker.io", "library/nginx", None, &pinned);
        let both = format!("nginx:1.27@{digest}");
        check(&both, "docker.io", "library/nginx", Some("1.27"), &both);
        assert_eq!(Reference::parse(&both).expect("parsed").digest(), Some(digest));
    }

    #[test]
    fn bad_references_are_refused_with_the_rule_they_break() {
        let id = "a".repeat(64);
        let long = format!("a/{}", "b".repeat(260));
        let long_tag = format!("a:{}", "b".repeat(129));
        for (text, expected) in [
            ("", "it is empty"),
            ("Nginx", "lower case"),
            ("a/B", "lower case"),
            ("-a", "\"-a\" is no repository name"),
            ("a-", "\"a-\" is no repository name"),
            ("a___b", "is no repository name"),
            ("d/a..b/c", "is no repository name"),
            ("../etc/passwd", "is no registry"),
            ("host:5000/../../etc", "\"..\" is no repository name"),
            ("a//b", "\"\" is no repository name"),
            ("host.example/", "it is empty"),
            ("a:b:c", "is no repository name"),
            ("a:", "\"\" is no tag"),
            ("a:.b", "is no tag"),
            ("a:b c", "is no tag"),
            ("a b", "is no repository name"),
            ("host:99999/a", "\"host:99999\" is no registry"),
            ("host:0/a", "is no registry"),
            ("host:+80/a", "is no registry"),
            ("ho_st.x:80/a", "is no registry"),
            ("[fd00::zz]/a", "is no registry"),
            ("a@sha256:123", "invalid digest"),
            ("a@md5:123", "invalid digest"),
            ("http://host/a", "is no registry"),
            ("a\u{e9}", "is no repository name"),
            (&id, "64 hex digits"),
            (&long, "allowed are 255"),
            (&long_tag, "is no tag"),
        ] {
            let error = Reference::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
