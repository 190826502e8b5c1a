//! Calls to the local daemon, repeated while the cluster cannot answer.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rswarm_api::pb;
use rswarm_api::pb::control_api_client::ControlApiClient;
use rswarm_api::pb::node_api_client::NodeApiClient;
use rswarm_types::RequestId;
use rswarm_types::limits::CLIENT_RETRY_MS;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::errors::{Error, Result};
use crate::output;

pub type Control = ControlApiClient<Channel>;
pub type Node = NodeApiClient<Channel>;

/// Metadata key of the id that a call keeps across its repetitions.
const REQUEST_KEY: &str = "rswarm-request";
/// The largest answer that is read, in bytes: a million tasks do not fit, ten thousand do.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// First and longest pause between two attempts.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The user is told what the command waits for after so long.
const TELL_AFTER: Duration = Duration::from_secs(2);
/// How often a change is decided anew because the object changed meanwhile.
const STALE_TRIES: usize = 5;

/// A connection to the daemon's socket. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    control: Control,
    node: Node,
    path: PathBuf,
}

/// What to do about an attempt that failed.
#[derive(Debug, PartialEq, Eq)]
enum Judgement {
    /// The answer is final.
    Final,
    /// Not done, or only looked at: try again.
    Again,
    /// Perhaps done: try again with the same request id, which tells.
    Uncertain,
}

fn judge(status: &Status, is_change: bool) -> Judgement {
    if rswarm_api::status::to_refusal(status).is_some() {
        return Judgement::Final;
    }
    // A manager without a leader says so, and has not proposed anything; other failures may come
    // from a connection that broke after the command was on its way.
    let is_certain = status.message().starts_with("no leader");
    match status.code() {
        Code::Unavailable if is_certain || !is_change => Judgement::Again,
        Code::Unavailable => Judgement::Uncertain,
        Code::DeadlineExceeded => {
            if is_change {
                Judgement::Uncertain
            } else {
                Judgement::Again
            }
        }
        // A connection that broke within a call has a source; a status that was sent has none.
        Code::Unknown | Code::Cancelled | Code::Internal if status.source().is_some() => {
            if is_change {
                Judgement::Uncertain
            } else {
                Judgement::Again
            }
        }
        _ => Judgement::Final,
    }
}

/// The socket's path in `unix:///run/rswarm/rswarm.sock`.
///
/// # Errors
/// On another scheme or a relative path.
pub fn socket_path(host: &str) -> Result<PathBuf> {
    let path = host.strip_prefix("unix://").unwrap_or(host);
    if path.starts_with('/') {
        return Ok(path.into());
    }
    Err(Error::Usage(format!(
        "invalid --host \"{host}\": only the local daemon's socket can be named\n       allowed: unix:///PATH, e.g. unix:///run/rswarm/rswarm.sock"
    )))
}

/// A request id: 128 random bits as 25 characters of base 36.
fn new_request_id() -> Result<RequestId> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|e| Error::Failed(format!("no random bits: {e}")))?;
    Ok(RequestId(u128::from_be_bytes(bytes)))
}

