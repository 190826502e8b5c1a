//! How long things take: `bench ROW WHO`, one group of measurements of one system. `cargo xtask bench` runs all of
//! them, builds what they need, and makes a table of what this prints.
//!
//! One line per measurement: `result`, its key, who was measured, the unit, and every value, separated by tabs. Notes
//! are lines that begin with `note`.
#![expect(clippy::print_stdout, reason = "its output is read by cargo xtask bench")]

mod containers;
mod create;
mod disk;
mod dns;
mod docker;
mod etcd;
mod failover;
mod http;
mod rswarm;
mod swarm;
mod writes;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;

use self::docker::Docker;
use self::etcd::Etcd;
use self::rswarm::Rswarm;

/// The name under which this project's own figures go.
const OURS: &str = "rswarm";

/// One group of measurements.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// create, leader, node, writes, containers, dns or disk
    row: String,
    /// Whom to measure: rswarm, docker, etcd, runc, crun or dnsmasq, as far as the row knows them
    who: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.row, &arguments.who) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(row: &str, who: &str) -> Result<()> {
    match (row, who) {
        ("create", "rswarm") => create::run(&Rswarm::new(1, 0)?),
        ("create", "docker") => create::run(&Docker::new(1, 0)?),
        ("leader", "rswarm") => failover::leader(&Rswarm::new(3, 0)?, 20),
        ("leader", "docker") => failover::leader(&Docker::new(3, 0)?, 5),
        ("leader", "etcd") => failover::leader(&Etcd::new()?, 20),
        ("node", "rswarm") => failover::node(&Rswarm::new(3, 2)?, 10),
        ("node", "docker") => failover::node(&Docker::new(3, 2)?, 3),
        ("writes", "rswarm") => Rswarm::new(3, 0)?.writes(),
        ("writes", "etcd") => Etcd::new()?.writes(),
        ("containers", "rswarm") => containers::ours(),
        ("containers", "runc" | "crun") => containers::theirs(who),
        ("dns", "rswarm") => dns::ours(),
        ("dns", "dnsmasq") => dns::dnsmasq(),
        ("disk", _) => disk::run(),
        _ => bail!("nothing is measured for row {row:?} of {who:?}"),
    }
}

/// Prints one measurement in milliseconds.
fn times(key: &str, who: &str, times: &[Duration]) {
    values(key, who, "ms", times.iter().map(|time| time.as_secs_f64() * 1e3));
}

/// Prints one measurement.
fn values(key: &str, who: &str, unit: &str, values: impl Iterator<Item = f64>) {
    let values: Vec<String> = values.map(|value| format!("{value:.4}")).collect();
    println!("result\t{key}\t{who}\t{unit}\t{}", values.join(" "));
}

/// Prints what a reader of the table must know.
fn note(text: &str) {
    println!("note\t{text}");
}
