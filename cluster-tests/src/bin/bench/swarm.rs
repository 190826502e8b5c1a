//! What every system under measurement must offer, so that all are measured by the same code.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rswarm_cluster_tests::lab::Lab;

/// The image of every service.
pub const IMAGE: &str = "busybox:1.35";
/// An overlay network that exists before anything is measured.
pub const NETWORK: &str = "bench";
/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Members that agree by quorum: ours, Docker's managers, etcd's members.
pub trait Quorum: Sync {
    /// The name in the table.
    fn name(&self) -> &'static str;
    /// The hosts.
    fn lab(&self) -> &Lab;
    /// The names of the hosts with a vote.
    fn members(&self) -> Vec<&str>;
    /// The leader's host, asked of one of them.
    fn leader(&self, asked: &str) -> Result<String>;
    /// Whether every host is in touch.
    fn is_whole(&self) -> bool;
    /// One small change, asked of a host; returns once a quorum has it on disk.
    fn write(&self, host: &str, name: &str) -> Result<()>;
    /// Kills a host's daemon with SIGKILL.
    fn kill(&self, host: &str) -> Result<()>;
    /// Starts a host's daemon again.
    fn start(&self, host: &str) -> Result<()>;

    /// Waits until every host is in touch.
    fn await_whole(&self) -> Result<()> {
        await_until("every host is in touch", || self.is_whole())
    }
}

/// Members that also run services.
pub trait Swarm: Quorum {
    /// Runs the command line program against the first manager: both understand Docker's words.
    fn cli(&self, args: &[&str]) -> Result<String>;
    /// The names of the hosts where tasks of a service run, one for each task, asked of the first manager's API.
    fn running(&self, service: &str) -> Result<Vec<String>>;
    /// How many containers there are on a host, in any state, asked of its API.
    fn containers(&self, host: &str) -> Result<usize>;
    /// The names of the hosts that are workers only.
    fn workers(&self) -> Vec<&str>;

    /// Creates a service that sleeps, without waiting for it.
    fn create(&self, service: &str, flags: &[&str]) -> Result<()> {
        let head = ["service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", service];
        // A shell's child would ignore SIGTERM as process 1: nobody shall wait for that.
        let quick = ["--stop-grace-period", "100ms"];
        self.cli(&[&head, &quick[..], flags, &[IMAGE, "sleep", "100000"]].concat()).map(drop)
    }

    /// Removes a service and waits until its containers are gone everywhere.
    fn remove(&self, service: &str) -> Result<()> {
        self.cli(&["service", "rm", service])?;
        let hosts: Vec<&str> = self.members().into_iter().chain(self.workers()).collect();
        let is_gone = |host: &&str| self.containers(host).is_ok_and(|count| count == 0);
        await_until("the containers are gone", || hosts.iter().all(is_gone))?;
        // What follows shall not compete with the last of the cleaning.
        std::thread::sleep(Duration::from_millis(500));
        Ok(())
    }

    /// Waits until so many tasks of a service run, none of them on the host `but`; the last look says where.
    fn await_running(&self, service: &str, count: usize, but: Option<&str>) -> Result<Vec<String>> {
        let began = Instant::now();
        let period = if count < 10 { Duration::from_millis(2) } else { Duration::from_millis(20) };
        loop {
            let mut hosts = self.running(service)?;
            hosts.retain(|host| Some(host.as_str()) != but);
            if hosts.len() == count {
                return Ok(hosts);
            }
            if began.elapsed() > PATIENCE {
                bail!("{}: {} of {count} tasks of {service} run after {PATIENCE:?}", self.name(), hosts.len());
            }
            std::thread::sleep(period);
        }
    }
}

/// Waits for something that is not measured.
pub fn await_until(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !condition() {
        if began.elapsed() > PATIENCE {
            bail!("{what}: not within {PATIENCE:?}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
