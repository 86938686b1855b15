//! The network between the nodes: slow, lossy, and cut where the schedule says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kelda_proto::internal::v1::{RaftRequest, raft_request::Message};
use kelda_server::{
    consensus::Groups,
    peers::{Answer, Carrier, Lane, PeerError},
    types::NodeId,
};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use crate::{disk::Random, node::Pulse, trace::Trace};

/// How long a message that got lost keeps its sender waiting, unless the sender gives up.
const SILENCE: Duration = Duration::from_secs(20);

/// How the network behaves where it is not cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Shortest time on the way.
    pub(crate) delay_min_ms: u64,
    /// Longest time on the way.
    pub(crate) delay_max_ms: u64,
    /// Messages and answers that get lost, of a thousand.
    pub(crate) lost_permille: u64,
}

impl Weather {
    /// As between machines of one room.
    pub(crate) const FINE: Self = Self {
        delay_min_ms: 1,
        delay_max_ms: 4,
        lost_permille: 0,
    };
}

/// The network; clones are the same.
#[derive(Clone)]
pub(crate) struct Network {
    trace: Trace,
    links: Arc<Mutex<Links>>,
}

struct Links {
    random: Random,
    weather: Weather,
    /// From whom to whom nothing gets through.
    cut: BTreeSet<(NodeId, NodeId)>,
    doors: BTreeMap<NodeId, (Pulse, Groups)>,
    /// When the last message of each lane arrives: none overtakes another.
    arrivals: BTreeMap<(NodeId, NodeId, u8), Instant>,
    messages: u64,
}

/// What becomes of a message.
enum Fate {
    Arrives(Instant),
    /// The connection breaks, and the sender learns of it.
    Broken(Instant),
    /// Nobody hears of it again.
    Lost,
}

impl Network {
    pub(crate) fn new(trace: Trace, random: Random) -> Self {
        let links = Links {
            random,
            weather: Weather::FINE,
            cut: BTreeSet::new(),
            doors: BTreeMap::new(),
            arrivals: BTreeMap::new(),
            messages: 0,
        };
        Self {
            trace,
            links: Arc::new(Mutex::new(links)),
        }
    }

    /// The way of one life of a node into the network.
    pub(crate) fn port(&self, node: NodeId, pulse: Pulse) -> Arc<dyn Carrier> {
        Arc::new(Port {
            network: self.clone(),
            node,
            pulse,
        })
    }

    /// Messages to a node now come to these groups.
    pub(crate) fn open(&self, node: NodeId, pulse: Pulse, groups: Groups) {
        self.links().doors.insert(node, (pulse, groups));
    }

    /// Lets go of all nodes, which hold the network too.
    pub(crate) fn close(&self) {
        self.links().doors.clear();
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.trace.note(format_args!("network {weather:?}"));
        self.links().weather = weather;
    }

    /// Cuts these ways, and no others.
    pub(crate) fn cut(&self, ways: BTreeSet<(NodeId, NodeId)>) {
        let shown: Vec<_> = ways.iter().map(|(from, to)| (from.0, to.0)).collect();
        self.trace.note(format_args!("network cut {shown:?}"));
        self.links().cut = ways;
    }

