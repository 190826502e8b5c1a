//! `cargo xtask demo`: five hosts, two applications, one leader less, and every answer on the screen.

mod cluster;
mod visits;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cluster::{Cluster, HOSTS, MANAGERS, Node};
use visits::Visits;

use crate::{Result, images, lab, sh};

/// A published port of each application.
const COUNTER: u16 = 8080;
const NGINX: u16 = 8081;

/// Brings the demo up, and leaves the cluster running for whoever wants to look around.
///
/// If a step fails, the logs are kept and the cluster is removed, unless `is_kept`.
pub fn up(is_kept: bool) -> Result<ExitCode> {
    lab::need_root("the demo")?;
    let began = Instant::now();
    step("building the daemon, the lab and the images");
    let program = lab::prepare()?.get_program().to_owned();
    images::build()?;
    let cluster = Cluster::new(&program);
    if cluster.exists() {
        step("removing the demo that was there");
        cluster.down()?;
    }
    match show(&cluster) {
        Ok(()) => {
            what_next(began.elapsed());
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if !cluster.exists() => Err(error),
        Err(error) => {
            eprintln!("\nerror: {error}\n");
            let logs = cluster.collect()?;
            if is_kept {
                println!("the cluster is still up; remove it: cargo xtask demo --down");
            } else {
                cluster.down()?;
                println!("the cluster is removed; to keep it for a look: cargo xtask demo --keep");
            }
            Err(format!("the demo stopped at the step above; the logs are in {logs}").into())
        }
    }
}

/// Removes all that the demo left.
pub fn down() -> Result<ExitCode> {
    lab::need_root("the demo")?;
    let program = lab::program()?.get_program().to_owned();
    Cluster::new(&program).down()?;
    println!("the demo is gone");
    Ok(ExitCode::SUCCESS)
}

fn show(cluster: &Cluster) -> Result<()> {
    step("five hosts as network namespaces, and a registry");
    cluster.up()?;
    step("a cluster: init, then join with the tokens it gave");
    form(cluster)?;
    step("images: loaded on m1, pushed to the registry, pulled by whoever runs them");
    for image in ["nginx", "redis", "counter-web"] {
        let archive = images::archive(image).display().to_string();
        cluster.show("m1", &["rswarm", "image", "load", "--input", &archive])?;
    }
    for reference in images::references(&["nginx", "redis", "counter-web"]) {
        cluster.show("m1", &["rswarm", "image", "push", &reference])?;
    }
    step("the counter: a stack of two services");
    let compose = sh::root().join("xtask/assets/counter/compose.yml").display().to_string();
    cluster.show("m1", &["rswarm", "stack", "deploy", "--compose-file", &compose, "counter"])?;
    cluster.show("m1", &["rswarm", "stack", "ps", "counter"])?;
    step("nginx: a service by hand");
    let nginx = images::references(&["nginx"]).concat();
    let publish = format!("{NGINX}:80");
    let create = ["rswarm", "service", "create", "--name", "nginx", "--replicas", "2", "--publish", &publish, &nginx];
    cluster.show("m1", &create)?;
    cluster.show("m1", &["rswarm", "service", "ls"])?;
    cluster.show("m1", &["rswarm", "service", "ps", "nginx"])?;
    step("every node answers on the published ports");
    answers(cluster)?;
    step("orders on a worker: refused, until a manager allows them");
    cluster.show_refused("w1", &["rswarm", "node", "ls"])?;
    cluster.show("m1", &["rswarm", "node", "update", "--control", "full", "w1"])?;
    cluster.show("w1", &["rswarm", "node", "ls"])?;
    step("the leader is killed");
    lose_leader(cluster)
}

/// One cluster of the five hosts.
fn form(cluster: &Cluster) -> Result<()> {
    let first = cluster.address("m1")?;
    cluster.show("m1", &["rswarm", "init", "--advertise-addr", &first])?;
    let token = |role: &str| cluster.ask("m1", &["rswarm", "join-token", "--quiet", role]);
    let (manager, worker) = (token("manager")?, token("worker")?);
    let remote = format!("{first}:2377");
    for host in &HOSTS[1..] {
        let token = if MANAGERS.contains(host) { &manager } else { &worker };
        let own = cluster.address(host)?;
        cluster.show(host, &["rswarm", "join", "--token", token.trim(), "--advertise-addr", &own, &remote])?;
    }
    let all_ready = || {
        let nodes = cluster.nodes("m1")?;
        let managers = nodes.iter().filter(|node| node.is_manager_in_touch()).count();
        Ok(nodes.iter().filter(|n| n.status == "Ready").count() == HOSTS.len() && managers == MANAGERS.len())
    };
    wait("every node is Ready", Duration::from_secs(60), all_ready)?;
    cluster.show("m1", &["rswarm", "node", "ls"])
}

/// Asks every node for the counter, twice, and for nginx once.
fn answers(cluster: &Cluster) -> Result<()> {
    let mut visits = Visits::default();
    for host in HOSTS.iter().cycle().take(2 * HOSTS.len()) {
        let body = cluster.curl(host, COUNTER)?;
        print!("client$ curl http://{host}:{COUNTER}/\n{body}");
        visits.see(&body)?;
    }
    visits.check()?;
    println!("the count rose with every visit, served by {} containers", visits.servers());
    for host in HOSTS {
        cluster.curl(host, NGINX)?;
    }
    println!("nginx answered on port {NGINX} of all {} nodes", HOSTS.len());
    Ok(())
}

/// Kills the leader's daemon and visits on, until the node is Down and for a while after.
fn lose_leader(cluster: &Cluster) -> Result<()> {
    /// How long visits go on after the node is Down: none of them may fail.
    const AFTER: Duration = Duration::from_secs(5);
    let leader = cluster.leader("m1")?;
    let rest: Vec<&str> = HOSTS.into_iter().filter(|host| *host != leader).collect();
    let other = *MANAGERS.iter().find(|host| **host != leader).ok_or("there is only one manager")?;
    println!("SIGKILL for the daemon of {leader}; its containers know nothing of it");
    cluster.lab(&["kill", &leader])?;
    let began = Instant::now();
    let (mut good, mut failed, mut failed_late) = (0, 0, 0);
    let mut down_after = None;
    loop {
        for host in &rest {
            match cluster.curl(host, COUNTER) {
                Ok(_) => good += 1,
                Err(_) if down_after.is_none() => failed += 1,
                Err(error) => {
                    eprintln!("after {leader} was Down: {error}");
                    failed_late += 1;
                }
            }
        }
        let now = began.elapsed();
        if down_after.is_none() && cluster.is_down(other, &leader) {
            println!("{leader} is Down after {:.1} s", now.as_secs_f64());
            down_after = Some(now);
        }
        match down_after {
            Some(then) if now > then + AFTER => break,
            None if now > Duration::from_secs(30) => return Err(format!("{leader} is not Down after 30 s").into()),
            _ => {}
        }
    }
    println!("{good} visits answered, {failed} failed before {leader} was Down, {failed_late} after");
    cluster.show(other, &["rswarm", "node", "ls"])?;
    cluster.show(other, &["rswarm", "stack", "ps", "counter"])?;
    if failed_late > 0 {
        return Err(format!("{failed_late} visits failed although {leader} was known to be Down").into());
    }
    println!("{leader} comes back with the same disk");
    cluster.lab(&["start", &leader])?;
    let is_back = |node: &Node| node.name == leader && node.status == "Ready" && node.is_manager_in_touch();
    let is_back = || Ok(cluster.nodes(other)?.iter().any(is_back));
    wait(&format!("{leader} is Ready and a manager again"), Duration::from_secs(60), is_back)?;
    cluster.show(other, &["rswarm", "node", "ls"])
}

fn what_next(took: Duration) {
    println!(
        "
The demo took {} s; the cluster stays up. What you could type next:

  cargo xtask lab exec --name demo m2 rswarm service scale counter_web=5
  cargo xtask lab exec --name demo m2 rswarm service logs counter_web
  cargo xtask lab exec --name demo m2 rswarm service update --image {}/counter-web:1 --force counter_web
  cargo xtask lab exec --name demo m2 rswarm node update --availability drain w1
  cargo xtask lab exec --name demo client curl http://w2:{COUNTER}/
  cargo xtask lab kill --name demo w2             SIGKILL for a daemon; `start` brings it back
  cargo xtask lab exec --name demo m2 bash        a shell on a host; exit leaves it
  cargo xtask lab status --name demo              the hosts, their addresses and logs

  cargo xtask demo --down                         remove everything",
        took.as_secs(),
        images::REGISTRY
    );
}

fn step(title: &str) {
    println!("\n== {title}");
}

/// Waits for a condition; an error of it is taken for "not yet", and shown if it lasts.
fn wait(what: &str, deadline: Duration, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    loop {
        let result = condition();
        if matches!(result, Ok(true)) {
            println!("{what}, after {:.1} s", began.elapsed().as_secs_f64());
            return Ok(());
        }
        if began.elapsed() > deadline {
            let last = result.err().map(|error| format!(": {error}")).unwrap_or_default();
            return Err(format!("not within {} s: {what}{last}", deadline.as_secs()).into());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
