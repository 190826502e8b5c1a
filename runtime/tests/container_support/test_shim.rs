//! `rswarm shim` without the rest of rswarm.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1) {
        Some(verb) if verb == "shim" => rswarm_runtime::shim_main(&args[2..]),
        _ => ExitCode::from(64),
    }
}
