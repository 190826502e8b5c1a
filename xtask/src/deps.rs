//! `cargo xtask deps`: licences, sources and duplicates of what we depend on, judged by deny.toml.

use std::collections::BTreeMap;
use std::process::ExitCode;

use crate::json::Json;
use crate::{Result, manifest, sh, spdx};

/// What deny.toml allows.
struct Policy {
    licences: Vec<String>,
    registries: Vec<String>,
    /// Crates that may come in several versions.
    skip: Vec<String>,
    /// `name@version` of crates that state no licence, with the one that we read in their files.
    clarified: Vec<(String, String)>,
}

/// A crate that is not ours.
#[derive(Debug)]
struct Package {
    name: String,
    version: String,
    licence: Option<String>,
    source: String,
}

#[derive(Debug, Default, PartialEq)]
struct Verdict {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Prints what is wrong; licences and sources fail, duplicates warn.
pub fn run() -> Result<ExitCode> {
    let deny =
        std::fs::read_to_string(sh::root().join("deny.toml")).map_err(|e| format!("cannot read deny.toml: {e}"))?;
    let policy = Policy {
        licences: manifest::list(&deny, "licenses", "allow"),
        registries: manifest::list(&deny, "sources", "allow-registry"),
        skip: manifest::list(&deny, "bans", "skip"),
        clarified: std::iter::zip(
            manifest::column(&deny, "licenses.clarify", "crate"),
            manifest::column(&deny, "licenses.clarify", "expression"),
        )
        .collect(),
    };
    let mut command = sh::command("cargo", &["metadata", "--format-version", "1", "--locked"]);
    command.args(["--filter-platform", &host()?]);
    let metadata = Json::parse(&sh::output(&mut command)?).map_err(|e| format!("cargo metadata: {e}"))?;
    let packages = packages(&metadata);
    let verdict = judge(&packages, &policy);
    for warning in &verdict.warnings {
        eprintln!("warning: {warning}");
    }
    for error in &verdict.errors {
        println!("error: {error}");
    }
    eprintln!("deps: {} crates, {} errors, {} warnings", packages.len(), verdict.errors.len(), verdict.warnings.len());
    Ok(if verdict.errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The compiler's own platform.
fn host() -> Result<String> {
    let version = sh::output(&mut sh::command("rustc", &["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc -vV names no host")?.to_owned())
}

/// Crates from elsewhere: those with a source.
fn packages(metadata: &Json) -> Vec<Package> {
    let text = |package: &Json, key: &str| package.get(key).text().map(str::to_owned);
    let found = metadata.get("packages").items().iter().filter_map(|package| {
        Some(Package {
            source: text(package, "source")?,
            name: text(package, "name").unwrap_or_default(),
            version: text(package, "version").unwrap_or_default(),
            licence: text(package, "license"),
        })
    });
    found.collect()
}

fn judge(packages: &[Package], policy: &Policy) -> Verdict {
    let mut verdict = Verdict::default();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let name = format!("{} {}", package.name, package.version);
        match source_url(&package.source) {
            Ok(url) if policy.registries.iter().any(|r| r == url) => {}
            Ok(url) => {
                verdict.errors.push(format!("{name} comes from {url}, not from a registry that deny.toml allows"))
            }
            Err(kind) => verdict.errors.push(format!("{name} comes from {kind}; only a registry is allowed")),
        }
        let exact = format!("{}@{}", package.name, package.version);
        let clarified = policy.clarified.iter().find(|(name, _)| *name == exact).map(|(_, licence)| licence);
        match package.licence.as_ref().or(clarified) {
            None => verdict.errors.push(format!("{name} states no licence")),
            Some(licence) => match spdx::is_satisfied(licence, &|l| policy.licences.iter().any(|a| a == l)) {
                Ok(true) => {}
                Ok(false) => verdict.errors.push(format!("{name} is under {licence}, which deny.toml does not allow")),
                Err(error) => verdict.errors.push(format!("{name}: {error}")),
            },
        }
        versions.entry(&package.name).or_default().push(&package.version);
    }
    for (name, versions) in &versions {
        let is_known = policy.skip.iter().any(|s| s == name);
        if versions.len() > 1 && !is_known {
            verdict.warnings.push(format!("{name} comes in {} versions: {}", versions.len(), versions.join(", ")));
        }
    }
    for name in &policy.skip {
        if versions.get(name.as_str()).is_none_or(|v| v.len() < 2) {
            verdict.warnings.push(format!("deny.toml skips {name}, which no longer comes in several versions"));
        }
    }
    verdict
}

/// The registry's address; or, for anything else, what it is.
fn source_url(source: &str) -> std::result::Result<&str, String> {
    match source.split_once('+') {
        Some(("registry" | "sparse", url)) => Ok(url.split('#').next().unwrap_or(url)),
        _ => Err(source.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGISTRY: &str = "registry+https://example.org/index";

    fn package(name: &str, version: &str, licence: Option<&str>, source: &str) -> Package {
        Package {
            name: name.into(),
            version: version.into(),
            licence: licence.map(str::to_owned),
            source: source.into(),
        }
    }

    fn policy(skip: &[&str]) -> Policy {
        Policy {
            licences: vec!["MIT".into()],
            registries: vec!["https://example.org/index".into()],
            skip: skip.iter().map(|s| (*s).to_owned()).collect(),
            clarified: vec![("told@1.0.0".into(), "MIT".into())],
        }
    }

    #[test]
    fn licences_and_sources_are_errors() {
        let verdict = judge(
            &[
                package("good", "1.0.0", Some("MIT OR GPL-3.0"), REGISTRY),
                package("bad", "1.0.0", Some("GPL-3.0"), REGISTRY),
                package("none", "1.0.0", None, REGISTRY),
                package("told", "1.0.0", None, REGISTRY),
                package("git", "1.0.0", Some("MIT"), "git+https://example.org/x#abc"),
                package("other", "1.0.0", Some("MIT"), "sparse+https://elsewhere.org/"),
            ],
            &policy(&[]),
        );
        assert_eq!(
            verdict.errors,
            [
                "bad 1.0.0 is under GPL-3.0, which deny.toml does not allow",
                "none 1.0.0 states no licence",
                "git 1.0.0 comes from git+https://example.org/x#abc; only a registry is allowed",
                "other 1.0.0 comes from https://elsewhere.org/, not from a registry that deny.toml allows",
            ]
        );
        assert!(verdict.warnings.is_empty());
    }

    #[test]
    fn a_duplicate_warns_unless_it_is_known_and_a_stale_exception_warns_too() {
        let packages = [
            package("syn", "1.0.0", Some("MIT"), REGISTRY),
            package("syn", "2.0.0", Some("MIT"), REGISTRY),
            package("log", "1.0.0", Some("MIT"), REGISTRY),
        ];
        assert_eq!(judge(&packages, &policy(&[])).warnings, ["syn comes in 2 versions: 1.0.0, 2.0.0"]);
        assert!(judge(&packages, &policy(&["syn"])).warnings.is_empty());
        assert_eq!(
            judge(&packages, &policy(&["syn", "log"])).warnings,
            ["deny.toml skips log, which no longer comes in several versions"]
        );
    }

    #[test]
    fn our_own_crates_are_not_judged() {
        let metadata = Json::parse(r#"{"packages": [{"name": "ours", "version": "0.1.0", "source": null}]}"#).unwrap();
        assert!(packages(&metadata).is_empty());
    }
}
