//! Membership without a network, for tests: what one node says, all others know at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use tokio::sync::watch;

use super::{
    Announcement, Error, Liveness, Membership, View,
    announcement::Announced,
    view::{Board, Node},
};

/// Nodes that hear of each other.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeNetwork {
    boards: Arc<Mutex<BTreeMap<String, Board>>>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Fake {
    name: String,
    network: FakeNetwork,
    board: Board,
}

impl FakeNetwork {
    /// Adds a node.
    pub(crate) fn start(&self, name: &str, announcement: Announcement) -> Result<Fake, Error> {
        let board = Board::new();
        let mut boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = boards.values().next() {
            board.replace(other.view().nodes.clone());
        }
        boards.insert(name.to_owned(), board.clone());
        drop(boards);
        let fake = Fake {
            name: name.to_owned(),
            network: self.clone(),
            board,
        };
        fake.announce(announcement)?;
        Ok(fake)
    }

    /// The node of this name falls silent.
    pub(crate) fn kill(&self, name: &str) {
        self.each(|board| board.gone(name));
    }

    /// Another node claims the name of this one, or does no longer.
    pub(crate) fn conflict(&self, name: &str, other: Option<SocketAddr>) {
        self.each(|board| board.conflict(name, other));
    }

    fn each(&self, change: impl Fn(&Board)) {
        let boards = self.boards.lock().unwrap_or_else(PoisonError::into_inner);
        boards.values().for_each(change);
    }

    fn tell(&self, name: &str, announcement: &Announcement, leaving: bool) -> Result<(), Error> {
        announcement.encode(leaving)?;
        self.each(|board| {
            let announced = Announced {
                announcement: announcement.clone(),
                leaving,
            };
            let address = SocketAddr::from(([127, 0, 0, 1], 1));
            board.heard(Node::heard(name.to_owned(), address, announced));
        });
        Ok(())
    }
}

impl Membership for Fake {
    fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.board.watch()
    }

    fn announce(&self, announcement: Announcement) -> Result<(), Error> {
        self.network.tell(&self.name, &announcement, false)
    }

    fn seek(&self, _nodes: BTreeSet<String>) {
        // All have met already.
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        let view = self.board.view();
        if let Some(node) = view.node(&self.name)
            && node.liveness == Liveness::Alive
        {
            let told = self.network.tell(&self.name, &node.announcement, true);
            told.expect("it was told before");
        }
        Box::pin(async {})
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.network.kill(&self.name);
    }
}
