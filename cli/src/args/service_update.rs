//! `service update`.

use clap::Args;

use super::later::{Later, later};
use super::service_flags::SpecFlags;

later!(LaterUpdate {
    "config-add" = VALUE, "config-rm" = VALUE, "credential-spec" = VALUE, "generic-resource-add" = VALUE,
    "generic-resource-rm" = VALUE, "isolation" = VALUE, "max-concurrent" = VALUE, "memory-swap" = VALUE,
    "memory-swappiness" = VALUE, "secret-add" = VALUE, "secret-rm" = VALUE,
});

/// Change a service; its tasks are replaced step by step where they must be
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "Example:\n  rswarm service update --image nginx:1.28 --update-parallelism 2 web")]
pub struct Update {
    /// Command and arguments in place of the image's, as one text
    #[arg(long, value_name = "COMMAND")]
    pub args: Option<String>,
    /// Add a constraint on the nodes, e.g. node.labels.zone==b
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint_add: Vec<String>,
    /// Remove a constraint on the nodes
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint_rm: Vec<String>,
    /// Add or change a label of the containers
    #[arg(long, value_name = "KEY=VALUE")]
    pub container_label_add: Vec<String>,
    /// Remove a label of the containers
    #[arg(long, value_name = "KEY")]
    pub container_label_rm: Vec<String>,
    /// Add a DNS server of the containers
    #[arg(long, value_name = "IP")]
    pub dns_add: Vec<String>,
    /// Remove a DNS server of the containers
    #[arg(long, value_name = "IP")]
    pub dns_rm: Vec<String>,
    /// Add an option of the containers' resolver
    #[arg(long, value_name = "OPTION")]
    pub dns_option_add: Vec<String>,
    /// Remove an option of the containers' resolver
    #[arg(long, value_name = "OPTION")]
    pub dns_option_rm: Vec<String>,
    /// Add a domain that the containers search
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search_add: Vec<String>,
    /// Remove a domain that the containers search
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search_rm: Vec<String>,
    /// Add an environment variable or set its value
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub env_add: Vec<String>,
    /// Remove an environment variable
    #[arg(long, value_name = "KEY")]
    pub env_rm: Vec<String>,
    /// Replace all tasks even if nothing changed
    #[arg(long)]
    pub force: bool,
    /// Add a supplementary group of the containers' process
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// Remove a supplementary group of the containers' process
    #[arg(long, value_name = "GROUP")]
    pub group_rm: Vec<String>,
    /// Add a line of the containers' /etc/hosts
    #[arg(long, value_name = "HOST:IP")]
    pub host_add: Vec<String>,
    /// Remove a host's lines of the containers' /etc/hosts
    #[arg(long, value_name = "HOST[:IP]")]
    pub host_rm: Vec<String>,
    /// Image of the containers
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Add or change a label of the service
    #[arg(long, value_name = "KEY=VALUE")]
    pub label_add: Vec<String>,
    /// Remove a label of the service
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Add a mount, or replace the one with its target
    #[arg(long, value_name = "MOUNT")]
    pub mount_add: Vec<String>,
    /// Remove the mount with this target
    #[arg(long, value_name = "TARGET")]
    pub mount_rm: Vec<String>,
    /// Add a network that tasks join, e.g. backend or name=backend,alias=db
    #[arg(long, value_name = "NETWORK")]
    pub network_add: Vec<String>,
    /// Remove a network
    #[arg(long, value_name = "NETWORK")]
    pub network_rm: Vec<String>,
    /// Add a preference of places, e.g. spread=node.labels.zone
    #[arg(long, value_name = "PREFERENCE")]
    pub placement_pref_add: Vec<String>,
    /// Remove a preference of places
    #[arg(long, value_name = "PREFERENCE")]
    pub placement_pref_rm: Vec<String>,
    /// Add a published port, or replace the one with its target and published port
    #[arg(long, value_name = "PORT")]
    pub publish_add: Vec<String>,
    /// Remove the published ports with this target port
    #[arg(long, value_name = "TARGET[/PROTOCOL]")]
    pub publish_rm: Vec<String>,
    /// Go back to the spec before the last update; goes with no other change
    #[arg(long)]
    pub rollback: bool,
    /// Add or change a kernel setting of the containers
    #[arg(long, value_name = "KEY=VALUE")]
    pub sysctl_add: Vec<String>,
    /// Remove a kernel setting of the containers
    #[arg(long, value_name = "KEY")]
    pub sysctl_rm: Vec<String>,
    /// Add or change a resource limit of the containers, e.g. nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit_add: Vec<String>,
    /// Remove a resource limit of the containers
    #[arg(long, value_name = "NAME")]
    pub ulimit_rm: Vec<String>,
    #[command(flatten)]
    pub flags: SpecFlags,
    #[command(flatten)]
    pub later: Later<LaterUpdate>,
    /// Name or id of the service
    #[arg(value_name = "SERVICE")]
    pub service: String,
}
