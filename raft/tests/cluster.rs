//! Members in one process, on real files and threads.

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{CLUSTER, Member, Net, Setup, eventually, form, join, leader, write};
use rswarm_raft::{
    ChangeError, ClusterTag, Config, Disk, Fault, Folder, MemberId, MemoryDisk, Operation, ProposeError, Raft,
    ReadError, Role, StartError, TokioRuntime, Transport, TransportError,
};

type Rt = TokioRuntime;

fn folder() -> (tempfile::TempDir, Arc<dyn Disk>) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Folder::open(folder.path().join("raft")).unwrap());
    (folder, disk)
}

async fn three(setup: &Setup, net: &Arc<Net<Rt>>, disks: &[Arc<dyn Disk>]) -> Vec<Member<Rt>> {
    let mut members = Vec::new();
    for (id, disk) in (1..).zip(disks) {
        members.push(setup.start(net, id, Arc::clone(disk)).await.unwrap());
    }
    form(&members.iter().collect::<Vec<_>>()).await;
    members
}

async fn same_journals(members: &[&Member<Rt>]) {
    let last = members.iter().filter_map(|member| member.raft.status().last_log).max().unwrap();
    for member in members {
        member.raft.wait_applied(last, Duration::from_secs(20)).await.unwrap();
    }
    let commands = |member: &Member<Rt>| member.journal.0.lock().unwrap().commands.clone();
    for member in members {
        assert!(commands(member) == commands(members[0]), "member {} differs", member.raft.member());
    }
}

