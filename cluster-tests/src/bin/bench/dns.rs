//! Questions about names: a container asks at 127.0.0.11 through its own port 53, as every program in it does. Each
//! client waits for one answer before it asks again.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rswarm_cluster_tests::lab::cluster::{BUSYBOX, Cluster};
use rswarm_cluster_tests::lab::{Host, Lab, NameServer, until, within};

use crate::{OURS, note, values};

const CLIENTS: [usize; 2] = [1, 8];
const WARM_UP: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(2);
const WINDOWS: usize = 3;
const RESOLVER: ([u8; 4], u16) = ([127, 0, 0, 11], 53);
/// A question that is not answered by then is lost, and the measurement with it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A service that each server knows by itself.
const NAME: &str = "web";

/// What the clients ask.
#[derive(Clone, Copy)]
enum Question {
    /// A name of the server's own table.
    Known,
    /// Names that only a server outside knows, each once.
    Outside,
}

/// Our own resolver, in a container.
pub fn ours() -> Result<()> {
    let cluster = Cluster::new(1, 0);
    let host = cluster.host("m1");
    let _outside = outside(&cluster.lab)?;
    cluster.run("network create --driver overlay bench");
    for (name, program) in [(NAME, "tail -f /dev/null"), ("ask", "sleep 100000")] {
        cluster.create(&format!("--name {name} --network bench {BUSYBOX} {program}"));
    }
    let found: Vec<_> = host.container_processes("sleep").into_iter().collect();
    let [process] = found[..] else { bail!("{} containers ask, not one", found.len()) };
    measure_all(OURS, &process.network(), RESOLVER.into())?;
    // What no server can be faster than, in the same place.
    let echo = Echo::start(&process.network())?;
    measure("echo", &process.network(), echo.address, Question::Known)?;
    note("echo: a thread that sends each question back; dns of names outside: the server outside is a thread too");
    Ok(())
}

/// dnsmasq on a host of its own, without a cache, and one outside like ours.
pub fn dnsmasq() -> Result<()> {
    let lab = Lab::builder().hosts(["m1"]).build()?;
    let host = lab.find("m1")?;
    let outside = outside(&lab)?;
    let at: SocketAddr = ([127, 0, 0, 13], 53).into();
    let server = format!("--server={}", lab.client().address());
    let words = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--cache-size=0",
        "--dns-forward-max=1024",
        "--bind-interfaces",
        "--listen-address=127.0.0.13",
        "--address=/web/10.0.0.2",
        "--user=root",
        "--pid-file=",
        &server,
    ];
    host.spawn("dnsmasq", &words)?;
    let network = host.network();
    until("dnsmasq answers", Duration::from_secs(10), || {
        within(&network, move || Client::connect(at)?.ask(0, Question::Known, 0)).is_ok()
    })?;
    measure_all("dnsmasq", &host.network(), at)?;
    drop(outside);
    lab.down()
}

fn outside(lab: &Lab) -> Result<NameServer> {
    let client: &Host = lab.client();
    NameServer::start(&client.network(), format!("{}:53", client.address()).parse()?)
}

fn measure_all(who: &str, network: &Path, server: SocketAddr) -> Result<()> {
    measure(who, network, server, Question::Known)?;
    measure(who, network, server, Question::Outside)
}

fn measure(who: &str, network: &Path, server: SocketAddr, question: Question) -> Result<()> {
    let kind = match question {
        Question::Known => "known",
        Question::Outside => "outside",
    };
    for count in CLIENTS {
        let (rates, times) = within(network, move || load(server, question, count))?;
        eprintln!("{who}: {kind}: {count} clients: {rates:.0?}");
        values(&format!("dns-{kind}-{count}-rate"), who, "/s", rates.into_iter());
        // Enough for a 99th percentile.
        let step = (times.len() / 10_000).max(1);
        let some = times.iter().step_by(step).map(|time| time.as_secs_f64() * 1e6);
        values(&format!("dns-{kind}-{count}"), who, "us", some);
    }
    Ok(())
}

/// The rates of some windows, and the time of each question. Runs where the clients are.
fn load(server: SocketAddr, question: Question, count: usize) -> Result<(Vec<f64>, Vec<Duration>)> {
    let answered = Arc::new(AtomicU32::new(0));
    let is_over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..count)
        .map(|number| {
            let (answered, is_over) = (Arc::clone(&answered), Arc::clone(&is_over));
            std::thread::spawn(move || -> Result<Vec<Duration>> {
                let mut client = Client::connect(server)?;
                let mut times = Vec::new();
                for round in 0_u32.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let began = Instant::now();
                    client.ask(round, question, number)?;
                    times.push(began.elapsed());
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(times)
            })
        })
        .collect();
    std::thread::sleep(WARM_UP);
    let mut rates = Vec::new();
    for _ in 0..WINDOWS {
        let (began, before) = (Instant::now(), answered.load(Ordering::Relaxed));
        std::thread::sleep(WINDOW);
        rates.push(f64::from(answered.load(Ordering::Relaxed) - before) / began.elapsed().as_secs_f64());
    }
    is_over.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for client in clients {
        times.append(&mut client.join().ok().context("a client panicked")??);
    }
    Ok((rates, times))
}

/// One that asks.
struct Client {
    socket: UdpSocket,
    query: Vec<u8>,
    answer: [u8; 512],
}

impl Client {
    fn connect(server: SocketAddr) -> Result<Client> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        Ok(Client { socket, query: Vec::new(), answer: [0; 512] })
    }

    fn ask(&mut self, round: u32, question: Question, number: usize) -> Result<()> {
        let name = match question {
            Question::Known => NAME.to_owned(),
            Question::Outside => format!("n{number}-{round}.example"),
        };
        self.query.clear();
        let id = round.to_be_bytes();
        self.query.extend([id[2], id[3], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        for label in name.split('.') {
            self.query.push(u8::try_from(label.len())?);
            self.query.extend(label.bytes());
        }
        self.query.extend([0, 0, 1, 0, 1]);
        self.socket.send(&self.query)?;
        let length = self.socket.recv(&mut self.answer).context("a question was not answered")?;
        let answer = &self.answer[..length];
        let is_echo = answer == self.query;
        ensure!(answer[..2] == self.query[..2], "an answer to another question");
        ensure!(is_echo || (answer[3] & 15 == 0 && answer[7] == 1), "{name} was not answered: {answer:02x?}");
        Ok(())
    }
}

/// Sends everything back until it is dropped.
struct Echo {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
}

impl Echo {
    fn start(network: &Path) -> Result<Echo> {
        let socket = within(network, || Ok(UdpSocket::bind("127.0.0.14:0")?))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let echo = Echo { address: socket.local_addr()?, is_over: Arc::default() };
        let is_over = Arc::clone(&echo.is_over);
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while !is_over.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut buffer) {
                    // A client that is gone has no port any more.
                    let _ = socket.send_to(&buffer[..length], client);
                }
            }
        });
        Ok(echo)
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
