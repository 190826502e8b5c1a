//! One host: its namespaces, disk and processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;

use super::command::{self, Output, tool};
use super::process::{self, Identity};
use super::wait::until;
use super::{SUBNET_V4, SUBNET_V6, cgroup, files, remove, shown, switch};

/// The run folder, as the host sees it.
const RUN_DIR: &str = "/run/rswarm";
/// Programs of the lab, before the machine's own.
const BIN_DIR: &str = "/run/lab/bin";
/// How long a command may take unless told otherwise.
const DEADLINE: Duration = Duration::from_secs(60);
/// The name of the daemon among a host's processes.
const DAEMON: &str = "daemon";

/// What a new host does first, in its fresh namespaces: a /run, /sys, disk and names of its own.
const BOOT: &str = r#"
mount() { command mount -n "$@"; } # no notes in /run/mount, which changes under our feet
hostname "$1"; state=$2; disk=$3; binary=$4
awk '$2 ~ /^\/run\/(netns|rswarm-lab)/ { print $2 }' /proc/self/mounts > "$disk/others"
mount -t tmpfs -o mode=755 tmpfs "$disk/new"
mkdir -p "$disk/new/rswarm" "$disk/new/lab/bin" "$disk/new/lock"
ln -s "$binary" "$disk/new/lab/bin/rswarm"
mount --bind "$state/run" "$disk/new/rswarm"
# Another lab may go while we look: then the kernel has taken its mounts from here already.
sort -r "$disk/others" | while read -r mount; do
    umount -n -l "$mount" 2> "$disk/error" || ! grep -qF " $mount " /proc/self/mounts || { cat "$disk/error" >&2; exit 1; }
done
rm -f "$disk/others" "$disk/error"
resolv=$(readlink -m /etc/resolv.conf)
mount --move "$disk/new" /run
mkdir -p "$(dirname "$resolv")"
[ -e "$resolv" ] || : > "$resolv"
mount --bind "$disk/etc/resolv.conf" "$resolv"
mount --bind "$disk/etc/hosts" /etc/hosts
mount --bind "$disk/etc/rswarm" /etc/rswarm
mount --bind "$disk/data" /var/lib/rswarm
mount -t sysfs sysfs "$disk/new"
mount --rbind /sys/fs/cgroup "$disk/new/fs/cgroup"
mount --move "$disk/new" /sys
"#;

/// Joins the cgroups named before `--`, then becomes the rest.
const ENTER: &str = r#"while [ "$1" != -- ]; do echo $$ > "$1"; shift; done; shift; exec "$@""#;

/// Goes where the caller was, if that exists here.
const THERE: &str = r#"cd "$0" 2>/dev/null || cd /; exec "$@""#;

/// A host of a [`super::Lab`].
#[derive(Debug)]
pub struct Host {
    lab: String,
    name: String,
    number: u8,
    binary: PathBuf,
    daemon_args: Vec<String>,
    /// Processes that we started ourselves, and must wait for; others' are known by their pid files.
    children: Mutex<BTreeMap<String, Child>>,
}

/// The name of a host's network namespace.
pub fn namespace(lab: &str, host: &str) -> String {
    format!("{lab}-{host}")
}

/// The file that holds it, as `ip netns` does.
pub fn network_file(lab: &str, host: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace(lab, host))
}

impl Host {
    pub(super) fn new(lab: &str, name: &str, number: u8, binary: &Path, daemon_args: &[String]) -> Host {
        Host {
            lab: lab.to_owned(),
            name: name.to_owned(),
            number,
            binary: binary.to_path_buf(),
            daemon_args: daemon_args.to_vec(),
            children: Mutex::default(),
        }
    }

    /// Writes what [`Host::load`] reads, and the host's own configuration files.
    pub(super) fn save(&self, table: &[(String, u8)]) -> Result<()> {
        for folder in ["data", "etc/rswarm", "new"] {
            std::fs::create_dir_all(self.disk().join(folder))?;
        }
        let config = format!("cgroup-parent = \"{}\"\n", self.cgroup_parent());
        std::fs::write(self.disk().join("etc/rswarm/config.toml"), config)?;
        std::fs::create_dir_all(self.state().join("run"))?;
        let mut text = format!("number {}\nbinary {}\n", self.number, self.binary.display());
        for arg in &self.daemon_args {
            text.push_str(&format!("arg {arg}\n"));
        }
        std::fs::write(self.state().join("host"), text)?;
        let mut hosts = "127.0.0.1 localhost\n::1 localhost\n".to_owned();
        for (name, number) in table {
            hosts.push_str(&format!("{SUBNET_V4}.{number} {name}\n{SUBNET_V6}{number} {name}\n"));
        }
        std::fs::write(self.disk().join("etc/hosts"), hosts)?;
        // Names from outside are asked of the client, where a test may answer them.
        let resolver = format!("nameserver {SUBNET_V4}.{}\noptions timeout:1 attempts:1\n", super::CLIENT);
        std::fs::write(self.disk().join("etc/resolv.conf"), resolver)?;
        Ok(())
    }

