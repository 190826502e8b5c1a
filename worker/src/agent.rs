//! The loop that observes, plans and performs, and says what became of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rswarm_types::TaskId;
use rswarm_types::assignment::{AssignedTask, Assignments};
use rswarm_types::task::TaskStatus;
use rswarm_types::task_state::{DesiredState, TaskState};
use rswarm_types::units::TimestampMs;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Verdict};
use crate::host::{Host, Networks, PrepareError, StartFailure, StopSignal};
use crate::ledger::{Ledger, Remembered, may_follow};
use crate::limits::{STARTS_AT_ONCE, STOP_TIMEOUT};
use crate::network::NetworkOrder;
use crate::plan::{Container, Local, Moment, Orders, SandboxProblem, SandboxState, Step, Wellness, Work, plan};
use crate::shared::Shared;
use crate::view::{ContainerView, view};

/// A report changes what follows; more rounds than states are a loop in the rules.
const ROUNDS_MAX: usize = 16;
/// Without anything to do the world is looked at so often.
const IDLE_PERIOD: Duration = Duration::from_secs(5);

/// What the agent hears.
#[derive(Debug)]
pub enum Event {
    Orders {
        orders: Box<Assignments>,
        /// The first of a session.
        is_first: bool,
    },
    Networks {
        order: NetworkOrder,
        result: Result<Networks, String>,
    },
    Wellness(TaskId, Wellness),
    View(oneshot::Sender<Vec<ContainerView>>),
}

/// What a piece of work came to.
enum Done {
    Prepared(Result<(), PrepareError>),
    Started(Result<(), StartFailure>),
    Signalled(Result<(), String>),
    Removed(Result<(), String>),
    /// The watch over a container's health needs no more checks.
    Watched,
}

pub struct Agent {
    host: Arc<dyn Host>,
    ledger: Ledger,
    shared: Arc<Shared>,
    inbox: mpsc::Sender<Event>,
    networks: watch::Sender<Option<NetworkOrder>>,
    orders: Option<Arc<Assignments>>,
    /// By id, as in the orders.
    assigned: BTreeMap<TaskId, Arc<AssignedTask>>,
    trust: Orders,
    tasks: BTreeMap<TaskId, Local>,
    work: JoinSet<Done>,
    owners: HashMap<Id, TaskId>,
    preparing: BTreeMap<TaskId, AbortHandle>,
    watches: BTreeMap<TaskId, AbortHandle>,
    starts: Arc<Semaphore>,
    began: Instant,
    gateway: Option<ipnet::Ipv4Net>,
}

impl Agent {
    pub fn new(
        host: Arc<dyn Host>,
        ledger: Ledger,
        remembered: Remembered,
        shared: Arc<Shared>,
        inbox: mpsc::Sender<Event>,
        networks: watch::Sender<Option<NetworkOrder>>,
    ) -> Self {
        let mut agent = Self {
            host,
            ledger,
            shared,
            inbox,
            networks,
            orders: None,
            assigned: BTreeMap::new(),
            trust: Orders::Remembered,
            tasks: BTreeMap::new(),
            work: JoinSet::new(),
            owners: HashMap::new(),
            preparing: BTreeMap::new(),
            watches: BTreeMap::new(),
            starts: Arc::new(Semaphore::new(STARTS_AT_ONCE)),
            began: Instant::now(),
            gateway: remembered.gateway,
        };
        for (task, status) in remembered.statuses {
            let host_ports = status.host_ports.clone();
            agent.tasks.insert(task, Local { status, host_ports, ..Local::default() });
        }
        if let Some(orders) = remembered.orders {
            agent.shared.seen.send_replace(orders.log_id);
            agent.adopt(orders);
        }
        agent
    }

