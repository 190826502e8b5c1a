//! The lab: hosts as network namespaces on one machine, each running the shipped binary.
//!
//! A host has a network, mount and UTS namespace of its own (they outlive its processes), a disk, a run folder, a
//! cgroup parent, and a link to a switch, whose rules cut links. Everything that a lab made is found again from its
//! name alone, so that it can be removed by whoever comes later.

mod cgroup;
pub mod cluster;
mod command;
mod files;
mod host;
mod outside;
mod process;
mod remove;
mod switch;
mod wait;

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};

pub use self::command::Output;
pub use self::files::{binary, image};
pub use self::host::Host;
pub use self::outside::{NameServer, OUTSIDE, within};
pub use self::process::Identity as Process;
pub use self::remove::{gc, names, remove};
pub use self::wait::until;

/// The address part that all hosts share: 10.99.0.0/24 and fd99::/64 exist only inside a lab.
const SUBNET_V4: &str = "10.99.0";
const SUBNET_V6: &str = "fd99::";
/// The client's number in the subnet. Numbered hosts come before it, other neighbours after it.
const CLIENT: u8 = 100;
/// The switch's own number: the default route of every host.
const GATEWAY: u8 = 254;

/// Hosts on a switch. Dropping it removes everything, unless it was made to be kept.
pub struct Lab {
    name: String,
    hosts: Vec<Host>,
    is_kept: bool,
    is_opened: bool,
}

/// What a new lab shall be.
pub struct Builder {
    name: Option<String>,
    hosts: Vec<String>,
    neighbours: Vec<String>,
    binary: Option<PathBuf>,
    daemon_args: Vec<String>,
    is_kept: bool,
}

impl Builder {
    /// Hosts that run the daemon, in order: the first gets 10.99.0.1.
    #[must_use]
    pub fn hosts<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.hosts = names.into_iter().map(Into::into).collect();
        self
    }

    /// Hosts beside the client that run no daemon, such as a registry: the first gets 10.99.0.101.
    #[must_use]
    pub fn neighbours<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.neighbours = names.into_iter().map(Into::into).collect();
        self
    }

    /// The program to run as daemon and command line; otherwise [`binary`] finds it.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Arguments that every daemon is started with, such as `--insecure-registry registry:5000`.
    #[must_use]
    pub fn daemon_args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.daemon_args = args.into_iter().map(Into::into).collect();
        self
    }

    /// A lab that stays when this process ends, until [`remove`] is called with its name.
    #[must_use]
    pub fn kept(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self.is_kept = true;
        self
    }

    /// Makes the hosts. No daemon runs yet.
    ///
    /// # Errors
    /// If we are not root, a name cannot be one, a lab of this name exists, or the kernel refuses.
    pub fn build(self) -> Result<Lab> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        ensure!(nix::unistd::geteuid().is_root(), "the lab makes namespaces, mounts and cgroups: run it as root");
        gc()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = self.name.unwrap_or_else(|| format!("rsl{}x{count}", std::process::id()));
        check_name("lab", &name)?;
        ensure!(self.hosts.len() < usize::from(CLIENT), "at most {} hosts, not {}", CLIENT - 1, self.hosts.len());
        let numbered = (1_u8..).zip(&self.hosts).map(|(number, name)| (number, name.clone()));
        let others = std::iter::once("client".to_owned()).chain(self.neighbours);
        let plan: Vec<(u8, String)> = numbered.chain((CLIENT..GATEWAY).zip(others)).collect();
        for (index, (_, host)) in plan.iter().enumerate() {
            check_name("host", host)?;
            ensure!(plan.iter().take(index).all(|(_, other)| other != host), "two hosts are called {host}");
        }
        let binary = match self.binary {
            Some(path) => std::fs::canonicalize(&path).with_context(|| format!("no program at {}", path.display()))?,
            None => files::binary()?,
        };
        files::begin(&name, self.is_kept)?;
        // From here on dropping the lab removes what was made so far.
        let mut lab = Lab { name, hosts: Vec::new(), is_kept: false, is_opened: false };
        switch::make(&lab.name)?;
        let table: Vec<(String, u8)> = plan.iter().map(|(number, host)| (host.clone(), *number)).collect();
        for (number, host) in plan {
            let host = Host::new(&lab.name, &host, number, &binary, &self.daemon_args);
            host.save(&table)?;
            host.boot()?;
            lab.hosts.push(host);
        }
        lab.is_kept = self.is_kept;
        Ok(lab)
    }
}

impl Lab {
    /// Begins a lab: three managers to be, two workers to be, unless told otherwise.
    #[must_use]
    pub fn builder() -> Builder {
        Builder {
            name: None,
            hosts: ["m1", "m2", "m3", "w1", "w2"].map(str::to_owned).to_vec(),
            neighbours: Vec::new(),
            binary: None,
            daemon_args: Vec::new(),
            is_kept: false,
        }
    }

