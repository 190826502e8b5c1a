//! Names and image references.

use super::Violation;
use crate::limits::NAME_LENGTH_MAX;

/// What is wrong with the name of a service, stack or network, if anything: Swarm's rule, so that
/// the name is a DNS label (underscores allowed).
pub(super) fn name_problem(name: &str) -> Option<String> {
    let bytes = name.as_bytes();
    let is_word = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let is_good = is_word(bytes.first())
        && is_word(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if is_good && bytes.len() <= NAME_LENGTH_MAX {
        return None;
    }
    let why = if name.is_empty() {
        "it is empty".to_owned()
    } else if bytes.len() > NAME_LENGTH_MAX {
        format!("\"{name}\" has {} characters", bytes.len())
    } else {
        format!("it is \"{name}\"")
    };
    Some(format!(
        "{why}; allowed are 1-{NAME_LENGTH_MAX} letters, digits, \"-\" and \"_\", with a letter or digit first and last"
    ))
}

/// Checks the name of a stack.
pub fn stack_name(name: &str) -> Option<Violation> {
    name_problem(name).map(|message| Violation { field: "stack name".into(), message })
}

/// What is wrong with an image reference, if anything: `[HOST[:PORT]/]PATH[:TAG][@DIGEST]`.
pub fn image_reference(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("no image; name one, e.g. nginx:1.27".into());
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    let problem = |what: &str, value: &str, rule: &str| Some(format!("\"{text}\": {what} is \"{value}\"; {rule}"));
    if let Some(digest) = digest.filter(|d| !is_digest(d)) {
        return problem("digest", digest, "allowed is sha256: and 64 lower-case hex digits");
    }
    if let Some(tag) = tag.filter(|t| !is_tag(t)) {
        return problem(
            "tag",
            tag,
            "allowed are 1-128 letters, digits, \"_\", \".\" and \"-\", not beginning with \".\" or \"-\"",
        );
    }
    let (host, path) = match name.split_once('/') {
        Some((host, path))
            if host.contains(['.', ':']) || host == "localhost" || host.contains(|c: char| c.is_ascii_uppercase()) =>
        {
            (Some(host), path)
        }
        _ => (None, name),
    };
    if let Some(host) = host.filter(|h| !is_host(h)) {
        return problem("registry", host, "allowed is HOST[:PORT]");
    }
    if name.len() > 255 {
        return problem("name", name, "allowed are up to 255 characters");
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        // The words of whoever pulls it.
        return Some(format!("\"{text}\": the repository name must be lower case"));
    }
    match path.split('/').find(|part| !is_component(part)) {
        Some(part) => problem(
            "name",
            part,
            "allowed are lower-case letters and digits, separated by one \".\", \"_\", \"__\" or \"-\"s",
        ),
        None => None,
    }
}

fn is_digest(digest: &str) -> bool {
    let is_hex = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match digest.split_once(':') {
        Some(("sha256", hex)) => hex.len() == 64 && is_hex(hex),
        Some(("sha512", hex)) => hex.len() == 128 && is_hex(hex),
        _ => false,
    }
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
            return is_address && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port));
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|p| p > 0)
}

/// `[a-z0-9]+` joined by `.`, `_`, `__` or any number of `-`.
fn is_component(part: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    let ends_well = bytes.first().is_some_and(|b| is_word(*b)) && bytes.last().is_some_and(|b| is_word(*b));
    ends_well
        && part
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_with_underscores() {
        for name in ["a", "web", "my-stack_web1", "A9", &"x".repeat(63)] {
            assert_eq!(name_problem(name), None, "{name}");
        }
        for name in ["", "-a", "a-", "_a", "a.b", "a b", "ä", &"x".repeat(64)] {
            assert!(name_problem(name).is_some(), "{name}");
        }
        assert_eq!(
            stack_name("a.b").unwrap().to_string(),
            "invalid stack name: it is \"a.b\"; allowed are 1-63 letters, digits, \"-\" and \"_\", with a letter or digit first and last"
        );
    }

    #[test]
    fn image_references_have_dockers_shape() {
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        for image in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "a/b/c/d:x",
            "registry.example.com:5000/team/app:v1.0-rc_2",
            "localhost/app",
            "localhost:5000/app",
            "[::1]:5000/app",
            "127.0.0.1:5000/web-counter",
            "a__b/c--d.e",
            &digest,
        ] {
            assert_eq!(image_reference(image), None, "{image}");
        }
        for (image, word) in [
            ("", "no image"),
            ("Nginx", "\"Nginx\": the repository name must be lower case"),
            ("a/Web:1", "must be lower case"),
            ("nginx:", "tag is \"\""),
            ("nginx:-x", "tag is \"-x\""),
            ("a//b", "name is \"\""),
            ("a..b", "name is \"a..b\""),
            ("host.:x/b", "registry is \"host.:x\""),
            ("host.io:99999/b", "registry is \"host.io:99999\""),
            ("nginx@sha256:abc", "digest is \"sha256:abc\""),
            ("ng inx", "name is \"ng inx\""),
            ("-a", "name is \"-a\""),
        ] {
            let problem = image_reference(image).unwrap_or_default();
            assert!(problem.contains(word), "{image}: {problem}");
        }
    }
}