async fn stop(members: Vec<Member<Rt>>) {
    for member in members {
        member.raft.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_leader_is_replaced_and_nothing_acknowledged_is_lost_not_even_by_a_restart() {
    let net = Net::<Rt>::new();
    let (_folders, disks): (Vec<_>, Vec<_>) = (0..3).map(|_| folder()).unzip();
    let setup = Setup::default();
    let mut members = three(&setup, &net, &disks).await;

    let first = leader(&members.iter().collect::<Vec<_>>()).unwrap().raft.clone();
    let mut acknowledged = Vec::new();
    let mut waiting = futures::stream::FuturesUnordered::new();
    for number in 0..1000 {
        let raft = first.clone();
        waiting.push(async move { (number, raft.propose(Bytes::from(format!("write {number}"))).await) });
    }
    while let Some((number, result)) = futures::StreamExt::next(&mut waiting).await {
        result.unwrap();
        acknowledged.push(number);
        if acknowledged.len() == 700 {
            break;
        }
    }
    // The leader goes while writes are under way.
    net.cut(first.member());
    drop(waiting);
    let dead = members.remove(0);
    assert_eq!(dead.raft.member(), first.member());
    let rest: Vec<&Member<Rt>> = members.iter().collect();
    write(&rest, "after").await;
    let second = leader(&rest).unwrap();
    assert_ne!(second.raft.member(), first.member());
    assert!(second.raft.status().term > 1);
    same_journals(&rest).await;
    let applied = second.journal.0.lock().unwrap().commands.clone();
    for number in &acknowledged {
        assert!(applied.contains(&format!("write {number}").into_bytes()), "write {number} is lost");
    }

    // The old leader comes back with its files, and catches up.
    net.leave(first.member());
    dead.raft.shutdown().await;
    net.heal(first.member());
    members.insert(0, setup.start(&net, 1, Arc::clone(&disks[0])).await.unwrap());
    let all: Vec<&Member<Rt>> = members.iter().collect();
    write(&all, "together").await;
    same_journals(&all).await;

    // All stop and start: the log alone brings everything back.
    let before = members[1].journal.0.lock().unwrap().commands.clone();
    stop(members).await;
    let mut members = Vec::new();
    for (id, disk) in (1..).zip(&disks) {
        members.push(setup.start(&net, id, Arc::clone(disk)).await.unwrap());
    }
    let all: Vec<&Member<Rt>> = members.iter().collect();
    write(&all, "again").await;
    same_journals(&all).await;
    let after = members[0].journal.0.lock().unwrap().commands.clone();
    assert_eq!(after[..before.len()], before[..]);
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_catches_up_by_a_snapshot_of_several_pieces() {
    let net = Net::<Rt>::new();
    let (_folders, disks): (Vec<_>, Vec<_>) = (0..3).map(|_| folder()).unzip();
    let setup = Setup { snapshot_every: 50, keep_entries: 5, ..Setup::default() };
    let first = setup.start(&net, 1, Arc::clone(&disks[0])).await.unwrap();
    form(&[&first]).await;
    let large = "x".repeat(40_000);
    for number in 0..120 {
        write(&[&first], &format!("{number} {large}")).await;
    }
    let taken = first.raft.snapshot_now(Duration::from_secs(20)).await.unwrap();
    assert!(taken.index >= 120);
    eventually::<Rt, _>("the log is purged", || first.raft.status().purged.filter(|purged| purged.index > 100)).await;

    let second = setup.start(&net, 2, Arc::clone(&disks[1])).await.unwrap();
    join(&first.raft, &second.raft).await;
    write(&[&first, &second], "after").await;
    same_journals(&[&first, &second]).await;
    let state = second.journal.0.lock().unwrap().clone();
    assert_eq!(state.restored, 1, "it came by snapshot");
    assert_eq!(state.membership.voters.len(), 2);

    // Both start again from snapshot and log.
    let expected = state.commands;
    stop(vec![first, second]).await;
    let first = setup.start(&net, 1, Arc::clone(&disks[0])).await.unwrap();
    let second = setup.start(&net, 2, Arc::clone(&disks[1])).await.unwrap();
    write(&[&first, &second], "again").await;
    same_journals(&[&first, &second]).await;
    let commands = second.journal.0.lock().unwrap().commands.clone();
    assert_eq!(commands[..expected.len()], expected[..]);
    stop(vec![first, second]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_and_members_leave() {
    let net = Net::<Rt>::new();
    let disks: Vec<Arc<dyn Disk>> = (0..3).map(|_| Arc::new(MemoryDisk::new()) as _).collect();
    let members = three(&Setup::default(), &net, &disks).await;
    let all: Vec<&Member<Rt>> = members.iter().collect();
    let [first, second, third] = [&members[0].raft, &members[1].raft, &members[2].raft];

    first.transfer_leader(second.member(), Duration::from_secs(5)).await.unwrap();
    eventually::<Rt, _>("the second leads", || second.status().is_leader().then_some(())).await;
    write(&all, "with the second").await;
    let refused = first.propose(Bytes::from_static(b"x")).await.unwrap_err();
    assert_eq!(refused, ProposeError::NotLeader { leader: Some((second.member(), common::address(2))) });
    assert_eq!(refused.to_string(), "this member does not lead, member 0000000000000002 at 10.0.0.2:2377 does");
    assert!(matches!(first.read_index().await, Err(ReadError::NotLeader { .. })));

    let read = second.read_index().await.unwrap();
    first.wait_applied(read.index, Duration::from_secs(5)).await.unwrap();

    assert!(eventually::<Rt, _>("all answer", || second.status().can_lose(third.member(), 1000).then_some(true)).await);
    second.remove_member(third.member()).await.unwrap();
    let status = second.status();
    assert_eq!(status.voters.keys().copied().collect::<Vec<_>>(), [first.member(), second.member()]);
    assert!(!status.changing);
    assert_eq!(second.remove_member(third.member()).await, Err(ChangeError::Unknown(third.member())));
    assert_eq!(second.promote_to_voter(MemberId(9)).await, Err(ChangeError::Unknown(MemberId(9))));

    // The leader takes itself out: the other one leads.
    second.remove_member(second.member()).await.unwrap();
    eventually::<Rt, _>("the first leads alone", || {
        let status = first.status();
        (status.is_leader() && status.voters.len() == 1).then_some(())
    })
    .await;
    write(&[&members[0]], "alone").await;
    assert_eq!(first.remove_member(first.member()).await, Err(ChangeError::LastVoter(first.member())));
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_disk_fails_stops_with_the_reason_and_the_others_carry_on() {
    let net = Net::<Rt>::new();
    let memories: Vec<MemoryDisk> = (0..3).map(|_| MemoryDisk::new()).collect();
    let disks: Vec<Arc<dyn Disk>> = memories.iter().map(|disk| Arc::new(disk.clone()) as _).collect();
    let members = three(&Setup::default(), &net, &disks).await;
    let first = &members[0].raft;
    assert!(first.status().is_leader());
    memories[0].set_fault(Some(Fault { operation: Operation::Sync, skip: 0, kind: std::io::ErrorKind::StorageFull }));
    let failed = first.propose(Bytes::from_static(b"lost?")).await;
    assert!(matches!(failed, Err(ProposeError::Uncertain { .. }) | Ok(_)), "{failed:?}");
    let status = eventually::<Rt, _>("it stops", || Some(first.status()).filter(|s| s.role == Role::Stopped)).await;
    assert_eq!(status.fatal.unwrap(), "no space left on device (memory:log/0000000000000001.seg)");
    let refused = first.propose(Bytes::from_static(b"no")).await;
    assert!(matches!(refused, Err(ProposeError::Stopped { .. })), "{refused:?}");

    let rest = [&members[1], &members[2]];
    write(&rest, "without the first").await;
    same_journals(&rest).await;
    stop(members).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_that_cannot_be_applied_stops_the_member_with_its_reason() {
    for (command, expected) in
        [("halt", "the command is unknown"), ("panic", "it panicked: assertion `left != right` failed: asked to panic")]
    {
        let net = Net::<Rt>::new();
        let member = Setup::default().start(&net, 1, Arc::new(MemoryDisk::new())).await.unwrap();
        form(&[&member]).await;
        write(&[&member], "fine").await;
        let result = member.raft.propose(Bytes::from(command)).await;
        assert!(matches!(result, Err(ProposeError::Uncertain { .. })), "{result:?}");
        let status =
            eventually::<Rt, _>("it stops", || Some(member.raft.status()).filter(|s| s.role == Role::Stopped)).await;
        let fatal = status.fatal.unwrap();
        assert!(fatal.starts_with(&format!("the entry 1.3 cannot be applied: {expected}")), "{fatal}");
        stop(vec![member]).await;
    }
}

/// Nobody.
struct Nowhere;

impl Transport for Nowhere {
    fn call(
        &self,
        to: MemberId,
        address: &str,
        _: Bytes,
        _: Duration,
    ) -> futures::future::BoxFuture<'static, Result<Bytes, TransportError>> {
        let error = TransportError::Unreachable { to, address: address.to_owned(), reason: "no network".to_owned() };
        Box::pin(std::future::ready(Err(error)))
    }
}

#[tokio::test]
async fn messages_for_somebody_else_and_nonsense_are_refused() {
    let start = async |cluster, id| {
        let config = Config::new(cluster, MemberId(id), Arc::new(MemoryDisk::new()));
        Raft::<Rt>::start(config, Arc::new(Nowhere), common::Journal::default()).await.unwrap()
    };
    let member = start(CLUSTER, 1).await;
    let mut message = vec![1, 2];
    message.extend_from_slice(&[9; 16]);
    message.extend_from_slice(&2u64.to_le_bytes());
    message.extend_from_slice(&1u64.to_le_bytes());
    let ends = |answer: Bytes, code: u8| answer[1] == 0xff && answer[34] == code;
    assert!(ends(member.handle(Bytes::from(message.clone())).await, 2), "another cluster");
    message[2..18].copy_from_slice(&[7; 16]);
    message[26] = 3;
    assert!(ends(member.handle(Bytes::from(message.clone())).await, 3), "another member");
    message[26] = 1;
    assert!(ends(member.handle(Bytes::from(message.clone())).await, 1), "no body");
    message[0] = 9;
    assert!(ends(member.handle(Bytes::from(message)).await, 1), "another version");
    assert!(ends(member.handle(Bytes::new()).await, 1), "nothing");
    member.shutdown().await;

    let other = start(ClusterTag([8; 16]), 1).await;
    assert_eq!(other.status().role, Role::Learner);
    other.shutdown().await;
}

#[tokio::test]
async fn a_member_refuses_a_second_bootstrap_a_large_command_and_a_foreign_folder() {
    let net = Net::<Rt>::new();
    let disk = MemoryDisk::new();
    let member = Setup::default().start(&net, 1, Arc::new(disk.clone())).await.unwrap();
    form(&[&member]).await;
    let again = member.raft.bootstrap(common::address(1)).await.unwrap_err();
    assert_eq!(again.to_string(), "this member is part of a cluster already");
    let large = Bytes::from(vec![0; rswarm_raft::COMMAND_BYTES + 1]);
    let refused = member.raft.propose(large).await.unwrap_err();
    assert_eq!(refused.to_string(), "the command has 2097153 bytes, allowed: 2097152");
    member.raft.shutdown().await;
    let refused = member.raft.propose(Bytes::from_static(b"late")).await.unwrap_err();
    assert_eq!(refused.to_string(), "the raft member has stopped: it was shut down");
    let foreign = Setup::default().start(&net, 2, Arc::new(disk)).await;
    assert!(matches!(foreign, Err(StartError::Log(_))));
}

#[tokio::test]
async fn a_missing_snapshot_is_refused_by_name() {
    let net = Net::<Rt>::new();
    let disk = MemoryDisk::new();
    let setup = Setup { keep_entries: 0, ..Setup::default() };
    let member = setup.start(&net, 1, Arc::new(disk.clone())).await.unwrap();
    form(&[&member]).await;
    for number in 0..10 {
        write(&[&member], &format!("{number}")).await;
    }
    member.raft.snapshot_now(Duration::from_secs(20)).await.unwrap();
    eventually::<Rt, _>("the log is purged", || member.raft.status().purged).await;
    member.raft.shutdown().await;
    for name in disk.list("snapshot").unwrap() {
        disk.remove(&format!("snapshot/{name}")).unwrap();
    }
    let error = setup.start(&net, 1, Arc::new(disk)).await.map(drop).unwrap_err().to_string();
    assert!(error.starts_with("no raft snapshot in memory:snapshot reaches the purged log entry 1."), "{error}");
}

#[tokio::test]
async fn a_new_watch_waits_for_what_happens_after_it_was_made() {
    let net = Net::<Rt>::new();
    let member = Setup::default().start(&net, 1, Arc::new(MemoryDisk::new())).await.unwrap();
    form(&[&member]).await;
    write(&[&member], "one").await;
    // A look now and then may meet a heartbeat's round; one that is always over at once is a busy loop.
    let mut looks = 0;
    while futures::FutureExt::now_or_never(member.raft.watch().changed()).is_some() {
        looks += 1;
        assert!(looks < 10, "a new watch always says that something changed");
    }
    let mut watch = member.raft.watch();
    write(&[&member], "two").await;
    assert!(watch.changed().await.is_some());
    member.raft.shutdown().await;
}
