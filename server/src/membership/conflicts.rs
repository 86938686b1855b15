//! Two nodes of one name. That somebody claims a name from another address means little: a node that came back
//! elsewhere does so too, and memberlist keeps to its old address until that is known to be dead. So both are asked. If
//! both answer, it is a conflict; if only the claimant does, the node has moved, which the view shows at once, and the
//! claimant is met again until memberlist has it there too.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::sync::mpsc;

use super::{
    peers::Peers,
    view::{Board, Liveness, Node},
};

/// Claims that may wait; further ones come again, with the next exchange of lists.
const QUEUE_CLAIMS: usize = 16;

/// Conflicts, and nodes that have moved, that are kept an eye on.
const WATCHED_MAX: usize = 64;

/// How often it is checked whether a conflict is over.
const RECHECK: Duration = Duration::from_secs(10);

/// How often a node that has moved is met, until memberlist takes it.
const MEET_AGAIN: Duration = Duration::from_secs(1);

/// Where claims are put. Never waits.
#[derive(Clone, Debug)]
pub(super) struct Queue(mpsc::Sender<Node>);

impl Queue {
    /// The claims that come out are nodes as their claimants tell of them.
    pub(super) fn new() -> (Self, mpsc::Receiver<Node>) {
        let (sender, receiver) = mpsc::channel(QUEUE_CLAIMS);
        (Self(sender), receiver)
    }

    pub(super) fn push(&self, claimant: Node) {
        // A claim that is lost is made again for as long as its node is there.
        let _ = self.0.try_send(claimant);
    }
}

/// Looks into claims until their source is gone.
pub(super) async fn run(
    me: String,
    peers: impl Peers,
    board: Board,
    mut claims: mpsc::Receiver<Node>,
) {
    let mut watched = Watched {
        me,
        peers,
        board,
        conflicts: BTreeMap::new(),
        moved: BTreeMap::new(),
    };
    loop {
        let pause = if watched.moved.is_empty() {
            RECHECK
        } else {
            MEET_AGAIN
        };
        let idle = watched.moved.is_empty() && watched.conflicts.is_empty();
        // Each branch may be cancelled: a claim is taken only when its branch is won.
        tokio::select! {
            claim = claims.recv() => match claim {
                Some(claimant) => watched.claim(claimant).await,
                None => return,
            },
            () = tokio::time::sleep(pause), if !idle => watched.recheck().await,
        }
    }
}

struct Watched<P> {
    me: String,
    peers: P,
    board: Board,
    conflicts: BTreeMap<String, SocketAddr>,
    moved: BTreeMap<String, Node>,
}

/// Who answers to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Both,
    Claimant,
    Other,
}

impl<P: Peers> Watched<P> {
    async fn claim(&mut self, claimant: Node) {
        let (name, address) = (&claimant.name, claimant.address);
        let is_known = self.conflicts.get(name) == Some(&address)
            || self.moved.get(name).is_some_and(|it| *it == claimant);
        if is_known || self.conflicts.len() + self.moved.len() >= WATCHED_MAX {
            return;
        }
        match self.who_answers(name, address).await {
            Answer::Both => {
                tracing::error!(
                    node = name,
                    other = %address,
                    "two nodes have the same name: give one of them another --node-id"
                );
                self.board.conflict(name, Some(address));
                self.conflicts.insert(name.clone(), address);
            }
            Answer::Claimant => {
                tracing::info!(node = name, %address, "node has come back elsewhere");
                self.board.heard(claimant.clone());
                self.moved.insert(name.clone(), claimant);
            }
            Answer::Other => {}
        }
    }

    async fn recheck(&mut self) {
        for (name, other) in self.conflicts.clone() {
            if self.who_answers(&name, other).await != Answer::Both {
                self.conflicts.remove(&name);
                self.board.conflict(&name, None);
            }
        }
        if self.moved.is_empty() {
            return;
        }
        let members = self.peers.list().await;
        for (name, node) in self.moved.clone() {
            let is_met = members
                .iter()
                .any(|it| it.name == name && it.online && it.address == node.address);
            // Nothing comes of it while its old address is not known to be dead.
            if is_met || self.peers.join(node.address).await.is_err() {
                self.moved.remove(&name);
            } else if self.board.view().node(&name) != Some(&node) {
                self.board.heard(node);
            }
        }
    }

    async fn who_answers(&self, name: &str, claimant: SocketAddr) -> Answer {
        let view = self.board.view();
        let first = async {
            let Some(node) = view.node(name) else {
                return false;
            };
            let lives = node.liveness == Liveness::Alive && node.address != claimant;
            name == self.me || (lives && self.peers.answers(name, node.address).await)
        };
        let second = self.peers.answers(name, claimant);
        match tokio::join!(first, second) {
            (true, true) => Answer::Both,
            (false, true) => Answer::Claimant,
            (_, false) => Answer::Other,
        }
    }
}
