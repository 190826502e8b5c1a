//! A host and sandboxes as network namespaces, with a real netd process.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rswarm_overlay::netd::{Client, Launch, NetdTable, NetworkNames, SandboxDns, ServiceNames, TaskNames};
use rswarm_types::{NetworkId, TaskId};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace named `netd-PID-NUMBER`, gone on drop.
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let space = Self { name: format!("netd-{}-{number}", std::process::id()) };
        run("ip", &["netns", "add", &space.name]);
        space.run("ip", &["link", "set", "lo", "up"]);
        space
    }

    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// A program inside, which must succeed.
    pub fn run(&self, program: &str, args: &[&str]) -> String {
        let output = self.output(program, args);
        assert!(output.status.success(), "{program} {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn output(&self, program: &str, args: &[&str]) -> Output {
        let net = format!("--net={}", self.path().display());
        Command::new("nsenter").arg(net).arg(program).args(args).output().unwrap()
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let file = File::open(self.path()).unwrap();
        let inside = move || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        std::thread::spawn(inside).join().unwrap()
    }

    /// What dig prints with `+short`, in order.
    pub fn dig(&self, port: u16, args: &[&str]) -> Vec<String> {
        let port = port.to_string();
        let all = [&["@127.0.0.11", "-p", &port, "+short", "+tries=1", "+time=9"], args].concat();
        let mut lines: Vec<String> = self.run("dig", &all).lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// The status that dig prints, such as NOERROR, and the number of answers.
    pub fn dig_status(&self, port: u16, args: &[&str]) -> (String, String) {
        let port = port.to_string();
        let all = [&["@127.0.0.11", "-p", &port, "+tries=1", "+time=14"], args].concat();
        let text = self.run("dig", &all);
        let after = |mark: &str| {
            let rest = text.split_once(mark).unwrap_or_else(|| panic!("{text}")).1;
            rest.split([',', ';']).next().unwrap().trim().to_owned()
        };
        (after("status:"), after("ANSWER:"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).output();
    }
}

pub fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?} (needs root): {output:?}");
}

/// A host: its namespace, run folder, resolv.conf, and the netd that runs there.
pub struct Host {
    pub space: Namespace,
    pub folder: tempfile::TempDir,
}

impl Host {
    pub fn new(resolv_conf: &str) -> Self {
        let host = Self { space: Namespace::new(), folder: tempfile::tempdir().unwrap() };
        std::fs::write(host.resolv_conf(), resolv_conf).unwrap();
        let script = format!(
            "#!/bin/sh\nNETD_ARGS=\"$* --resolv-conf {}\" exec nsenter --net={} {} {AS_NETD}\n",
            host.resolv_conf().display(),
            host.space.path().display(),
            std::env::current_exe().unwrap().display(),
        );
        std::fs::write(host.exe(), script).unwrap();
        std::fs::set_permissions(host.exe(), PermissionsExt::from_mode(0o755)).unwrap();
        host
    }

    pub fn resolv_conf(&self) -> PathBuf {
        self.folder.path().join("resolv.conf")
    }

