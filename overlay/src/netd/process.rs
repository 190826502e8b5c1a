//! The process: `rswarm netd --run-dir DIR`.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use rustix::fs::FlockOperation;
use rustix::process::{Resource, Rlimit};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::layout::Layout;
use super::limits::{DESCRIPTORS_MIN, LOCK_TIMEOUT, OOM_SCORE, POLL_PERIOD};
use super::server::{Netd, serve};

const USAGE: &str = "usage: rswarm netd --run-dir DIR [--cgroup DIR]... [--resolv-conf FILE]";

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Options {
    run_dir: PathBuf,
    /// One per hierarchy. Empty: stay in the daemon's.
    cgroups: Vec<PathBuf>,
    resolv_conf: PathBuf,
}

/// Why netd does not start.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("{0}\n{USAGE}")]
    Usage(String),
    #[error("another netd holds {}", .0.display())]
    Held(PathBuf),
    #[error("{what} {}: {source}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
}

/// Runs netd; `args` are those after `netd`. Returns when it is told to stop.
///
/// To be called before the process has threads of its own: it takes a session for itself.
pub fn main(args: &[OsString]) -> ExitCode {
    match Options::parse(args).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rswarm netd: {error}");
            ExitCode::from(if matches!(error, StartError::Usage(_)) { 2 } else { 1 })
        }
    }
}

impl Options {
    fn parse(args: &[OsString]) -> Result<Self, StartError> {
        let (mut run_dir, mut cgroups, mut resolv_conf) = (None, Vec::new(), None);
        let mut args = args.iter();
        while let Some(flag) = args.next() {
            let flag = flag.to_string_lossy();
            let mut value = || {
                let value = args.next().map(PathBuf::from);
                value.ok_or_else(|| StartError::Usage(format!("{flag} needs a value")))
            };
            match &*flag {
                "--run-dir" => run_dir = Some(value()?),
                "--cgroup" => cgroups.push(value()?),
                "--resolv-conf" => resolv_conf = Some(value()?),
                _ => return Err(StartError::Usage(format!("unknown argument \"{flag}\""))),
            }
        }
        Ok(Self {
            run_dir: run_dir.ok_or_else(|| StartError::Usage("--run-dir is missing".into()))?,
            cgroups,
            resolv_conf: resolv_conf.unwrap_or_else(|| "/etc/resolv.conf".into()),
        })
    }
}

fn run(options: &Options) -> Result<(), StartError> {
    start_log();
    detach(options)?;
    let layout = Layout::new(&options.run_dir);
    let file = |what, path: &Path| {
        let path = path.to_owned();
        move |source| StartError::File { what, path, source }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(layout.folder())
        .map_err(file("folder cannot be made:", layout.folder()))?;
    let _lock = lock(&layout)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("netd")
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "no async runtime", source })?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())
            .map_err(|source| StartError::System { what: "no signal handler", source })?;
        let mut netd = Netd::new(layout.table(), options.resolv_conf.clone());
        netd.resume().await;
        let listener = listen(&layout.socket()).map_err(file("cannot listen on", &layout.socket()))?;
        tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "netd serves");
        tokio::select! {
            () = serve(listener, netd, stop.clone()) => {}
            _ = terminate.recv() => tracing::info!("terminated"),
        }
        Ok(())
    })
}

/// One line per change, to stderr: the daemon has pointed it at netd's log.
fn start_log() {
    let level = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    // The binary may have chosen its own.
    let _ = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).with_env_filter(level).try_init();
}

/// Leaves the daemon's session and cgroup, and is nearly the last to die when memory runs out.
fn detach(options: &Options) -> Result<(), StartError> {
    // Already the head of a group when a person runs it from a shell: then it has its own already.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "no session of its own");
    }
    for cgroup in &options.cgroups {
        let procs = cgroup.join("cgroup.procs");
        std::fs::create_dir_all(cgroup)
            .and_then(|()| std::fs::write(&procs, "0"))
            .map_err(|source| StartError::File { what: "cannot move to", path: procs, source })?;
    }
    // Without the right to, netd still serves.
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE.to_string()) {
        tracing::warn!(%error, "oom_score_adj not set");
    }
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let maximum = limit.maximum.map_or(DESCRIPTORS_MIN, |max| max.max(DESCRIPTORS_MIN));
    let raised = [maximum, limit.maximum.unwrap_or(maximum)].into_iter().any(|n| {
        let both = Rlimit { current: Some(n), maximum: Some(n) };
        rustix::process::setrlimit(Resource::Nofile, both).is_ok()
    });
    if !raised {
        tracing::warn!(?limit, "descriptor limit not raised");
    }
    Ok(())
}

/// Takes the lock, waiting for a netd that is about to end.
fn lock(layout: &Layout) -> Result<File, StartError> {
    let path = layout.lock();
    let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
    let file = open.map_err(|source| StartError::File { what: "cannot open", path: path.clone(), source })?;
    let since = Instant::now();
    while rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if since.elapsed() > LOCK_TIMEOUT {
            return Err(StartError::Held(path));
        }
        std::thread::sleep(POLL_PERIOD);
    }
    Ok(file)
}

/// Only the lock's holder comes here, so a socket that is there is a dead one's.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Its folder lets nobody else in meanwhile.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let args: Vec<OsString> = args.iter().map(OsString::from).collect();
        Options::parse(&args).map_err(|e| e.to_string())
    }

    #[test]
    fn arguments_are_all_understood_or_refused() {
        let options = |cgroups: &[&str], resolv_conf: &str| Options {
            run_dir: "/r".into(),
            cgroups: cgroups.iter().map(PathBuf::from).collect(),
            resolv_conf: resolv_conf.into(),
        };
        assert_eq!(parse(&["--run-dir", "/r"]), Ok(options(&[], "/etc/resolv.conf")));
        assert_eq!(
            parse(&["--cgroup", "/a", "--run-dir", "/r", "--cgroup", "/b", "--resolv-conf", "/c"]),
            Ok(options(&["/a", "/b"], "/c"))
        );
        for (args, start) in [
            (&[][..], "--run-dir is missing"),
            (&["--run-dir"], "--run-dir needs a value"),
            (&["--run-dir", "/r", "more"], "unknown argument \"more\""),
        ] {
            assert_eq!(parse(args), Err(format!("{start}\n{USAGE}")));
        }
    }
}