    /// Runs until `stop`; containers go on.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        let host = Arc::clone(&self.host);
        let mut changes = host.changes();
        let mut settled = self.shared.settled.subscribe();
        loop {
            let wake = self.act();
            // Every branch is cancel-safe: channels, a join set, a stream and a timer.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(event) = events.recv() => {
                    self.take(event).await;
                    while let Ok(event) = events.try_recv() {
                        self.take(event).await;
                    }
                }
                Some(done) = self.work.join_next_with_id() => self.done(done),
                Some(()) = changes.next() => {}
                Ok(()) = settled.changed() => { settled.borrow_and_update(); }
                () = sleep_until(wake) => {}
            }
        }
        self.stop().await;
    }

    async fn stop(mut self) {
        for handle in self.preparing.values().chain(self.watches.values()) {
            handle.abort();
        }
        // Starts and removals under way come to an end, so that the next daemon finds no halves.
        let ended = tokio::time::timeout(STOP_TIMEOUT, async {
            while let Some(done) = self.work.join_next_with_id().await {
                self.done(done);
            }
        });
        if ended.await.is_err() {
            tracing::warn!(left = self.work.len(), "work on containers is left behind");
        }
        if let Err(error) = self.ledger.flush().await {
            tracing::error!(%error, "the ledger is not written");
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Observes, plans and begins what is to be done; says when to look again.
    fn act(&mut self) -> Instant {
        let idle = Instant::now() + IDLE_PERIOD;
        self.observe();
        let Some(orders) = self.orders.clone() else { return idle };
        for _ in 0..ROUNDS_MAX {
            let settled = self.shared.settled.borrow().clone();
            let moment = Moment { orders: self.trust, now_ms: self.now_ms(), settled: &settled };
            let plan = plan(&orders, &self.tasks, moment);
            let mut must_plan_again = false;
            for step in plan.steps {
                must_plan_again |= self.perform(step);
            }
            if !must_plan_again {
                self.order_networks(&orders, plan.sandboxes);
                self.watch_health();
                return plan.wake_ms.map_or(idle, |at| idle.min(self.began + Duration::from_millis(at)));
            }
        }
        tracing::error!("the plan does not come to an end; going on with what was done");
        idle
    }

    fn observe(&mut self) {
        let found = self.host.containers();
        for (id, local) in &mut self.tasks {
            local.container = found.get(id).cloned();
        }
        for (id, container) in found {
            self.tasks.entry(id).or_insert_with(|| Local { container: Some(container), ..Local::default() });
        }
        let ended: Vec<TaskId> = self
            .watches
            .keys()
            .filter(|id| !self.tasks.get(id).and_then(|l| l.container.as_ref()).is_some_and(Container::is_running))
            .copied()
            .collect();
        for id in ended {
            if let Some(watch) = self.watches.remove(&id) {
                watch.abort();
            }
        }
    }

    /// Begins a step; says whether the plan must be made again now.
    fn perform(&mut self, step: Step) -> bool {
        let now = self.now_ms();
        match step {
            Step::Report(id, status) => {
                self.report(id, *status);
                return true;
            }
            Step::Abort(id) => {
                if let Some(handle) = self.preparing.remove(&id) {
                    handle.abort();
                }
                self.local(id).work = None;
                return true;
            }
            Step::Prepare(id) => {
                let Some(task) = self.assigned.get(&id).cloned() else { return false };
                let host = Arc::clone(&self.host);
                let handle = self.spawn(id, async move { Done::Prepared(host.prepare(&task).await) });
                self.preparing.insert(id, handle);
                self.local(id).work = Some(Work::Prepare);
            }
            Step::Start(id) => {
                let (Some(task), Some(orders)) = (self.assigned.get(&id).cloned(), self.orders.clone()) else {
                    return false;
                };
                let (host, starts) = (Arc::clone(&self.host), Arc::clone(&self.starts));
                self.spawn(id, async move {
                    let _slot = starts.acquire().await;
                    Done::Started(host.start(&task, &orders).await)
                });
                let local = self.local(id);
                local.work = Some(Work::Start);
                local.wellness = Wellness::Unknown;
            }
            Step::Stop(id) => {
                self.signal(id, StopSignal::Stop);
                self.local(id).stop_sent_ms = Some(now);
                tracing::info!(task.id = %id, "container is asked to stop");
                return true;
            }
            Step::Kill(id) => {
                self.signal(id, StopSignal::Kill);
                self.local(id).killed_ms = Some(now);
                tracing::info!(task.id = %id, "container is killed");
                return true;
            }
            Step::Remove(id) => {
                let host = Arc::clone(&self.host);
                self.spawn(id, async move { Done::Removed(host.remove(id).await) });
                self.local(id).work = Some(Work::Other);
            }
        }
        false
    }

    fn local(&mut self, id: TaskId) -> &mut Local {
        self.tasks.entry(id).or_default()
    }

    fn spawn(&mut self, id: TaskId, work: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        let handle = self.work.spawn(work);
        self.owners.insert(handle.id(), id);
        handle
    }

    fn signal(&mut self, id: TaskId, signal: StopSignal) {
        let (host, task) = (Arc::clone(&self.host), self.assigned.get(&id).cloned());
        self.spawn(id, async move { Done::Signalled(host.signal(id, task.as_deref(), signal).await) });
        self.local(id).work = Some(Work::Other);
    }

    fn report(&mut self, id: TaskId, mut status: TaskStatus) {
        status.at = self.host.wall();
        let local = self.local(id);
        if local.status.state != status.state {
            tracing::info!(task.id = %id, state = %status.state, error = status.error, "task");
        }
        local.status = status.clone();
        if let Err(error) = self.ledger.put_status(id, &status) {
            tracing::error!(task.id = %id, %error, "a status is not remembered");
        }
        if self.assigned.contains_key(&id) {
            self.shared.reports.put(id, status);
        }
    }

    async fn take(&mut self, event: Event) {
        match event {
            Event::Orders { orders, is_first } => self.take_orders(*orders, is_first).await,
            Event::Networks { order, result } => self.take_networks(&order, result),
            Event::Wellness(id, wellness) => {
                if let Some(local) = self.tasks.get_mut(&id) {
                    local.wellness = wellness;
                }
            }
            Event::View(answer) => {
                self.observe();
                let now = self.host.wall();
                let networks = self.orders.as_ref().map(|orders| orders.networks.as_slice()).unwrap_or_default();
                let views = self.tasks.iter().filter_map(|(id, local)| {
                    let task = self.assigned.get(id).map(AsRef::as_ref);
                    view(*id, local, task, &self.host.argv(*id), networks, now)
                });
                // The asker may have gone.
                let _ = answer.send(views.collect());
            }
        }
    }

    async fn take_orders(&mut self, orders: Assignments, is_first: bool) {
        let seen = *self.shared.seen.borrow();
        if !may_follow(seen, orders.log_id) {
            tracing::warn!(known = seen.index, got = orders.log_id.index, "older orders are refused");
            return;
        }
        let was_fresh = self.trust == Orders::Fresh;
        let is_same_work = self.orders.as_ref().is_some_and(|known| same_tasks(known, &orders));
        if let Err(error) = self.ledger.put_orders(&orders) {
            tracing::error!(%error, "orders are not remembered");
        }
        if !is_same_work && let Err(error) = self.ledger.flush().await {
            tracing::error!(%error, "orders are not remembered");
        }
        if !orders.managers.is_empty() {
            self.shared.managers.send_if_modified(|known| {
                let changed = *known != orders.managers;
                known.clone_from(&orders.managers);
                changed
            });
        }
        self.shared.seen.send_replace(orders.log_id);
        self.trust = Orders::Fresh;
        self.adopt(orders);
        if is_first {
            self.say_again(was_fresh);
        }
    }

    /// Makes orders the ones that count.
    fn adopt(&mut self, orders: Assignments) {
        let now = self.now_ms();
        let is_fresh = self.trust == Orders::Fresh;
        self.assigned = orders.tasks.iter().map(|t| (t.id, Arc::new(t.clone()))).collect();
        for task in &orders.tasks {
            let local = self.tasks.entry(task.id).or_default();
            if local.status.state < task.state {
                // Managers know more: the ledger was lost.
                local.status.state = task.state;
            }
            if task.desired >= DesiredState::Shutdown && is_fresh && local.stop_heard_ms.is_none() {
                local.stop_heard_ms = Some(now);
            }
        }
        self.orders = Some(Arc::new(orders));
    }

    /// Tells a new session what its managers may not know: an acknowledgement may have been lost with a daemon.
    fn say_again(&self, was_fresh: bool) {
        for (id, task) in &self.assigned {
            let Some(local) = self.tasks.get(id) else { continue };
            let state = local.status.state;
            let may_be_newer = state == task.state && !was_fresh && !state.is_terminal();
            if state > TaskState::Assigned && (state > task.state || may_be_newer) {
                self.shared.reports.put(*id, local.status.clone());
            }
        }
    }

    fn order_networks(&mut self, orders: &Arc<Assignments>, sandboxes: std::collections::BTreeSet<TaskId>) {
        for (id, local) in &mut self.tasks {
            if sandboxes.contains(id) && local.sandbox == SandboxState::Absent {
                local.sandbox = SandboxState::Unsettled;
            }
        }
        let order = NetworkOrder { assignments: Arc::clone(orders), sandboxes };
        self.networks.send_if_modified(|known| {
            let is_same = known.as_ref().is_some_and(|known| {
                Arc::ptr_eq(&known.assignments, &order.assignments) && known.sandboxes == order.sandboxes
            });
            if !is_same {
                *known = Some(order);
            }
            !is_same
        });
    }

    fn take_networks(&mut self, order: &NetworkOrder, result: Result<Networks, String>) {
        let now = self.now_ms();
        let networks = match result {
            Ok(networks) => networks,
            Err(text) => {
                // Whoever waits for a sandbox waits in vain.
                for id in &order.sandboxes {
                    if let Some(local) = self.tasks.get_mut(id) {
                        note_problem(local, text.clone(), false, now);
                    }
                }
                return;
            }
        };
        for (id, local) in &mut self.tasks {
            let was_ordered = order.sandboxes.contains(id);
            if networks.sandboxes.contains(id) {
                local.sandbox = SandboxState::Present;
            } else if !was_ordered {
                local.sandbox = SandboxState::Absent;
            } else if local.sandbox == SandboxState::Present {
                local.sandbox = SandboxState::Unsettled;
            }
            match networks.failures.get(id) {
                Some((text, is_final)) => note_problem(local, text.clone(), *is_final, now),
                None if was_ordered && local.sandbox != SandboxState::Present => {
                    note_problem(local, "the network namespace of the task was not made".into(), false, now);
                }
                None => local.problem = None,
            }
            if let Some(ports) = networks.host_ports.get(id) {
                local.host_ports.clone_from(ports);
            }
        }
        if networks.is_whole {
            let log_id = order.assignments.log_id;
            self.shared.applied.send_if_modified(|applied| {
                let is_news = log_id > *applied;
                if is_news {
                    *applied = log_id;
                }
                is_news
            });
        }
        self.shared.description.send_if_modified(|description| {
            let is_news = description.port_problems != networks.port_problems;
            description.port_problems.clone_from(&networks.port_problems);
            is_news
        });
        if let Some(gateway) = networks.gateway.filter(|g| self.gateway != Some(*g)) {
            self.gateway = Some(gateway);
            if let Err(error) = self.ledger.put_gateway(gateway) {
                tracing::error!(%error, "the gateway's address is not remembered");
            }
        }
    }

    fn done(&mut self, done: Result<(Id, Done), JoinError>) {
        let id = match &done {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(task) = self.owners.remove(&id) else { return };
        let done = match done {
            Ok((_, done)) => done,
            Err(error) if error.is_cancelled() => return,
            Err(error) => {
                tracing::error!(task.id = %task, %error, "work on a task broke down");
                if self.watches.get(&task).is_some_and(|watch| watch.id() == id) {
                    // Begun again with the next look.
                    self.watches.remove(&task);
                    return;
                }
                let local = self.local(task);
                let work = local.work.take();
                if matches!(work, Some(Work::Prepare | Work::Start)) {
                    self.fail(
                        task,
                        TaskState::Failed,
                        "this node's daemon made a mistake; its log tells more".into(),
                        None,
                    );
                }
                return;
            }
        };
        if !matches!(done, Done::Watched) {
            self.local(task).work = None;
        }
        match done {
            Done::Watched | Done::Started(Ok(())) | Done::Signalled(Ok(())) => {}
            Done::Prepared(result) => {
                self.preparing.remove(&task);
                match result {
                    Ok(()) => self.local(task).prepared = true,
                    Err(PrepareError::Rejected(why)) => self.fail(task, TaskState::Rejected, why, None),
                    Err(PrepareError::Failed(why)) => self.fail(task, TaskState::Failed, why, None),
                }
            }
            Done::Started(Err(failure)) => {
                let text = format!("starting container failed: {}", failure.text);
                self.fail(task, TaskState::Failed, text, failure.exit_code);
            }
            Done::Signalled(Err(error)) => tracing::warn!(task.id = %task, error, "a signal was not sent"),
            Done::Removed(Ok(())) => self.forget(task),
            Done::Removed(Err(error)) => {
                tracing::warn!(task.id = %task, error, "a container is not removed; trying again");
                let now = self.now_ms();
                self.local(task).remove_failed_ms = Some(now);
            }
        }
    }

    fn forget(&mut self, task: TaskId) {
        if self.assigned.contains_key(&task) {
            return;
        }
        self.tasks.remove(&task);
        self.shared.reports.forget(task);
        if let Err(error) = self.ledger.forget(task) {
            tracing::error!(task.id = %task, %error, "a task is not forgotten");
        }
    }

    fn fail(&mut self, task: TaskId, state: TaskState, error: String, exit_code: Option<i32>) {
        let local = self.local(task);
        if !local.status.state.agent_may_report(state) {
            return;
        }
        let sandbox_gone = local.sandbox == SandboxState::Absent;
        let status = TaskStatus { state, error, exit_code, sandbox_gone, pid: 0, ..local.status.clone() };
        self.report(task, status);
    }

    /// Sees that somebody asks each running container how it is.
    fn watch_health(&mut self) {
        let unwatched: Vec<(TaskId, bool)> = self
            .tasks
            .iter()
            .filter(|(id, local)| {
                let is_running = local.container.as_ref().is_some_and(Container::is_running);
                is_running && local.work != Some(Work::Start) && !self.watches.contains_key(id)
            })
            .map(|(id, local)| (*id, local.status.state == TaskState::Running))
            .collect();
        for (id, was_well) in unwatched {
            let Some(task) = self.assigned.get(&id).cloned() else { continue };
            let (host, inbox) = (Arc::clone(&self.host), self.inbox.clone());
            let handle = self.spawn(id, async move {
                watch_health(host, task, was_well, inbox).await;
                Done::Watched
            });
            self.watches.insert(id, handle);
        }
    }
}

fn note_problem(local: &mut Local, text: String, is_final: bool, now: u64) {
    let since_ms = local.problem.as_ref().map_or(now, |p| p.since_ms);
    local.problem = Some(SandboxProblem { text, is_final, since_ms });
}

/// Whether two orders ask for the same work, whatever they say of others.
fn same_tasks(a: &Assignments, b: &Assignments) -> bool {
    let key = |t: &AssignedTask| (t.id, t.desired, t.stop_at);
    a.tasks.iter().map(key).eq(b.tasks.iter().map(key))
}

/// Asks a container how it is, again and again. A daemon that was away trusts the last verdict.
async fn watch_health(host: Arc<dyn Host>, task: Arc<AssignedTask>, was_well: bool, inbox: mpsc::Sender<Event>) {
    let say = async |wellness| inbox.send(Event::Wellness(task.id, wellness)).await.is_ok();
    let Some(check) = host.check(&task).await else {
        say(Wellness::Unchecked).await;
        return;
    };
    let began = Instant::now();
    let mut health = Health::new(check.clone(), was_well);
    if !say(if was_well { Wellness::Healthy } else { Wellness::Starting }).await {
        return;
    }
    loop {
        tokio::time::sleep(health.pause(began.elapsed())).await;
        let result = host.probe(task.id, &check.argv, check.timeout).await;
        let goes_on = match health.take(began.elapsed(), result) {
            None => true,
            Some(Verdict::Healthy) => say(Wellness::Healthy).await,
            Some(Verdict::Unhealthy(words)) => {
                tracing::warn!(task.id = %task.id, words, "container is unhealthy");
                say(Wellness::Unhealthy(words)).await;
                false
            }
        };
        if !goes_on {
            return;
        }
    }
}

/// Wall time of a container's start or end, for people.
pub fn wall_ms(container: &Container) -> Option<TimestampMs> {
    match container {
        Container::Running { started_at_ms, .. } => Some(TimestampMs(*started_at_ms)),
        Container::Exited { at_ms, .. } => Some(TimestampMs(*at_ms)),
        Container::Lost(_) => None,
    }
}

#[cfg(test)]
mod tests;
