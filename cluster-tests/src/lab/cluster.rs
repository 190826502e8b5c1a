//! A cluster of a lab's hosts, driven by its command line as a person would, for tests: what must not fail panics.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Host, Lab, Output, Process, image, until};

/// How long a condition may take: several times what the slowest machine needs.
const DEADLINE: Duration = Duration::from_secs(90);
/// The test image, as the archive names it.
pub const BUSYBOX: &str = "busybox:1.35";
/// A web server for [`BUSYBOX`] on port 80: its pages name the container and the client.
pub const HTTPD: &str = "httpd -f -p 80 -h /www";

/// Managers `m1…` and workers `w1…`, each with a daemon, in one cluster.
pub struct Cluster {
    pub lab: Lab,
    managers: Vec<String>,
    workers: Vec<String>,
}

/// A line of `node ls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: String,
    pub name: String,
    pub status: String,
    pub availability: String,
    /// Leader, Reachable, Unreachable, or nothing for a worker.
    pub manager: String,
}

/// A line of `service ps --no-trunc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub id: String,
    /// `web.1`, without the mark of history.
    pub name: String,
    pub image: String,
    pub node: String,
    pub desired: String,
    /// The state without its age: `Running`.
    pub state: String,
    pub error: String,
    pub ports: String,
}

impl Task {
    fn parse(line: &str) -> Option<Task> {
        let mut words = line.split('\t').map(|word| word.trim().to_owned());
        let mut next = || words.next();
        let (id, name, image, node, desired) = (next()?, next()?, next()?, next()?, next()?);
        let name = name.trim_start_matches(['\\', '_', ' ']).to_owned();
        let state = next()?.split(' ').next().unwrap_or_default().to_owned();
        let (error, ports) = (next()?, next()?);
        Some(Task { id, name, image, node, desired, state, error, ports })
    }

    /// Whether it runs, and shall.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.desired == "Running" && self.state == "Running"
    }

    /// Whether it will never run again.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        ["Complete", "Shutdown", "Failed", "Rejected", "Remove", "Orphaned"].contains(&self.state.as_str())
    }
}

/// How a command was refused.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub code: i32,
    /// What it said on standard error.
    pub text: String,
}

impl Refusal {
    /// Checks the exit code, and that the text says all of `words`.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn says(&self, code: i32, words: &[&str]) {
        for word in words {
            assert!(self.text.contains(word), "{word:?} is not in: {}", self.text);
        }
        assert_eq!(self.code, code, "{}", self.text);
    }
}

/// Splits a command line at spaces; `'…'` keeps a word with spaces together.
#[must_use]
pub fn words(line: &str) -> Vec<String> {
    let (mut all, mut word, mut is_quoted, mut has_word) = (Vec::new(), String::new(), false, false);
    for c in line.chars() {
        match c {
            '\'' => (is_quoted, has_word) = (!is_quoted, true),
            ' ' if !is_quoted => {
                if has_word {
                    all.push(std::mem::take(&mut word));
                }
                has_word = false;
            }
            _ => {
                word.push(c);
                has_word = true;
            }
        }
    }
    if has_word {
        all.push(word);
    }
    all
}

/// Runs `rswarm LINE` on a host; its own failure is in the output.
///
/// # Panics
/// If it cannot be run.
#[track_caller]
pub fn rswarm(host: &Host, line: &str) -> Output {
    let words = words(line);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match host.rswarm(&words) {
        Ok(output) => output,
        Err(error) => panic!("{}: rswarm {line}: {error:#}", host.name()),
    }
}

/// Runs `rswarm LINE` on a host and returns what it printed.
///
/// # Panics
/// If it fails.
#[track_caller]
pub fn must(host: &Host, line: &str) -> String {
    let output = rswarm(host, line);
    assert!(
        output.is_success(),
        "{}$ rswarm {line}\nended with {}\n{}{}",
        host.name(),
        output.status,
        output.stdout,
        output.stderr
    );
    output.stdout
}

/// Runs `rswarm LINE` on a host, where it must fail.
///
/// # Panics
/// If it succeeds, or is killed.
#[track_caller]
pub fn refused(host: &Host, line: &str) -> Refusal {
    let output = rswarm(host, line);
    assert!(!output.is_success(), "{}$ rswarm {line}\nwas not refused\n{}", host.name(), output.stdout);
    let code = output.status.code().unwrap_or(-1);
    assert!(output.stderr.contains("error: "), "{}$ rswarm {line}\n{code}: {}", host.name(), output.stderr);
    Refusal { code, text: output.stderr }
}

