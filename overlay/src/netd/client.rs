//! The daemon's side: finds netd, or starts it, and keeps it served.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use super::layout::Layout;
use super::limits::{LOG_BYTES_MAX, POLL_PERIOD, REQUEST_TIMEOUT, RESTART_PAUSE, START_TIMEOUT, STOP_TIMEOUT};
use super::protocol::{Hello, NetdTable, PROTOCOL_VERSION, Reply, Request, Response, read_frame, write_frame};
use super::sys::watch_pidfd;

/// How to start netd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The daemon's run folder; netd's files are in `netd/` below it.
    pub run_dir: PathBuf,
    /// Run as `EXE netd --run-dir …`.
    pub exe: PathBuf,
    /// Where netd moves to, one folder per hierarchy, made if missing, so that what ends the
    /// daemon's cgroup does not end netd. Empty: it stays in the daemon's.
    pub cgroups: Vec<PathBuf>,
}

/// What went wrong between the daemon and netd.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("netd ended at once ({status}): {log}")]
    Ended { status: ExitStatus, log: String },
    #[error("netd does not answer on {} after {} s, see {}", socket.display(), after.as_secs(), log.display())]
    Silent { socket: PathBuf, after: Duration, log: PathBuf },
    #[error("connection to netd broke")]
    Broken(#[source] io::Error),
    #[error("netd refused: {0}")]
    Refused(String),
}

/// The node's netd. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    launch: Arc<Launch>,
    layout: Layout,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Out while a request is under way: one that was cancelled leaves none, never a stale answer.
    link: Option<Link>,
    /// To be reaped, if this daemon started it.
    child: Option<Child>,
    started_at: Option<Instant>,
    /// The last table that was loaded, or was meant to be.
    table: Option<NetdTable>,
    reply: Reply,
}

#[derive(Debug)]
struct Link {
    stream: UnixStream,
    process: Arc<AsyncFd<OwnedFd>>,
    hello: Hello,
}

impl Launch {
    /// netd stays in the caller's cgroup.
    pub fn new(run_dir: &Path, exe: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), exe: exe.to_owned(), cgroups: Vec::new() }
    }
}

impl Client {
    /// Finds the netd that runs for this run folder, or starts one. One with another protocol is
    /// replaced; its successor serves the same table on the same ports.
    ///
    /// # Errors
    /// When none runs and none can be started.
    pub async fn ensure(launch: Launch) -> Result<Self, ClientError> {
        let layout = Layout::new(&launch.run_dir);
        let client = Self { launch: Arc::new(launch), layout, state: Arc::default() };
        client.connect(&mut *client.state.lock().await).await?;
        Ok(client)
    }

    /// Which netd this is.
    ///
    /// # Errors
    /// As [`Client::ensure`].
    pub async fn hello(&self) -> Result<Hello, ClientError> {
        let mut state = self.state.lock().await;
        match self.request(&mut state, &Request::Hello).await? {
            Response::Hello(hello) => Ok(hello),
            other => Err(unexpected(other)),
        }
    }

    /// Makes netd serve this table. If netd died or hangs, another is started. When it returns,
    /// netd holds no socket in a namespace that is not in the table.
    ///
    /// # Errors
    /// As [`Client::ensure`], and when netd refuses a table that contradicts itself.
    ///
    /// # Cancel safety
    /// Whether the table is in force is then unknown; the next call starts afresh.
    pub async fn load(&self, table: &NetdTable) -> Result<Reply, ClientError> {
        let mut state = self.state.lock().await;
        state.table = Some(table.clone());
        self.load_last(&mut state).await
    }

    /// Waits until netd dies, starts another, loads the last table, and returns its answer: ports
    /// may be others than before if something took them meanwhile.
    ///
    /// # Errors
    /// As [`Client::load`]; call it again.
    ///
    /// # Cancel safety
    /// Nothing is lost: the next call of anything here finds netd dead and starts another.
    pub async fn watch(&self) -> Result<Reply, ClientError> {
        loop {
            let process = {
                let mut state = self.state.lock().await;
                let link = self.take_link(&mut state).await?;
                let process = Arc::clone(&link.process);
                state.link = Some(link);
                process
            };
            // A pidfd is readable once its process has ended.
            process.readable().await.map_err(ClientError::Broken)?.retain_ready();
            let mut state = self.state.lock().await;
            if state.link.as_ref().is_none_or(|link| Arc::ptr_eq(&link.process, &process)) {
                tracing::warn!("netd died, another is started");
                state.link = None;
                if state.table.is_none() {
                    self.connect(&mut state).await?;
                    continue;
                }
                return self.load_last(&mut state).await;
            }
            // A load was here first.
            return Ok(state.reply.clone());
        }
    }

