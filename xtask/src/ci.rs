//! `cargo xtask ci`: everything a change must pass, the quick checks first.

use std::process::ExitCode;
use std::time::Instant;

use crate::{Result, deps, sh, test, tidy};

/// Runs every check, also after one has failed, and the tests last: theirs is the closing line.
pub fn run() -> Result<ExitCode> {
    let mut failed = Vec::new();
    let mut check = |name: &'static str, result: &mut dyn FnMut() -> Result<ExitCode>| {
        eprintln!("\n== {name}");
        let began = Instant::now();
        let is_good = match result() {
            Ok(code) => code == ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                false
            }
        };
        eprintln!("== {name}: {} after {:.0?}", if is_good { "good" } else { "FAILED" }, began.elapsed());
        if !is_good {
            failed.push(name);
        }
    };
    let cargo = |args: &[&str]| sh::run(&mut sh::command("cargo", args)).map(|()| ExitCode::SUCCESS);
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    check("fmt", &mut || cargo(&["fmt", "--all", "--check"]));
    check("tidy", &mut tidy::run);
    check("deps", &mut deps::run);
    check("clippy", &mut || cargo(&clippy));
    eprintln!("\n== test");
    if failed.is_empty() {
        return test::run(false);
    }
    eprintln!("before the tests, these failed: {}", failed.join(", "));
    test::run(false)?;
    Ok(ExitCode::FAILURE)
}