impl Cluster {
    /// Makes the hosts, starts the daemons, forms the cluster and loads [`BUSYBOX`] everywhere.
    ///
    /// # Panics
    /// If anything of it fails.
    #[must_use]
    pub fn new(managers: usize, workers: usize) -> Cluster {
        Cluster::with(managers, workers, &[])
    }

    /// As [`Cluster::new`], with arguments for every daemon.
    ///
    /// # Panics
    /// If anything fails.
    #[must_use]
    pub fn with(managers: usize, workers: usize, daemon_args: &[&str]) -> Cluster {
        match Cluster::form(managers, workers, daemon_args) {
            Ok(cluster) => cluster,
            Err(error) => panic!("{error:#}"),
        }
    }

    fn form(managers: usize, workers: usize, daemon_args: &[&str]) -> Result<Cluster> {
        let named = |letter: char, count: usize| (1..=count).map(move |n| format!("{letter}{n}")).collect();
        let (managers, workers): (Vec<String>, Vec<String>) = (named('m', managers), named('w', workers));
        let hosts = managers.iter().chain(&workers).cloned();
        let lab = Lab::builder().hosts(hosts).daemon_args(daemon_args.iter().copied()).build()?;
        let cluster = Cluster { lab, managers, workers };
        for name in cluster.names() {
            start(cluster.host(name))?;
        }
        let first = cluster.host("m1");
        must(first, &format!("init --advertise-addr {}", first.address()));
        for name in cluster.names().skip(1) {
            cluster.join(name)?;
        }
        let (nodes, voters) = (cluster.names().count(), cluster.managers.len());
        cluster.until("every node is Ready", || {
            let nodes_now = cluster.nodes_as_seen_by("m1");
            let in_touch = nodes_now.iter().filter(|n| n.manager == "Leader" || n.manager == "Reachable").count();
            nodes_now.iter().filter(|n| n.status == "Ready").count() == nodes && in_touch == voters
        });
        for name in cluster.names() {
            load(cluster.host(name), "busybox")?;
        }
        Ok(cluster)
    }

    /// Joins a host, whose daemon runs, as what its name says it is.
    ///
    /// # Errors
    /// If it is refused.
    pub fn join(&self, name: &str) -> Result<()> {
        let host = self.lab.find(name)?;
        let manager = self.any_manager().context("no manager's daemon runs")?;
        let role = if name.starts_with('m') { "manager" } else { "worker" };
        let token = rswarm(manager, &format!("join-token --quiet {role}")).text()?;
        let line =
            format!("join --token {} --advertise-addr {} {}:2377", token.trim(), host.address(), manager.address());
        rswarm(host, &line).text().map(drop)
    }

