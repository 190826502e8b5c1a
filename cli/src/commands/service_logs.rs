//! `service logs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use futures::StreamExt;
use futures::stream::{BoxStream, SelectAll};
use rswarm_api::{Wire, pb};
use rswarm_types::session::LogLine;
use rswarm_types::task::Task;
use rswarm_types::task_state::TaskState;
use rswarm_types::{ServiceId, TaskId};
use tonic::Streaming;

use super::{names, service_named};
use crate::args::service::Logs;
use crate::client::{Client, reference};
use crate::errors::{Error, Result};
use crate::logs::{Style, line, prefix, since, tail, unknown_prefix};
use crate::output::{note, write};
use crate::view::{NodeNames, Progress};

/// What is needed to say whose line it is.
struct Printer {
    style: Style,
    nodes: NodeNames,
    prefixes: BTreeMap<TaskId, (String, ServiceId)>,
    /// Problems that were told, each once.
    problems: BTreeSet<String>,
}

/// What a follower hears of.
enum Heard {
    Logs(std::result::Result<pb::StreamData, tonic::Status>),
    Tasks(Box<std::result::Result<pb::ServiceProgress, tonic::Status>>),
}

pub async fn run(client: &Client, args: Logs) -> Result<()> {
    let style = Style::from(&args);
    let request = pb::LogsRequest {
        name: args.target.clone(),
        follow: args.follow,
        tail: tail(&args.tail)?,
        since_ns: args.since.as_deref().map_or(Ok(0), |text| since(text, jiff::Timestamp::now()))?,
    };
    let mut printer =
        Printer { style, nodes: names(client).await?, prefixes: BTreeMap::new(), problems: BTreeSet::new() };
    let service = match service_named(client, &args.target).await {
        Ok(view) => Some(view.service.id),
        Err(Error::NotFound(_)) => None,
        Err(error) => return Err(error),
    };
    match service {
        Some(id) if args.follow => follow(client, id, request, &mut printer).await?,
        Some(id) => {
            let list = pb::ListTasksRequest { service: id.to_string(), ..Default::default() };
            let tasks = client.read(list, async |mut c, r| c.list_tasks(r).await).await?;
            let tasks: Vec<Task> = Wire::from_pb(tasks.tasks)?;
            printer.learn(&tasks);
            printer.print_all(client, open(client, request).await?).await?;
        }
        None => {
            let task = client.read(reference(&args.target), async |mut c, r| c.get_task(r).await).await;
            let task = match task {
                Ok(task) => Wire::from_pb(task)?,
                Err(Error::NotFound(_)) => {
                    return Err(Error::NotFound(format!("no such service or task: \"{}\"", args.target)));
                }
                Err(error) => return Err(error),
            };
            printer.learn(&[task]);
            printer.print_all(client, open(client, request).await?).await?;
        }
    }
    if printer.problems.is_empty() { Ok(()) } else { Err(Error::Failed("the logs are incomplete".into())) }
}

async fn open(client: &Client, request: pb::LogsRequest) -> Result<Streaming<pb::StreamData>> {
    client.read(request, async |mut c, r| c.logs(r).await).await
}

/// Shows what is there and what comes, also of tasks that start later, until the service is gone.
async fn follow(client: &Client, service: ServiceId, request: pb::LogsRequest, printer: &mut Printer) -> Result<()> {
    let mut heard: SelectAll<BoxStream<'static, Heard>> = SelectAll::new();
    heard.push(client.watch_service(&service.to_string()).await?.map(|news| Heard::Tasks(Box::new(news))).boxed());
    let mut followed: BTreeSet<TaskId> = BTreeSet::new();
    let mut is_first = true;
    while let Some(next) = heard.next().await {
        match next {
            Heard::Logs(Ok(data)) => printer.print(data)?,
            Heard::Logs(Err(status)) => printer.tell(status.message()),
            Heard::Tasks(news) => match *news {
                Ok(message) => {
                    let progress = Progress::read(message)?;
                    printer.learn(&progress.tasks);
                    for task in &progress.tasks {
                        if task.status.state < TaskState::Starting || task.node.is_none() || !followed.insert(task.id) {
                            continue;
                        }
                        let mut one = pb::LogsRequest { name: task.id.to_string(), ..request.clone() };
                        // What starts later is shown from its start.
                        one.tail = one.tail.filter(|_| is_first);
                        match open(client, one).await {
                            Ok(stream) => heard.push(stream.map(Heard::Logs).boxed()),
                            Err(error) => printer.tell(&error.to_string()),
                        }
                    }
                    is_first = false;
                }
                // The manager stopped: another one goes on telling.
                Err(_) => {
                    let news = client.watch_service(&service.to_string()).await?;
                    heard.push(news.map(|news| Heard::Tasks(Box::new(news))).boxed());
                }
            },
        }
    }
    Ok(())
}

impl Printer {
    fn learn(&mut self, tasks: &[Task]) {
        for task in tasks {
            self.prefixes.insert(task.id, (prefix(task, &self.nodes, self.style), task.service));
        }
    }

    async fn print_all(&mut self, client: &Client, mut stream: Streaming<pb::StreamData>) -> Result<()> {
        while let Some(data) = stream.message().await.map_err(|status| client.explain(status))? {
            self.print(data)?;
        }
        Ok(())
    }

    fn print(&mut self, data: pb::StreamData) -> Result<()> {
        if !data.error.is_empty() {
            self.tell(&data.error);
        }
        let lines: Vec<LogLine> = Wire::from_pb(data.lines)?;
        for one in lines {
            let unknown = || (unknown_prefix(one.task), ServiceId::default());
            let (prefix, service) = self.prefixes.get(&one.task).cloned().unwrap_or_else(unknown);
            let bytes = line(&one, &prefix, &service.to_string(), self.style);
            if one.is_stderr {
                // Whoever closed stderr does not want it.
                let _ = std::io::stderr().lock().write_all(&bytes);
            } else {
                write(&bytes)?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, problem: &str) {
        if self.problems.insert(problem.to_owned()) {
            note(&format!("warning: {problem}\n"));
        }
    }
}
