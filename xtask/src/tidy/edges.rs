//! Which crate may import which: down only, never sideways.

use super::Finding;
use crate::manifest::Manifest;

/// Every crate of the house and its layer.
const LAYERS: &[(&str, u8)] = &[
    ("rswarm-types", 1),
    ("rswarm-api", 2),
    ("rswarm-store", 2),
    ("rswarm-raft", 2),
    ("rswarm-scheduler", 2),
    ("rswarm-stack", 2),
    ("rswarm-overlay", 2),
    ("rswarm-runtime", 2),
    ("rswarm-manager", 3),
    ("rswarm-worker", 3),
    ("rswarm-docker-api", 3),
    ("rswarm-node", 4),
    ("rswarm", 5),
    ("rswarm-cluster-tests", 6),
    ("xtask", 0),
];

/// Edges that would go down, and are refused all the same outside tests.
const REFUSED: &[(&str, &str, &str)] = &[
    ("rswarm-raft", "rswarm-types", "raft knows nothing of swarms: member ids, bytes and a StateMachine"),
    ("rswarm-manager", "rswarm-overlay", "a manager decides; it never touches a kernel"),
    ("rswarm-manager", "rswarm-runtime", "a manager decides; it never runs a container"),
    ("rswarm-worker", "rswarm-store", "a worker is told what should be true; it never reads the replicated state"),
    ("rswarm-worker", "rswarm-raft", "a worker takes no part in consensus"),
    ("rswarm", "rswarm-manager", "the command line is a client; the daemon is composed in node"),
    ("rswarm", "rswarm-worker", "the command line is a client; the daemon is composed in node"),
];

/// Libraries that one crate hides from the others (the simulator may drive the engine underneath).
const HIDDEN: &[(&str, &[&str], &str)] = &[
    ("openraft", &["rswarm-raft", "rswarm-cluster-tests"], "raft hides its engine, so that another can take its place"),
    ("openraft-rt", &["rswarm-raft", "rswarm-cluster-tests"], "raft hides its engine"),
    ("sled", &["rswarm-runtime", "rswarm-worker"], "sled holds only what can be rebuilt: images' index, ledger"),
];

/// Every edge that the layers do not allow, crates that have no layer, and crates without the common lints.
pub fn check(manifests: &[Manifest]) -> Vec<Finding> {
    let mut found = Vec::new();
    for manifest in manifests {
        let finding = |line: usize, reason: String| Finding { path: manifest.path.clone(), line, reason };
        if !manifest.has_workspace_lints {
            found.push(finding(1, "no `[lints] workspace = true`".to_owned()));
        }
        let Some(layer) = layer(&manifest.package) else {
            found.push(finding(1, format!("crate {} has no layer in xtask's table", manifest.package)));
            continue;
        };
        for dependency in &manifest.dependencies {
            let name = dependency.name.as_str();
            if manifest.package == "xtask" {
                found
                    .push(finding(dependency.line, format!("xtask builds with nothing but Rust, and needs no {name}")));
                continue;
            }
            let is_ours = name == "rswarm" || name.starts_with("rswarm-") || name == "xtask";
            match self::layer(name) {
                Some(below) if below >= layer || name == "xtask" => {
                    found.push(finding(
                        dependency.line,
                        format!("{} must not import {name}: imports go down", manifest.package),
                    ));
                }
                None if is_ours => {
                    found.push(finding(dependency.line, format!("crate {name} has no layer in xtask's table")))
                }
                _ => {}
            }
            let hidden =
                HIDDEN.iter().find(|(hidden, owners, _)| *hidden == name && !owners.contains(&&*manifest.package));
            if let Some((_, _, why)) = hidden {
                found.push(finding(dependency.line, format!("{} must not import {name}: {why}", manifest.package)));
            }
            let refused = REFUSED.iter().find(|(from, to, _)| *from == manifest.package && *to == name);
            if let Some((_, _, why)) = refused.filter(|_| !dependency.is_dev) {
                found.push(finding(dependency.line, format!("{} must not import {name}: {why}", manifest.package)));
            }
        }
    }
    found
}

fn layer(package: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == package).map(|(_, layer)| *layer)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn reasons(package: &str, dependencies: &str) -> Vec<String> {
        let text = format!("[package]\nname = \"{package}\"\n[lints]\nworkspace = true\n{dependencies}");
        let manifest = Manifest::parse(Path::new("x/Cargo.toml"), &text);
        check(&[manifest]).into_iter().map(|f| format!("{}: {}", f.line, f.reason)).collect()
    }

    #[test]
    fn imports_go_down_never_sideways_or_up() {
        for (package, dependency, count) in [
            ("rswarm-store", "rswarm-types", 0),
            ("rswarm-scheduler", "rswarm-store", 1),
            ("rswarm-types", "rswarm-api", 1),
            ("rswarm-raft", "rswarm-types", 1),
            ("rswarm-manager", "rswarm-store", 0),
            ("rswarm-manager", "rswarm-worker", 1),
            ("rswarm-manager", "rswarm-overlay", 1),
            ("rswarm", "rswarm-node", 0),
            ("rswarm", "rswarm-manager", 1),
            ("rswarm-cluster-tests", "rswarm-manager", 0),
            ("rswarm-store", "serde", 0),
            ("rswarm-store", "rswarm-nobody", 1),
            ("xtask", "serde", 1),
            ("rswarm-raft", "openraft", 0),
            ("rswarm-manager", "openraft", 1),
            ("rswarm-runtime", "sled", 0),
            ("rswarm-manager", "sled", 1),
        ] {
            let found = reasons(package, &format!("[dependencies]\n{dependency}.workspace = true\n"));
            assert_eq!(found.len(), count, "{package} -> {dependency}: {found:?}");
        }
    }

    #[test]
    fn tests_may_import_what_is_refused_but_still_only_downwards() {
        assert!(reasons("rswarm", "[dev-dependencies]\nrswarm-manager.workspace = true\n").is_empty());
        assert_eq!(reasons("rswarm-store", "[dev-dependencies]\nrswarm-manager.workspace = true\n").len(), 1);
    }

    #[test]
    fn a_crate_without_layer_or_lints_is_named() {
        let manifest = Manifest::parse(Path::new("x/Cargo.toml"), "[package]\nname = \"rswarm-new\"\n");
        let found: Vec<String> = check(&[manifest]).into_iter().map(|f| f.reason).collect();
        assert_eq!(found, ["no `[lints] workspace = true`", "crate rswarm-new has no layer in xtask's table"]);
    }
}
