//! The daemon from start to stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rswarm_manager::Edge;
use rswarm_runtime::image::{ImageStore, RegistryPolicy};
use rswarm_runtime::volume::VolumeStore;
use rswarm_runtime::{Backend, Defaults, Runtime, RuntimeConfig};
use rswarm_types::TimestampMs;
use rswarm_types::session::Leaving;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::files::{DataDir, make_dir};
use crate::gateway::{Gateway, Target};
use crate::local::LocalApi;
use crate::membership::{Member, chain};
use crate::options::{DaemonOptions, Settings};
use crate::serve;

/// What control calls are told outside a cluster.
pub const NOT_IN_A_SWARM: &str =
    "this node is not part of a swarm; make one with: rswarm init, or join one with: rswarm join";
/// Log targets of this program.
const OUR_CRATES: &str = "rswarm_node=LEVEL,rswarm_manager=LEVEL,rswarm_worker=LEVEL,rswarm_overlay=LEVEL,\
                          rswarm_runtime=LEVEL,rswarm_raft=LEVEL,rswarm_api=LEVEL";
/// Open streams may take so long to end when the daemon stops.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// Everything that the daemon holds.
pub struct Daemon {
    pub settings: Settings,
    pub data: DataDir,
    pub edge: Edge,
    pub exe: PathBuf,
    pub runtime: Runtime,
    pub images: ImageStore,
    pub volumes: VolumeStore,
    pub gateway: Gateway,
    pub tasks: TaskTracker,
    pub member: Mutex<Option<Member>>,
    /// Why the node is in no usable state, if it is so.
    pub trouble: Mutex<Option<String>>,
}

/// Runs a daemon until it is told to stop. For `main`: builds its own runtime.
pub fn run_daemon(options: DaemonOptions) -> ExitCode {
    let settings = match Settings::load(options) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, 2),
    };
    if let Err(error) = init_logging(&settings.log_level) {
        return fail(&*error, 2);
    }
    // A second provider in the process would make rustls panic; the first one stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, 1),
    };
    match runtime.block_on(run(settings)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, 1),
    }
}

fn fail(error: &dyn std::error::Error, code: u8) -> ExitCode {
    use std::io::Write;
    // Nobody to tell if stderr is closed.
    let _ = writeln!(std::io::stderr(), "error: {}", chain(error));
    ExitCode::from(code)
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn init_logging(level: &str) -> Result<(), AnyError> {
    // A bare level is ours; libraries speak up from `warn` on.
    let is_bare = level.parse::<tracing::Level>().is_ok();
    let directives =
        if is_bare { format!("warn,rswarm={level},{OUR_CRATES}").replace("LEVEL", level) } else { level.to_owned() };
    let filter = tracing_subscriber::EnvFilter::try_new(directives).map_err(|e| {
        format!(
            "invalid --log-level \"{level}\": {e}\n       allowed: a level, or a filter such as info,rswarm_raft=debug"
        )
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .try_init()
}

/// Chance from the operating system, wall time from its clock.
fn edge() -> Edge {
    Edge::new(
        || {
            let mut bytes = [0; 16];
            getrandom::fill(&mut bytes).expect("the operating system has random numbers");
            u128::from_be_bytes(bytes)
        },
        || {
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            TimestampMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
        },
    )
}

async fn run(settings: Settings) -> Result<(), AnyError> {
    let data = DataDir::open(&settings.data_dir)?;
    make_dir(&settings.run_dir, 0o755)?;
    let exe = std::env::current_exe()?;
    let runtime = Runtime::open(RuntimeConfig {
        containers_dir: data.join("containers"),
        run_dir: settings.run_dir.join("shim"),
        cgroup_parent: settings.cgroup_parent.clone(),
        backend: settings.runtime.clone().map_or(Backend::Embedded, Backend::Oci),
        defaults: Defaults {
            capabilities: settings.default_capabilities,
            no_new_privileges: settings.no_new_privileges,
        },
        exe: exe.clone(),
    })?;
    let images =
        ImageStore::open(&data.join("images"), RegistryPolicy { insecure: settings.insecure_registries.clone() })?;
    let volumes = VolumeStore::open(data.join("volumes"))?;
    let socket = settings.run_dir.join("rswarm.sock");
    let daemon = Arc::new(Daemon {
        settings,
        data,
        edge: edge(),
        exe,
        runtime,
        images,
        volumes,
        gateway: Gateway::new(Target::Nowhere(NOT_IN_A_SWARM.into())),
        tasks: TaskTracker::new(),
        member: Mutex::new(None),
        trouble: Mutex::new(None),
    });
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if let Err(error) = daemon.resume().await {
        // The socket is served all the same, so that `info` and `leave --force` work.
        let text = chain(&error);
        tracing::error!(error = text, "this node's place in the cluster cannot be taken");
        daemon.gateway.set(Target::Nowhere(format!("this node cannot work in its cluster: {text}")));
        *daemon.trouble.lock().await = Some(text);
    }
    serve::local(&socket, LocalApi::new(Arc::clone(&daemon)), daemon.gateway.clone(), &daemon.tasks, stop.clone())?;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    tracing::info!(socket = %socket.display(), version = crate::VERSION, "daemon ready");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("daemon stops; containers keep running");
    stop_roles(&daemon).await;
    stop.cancel();
    daemon.tasks.close();
    if tokio::time::timeout(STOP_DEADLINE, daemon.tasks.wait()).await.is_err() {
        tracing::debug!(left = daemon.tasks.len(), "tasks left behind");
    }
    // A socket that nobody serves would make clients wait.
    let _ = std::fs::remove_file(&socket);
    Ok(())
}

async fn stop_roles(daemon: &Daemon) {
    let Some(member) = daemon.member.lock().await.take() else { return };
    member.stop.cancel();
    let leaving = if member.worker.has_running().await { Leaving::Restart } else { Leaving::Shutdown };
    member.worker.stop(leaving).await;
    if let Some(running) = member.manager {
        running.manager.stop().await;
    }
}
