//! `init`, `join`, `join-token`, `leave`, and Docker's `swarm` before them.

use clap::{Args, Subcommand};

use super::later::{Later, later};

#[derive(Subcommand, Debug)]
pub enum Swarm {
    Init(Init),
    Join(Join),
    JoinToken(JoinToken),
    Leave(Leave),
}

later!(LaterInit { "autolock", "external-ca" = VALUE, "force-new-cluster", "dispatcher-heartbeat" = VALUE });

/// Make a cluster, with this node as its first manager
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm init --advertise-addr 10.0.0.1")]
pub struct Init {
    #[command(flatten)]
    pub addresses: Addresses,
    /// UDP port of overlay networks, 1024-49151; it cannot be changed later
    #[arg(long, value_name = "PORT", default_value_t = 0, hide_default_value = true)]
    pub data_path_port: u32,
    /// Pool that networks without --subnet are cut from, of IPv4 or IPv6; may be repeated [default: 10.0.0.0/8, and a
    /// local IPv6 prefix of the cluster's own]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub default_addr_pool: Vec<String>,
    /// Prefix length of a cut of an IPv4 pool; those of IPv6 have 64
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    pub default_addr_pool_mask_length: u32,
    /// Life of node certificates, at least 1h
    #[arg(long, value_name = "DURATION", default_value = "2160h0m0s")]
    pub cert_expiry: String,
    /// Finished tasks kept for each slot; negative keeps all
    #[arg(long, value_name = "N", default_value_t = 5, allow_negative_numbers = true)]
    pub task_history_limit: i64,
    /// Log entries between snapshots of the managers' state
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub snapshot_interval: u64,
    /// Older snapshots kept besides the newest; only 0 is built yet
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub max_snapshots: u64,
    #[command(flatten)]
    pub later: Later<LaterInit>,
}

/// Where a node is reached.
#[derive(Args, Clone, Debug, Default)]
pub struct Addresses {
    /// Address that the other nodes reach this one at; needed where there are several
    #[arg(long, value_name = "IP|INTERFACE[:PORT]", default_value = "", hide_default_value = true)]
    pub advertise_addr: String,
    /// Address that this node listens on as a manager [default: port 2377 of every address]
    #[arg(long, value_name = "IP|INTERFACE[:PORT]", default_value = "", hide_default_value = true)]
    pub listen_addr: String,
    /// Address or interface of the traffic between containers, IPv4 on all nodes or IPv6 on all [default: the
    /// advertised one]
    #[arg(long, value_name = "IP|INTERFACE", default_value = "", hide_default_value = true)]
    pub data_path_addr: String,
    /// active, pause (no new tasks) or drain (no tasks)
    #[arg(long, value_name = "AVAILABILITY", default_value = "active")]
    pub availability: String,
}

/// Join a cluster, as a worker or manager: the token decides
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm join --token SWMTKN-1-… 10.0.0.1:2377")]
pub struct Join {
    /// The token that `rswarm join-token` printed
    #[arg(long, value_name = "TOKEN")]
    pub token: String,
    #[command(flatten)]
    pub addresses: Addresses,
    /// A manager
    #[arg(value_name = "HOST:PORT")]
    pub remote: String,
}

/// Print the command that joins a node, or only its token
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm join-token --rotate worker")]
pub struct JoinToken {
    /// Only print the token
    #[arg(long, short)]
    pub quiet: bool,
    /// Make a new token; the old one admits nobody from then on
    #[arg(long)]
    pub rotate: bool,
    /// worker or manager
    #[arg(value_name = "ROLE")]
    pub role: String,
}

/// Leave the cluster; containers of its services stop
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm leave --force")]
pub struct Leave {
    /// Leave although this is a manager
    #[arg(long, short)]
    pub force: bool,
}
