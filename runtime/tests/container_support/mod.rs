//! A node's runtime in a temporary folder, with a root file system of busybox; everything is gone at its end.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use rswarm_runtime::image::ImageConfig;
use rswarm_runtime::{
    Backend, ContainerPlan, ContainerState, Defaults, Exit, LogQuery, NetNs, NodePaths, Outcome, Runtime,
    RuntimeConfig, Sandbox, container_plan,
};
use rswarm_types::spec::{ContainerSpec, ServiceSpec};
use tempfile::TempDir;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Tells the tests of one process apart.
static NUMBER: AtomicU32 = AtomicU32::new(0);

pub struct Lab {
    pub runtime: Option<Runtime>,
    pub config: RuntimeConfig,
    pub dir: TempDir,
}

/// How a container ended, and what it said.
pub struct Ended {
    pub exit: Exit,
    pub stdout: Vec<String>,
    pub stderr: Vec<String>,
}

impl Lab {
    pub fn new(backend: Backend) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root");
        let dir = tempfile::Builder::new().prefix("rt").tempdir().unwrap();
        make_busybox(&dir.path().join("layer"));
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let config = RuntimeConfig {
            containers_dir: dir.path().join("containers"),
            run_dir: dir.path().join("run"),
            cgroup_parent: format!("/rswarm-test-{}-{number}", std::process::id()),
            backend,
            defaults: Defaults::default(),
            exe: PathBuf::from(env!("CARGO_BIN_EXE_rswarm-test-shim")),
        };
        let runtime = Some(Runtime::open(config.clone()).unwrap());
        Self { runtime, config, dir }
    }

    pub fn embedded() -> Self {
        Self::new(Backend::Embedded)
    }

    pub fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().unwrap()
    }

    /// What a daemon's restart does: the old handle is gone, a new one looks around.
    pub async fn reopen(&mut self) {
        if let Some(old) = self.runtime.take() {
            old.close().await;
        }
        self.runtime = Some(Runtime::open(self.config.clone()).unwrap());
    }

    pub fn service(&self, argv: &[&str]) -> ServiceSpec {
        let mut service = ServiceSpec::default();
        service.task.container =
            ContainerSpec { args: argv.iter().map(|a| (*a).to_owned()).collect(), ..ContainerSpec::default() };
        service
    }

    pub fn plan_of(&self, id: &str, service: &ServiceSpec, netns: NetNs) -> ContainerPlan {
        let sandbox = Sandbox {
            netns,
            hostname: "box".to_owned(),
            resolv_conf: "nameserver 127.0.0.11\n".to_owned(),
            hosts: "127.0.0.1\tlocalhost\n".to_owned(),
        };
        let volumes = self.dir.path().join("volumes");
        let layers = [self.dir.path().join("layer")];
        let node = NodePaths { volumes: &volumes };
        container_plan(id, service, &ImageConfig::default(), &layers, &sandbox, node, self.config.defaults).unwrap()
    }

    pub fn plan(&self, id: &str, argv: &[&str]) -> ContainerPlan {
        self.plan_of(id, &self.service(argv), NetNs::None)
    }

    /// A shell line to its end.
    pub async fn shell(&self, id: &str, line: &str, change: impl FnOnce(&mut ServiceSpec)) -> Ended {
        let mut service = self.service(&["sh", "-c", line]);
        change(&mut service);
        let plan = self.plan_of(id, &service, NetNs::None);
        self.run(plan).await
    }

    pub async fn run(&self, plan: ContainerPlan) -> Ended {
        let id = plan.id.clone();
        self.runtime().start(plan).await.unwrap_or_else(|e| panic!("{id}: {e}"));
        match self.ended(&id).await {
            Outcome::Exited(exit) => {
                let (stdout, stderr) = self.output(&id).await;
                Ended { exit, stdout, stderr }
            }
            Outcome::Lost(why) => panic!("{id} was lost: {why}"),
        }
    }

    /// Waits for the end of a container.
    pub async fn ended(&self, id: &str) -> Outcome {
        let since = Instant::now();
        loop {
            match self.state(id) {
                Some(ContainerState::Exited(exit)) => return Outcome::Exited(exit),
                Some(ContainerState::Lost(why)) => return Outcome::Lost(why),
                Some(ContainerState::Running { .. }) => {}
                None => panic!("{id} is not known"),
            }
            assert!(since.elapsed() < PATIENCE, "{id} does not end");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn state(&self, id: &str) -> Option<ContainerState> {
        self.runtime().observe().into_iter().find(|o| o.id == id).map(|o| o.state)
    }

    pub async fn output(&self, id: &str) -> (Vec<String>, Vec<String>) {
        let lines = self.runtime().logs(id, LogQuery::default()).map(|l| l.unwrap()).collect::<Vec<_>>().await;
        let of = |is_stderr| {
            let wanted = lines.iter().filter(|l| l.is_stderr == is_stderr);
            wanted.map(|l| String::from_utf8_lossy(&l.text).into_owned()).collect()
        };
        (of(false), of(true))
    }

    /// Waits until a container has said `line`.
    pub async fn said(&self, id: &str, line: &str) {
        self.until(&format!("{id} says {line}"), async || self.output(id).await.0.iter().any(|l| l == line)).await;
    }

    pub async fn until(&self, what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let since = Instant::now();
        while !condition().await {
            assert!(since.elapsed() < PATIENCE, "still not: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub fn pid_in(&self, id: &str, file: &str) -> i32 {
        let text = fs::read_to_string(self.config.containers_dir.join(id).join(file)).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// What the kernel still has of this lab: mounts, cgroups, state.
    pub fn leftovers(&self) -> Vec<String> {
        let own = self.dir.path().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut all: Vec<String> = mounts.lines().filter(|l| l.contains(&own)).map(str::to_owned).collect();
        all.extend(cgroups(&self.config.cgroup_parent).iter().map(|p| p.display().to_string()));
        for folder in [&self.config.containers_dir, &self.config.run_dir] {
            all.extend(fs::read_dir(folder).unwrap().flatten().map(|e| e.path().display().to_string()));
        }
        all
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // By the kernel's means, not by the code under test.
        for cgroup in cgroups(&self.config.cgroup_parent) {
            for folder in fs::read_dir(&cgroup).into_iter().flatten().flatten().filter(|e| e.path().is_dir()) {
                let since = Instant::now();
                while fs::remove_dir(folder.path()).is_err() && since.elapsed() < Duration::from_secs(5) {
                    let processes = fs::read_to_string(folder.path().join("cgroup.procs")).unwrap_or_default();
                    for pid in processes.lines().filter_map(|l| rustix::process::Pid::from_raw(l.parse().ok()?)) {
                        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let _ = fs::remove_dir(&cgroup);
        }
        // Reapers still write exits: the folder can go when they are gone.
        for folder in fs::read_dir(&self.config.containers_dir).into_iter().flatten().flatten() {
            let shim = fs::read_to_string(folder.path().join("shim")).unwrap_or_default();
            let Some(pid) = shim.split(' ').next().filter(|pid| !pid.is_empty()) else { continue };
            let is_alive = || {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.contains("(rswarm-") && !stat.contains(") Z")
            };
            let since = Instant::now();
            while is_alive() && since.elapsed() < Duration::from_secs(5) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// The lab's cgroup in every hierarchy that has it.
fn cgroups(parent: &str) -> Vec<PathBuf> {
    let points = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|e| e.path());
    let all = points.chain([PathBuf::from("/sys/fs/cgroup")]);
    all.map(|p| p.join(parent.trim_start_matches('/'))).filter(|p| p.is_dir()).collect()
}

fn make_busybox(root: &Path) {
    let busybox = Path::new("/bin/busybox");
    assert!(busybox.exists(), "busybox is missing: apt-get install -y busybox-static");
    for folder in ["bin", "etc", "tmp", "data/sub", "root", "home/web"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(busybox, root.join("bin/busybox")).unwrap();
    for applet in [
        "sh",
        "cat",
        "ls",
        "id",
        "echo",
        "sleep",
        "true",
        "false",
        "yes",
        "head",
        "grep",
        "mount",
        "touch",
        "env",
        "pwd",
        "hostname",
        "kill",
        "dd",
        "tail",
        "seq",
        "stat",
        "ping",
        "chmod",
        "tty",
        "ip",
        "unshare",
        "wc",
        "mkdir",
        "umount",
        "start-stop-daemon",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/home/web:/bin/sh\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:34:\nlogs:x:4:web\n").unwrap();
    fs::write(root.join("data/sub/file"), "from the image\n").unwrap();
    fs::write(root.join("etc/notes"), "no program\n").unwrap();
    fs::write(root.join("bin/junk"), "not a program\n").unwrap();
    fs::set_permissions(root.join("bin/junk"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// The fields of `/proc/self/status` that a container printed.
pub fn status_fields(lines: &[String]) -> BTreeMap<String, String> {
    lines.iter().filter_map(|l| l.split_once(":\t")).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect()
}
