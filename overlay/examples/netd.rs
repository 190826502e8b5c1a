//! netd alone, as `rswarm netd` runs it: `netd netd --run-dir DIR`. Tests start it.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((command, rest)) if command == "netd" => rswarm_overlay::netd::main(rest),
        _ => {
            eprintln!("usage: netd netd --run-dir DIR");
            ExitCode::from(2)
        }
    }
}
