//! Commands with a deadline, and what they said.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{failure, process};

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Output {
    pub line: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

impl Output {
    /// Whether it ended with 0.
    #[must_use]
    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    /// Standard output, if the command succeeded.
    ///
    /// # Errors
    /// If it failed: with what it wrote to standard error.
    pub fn text(self) -> Result<String> {
        if self.status.success() { Ok(self.stdout) } else { Err(failure(&self.line, self.status, &self.stderr)) }
    }
}

/// Runs `command` in a process group of its own; past the deadline the group is killed.
///
/// Output goes through files, so that a child left in the background holds nobody up.
///
/// # Errors
/// If it cannot be started, or does not end in time.
pub fn run(command: &mut Command, line: &str, deadline: Duration) -> Result<Output> {
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run `{line}`"))?;
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > deadline {
            process::kill_group(child.id());
            child.wait()?;
            let said = read(&mut stderr)?;
            bail!("`{line}` did not end within {:.0} s: {}", deadline.as_secs_f64(), said.trim());
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let (stdout, stderr) = (read(&mut stdout)?, read(&mut stderr)?);
    Ok(Output { line: line.to_owned(), status, stdout, stderr, took: began.elapsed() })
}

/// A tool of the machine itself (`ip`, `nft`, `mount`): it must succeed.
///
/// # Errors
/// If it fails: with what it said.
pub fn tool(args: &[&str]) -> Result<String> {
    let line = args.join(" ");
    let mut command = Command::new(args.first().context("an empty command")?);
    run(command.args(&args[1..]).env("PATH", path()), &line, TOOL_DEADLINE)?.text()
}

/// A tool that reads a script from its standard input.
///
/// # Errors
/// As [`tool`].
pub fn feed(args: &[&str], script: &str) -> Result<()> {
    use std::io::Write as _;
    let mut input = tempfile::tempfile()?;
    input.write_all(script.as_bytes())?;
    input.rewind()?;
    let output = Command::new(args.first().context("an empty command")?)
        .args(&args[1..])
        .env("PATH", path())
        .stdin(input)
        .output()
        .with_context(|| format!("cannot run {}", args.join(" ")))?;
    if output.status.success() {
        return Ok(());
    }
    let line = format!("{} <<< {}", args.join(" "), script.trim());
    Err(failure(&line, output.status, &String::from_utf8_lossy(&output.stderr)))
}

/// Tools answer at once, or something is badly wrong.
const TOOL_DEADLINE: Duration = Duration::from_secs(60);

/// The PATH with the folders of a root shell.
pub fn path() -> String {
    format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

fn read(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, deadline: Duration) -> Result<Output> {
        run(Command::new("sh").args(["-c", script]), script, deadline)
    }

    #[test]
    fn what_a_command_said_is_kept_apart() {
        let output = sh("echo out; echo err >&2; exit 3", Duration::from_secs(10)).unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
        assert_eq!(output.status.code(), Some(3));
        let error = output.text().unwrap_err().to_string();
        assert!(error.ends_with("ended with exit status: 3: err"), "{error}");
    }

    #[test]
    fn a_command_past_its_deadline_is_killed_with_its_children() {
        let error = sh("echo late >&2; sleep 1000 & wait", Duration::from_millis(200)).unwrap_err().to_string();
        assert!(error.contains("did not end within 0 s: late"), "{error}");
    }

    #[test]
    fn a_child_left_in_the_background_holds_nobody_up() {
        let output = sh("sleep 30 & echo $!", Duration::from_secs(10)).unwrap();
        let pid: u32 = output.stdout.trim().parse().unwrap();
        assert!(output.took < Duration::from_secs(10));
        tool(&["kill", &pid.to_string()]).unwrap();
    }
}
