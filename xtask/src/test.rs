//! `cargo xtask test`: every test, and how many there were.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use crate::{Result, images, install, sh};

#[derive(Debug, Default, PartialEq, Clone, Copy)]
struct Counts {
    passed: u32,
    failed: u32,
}

/// Installs what is needed, builds, runs; the last line says how many passed and failed.
pub fn run(is_quick: bool) -> Result<ExitCode> {
    let began = Instant::now();
    require_tokio_unstable()?;
    if !is_quick && !sh::is_root() {
        return Err(
            "the tests make namespaces, mounts and cgroups: run this as root, or `cargo xtask test --quick`".into()
        );
    }
    install::ensure(&[install::DEMO, install::TESTS])?;
    if !is_quick {
        images::build()?;
    }
    sh::run(&mut sh::command("cargo", &["build", "--workspace", "--bins"]))?;
    let has_nextest = sh::output(&mut sh::command("cargo", &["nextest", "--version"])).is_ok();
    if !has_nextest {
        eprintln!("cargo-nextest is not installed: running the tests with cargo test");
    }
    let runs = if has_nextest { nextest(is_quick) } else { cargo_test(is_quick) };
    let mut total = Counts::default();
    let mut is_good = true;
    for mut command in runs {
        let (counts, succeeded) = counted(&mut command)?;
        total.passed += counts.passed;
        total.failed += counts.failed;
        is_good &= succeeded;
    }
    let secs = began.elapsed().as_secs();
    println!("tests took {} min {} s", secs / 60, secs % 60);
    if !is_good && total.failed == 0 {
        return Err("the tests could not be run to their end: see above".into());
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The simulator's runtime needs the flag of .cargo/config.toml, which RUSTFLAGS would silently replace.
fn require_tokio_unstable() -> Result<()> {
    for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS"] {
        if let Ok(flags) = std::env::var(name)
            && !flags.contains("tokio_unstable")
        {
            return Err(format!(
                "{name}={flags:?} replaces the flags of .cargo/config.toml: unset it, or add --cfg tokio_unstable"
            )
            .into());
        }
    }
    if cfg!(tokio_unstable) {
        Ok(())
    } else {
        Err("built without cfg(tokio_unstable): is .cargo/config.toml overridden?".into())
    }
}

fn nextest(is_quick: bool) -> Vec<Command> {
    let mut command = cargo(&["nextest", "run", "--workspace", "--no-fail-fast"]);
    if is_quick {
        command.args(["--filterset", "not binary(/^netns_/)"]);
    }
    vec![command]
}

/// Hosts as network namespaces load the machine: those tests run one at a time.
fn cargo_test(is_quick: bool) -> Vec<Command> {
    const LAB: &str = "rswarm-cluster-tests";
    let kinds = ["--lib", "--bins", "--tests"];
    let mut most = cargo(&["test", "--workspace", "--no-fail-fast", "--exclude", LAB]);
    most.args(kinds);
    let mut lab = cargo(&["test", "--package", LAB, "--no-fail-fast"]);
    if is_quick {
        lab.args(["--lib", "--bins", "--test", "sim_*"]);
    } else {
        lab.args(kinds);
    }
    lab.args(["--", "--test-threads=1"]);
    vec![most, lab]
}

fn cargo(args: &[&str]) -> Command {
    let mut command = sh::command("cargo", args);
    command.env("RSWARM_IMAGES", images::dir());
    command
}

/// Runs one test command, showing its output, and adds up the results that it prints.
fn counted(command: &mut Command) -> Result<(Counts, bool)> {
    // One pipe for both streams, so that their order is kept.
    let (reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    // The command keeps its own copies of the pipe; without these ends, reading stops when the child ends.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut counts = Counts::default();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        eprint!("{text}");
        if let Some(more) = result_line(&text) {
            counts.passed += more.passed;
            counts.failed += more.failed;
        }
        line.clear();
    }
    Ok((counts, child.wait()?.success()))
}

/// The counts of a closing line of nextest (`Summary …`) or of a test binary (`test result: …`).
fn result_line(line: &str) -> Option<Counts> {
    let line = without_colours(line);
    // nextest shows what a failed test's own harness said, indented: that is counted in its summary.
    if !line.trim_start().starts_with("Summary [") && !line.starts_with("test result: ") {
        return None;
    }
    let words: Vec<&str> =
        line.split(|c: char| c.is_whitespace() || ",;:()".contains(c)).filter(|w| !w.is_empty()).collect();
    let mut counts = Counts::default();
    for pair in words.windows(2) {
        let Ok(number) = pair[0].parse::<u32>() else { continue };
        match pair[1] {
            "passed" => counts.passed = number,
            "failed" | "timed" | "exec" => counts.failed += number,
            _ => {}
        }
    }
    Some(counts)
}

fn without_colours(line: &str) -> String {
    let mut out = String::new();
    let mut parts = line.split("\u{1b}[");
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        out.push_str(part.split_once('m').map_or("", |(_, rest)| rest));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_the_closing_lines() {
        for (line, wanted) in [
            ("     Summary [   0.012s] 3 tests run: 3 passed, 0 skipped", Some((3, 0))),
            (
                "\u{1b}[31m     Summary\u{1b}[0m [   9.1s] 12 tests run: \u{1b}[1m9\u{1b}[0m passed (1 slow), 2 failed, 1 timed out, 4 skipped",
                Some((9, 3)),
            ),
            ("     Summary [   0.012s] 7/9 tests run: 6 passed (1 flaky), 1 exec failed, 0 skipped", Some((6, 1))),
            (
                "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
                Some((5, 0)),
            ),
            ("test result: FAILED. 5 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out", Some((5, 2))),
            ("    test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 1 filtered out", None),
            ("test a_test_that_says_3_passed ... ok", None),
        ] {
            assert_eq!(result_line(line).map(|c| (c.passed, c.failed)), wanted, "{line}");
        }
    }
}
