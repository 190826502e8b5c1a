//! One more process in a container, through a helper of its own: the daemon never forks into a container.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use super::{ContainerState, Inner};
use crate::shim::{ExecAnswer, ExecRequest, Failure, FailureKind};

/// Docker keeps as much of a health check's output.
const OUTPUT_BYTES_MAX: usize = 4_096;
/// What the helper itself may take beside the process.
const HELPER_MAX: Duration = Duration::from_secs(10);

/// What a process in a container did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOutcome {
    /// None when time was up; 128 + N after signal N.
    pub code: Option<i32>,
    /// Both streams, at most 4 KiB.
    pub output: Vec<u8>,
    pub timed_out: bool,
}

/// The process did not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    #[error("no such container: {0}")]
    NotFound(String),
    #[error("container {0} is not running")]
    NotRunning(String),
    /// 127
    #[error("{0}")]
    CommandNotFound(String),
    /// 126
    #[error("{0}")]
    CommandNotExecutable(String),
    #[error("{0}")]
    Other(String),
}

pub(super) async fn exec(
    inner: &Inner,
    id: &str,
    argv: Vec<String>,
    env: Vec<String>,
    user: Option<String>,
    timeout: Duration,
) -> Result<ExecOutcome, ExecError> {
    match inner.state_of(id) {
        None => return Err(ExecError::NotFound(id.to_owned())),
        Some(ContainerState::Running { .. }) => {}
        Some(_) => return Err(ExecError::NotRunning(id.to_owned())),
    }
    let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    let request = ExecRequest { argv, env, user, timeout_ms, output_bytes_max: OUTPUT_BYTES_MAX };
    let request = serde_json::to_vec(&request).map_err(|e| ExecError::Other(e.to_string()))?;
    let answer = tokio::time::timeout(timeout.saturating_add(HELPER_MAX), ask(inner, id, &request));
    match answer.await {
        Err(_) => Err(ExecError::Other("the exec helper does not answer".to_owned())),
        Ok(Err(error)) => Err(ExecError::Other(format!("the exec helper: {error}"))),
        Ok(Ok(ExecAnswer::Ended { code, output })) => Ok(ExecOutcome { code, output, timed_out: code.is_none() }),
        Ok(Ok(ExecAnswer::Failed(Failure { kind, text }))) => Err(match kind {
            FailureKind::NotFound => ExecError::CommandNotFound(text),
            FailureKind::NotExecutable => ExecError::CommandNotExecutable(text),
            FailureKind::Other => ExecError::Other(text),
        }),
    }
}

async fn ask(inner: &Inner, id: &str, request: &[u8]) -> std::io::Result<ExecAnswer> {
    let mut helper = Command::new(&inner.config.exe);
    helper.arg("shim").arg("exec").arg(&inner.dir(id).0).current_dir("/");
    helper.env_clear().env("PATH", crate::spec::DEFAULT_PATH);
    helper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    // The process in the container dies with the helper (PDEATHSIG).
    let mut helper = helper.kill_on_drop(true).spawn()?;
    let (stdin, stdout) = (helper.stdin.take(), helper.stdout.take());
    let (Some(mut stdin), Some(mut stdout)) = (stdin, stdout) else {
        return Err(std::io::Error::other("it has no streams"));
    };
    stdin.write_all(request).await?;
    drop(stdin);
    let mut text = Vec::new();
    stdout.read_to_end(&mut text).await?;
    let status = helper.wait().await?;
    serde_json::from_slice(&text).map_err(|_| std::io::Error::other(format!("it ended with {status} and no answer")))
}
