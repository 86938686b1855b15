//! The way of events into the view: a bounded queue, the gossip stack, the board.
//!
//! Events may be lost on the way, to a full queue or to the limits of the stack. So every loss is followed by reading
//! memberlist's own list, which is always complete: the view ends up right whatever was lost.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};
use tower::{Service, ServiceExt as _};

use super::{
    conflicts,
    gate::{Gate, Heard, Refusal},
    peers::Peers,
    view::{Board, Liveness, Node},
};
use crate::{
    middleware::{self, Unheard, Validate, stacks},
    telemetry::Metrics,
};

/// Events that may wait.
const QUEUE_EVENTS: usize = 1024;

/// How soon after another the list may be read again.
const REREAD_AFTER: Duration = Duration::from_secs(1);

/// How often the list is read although nothing is known to be lost.
const REREAD_ANYWAY: Duration = Duration::from_secs(60);

/// What memberlist says of a node.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) metadata: Bytes,
}

/// What happened to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Join,
    Update,
    Leave,
    /// It claims the name of a node that is elsewhere.
    Conflict,
}

/// An event that the gate let in.
pub(super) struct Admitted {
    kind: Kind,
    node: Node,
}

/// Where events are put. Never waits.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    events: mpsc::Sender<Event>,
    lost: Arc<Notify>,
    metrics: Arc<Metrics>,
}

/// Where they come out.
pub(super) struct Intake<P> {
    pub(super) gate: Arc<Gate>,
    pub(super) board: Board,
    pub(super) peers: P,
    pub(super) conflicts: conflicts::Queue,
    pub(super) metrics: Arc<Metrics>,
}

/// The queue's other end.
pub(super) struct Outlet {
    events: mpsc::Receiver<Event>,
    lost: Arc<Notify>,
}

impl Queue {
    pub(super) fn new(metrics: Arc<Metrics>) -> (Self, Outlet) {
        let (sender, receiver) = mpsc::channel(QUEUE_EVENTS);
        let lost = Arc::new(Notify::new());
        let queue = Self {
            events: sender,
            lost: Arc::clone(&lost),
            metrics,
        };
        let outlet = Outlet {
            events: receiver,
            lost,
        };
        (queue, outlet)
    }

    /// Puts an event into the queue, or notes that one was lost.
    pub(super) fn push(&self, event: Event) {
        if self.events.try_send(event).is_err() {
            self.metrics.gossip().dropped();
            self.lost.notify_one();
        }
    }
}

impl middleware::Event for Event {
    fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Join => "join",
            Kind::Update => "update",
            Kind::Leave => "leave",
            Kind::Conflict => "conflict",
        }
    }
}

/// The gate as a layer's judge.
#[derive(Clone)]
struct Judge(Arc<Gate>);

impl Validate<Event> for Judge {
    type Valid = Admitted;
    type Refusal = Refusal;

    fn validate(&self, event: Event) -> Result<Admitted, Refusal> {
        let announced = self.0.admit(Heard {
            name: &event.name,
            address: event.address,
            metadata: &event.metadata,
        })?;
        Ok(Admitted {
            kind: event.kind,
            node: Node::heard(event.name, event.address, announced),
        })
    }
}

/// Innermost: changes the view.
struct Apply {
    board: Board,
    conflicts: conflicts::Queue,
}

impl Service<Admitted> for Apply {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, event: Admitted) -> Self::Future {
        let Admitted { kind, node } = event;
        match kind {
            Kind::Join | Kind::Update => self.board.heard(node),
            Kind::Leave => self.board.gone(&node.name),
            Kind::Conflict => self.conflicts.push(node),
        }
        ready(Ok(()))
    }
}

impl<P: Peers> Intake<P> {
    /// Takes events in until their source is gone.
    pub(super) async fn run(self, mut outlet: Outlet) {
        let apply = Apply {
            board: self.board.clone(),
            conflicts: self.conflicts.clone(),
        };
        let judge = Judge(Arc::clone(&self.gate));
        let mut stack = stacks::gossip(apply, judge, Arc::clone(&self.metrics));
        let mut read_at = Instant::now();
        let mut reread = read_at + REREAD_ANYWAY;
        loop {
            // Each branch may be cancelled: nothing is taken from the queue, the note or the clock before it is won.
            tokio::select! {
                event = outlet.events.recv() => {
                    let Some(event) = event else { return };
                    if take(&mut stack, event).await == Err(Unheard::Shed) {
                        reread = read_at + REREAD_AFTER;
                    }
                }
                () = outlet.lost.notified() => reread = read_at + REREAD_AFTER,
                () = tokio::time::sleep_until(reread) => {
                    // First what waits: it is older than what is read then, and must not overwrite it. No more than
                    // waits now, or a flood would put the reading off for good.
                    for _ in 0..outlet.events.len() {
                        let Ok(event) = outlet.events.try_recv() else { break };
                        // If it is lost, what is read now makes up for it.
                        let _ = take(&mut stack, event).await;
                    }
                    self.read().await;
                    read_at = Instant::now();
                    reread = read_at + REREAD_ANYWAY;
                }
            }
        }
    }

