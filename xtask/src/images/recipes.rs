//! What each image is made of. A change of anything here builds the image again.

/// The demo's registry, by its name on the lab's hosts.
pub const REGISTRY: &str = "registry:5000";

/// An image: layers from the bottom up, and how its containers start.
#[derive(Debug)]
pub struct Image {
    pub name: &'static str,
    pub tag: &'static str,
    pub layers: Vec<Layer>,
    pub config: Config,
    /// Run in the finished root folder (without /proc or a network) to see that nothing is missing.
    pub verify: &'static [&'static str],
}

impl Image {
    /// Its names: in the demo's registry, and short.
    pub fn tags(&self) -> Vec<String> {
        vec![format!("{REGISTRY}/{}:{}", self.name, self.tag), format!("{}:{}", self.name, self.tag)]
    }
}

/// A layer. Images may share one: the name tells.
#[derive(Debug, Clone)]
pub struct Layer {
    pub name: &'static str,
    pub packages: &'static [&'static str],
    /// The packages of the layers below: theirs are not taken twice.
    pub below: &'static [&'static str],
    /// Files of our own: path, mode, content.
    pub files: &'static [(&'static str, u32, &'static str)],
    pub links: &'static [(&'static str, &'static str)],
    pub folders: &'static [(&'static str, u32)],
    pub has_busybox_links: bool,
}

const EMPTY: Layer =
    Layer { name: "", packages: &[], below: &[], files: &[], links: &[], folders: &[], has_busybox_links: false };

/// The part of an image's configuration that we use.
#[derive(Debug, Default)]
pub struct Config {
    pub entrypoint: &'static [&'static str],
    pub cmd: &'static [&'static str],
    pub env: &'static [&'static str],
    pub working_dir: &'static str,
    pub ports: &'static [&'static str],
    pub volumes: &'static [&'static str],
    pub stop_signal: &'static str,
    pub health: Option<Health>,
}

/// A health check of the image; times in seconds.
#[derive(Debug)]
pub struct Health {
    pub test: &'static [&'static str],
    pub interval_s: u32,
    pub timeout_s: u32,
    pub retries: u32,
}

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const BASE: &[&str] = &["base-files", "busybox-static", "libc6", "media-types", "netbase", "zlib1g"];

/// Debian's C library and busybox for a shell.
fn base() -> Layer {
    Layer { name: "base", packages: BASE, files: ACCOUNTS, folders: FOLDERS, has_busybox_links: true, ..EMPTY }
}

const FOLDERS: &[(&str, u32)] = &[
    ("tmp", 0o1777),
    ("var/tmp", 0o1777),
    ("root", 0o700),
    ("run", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
];

const ACCOUNTS: &[(&str, u32, &str)] = &[
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\nredis:x:999:999:redis:/data:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("etc/group", 0o644, "root:x:0:\ntty:x:5:\nadm:x:4:\nwww-data:x:33:\nredis:x:999:\nnogroup:x:65534:\n"),
    ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n"),
];

/// Every image, in the order in which they are built.
pub fn all() -> Vec<Image> {
    vec![busybox("busybox", None), busybox("busybox-health", Some(IS_HEALTHY)), nginx(), redis(), counter_web()]
}

/// Healthy until somebody makes /tmp/sick.
const IS_HEALTHY: Health =
    Health { test: &["CMD-SHELL", "test ! -e /tmp/sick"], interval_s: 1, timeout_s: 1, retries: 2 };

/// A small image for tests: a shell, httpd, nc, wget, nslookup, all from one static file.
fn busybox(name: &'static str, health: Option<Health>) -> Image {
    let layer = Layer {
        name: "busybox",
        packages: &["busybox-static"],
        files: BUSYBOX_FILES,
        folders: FOLDERS,
        has_busybox_links: true,
        ..EMPTY
    };
    Image {
        name,
        tag: "1.35",
        layers: vec![layer],
        // Its programs do not listen to SIGTERM as a container's first process: tests shall not wait for the grace.
        config: Config { cmd: &["sh"], env: &[PATH], stop_signal: "SIGKILL", health, ..Config::default() },
        verify: &["/bin/sh", "-c", "command -v httpd nc wget nslookup"],
    }
}

const BUSYBOX_FILES: &[(&str, u32, &str)] = &[
    ACCOUNTS[0],
    ACCOUNTS[1],
    ACCOUNTS[2],
    ("www/index.html", 0o644, "it works\n"),
    // `httpd -f -p 80 -h /www` answers with the container's name at /cgi-bin/hostname, with the caller's at /cgi-bin/client.
    ("www/cgi-bin/hostname", 0o755, "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nhostname\n"),
    (
        "www/cgi-bin/client",
        0o755,
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\na=${REMOTE_ADDR#[::ffff:}\necho \"${a%]}\"\n",
    ),
];

fn nginx() -> Image {
    let layer = Layer {
        name: "nginx",
        packages: &["nginx"],
        below: BASE,
        files: &[
            (
                "etc/nginx/sites-enabled/default",
                0o644,
                "server {\n    listen 80 default_server;\n    root /var/www/html;\n    index index.html;\n    location = /hostname { default_type text/plain; return 200 \"$hostname\\n\"; }\n}\n",
            ),
            (
                "var/www/html/index.html",
                0o644,
                "<!doctype html><title>nginx</title><h1>nginx, from Debian's package, in a swarm</h1>\n",
            ),
        ],
        links: &[("var/log/nginx/access.log", "/dev/stdout"), ("var/log/nginx/error.log", "/dev/stderr")],
        folders: &[("var/lib/nginx", 0o755), ("var/log/nginx", 0o755)],
        ..EMPTY
    };
    Image {
        name: "nginx",
        tag: "1.22",
        layers: vec![base(), layer],
        config: Config {
            cmd: &["nginx", "-g", "daemon off;"],
            env: &[PATH],
            ports: &["80/tcp"],
            stop_signal: "SIGQUIT",
            ..Config::default()
        },
        verify: &["/usr/sbin/nginx", "-v"],
    }
}

fn redis() -> Image {
    let layer = Layer { name: "redis", packages: &["redis-server"], below: BASE, folders: &[("data", 0o755)], ..EMPTY };
    Image {
        name: "redis",
        tag: "7.0",
        layers: vec![base(), layer],
        config: Config {
            entrypoint: &["redis-server"],
            cmd: &["--dir", "/data", "--bind", "*", "--protected-mode", "no", "--appendonly", "yes"],
            env: &[PATH],
            working_dir: "/data",
            ports: &["6379/tcp"],
            volumes: &["/data"],
            ..Config::default()
        },
        verify: &["/usr/bin/redis-server", "--version"],
    }
}

fn counter_web() -> Image {
    let python =
        Layer { name: "python", packages: &["python3.11-minimal", "libpython3.11-stdlib"], below: BASE, ..EMPTY };
    let app = Layer {
        name: "counter-web",
        files: &[("app/counter.py", 0o644, include_str!("../../assets/counter/counter.py"))],
        ..EMPTY
    };
    Image {
        name: "counter-web",
        tag: "1",
        layers: vec![base(), python, app],
        config: Config {
            cmd: &["python3.11", "-u", "/app/counter.py"],
            env: &[PATH, "PYTHONDONTWRITEBYTECODE=1"],
            working_dir: "/app",
            ports: &["8000/tcp"],
            ..Config::default()
        },
        verify: &["/usr/bin/python3.11", "-c", "import sys; sys.path.insert(0, '/app'); import counter"],
    }
}
