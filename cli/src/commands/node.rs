//! `node …`.

use rswarm_api::{Wire, pb};
use rswarm_types::spec::{NodeSpec, Role};
use rswarm_types::task::Task;

use super::{names, nodes};
use crate::args::node::{Inspect, Ls, Node, Ps, Rm, Update};
use crate::client::{Client, reference, retry_stale};
use crate::docker_json;
use crate::errors::{Error, Result};
use crate::filter::Filters;
use crate::human::now;
use crate::output::{line, out};
use crate::render;
use crate::trust::Trust;
use crate::view::NodeView;
use crate::{inspect, specs};

pub async fn run(client: &Client, command: Node) -> Result<()> {
    match command {
        Node::Ls(args) => ls(client, args).await,
        Node::Inspect(args) => inspect(client, args).await,
        Node::Update(args) => update(client, args).await,
        Node::Promote(args) => change_role(client, &args.nodes, Role::Manager).await,
        Node::Demote(args) => change_role(client, &args.nodes, Role::Worker).await,
        Node::Rm(args) => rm(client, args).await,
        Node::Ps(args) => ps(client, args).await,
    }
}

async fn node_named(client: &Client, name: &str) -> Result<NodeView> {
    let view = client.read(reference(name), async |mut c, r| c.get_node(r).await).await?;
    Ok(NodeView::read(view)?)
}

async fn ls(client: &Client, args: Ls) -> Result<()> {
    let filters = Filters::parse(&args.filter, &render::node::FILTERS)?;
    out(&render::node::listing(nodes(client).await?, &filters)?.show(&args.list)?)
}

async fn inspect(client: &Client, args: Inspect) -> Result<()> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in &args.nodes {
        match node_named(client, name).await {
            Ok(view) => found.push(view),
            Err(error) => missing.push(error),
        }
    }
    let trust = trust(client).await;
    if args.inspect.pretty {
        let pages: Vec<String> = found.iter().map(|view| render::pretty_node::text(view, trust.as_ref())).collect();
        out(&pages.join("\n"))?;
        return Error::gather(missing);
    }
    let found = found.iter().map(|view| docker_json::node(view, trust.as_ref())).collect();
    inspect::print(found, missing, args.inspect.format.as_deref())
}

/// The cluster's root certificate; an inspection goes on without it.
async fn trust(client: &Client) -> Option<Trust> {
    let cluster = client.read(pb::Empty {}, async |mut c, r| c.get_cluster(r).await).await.ok()?;
    Trust::read(&cluster.root?.certificate)
}

/// Changes a node's spec, anew if the node changed meanwhile.
async fn change(
    client: &Client,
    name: &str,
    change: impl Fn(&NodeView, &mut NodeSpec) -> Result<bool>,
) -> Result<bool> {
    retry_stale(async || {
        let view = node_named(client, name).await?;
        let mut spec = view.node.spec.clone();
        if !change(&view, &mut spec)? {
            return Ok(false);
        }
        let request = pb::UpdateNodeRequest {
            name: view.node.id.to_string(),
            version: view.node.meta.version,
            spec: Some(spec.to_pb()),
        };
        client.change(request, async |mut c, r| c.update_node(r).await).await?;
        Ok(true)
    })
    .await
}

async fn update(client: &Client, args: Update) -> Result<()> {
    change(client, &args.node, |_, spec| specs::change_node(&args, spec).map(|()| true)).await?;
    line(&args.node)
}

async fn change_role(client: &Client, nodes: &[String], role: Role) -> Result<()> {
    let mut failed = Vec::new();
    for name in nodes {
        let result = change(client, name, |view, spec| {
            spec.role = role;
            Ok(view.node.spec.role != role)
        })
        .await;
        match (result, role) {
            (Ok(true), Role::Manager) => line(&format!("Node {name} promoted to a manager in the swarm."))?,
            (Ok(true), Role::Worker) => line(&format!("Manager {name} demoted in the swarm."))?,
            (Ok(false), role) => line(&format!("Node {name} is already a {role}."))?,
            (Err(error), _) => failed.push(error),
        }
    }
    Error::gather(failed)
}

async fn rm(client: &Client, args: Rm) -> Result<()> {
    let mut failed = Vec::new();
    for name in args.nodes {
        let request = pb::RemoveNodeRequest { name: name.clone(), force: args.force };
        match client.change(request, async |mut c, r| c.remove_node(r).await).await {
            Ok(_) => line(&name)?,
            Err(error) => failed.push(error),
        }
    }
    Error::gather(failed)
}

async fn ps(client: &Client, args: Ps) -> Result<()> {
    let filters = Filters::parse(&args.tasks.filter, &render::task::NODE_FILTERS)?;
    let wanted = if args.nodes.is_empty() { vec!["self".to_owned()] } else { args.nodes };
    let (mut tasks, mut missing) = (Vec::new(), Vec::new());
    for node in wanted {
        let request = pb::ListTasksRequest { node, ..Default::default() };
        match client.read(request, async |mut c, r| c.list_tasks(r).await).await {
            Ok(list) => {
                let more: Vec<Task> = Wire::from_pb(list.tasks)?;
                tasks.extend(more);
            }
            Err(error) => missing.push(error),
        }
    }
    tasks.sort_by_key(|task| task.id);
    tasks.dedup_by_key(|task| task.id);
    let nodes = names(client).await?;
    let shown = render::task::Shown {
        nodes: &nodes,
        no_resolve: args.tasks.no_resolve,
        no_trunc: args.tasks.no_trunc,
        now: now(),
    };
    out(&render::task::listing(tasks, &filters, shown)?.show(&args.tasks.list)?)?;
    Error::gather(missing)
}