    /// Messages that were sent.
    pub(crate) fn messages(&self) -> u64 {
        self.links().messages
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn travel(self, from: NodeId, pulse: Pulse, to: NodeId, lane: Lane, letter: Letter) {
        let Letter { request, answer } = letter;
        let what = describe(&request);
        let fate = self.links().send(from, to, lane);
        self.note(from, to, &what, &fate);
        let Some(answer) = wait(fate, answer).await else {
            return;
        };
        let door = {
            let links = self.links();
            let open = links.doors.get(&to).filter(|(pulse, _)| pulse.beats());
            open.cloned().filter(|_| !links.cut.contains(&(from, to)))
        };
        let Some((there, groups)) = door else {
            // Nobody listens there.
            let refused = PeerError::Unreachable {
                node: to,
                detail: "connection refused".to_owned(),
            };
            let _ = answer.send(Err(refused));
            return;
        };
        let message = groups.receive(from, request).await.message;
        if !there.beats() {
            return;
        }
        let fate = self.links().send(to, from, lane);
        self.note(to, from, &format!("answer to {what}"), &fate);
        let Some(answer) = wait(fate, answer).await else {
            return;
        };
        if let Some(message) = message
            && pulse.beats()
        {
            // The sender may have given up.
            let _ = answer.send(Ok(message));
        }
    }

    fn note(&self, from: NodeId, to: NodeId, what: &str, fate: &Fate) {
        let fate = match fate {
            Fate::Arrives(at) => format!("arrives in {:?}", *at - Instant::now()),
            Fate::Broken(_) => "breaks".to_owned(),
            Fate::Lost => "is lost".to_owned(),
        };
        self.trace
            .note(format_args!("{from} -> {to} {what} {fate}"));
    }
}

impl Links {
    fn send(&mut self, from: NodeId, to: NodeId, lane: Lane) -> Fate {
        self.messages += 1;
        let weather = self.weather;
        let spread = weather.delay_max_ms - weather.delay_min_ms + 1;
        let delay = weather.delay_min_ms + self.random.below(spread);
        let at = Instant::now() + Duration::from_millis(delay);
        let is_lost = self.random.below(1000) < weather.lost_permille;
        if is_lost || self.cut.contains(&(from, to)) {
            return match self.random.chance(30) {
                true => Fate::Broken(at),
                false => Fate::Lost,
            };
        }
        let last = self.arrivals.entry((from, to, lane as u8)).or_insert(at);
        *last = at.max(*last);
        Fate::Arrives(*last)
    }
}

async fn wait(fate: Fate, mut answer: oneshot::Sender<Answer>) -> Option<oneshot::Sender<Answer>> {
    match fate {
        Fate::Arrives(at) => {
            sleep_until(at).await;
            return Some(answer);
        }
        // Whoever waits learns of it by the dropped sender.
        Fate::Broken(at) => sleep_until(at).await,
        Fate::Lost => {
            let _ = tokio::time::timeout(SILENCE, answer.closed()).await;
        }
    }
    None
}

/// A message on its way.
struct Letter {
    request: RaftRequest,
    answer: oneshot::Sender<Answer>,
}

/// The way of one life of a node into the network.
struct Port {
    network: Network,
    node: NodeId,
    pulse: Pulse,
}

impl Carrier for Port {
    fn carry(&self, to: NodeId, lane: Lane, request: RaftRequest) -> oneshot::Receiver<Answer> {
        let (answer, receiver) = oneshot::channel();
        // What a dead node still says is dropped with its sender.
        if self.pulse.beats() {
            let letter = Letter { request, answer };
            let network = self.network.clone();
            tokio::spawn(network.travel(self.node, self.pulse.clone(), to, lane, letter));
        }
        receiver
    }
}

fn describe(request: &RaftRequest) -> String {
    let group = request.group;
    match &request.message {
        Some(Message::Vote(vote)) => format!("g{group} vote {:?}", vote.vote.map(|it| it.term)),
        Some(Message::PreVote(vote)) => {
            format!("g{group} pre-vote {:?}", vote.vote.map(|it| it.term))
        }
        Some(Message::Append(append)) => {
            let previous = append.previous.map(|id| id.index);
            let entries = append.entries.len();
            format!("g{group} append of {entries} behind {previous:?}")
        }
        Some(Message::Snapshot(_)) => format!("g{group} snapshot"),
        Some(Message::Transfer(_)) => format!("g{group} transfer"),
        Some(Message::Quiesce(_)) => format!("g{group} quiesce"),
        Some(Message::Pulse(_)) => "pulse".to_owned(),
        None => format!("g{group} nothing"),
    }
}
