//! Three members in virtual time: messages late and lost, members killed, power cut. One seed decides everything.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use common::{Member, Net, Setup, eventually, form};
use rswarm_raft::{AsyncRuntime, MemoryDisk, Raft, SimRuntime, WriterMode, sim_scope};

type Rt = SimRuntime;

/// Numbers that a seed decides.
#[derive(Clone)]
struct Dice(Arc<Mutex<u64>>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(seed)))
    }

    fn below(&self, limit: u64) -> u64 {
        let mut state = self.0.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

struct Run {
    trace: Vec<String>,
    acknowledged: usize,
    kills: usize,
    terms: u64,
}

fn run(seed: u64) -> Run {
    let bytes = seed.to_le_bytes();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .rng_seed(tokio::runtime::RngSeed::from_bytes(&bytes))
        .build()
        .unwrap();
    runtime.block_on(sim_scope(seed, simulate(seed)))
}

async fn simulate(seed: u64) -> Run {
    let dice = Dice::new(seed);
    let net = Net::<Rt>::new();
    let setup =
        Setup { writer: WriterMode::Inline, snapshot_every: 60, keep_entries: 10, snapshot_chunk_timeout_ms: 500 };
    let mut disks: Vec<MemoryDisk> = (0..3).map(|_| MemoryDisk::new()).collect();
    let mut members: Vec<Member<Rt>> = Vec::new();
    for (id, disk) in (1..).zip(&disks) {
        members.push(sim_scope(dice.below(1 << 60), setup.start(&net, id, Arc::new(disk.clone()))).await.unwrap());
    }
    form(&members.iter().collect::<Vec<_>>()).await;
    let weather = dice.clone();
    net.set_delay(move || match weather.below(100) {
        0..3 => None,
        3..90 => Some(Duration::from_millis(1 + weather.below(3))),
        _ => Some(Duration::from_millis(weather.below(40))),
    });

    // Clients write to whoever leads, and remember what was acknowledged.
    let handles: Arc<Mutex<Vec<Raft<Rt>>>> =
        Arc::new(Mutex::new(members.iter().map(|member| member.raft.clone()).collect()));
    let acknowledged: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut clients = Vec::new();
    for client in 0..4 {
        let (handles, acknowledged, dice) = (Arc::clone(&handles), Arc::clone(&acknowledged), dice.clone());
        clients.push(Rt::spawn(async move {
            for number in 0..150 {
                let command = format!("{client}-{number}");
                let all = handles.lock().unwrap().clone();
                let raft = all.into_iter().find(|raft| raft.status().is_leader());
                if let Some(raft) = raft {
                    let proposal = raft.propose(Bytes::from(command.clone()));
                    if let Ok(Ok(_)) = Rt::timeout(Duration::from_secs(1), proposal).await {
                        acknowledged.lock().unwrap().push(command);
                    }
                }
                Rt::sleep(Duration::from_millis(20 + dice.below(60))).await;
            }
        }));
    }

    // Somebody pulls plugs.
    let mut kills = 0;
    for _ in 0..8 {
        Rt::sleep(Duration::from_millis(300 + dice.below(900))).await;
        let at = usize::try_from(dice.below(3)).unwrap();
        let id = members[at].raft.member();
        match dice.below(3) {
            0 => {
                net.cut(id);
                Rt::sleep(Duration::from_millis(dice.below(1500))).await;
                net.heal(id);
            }
            fault => {
                kills += 1;
                net.leave(id);
                disks[at] = if fault == 1 { disks[at].kill() } else { disks[at].power_cut(|| dice.below(2) == 0) };
                net.note(format!("{id} dies"));
                members[at].raft.shutdown().await;
                Rt::sleep(Duration::from_millis(dice.below(800))).await;
                let start = setup.start(&net, id.0, Arc::new(disks[at].clone()));
                members[at] = sim_scope(dice.below(1 << 60), start)
                    .await
                    .unwrap_or_else(|error| panic!("seed {seed}: member {id} does not come back: {error}"));
                handles.lock().unwrap()[at] = members[at].raft.clone();
            }
        }
    }
    for client in clients {
        client.await.unwrap();
    }

    // Healed, they agree, and nothing acknowledged is missing.
    net.set_delay(|| Some(Duration::from_millis(1)));
    let all: Vec<&Member<Rt>> = members.iter().collect();
    common::write(&all, "end").await;
    let ended = |member: &Member<Rt>| member.journal.0.lock().unwrap().commands.iter().any(|c| c == b"end");
    let done = eventually::<Rt, _>("all have the end", || members.iter().all(ended).then_some(()));
    if Rt::timeout(Duration::from_secs(10), done).await.is_err() {
        let trace = net.trace.lock().unwrap();
        for line in &trace[trace.len().saturating_sub(60)..] {
            eprintln!("{line}");
        }
        members.iter().for_each(|member| eprintln!("{:#?}", member.raft.status()));
        panic!("seed {seed}: the members do not converge");
    }
    let states: Vec<_> = members.iter().map(|member| member.journal.0.lock().unwrap().commands.clone()).collect();
    for state in &states {
        assert!(*state == states[0], "seed {seed}: members differ");
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    for command in &acknowledged {
        assert!(states[0].contains(&command.clone().into_bytes()), "seed {seed}: {command} is lost");
    }
    let terms = members.iter().map(|member| member.raft.status().term).max().unwrap();
    for member in &members {
        member.raft.shutdown().await;
    }
    Run { trace: std::mem::take(&mut net.trace.lock().unwrap()), acknowledged: acknowledged.len(), kills, terms }
}

#[test]
fn under_faults_nothing_acknowledged_is_lost_and_members_agree() {
    let began = std::time::Instant::now();
    let (mut acknowledged, mut kills, mut terms) = (0, 0, 0);
    // RAFT_SEEDS=FIRST,COUNT replays others.
    let seeds = std::env::var("RAFT_SEEDS").unwrap_or_else(|_| "0,20".to_owned());
    let (first, count) = seeds.split_once(',').unwrap();
    let (first, count): (u64, u64) = (first.parse().unwrap(), count.parse().unwrap());
    for seed in first..first + count {
        let run = run(seed);
        acknowledged += run.acknowledged;
        kills += run.kills;
        terms += run.terms;
    }
    assert!(acknowledged as u64 > 200 * count, "{acknowledged} acknowledged");
    assert!(kills as u64 > 2 * count && terms > 2 * count, "{kills} kills, {terms} terms");
    eprintln!("{count} seeds, {acknowledged} acknowledged, {kills} kills, {terms} terms, {:?}", began.elapsed());
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another() {
    for seed in 100..103 {
        let (first, second) = (run(seed).trace, run(seed).trace);
        assert!(first.len() > 1000);
        let differs = first.iter().zip(&second).position(|(a, b)| a != b);
        assert_eq!(differs.map(|at| (at, &first[at], &second[at])), None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert!(first != run(seed + 50).trace);
    }
}
