//! Two nodes of one name. That somebody claims a name from another address means little: a node that came back
//! elsewhere does so too, and memberlist keeps to its old address until that is known to be dead. So both are asked. If
//! both answer, it is a conflict; if only the claimant does, the node has moved, which the view shows at once, and the
//! claimant is met again until memberlist has it there too.

use std::{collections::BTreeMap, future::pending, net::SocketAddr, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

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
    let mut due: Option<Instant> = None;
    loop {
        let recheck = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => pending().await,
            }
        };
        // Each branch may be cancelled: a claim is taken only when its branch is won.
        tokio::select! {
            claim = claims.recv() => match claim {
                Some(claimant) => watched.claim(claimant).await,
                None => return,
            },
            () = recheck => {
                watched.recheck().await;
                due = None;
            }
        }
        // Further claims do not put it off.
        let next = watched.pause().map(|pause| Instant::now() + pause);
        due = due.into_iter().chain(next).min();
    }
}

struct Watched<P> {
    me: String,
    peers: P,
    board: Board,
    conflicts: BTreeMap<String, SocketAddr>,
    moved: BTreeMap<String, Moved>,
}

/// A node that has come back elsewhere.
#[derive(Clone)]
struct Moved {
    node: Node,
    /// As it was known before.
    before: Option<Node>,
}

/// Who answers to a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Both,
    Claimant,
    Other,
}

impl<P: Peers> Watched<P> {
    /// When to look again, if there is anything to look at.
    fn pause(&self) -> Option<Duration> {
        if !self.moved.is_empty() {
            Some(MEET_AGAIN)
        } else {
            (!self.conflicts.is_empty()).then_some(RECHECK)
        }
    }

    async fn claim(&mut self, claimant: Node) {
        let (name, address) = (&claimant.name, claimant.address);
        let is_known = self.conflicts.get(name) == Some(&address)
            || self.moved.get(name).is_some_and(|it| it.node == claimant);
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
                let before = self.board.view().node(name).cloned();
                self.board.heard(claimant.clone());
                let name = name.clone();
                self.moved.insert(
                    name,
                    Moved {
                        node: claimant,
                        before,
                    },
                );
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
        for (name, Moved { node, before }) in self.moved.clone() {
            let online = members.iter().find(|it| it.name == name && it.online);
            let old = online.filter(|it| it.address != node.address);
            let is_met = online.is_some() && old.is_none();
            let lives_there = match old {
                Some(old) => self.peers.answers(&name, old.address).await,
                None => false,
            };
            if lives_there {
                // It had only missed a ping. The claim comes again, and is a conflict then.
                self.moved.remove(&name);
                before
                    .into_iter()
                    .for_each(|before| self.board.heard(before));
            } else if is_met || self.peers.join(node.address).await.is_err() {
                // Nothing comes of a meeting while the old address is not known to be dead.
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

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        sync::{Arc, Mutex},
    };

    use bytes::Bytes;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::membership::{
        announcement::{Announced, Announcement},
        peers::Member,
    };

    const OLD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);
    const NEW: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 2);

    /// A network in which a test says who answers. memberlist keeps "b" at `member`.
    #[derive(Clone)]
    struct Script {
        answering: Arc<Mutex<BTreeSet<SocketAddr>>>,
        member: Arc<Mutex<SocketAddr>>,
    }

    impl Script {
        fn answer(&self, addresses: &[SocketAddr]) {
            *self.answering.lock().expect("not poisoned") = addresses.iter().copied().collect();
        }
    }

    impl Peers for Script {
        async fn list(&self) -> Vec<Member> {
            vec![Member {
                name: "b".to_owned(),
                address: *self.member.lock().expect("not poisoned"),
                metadata: Bytes::new(),
                online: true,
            }]
        }

        async fn answers(&self, _name: &str, address: SocketAddr) -> bool {
            self.answering
                .lock()
                .expect("not poisoned")
                .contains(&address)
        }

        async fn join(&self, _address: SocketAddr) -> Result<(), String> {
            Ok(())
        }

        async fn announce(&self, _timeout: Duration) {}
    }

    fn at(address: SocketAddr) -> Node {
        let announced = Announced {
            announcement: Announcement::default(),
            leaving: false,
        };
        Node::heard("b".to_owned(), address, announced)
    }

    /// "b" is at the old address, and something at the new one claims its name.
    fn watched() -> (Watched<Script>, Script) {
        let script = Script {
            answering: Arc::default(),
            member: Arc::new(Mutex::new(OLD)),
        };
        let board = Board::new();
        board.heard(at(OLD));
        let watched = Watched {
            me: "a".to_owned(),
            peers: script.clone(),
            board,
            conflicts: BTreeMap::new(),
            moved: BTreeMap::new(),
        };
        (watched, script)
    }

    fn seen(watched: &Watched<Script>) -> Node {
        watched.board.view().nodes["b"].clone()
    }

    #[tokio::test]
    async fn a_node_has_moved_if_only_the_new_one_answers_and_is_met_until_it_is_a_member_there() {
        let (mut watched, script) = watched();
        watched.claim(at(NEW)).await;
        assert_eq!(seen(&watched).address, OLD, "nobody answers");
        script.answer(&[NEW]);
        watched.claim(at(NEW)).await;
        assert_eq!(seen(&watched).address, NEW);
        // memberlist finds the old address dead.
        watched.board.gone("b");
        watched.recheck().await;
        assert_eq!(seen(&watched), at(NEW));
        *script.member.lock().expect("not poisoned") = NEW;
        watched.recheck().await;
        assert!(watched.moved.is_empty());
    }

    #[tokio::test]
    async fn a_node_that_missed_a_ping_is_itself_again_and_the_other_a_conflict() {
        let (mut watched, script) = watched();
        script.answer(&[NEW]);
        watched.claim(at(NEW)).await;
        assert_eq!(seen(&watched).address, NEW);
        script.answer(&[OLD, NEW]);
        watched.recheck().await;
        assert_eq!(seen(&watched), at(OLD));
        watched.claim(at(NEW)).await;
        assert_eq!(seen(&watched).conflict, Some(NEW));
        script.answer(&[OLD]);
        watched.recheck().await;
        assert_eq!(seen(&watched), at(OLD));
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_is_seen_to_end_however_often_it_is_claimed() {
        let (Watched { board, .. }, script) = watched();
        script.answer(&[OLD, NEW]);
        let (queue, claims) = Queue::new();
        let running = run("a".to_owned(), script.clone(), board.clone(), claims);
        let claiming = async {
            while board.view().nodes["b"].conflict.is_none() {
                queue.push(at(NEW));
                sleep(RECHECK / 10).await;
            }
            script.answer(&[OLD]);
            while board.view().nodes["b"].conflict.is_some() {
                queue.push(at(NEW));
                sleep(RECHECK / 10).await;
            }
        };
        tokio::select! {
            () = running => panic!("claims have no end"),
            ended = timeout(RECHECK * 3, claiming) => ended.expect("it is seen"),
        }
    }
}