impl Client {
    /// Connects to the daemon.
    ///
    /// # Errors
    /// When nobody listens there, with what to do.
    pub async fn connect(path: &Path) -> Result<Self> {
        // The first connection is made here, so that its error is the operating system's.
        UnixStream::connect(path).await.map_err(|e| no_daemon(path, &e))?;
        let socket = path.to_owned();
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // The address is never looked up: the connector ignores it.
        let channel = Endpoint::from_static("http://rswarm").connect_with_connector_lazy(connector);
        Ok(Self {
            control: Control::new(channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX),
            node: Node::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX),
            path: path.to_owned(),
        })
    }

    /// A call to this node; never repeated, since what it asks may not be asked twice.
    ///
    /// # Errors
    /// The daemon's.
    pub async fn node<Q, A, F>(&self, question: Q, call: F) -> Result<A>
    where
        F: AsyncFnOnce(Node, Request<Q>) -> std::result::Result<Response<A>, Status>,
    {
        match call(self.node.clone(), Request::new(question)).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.explain(status)),
        }
    }

    /// A question to the cluster, repeated while nobody can answer.
    ///
    /// # Errors
    /// The cluster's answer, or that nobody leads it.
    pub async fn read<Q: Clone, A, F>(&self, question: Q, call: F) -> Result<A>
    where
        F: AsyncFn(Control, Request<Q>) -> std::result::Result<Response<A>, Status>,
    {
        self.repeat(question, false, call).await
    }

    /// A change of the cluster, repeated under one request id while nobody can answer.
    ///
    /// # Errors
    /// The cluster's refusal; that nobody leads it; or that the outcome is unknown.
    pub async fn change<Q: Clone, A, F>(&self, question: Q, call: F) -> Result<A>
    where
        F: AsyncFn(Control, Request<Q>) -> std::result::Result<Response<A>, Status>,
    {
        self.repeat(question, true, call).await
    }

    async fn repeat<Q: Clone, A, F>(&self, question: Q, is_change: bool, call: F) -> Result<A>
    where
        F: AsyncFn(Control, Request<Q>) -> std::result::Result<Response<A>, Status>,
    {
        let id = new_request_id()?.to_string();
        let id: MetadataValue<_> = id.parse().map_err(|_| Error::Failed("a request id is not ASCII".into()))?;
        let began = Instant::now();
        let deadline = began + Duration::from_millis(CLIENT_RETRY_MS);
        let (mut pause, mut is_uncertain, mut is_told, mut is_explained) = (PAUSE.0, false, false, false);
        loop {
            let mut request = Request::new(question.clone());
            request.metadata_mut().insert(REQUEST_KEY, id.clone());
            let attempt = call(self.control.clone(), request);
            // A manager that hears from no leader waits for one itself before it answers.
            let answer = match is_told {
                true => attempt.await,
                false => {
                    or_tell(attempt, began + TELL_AFTER, async || {
                        is_told = true;
                        output::note(&format!("waiting: {}\n", self.why_no_answer().await));
                    })
                    .await
                }
            };
            let status = match answer {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => status,
            };
            match judge(&status, is_change) {
                Judgement::Final => return Err(self.explain(status)),
                Judgement::Again => {}
                Judgement::Uncertain => is_uncertain = true,
            }
            if Instant::now() + pause >= deadline {
                let error = self.explain(status);
                return Err(if is_uncertain { Error::OutcomeUnknown(error.to_string()) } else { error });
            }
            if !is_explained && began.elapsed() >= TELL_AFTER {
                output::note(&format!("waiting: {}\n", status.message()));
                (is_told, is_explained) = (true, true);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    /// Why a call may have no answer yet, as far as this node knows.
    async fn why_no_answer(&self) -> &'static str {
        let info = self.node(pb::Empty {}, async |mut node, request| node.info(request).await);
        match tokio::time::timeout(PAUSE.1, info).await {
            Ok(Ok(info)) if info.is_manager && info.leader.is_empty() => "no leader",
            _ => "the managers have not answered yet",
        }
    }

    /// The error for people; a connection that was refused says how to start the daemon.
    pub fn explain(&self, status: Status) -> Error {
        let mut source = status.source();
        while let Some(error) = source {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                return no_daemon(&self.path, io);
            }
            source = error.source();
        }
        status.into()
    }

    /// A watcher of one service.
    ///
    /// # Errors
    /// As [`Client::read`].
    pub async fn watch_service(&self, id: &str) -> Result<tonic::Streaming<pb::ServiceProgress>> {
        self.read(reference(id), async |mut control, request| control.watch_service(request).await).await
    }
}

/// Waits for an answer; at a time at which it is not there, `tell` runs once.
async fn or_tell<A>(answer: impl Future<Output = A>, at: Instant, tell: impl AsyncFnOnce()) -> A {
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        () = tokio::time::sleep_until(at) => {}
    }
    tell().await;
    answer.await
}

