//! The merged tree of a stack to specs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::keys;
use crate::report::{Report, is_extension};
use crate::tree::{Node, Value};
use crate::{NAMESPACE_LABEL, Stack};

mod container;
mod deploy;
mod environment;
mod networks;
mod ports;
mod service;
mod volumes;

/// What conversion needs besides the tree.
pub struct Context<'a> {
    /// Of the stack.
    pub name: &'a str,
    /// Where relative paths start.
    pub dir: &'a Path,
    /// The caller's environment.
    pub env: &'a BTreeMap<String, String>,
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
}

impl Context<'_> {
    /// The name of an object of the stack.
    fn scoped(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    /// Labels with the stack's own.
    fn labelled(&self, mut labels: BTreeMap<String, String>) -> BTreeMap<String, String> {
        labels.insert(NAMESPACE_LABEL.into(), self.name.into());
        labels
    }

    /// An absolute path: one that is absolute stays as written, others lose `.` and `..`; `~` is the
    /// caller's home.
    fn absolute(&self, path: &str) -> PathBuf {
        if path.starts_with('/') {
            return path.into();
        }
        let path = match (path.strip_prefix('~'), self.env.get("HOME")) {
            (Some(rest), Some(home)) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
            _ => path.to_owned(),
        };
        let mut clean = PathBuf::new();
        for part in self.dir.join(path).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => {
                    clean.pop();
                }
                part => clean.push(part),
            }
        }
        clean
    }
}

/// Converts the tree; what does not fit goes to the report, and the stack is then of no use.
pub fn stack(context: &Context<'_>, tree: &Node, report: &mut Report<'_>) -> Stack {
    for entry in report.map("", tree, &keys::TOP) {
        match entry.key.as_str() {
            "version" => version(&entry.value, report),
            "secrets" | "configs" => report.error(entry.place, format!("{} are not built yet", entry.key)),
            _ => {}
        }
    }
    let mut networks = networks::declared(context, tree.get("networks"), report);
    let volumes = volumes::declared(context, tree.get("volumes"), report);
    let mut services = Vec::new();
    if let Some(node) = tree.get("services") {
        for entry in report.any_map("services", node) {
            if !is_extension(&entry.key) {
                services.extend(service::service(context, entry, &mut networks, &volumes, report));
            }
        }
    } else {
        report.error(tree.place, "no services; expected a mapping of services at the top level");
    }
    Stack { name: context.name.into(), networks: networks.used(), services, warnings: Vec::new() }
}

/// Versions 3 to 3.13, or none, have the meaning that `stack deploy` knows.
fn version(node: &Node, report: &mut Report<'_>) {
    let (Value::Text(text) | Value::Number(text)) = &node.value else {
        report.error(node.place, format!("version is {}; expected a string such as \"3.8\"", node.kind()));
        return;
    };
    let is_known = match text.split_once('.') {
        None => text == "3" || text.is_empty(),
        Some((major, minor)) => major == "3" && minor.parse::<u8>().is_ok_and(|minor| minor <= 13),
    };
    if !is_known {
        report.error(
            node.place,
            format!("unsupported compose file version \"{text}\"; allowed are 3 to 3.13, or no version"),
        );
    }
}

/// Labels: a mapping or a list; a key without a value has an empty one.
fn labels(path: &str, node: &Node, report: &mut Report<'_>) -> BTreeMap<String, String> {
    report.pairs(path, node).into_iter().map(|pair| (pair.key, pair.value.unwrap_or_default())).collect()
}
