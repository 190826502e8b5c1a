//! `cargo xtask lab`: builds the lab's program and the daemon, and passes the words on.

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::{Result, install, sh};

/// `up|exec|down|…` as the lab's program takes them.
pub fn run(args: &[&str]) -> Result<ExitCode> {
    need_root("the lab")?;
    let mut command = if args.first() == Some(&"up") { prepare()? } else { program()? };
    let status = sh::status(command.args(args))?;
    // A command that ran on a host ends as it did there.
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The lab makes namespaces, mounts and cgroups.
pub fn need_root(what: &str) -> Result<()> {
    if sh::is_root() {
        Ok(())
    } else {
        Err(format!("{what} makes namespaces, mounts and cgroups: run it as root").into())
    }
}

/// Installs and builds what a lab needs; then a command to which arguments are added.
pub fn prepare() -> Result<Command> {
    install::ensure(&[install::DEMO])?;
    build()?;
    program()
}

/// The lab's program as it was built last, built if it is not there.
pub fn program() -> Result<Command> {
    let path = binary("lab");
    if !path.exists() {
        build()?;
    }
    let mut command = sh::command(path, &[]);
    command.env("RSWARM_BIN", binary("rswarm"));
    Ok(command)
}

/// All programs at once, as the tests build them: each alone would build its dependencies with other features.
fn build() -> Result<()> {
    sh::run(&mut sh::command("cargo", &["build", "--workspace", "--bins"]))
}

/// A program of the workspace's debug build.
pub fn binary(name: &str) -> PathBuf {
    sh::target_dir().join("debug").join(name)
}
