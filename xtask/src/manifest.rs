//! What the checks need to know of a Cargo.toml, and of deny.toml: a line reader for the part of TOML that these use.

use std::path::{Path, PathBuf};

use crate::Result;

/// A `key = value` line of a TOML file, with the table that it stands in.
#[derive(Debug, PartialEq)]
struct Entry {
    line: usize,
    table: String,
    key: String,
    value: String,
}

/// One crate's manifest.
#[derive(Debug)]
pub struct Manifest {
    /// Relative to the workspace.
    pub path: PathBuf,
    pub package: String,
    pub dependencies: Vec<Dependency>,
    /// `[lints] workspace = true` is there.
    pub has_workspace_lints: bool,
}

/// One line of a dependencies table.
#[derive(Debug, PartialEq)]
pub struct Dependency {
    pub name: String,
    pub line: usize,
    pub is_dev: bool,
}

impl Manifest {
    /// Reads `path`'s text; `path` is kept for messages.
    pub fn parse(path: &Path, text: &str) -> Manifest {
        let entries = entries(text);
        let value = |table: &str, key: &str| {
            entries.iter().find(|e| e.table == table && e.key == key).map(|e| unquote(&e.value))
        };
        Manifest {
            path: path.to_path_buf(),
            package: value("package", "name").unwrap_or_default(),
            has_workspace_lints: value("lints", "workspace").as_deref() == Some("true"),
            dependencies: dependencies(&entries, text),
        }
    }
}

/// The manifests of the workspace's members, in order of name.
pub fn members(root: &Path) -> Result<Vec<Manifest>> {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).map_err(|e| format!("cannot read Cargo.toml: {e}"))?;
    let mut found = Vec::new();
    for member in list(&text, "workspace", "members") {
        let path = Path::new(&member).join("Cargo.toml");
        let text =
            std::fs::read_to_string(root.join(&path)).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
        found.push(Manifest::parse(&path, &text));
    }
    found.sort_by(|a, b| a.package.cmp(&b.package));
    Ok(found)
}

/// The strings of the array `table.key`, which may span lines.
pub fn list(text: &str, table: &str, key: &str) -> Vec<String> {
    let Some(entry) = entries(text).into_iter().find(|e| e.table == table && e.key == key) else { return Vec::new() };
    entry.value.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// One key's text in each `[[table]]`, in order; empty where the key is missing.
pub fn column(text: &str, table: &str, key: &str) -> Vec<String> {
    let header = format!("[[{table}]]");
    text.split(&header)
        .skip(1)
        .map(|block| entries(block).into_iter().find(|e| e.table.is_empty() && e.key == key))
        .map(|entry| entry.map_or_else(String::new, |e| unquote(&e.value)))
        .collect()
}

/// A dependency is a key of a dependencies table (`x.workspace = true` too), or a table of its own.
fn dependencies(entries: &[Entry], text: &str) -> Vec<Dependency> {
    let kind = |table: &str| {
        let last = table.rsplit('.').next().unwrap_or(table);
        match last {
            "dependencies" | "build-dependencies" if !table.starts_with("workspace") => Some(false),
            "dev-dependencies" => Some(true),
            _ => None,
        }
    };
    let mut found: Vec<Dependency> = entries
        .iter()
        .filter_map(|e| {
            let name = e.key.split('.').next().unwrap_or(&e.key);
            Some(Dependency { name: name.trim_matches('"').to_owned(), line: e.line, is_dev: kind(&e.table)? })
        })
        .collect();
    for (index, line) in text.lines().enumerate() {
        let Some(table) = header(line) else { continue };
        if let Some((parent, name)) = table.rsplit_once('.')
            && let Some(is_dev) = kind(parent)
        {
            found.push(Dependency { name: name.trim_matches('"').to_owned(), line: index + 1, is_dev });
        }
    }
    found
}

fn entries(text: &str) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    let (mut table, mut is_open) = (String::new(), false);
    for (index, line) in text.lines().enumerate() {
        let line = strip_comment(line).trim();
        if is_open {
            // The rest of an array that spans lines.
            if let Some(last) = found.last_mut() {
                last.value.push_str(line);
                is_open = !is_closed(&last.value);
            }
        } else if let Some(name) = header(line) {
            table = name.to_owned();
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().to_owned();
            is_open = value.starts_with('[') && !is_closed(&value);
            found.push(Entry { line: index + 1, table: table.clone(), key: key.trim().to_owned(), value });
        }
    }
    found
}

fn is_closed(array: &str) -> bool {
    let outside: String = array.split('"').step_by(2).collect();
    outside.matches('[').count() == outside.matches(']').count()
}

fn header(line: &str) -> Option<&str> {
    let line = strip_comment(line).trim();
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    Some(name.trim_start_matches('[').trim_end_matches(']').trim())
}

fn strip_comment(line: &str) -> &str {
    let mut is_quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => is_quoted = !is_quoted,
            '#' if !is_quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

fn unquote(value: &str) -> String {
    value.trim().trim_matches('"').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
[package]
name = "rswarm-x"   # the name
[lints]
workspace = true
[dependencies]
rswarm-types.workspace = true
tokio = { version = "1", features = [
    "full", # [not a table]
] }
[dependencies.big]
version = "1"
[target.'cfg(unix)'.dependencies]
libc = "0.2"
[dev-dependencies]
proptest.workspace = true
[build-dependencies]
cc = "1"
"#;

    #[test]
    fn dependencies_are_found_in_every_kind_of_table() {
        let manifest = Manifest::parse(Path::new("x/Cargo.toml"), TEXT);
        assert_eq!(manifest.package, "rswarm-x");
        assert!(manifest.has_workspace_lints);
        let mut names: Vec<_> = manifest.dependencies.iter().map(|d| (d.name.as_str(), d.line, d.is_dev)).collect();
        names.sort_by_key(|d| d.1);
        assert_eq!(
            names,
            [
                ("rswarm-types", 7, false),
                ("tokio", 8, false),
                ("big", 11, false),
                ("libc", 14, false),
                ("proptest", 16, true),
                ("cc", 18, false)
            ]
        );
    }

    #[test]
    fn a_list_may_span_lines_and_hold_comments() {
        let text = "[licenses]\nallow = [\n  \"MIT\", # fine\n  \"Apache-2.0\",\n]\n[bans]\nskip = [\"syn\"]\n";
        assert_eq!(list(text, "licenses", "allow"), ["MIT", "Apache-2.0"]);
        assert_eq!(list(text, "bans", "skip"), ["syn"]);
        assert!(list(text, "bans", "allow").is_empty());
    }

    #[test]
    fn a_column_is_read_from_every_table_of_the_name() {
        let text = "[[a.b]]\nx = \"1\"\ny = \"2\"\n[c]\nz = \"0\"\n[[a.b]]\nx = \"3\"\n";
        assert_eq!(column(text, "a.b", "x"), ["1", "3"]);
        assert_eq!(column(text, "a.b", "y"), ["2", ""]);
        assert_eq!(column(text, "a.b", "z"), ["", ""]);
    }

    #[test]
    fn lints_that_are_not_the_workspaces_are_noticed() {
        let manifest =
            Manifest::parse(Path::new("x/Cargo.toml"), "[package]\nname = \"x\"\n[lints]\nworkspace = false\n");
        assert!(!manifest.has_workspace_lints);
    }
}
