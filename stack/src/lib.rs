//! Compose files in, specs out: what `stack deploy` asks of a cluster. Pure.
//!
//! In the order of work: YAML becomes a `tree` whose nodes know their place, variables are put in
//! (`interpolate`), several files become one (`merge`), and the tree becomes specs
//! (`convert`). Every error names file, line and column, and all of them come at once.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rswarm_types::spec::{NetworkSpec, ServiceSpec};
use rswarm_types::validate;

mod convert;
mod interpolate;
mod keys;
mod merge;
mod report;
mod scalar;
mod tree;
mod yaml;

use report::Report;

/// The label that ties every object to its stack.
pub const NAMESPACE_LABEL: &str = "com.docker.stack.namespace";

/// The service label with the image as the file names it.
pub const IMAGE_LABEL: &str = "com.docker.stack.image";

/// One `-c FILE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposeFile {
    /// The path as the user wrote it, for messages (`-` for standard input).
    pub path: PathBuf,
    /// The absolute folder in which it lies (the current one for standard input). Relative paths of
    /// all files start at the first file's folder, as with Docker.
    pub dir: PathBuf,
    pub text: String,
}

/// A stack, ready to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    pub name: String,
    /// The networks that its services join, sorted by name.
    pub networks: Vec<StackNetwork>,
    /// In the order of the files. Networks are named by name; images are as written.
    pub services: Vec<ServiceSpec>,
    /// What was passed over, in Docker's words, for stderr.
    pub warnings: Vec<String>,
}

/// A network that a stack's services join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StackNetwork {
    /// Made by the stack where it does not exist.
    Own(NetworkSpec),
    /// Must exist.
    External { name: String },
}

impl StackNetwork {
    /// The network's name in the cluster.
    pub fn name(&self) -> &str {
        match self {
            Self::Own(spec) => &spec.name,
            Self::External { name } => name,
        }
    }
}

/// One thing wrong with a stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub struct StackError {
    /// Where; `None` when it is in no file.
    pub location: Option<Location>,
    pub message: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// As the user wrote it.
    pub file: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Characters, counted from 1.
    pub column: usize,
}

impl fmt::Display for StackError {
    /// `file:line:column: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Location { file, line, column }) = &self.location {
            write!(f, "{}:{line}:{column}: ", file.display())?;
        }
        f.write_str(&self.message)
    }
}

/// Reads the files of a stack, a later file over an earlier one.
///
/// `env` is the caller's environment, for `${…}`, for variables without a value and for `~`; `read`
/// opens the files that `env_file` names.
///
/// # Errors
/// With everything that is wrong, sorted by place. YAML that cannot be parsed hides what else is
/// wrong in its file.
pub fn load(
    name: &str,
    files: &[ComposeFile],
    env: &BTreeMap<String, String>,
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Stack, Vec<StackError>> {
    let mut report = Report::new(files);
    if let Some(violation) = validate::stack_name(name) {
        report.error_anywhere(violation.to_string());
    }
    if files.is_empty() {
        report.error_anywhere("no compose file; name one with -c FILE");
    }
    let mut trees = Vec::new();
    for (index, file) in files.iter().enumerate() {
        match yaml::parse(index, &file.text) {
            Ok(mut tree) => {
                interpolate::sections(&mut tree, env, &mut report);
                trees.push(tree);
            }
            Err((place, message)) => report.error(place, message),
        }
    }
    if trees.is_empty() || trees.len() < files.len() {
        return Err(report.into_errors());
    }
    let tree = merge::files(trees);
    let dir = files.first().map_or(Path::new("/"), |file| &file.dir);
    let stack = convert::stack(&convert::Context { name, dir, env, read }, &tree, &mut report);
    report.finish(stack)
}

#[cfg(test)]
mod tests;
