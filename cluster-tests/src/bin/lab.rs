//! The lab for a person: hosts as network namespaces that stay until they are taken down.
#![expect(clippy::print_stdout, reason = "a tool for people at a terminal")]

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use rswarm_cluster_tests::lab::{self, Host, Lab};

/// Hosts as network namespaces on this machine, each with the rswarm daemon.
#[derive(Parser)]
#[command(name = "lab")]
struct Arguments {
    /// Which lab; several may exist
    #[arg(long, global = true, default_value = "lab", env = "RSWARM_LAB")]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the hosts and start their daemons
    Up {
        /// How many (n1, n2, …), or their names, separated by commas
        #[arg(long, default_value = "5")]
        hosts: String,
        /// A host without a daemon, besides the client
        #[arg(long)]
        neighbour: Vec<String>,
        /// An argument for every daemon
        #[arg(long, allow_hyphen_values = true)]
        daemon_arg: Vec<String>,
        /// Leave the daemons to be started by hand
        #[arg(long)]
        no_daemons: bool,
    },
    /// Run a command on a host, with this terminal
    Exec {
        host: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Start a host's daemon, with further arguments
    Start {
        host: String,
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
    /// Kill a host's daemon with SIGKILL
    Kill { host: String },
    /// End a host's daemon with SIGTERM
    Stop { host: String },
    /// Stop a host's daemon with SIGSTOP
    Pause { host: String },
    /// Let a paused daemon go on
    Resume { host: String },
    /// Keep a process running on a host until the lab goes
    Spawn {
        host: String,
        process: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Cut a host's power: its disk stays
    Off { host: String },
    /// Boot a host after `off`, and start its daemon
    On { host: String },
    /// Drop all packets between two hosts
    Cut {
        from: String,
        to: String,
        /// Only those in this direction
        #[arg(long)]
        oneway: bool,
    },
    /// Cut a host off from all others
    Isolate { host: String },
    /// Open all links
    Heal,
    /// Show the hosts
    Status,
    /// Show the log of a host's daemon
    Logs { host: String },
    /// Copy the logs and the state of the network to a folder, and print it
    Collect,
    /// Remove the lab
    Down,
    /// Remove labs whose makers have died
    Gc,
}

/// How long a daemon may take to answer on its socket.
const READY: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.name, arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(name: &str, command: Command) -> Result<()> {
    let open = || Lab::open(name);
    match command {
        Command::Up { hosts, neighbour, daemon_arg, no_daemons } => up(name, &hosts, neighbour, daemon_arg, no_daemons),
        Command::Exec { host, command } => {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let error = open()?.find(&host)?.command(&words)?.exec();
            Err(error).with_context(|| format!("cannot run {}", command.join(" ")))
        }
        Command::Start { host, more } => {
            let words: Vec<&str> = more.iter().map(String::as_str).collect();
            let lab = open()?;
            lab.find(&host)?.start_daemon(&words)?;
            lab.find(&host)?.await_socket(READY).map(drop)
        }
        Command::Kill { host } => open()?.find(&host)?.sigkill_daemon(),
        Command::Stop { host } => open()?.find(&host)?.stop_daemon(READY),
        Command::Pause { host } => open()?.find(&host)?.pause(),
        Command::Resume { host } => open()?.find(&host)?.resume(),
        Command::Spawn { host, process, command } => {
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            open()?.find(&host)?.spawn(&process, &words)
        }
        Command::Off { host } => open()?.find(&host)?.power_off(),
        Command::On { host } => {
            let lab = open()?;
            let host = lab.find(&host)?;
            host.power_on()?;
            host.start_daemon(&[])?;
            host.await_socket(READY).map(drop)
        }
        Command::Cut { from, to, oneway: true } => open()?.cut_oneway(&from, &to),
        Command::Cut { from, to, oneway: false } => open()?.cut(&from, &to),
        Command::Isolate { host } => open()?.isolate(&host),
        Command::Heal => open()?.heal(),
        Command::Status => status(&open()?),
        Command::Logs { host } => {
            let path = open()?.find(&host)?.log("daemon");
            let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            print!("{}", String::from_utf8_lossy(&text));
            Ok(())
        }
        Command::Collect => {
            println!("{}", open()?.collect()?.display());
            Ok(())
        }
        Command::Down => lab::remove(name),
        Command::Gc => lab::gc(),
    }
}

fn up(name: &str, hosts: &str, neighbours: Vec<String>, args: Vec<String>, no_daemons: bool) -> Result<()> {
    let names: Vec<String> = match hosts.parse::<u8>() {
        Ok(0) => bail!("invalid --hosts 0: at least 1"),
        Ok(count) => (1..=count).map(|number| format!("n{number}")).collect(),
        Err(_) => hosts.split(',').map(str::to_owned).collect(),
    };
    let lab = Lab::builder().hosts(names.clone()).neighbours(neighbours).daemon_args(args).kept(name).build()?;
    if !no_daemons && let Err(error) = start(&lab, &names) {
        // Half a lab is of no use to anybody: it goes, once its logs are copied.
        let logs = lab.collect()?;
        lab.down()?;
        return Err(error.context(format!("the lab is removed again; its logs are in {}", logs.display())));
    }
    status(&lab)
}

fn start(lab: &Lab, names: &[String]) -> Result<()> {
    for name in names {
        lab.find(name)?.start_daemon(&[])?;
    }
    names.iter().try_for_each(|name| lab.find(name)?.await_socket(READY).map(drop))
}

fn status(lab: &Lab) -> Result<()> {
    println!("{:<15} {:<15} {:<12} DAEMON", "HOST", "ADDRESS", "ADDRESS");
    for host in lab.hosts() {
        println!("{:<15} {:<15} {:<12} {}", host.name(), host.address(), host.address_v6(), daemon(host));
    }
    Ok(())
}

fn daemon(host: &Host) -> String {
    match host.daemon_pid() {
        Ok(pid) => format!("pid {pid}, log {}", host.log("daemon").display()),
        Err(_) => "-".to_owned(),
    }
}
