//! `init`, `join`, `join-token`, `leave`.

use rswarm_api::{Wire, pb};
use rswarm_types::NodeId;
use rswarm_types::spec::{Availability, Role};

use crate::args::cluster::{Addresses, Init, Join, JoinToken, Leave};
use crate::client::Client;
use crate::errors::{Error, Result};
use crate::output::{line, note, out};
use crate::specs;

fn availability(addresses: &Addresses) -> Result<i32> {
    let read: std::result::Result<Availability, _> = addresses.availability.parse();
    match read {
        Ok(availability) => Ok(availability.to_pb()),
        Err(error) => Err(Error::Usage(format!("invalid --availability {error}"))),
    }
}

pub async fn init(client: &Client, args: Init) -> Result<()> {
    let (spec, availability) = specs::cluster_spec(&args)?;
    let request = pb::InitRequest {
        advertise_address: args.addresses.advertise_addr.clone(),
        listen_address: args.addresses.listen_addr.clone(),
        data_path_address: args.addresses.data_path_addr.clone(),
        availability: availability.to_pb(),
        spec: Some(spec.to_pb()),
    };
    let reply = client.node(request, async |mut c, r| c.init(r).await).await?;
    let node: NodeId = Wire::from_pb(reply.node)?;
    out(&format!(
        "Swarm initialized: this node ({node}) is now a manager.\n\n\
         To add a worker to this swarm, run on it:\n\n    \
         rswarm join --token {} {}\n\n\
         To add a manager to this swarm, run here `rswarm join-token manager` and do what it says.\n",
        reply.worker_token, reply.address
    ))
}

pub async fn join(client: &Client, args: Join) -> Result<()> {
    let request = pb::JoinRequest {
        remote: args.remote,
        token: args.token,
        advertise_address: args.addresses.advertise_addr.clone(),
        listen_address: args.addresses.listen_addr.clone(),
        data_path_address: args.addresses.data_path_addr.clone(),
        availability: availability(&args.addresses)?,
    };
    let reply = client.node(request, async |mut c, r| c.join(r).await).await?;
    let role: Role = Wire::from_pb(reply.role)?;
    line(&format!("This node joined a swarm as a {role}."))
}

pub async fn join_token(client: &Client, args: JoinToken) -> Result<()> {
    let role: Role = args.role.parse().map_err(|e| Error::Usage(format!("invalid ROLE {e}")))?;
    let is_manager = role == Role::Manager;
    let tokens = if args.rotate {
        let request = pb::RotateTokensRequest { worker: !is_manager, manager: is_manager };
        client.change(request, async |mut c, r| c.rotate_tokens(r).await).await?
    } else {
        client.read(pb::Empty {}, async |mut c, r| c.get_tokens(r).await).await?
    };
    let token = if is_manager { tokens.manager } else { tokens.worker };
    if args.quiet {
        return line(&token);
    }
    if args.rotate {
        note(&format!("Successfully rotated {role} join token.\n\n"));
    }
    let info = client.node(pb::Empty {}, async |mut c, r| c.info(r).await).await?;
    let address = match (info.is_manager, info.managers.first()) {
        (false, Some(manager)) => manager.clone(),
        _ => info.advertise_address,
    };
    out(&format!("To add a {role} to this swarm, run on it:\n\n    rswarm join --token {token} {address}\n\n"))
}

pub async fn leave(client: &Client, args: Leave) -> Result<()> {
    client.node(pb::LeaveRequest { force: args.force }, async |mut c, r| c.leave(r).await).await?;
    line("Node left the swarm.")
}
