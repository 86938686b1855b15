//! Two nodes of one name. That somebody claims a name from another address means little: a node that came back
//! elsewhere does so too, until its old address is known to be dead. It is a conflict only if both answer.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use tokio::sync::mpsc;

use super::{
    peers::Peers,
    view::{Board, Liveness},
};

/// Claims that may wait; further ones come again, with the next exchange of lists.
const QUEUE_CLAIMS: usize = 16;

/// Conflicts that are kept an eye on.
const CONFLICTS_MAX: usize = 64;

/// How often it is checked whether a conflict is over.
const RECHECK: Duration = Duration::from_secs(10);

/// Where claims are put. Never waits.
#[derive(Clone, Debug)]
pub(super) struct Queue(mpsc::Sender<Claim>);

/// A node at this address claims this name.
#[derive(Debug)]
pub(super) struct Claim {
    name: String,
    other: SocketAddr,
}

impl Queue {
    pub(super) fn new() -> (Self, mpsc::Receiver<Claim>) {
        let (sender, receiver) = mpsc::channel(QUEUE_CLAIMS);
        (Self(sender), receiver)
    }

    pub(super) fn push(&self, name: String, other: SocketAddr) {
        // A claim that is lost is made again for as long as its node is there.
        let _ = self.0.try_send(Claim { name, other });
    }
}

/// Looks into claims until their source is gone.
pub(super) async fn run(
    me: String,
    peers: impl Peers,
    board: Board,
    mut claims: mpsc::Receiver<Claim>,
) {
    let mut known: BTreeMap<String, SocketAddr> = BTreeMap::new();
    loop {
        // Each branch may be cancelled: a claim is taken only when its branch is won.
        let claim = tokio::select! {
            claim = claims.recv() => match claim {
                Some(claim) => Some(claim),
                None => return,
            },
            () = tokio::time::sleep(RECHECK), if !known.is_empty() => None,
        };
        let Some(Claim { name, other }) = claim else {
            for (name, other) in known.clone() {
                if !both_answer(&me, &peers, &board, &name, other).await {
                    known.remove(&name);
                    board.conflict(&name, None);
                }
            }
            continue;
        };
        let is_new = known.get(&name) != Some(&other);
        if is_new
            && known.len() < CONFLICTS_MAX
            && both_answer(&me, &peers, &board, &name, other).await
        {
            tracing::error!(
                node = name,
                %other,
                "two nodes have the same name: give one of them another --node-id"
            );
            board.conflict(&name, Some(other));
            known.insert(name, other);
        }
    }
}

async fn both_answer(
    me: &str,
    peers: &impl Peers,
    board: &Board,
    name: &str,
    other: SocketAddr,
) -> bool {
    let view = board.view();
    let Some(node) = view.node(name) else {
        return false;
    };
    let first = async {
        name == me || (node.liveness == Liveness::Alive && peers.answers(name, node.address).await)
    };
    let second = peers.answers(name, other);
    let (first, second) = tokio::join!(first, second);
    first && second
}
