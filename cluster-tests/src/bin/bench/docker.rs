//! Docker's daemons as a swarm, one on each host of a lab.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use rswarm_cluster_tests::lab::{Host, Lab, image};
use serde_json::{Value, json};

use crate::http;
use crate::swarm::{NETWORK, Quorum, Swarm, await_until};

/// Debian's, whatever else is in the PATH.
const CLI: &str = "/usr/bin/docker";
const DAEMON: &str = "/usr/sbin/dockerd";
/// The process, among those of a host.
const PROCESS: &str = "dockerd";

pub struct Docker {
    lab: Lab,
    managers: Vec<String>,
    workers: Vec<String>,
}

impl Docker {
    /// Managers m1… and workers w1…, with the image loaded and the network made.
    pub fn new(managers: usize, workers: usize) -> Result<Docker> {
        let named = |letter: char, count: usize| (1..=count).map(move |n| format!("{letter}{n}")).collect();
        let (managers, workers): (Vec<String>, Vec<String>) = (named('m', managers), named('w', workers));
        let lab = Lab::builder().hosts(managers.iter().chain(&workers).cloned()).binary(DAEMON).build()?;
        let docker = Docker { lab, managers, workers };
        for name in docker.hosts() {
            docker.start(name)?;
        }
        let archive = image("busybox")?.display().to_string();
        let first = docker.lab.find("m1")?.address();
        docker.on("m1", &["swarm", "init", "--advertise-addr", &first])?;
        for name in docker.hosts() {
            docker.on(name, &["load", "--quiet", "--input", &archive])?;
            if name == "m1" {
                continue;
            }
            let role = if name.starts_with('m') { "manager" } else { "worker" };
            let token = docker.on("m1", &["swarm", "join-token", "--quiet", role])?;
            let own = docker.lab.find(name)?.address();
            let remote = format!("{first}:2377");
            docker.on(name, &["swarm", "join", "--token", token.trim(), "--advertise-addr", &own, &remote])?;
        }
        docker.await_whole()?;
        docker.cli(&["network", "create", "--driver", "overlay", NETWORK])?;
        Ok(docker)
    }

    fn hosts(&self) -> impl Iterator<Item = &str> {
        self.managers.iter().chain(&self.workers).map(String::as_str)
    }

    fn ask(&self, host: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        http::ask(&socket(self.lab.find(host)?), method, path, body)
    }

    fn on(&self, host: &str, args: &[&str]) -> Result<String> {
        let address = format!("unix://{}", socket(self.lab.find(host)?).display());
        let output = Command::new(CLI).args(["--host", &address]).args(args).output().context("cannot run docker")?;
        if !output.status.success() {
            bail!("docker {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn nodes(&self, asked: &str) -> Result<Vec<Value>> {
        Ok(self.ask(asked, "GET", "/nodes", None)?.as_array().cloned().unwrap_or_default())
    }
}

/// In the run folder, which can be reached from outside.
fn socket(host: &Host) -> PathBuf {
    host.socket().with_file_name("docker.sock")
}

impl Quorum for Docker {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn members(&self) -> Vec<&str> {
        self.managers.iter().map(String::as_str).collect()
    }

    fn leader(&self, asked: &str) -> Result<String> {
        let nodes = self.nodes(asked)?;
        let leader =
            nodes.iter().find(|node| node["ManagerStatus"]["Leader"] == true).context("no node is the leader")?;
        Ok(leader["Description"]["Hostname"].as_str().context("a node without a name")?.to_owned())
    }

    fn is_whole(&self) -> bool {
        // Every manager must know it by itself.
        self.managers.iter().all(|manager| {
            let nodes = self.nodes(manager).unwrap_or_default();
            let ready = nodes.iter().filter(|node| node["Status"]["State"] == "ready").count();
            let in_touch = nodes.iter().filter(|node| node["ManagerStatus"]["Reachability"] == "reachable").count();
            ready == self.hosts().count() && in_touch == self.managers.len()
        })
    }

    fn write(&self, host: &str, name: &str) -> Result<()> {
        self.ask(host, "POST", "/configs/create", Some(&json!({ "Name": name, "Data": "eA==" }))).map(drop)
    }

    fn kill(&self, host: &str) -> Result<()> {
        self.lab.find(host)?.kill(PROCESS)
    }

    fn start(&self, name: &str) -> Result<()> {
        let host = self.lab.find(name)?;
        let parent = host.cgroup_parent();
        let mut words = vec![DAEMON, "--data-root", "/var/lib/rswarm/docker", "--exec-root", "/run/docker"];
        words.extend(["--pidfile", "/run/docker.pid", "--host", "unix:///run/rswarm/docker.sock"]);
        words.extend(["--storage-driver", "overlay2", "--cgroup-parent", &parent]);
        host.spawn(PROCESS, &words)?;
        await_until("dockerd answers", || self.ask(name, "GET", "/version", None).is_ok())
    }
}

impl Swarm for Docker {
    fn cli(&self, args: &[&str]) -> Result<String> {
        self.on("m1", args)
    }

    fn running(&self, service: &str) -> Result<Vec<String>> {
        let names: BTreeMap<String, String> = self.nodes("m1")?.iter().filter_map(id_and_name).collect();
        let filter =
            http::quoted(&json!({ "service": { service: true }, "desired-state": { "running": true } }).to_string());
        let tasks = self.ask("m1", "GET", &format!("/tasks?filters={filter}"), None)?;
        let running = tasks.as_array().into_iter().flatten().filter(|task| task["Status"]["State"] == "running");
        Ok(running.filter_map(|task| names.get(task["NodeID"].as_str()?).cloned()).collect())
    }

    fn containers(&self, host: &str) -> Result<usize> {
        Ok(self.ask(host, "GET", "/containers/json?all=1", None)?.as_array().map_or(0, Vec::len))
    }

    fn workers(&self) -> Vec<&str> {
        self.workers.iter().map(String::as_str).collect()
    }
}

fn id_and_name(node: &Value) -> Option<(String, String)> {
    Some((node["ID"].as_str()?.to_owned(), node["Description"]["Hostname"].as_str()?.to_owned()))
}
