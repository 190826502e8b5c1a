//! `image ls`.

use rswarm_api::pb;
use rswarm_types::TimestampMs;

use super::image_name;
use crate::errors::Result;
use crate::filter::Filters;
use crate::human::{ago, listed_second, size};
use crate::json::Object;
use crate::listing::Listing;

/// Keys of `--filter`.
pub const FILTERS: [&str; 2] = ["dangling", "reference"];
const NONE: &str = "<none>";

/// How images are shown.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    pub no_trunc: bool,
    pub digests: bool,
    /// Only this repository, with this tag if it names one.
    pub repository: Option<&'a str>,
    pub now: TimestampMs,
}

/// A name of an image: repository, tag, digest; what it lacks is `<none>`.
struct Name {
    repository: String,
    tag: String,
    digest: String,
}

/// The images that pass the filters, a row for each name, newest first.
///
/// # Errors
/// On a filter's value that does not exist.
pub fn listing(mut images: Vec<pb::Image>, filters: &Filters, shown: Shown<'_>) -> Result<Listing> {
    filters.check("dangling", &["true", "false", "1", "0"])?;
    images.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.id.cmp(&b.id)));
    let mut records = Vec::new();
    for image in &images {
        for name in names(image) {
            let is_dangling = name.repository == NONE;
            if filters.any("dangling", |value| matches!(value, "true" | "1") == is_dangling)
                && filters.any("reference", |pattern| matches_reference(pattern, &name))
                && shown.repository.is_none_or(|wanted| is_named(wanted, &name))
            {
                records.push(record(image, &name, shown));
            }
        }
    }
    Ok(Listing {
        headers: &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("Digest", "DIGEST"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("Size", "SIZE"),
        ],
        table: if shown.digests {
            "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        } else {
            "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
        },
        quiet: "ID",
        records,
    })
}

fn names(image: &pb::Image) -> Vec<Name> {
    let digest_of = |repository: &str| {
        let mut digests = image.digests.iter().filter_map(|text| text.split_once('@'));
        digests.find(|(name, _)| image_name(name) == repository).map(|(_, digest)| digest.to_owned())
    };
    let mut names: Vec<Name> = image
        .tags
        .iter()
        .map(|text| {
            let text = image_name(text);
            let (repository, tag) = match text.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
                _ => (text, "latest".to_owned()),
            };
            let digest = digest_of(&repository).unwrap_or_else(|| NONE.into());
            Name { repository, tag, digest }
        })
        .collect();
    if names.is_empty() {
        let digest = image.digests.first().and_then(|text| text.split_once('@'));
        let (repository, digest) = digest.map_or((NONE.into(), NONE), |(name, digest)| (image_name(name), digest));
        names.push(Name { repository, tag: NONE.into(), digest: digest.into() });
    }
    names
}

fn is_named(wanted: &str, name: &Name) -> bool {
    let wanted = image_name(wanted);
    wanted == name.repository || wanted == format!("{}:{}", name.repository, name.tag)
}

/// A pattern with `*` for anything within a part of the name.
fn matches_reference(pattern: &str, name: &Name) -> bool {
    let full = format!("{}:{}", name.repository, name.tag);
    glob(pattern, &full) || glob(pattern, &name.repository)
}

fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let reach = rest.find('/').unwrap_or(rest.len());
            (0..=reach).filter(|at| rest.is_char_boundary(*at)).any(|at| glob(after, &rest[at..]))
        }),
    }
}

fn record(image: &pb::Image, name: &Name, shown: Shown<'_>) -> Object {
    let id = if shown.no_trunc {
        image.id.clone()
    } else {
        image.id.trim_start_matches("sha256:").chars().take(12).collect()
    };
    let created = TimestampMs(image.created_at);
    Object::new()
        .with("Repository", &name.repository)
        .with("Tag", &name.tag)
        .with("Digest", &name.digest)
        .with("ID", id)
        .with("CreatedSince", if created.0 == 0 { "N/A".into() } else { ago(created, shown.now) })
        .with("CreatedAt", listed_second(created))
        .with("Size", size(image.size))
}
