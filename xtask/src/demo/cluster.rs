//! The demo's hosts, reached through the lab's program.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::wait;
use crate::{Result, images, sh};

pub const MANAGERS: [&str; 3] = ["m1", "m2", "m3"];
pub const HOSTS: [&str; 5] = ["m1", "m2", "m3", "w1", "w2"];

/// The lab's name, and where it is known by the kernel.
const NAME: &str = "demo";
const STATE: &str = "/run/rswarm-lab/demo";
/// The registry's disk, from outside; on its host it is `/var/lib/rswarm`.
const REGISTRY_DISK: &str = "/var/lib/rswarm-lab/demo/registry/data";

/// A line of `node ls`.
#[derive(Debug, PartialEq)]
pub struct Node {
    pub name: String,
    pub status: String,
    /// Leader, Reachable, Unreachable, or nothing for a worker.
    pub manager: String,
}

impl Node {
    pub fn is_manager_in_touch(&self) -> bool {
        ["Leader", "Reachable"].contains(&self.manager.as_str())
    }
}

pub struct Cluster {
    program: OsString,
}

impl Cluster {
    pub fn new(program: &OsStr) -> Cluster {
        Cluster { program: program.to_owned() }
    }

    pub fn exists(&self) -> bool {
        Path::new(STATE).exists()
    }

    /// Makes the hosts, starts their daemons and the registry.
    pub fn up(&self) -> Result<()> {
        let hosts = HOSTS.join(",");
        let insecure = ["--daemon-arg", "--insecure-registry", "--daemon-arg", images::REGISTRY];
        self.lab(&[&["up", "--hosts", &hosts, "--neighbour", "registry"][..], &insecure].concat())?;
        let config = "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n    rootdirectory: /var/lib/rswarm/blobs\nhttp:\n  addr: :5000\n";
        std::fs::write(Path::new(REGISTRY_DISK).join("registry.yml"), config)?;
        self.lab(&["spawn", "registry", "registry", "docker-registry", "serve", "/var/lib/rswarm/registry.yml"])?;
        let url = format!("http://{}/v2/", images::REGISTRY);
        let answers = || self.ask("client", &["curl", "--silent", "--fail", "--max-time", "2", &url]).map(|_| true);
        wait("the registry answers", Duration::from_secs(20), answers)
    }

    /// Removes everything; nothing there is no error.
    pub fn down(&self) -> Result<()> {
        self.lab(&["down"])
    }

    /// Copies the logs; returns the folder.
    pub fn collect(&self) -> Result<String> {
        Ok(sh::output(&mut self.command(&["collect"]))?.trim().to_owned())
    }

    /// A command of the lab's program, with its output on our terminal.
    pub fn lab(&self, args: &[&str]) -> Result<()> {
        let status = sh::status(&mut self.command(args))?;
        if status.success() { Ok(()) } else { Err(format!("the lab's `{}` failed", args.join(" ")).into()) }
    }

    /// Shows a command on a host and what it prints; it must succeed.
    pub fn show(&self, host: &str, args: &[&str]) -> Result<()> {
        if self.shown(host, args)? { Ok(()) } else { Err(format!("that command failed on {host}").into()) }
    }

    /// Shows a command that must fail.
    pub fn show_refused(&self, host: &str, args: &[&str]) -> Result<()> {
        if self.shown(host, args)? {
            return Err(format!("that command was not refused on {host}").into());
        }
        Ok(())
    }

    fn shown(&self, host: &str, args: &[&str]) -> Result<bool> {
        // A token is a secret: nobody's recording of the demo shall carry it.
        let words: Vec<&str> = args.iter().map(|a| if a.starts_with("SWMTKN-") { "SWMTKN-1-…" } else { a }).collect();
        println!("{host}$ {}", words.join(" "));
        Ok(sh::status(&mut self.on(host, args))?.success())
    }

    /// Runs a command quietly and returns what it prints.
    pub fn ask(&self, host: &str, args: &[&str]) -> Result<String> {
        sh::output(&mut self.on(host, args))
    }

    /// What a node answers to the client on a published port, within a second.
    pub fn curl(&self, host: &str, port: u16) -> Result<String> {
        let url = format!("http://{host}:{port}/");
        self.ask("client", &["curl", "--silent", "--show-error", "--fail", "--max-time", "1", &url])
    }

    /// A host's IPv4 address.
    pub fn address(&self, host: &str) -> Result<String> {
        let hosts = self.ask(host, &["cat", "/etc/hosts"])?;
        let mut lines = hosts.lines().filter_map(|line| line.split_once(' '));
        let found = lines.find(|(address, name)| *name == host && !address.contains(':'));
        Ok(found.ok_or_else(|| format!("{host} has no address in /etc/hosts"))?.0.to_owned())
    }

    /// The cluster's nodes, as `host` knows them.
    pub fn nodes(&self, host: &str) -> Result<Vec<Node>> {
        let format = "{{.Hostname}},{{.Status}},{{.ManagerStatus}}";
        let text = self.ask(host, &["rswarm", "node", "ls", "--format", format])?;
        Ok(text.lines().filter_map(node).collect())
    }

    /// Whether `host` knows that `name` is Down; while it cannot say, it does not.
    pub fn is_down(&self, host: &str, name: &str) -> bool {
        self.nodes(host).is_ok_and(|nodes| nodes.iter().any(|n| n.name == name && n.status == "Down"))
    }

    /// The name of the leader.
    pub fn leader(&self, host: &str) -> Result<String> {
        let leader = self.nodes(host)?.into_iter().find(|n| n.manager == "Leader");
        Ok(leader.ok_or("no node is the leader")?.name)
    }

    fn on(&self, host: &str, args: &[&str]) -> Command {
        self.command(&[&["exec", host], args].concat())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = sh::command(&self.program, args);
        command.env("RSWARM_LAB", NAME).env("RSWARM_BIN", crate::lab::binary("rswarm"));
        command
    }
}

fn node(line: &str) -> Option<Node> {
    let mut words = line.trim().split(',').map(str::to_owned);
    Some(Node { name: words.next()?, status: words.next()?, manager: words.next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_node_ls_is_read_with_and_without_a_manager_status() {
        let read = |line| node(line).map(|n| (n.name, n.status, n.manager));
        assert_eq!(read("m1,Ready,Leader"), Some(("m1".into(), "Ready".into(), "Leader".into())));
        assert_eq!(read("w1,Down,"), Some(("w1".into(), "Down".into(), String::new())));
        assert_eq!(read("nonsense"), None);
    }
}
