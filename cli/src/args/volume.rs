//! `volume …`: this node's volumes.

use clap::{Args, Subcommand};

use super::later::{Later, later};
use crate::listing::ListArgs;

#[derive(Subcommand, Debug)]
pub enum Volume {
    Create(Create),
    #[command(visible_alias = "list")]
    Ls(Ls),
    Inspect(Inspect),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

later!(LaterCreate {
    "availability" = VALUE, "group" = VALUE, "limit-bytes" = VALUE, "required-bytes" = VALUE, "scope" = VALUE,
    "secret" = VALUE, "sharing" = VALUE, "topology-preferred" = VALUE, "topology-required" = VALUE, "type" = VALUE,
});

/// Create a volume on this node
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm volume create --label tier=db pgdata")]
pub struct Create {
    /// Driver; only "local" is built yet
    #[arg(long, short, value_name = "DRIVER", default_value = "local")]
    pub driver: String,
    /// Label of the volume
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Option of the driver
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub opt: Vec<String>,
    #[command(flatten)]
    pub later: Later<LaterCreate>,
    /// [default: random]
    #[arg(value_name = "VOLUME")]
    pub name: Option<String>,
}

later!(LaterLs { "cluster" });

/// List this node's volumes
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm volume ls --filter label=tier=db")]
pub struct Ls {
    /// driver, label or name
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
    #[command(flatten)]
    pub later: Later<LaterLs>,
}

/// Show volumes in full
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm volume inspect --format '{{.Mountpoint}}' pgdata")]
pub struct Inspect {
    /// "json" or a Go template for each volume
    #[arg(long, short, value_name = "FORMAT")]
    pub format: Option<String>,
    /// Name of a volume
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
}

/// Remove volumes that no container uses, with what is in them
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm volume rm pgdata")]
pub struct Rm {
    /// A volume that does not exist is no error
    #[arg(long, short)]
    pub force: bool,
    /// Name of a volume
    #[arg(value_name = "VOLUME", required = true)]
    pub volumes: Vec<String>,
}