    /// The names of all its hosts, managers first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.managers.iter().chain(&self.workers).map(String::as_str)
    }

    /// The names of the workers to be.
    pub fn workers(&self) -> impl Iterator<Item = &str> {
        self.workers.iter().map(String::as_str)
    }

    /// A host.
    ///
    /// # Panics
    /// If there is none of this name.
    #[must_use]
    #[track_caller]
    pub fn host(&self, name: &str) -> &Host {
        self.lab.host(name)
    }

    fn any_manager(&self) -> Option<&Host> {
        self.managers.iter().map(|name| self.host(name)).find(|host| host.is_daemon_running())
    }

    /// A manager whose daemon runs.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn manager(&self) -> &Host {
        let Some(host) = self.any_manager() else { panic!("no manager's daemon runs") };
        host
    }

    /// Runs `rswarm LINE` on a manager and returns what it printed.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn run(&self, line: &str) -> String {
        must(self.manager(), line)
    }

    /// Creates a service and waits until it runs. Tests do not sit out the five seconds after which it is stable.
    ///
    /// # Panics
    /// If it fails.
    #[track_caller]
    pub fn create(&self, line: &str) -> String {
        self.run(&format!("service create --update-monitor 300ms --rollback-monitor 300ms {line}"))
    }

    /// Waits until `condition` holds, with a generous deadline.
    ///
    /// # Panics
    /// If it does not: with the state of the cluster.
    #[track_caller]
    pub fn until(&self, what: &str, condition: impl FnMut() -> bool) -> Duration {
        match until(what, DEADLINE, condition) {
            Ok(took) => took,
            Err(error) => panic!("{error:#}\n{}", self.state()),
        }
    }

    /// Checks that `condition` holds all the time for so long.
    ///
    /// # Panics
    /// If it does not: with the state of the cluster.
    #[track_caller]
    pub fn throughout(&self, what: &str, time: Duration, mut condition: impl FnMut() -> bool) {
        let began = std::time::Instant::now();
        while began.elapsed() < time {
            assert!(condition(), "{what}: not so after {:.1} s\n{}", began.elapsed().as_secs_f64(), self.state());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// What `node ls` says on a host; nothing while it is refused.
    #[must_use]
    pub fn nodes_as_seen_by(&self, name: &str) -> Vec<Node> {
        let format = r"{{.ID}}\t{{.Hostname}}\t{{.Status}}\t{{.Availability}}\t{{.ManagerStatus}}";
        let output = rswarm(self.host(name), &format!("node ls --format '{format}'"));
        if !output.is_success() {
            return Vec::new();
        }
        let nodes = output.stdout.lines().filter_map(|line| {
            let mut words = line.split('\t').map(|word| word.trim().to_owned());
            let id = words.next()?.trim_end_matches([' ', '*']).to_owned();
            Some(Node {
                id,
                name: words.next()?,
                status: words.next()?,
                availability: words.next()?,
                manager: words.next()?,
            })
        });
        nodes.collect()
    }

    /// What a running manager says of a node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Node> {
        self.nodes_as_seen_by(self.any_manager()?.name()).into_iter().find(|node| node.name == name)
    }

    /// Whether a running manager knows a node to be Ready.
    #[must_use]
    pub fn is_ready(&self, name: &str) -> bool {
        self.node(name).is_some_and(|node| node.status == "Ready")
    }

    /// Whether a running manager knows a node to be Down.
    #[must_use]
    pub fn is_down(&self, name: &str) -> bool {
        self.node(name).is_some_and(|node| node.status == "Down")
    }

    /// The name of the leader, as a running manager knows it.
    #[must_use]
    pub fn leader(&self) -> Option<String> {
        let nodes = self.nodes_as_seen_by(self.any_manager()?.name());
        nodes.into_iter().find(|node| node.manager == "Leader").map(|node| node.name)
    }

    /// The tasks of a service, history included; none while no manager answers.
    #[must_use]
    pub fn tasks(&self, service: &str) -> Vec<Task> {
        const FORMAT: &str =
            r"{{.ID}}\t{{.Name}}\t{{.Image}}\t{{.Node}}\t{{.DesiredState}}\t{{.CurrentState}}\t{{.Error}}\t{{.Ports}}";
        let Some(manager) = self.any_manager() else { return Vec::new() };
        let output = rswarm(manager, &format!("service ps --no-trunc --format '{FORMAT}' {service}"));
        if output.is_success() { output.stdout.lines().filter_map(Task::parse).collect() } else { Vec::new() }
    }

    /// Those of them that run and shall.
    #[must_use]
    pub fn running(&self, service: &str) -> Vec<Task> {
        let mut tasks = self.tasks(service);
        tasks.retain(Task::is_running);
        tasks
    }

    /// The names of the nodes where a service's tasks run.
    #[must_use]
    pub fn nodes_of(&self, service: &str) -> BTreeSet<String> {
        self.running(service).into_iter().map(|task| task.node).collect()
    }

    /// Waits until exactly so many tasks of a service run, and no other one lives.
    ///
    /// # Panics
    /// If they do not in time.
    #[track_caller]
    pub fn await_running(&self, service: &str, count: usize) -> Vec<Task> {
        let mut running = Vec::new();
        self.until(&format!("{count} of {service} run"), || {
            let (living, ended): (Vec<_>, Vec<_>) = self.tasks(service).into_iter().partition(|t| !t.has_ended());
            drop(ended);
            running = living;
            running.len() == count && running.iter().all(Task::is_running)
        });
        running
    }

    /// The processes of containers called `name` on all hosts, each with its host.
    #[must_use]
    pub fn processes(&self, name: &str) -> BTreeSet<(String, Process)> {
        let hosts = self.names().map(|host| self.host(host));
        hosts.flat_map(|host| host.container_processes(name).into_iter().map(|p| (host.name().to_owned(), p))).collect()
    }

    /// What the client gets from a host's published port, if it answers within a second.
    #[must_use]
    pub fn visit(&self, host: &str, port: u16, path: &str) -> Option<String> {
        let url = format!("http://{}:{port}/{path}", self.host(host).address());
        let output = self.lab.client().exec(&["curl", "--silent", "--fail", "--max-time", "1", &url]);
        output.ok()?.text().ok().map(|text| text.trim().to_owned())
    }

    /// The newest running container of a service on a host, as `rswarm ps` names it there.
    #[must_use]
    pub fn container(&self, host: &str, service: &str) -> Option<String> {
        let output = rswarm(self.host(host), &format!("ps --quiet --no-trunc --filter service={service}"));
        output.text().ok()?.lines().next().map(str::to_owned)
    }

    /// Runs a command in the namespaces of a container's process called `name` on a host, as an intruder would.
    ///
    /// # Panics
    /// If there is not exactly one, or the command cannot be run.
    #[track_caller]
    pub fn inside(&self, host: &str, name: &str, args: &[&str]) -> Output {
        let found: Vec<Process> = self.host(host).container_processes(name).into_iter().collect();
        let [process] = found[..] else { panic!("{} processes called {name} on {host}, not one", found.len()) };
        let pid = process.pid.to_string();
        let line = [&["nsenter", "--target", &pid, "--mount", "--uts", "--net", "--pid", "--"], args].concat();
        match self.lab.client().exec(&line) {
            Ok(output) => output,
            Err(error) => panic!("{host}: {}: {error:#}", args.join(" ")),
        }
    }

    /// What the cluster says of itself, for the message of a failure.
    #[must_use]
    pub fn state(&self) -> String {
        let Some(manager) = self.any_manager() else { return "no manager's daemon runs".to_owned() };
        let mut text = String::new();
        let mut show = |line: &str| {
            let output = rswarm(manager, line);
            let _ = write!(text, "{}$ rswarm {line}\n{}{}", manager.name(), output.stdout, output.stderr);
            output.stdout
        };
        show("node ls");
        show("service ls");
        let services = show("service ls --quiet").split_whitespace().collect::<Vec<_>>().join(" ");
        if !services.is_empty() {
            show(&format!("service ps --no-trunc {services}"));
        }
        text
    }
}

