//! `service …`.

use clap::{Args, Subcommand};

use super::later::{Later, later};
use super::service_flags::{SpecFlags, WaitFlags};
use super::service_update::Update;
use super::{InspectArgs, TaskList};
use crate::listing::ListArgs;

#[derive(Subcommand, Debug)]
pub enum Service {
    Create(Box<Create>),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    Ps(Ps),
    Update(Box<Update>),
    Rollback(Rollback),
    Scale(Scale),
    #[command(visible_alias = "remove")]
    Rm(Rm),
    Logs(Logs),
}

later!(LaterCreate {
    "config" = VALUE, "credential-spec" = VALUE, "generic-resource" = VALUE, "isolation" = VALUE,
    "max-concurrent" = VALUE, "memory-swap" = VALUE, "memory-swappiness" = VALUE, "secret" = VALUE,
});

/// Create a service
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "rswarm service create [OPTIONS] IMAGE [COMMAND] [ARG]...",
    after_help = "Example:\n  rswarm service create --name web --replicas 3 --publish 8080:80 nginx:1.27"
)]
pub struct Create {
    /// Node that tasks may run on, e.g. node.labels.zone==b; all given must hold
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint: Vec<String>,
    /// Label of the containers
    #[arg(long, value_name = "KEY=VALUE")]
    pub container_label: Vec<String>,
    /// DNS server of the containers
    #[arg(long, value_name = "IP")]
    pub dns: Vec<String>,
    /// Option of the containers' resolver
    #[arg(long, value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Domain that the containers search
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// Environment variable; without a value, yours
    #[arg(long, short, value_name = "KEY[=VALUE]")]
    pub env: Vec<String>,
    /// File of environment variables
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<std::path::PathBuf>,
    /// Supplementary group of the containers' process
    #[arg(long, value_name = "GROUP")]
    pub group: Vec<String>,
    /// Line of the containers' /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub host: Vec<String>,
    /// Label of the service
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// replicated or global (a task on each node)
    #[arg(long, value_name = "MODE", default_value = "replicated")]
    pub mode: String,
    /// Volume, directory or tmpfs, e.g. type=bind,src=/srv,dst=/data,readonly
    #[arg(long, value_name = "MOUNT")]
    pub mount: Vec<String>,
    /// Name of the service [default: random]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub name: String,
    /// Network that tasks join, e.g. backend or name=backend,alias=db
    #[arg(long, value_name = "NETWORK")]
    pub network: Vec<String>,
    /// Spread tasks over the values of a label, e.g. spread=node.labels.zone
    #[arg(long, value_name = "PREFERENCE")]
    pub placement_pref: Vec<String>,
    /// Port of the service that all nodes answer on, e.g. 8080:80, 127.0.0.1:8080:80 (nodes that have the address) or
    /// published=53,target=53,protocol=udp,mode=host
    #[arg(long, short, value_name = "PORT")]
    pub publish: Vec<String>,
    /// Kernel setting of the containers
    #[arg(long, value_name = "KEY=VALUE")]
    pub sysctl: Vec<String>,
    /// Resource limit of the containers, e.g. nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,
    #[command(flatten)]
    pub flags: SpecFlags,
    #[command(flatten)]
    pub later: Later<LaterCreate>,
    /// Image, then a command and arguments in place of the image's: flags end at the image
    #[arg(value_name = "IMAGE", required = true, trailing_var_arg = true)]
    pub image_and_args: Vec<String>,
}

/// List services
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm service ls --filter mode=global --format '{{.Name}} {{.Replicas}}'")]
pub struct Ls {
    /// id, label, mode or name
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
}

/// Show services in full
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm service inspect --pretty web")]
pub struct Inspect {
    #[command(flatten)]
    pub inspect: InspectArgs,
    /// Name or id of a service
    #[arg(value_name = "SERVICE", required = true)]
    pub services: Vec<String>,
}

/// List the tasks of services, with those that went before
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm service ps --no-trunc web")]
pub struct Ps {
    #[command(flatten)]
    pub tasks: TaskList,
    /// Name or id of a service
    #[arg(value_name = "SERVICE", required = true)]
    pub services: Vec<String>,
}

/// Go back to the spec before the last update
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm service rollback web")]
pub struct Rollback {
    #[command(flatten)]
    pub wait: WaitFlags,
    /// Name or id of the service
    #[arg(value_name = "SERVICE")]
    pub service: String,
}

/// Change the number of tasks of replicated services
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm service scale web=5 worker=2")]
pub struct Scale {
    /// Do not wait until the services have converged
    #[arg(long, short)]
    pub detach: bool,
    /// A service and its number of tasks
    #[arg(value_name = "SERVICE=REPLICAS", required = true)]
    pub services: Vec<String>,
}

/// Remove services; their containers stop
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm service rm web")]
pub struct Rm {
    /// Name or id of a service
    #[arg(value_name = "SERVICE", required = true)]
    pub services: Vec<String>,
}

/// Show what the tasks of a service, or one task, have printed
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm service logs --follow --tail 20 web")]
pub struct Logs {
    /// Also show the ids of node, service and task
    #[arg(long)]
    pub details: bool,
    /// Go on with what comes
    #[arg(long, short)]
    pub follow: bool,
    /// Show ids in place of names
    #[arg(long)]
    pub no_resolve: bool,
    /// Leave out the ids of tasks
    #[arg(long)]
    pub no_task_ids: bool,
    /// Show ids in full
    #[arg(long)]
    pub no_trunc: bool,
    /// Only what was printed
    #[arg(long)]
    pub raw: bool,
    /// Nothing before a time, e.g. 2026-01-02T13:23:37Z, or 42m for 42 minutes ago
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Lines from the end of each log, or "all"
    #[arg(long, short = 'n', value_name = "N", default_value = "all")]
    pub tail: String,
    /// Show when each line was printed
    #[arg(long, short)]
    pub timestamps: bool,
    /// Name or id of a service, or id of a task
    #[arg(value_name = "SERVICE|TASK")]
    pub target: String,
}