    /// Reads memberlist's list.
    async fn read(&self) {
        let mut nodes = BTreeMap::new();
        for member in self.peers.list().await {
            let admitted = self.gate.admit(Heard {
                name: &member.name,
                address: member.address,
                metadata: &member.metadata,
            });
            let Ok(announced) = admitted else { continue };
            let mut node = Node::heard(member.name.clone(), member.address, announced);
            if !member.online && node.liveness == Liveness::Alive {
                node.liveness = Liveness::Dead;
            }
            nodes.insert(member.name, node);
        }
        self.board.replace(nodes);
    }
}

/// Sends an event through the stack, which is always ready: it sheds instead of waiting.
async fn take<S>(stack: &mut S, event: Event) -> Result<(), S::Error>
where
    S: Service<Event, Response = ()>,
{
    stack.ready().await?.call(event).await
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;
    use crate::membership::{announcement::Announcement, peers::Member};

    /// A list of members that a test writes.
    #[derive(Clone, Default)]
    struct List(Arc<Mutex<Vec<Member>>>);

    impl Peers for List {
        async fn list(&self) -> Vec<Member> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        }

        async fn answers(&self, _name: &str, _address: SocketAddr) -> bool {
            unreachable!("the intake pings nobody")
        }

        async fn join(&self, _address: SocketAddr) -> Result<(), String> {
            unreachable!("the intake joins nobody")
        }

        async fn announce(&self, _timeout: Duration) {
            unreachable!("the intake announces nothing")
        }
    }

    struct Setup {
        queue: Queue,
        outlet: Outlet,
        list: List,
        board: Board,
        intake: Intake<List>,
        metrics: Arc<Metrics>,
    }

    fn setup() -> Setup {
        let metrics = Metrics::new("1");
        let (queue, outlet) = Queue::new(Arc::clone(&metrics));
        let (list, board) = (List::default(), Board::new());
        let intake = Intake {
            gate: Arc::new(Gate::new(
                "me".to_owned(),
                Some("c".to_owned()),
                Arc::clone(&metrics),
            )),
            board: board.clone(),
            peers: list.clone(),
            conflicts: conflicts::Queue::new().0,
            metrics: Arc::clone(&metrics),
        };
        Setup {
            queue,
            outlet,
            list,
            board,
            intake,
            metrics,
        }
    }

    fn metadata(cluster_id: &str) -> Bytes {
        let announcement = Announcement {
            cluster_id: cluster_id.to_owned(),
            ..Announcement::default()
        };
        announcement.encode(false).expect("short")
    }

    fn event(kind: Kind, name: &str, cluster_id: &str) -> Event {
        Event {
            kind,
            name: name.to_owned(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            metadata: metadata(cluster_id),
        }
    }

    fn has_line(metrics: &Metrics, line: &str) -> bool {
        metrics.render().lines().any(|l| l == line)
    }

    #[tokio::test(start_paused = true)]
    async fn the_view_is_right_in_the_end_whatever_events_were_lost() {
        let setup = setup();
        let names: Vec<String> = (0..600).map(|number| format!("n{number}")).collect();
        // More than the queue holds, and much more than the stack lets through; the last word on each is lost.
        for name in &names {
            setup.queue.push(event(Kind::Join, name, "c"));
        }
        for name in names.iter().chain(&names) {
            setup.queue.push(event(Kind::Leave, name, "c"));
        }
        let member = |(number, name): (usize, &String)| Member {
            name: name.clone(),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            metadata: metadata("c"),
            online: number % 2 == 0,
        };
        let truth: Vec<Member> = names.iter().enumerate().map(member).collect();
        *setup.list.0.lock().expect("not poisoned") = truth;
        let task = tokio::spawn(setup.intake.run(setup.outlet));
        let mut watch = setup.board.watch();
        let settled = watch.wait_for(|view| {
            view.nodes.len() == names.len() && view.alive().count() == names.len() / 2
        });
        tokio::time::timeout(Duration::from_secs(10), settled)
            .await
            .expect("in seconds, not when the list is read anyway")
            .expect("the board is there");
        let lost = "kelda_gossip_events_dropped_total 776";
        assert!(has_line(&setup.metrics, lost), "{}", setup.metrics.render());
        task.abort();
    }

    #[tokio::test]
    async fn strangers_are_counted_and_not_shown() {
        let setup = setup();
        setup.queue.push(event(Kind::Join, "stranger", "other"));
        setup.queue.push(event(Kind::Join, "member", "c"));
        drop(setup.queue);
        setup.intake.run(setup.outlet).await;
        let view = setup.board.view();
        assert_eq!(view.nodes.keys().collect::<Vec<_>>(), ["member"]);
        let line = "kelda_gossip_events_total{kind=\"join\",outcome=\"refused\"} 1";
        assert!(has_line(&setup.metrics, line));
    }
}