    /// Ends netd and removes its files, as `leave` does. Without a netd, only the files.
    ///
    /// # Errors
    /// When netd cannot be ended or its folder not removed.
    pub async fn stop(&self) -> Result<(), ClientError> {
        let mut state = self.state.lock().await;
        state.table = None;
        let link = match state.link.take() {
            Some(link) => Some(link),
            None => self.adopt().await?,
        };
        if let Some(link) = link {
            end(link, true).await;
        }
        reap(&mut state).await;
        match std::fs::remove_dir_all(self.layout.folder()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error("cannot remove", self.layout.folder())(error))
            }
            _ => Ok(()),
        }
    }

    async fn load_last(&self, state: &mut State) -> Result<Reply, ClientError> {
        let Some(table) = state.table.clone() else {
            return Ok(Reply::default());
        };
        match self.request(state, &Request::Load(table)).await? {
            Response::Loaded(reply) => {
                state.reply = reply.clone();
                Ok(reply)
            }
            other => Err(unexpected(other)),
        }
    }

    /// Asks netd, whichever is there: the first may have just died, the second is its successor.
    async fn request(&self, state: &mut State, request: &Request) -> Result<Response, ClientError> {
        let mut broken = io::Error::from(io::ErrorKind::BrokenPipe);
        for _ in 0..2 {
            let mut link = self.take_link(state).await?;
            match timeout(REQUEST_TIMEOUT, link.ask(request)).await {
                Ok(Ok(response)) => {
                    state.link = Some(link);
                    return Ok(response);
                }
                Ok(Err(error)) => broken = error,
                Err(_) => {
                    tracing::error!(pid = link.hello.pid, "netd hangs, it is killed");
                    link.kill().await;
                    broken = io::ErrorKind::TimedOut.into();
                }
            }
        }
        Err(ClientError::Broken(broken))
    }

    async fn take_link(&self, state: &mut State) -> Result<Link, ClientError> {
        if state.link.is_none() {
            self.connect(state).await?;
        }
        state.link.take().ok_or_else(|| ClientError::Broken(io::ErrorKind::NotConnected.into()))
    }

    /// Finds netd or starts it.
    async fn connect(&self, state: &mut State) -> Result<(), ClientError> {
        state.link = self.adopt().await?;
        if state.link.is_some() {
            return Ok(());
        }
        reap(state).await;
        if let Some(pause) = state.started_at.and_then(|at| RESTART_PAUSE.checked_sub(at.elapsed())) {
            sleep(pause).await;
        }
        state.started_at = Some(Instant::now());
        state.child = Some(self.spawn()?);
        state.link = Some(self.await_start(state).await?);
        Ok(())
    }

    /// The netd that runs, if it speaks as we do. Others are ended; so is one that is silent.
    async fn adopt(&self) -> Result<Option<Link>, ClientError> {
        let link = match Link::open(&self.layout.socket()).await {
            Ok(link) => link,
            Err(LinkError::Absent) => return Ok(None),
            Err(LinkError::Silent(process)) => {
                tracing::error!("netd hangs, it is killed");
                kill(&process).await;
                return Ok(None);
            }
            Err(LinkError::Io(error)) => {
                tracing::debug!(%error, "no netd");
                return Ok(None);
            }
        };
        if link.hello.protocol == PROTOCOL_VERSION {
            return Ok(Some(link));
        }
        tracing::info!(theirs = link.hello.protocol, ours = PROTOCOL_VERSION, "netd replaced");
        end(link, false).await;
        Ok(None)
    }

    fn spawn(&self) -> Result<Child, ClientError> {
        let folder = self.layout.folder();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(file_error("cannot make folder", folder))?;
        let log = self.open_log().map_err(file_error("cannot open", &self.layout.log()))?;
        let second = log.try_clone().map_err(file_error("cannot open", &self.layout.log()))?;
        let mut command = Command::new(&self.launch.exe);
        command.arg("netd").arg("--run-dir").arg(&self.launch.run_dir);
        for cgroup in &self.launch.cgroups {
            command.arg("--cgroup").arg(cgroup);
        }
        // It outlives the daemon: what the daemon's environment holds is not for it.
        command
            .env_clear()
            .envs(["PATH", "RUST_LOG"].iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
        command.current_dir("/").stdin(Stdio::null()).stdout(log).stderr(second);
        command.spawn().map_err(file_error("cannot start netd from", &self.launch.exe))
    }

    fn open_log(&self) -> io::Result<File> {
        let path = self.layout.log();
        if std::fs::metadata(&path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
            std::fs::rename(&path, path.with_extension("log.1"))?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(&path)
    }

    async fn await_start(&self, state: &mut State) -> Result<Link, ClientError> {
        let since = Instant::now();
        let mut ended = None;
        while since.elapsed() < START_TIMEOUT {
            match Link::open(&self.layout.socket()).await {
                Ok(link) => {
                    state.dismiss_all_but(link.hello.pid);
                    return Ok(link);
                }
                // What we started is gone and nobody else answers.
                Err(_) if ended.is_some() => break,
                Err(_) => {}
            }
            ended = state.child.as_mut().and_then(|child| child.try_wait().ok().flatten());
            sleep(POLL_PERIOD).await;
        }
        Err(match ended {
            Some(status) => {
                state.child = None;
                ClientError::Ended { status, log: last_line(&self.layout.log()) }
            }
            None => ClientError::Silent { socket: self.layout.socket(), after: START_TIMEOUT, log: self.layout.log() },
        })
    }
}

impl State {
    /// Ends our child if another netd was first: it waits for the lock, and would take over when
    /// that one ends.
    fn dismiss_all_but(&mut self, pid: u32) {
        if let Some(mut child) = self.child.take_if(|child| child.id() != pid) {
            let killed = child.kill().and_then(|()| child.wait());
            tracing::info!(?killed, "another netd was first");
        }
    }
}

/// Why there is no link.
enum LinkError {
    /// No socket, or nobody behind it.
    Absent,
    /// Somebody is there and does not answer.
    Silent(AsyncFd<OwnedFd>),
    Io(io::Error),
}

impl Link {
    async fn open(socket: &Path) -> Result<Self, LinkError> {
        let stream = match UnixStream::connect(socket).await {
            Ok(stream) => stream,
            Err(error) => {
                return Err(match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => LinkError::Absent,
                    _ => LinkError::Io(error),
                });
            }
        };
        let process = open_process(&stream).map_err(LinkError::Io)?;
        let hello = Hello { protocol: 0, version: String::new(), pid: 0, table: 0 };
        let mut link = Self { stream, process: Arc::new(process), hello };
        match timeout(REQUEST_TIMEOUT, link.ask(&Request::Hello)).await {
            Ok(Ok(Response::Hello(hello))) => {
                link.hello = hello;
                Ok(link)
            }
            Ok(Ok(_)) => Err(LinkError::Io(io::ErrorKind::InvalidData.into())),
            Ok(Err(error)) => Err(LinkError::Io(error)),
            Err(_) => Err(match Arc::try_unwrap(link.process) {
                Ok(process) => LinkError::Silent(process),
                Err(_) => LinkError::Absent,
            }),
        }
    }

    async fn ask(&mut self, request: &Request) -> io::Result<Response> {
        write_frame(&mut self.stream, request).await?;
        let response = read_frame(&mut self.stream).await?;
        response.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    async fn kill(self) {
        kill(&self.process).await;
    }
}

/// Whoever listens behind a socket. Its answer to a later request proves that the number was still
/// its own.
fn open_process(stream: &UnixStream) -> io::Result<AsyncFd<OwnedFd>> {
    let pid = stream.peer_cred()?.pid().and_then(Pid::from_raw);
    let pid = pid.ok_or_else(|| io::Error::other("the peer has no process id here"))?;
    watch_pidfd(pidfd_open(pid, PidfdFlags::NONBLOCK)?)
}

/// Asks netd to end, and kills it if it does not. Errors mean that it is gone already.
async fn end(mut link: Link, forget: bool) {
    let request = Request::Stop { forget };
    let asked = timeout(STOP_TIMEOUT, link.ask(&request)).await;
    let is_ended = matches!(asked, Ok(Ok(Response::Stopping)))
        && matches!(timeout(STOP_TIMEOUT, link.process.readable()).await, Ok(Ok(_)));
    if !is_ended {
        link.kill().await;
    }
}

async fn kill(process: &AsyncFd<OwnedFd>) {
    // It may be gone already, which is what we want.
    let _ = pidfd_send_signal(process.get_ref(), Signal::KILL);
    let _ = timeout(STOP_TIMEOUT, process.readable()).await;
}

/// Collects a netd of ours that has ended, so that it does not stay a zombie.
async fn reap(state: &mut State) {
    let since = Instant::now();
    while let Some(child) = &mut state.child {
        if !matches!(child.try_wait(), Ok(None)) || since.elapsed() > STOP_TIMEOUT {
            state.child = None;
        } else {
            sleep(POLL_PERIOD).await;
        }
    }
}

fn unexpected(response: Response) -> ClientError {
    match response {
        Response::Refused(why) => ClientError::Refused(why),
        other => {
            let what = format!("unexpected answer {other:?}");
            ClientError::Broken(io::Error::new(io::ErrorKind::InvalidData, what))
        }
    }
}

fn file_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ClientError + use<> {
    let path = path.to_owned();
    move |source| ClientError::File { what, path, source }
}

fn last_line(log: &Path) -> String {
    const TAIL_BYTES: u64 = 4096;
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut tail = Vec::new();
        file.read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    };
    let tail = read().unwrap_or_default();
    let line = tail.lines().rev().find(|line| !line.trim().is_empty());
    line.unwrap_or("its log is empty").to_owned()
}
