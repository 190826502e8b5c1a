//! `network …`.

use clap::{Args, Subcommand};

use super::later::{Later, later};
use crate::listing::ListArgs;

#[derive(Subcommand, Debug)]
pub enum Network {
    Create(Box<Create>),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

later!(LaterCreate {
    "config-from" = VALUE, "config-only", "ipam-opt" = VALUE,
});

/// Create a network
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm network create --driver overlay --ipv6 --subnet 10.9.0.0/24 backend")]
pub struct Create {
    /// Driver; overlay is the one that can be created
    #[arg(long, short, value_name = "DRIVER", default_value = "bridge")]
    pub driver: String,
    /// Address range of the network, of IPv4 or IPv6; may be repeated [default: one of the cluster's pools]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub subnet: Vec<String>,
    /// Gateway of the subnet that holds it; may be repeated [default: the subnet's first address]
    #[arg(long, value_name = "IP", value_delimiter = ',')]
    pub gateway: Vec<String>,
    /// Part of a subnet that containers get addresses from; may be repeated
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub ip_range: Vec<String>,
    /// Address of a machine of your own, which no container gets; may be repeated
    #[arg(long, value_name = "NAME=IP", value_delimiter = ',')]
    pub aux_address: Vec<String>,
    /// Give containers IPv6 addresses too, from a --subnet or one that is chosen
    #[arg(long)]
    pub ipv6: bool,
    /// No way out of the network
    #[arg(long)]
    pub internal: bool,
    /// Let containers outside services join
    #[arg(long)]
    pub attachable: bool,
    /// Make it the network of the routing mesh
    #[arg(long)]
    pub ingress: bool,
    /// Label of the network
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Option of the driver, e.g. com.docker.network.driver.mtu=1400
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    /// swarm, or nothing
    #[arg(long, value_name = "SCOPE")]
    pub scope: Option<String>,
    /// Address management; only "default" is built yet
    #[arg(long, value_name = "DRIVER", default_value = "default")]
    pub ipam_driver: String,
    /// IPv4 addresses; they cannot be switched off yet
    #[arg(
        long,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        default_value = "true",
        value_name = "BOOL"
    )]
    pub ipv4: bool,
    #[command(flatten)]
    pub later: Later<LaterCreate>,
    /// Name of the network
    #[arg(value_name = "NETWORK")]
    pub name: String,
}

/// List networks
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm network ls --filter driver=overlay")]
pub struct Ls {
    /// dangling, driver, id, label, name, scope or type
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
    /// Show ids in full
    #[arg(long)]
    pub no_trunc: bool,
}

/// Show networks in full
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm network inspect --format '{{json .IPAM.Config}}' backend")]
pub struct Inspect {
    /// "json" or a Go template for each network
    #[arg(long, short, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Also show the services on it, with their addresses and tasks
    #[arg(long, short)]
    pub verbose: bool,
    /// Name or id of a network
    #[arg(value_name = "NETWORK", required = true)]
    pub networks: Vec<String>,
}

/// Remove networks
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm network rm backend")]
pub struct Rm {
    /// A network that does not exist is no error; the network of the routing mesh is removed without a question
    #[arg(long, short)]
    pub force: bool,
    /// Name or id of a network
    #[arg(value_name = "NETWORK", required = true)]
    pub networks: Vec<String>,
}
