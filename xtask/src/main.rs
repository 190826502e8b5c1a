//! Build chores: `cargo xtask COMMAND`. Standard library only, so that it builds with nothing but Rust.
#![expect(clippy::print_stdout, reason = "a tool for people at a terminal")]

mod bench;
mod ci;
mod demo;
mod deps;
mod images;
mod install;
mod json;
mod lab;
mod manifest;
mod sh;
mod spdx;
mod test;
mod tidy;

use std::process::ExitCode;

/// What every command returns: the error is a sentence for the person at the terminal.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const HELP: &str = "\
cargo xtask COMMAND

  demo [--keep]       bring up 3 managers and 2 workers on this machine, deploy two
                      applications, kill the leader; --keep leaves the cluster up for
                      a look even if a step fails
  demo --down         remove everything that the demo left
  test [--quick]      every test; --quick leaves out those with hosts as network namespaces
  bench [NAME…] [--peer]
                      measure the release build, all or create, containers, leader,
                      node, writes, scheduler; --peer installs Docker, etcd, runc
                      and crun and measures them in the same run
  ci                  fmt, clippy, tidy, deps, then test
  tidy                the house rules that no compiler checks
  deps                licences, sources and duplicates of what we depend on
  images              build the demo's and the tests' images from Debian packages
  lab up [--hosts N]  N hosts as network namespaces, each running the daemon
  lab exec HOST CMD…  run a command on a host of the lab
  lab down            remove the lab
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["demo"] => demo::up(false),
        ["demo", "--keep"] => demo::up(true),
        ["demo", "--down"] => demo::down(),
        ["test"] => test::run(false),
        ["test", "--quick"] => test::run(true),
        ["bench", rest @ ..] => bench::run(rest),
        ["ci"] => ci::run(),
        ["tidy"] => tidy::run(),
        ["deps"] => deps::run(),
        ["images"] => images::run(),
        ["lab", rest @ ..] => lab::run(rest),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        [command, rest @ ..] => {
            let known = ["demo", "test", "ci", "tidy", "deps", "images"];
            if known.contains(command) {
                Err(format!("unknown arguments for {command}: {}\n\n{HELP}", rest.join(" ")).into())
            } else {
                Err(format!("unknown command {command:?}\n\n{HELP}").into())
            }
        }
    }
}