    pub fn exe(&self) -> PathBuf {
        self.folder.path().join("netd.sh")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub fn launch(&self) -> Launch {
        Launch::new(&self.run_dir(), &self.exe())
    }

    pub async fn client(&self) -> Client {
        Client::ensure(self.launch()).await.unwrap()
    }
}

impl Drop for Host {
    /// Ends the netd that a failed test left.
    fn drop(&mut self) {
        for pid in holders(&self.run_dir().join("netd/lock")) {
            kill(pid);
        }
    }
}

/// The processes that have a file open.
pub fn holders(file: &Path) -> Vec<i32> {
    let has_open = |pid: &i32| {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        let mut files = descriptors.flatten().filter_map(|d| std::fs::read_link(d.path()).ok());
        files.any(|open| open == file)
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|p| p.file_name().to_str()?.parse().ok());
    pids.filter(has_open).collect()
}

pub fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Arguments that make this test program run [`the_process_that_the_other_tests_start`] only.
const AS_NETD: &str = "--exact lab::the_process_that_the_other_tests_start --ignored --nocapture --quiet";

#[test]
#[ignore = "not a test: netd itself, as the script of a host runs it"]
fn the_process_that_the_other_tests_start() {
    let args = std::env::var("NETD_ARGS").unwrap();
    let args: Vec<OsString> = args.split(' ').map(OsString::from).collect();
    assert_eq!(args[0], "netd");
    assert_eq!(rswarm_overlay::netd::main(&args[1..]), ExitCode::SUCCESS);
}

/// One server outside: answers every question with the A record `address`, but for the names that [`answer`] tells.
/// Its first question is lost if it is about `lossy.…`, and `forged.…` is answered wrongly before it is answered.
pub struct Upstream {
    pub questions: Arc<AtomicUsize>,
}

impl Upstream {
    /// Listens at `listen`:53 in the namespace, over UDP and TCP, until the test process ends.
    pub fn start(space: &Namespace, listen: Ipv4Addr, address: Ipv4Addr) -> Self {
        let (udp, tcp, stranger) = space.within(move || {
            let udp = |port| UdpSocket::bind((listen, port)).unwrap();
            (udp(53), TcpListener::bind((listen, 53)).unwrap(), udp(0))
        });
        let questions = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&questions);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = udp.recv_from(&mut buffer) {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let query = &buffer[..length];
                if first_label(query) == b"lossy" && number == 0 {
                    continue;
                }
                if first_label(query) == b"forged" {
                    for forgery in forgeries(query) {
                        udp.send_to(&forgery, client).unwrap();
                    }
                    stranger.send_to(&answer(query, FORGED, false).unwrap(), client).unwrap();
                }
                if let Some(answer) = answer(query, address, false) {
                    udp.send_to(&answer, client).unwrap();
                }
            }
        });
        let count = Arc::clone(&questions);
        std::thread::spawn(move || {
            for stream in tcp.incoming() {
                let mut stream = stream.unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; u16::from_be_bytes(length).into()];
                stream.read_exact(&mut query).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                let answer = answer(&query, address, true).unwrap();
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length[..], &answer].concat()).unwrap();
            }
        });
        Self { questions }
    }

    pub fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

/// What a forger would have clients believe.
const FORGED: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 66);

/// To another id, and to another question.
fn forgeries(query: &[u8]) -> [Vec<u8>; 2] {
    let mut other_id = query.to_vec();
    other_id[1] ^= 1;
    let mut other_name = query.to_vec();
    other_name[13] ^= 1;
    [other_id, other_name].map(|query| answer(&query, FORGED, false).unwrap())
}

fn first_label(query: &[u8]) -> &[u8] {
    &query[13..13 + usize::from(query[12])]
}

/// `truncated.…` is cut over UDP, `trouble.…` fails, `silent.…` has no answer.
fn answer(query: &[u8], address: Ipv4Addr, is_tcp: bool) -> Option<Vec<u8>> {
    let name_length = query[12..].iter().position(|b| *b == 0).unwrap();
    let mut answer = query[..12 + name_length + 5].to_vec();
    answer[2] = 0x81;
    answer[3] = 0x80;
    answer[6..12].copy_from_slice(&[0; 6]);
    match first_label(query) {
        b"silent" => return None,
        b"trouble" => answer[3] |= 2,
        b"truncated" if !is_tcp => answer[2] |= 2,
        _ => {
            answer[7] = 1;
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(address.octets());
        }
    }
    Some(answer)
}

pub const FRONT: NetworkId = NetworkId(1);

pub fn sandbox(task: u128, space: &Namespace) -> SandboxDns {
    SandboxDns {
        task: TaskId(task),
        netns: space.path(),
        networks: vec![FRONT],
        names: vec!["myself".into()],
        addresses: vec![[10, 0, 1, 99].into(), ip("fd00::99")],
        ..SandboxDns::default()
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// `web` with a VIP and two tasks, `rr` with dnsrr and 40.
pub fn table(sandboxes: Vec<SandboxDns>) -> NetdTable {
    let task = |name: &str, slot: u8, last: u8| TaskNames {
        name: format!("{name}.{slot}.id"),
        others: vec![format!("{name}-container-{slot}")],
        addresses: vec![[10, 0, 1, last].into(), ip(&format!("fd00::{last}"))],
        ready: true,
    };
    let web = ServiceNames {
        name: "web".into(),
        aliases: vec!["site".into()],
        vips: vec![[10, 0, 1, 2].into(), ip("fd00::2")],
        tasks: vec![task("web", 1, 11), task("web", 2, 12)],
    };
    let rr = ServiceNames {
        name: "rr".into(),
        tasks: (1..=40).map(|slot| task("rr", slot, 100 + slot)).collect(),
        ..ServiceNames::default()
    };
    let front = NetworkNames {
        id: FRONT,
        name: "front".into(),
        subnets: vec!["10.0.1.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
        services: vec![web, rr],
    };
    NetdTable { version: 1, sandboxes, networks: vec![front], published: Vec::new() }
}

/// Waits for a condition.
pub async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_true() {
        assert!(since.elapsed() < Duration::from_secs(20), "waited 20 s until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
