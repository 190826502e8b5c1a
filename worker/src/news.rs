//! What the daemon hears of its worker. Only the latest counts, so a slow listener costs no memory and no session.

use std::net::SocketAddr;

use rswarm_types::MemberId;
use rswarm_types::spec::{Control, Role};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Something that the daemon acts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerEvent {
    /// What the cluster decided about this node.
    Orders { role: Role, member: MemberId, control: Control },
    /// A session with this manager is open.
    Connected(SocketAddr),
    /// No session is open; others are tried.
    Disconnected,
    /// The node is not in the cluster any more, and why; nothing is tried any more.
    Removed(String),
}

/// How things stand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    pub orders: Option<(Role, MemberId, Control)>,
    pub connected: Option<SocketAddr>,
    pub removed: Option<String>,
}

/// Tells differences, in an order that makes sense: the session first.
fn differences(told: &News, now: &News) -> Vec<WorkerEvent> {
    let mut events = Vec::new();
    if told.connected != now.connected {
        events.push(now.connected.map_or(WorkerEvent::Disconnected, WorkerEvent::Connected));
    }
    if told.orders != now.orders
        && let Some((role, member, control)) = now.orders
    {
        events.push(WorkerEvent::Orders { role, member, control });
    }
    if told.removed != now.removed
        && let Some(why) = &now.removed
    {
        events.push(WorkerEvent::Removed(why.clone()));
    }
    events
}

/// Passes news on until `stop`.
pub async fn tell(mut news: watch::Receiver<News>, events: mpsc::Sender<WorkerEvent>, stop: CancellationToken) {
    let mut told = News::default();
    loop {
        let now = news.borrow_and_update().clone();
        for event in differences(&told, &now) {
            let sent = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                sent = events.send(event) => sent,
            };
            if sent.is_err() {
                return;
            }
        }
        told = now;
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = news.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_differences_are_told() {
        let at = "10.0.0.1:2377".parse().unwrap();
        let none = News::default();
        let orders = (Role::Worker, MemberId(0), Control::None);
        let up = News { connected: Some(at), orders: Some(orders), removed: None };
        let told = WorkerEvent::Orders { role: Role::Worker, member: MemberId(0), control: Control::None };
        assert_eq!(differences(&none, &up), [WorkerEvent::Connected(at), told]);
        assert_eq!(differences(&up, &up), []);
        let gone = News { connected: None, removed: Some("x".into()), ..up.clone() };
        assert_eq!(differences(&up, &gone), [WorkerEvent::Disconnected, WorkerEvent::Removed("x".into())]);
    }
}
