//! Paths that the docs name must exist.

use std::path::Path;

/// Endings that make a word in backticks a path.
const ENDINGS: &[&str] =
    &[".rs", ".toml", ".md", ".yml", ".yaml", ".json", ".proto", ".sh", ".py", ".lock", ".service", ".nft", ".txt"];

/// The words of `text` that claim to be paths, with their lines: in backticks, and as targets of links.
pub fn named_paths(text: &str, is_top_level: &dyn Fn(&str) -> bool) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut is_code_block = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code_block = !is_code_block;
        }
        if is_code_block {
            continue;
        }
        for word in line.split('`').skip(1).step_by(2) {
            if is_path(word, is_top_level) {
                found.push((index + 1, without_place(word).to_owned()));
            }
        }
        for link in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split(['#', ' ']).next().unwrap_or(link);
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push((index + 1, target.to_owned()));
            }
        }
    }
    found
}

/// Whether `path` exists below the root, or beside the document that names it.
pub fn exists(root: &Path, document: &Path, path: &str) -> bool {
    let beside = document.parent().unwrap_or(Path::new(""));
    root.join(path).exists() || root.join(beside).join(path).exists()
}

/// A relative path: its first folder is ours, or it ends like a file. Commands, globs and absolute paths are not meant.
fn is_path(word: &str, is_top_level: &dyn Fn(&str) -> bool) -> bool {
    let word = without_place(word);
    let is_plain = word.chars().all(|c| c.is_alphanumeric() || "._-/".contains(c));
    if !is_plain || word.is_empty() || word.starts_with(['/', '-', '~']) || word.starts_with("target/") {
        return false;
    }
    let first = word.split('/').next().unwrap_or(word);
    (word.contains('/') && is_top_level(first)) || (ENDINGS.iter().any(|e| word.len() > e.len() && word.ends_with(e)))
}

/// `a/b.rs:12` names `a/b.rs`.
fn without_place(word: &str) -> &str {
    match word.rsplit_once(':') {
        Some((path, line)) if !line.is_empty() && line.chars().all(|c| c.is_ascii_digit()) => path,
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_told_from_commands_ports_and_names() {
        let is_top_level = |name: &str| ["store", "docs", ".ci"].contains(&name);
        for (word, is) in [
            ("store/src/lib.rs", true),
            ("store/", true),
            ("gone/src/lib.rs", true),
            ("gone/module", false),
            (".ci/run", true),
            ("README.md", true),
            ("docs/adr/0001-consensus-engine.md:12", true),
            ("8080/tcp", false),
            ("owner/name", false),
            ("/var/lib/rswarm", false),
            ("cargo xtask demo", false),
            ("raft/{log,snapshot}", false),
            (".rs", false),
            ("target/images", false),
            ("node.role == worker", false),
        ] {
            assert_eq!(is_path(word, &is_top_level), is, "{word}");
        }
    }

    #[test]
    fn backticks_and_links_are_read_and_code_blocks_are_not() {
        let text = "See `store/src/lib.rs` and [x](docs/a.md#part), not [y](https://example.org).\n```\n`store/none.rs`\n```\nend `README.md`\n";
        assert_eq!(
            named_paths(text, &|name| name == "store"),
            [(1, "store/src/lib.rs".to_owned()), (1, "docs/a.md".to_owned()), (5, "README.md".to_owned())]
        );
    }

    #[test]
    fn a_path_is_looked_for_at_the_root_and_beside_its_document() {
        let root = crate::sh::root();
        assert!(exists(&root, Path::new("README.md"), "xtask/src/tidy/docs.rs"));
        assert!(exists(&root, Path::new("xtask/src/README.md"), "tidy/docs.rs"));
        assert!(!exists(&root, Path::new("README.md"), "xtask/src/none.rs"));
    }
}