/// A name, an id, or a prefix of one.
pub fn reference(name: &str) -> pb::Ref {
    pb::Ref { name: name.to_owned() }
}

/// Decides a change anew when the object changed between look and change.
///
/// # Errors
/// The change's; `Conflict` when the object does not hold still.
pub async fn retry_stale<A>(mut change: impl AsyncFnMut() -> Result<A>) -> Result<A> {
    for _ in 1..STALE_TRIES {
        match change().await {
            Err(Error::Conflict(text)) if text.starts_with("update out of sequence") => {}
            other => return other,
        }
    }
    change().await
}

fn no_daemon(path: &Path, error: &std::io::Error) -> Error {
    let shown = path.display();
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return Error::Denied(format!(
            "the daemon's socket {shown} may not be opened: {error}\n       try again as root"
        ));
    }
    Error::NoManager(format!(
        "no daemon answers at {shown}: {error}\n       is it running? start it with: systemctl start rswarm, or: rswarm daemon"
    ))
}

/// Whether an error says that the object does not exist.
pub fn is_missing(refusal: &Error) -> bool {
    matches!(refusal, Error::NotFound(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rswarm_api::status::from_refusal;
    use rswarm_types::Refusal;

    #[test]
    fn only_what_may_have_happened_is_uncertain() {
        for (status, is_change, expected) in [
            (Status::unavailable("no leader: 1 of 3 managers reachable"), true, Judgement::Again),
            (Status::unavailable("the manager did not answer"), true, Judgement::Uncertain),
            (Status::unavailable("the manager did not answer"), false, Judgement::Again),
            (Status::deadline_exceeded("the outcome is unknown"), true, Judgement::Uncertain),
            (Status::failed_precondition("this node is in no swarm"), true, Judgement::Final),
            (Status::internal("a bug"), true, Judgement::Final),
            (from_refusal(&Refusal::Conflict("taken".into())), true, Judgement::Final),
        ] {
            assert_eq!(judge(&status, is_change), expected, "{status:?}");
        }
    }

    #[test]
    fn hosts_are_sockets_of_this_machine() {
        assert_eq!(socket_path("unix:///run/a.sock").unwrap(), Path::new("/run/a.sock"));
        assert_eq!(socket_path("/run/a.sock").unwrap(), Path::new("/run/a.sock"));
        for wrong in ["tcp://10.0.0.1:2377", "unix://a.sock", ""] {
            assert_eq!(socket_path(wrong).unwrap_err().code(), 2, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_socket_without_a_daemon_says_how_to_start_it() {
        let dir = tempfile::tempdir().unwrap();
        let Err(error) = Client::connect(&dir.path().join("none.sock")).await else { panic!("nobody listens") };
        assert_eq!(error.code(), 5);
        let text = error.to_string();
        assert!(text.contains("rswarm daemon") && text.contains("systemctl start rswarm"), "{text}");
    }

    #[tokio::test]
    async fn who_waits_long_is_told_while_the_call_goes_on() {
        let mut told = 0;
        assert_eq!(or_tell(async { 1 }, Instant::now() + PAUSE.1, async || told += 1).await, 1);
        assert_eq!(told, 0, "an answer in time needs no words");
        let (answer, receiver) = tokio::sync::oneshot::channel();
        let got = or_tell(receiver, Instant::now(), async || {
            told += 1;
            answer.send(2).unwrap();
        });
        assert_eq!(got.await, Ok(2));
        assert_eq!(told, 1);
    }

    #[tokio::test]
    async fn a_stale_change_is_decided_again() {
        let mut tries = 0;
        let answer = retry_stale(async || {
            tries += 1;
            let stale = Refusal::Stale { kind: "service".into(), name: "web".into(), at: 2, from: 1 };
            if tries < 3 { Err(stale.into()) } else { Ok(tries) }
        });
        assert_eq!(answer.await.unwrap(), 3);
    }
}
