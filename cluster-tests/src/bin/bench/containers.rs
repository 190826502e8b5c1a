//! One container of /bin/true, from nothing to nothing: no service, no image, no network.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rswarm_cluster_tests::lab;
use rswarm_runtime::image::ImageConfig;
use rswarm_runtime::{Backend, Defaults, NetNs, NodePaths, Runtime, RuntimeConfig, Sandbox, container_plan};
use rswarm_types::spec::ServiceSpec;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{OURS, note, times};

const ROUNDS: usize = 50;
const KEY: &str = "container";

/// Our runtime: overlayfs, shim, reaper, log, then deleted.
pub fn ours() -> Result<()> {
    let (folder, root) = folder_with_root()?;
    let parent = format!("/rswarm-bench-{}", std::process::id());
    let measured = tokio::runtime::Runtime::new()?.block_on(cycles(folder.path(), &root, &parent));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten().map(|entry| entry.path()) {
        let _ = std::fs::remove_dir(hierarchy.join(parent.trim_start_matches('/')));
    }
    times(KEY, OURS, &measured?);
    Ok(())
}

async fn cycles(folder: &Path, root: &Path, parent: &str) -> Result<Vec<Duration>> {
    let runtime = Runtime::open(RuntimeConfig {
        containers_dir: folder.join("containers"),
        run_dir: folder.join("run"),
        cgroup_parent: parent.to_owned(),
        backend: Backend::Embedded,
        defaults: Defaults::default(),
        exe: lab::binary()?,
    })?;
    let mut service = ServiceSpec::default();
    service.task.container.args = vec!["/bin/true".to_owned()];
    let sandbox = Sandbox {
        netns: NetNs::None,
        hostname: "box".to_owned(),
        resolv_conf: String::new(),
        hosts: "127.0.0.1\tlocalhost\n".to_owned(),
    };
    let volumes = folder.join("volumes");
    let mut exits = runtime.exits();
    let mut measured = Vec::new();
    for round in 0..=ROUNDS {
        let id = format!("true{round}");
        let layers = [root.to_path_buf()];
        let node = NodePaths { volumes: &volumes };
        let began = Instant::now();
        let plan = container_plan(&id, &service, &ImageConfig::default(), &layers, &sandbox, node, runtime.defaults())?;
        runtime.start(plan).await?;
        while exits.recv().await?.id != id {}
        runtime.delete(&id, true).await?;
        if round > 0 {
            measured.push(began.elapsed());
        }
    }
    runtime.close().await;
    Ok(measured)
}

/// `runc run` or `crun run`, which also delete, in a bundle whose root folder is there.
pub fn theirs(program: &str) -> Result<()> {
    let (folder, root) = folder_with_root()?;
    let bundle = folder.path().join("bundle");
    std::fs::create_dir(&bundle)?;
    run(Command::new(program).arg("spec").current_dir(&bundle))?;
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
    config["process"]["args"] = json!(["/bin/true"]);
    config["process"]["terminal"] = json!(false);
    config["root"]["path"] = json!(root);
    std::fs::write(&path, config.to_string())?;
    let mut measured = Vec::new();
    let state = folder.path().join("state");
    let cycle = |round: usize| {
        let id = format!("bench-{}-{round}", std::process::id());
        run(Command::new(program).arg("--root").arg(&state).args(["run", &id]).current_dir(&bundle))
    };
    if program == "crun"
        && let Err(error) = cycle(ROUNDS + 1)
    {
        // It knows no machine where both versions of cgroups are mounted.
        note(&format!("crun does not run on this machine: {error:#}"));
        return Ok(());
    }
    for round in 0..=ROUNDS {
        let began = Instant::now();
        cycle(round)?;
        if round > 0 {
            measured.push(began.elapsed());
        }
    }
    times(KEY, program, &measured);
    Ok(())
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// A folder on the disk of the labs, with a root folder of busybox.
fn folder_with_root() -> Result<(TempDir, std::path::PathBuf)> {
    let folder = tempfile::Builder::new().prefix("rswarm-bench").tempdir_in("/var/lib")?;
    let root = folder.path().join("root");
    for name in ["bin", "etc", "proc", "sys", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(name))?;
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))
        .context("busybox is missing: apt-get install busybox-static")?;
    symlink("busybox", root.join("bin/true"))?;
    Ok((folder, root))
}
