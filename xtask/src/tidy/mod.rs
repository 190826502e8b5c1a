//! `cargo xtask tidy`: the house rules that no compiler checks.

mod docs;
mod edges;
mod rules;
mod source;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::{Result, manifest, sh};

/// One violation.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Relative to the workspace.
    pub path: PathBuf,
    pub line: usize,
    pub reason: String,
}

/// Prints every violation as `file:line: reason`, and fails if there is one.
pub fn run() -> Result<ExitCode> {
    let found = check(&sh::root())?;
    for finding in &found {
        println!("{}:{}: {}", finding.path.display(), finding.line, finding.reason);
    }
    if found.is_empty() {
        eprintln!("tidy: nothing to mend");
        Ok(ExitCode::SUCCESS)
    } else {
        eprintln!("tidy: {} to mend", found.len());
        Ok(ExitCode::FAILURE)
    }
}

/// Every violation below `root`, in order of file and line.
fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut found = edges::check(&manifest::members(root)?);
    for (core, _) in rules::CORES {
        if !root.join(core).exists() && !root.join(format!("{core}.rs")).exists() {
            let reason = format!("{core} is named as a core and does not exist: correct the table");
            found.push(Finding { path: "xtask/src/tidy/rules.rs".into(), line: 1, reason });
        }
    }
    for path in sh::files(root, &[".rs"])? {
        let text = read(&path)?;
        let path = relative(root, &path);
        found.extend(rules::check(&path, &text).into_iter().map(|(line, reason)| Finding {
            path: path.clone(),
            line,
            reason,
        }));
    }
    for path in documents(root)? {
        let text = read(&path)?;
        let path = relative(root, &path);
        for (line, name) in docs::named_paths(&text, &|first| root.join(first).exists()) {
            if !docs::exists(root, &path, &name) {
                found.push(Finding { path: path.clone(), line, reason: format!("names {name}, which does not exist") });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The documents whose paths are checked: those of the root and of docs.
fn documents(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].iter().map(|n| root.join(n)).collect();
    found.retain(|p| p.exists());
    if root.join("docs").is_dir() {
        found.extend(sh::files(&root.join("docs"), &[".md"])?);
    }
    Ok(found)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()).into())
}

fn relative(root: &Path, path: &Path) -> PathBuf {
    path.strip_prefix(root).unwrap_or(path).to_path_buf()
}