    /// A lab that another process made and kept. Dropping this leaves it as it is.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn open(name: &str) -> Result<Lab> {
        check_name("lab", name)?;
        let state = files::state(name);
        ensure!(state.is_dir(), "there is no lab called {name}");
        let mut hosts = Vec::new();
        for host in files::hosts(name)? {
            hosts.push(Host::load(name, &host)?);
        }
        hosts.sort_by_key(Host::number);
        Ok(Lab { name: name.to_owned(), hosts, is_kept: true, is_opened: true })
    }

    /// The lab's name, which begins the names of its namespaces and cgroups.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Every host, the client and other neighbours included, in order of address.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host called `name`.
    ///
    /// # Errors
    /// If there is none; the message lists those that there are.
    pub fn find(&self, name: &str) -> Result<&Host> {
        let host = self.hosts.iter().find(|h| h.name() == name);
        host.with_context(|| {
            let names: Vec<&str> = self.hosts.iter().map(Host::name).collect();
            format!("no host is called {name}; there are {}", names.join(", "))
        })
    }

    /// The host called `name`, for tests, which know their names.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn host(&self, name: &str) -> &Host {
        self.find(name).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The outside world: a host without a daemon, at 10.99.0.100.
    #[must_use]
    pub fn client(&self) -> &Host {
        self.host("client")
    }

    /// Drops every IP packet between two hosts. Neighbour discovery still works, as behind a firewall.
    ///
    /// # Errors
    /// If a host is unknown, or the rule is refused.
    pub fn cut(&self, a: &str, b: &str) -> Result<()> {
        self.cut_oneway(a, b)?;
        self.cut_oneway(b, a)
    }

    /// Drops every IP packet from one host to another; the way back stays open.
    ///
    /// # Errors
    /// As [`Lab::cut`].
    pub fn cut_oneway(&self, from: &str, to: &str) -> Result<()> {
        switch::cut(&self.name, self.find(from)?.name(), self.find(to)?.name())
    }

    /// Cuts a host off from all others.
    ///
    /// # Errors
    /// As [`Lab::cut`].
    pub fn isolate(&self, name: &str) -> Result<()> {
        let others: Vec<&str> = self.hosts.iter().map(Host::name).filter(|other| *other != name).collect();
        others.into_iter().try_for_each(|other| self.cut(name, other))
    }

    /// Opens every link again.
    ///
    /// # Errors
    /// If the switch refuses.
    pub fn heal(&self) -> Result<()> {
        switch::heal(&self.name)
    }

    /// Copies every host's logs and the state of its network to a folder, and returns it.
    ///
    /// # Errors
    /// If the folder cannot be written.
    pub fn collect(&self) -> Result<PathBuf> {
        let folder = files::bundle(&self.name);
        for host in &self.hosts {
            host.collect(&folder.join(host.name()))?;
        }
        Ok(folder)
    }

    /// Removes the lab now, and says what could not be removed.
    ///
    /// # Errors
    /// If something is left.
    pub fn down(mut self) -> Result<()> {
        self.is_kept = true; // nothing left to do on drop
        self.reap();
        remove(&self.name)
    }

    /// Ends the daemons that this process started, so that none is left a zombie.
    fn reap(&self) {
        for host in &self.hosts {
            host.reap();
        }
    }

    fn show_failure(&self) {
        match self.collect() {
            Ok(folder) => {
                eprintln!("lab {}: logs are in {}", self.name, folder.display());
                for host in &self.hosts {
                    host.show_tail();
                }
            }
            Err(error) => eprintln!("lab {}: cannot collect the logs: {error:#}", self.name),
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_opened {
            self.show_failure();
        }
        if self.is_kept {
            return;
        }
        self.reap();
        if let Err(error) = remove(&self.name) {
            eprintln!("lab {}: {error:#}", self.name);
        }
    }
}

/// Names become parts of paths, of interfaces (15 bytes) and of host names.
fn check_name(what: &str, name: &str) -> Result<()> {
    let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty()
        || name.len() > 15
        || !name.chars().all(is_good)
        || !name.starts_with(|c: char| c.is_alphabetic())
    {
        bail!("invalid {what} name {name:?}: 1 to 15 of a-z, 0-9 and -, a letter first");
    }
    Ok(())
}

/// An error that names the command and what it said.
fn failure(line: &str, status: ExitStatus, said: &str) -> anyhow::Error {
    anyhow::anyhow!("`{line}` ended with {status}: {}", said.trim())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_refused_if_it_cannot_be_an_interface_or_a_path() {
        for (name, is_good) in [
            ("m1", true),
            ("a-b", true),
            ("rsl4294967x0", true),
            ("", false),
            ("1m", false),
            ("M1", false),
            ("a/b", false),
            ("..", false),
            ("sixteen-letters-", false),
        ] {
            assert_eq!(check_name("host", name).is_ok(), is_good, "{name}");
        }
    }
}
