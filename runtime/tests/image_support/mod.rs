//! Images made by the test, and registries to put them in.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rswarm_runtime::image::{Digest, ImageError, ImageStore, RegistryPolicy};

/// A message with all its sources, as a user sees it.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

pub fn refused<T: std::fmt::Debug>(result: Result<T, ImageError>) -> String {
    chain(&result.unwrap_err())
}

pub fn store(path: &Path) -> ImageStore {
    ImageStore::open(path, RegistryPolicy::default()).unwrap()
}

pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image: layers as tars, the same as they travel, and the config that names them.
pub struct Built {
    pub config: Vec<u8>,
    pub tars: Vec<Vec<u8>>,
    pub blobs: Vec<Vec<u8>>,
    pub manifest: Vec<u8>,
}

pub fn build(tars: Vec<Vec<u8>>, pack: impl Fn(&[u8]) -> Vec<u8>, arch: &str) -> Built {
    let diff_ids: Vec<_> = tars.iter().map(|tar| Digest::of(tar).to_string()).collect();
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": arch, "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": { "Env": ["A=b"], "Cmd": ["/run"], "ExposedPorts": { "80/tcp": {} } },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    }))
    .unwrap();
    let blobs: Vec<_> = tars.iter().map(|tar| pack(tar)).collect();
    let layers: Vec<_> = blobs
        .iter()
        .map(|blob| serde_json::json!({ "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": Digest::of(blob), "size": blob.len() }))
        .collect();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "digest": Digest::of(&config), "size": config.len() },
        "layers": layers,
    }))
    .unwrap();
    Built { config, tars, blobs, manifest }
}

/// Two layers, the second replacing a file of the first.
pub fn simple(word: &str) -> Built {
    let bottom = tar_of(&[("etc/name", b"bottom"), ("etc/keep", b"kept")]);
    let top = tar_of(&[("etc/name", word.as_bytes())]);
    build(vec![bottom, top], gzip, host_arch())
}

