//! Runs whole clusters from seeds, and says which seed breaks what.
#![expect(clippy::print_stdout, reason = "a tool for people at a terminal")]

use std::process::ExitCode;

use clap::Parser;
use rswarm_cluster_tests::sim::{Events, Outcome, command, run};

/// Lines of a failed run that are shown without --verbose.
const LINES_SHOWN: usize = 30;

/// Simulate clusters under faults, one for each seed
#[derive(Parser)]
#[command(name = "swarmsim")]
struct Arguments {
    /// The first seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, counting up
    #[arg(long, default_value_t = 1)]
    iterations: u64,
    /// Show everything that happens, and the program's own log (RUST_LOG) on standard error
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.verbose {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).without_time().init();
    }
    let mut failed = 0;
    let mut events = Events::new();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.iterations) {
        let outcome = run(seed);
        print(&outcome, arguments.verbose);
        for (event, count) in outcome.events {
            *events.entry(event).or_default() += count;
        }
        failed += u64::from(outcome.violation.is_some());
    }
    if arguments.iterations > 1 {
        println!("{} seeds, {failed} failed; {}", arguments.iterations, words(&events));
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn words(events: &Events) -> String {
    events.iter().map(|(event, count)| format!("{event:?} {count}")).collect::<Vec<_>>().join(", ")
}

fn print(outcome: &Outcome, is_verbose: bool) {
    let Outcome { seed, trace, hash, violation, counts, events, lasted } = outcome;
    let shown = if is_verbose {
        trace.len()
    } else if violation.is_some() {
        LINES_SHOWN
    } else {
        0
    };
    for line in &trace[trace.len().saturating_sub(shown)..] {
        println!("{line}");
    }
    println!(
        "seed {seed}: {} (trace {hash:016x} of {} lines; {:.1} virtual s, {} entries, {} terms, {} writes acknowledged)",
        if violation.is_some() { "FAILED" } else { "ok" },
        trace.len(),
        lasted.as_secs_f64(),
        counts.entries,
        counts.terms,
        counts.acknowledged,
    );
    if is_verbose {
        println!("{}", words(events));
    }
    if let Some(violation) = violation {
        println!("violated {violation}\nreplay with: {}", command(*seed));
    }
}
