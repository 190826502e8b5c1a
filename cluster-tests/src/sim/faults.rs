//! What happens to a cluster: daemons killed, power and links cut, bad weather, containers that die.

use std::sync::Arc;
use std::time::Duration;

use rswarm_types::spec::Role;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::cluster::Cluster;
use super::dice::Dice;
use super::host::Host;
use super::network::{HostId, Weather};

/// Hurts the cluster until `until`; every fault has ended, or is left to be healed, by then.
pub async fn inflict(cluster: Arc<Cluster>, dice: Dice, until: Instant) {
    for host in &cluster.hosts {
        host.kernel.trouble(true);
    }
    let mut under_way = JoinSet::new();
    loop {
        sleep(dice.millis(200, 1_500)).await;
        if Instant::now() >= until {
            break;
        }
        while under_way.try_join_next().is_some() {}
        let (cluster, dice) = (Arc::clone(&cluster), dice.fork());
        under_way.spawn(async move { one(&cluster, &dice, until).await });
    }
    while under_way.join_next().await.is_some() {}
}

/// A pause that does not outlast the faults.
async fn rest(time: Duration, until: Instant) {
    tokio::time::sleep_until((Instant::now() + time).min(until)).await;
}

async fn one(cluster: &Cluster, dice: &Dice, until: Instant) {
    let Some(host) = dice.pick(&cluster.hosts) else { return };
    match dice.below(100) {
        0..22 => {
            if may_lose(cluster, host, dice) {
                host.kill();
                rest(dice.millis(50, 5_000), until).await;
                host.start().await;
            }
        }
        22..34 => {
            if may_lose(cluster, host, dice) {
                host.cut_power();
                rest(dice.millis(500, 6_000), until).await;
                host.start().await;
            }
        }
        34..40 => {
            host.stop().await;
            rest(dice.millis(10, 1_000), until).await;
            host.start().await;
        }
        40..58 => isolate(cluster, host.id, dice, until).await,
        58..72 => {
            let Some(other) = dice.pick(&cluster.hosts) else { return };
            cut(cluster, &[(host.id, other.id)], dice, until).await;
        }
        72..84 => {
            let Some(other) = dice.pick(&cluster.hosts) else { return };
            cut(cluster, &[(host.id, other.id), (other.id, host.id)], dice, until).await;
        }
        84..90 => {
            let weather =
                Weather { loss_percent: dice.below(12), slow_percent: dice.below(40), slow_ms: dice.between(5, 120) };
            cluster.network.trace().note(format!("{weather:?}"));
            cluster.network.set_weather(weather);
        }
        _ => host.kernel.crash_one(dice),
    }
}

/// A majority of the managers stays, most of the time.
fn may_lose(cluster: &Cluster, host: &Host, dice: &Dice) -> bool {
    let down = cluster.managers().filter(|m| m.process().is_none()).count();
    host.role == Role::Worker || down == 0 || dice.chance(15)
}

/// Nothing reaches a host, or nothing leaves it, or both.
async fn isolate(cluster: &Cluster, host: HostId, dice: &Dice, until: Instant) {
    let (out, into) = match dice.below(4) {
        0 => (true, false),
        1 => (false, true),
        _ => (true, true),
    };
    let others = cluster.hosts.iter().map(|h| h.id).filter(|id| *id != host);
    let links: Vec<(HostId, HostId)> = others
        .flat_map(|other| [(out, (host, other)), (into, (other, host))])
        .filter_map(|(is_wanted, link)| is_wanted.then_some(link))
        .collect();
    cut(cluster, &links, dice, until).await;
}

async fn cut(cluster: &Cluster, links: &[(HostId, HostId)], dice: &Dice, until: Instant) {
    let names: Vec<String> = links.iter().map(|(from, to)| format!("{}>{}", from.0, to.0)).collect();
    cluster.network.trace().note(format!("cut {}", names.join(" ")));
    for (from, to) in links.iter().filter(|(from, to)| from != to) {
        cluster.network.cut(*from, *to);
    }
    rest(dice.millis(100, 6_000), until).await;
    for (from, to) in links {
        cluster.network.mend(*from, *to);
    }
    cluster.network.trace().note(format!("mended {}", names.join(" ")));
}