pub fn host_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl Built {
    pub fn id(&self) -> String {
        Digest::of(&self.config).to_string()
    }

    pub fn digest(&self) -> String {
        Digest::of(&self.manifest).to_string()
    }

    /// What `docker save` wrote before version 25.
    pub fn docker_save(&self, tag: Option<&str>) -> Vec<u8> {
        let config = format!("{}.json", Digest::of(&self.config).hex());
        let names: Vec<_> = (0..self.tars.len()).map(|number| format!("{number:064x}/layer.tar")).collect();
        let manifest = serde_json::to_vec(
            &serde_json::json!([{ "Config": config, "RepoTags": tag.map(|tag| [tag]), "Layers": names }]),
        )
        .unwrap();
        let mut files: Vec<(&str, &[u8])> = vec![(&config, &self.config)];
        files.extend(names.iter().map(String::as_str).zip(self.tars.iter().map(Vec::as_slice)));
        files.push(("manifest.json", &manifest));
        tar_of(&files)
    }

    pub fn oci_layout(&self, name: Option<&str>) -> Vec<u8> {
        let mut annotations = BTreeMap::new();
        annotations.extend(name.map(|name| ("org.opencontainers.image.ref.name", name)));
        let index = serde_json::to_vec(&serde_json::json!({
            "schemaVersion": 2,
            "manifests": [{ "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": self.digest(), "size": self.manifest.len(), "annotations": annotations }],
        }))
        .unwrap();
        let blobs: Vec<_> = self
            .blobs
            .iter()
            .chain([&self.config, &self.manifest])
            .map(|blob| (format!("blobs/sha256/{}", Digest::of(blob).hex()), blob))
            .collect();
        let mut files: Vec<(&str, &[u8])> =
            vec![("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#), ("index.json", &index)];
        files.extend(blobs.iter().map(|(name, blob)| (name.as_str(), blob.as_slice())));
        tar_of(&files)
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Debian's registry on a loopback port, with its own storage; ended by its process id.
pub struct Registry {
    child: Child,
    pub address: String,
    _folder: tempfile::TempDir,
}

impl Registry {
    pub fn anonymous() -> Self {
        Self::start(|_| String::new())
    }

    pub fn with_user(name: &str, password: &str) -> Self {
        Self::start(|folder| {
            let output = Command::new("htpasswd").args(["-Bbn", "-C", "4", name, password]).output();
            let output = output.expect("htpasswd is missing: apt-get install -y apache2-utils");
            let file = folder.join("htpasswd");
            std::fs::write(&file, output.stdout).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        })
    }

    fn start(auth: impl FnOnce(&Path) -> String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("127.0.0.1:{}", free_port());
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{}",
            folder.path().join("storage").display(),
            auth(folder.path())
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child =
            Command::new("docker-registry").arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut registry = Self {
            child: child.expect("docker-registry is missing: apt-get install -y docker-registry"),
            address,
            _folder: folder,
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(registry.child.try_wait().unwrap().is_none(), "docker-registry ended by itself");
            assert!(Instant::now() < deadline, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

#[derive(Clone, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Sends so many bytes of the body, then hangs up.
    pub cut_after: Option<usize>,
}

impl Answer {
    pub fn ok(body: &[u8]) -> Self {
        Self { status: 200, body: body.to_vec(), ..Self::default() }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, key: &str, value: &str) -> Self {
        self.headers.push((key.into(), value.into()));
        self
    }
}

/// A registry that misbehaves as the test says.
pub struct Fake {
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Fake {
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, ended) = (Arc::clone(&seen), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            std::thread::scope(|scope| {
                for stream in listener.incoming() {
                    if ended.load(Ordering::Acquire) {
                        return;
                    }
                    let (answer, log) = (&answer, &log);
                    scope.spawn(move || drop(serve(stream.unwrap(), answer, log)));
                }
            });
        });
        Self { address, seen, stop, thread: Some(thread) }
    }

    /// Serves the parts of images: manifests by tag and digest, blobs by digest.
    pub fn parts(images: &[&Built], tags: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
        let mut parts = BTreeMap::new();
        for image in images {
            parts.insert(format!("/v2/app/manifests/{}", image.digest()), image.manifest.clone());
            for blob in image.blobs.iter().chain([&image.config]) {
                parts.insert(format!("/v2/app/blobs/{}", Digest::of(blob)), blob.clone());
            }
        }
        for (tag, manifest) in tags {
            parts.insert(format!("/v2/app/manifests/{tag}"), manifest.to_vec());
        }
        parts.insert("/v2/".into(), b"{}".to_vec());
        parts
    }

    pub fn reference(&self, rest: &str) -> String {
        format!("{}/app{rest}", self.address)
    }

    pub fn count(&self, what: &str) -> usize {
        self.seen.lock().unwrap().iter().filter(|line| line.contains(what)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers from a table of paths; ranges are understood.
pub fn from_parts(parts: &BTreeMap<String, Vec<u8>>, request: &Request) -> Answer {
    let path = request.path.split('?').next().unwrap();
    let Some(body) = parts.get(path) else { return Answer::status(404) };
    let from = request
        .headers
        .get("range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    match from {
        Some(from) if from > 0 => Answer { status: 206, ..Answer::ok(&body[from..]) },
        _ => Answer::ok(body),
    }
}

fn serve(
    stream: TcpStream,
    answer: &(impl Fn(&Request) -> Answer + Sync),
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    // Something that is no HTTP, like a TLS greeting, is answered as real servers do.
    let is_text = reader.read_line(&mut line).is_ok();
    let mut words = line.split_whitespace().map(str::to_owned);
    let (true, Some(method), Some(path)) = (is_text, words.next(), words.next()) else {
        return (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n");
    };
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((key, value)) = line.trim().split_once(':') else { break };
        headers.insert(key.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() };
    log.lock().unwrap().push(format!(
        "{} {} {}",
        request.method,
        request.path,
        request.headers.get("range").map_or("", String::as_str)
    ));
    let answer = answer(&request);
    let mut stream = stream;
    let mut head =
        format!("HTTP/1.1 {} x\r\nconnection: close\r\ncontent-length: {}\r\n", answer.status, answer.body.len());
    for (key, value) in &answer.headers {
        head.push_str(&format!("{key}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    if request.method != "HEAD" {
        stream.write_all(&answer.body[..answer.cut_after.unwrap_or(answer.body.len())])?;
    }
    stream.flush()
}
