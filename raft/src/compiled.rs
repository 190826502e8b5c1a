//! The engine, compiled here for both runtimes.
//!
//! A generic function is compiled in the first crate that calls it. Without this, every crate above would compile the
//! whole engine again, and run it unoptimised in development builds, which a simulator notices.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::config::Config;
use crate::handle::{Raft, StartError};
use crate::machine::StateMachine;
use crate::member::MemberId;
use crate::transport::Transport;
use crate::{AsyncRuntime, SimRuntime, TokioRuntime};

type Start<R> =
    fn(Config, Arc<dyn Transport>, Box<dyn StateMachine>) -> BoxFuture<'static, Result<Raft<R>, StartError>>;

fn start<R: AsyncRuntime>() -> Start<R> {
    |config, transport, machine| Raft::<R>::start_boxed(config, transport, machine).boxed()
}

fn calls<R: AsyncRuntime>(raft: &Raft<R>, member: MemberId, within: Duration) -> Vec<BoxFuture<'_, ()>> {
    vec![
        raft.bootstrap(String::new()).map(drop).boxed(),
        raft.propose(Bytes::new()).map(drop).boxed(),
        raft.read_index().map(drop).boxed(),
        raft.wait_applied(0, within).map(drop).boxed(),
        raft.snapshot_now(within).map(drop).boxed(),
        raft.handle(Bytes::new()).map(drop).boxed(),
        raft.add_learner(member, String::new()).map(drop).boxed(),
        raft.wait_caught_up(member, within).map(drop).boxed(),
        raft.promote_to_voter(member).map(drop).boxed(),
        raft.remove_member(member).map(drop).boxed(),
        raft.settle_membership().map(drop).boxed(),
        raft.transfer_leader(member, within).map(drop).boxed(),
        raft.shutdown().boxed(),
        async { drop(raft.watch().changed().await) }.boxed(),
    ]
}

/// All of it, for the linker. Nobody calls it.
#[doc(hidden)]
pub fn compiled() -> impl Sized {
    (
        start::<TokioRuntime>(),
        start::<SimRuntime>(),
        calls::<TokioRuntime> as fn(_, _, _) -> _,
        calls::<SimRuntime> as fn(_, _, _) -> _,
    )
}
