//! `cargo xtask bench`: the shipped build, measured beside its peers on the same machine in the same run.

mod measure;
mod rows;
mod table;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use measure::Measure;

use crate::{Result, images, install, lab, sh};

/// The groups of rows, and the peers that are measured with each.
const GROUPS: &[(&str, &[&str])] = &[
    ("create", &["docker"]),
    ("containers", &["runc", "crun"]),
    ("leader", &["docker", "etcd"]),
    ("node", &["docker"]),
    ("writes", &["etcd"]),
    ("dns", &["dnsmasq"]),
    ("scheduler", &[]),
];

/// What a run found out.
#[derive(Default)]
struct Report {
    measures: Vec<Measure>,
    notes: Vec<String>,
    /// The scheduler's own table.
    scheduler: Vec<String>,
    not_measured: Vec<String>,
}

/// Measures the groups named, or all; `--peer` measures others beside us.
pub fn run(args: &[&str]) -> Result<ExitCode> {
    let has_peers = args.contains(&"--peer");
    let names: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--peer").collect();
    let known: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("nothing is measured by the name {name:?}\n       allowed: {}", known.join(", ")).into());
    }
    lab::need_root("the benchmark")?;
    install::ensure(&[install::DEMO])?;
    if has_peers {
        install::ensure(&[install::PEERS])?;
    }
    images::build()?;
    build()?;
    let mut report = Report::default();
    let disk = measured(&mut report, "disk", "disk");
    note_failure(&mut report, "disk", "disk", disk);
    for (group, peers) in GROUPS.iter().filter(|(group, _)| names.is_empty() || names.contains(group)) {
        eprintln!("\n== {group}");
        let ours = match *group {
            "scheduler" => scheduler(&mut report),
            "writes" => raft(&mut report).and_then(|()| measured(&mut report, group, "rswarm")),
            _ => measured(&mut report, group, "rswarm"),
        };
        note_failure(&mut report, group, "rswarm", ours);
        for peer in peers.iter().filter(|_| has_peers) {
            let theirs = measured(&mut report, group, peer);
            note_failure(&mut report, group, peer, theirs);
        }
    }
    print(&report, args)?;
    Ok(if report.not_measured.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One build, so that every program has the same features.
fn build() -> Result<()> {
    let mut command = sh::command("cargo", &["build", "--release"]);
    for package in ["rswarm", "rswarm-cluster-tests", "rswarm-raft", "rswarm-scheduler"] {
        command.args(["--package", package]);
    }
    command.args(["--bin", "rswarm", "--bin", "bench", "--example", "writes", "--example", "place"]);
    sh::run(&mut command)
}

fn program(name: &str) -> PathBuf {
    sh::target_dir().join("release").join(name)
}

/// Runs the measuring program for one group and one system.
fn measured(report: &mut Report, group: &str, who: &str) -> Result<()> {
    let mut command = sh::command(program("bench"), &[group, who]);
    command.env("RSWARM_BIN", program("rswarm")).env("RSWARM_IMAGES", images::dir());
    read_lines(&mut command, |line| {
        if let Some(measure) = Measure::parse(line) {
            report.measures.push(measure);
        } else if let Some(note) = line.strip_prefix("note\t") {
            report.notes.push(note.to_owned());
        }
    })
}

/// The consensus engine and the log alone, and the rates of the disk for groups of writes.
fn raft(report: &mut Report) -> Result<()> {
    // On the disk where the labs' hosts have theirs.
    let mut command = sh::command(program("examples/writes"), &["/var/lib"]);
    read_lines(&mut command, |line| report.measures.extend(measure::raft_line(line)))
}

fn scheduler(report: &mut Report) -> Result<()> {
    let mut command = sh::command(program("examples/place"), &[]);
    read_lines(&mut command, |line| report.scheduler.push(line.to_owned()))
}

/// Runs a program that must succeed, and takes each line of its standard output as it comes.
fn read_lines(command: &mut Command, mut take: impl FnMut(&str)) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start_error = |e: std::io::Error| format!("cannot run {name}: {e}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(start_error)?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            take(&line?);
        }
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("ended with {status}; its last words are above").into()) }
}

fn note_failure(report: &mut Report, group: &str, who: &str, result: Result<()>) {
    if let Err(error) = result {
        eprintln!("error: {group} of {who}: {error}");
        report.not_measured.push(format!("{group} of {who}: {error}"));
    }
}

fn print(report: &Report, args: &[&str]) -> Result<()> {
    println!("\n$ cargo xtask bench {}", args.join(" "));
    println!("{}\n", machine()?);
    print!("{}", table::table(&report.measures));
    if !report.scheduler.is_empty() {
        println!("\nscheduler, best of several runs:\n");
        for line in &report.scheduler {
            println!("{line}");
        }
    }
    println!();
    for note in &report.notes {
        println!("note: {note}");
    }
    for missing in &report.not_measured {
        println!("not measured: {missing}");
    }
    Ok(())
}

/// What the numbers were measured on.
fn machine() -> Result<String> {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo")?;
    let field = |key: &str| cpuinfo.lines().find(|line| line.starts_with(key)).and_then(|line| line.split_once(": "));
    let model = field("model name").map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let commit = sh::output(&mut sh::command("git", &["describe", "--always", "--dirty"])).unwrap_or_default();
    Ok(format!("{cores} x {model}, Linux {}, load at the end {load}, commit {}", kernel.trim(), commit.trim()))
}
