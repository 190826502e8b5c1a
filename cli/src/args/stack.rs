//! `stack …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::TaskList;
use crate::listing::ListArgs;

#[derive(Subcommand, Debug)]
pub enum Stack {
    #[command(visible_alias = "up")]
    Deploy(Deploy),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Ps(Ps),
    Services(Services),
    #[command(visible_aliases = ["remove", "down"])]
    Rm(Rm),
}

/// Create a stack from compose files, or bring it in line with them
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm stack deploy --compose-file compose.yml --prune shop")]
pub struct Deploy {
    /// Compose file, or "-" for standard input; several are merged, later ones win
    #[arg(long, short, value_name = "FILE", value_delimiter = ',', required = true)]
    pub compose_file: Vec<PathBuf>,
    /// Do not wait until the services have converged
    #[arg(long, short)]
    pub detach: bool,
    /// Remove services of the stack that the files do not name
    #[arg(long)]
    pub prune: bool,
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
    /// When to ask the registry which digest an image has: always, changed or never
    #[arg(long, value_name = "WHEN", default_value = "always", value_parser = ["always", "changed", "never"])]
    pub resolve_image: String,
    /// Hand your registry credentials to the nodes that run the tasks
    #[arg(long)]
    pub with_registry_auth: bool,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub stack: String,
}

/// List stacks
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm stack ls --format json")]
pub struct Ls {
    #[command(flatten)]
    pub list: ListArgs,
}

/// List the tasks of a stack
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm stack ps --no-trunc shop")]
pub struct Ps {
    #[command(flatten)]
    pub tasks: TaskList,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub stack: String,
}

/// List the services of a stack
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm stack services shop")]
pub struct Services {
    /// id, label, mode, name or node
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
    /// Name of the stack
    #[arg(value_name = "STACK")]
    pub stack: String,
}

/// Remove stacks: their services and networks; volumes stay
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm stack rm --detach=false shop")]
pub struct Rm {
    /// Do not wait until the tasks are gone [default: true]
    #[arg(
        long,
        short,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "true",
        hide_default_value = true,
        value_name = "BOOL"
    )]
    pub detach: bool,
    /// Name of a stack
    #[arg(value_name = "STACK", required = true)]
    pub stacks: Vec<String>,
}
