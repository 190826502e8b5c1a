//! Compiles the two tiny programs that live inside containers' process trees and embeds them.
//!
//! They are built by `$RUSTC` directly: cargo refuses `panic = "abort"` per package, and the daemon must unwind.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=reaper");
    for program in ["reaper", "init"] {
        let mut rustc = Command::new(env::var_os("RUSTC").expect("cargo sets RUSTC"));
        rustc.arg(format!("reaper/{program}.rs")).arg("-o").arg(out.join(program));
        rustc.args(["--crate-type", "bin", "--edition", "2024", "--crate-name", program]);
        rustc.args(["--target", &env::var("TARGET").expect("cargo sets TARGET")]);
        for option in [
            "panic=abort",
            "opt-level=s",
            "lto=fat",
            "strip=symbols",
            "relocation-model=static",
            "link-arg=-nostartfiles",
            "link-arg=-nodefaultlibs",
            "link-arg=-static",
            "link-arg=-no-pie",
            "link-arg=-Wl,--build-id=none,-z,noseparate-code,--gc-sections,--no-eh-frame-hdr",
        ] {
            rustc.arg("-C").arg(option);
        }
        if let Some(linker) = env::var_os("RUSTC_LINKER") {
            let mut option = std::ffi::OsString::from("linker=");
            option.push(linker);
            rustc.arg("-C").arg(option);
        }
        match rustc.status() {
            Ok(status) if status.success() => {}
            Ok(status) => {
                eprintln!("reaper/{program}.rs: rustc ended with {status}");
                return ExitCode::FAILURE;
            }
            Err(error) => {
                eprintln!("reaper/{program}.rs: rustc cannot be started: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