    /// A host that another process made.
    pub(super) fn load(lab: &str, name: &str) -> Result<Host> {
        let path = files::state(lab).join(name).join("host");
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let (mut number, mut binary, mut args) = (None, PathBuf::new(), Vec::new());
        for (key, value) in text.lines().filter_map(|line| line.split_once(' ')) {
            match key {
                "number" => number = value.parse().ok(),
                "binary" => binary = value.into(),
                "arg" => args.push(value.to_owned()),
                _ => bail!("{}: unknown line {key:?}", path.display()),
            }
        }
        let number = number.with_context(|| format!("{}: no number", path.display()))?;
        Ok(Host::new(lab, name, number, &binary, &args))
    }

    /// Makes the namespaces and plugs the host in.
    pub(super) fn boot(&self) -> Result<()> {
        let namespace = namespace(&self.lab, &self.name);
        let state = self.state();
        tool(&["ip", "netns", "add", &namespace])?;
        switch::plug(&self.lab, &self.name, &namespace, self.number)?;
        cgroup::make(&self.lab, &self.name)?;
        // In memory, as /run is on a real host; mounted here so that its sockets can be reached from outside.
        let run = state.join("run");
        tool(&["mount", "-t", "tmpfs", "-o", "mode=755", "rswarm-lab", &shown(&run)])?;
        for file in ["mnt", "uts"] {
            std::fs::write(state.join(file), "")?;
        }
        let network = format!("--net={}", network_file(&self.lab, &self.name).display());
        let mount = format!("--mount={}", state.join("mnt").display());
        let uts = format!("--uts={}", state.join("uts").display());
        let (binary, disk) = (shown(&self.binary), shown(&self.disk()));
        let words = ["nsenter", &network, "unshare", &mount, &uts, "--propagation", "private", "sh", "-e", "-c", BOOT];
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).args(["boot", &self.name, &shown(&state), &disk, &binary]);
        let line = format!("booting {}", self.name);
        command::run(command.env("PATH", command::path()), &line, DEADLINE)?.text().map(drop)
    }

    /// Its name, which is also its host name, and its port's on the switch.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn number(&self) -> u8 {
        self.number
    }

    /// Its IPv4 address on `eth0`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{SUBNET_V4}.{}", self.number)
    }

    /// Its IPv6 address on `eth0`.
    #[must_use]
    pub fn address_v6(&self) -> String {
        format!("{SUBNET_V6}{}", self.number)
    }

    /// The file that holds its network namespace.
    #[must_use]
    pub fn network(&self) -> PathBuf {
        network_file(&self.lab, &self.name)
    }

    /// Its disk's data folder, as seen from outside (`/var/lib/rswarm` on the host).
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.disk().join("data")
    }

    /// The daemon's socket, as seen from outside (`/run/rswarm/rswarm.sock` on the host).
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.state().join("run/rswarm.sock")
    }

    /// The cgroup that the host's configuration file tells the daemon to put containers below.
    #[must_use]
    pub fn cgroup_parent(&self) -> String {
        cgroup::parent(&self.lab, &self.name)
    }

    /// The processes called `name` in this host's containers; restarted ones are others.
    #[must_use]
    pub fn container_processes(&self, name: &str) -> BTreeSet<Identity> {
        let parent = self.cgroup_parent();
        let below = format!(":{parent}/");
        // The host's own processes are in a leaf called `system`.
        let is_contained = |pid: u32| {
            let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            cgroups.lines().filter_map(|line| line.split_once(&below)).any(|(_, leaf)| leaf != "system")
        };
        let named = |pid: u32| process::called(pid).as_deref() == Some(name);
        let found = cgroup::processes(&parent).into_iter().filter(|pid| is_contained(*pid) && named(*pid));
        found.filter_map(Identity::of).collect()
    }

    /// The log of the daemon, or of a process started by [`Host::spawn`].
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.disk().join(format!("{name}.log"))
    }

    fn state(&self) -> PathBuf {
        files::state(&self.lab).join(&self.name)
    }

    fn disk(&self) -> PathBuf {
        files::disk(&self.lab).join(&self.name)
    }

    /// Starts the daemon, with the lab's arguments and these. It may not be ready yet: [`Host::await_socket`].
    ///
    /// # Errors
    /// If it runs already, or cannot be started.
    pub fn start_daemon(&self, more: &[&str]) -> Result<()> {
        let (binary, args) = (shown(&self.binary), self.daemon_args.iter().map(String::as_str));
        let mut words = vec![binary.as_str(), "daemon"];
        words.extend(args.chain(more.iter().copied()));
        self.spawn(DAEMON, &words)
    }

    /// Waits until the daemon's socket takes connections.
    ///
    /// # Errors
    /// If it does not in time: with the end of the daemon's log.
    pub fn await_socket(&self, deadline: Duration) -> Result<Duration> {
        let socket = self.socket();
        let answers = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        until(&format!("{}: the daemon answers", self.name), deadline, answers)
            .with_context(|| format!("the daemon's log ends with:\n{}", self.tail(DAEMON)))
    }

    /// Whether the daemon runs (also when paused).
    #[must_use]
    pub fn is_daemon_running(&self) -> bool {
        self.daemon().is_ok_and(|process| process.is_alive())
    }

    /// The daemon's process id, as seen from outside.
    ///
    /// # Errors
    /// If it does not run.
    pub fn daemon_pid(&self) -> Result<u32> {
        let process = self.daemon()?;
        ensure!(process.is_alive(), "the daemon of {} does not run", self.name);
        Ok(process.pid)
    }

    /// Kills the daemon with SIGKILL and waits until it is gone. Shims, netd and containers stay.
    ///
    /// # Errors
    /// If it does not run.
    pub fn sigkill_daemon(&self) -> Result<()> {
        self.end_daemon(Signal::SIGKILL, Duration::from_secs(10))
    }

    /// Ends the daemon with SIGTERM and waits until it is gone.
    ///
    /// # Errors
    /// If it does not run, or does not end in time.
    pub fn stop_daemon(&self, deadline: Duration) -> Result<()> {
        self.end_daemon(Signal::SIGTERM, deadline)
    }

    /// Stops the daemon's process (SIGSTOP): it keeps its connections and says nothing.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> Result<()> {
        self.daemon()?.signal(Signal::SIGSTOP)
    }

    /// Lets a paused daemon go on.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> Result<()> {
        self.daemon()?.signal(Signal::SIGCONT)
    }

    /// Kills the daemon if it runs, and starts it again on the same disk, with the lab's arguments only.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn restart(&self) -> Result<()> {
        if self.is_daemon_running() {
            self.sigkill_daemon()?;
        }
        self.start_daemon(&[])
    }

    /// A power cut: the link goes first, so that nobody hears the end; then every process, namespace and mount. The
    /// disk stays.
    ///
    /// # Errors
    /// If something is left.
    pub fn power_off(&self) -> Result<()> {
        remove::power_off(&self.lab, &self.name)?;
        self.reap();
        Ok(())
    }

    /// Boots after [`Host::power_off`]. No daemon runs yet.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn power_on(&self) -> Result<()> {
        self.boot()
    }

    /// Runs the command line program against this host's daemon.
    ///
    /// # Errors
    /// If it cannot be run or does not end within a minute; its own failure is in the output.
    pub fn rswarm(&self, args: &[&str]) -> Result<Output> {
        let binary = shown(&self.binary);
        let socket = format!("unix://{RUN_DIR}/rswarm.sock");
        self.exec(&[&[binary.as_str(), "-H", &socket], args].concat())
    }

    /// Runs a command on this host.
    ///
    /// # Errors
    /// If it cannot be run or does not end within a minute; its own failure is in the output.
    pub fn exec(&self, args: &[&str]) -> Result<Output> {
        self.exec_within(args, DEADLINE)
    }

    /// Runs a command on this host, which may take up to `deadline`.
    ///
    /// # Errors
    /// As [`Host::exec`].
    pub fn exec_within(&self, args: &[&str], deadline: Duration) -> Result<Output> {
        let line = format!("{}: {}", self.name, args.join(" "));
        command::run(&mut self.command(args)?, &line, deadline)
    }

    /// The body that a URL answers, asked from this host, within five seconds.
    ///
    /// # Errors
    /// If there is no answer, or one with a status of 400 or above.
    pub fn curl(&self, url: &str) -> Result<String> {
        self.exec(&["curl", "--silent", "--show-error", "--fail", "--max-time", "5", url])?.text()
    }

    /// A command that will run on this host when it is spawned or executed, with the streams it is given.
    ///
    /// # Errors
    /// If the host is off.
    pub fn command(&self, args: &[&str]) -> Result<Command> {
        let state = self.state();
        let network = network_file(&self.lab, &self.name);
        ensure!(network.exists(), "host {} is off", self.name);
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "enter"]).args(cgroup::make(&self.lab, &self.name)?).arg("--");
        command.arg("nsenter").arg(format!("--net={}", network.display()));
        command.arg(format!("--mount={}", state.join("mnt").display()));
        command.arg(format!("--uts={}", state.join("uts").display()));
        command.args(["sh", "-c", THERE]).arg(std::env::current_dir().unwrap_or_default()).args(args);
        command.env("PATH", format!("{BIN_DIR}:{}", command::path()));
        command.env("RSWARM_HOST", format!("unix://{RUN_DIR}/rswarm.sock"));
        Ok(command)
    }

    /// Starts a process that runs until the lab goes, or [`Host::kill`] is called with this name. Its output goes to
    /// [`Host::log`].
    ///
    /// # Errors
    /// If one of this name runs, or it cannot be started.
    pub fn spawn(&self, name: &str, args: &[&str]) -> Result<()> {
        let file = self.pid_file(name);
        ensure!(Identity::read(&file).is_none_or(|p| !p.is_alive()), "{name} runs on {} already", self.name);
        let log = OpenOptions::new().create(true).append(true).open(self.log(name))?;
        let mut command = self.command(args)?;
        command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {name} on {}", self.name))?;
        let process = Identity::of(child.id()).with_context(|| format!("{name} ended at once on {}", self.name))?;
        if let Some(mut old) = self.children().insert(name.to_owned(), child) {
            old.wait()?;
        }
        process.write(&file)
    }

    /// Kills a process started by [`Host::spawn`] and waits until it is gone.
    ///
    /// # Errors
    /// If it does not run.
    pub fn kill(&self, name: &str) -> Result<()> {
        self.end(name, Signal::SIGKILL, Duration::from_secs(10))
    }

    fn end_daemon(&self, signal: Signal, deadline: Duration) -> Result<()> {
        self.end(DAEMON, signal, deadline)
    }

    fn end(&self, name: &str, signal: Signal, deadline: Duration) -> Result<()> {
        let process = self.process(name)?;
        process.signal(signal)?;
        until(&format!("{}: {name} has ended by {signal}", self.name), deadline, || !process.is_alive())?;
        if let Some(mut child) = self.children().remove(name) {
            child.wait()?;
        }
        Ok(())
    }

    fn daemon(&self) -> Result<Identity> {
        self.process(DAEMON)
    }

    fn process(&self, name: &str) -> Result<Identity> {
        Identity::read(&self.pid_file(name)).with_context(|| format!("{name} was never started on {}", self.name))
    }

    fn pid_file(&self, name: &str) -> PathBuf {
        self.state().join(format!("{name}.pid"))
    }

    fn children(&self) -> MutexGuard<'_, BTreeMap<String, Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends and waits for the processes that we started ourselves.
    pub(super) fn reap(&self) {
        for (name, mut child) in std::mem::take(&mut *self.children()) {
            let _ = child.kill();
            if let Err(error) = child.wait() {
                eprintln!("lab: {}: {name}: {error}", self.name);
            }
        }
    }

    /// Copies the logs, and writes down the state of the network.
    pub(super) fn collect(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for entry in std::fs::read_dir(self.disk())?.flatten() {
            if entry.path().extension().is_some_and(|e| e == "log") {
                std::fs::copy(entry.path(), folder.join(entry.file_name()))?;
            }
        }
        let mut text = String::new();
        for line in [
            "ip -d address",
            "ip route show table all",
            "ip rule",
            "ip netns",
            "bridge fdb",
            "nft list ruleset",
            "ss -anp",
            "ps axf",
        ] {
            let words: Vec<&str> = line.split(' ').collect();
            let said = match self.exec(&words) {
                Ok(output) => output.stdout + &output.stderr,
                Err(error) => format!("{error:#}\n"),
            };
            text.push_str(&format!("$ {line}\n{said}\n"));
        }
        Ok(std::fs::write(folder.join("network.txt"), text)?)
    }

    /// Prints the end of the daemon's log, if there is one.
    pub(super) fn show_tail(&self) {
        if self.log(DAEMON).exists() {
            eprintln!("-- {}: the daemon's log ends with:\n{}", self.name, self.tail(DAEMON));
        }
    }

    fn tail(&self, name: &str) -> String {
        let text = std::fs::read(self.log(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}
