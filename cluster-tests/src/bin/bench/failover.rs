//! The leader is killed; a node is killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::swarm::{NETWORK, PATIENCE, Quorum, Swarm};
use crate::times;

/// From SIGKILL of the leader to a change accepted by the others.
pub fn leader(quorum: &dyn Quorum, rounds: usize) -> Result<()> {
    let mut measured = Vec::new();
    for round in 0..rounds {
        quorum.await_whole()?;
        let members = quorum.members();
        let leader = quorum.leader(members[0])?;
        let others: Vec<&str> = members.into_iter().filter(|member| *member != leader).collect();
        // Whoever is asked has been asked before: its connections are there.
        for other in &others {
            quorum.write(other, &format!("before-{round}-{other}")).context("while all members live")?;
        }
        let began = Instant::now();
        quorum.kill(&leader)?;
        let took = first_write(quorum, &others, round, began)?;
        eprintln!("{}: {leader} killed: {took:.3?}", quorum.name());
        measured.push(took);
        quorum.start(&leader)?;
    }
    times("leader-kill", quorum.name(), &measured);
    Ok(())
}

/// The time at which the first of many attempts is answered. They begin every few milliseconds on each member, whether
/// or not earlier ones still wait: a member that lets its callers hang shall not hide that another one would answer.
fn first_write(quorum: &dyn Quorum, members: &[&str], round: usize, began: Instant) -> Result<Duration> {
    let is_done = AtomicBool::new(false);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let mut attempt = 0;
        loop {
            for member in members {
                let (sender, is_done) = (sender.clone(), &is_done);
                let name = format!("w-{round}-{attempt}-{member}");
                scope.spawn(move || {
                    if !is_done.load(Ordering::Relaxed) && quorum.write(member, &name).is_ok() {
                        is_done.store(true, Ordering::Relaxed);
                        let _ = sender.send(began.elapsed());
                    }
                });
            }
            attempt += 1;
            let period = if began.elapsed() < Duration::from_secs(1) { 10 } else { 50 };
            if let Ok(took) = receiver.recv_timeout(Duration::from_millis(period)) {
                return Ok(took);
            }
            if began.elapsed() > PATIENCE {
                is_done.store(true, Ordering::Relaxed);
                anyhow::bail!("{}: no change was accepted within {PATIENCE:?}", quorum.name());
            }
        }
    })
}

/// From the power cut of a worker to all of its tasks running on the other.
pub fn node(swarm: &dyn Swarm, rounds: usize) -> Result<()> {
    const TASKS: usize = 4;
    let count = TASKS.to_string();
    let mut measured = Vec::new();
    for round in 0..rounds {
        swarm.await_whole()?;
        let service = format!("node-{round}");
        let flags = ["--network", NETWORK, "--constraint", "node.role == worker", "--replicas", &count];
        swarm.create(&service, &flags)?;
        let hosts = swarm.await_running(&service, TASKS, None)?;
        let victim = hosts.first().context("no task runs")?;
        // As long as a node may be new: heartbeats and network have settled.
        std::thread::sleep(Duration::from_secs(2));
        let host = swarm.lab().find(victim)?;
        let began = Instant::now();
        host.power_off()?;
        swarm.await_running(&service, TASKS, Some(victim))?;
        let took = began.elapsed();
        eprintln!("{}: {victim} off: {took:.3?}", swarm.name());
        measured.push(took);
        host.power_on()?;
        swarm.start(victim)?;
        swarm.await_whole()?;
        swarm.remove(&service)?;
    }
    times("node-kill", swarm.name(), &measured);
    Ok(())
}
