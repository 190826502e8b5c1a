//! netd found, killed, replaced, ended.

use std::path::Path;
use std::time::Duration;

use super::lab::{Host, Namespace, holders, kill, sandbox, table, until};
use rswarm_overlay::PublishedPort;
use rswarm_overlay::netd::{Client, Launch};
use rswarm_types::spec::Protocol;

fn tcp(port: u16) -> PublishedPort {
    PublishedPort { port, protocol: Protocol::Tcp, address: None }
}

#[tokio::test]
async fn the_next_daemon_finds_the_netd_of_the_last() {
    let (host, space) = (Host::new(""), Namespace::new());
    let first = host.client().await;
    let reply = first.load(&table(vec![sandbox(1, &space)])).await.unwrap();
    let hello = first.hello().await.unwrap();
    drop(first);
    assert_eq!(space.dig(reply.sandboxes[0].udp_port, &["web"]), ["10.0.1.2"]);
    let second = host.client().await;
    let found = second.hello().await.unwrap();
    assert_eq!((found.pid, found.table), (hello.pid, 1));
    assert_eq!(second.load(&table(vec![sandbox(1, &space)])).await.unwrap(), reply);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn netd_has_its_own_session_and_is_nearly_the_last_to_be_killed() {
    let host = Host::new("");
    let client = host.client().await;
    let pid = client.hello().await.unwrap().pid;
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let stat = read("stat");
    let after_name: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(after_name[3], pid.to_string(), "session");
    // Lowering it takes CAP_SYS_RESOURCE, which root of a restricted machine lacks.
    let status = read("status");
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    let may_lower = u64::from_str_radix(capabilities, 16).unwrap() & (1 << 24) != 0;
    let inherited = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let expected = if may_lower { "-900" } else { inherited.trim() };
    assert_eq!(read("oom_score_adj").trim(), expected);
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    let folder = host.run_dir().join("netd");
    assert_eq!(mode(&folder), 0o700);
    assert_eq!(mode(&folder.join("netd.sock")), 0o600);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_netd_is_replaced_at_once_on_the_same_ports() {
    let (host, space) = (Host::new(""), Namespace::new());
    let client = host.client().await;
    let mut wanted = table(vec![sandbox(1, &space)]);
    wanted.published = vec![tcp(8080)];
    let reply = client.load(&wanted).await.unwrap();
    for _ in 0..2 {
        let pid = client.hello().await.unwrap().pid;
        let watch = client.watch();
        tokio::pin!(watch);
        let early = tokio::time::timeout(Duration::from_millis(50), &mut watch).await;
        assert!(early.is_err(), "nothing has died: {early:?}");
        kill(pid.try_into().unwrap());
        assert_eq!(watch.await.unwrap(), reply);
        assert_ne!(client.hello().await.unwrap().pid, pid);
        assert_eq!(space.dig(reply.sandboxes[0].udp_port, &["web"]), ["10.0.1.2"]);
        assert_eq!(space.dig(reply.sandboxes[0].tcp_port, &["+tcp", "web"]), ["10.0.1.2"]);
    }
    client.stop().await.unwrap();
}

#[tokio::test]
async fn without_a_daemon_a_new_netd_serves_the_saved_table_on_the_same_ports() {
    let (host, space) = (Host::new(""), Namespace::new());
    let client = host.client().await;
    let reply = client.load(&table(vec![sandbox(1, &space)])).await.unwrap();
    let pid = client.hello().await.unwrap().pid;
    kill(pid.try_into().unwrap());
    drop(client);
    // Started, and never given a table.
    let next = host.client().await;
    let hello = next.hello().await.unwrap();
    assert_ne!(hello.pid, pid);
    assert_eq!(hello.table, 1);
    assert_eq!(space.dig(reply.sandboxes[0].udp_port, &["web"]), ["10.0.1.2"]);
    assert_eq!(space.dig(reply.sandboxes[0].tcp_port, &["+tcp", "web"]), ["10.0.1.2"]);
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_load_that_meets_a_dead_netd_starts_another() {
    let (host, space) = (Host::new(""), Namespace::new());
    let client = host.client().await;
    let wanted = table(vec![sandbox(1, &space)]);
    let reply = client.load(&wanted).await.unwrap();
    kill(client.hello().await.unwrap().pid.try_into().unwrap());
    assert_eq!(client.load(&wanted).await.unwrap(), reply);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_netd_that_hangs_is_killed_and_replaced() {
    let (host, space) = (Host::new(""), Namespace::new());
    let client = host.client().await;
    let wanted = table(vec![sandbox(1, &space)]);
    let reply = client.load(&wanted).await.unwrap();
    let hung = client.hello().await.unwrap().pid;
    let pid = rustix::process::Pid::from_raw(hung.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    // The signal is only queued: what runs on another processor may still answer.
    while !std::fs::read_to_string(format!("/proc/{hung}/stat")).unwrap().contains(") T ") {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    assert_eq!(client.load(&wanted).await.unwrap(), reply);
    assert_ne!(client.hello().await.unwrap().pid, hung);
    assert_eq!(space.dig(reply.sandboxes[0].udp_port, &["web"]), ["10.0.1.2"]);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn two_daemons_that_start_at_once_find_one_netd() {
    let host = Host::new("");
    let (first, second) = tokio::join!(host.client(), host.client());
    assert_eq!(first.hello().await.unwrap().pid, second.hello().await.unwrap().pid);
    let lock = host.run_dir().join("netd/lock");
    assert_eq!(holders(&lock).len(), 1);
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_damaged_saved_table_does_not_keep_netd_from_starting() {
    let host = Host::new("");
    std::fs::create_dir_all(host.run_dir().join("netd")).unwrap();
    std::fs::write(host.run_dir().join("netd/table.json"), "{\"vers").unwrap();
    let client = host.client().await;
    assert_eq!(client.hello().await.unwrap().table, 0);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn stop_leaves_no_process_no_socket_and_no_file() {
    let (host, space) = (Host::new(""), Namespace::new());
    let client = host.client().await;
    client.load(&table(vec![sandbox(1, &space)])).await.unwrap();
    let pid = client.hello().await.unwrap().pid;
    client.stop().await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
    assert_eq!(std::fs::read_dir(host.run_dir()).unwrap().count(), 0);
    assert_eq!(space.run("ss", &["-Hanut"]), "");
    client.stop().await.unwrap();
}

#[tokio::test]
async fn a_published_port_is_held_or_says_who_has_it() {
    let host = Host::new("");
    let client = host.client().await;
    let mut wanted = table(vec![]);
    wanted.published = vec![tcp(8080), PublishedPort { port: 8080, protocol: Protocol::Udp, address: None }];
    let other = host.space.within(|| std::net::TcpListener::bind("[::]:8080").unwrap());
    let held = client.load(&wanted).await.unwrap().published;
    let comm = std::fs::read_to_string("/proc/self/comm").unwrap();
    let problem = format!("port 8080/tcp is held by {} (pid {})", comm.trim_end(), std::process::id());
    assert_eq!(held[0].problem.as_deref(), Some(problem.as_str()));
    assert_eq!(held[1].problem, None);
    drop(other);
    let held = client.load(&wanted).await.unwrap().published;
    assert!(held.iter().all(|h| h.problem.is_none()), "{held:?}");
    let taken = host.space.within(|| {
        [
            std::net::TcpListener::bind("127.0.0.1:8080").is_err(),
            std::net::TcpListener::bind("[::]:8080").is_err(),
            std::net::UdpSocket::bind("0.0.0.0:8080").is_err(),
        ]
    });
    assert_eq!(taken, [true; 3]);
    wanted.published.clear();
    client.load(&wanted).await.unwrap();
    host.space.within(|| drop(std::net::TcpListener::bind("[::]:8080").unwrap()));
    client.stop().await.unwrap();
}

#[tokio::test]
async fn netd_moves_to_the_cgroups_it_is_given() {
    let host = Host::new("");
    let name = format!("rswarm-netd-test-{}", std::process::id());
    let cgroup = Cgroup(Path::new("/sys/fs/cgroup/pids").join(&name));
    if !Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists() {
        assert!(Path::new("/sys/fs/cgroup/cgroup.controllers").exists(), "no cgroups known");
        return;
    }
    let launch = Launch { cgroups: vec![cgroup.0.clone()], ..host.launch() };
    let client = Client::ensure(launch).await.unwrap();
    let pid = client.hello().await.unwrap().pid;
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroups.lines().any(|l| l.ends_with(&format!(":pids:/{name}"))), "{cgroups}");
    client.stop().await.unwrap();
    until("the cgroup is empty", || std::fs::remove_dir(&cgroup.0).is_ok()).await;
}

struct Cgroup(std::path::PathBuf);

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn what_keeps_netd_from_starting_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let ensure = |exe: &str| Client::ensure(Launch::new(folder.path(), Path::new(exe)));
    let error = ensure("/no/such/rswarm").await.unwrap_err().to_string();
    assert_eq!(error, "cannot start netd from /no/such/rswarm");
    let error = ensure("/bin/false").await.unwrap_err().to_string();
    assert_eq!(error, "netd ended at once (exit status: 1): its log is empty");
}
