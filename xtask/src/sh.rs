//! Running other programs, and where things are.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::Result;

/// The workspace's root: the folder above this crate.
pub fn root() -> PathBuf {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    Path::new(&here).parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// A command in the workspace's root. Debian's `su` leaves out the folders of a root shell: they are added.
pub fn command(program: impl AsRef<Path>, args: &[&str]) -> Command {
    let mut command = Command::new(program.as_ref());
    command.args(args).current_dir(root()).env("PATH", path());
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_our_own_build) {
            command.env_remove(name);
        }
    }
    command
}

/// What `cargo run` tells this program of itself. A cargo below it would take that for its caller's wish, and build
/// again what was built from a shell.
fn is_of_our_own_build(variable: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| variable.starts_with(prefix))
}

fn path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// Prints the command line, runs it with its output on our terminal, and wants it to succeed.
pub fn run(command: &mut Command) -> Result<()> {
    eprintln!("$ {}", shown(command));
    let status = status(command)?;
    check(command, status)
}

/// Runs quietly and returns standard output.
///
/// # Errors
/// If the program cannot be started, or fails: then with what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().map_err(|e| start_error(command, &e))?;
    if out.status.success() {
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    } else {
        let said = String::from_utf8_lossy(&out.stderr);
        Err(format!("`{}` ended with {}: {}", shown(command), out.status, said.trim()).into())
    }
}

/// Runs with its output on our terminal; the caller judges the status.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    Ok(command.status().map_err(|e| start_error(command, &e))?)
}

fn check(command: &Command, status: ExitStatus) -> Result<()> {
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", shown(command)).into()) }
}

fn start_error(command: &Command, error: &std::io::Error) -> String {
    format!("cannot run `{}`: {error}", command.get_program().to_string_lossy())
}

/// The command as a person would type it.
fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        line.push(' ');
        if arg.is_empty() || arg.contains(|c: char| c.is_whitespace() || "'\"{}$".contains(c)) {
            line.push('\'');
            line.push_str(&arg);
            line.push('\'');
        } else {
            line.push_str(&arg);
        }
    }
    line
}

/// Whether `program` can be run by its name.
pub fn has(program: &str) -> bool {
    path().split(':').any(|dir| Path::new(dir).join(program).is_file())
}

/// Whether we are root, by the owner of our own entry in /proc.
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// Every file below `dir` with one of these endings, in order of path; build output and hidden folders are left out.
pub fn files(dir: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| format!("cannot read {}: {e}", folder.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if endings.iter().any(|e| name.ends_with(e)) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}
