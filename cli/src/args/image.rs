//! `image …`, `login`, `logout`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::later::{Later, later};
use crate::listing::ListArgs;

#[derive(Subcommand, Debug)]
pub enum Image {
    Pull(Pull),
    Push(Push),
    Load(Load),
    #[command(visible_alias = "list")]
    Ls(Ls),
    #[command(visible_alias = "remove")]
    Rm(Rm),
}

later!(LaterPull { "all-tags", "platform" = VALUE, "disable-content-trust" });

/// Download an image to this node
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm image pull nginx:1.27")]
pub struct Pull {
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub later: Later<LaterPull>,
    /// Name of the image; without a tag, latest
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

later!(LaterPush { "all-tags", "platform" = VALUE, "disable-content-trust" });

/// Upload an image of this node to its registry
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm image push registry:5000/web:1")]
pub struct Push {
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub later: Later<LaterPush>,
    /// Name of the image; without a tag, latest
    #[arg(value_name = "IMAGE")]
    pub image: String,
}

later!(LaterLoad { "platform" = VALUE });

/// Load images from an archive that `docker save` or `skopeo` wrote
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm image load --input web.tar")]
pub struct Load {
    /// The archive, also compressed [default: standard input]
    #[arg(long, short, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Do not show progress
    #[arg(long, short)]
    pub quiet: bool,
    #[command(flatten)]
    pub later: Later<LaterLoad>,
}

later!(LaterLs { "tree" });

/// List this node's images
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm image ls --digests nginx")]
pub struct Ls {
    /// Show all images; there are no others here
    #[arg(long, short)]
    pub all: bool,
    /// Show digests
    #[arg(long)]
    pub digests: bool,
    /// dangling or reference
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    #[command(flatten)]
    pub list: ListArgs,
    /// Show ids in full
    #[arg(long)]
    pub no_trunc: bool,
    #[command(flatten)]
    pub later: Later<LaterLs>,
    /// Only this repository, or this image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub repository: Option<String>,
}

later!(LaterRm { "no-prune", "platform" = VALUE });

/// Remove images from this node
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm image rm nginx:1.26")]
pub struct Rm {
    /// Remove an image that has several names, or that stopped containers were made from
    #[arg(long, short)]
    pub force: bool,
    #[command(flatten)]
    pub later: Later<LaterRm>,
    /// Name or id of an image
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<String>,
}

/// Log in to a registry; the credentials go to ~/.rswarm/config.json
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm login --username me --password-stdin registry:5000 < password.txt")]
pub struct Login {
    /// Name at the registry
    #[arg(long, short, value_name = "NAME")]
    pub username: Option<String>,
    /// Other users of this machine may see it; better use --password-stdin
    #[arg(long, short, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// [default: Docker Hub]
    #[arg(value_name = "HOST[:PORT]")]
    pub server: Option<String>,
}

/// Forget the credentials for a registry
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  rswarm logout registry:5000")]
pub struct Logout {
    /// [default: Docker Hub]
    #[arg(value_name = "HOST[:PORT]")]
    pub server: Option<String>,
}