/// Starts a host's daemon and waits until it answers.
///
/// # Errors
/// If it does not.
pub fn start(host: &Host) -> Result<()> {
    host.start_daemon(&[])?;
    host.await_socket(Duration::from_secs(30)).map(drop)
}

/// Loads one of the images of `cargo xtask images` on a host.
///
/// # Errors
/// If it was not built, or is refused.
pub fn load(host: &Host, name: &str) -> Result<()> {
    let archive = image(name)?;
    let Some(archive) = archive.to_str() else { bail!("{} is no text", archive.display()) };
    ensure!(!archive.contains([' ', '\'']), "{archive}: a path without spaces and quotes is needed");
    rswarm(host, &format!("image load --quiet --input {archive}")).text().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_spaces_outside_quotes() {
        for (line, wanted) in [
            ("node ls", &["node", "ls"][..]),
            ("  a   b ", &["a", "b"]),
            ("--format '{{.ID}} {{.Name}}' x", &["--format", "{{.ID}} {{.Name}}", "x"]),
            ("--env A='1 2' ''", &["--env", "A=1 2", ""]),
        ] {
            assert_eq!(words(line), wanted, "{line}");
        }
    }

    #[test]
    fn a_line_of_service_ps_is_a_task_without_age_and_tree() {
        let task =
            Task::parse("id\t \\_ web.1\tbusybox:1.35\tw1\tShutdown\tFailed 3 seconds ago\t\"task: x\"\t").unwrap();
        assert_eq!((task.name.as_str(), task.state.as_str(), task.error.as_str()), ("web.1", "Failed", "\"task: x\""));
        assert!(task.has_ended() && !task.is_running());
        assert_eq!(Task::parse("half\ta line"), None);
    }
}
