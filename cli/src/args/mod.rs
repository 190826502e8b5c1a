//! The command line: every verb and flag, with Docker's names, shorthands and defaults.

use clap::{Arg, ArgAction, Args, Command as Tree, CommandFactory, FromArgMatches, Parser, Subcommand};

pub mod cluster;
pub mod daemon;
pub mod image;
pub mod later;
pub mod network;
pub mod node;
pub mod service;
pub mod service_flags;
pub mod service_update;
pub mod stack;
pub mod volume;

use crate::listing::ListArgs;

/// Where the daemon listens unless `-H` or `RSWARM_HOST` say otherwise.
const DEFAULT_HOST: &str = "unix:///run/rswarm/rswarm.sock";

/// Runs containers on many hosts as one.
#[derive(Parser, Debug)]
#[command(
    name = "rswarm",
    version,
    disable_help_subcommand = true,
    after_help = "Examples:\n  rswarm init\n  rswarm service create --name web --publish 8080:80 nginx\n  rswarm service ls"
)]
pub struct Cli {
    /// Socket of the local daemon
    #[arg(long, short = 'H', env = "RSWARM_HOST", default_value = DEFAULT_HOST, value_name = "unix:///PATH")]
    pub host: String,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Daemon(daemon::Daemon),
    Init(cluster::Init),
    Join(cluster::Join),
    JoinToken(cluster::JoinToken),
    Leave(cluster::Leave),
    /// Manage nodes
    #[command(subcommand)]
    Node(node::Node),
    /// Manage services
    #[command(subcommand)]
    Service(Box<service::Service>),
    /// Manage stacks
    #[command(subcommand)]
    Stack(stack::Stack),
    /// Manage networks
    #[command(subcommand)]
    Network(network::Network),
    /// Manage this node's volumes
    #[command(subcommand)]
    Volume(volume::Volume),
    /// Manage this node's images
    #[command(subcommand)]
    Image(image::Image),
    Login(image::Login),
    Logout(image::Logout),
    Ps(Ps),
    Info(Show),
    Version(ShowVersion),
    /// Docker's place for init, join, leave and join-token
    #[command(subcommand, hide = true)]
    Swarm(cluster::Swarm),
}

/// List this node's containers
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm ps --filter name=web --format '{{.ID}} {{.Status}}'")]
pub struct Ps {
    /// Show all containers, not only those that run
    #[arg(long, short)]
    pub all: bool,
    /// id, name, label, status, health, ancestor, exited, before, since, volume, network, publish, expose, is-task or service
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
    /// Show the newest N containers, whatever their state
    #[arg(long, short = 'n', value_name = "N", allow_negative_numbers = true, default_value = "-1")]
    pub last: i64,
    /// Show the newest container, whatever its state
    #[arg(long, short)]
    pub latest: bool,
    /// Show ids and commands in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Show how much containers have written, and how much that is with their image
    #[arg(long, short)]
    pub size: bool,
}

/// Show what this node is and how the cluster stands
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm info --format '{{.Swarm.LocalNodeState}}'")]
pub struct Show {
    /// "json" or a Go template
    #[arg(long, short, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// Show the versions of this program and of the daemon
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm version --format '{{.Server.Version}}'")]
pub struct ShowVersion {
    /// "json" or a Go template
    #[arg(long, short, value_name = "FORMAT")]
    pub format: Option<String>,
}

/// `--filter`, `--format`, `--quiet` and what goes with lists of tasks.
#[derive(Args, Clone, Debug, Default)]
pub struct TaskList {
    /// id, name, node or desired-state
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
    /// Show ids in place of names
    #[arg(long)]
    pub no_resolve: bool,
    /// Show ids, images and errors in full
    #[arg(long)]
    pub no_trunc: bool,
}

/// `--format` and `--pretty` of an inspection.
#[derive(Args, Clone, Debug, Default)]
pub struct InspectArgs {
    /// "json" or a Go template for each object
    #[arg(long, short, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Print for people
    #[arg(long, conflicts_with = "format")]
    pub pretty: bool,
}

/// The whole tree of commands.
///
/// Every switch also takes `=true` and `=false`, as Go's do: `--detach=false`. Of a flag with one
/// value that is given twice the last one holds, as with Go's.
pub fn command() -> Tree {
    switches(Cli::command())
}

fn switches(tree: Tree) -> Tree {
    let tree = tree.args_override_self(true).mut_args(|arg: Arg| match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .hide_default_value(true)
            .hide_possible_values(true)
            .value_name("BOOL")
            .value_parser(clap::builder::BoolishValueParser::new()),
        // What follows a flag that needs a value is its value, also with a dash in front, as with Go's.
        ArgAction::Set | ArgAction::Append if arg.get_long().is_some() && !arg.is_require_equals_set() => {
            arg.allow_hyphen_values(true)
        }
        _ => arg,
    });
    tree.mut_subcommands(switches)
}

/// Reads a command line.
///
/// # Errors
/// Clap's, for it to print: also `--help` and `--version`.
pub fn parse(line: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Cli, clap::Error> {
    let line: Vec<_> = line.into_iter().collect();
    let matches = command().try_get_matches_from(&line).map_err(|error| later::explain(error, &line))?;
    Cli::from_arg_matches(&matches)
}

#[cfg(test)]
mod tests;
