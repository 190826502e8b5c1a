//! `node …`.

use clap::{Args, Subcommand};

use super::{InspectArgs, TaskList};
use crate::listing::ListArgs;

#[derive(Subcommand, Debug)]
pub enum Node {
    #[command(visible_alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    Update(Update),
    Promote(Promote),
    Demote(Demote),
    #[command(visible_alias = "remove")]
    Rm(Rm),
    Ps(Ps),
}

/// List nodes
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm node ls --filter role=manager")]
pub struct Ls {
    /// id, label, node.label, membership, name or role
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// Show nodes in full
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm node inspect --pretty self")]
pub struct Inspect {
    #[command(flatten)]
    pub inspect: InspectArgs,
    /// Id, hostname, prefix of an id, or "self"
    #[arg(value_name = "NODE", required = true)]
    pub nodes: Vec<String>,
}

/// Change a node's availability, role, labels, or what may be ordered from it
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm node update --availability drain --label-add zone=b w1")]
pub struct Update {
    /// active, pause (no new tasks) or drain (no tasks)
    #[arg(long, value_name = "AVAILABILITY")]
    pub availability: Option<String>,
    /// Add a label or set its value
    #[arg(long, value_name = "KEY=VALUE")]
    pub label_add: Vec<String>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// worker or manager
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// What a worker's own command line may ask of the cluster: none, read or full
    #[arg(long, value_name = "CONTROL")]
    pub control: Option<String>,
    /// Name or id of the node, or self
    #[arg(value_name = "NODE")]
    pub node: String,
}

/// Make nodes managers
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm node promote w1 w2")]
pub struct Promote {
    /// Name or id of a node, or self
    #[arg(value_name = "NODE", required = true)]
    pub nodes: Vec<String>,
}

/// Make managers workers
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm node demote m3")]
pub struct Demote {
    /// Name or id of a node, or self
    #[arg(value_name = "NODE", required = true)]
    pub nodes: Vec<String>,
}

/// Remove nodes that are down from the cluster
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm node rm --force w2")]
pub struct Rm {
    /// Remove a node that is not down; it is cut off at once
    #[arg(long, short)]
    pub force: bool,
    /// Name or id of a node, or self
    #[arg(value_name = "NODE", required = true)]
    pub nodes: Vec<String>,
}

/// List the tasks of nodes, of this one if none is named
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm node ps --filter desired-state=running w1")]
pub struct Ps {
    #[command(flatten)]
    pub tasks: TaskList,
    /// Name or id of a node [default: self]
    #[arg(value_name = "NODE")]
    pub nodes: Vec<String>,
}
