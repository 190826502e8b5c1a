//! `rswarm`: the daemon, and the command line that talks to it.

use std::ffi::OsString;
use std::process::ExitCode;

use args::Command;

mod args;
mod client;
mod commands;
mod config;
mod confirm;
mod docker_json;
mod errors;
mod filter;
mod human;
mod inspect;
mod json;
mod listing;
mod logs;
mod output;
mod progress;
mod render;
mod specs;
mod table;
mod template;
mod trust;
mod view;
mod wait;

fn main() -> ExitCode {
    let line: Vec<OsString> = std::env::args_os().collect();
    // What the daemon starts: these fork, so nothing may have made a thread before.
    match line.get(1).and_then(|word| word.to_str()) {
        Some("shim") => return rswarm_runtime::shim_main(line.get(2..).unwrap_or_default()),
        Some("netd") => return rswarm_overlay::netd::main(line.get(2..).unwrap_or_default()),
        _ => {}
    }
    let cli = match args::parse(line) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and versions are data; a closed reader of them is no failure.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    if let Command::Daemon(daemon) = cli.command {
        return rswarm_node::run_daemon(rswarm_node::DaemonOptions {
            data_dir: daemon.data_dir,
            run_dir: daemon.run_dir,
            config: daemon.config,
            insecure_registries: daemon.insecure_registry,
            cgroup_parent: daemon.cgroup_parent,
            runtime: daemon.runtime,
            labels: daemon.label,
            compat_caps: daemon.compat_caps,
            no_new_privileges: daemon.no_new_privileges,
            log_level: daemon.log_level,
        });
    }
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&error.report());
            error.exit_code()
        }
    }
}

fn run(cli: args::Cli) -> errors::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| errors::Error::Failed(format!("the operating system gives no event queue: {e}")))?;
    let result = runtime.block_on(commands::run(cli));
    // A blocked read of standard input must not hold the program.
    runtime.shutdown_background();
    result
}
