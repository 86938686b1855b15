//! What a node knows of the others by gossip. A hint: who belongs to the cluster is for the catalog to say.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use tokio::sync::watch;

use super::announcement::{Announced, Announcement};

/// All nodes that were heard of, this one included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// By name.
    pub nodes: BTreeMap<String, Node>,
}

/// A node that was heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where it gossips.
    pub address: SocketAddr,
    /// What it told of itself last.
    pub announcement: Announcement,
    /// What became of it.
    pub liveness: Liveness,
    /// Where a second node answers to the same name while the first one lives. Of the two, the one that came later
    /// must stop.
    pub conflict: Option<SocketAddr>,
}

/// What became of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// It gives signs of life, or has not been silent for long enough.
    Alive,
    /// It said that it leaves.
    Left,
    /// It fell silent.
    Dead,
}

impl View {
    /// The nodes that live.
    pub fn alive(&self) -> impl Iterator<Item = &Node> {
        let nodes = self.nodes.values();
        nodes.filter(|node| node.liveness == Liveness::Alive)
    }

    /// What is known of the node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }
}

impl Node {
    /// A node that was heard of just now.
    pub(super) fn heard(name: String, address: SocketAddr, announced: Announced) -> Self {
        Self {
            name,
            address,
            announcement: announced.announcement,
            liveness: if announced.leaving {
                Liveness::Left
            } else {
                Liveness::Alive
            },
            conflict: None,
        }
    }
}

/// The view that is watched. Watchers are woken only when it changes.
#[derive(Clone, Debug)]
pub(super) struct Board {
    view: Arc<watch::Sender<Arc<View>>>,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            view: Arc::new(watch::Sender::new(Arc::default())),
        }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.view.subscribe()
    }

    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// A node is there, or told something new.
    pub(super) fn heard(&self, node: Node) {
        self.change(|nodes| {
            let conflict = nodes.get(&node.name).and_then(|known| known.conflict);
            nodes.insert(node.name.clone(), Node { conflict, ..node });
        });
    }

    /// A node is gone. Whether it left or died was told by itself, before.
    pub(super) fn gone(&self, name: &str) {
        self.change(|nodes| {
            if let Some(node) = nodes.get_mut(name)
                && node.liveness == Liveness::Alive
            {
                node.liveness = Liveness::Dead;
            }
        });
    }

    /// A second node answers to a name, or does no longer.
    pub(super) fn conflict(&self, name: &str, other: Option<SocketAddr>) {
        self.change(|nodes| {
            if let Some(node) = nodes.get_mut(name) {
                node.conflict = other;
            }
        });
    }

    /// Takes over what is known by all there is to know.
    pub(super) fn replace(&self, mut all: BTreeMap<String, Node>) {
        self.change(|nodes| {
            for (name, node) in &mut all {
                node.conflict = nodes.get(name).and_then(|known| known.conflict);
            }
            *nodes = all;
        });
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, Node>)) {
        self.view.send_if_modified(|view| {
            let mut nodes = view.nodes.clone();
            change(&mut nodes);
            let changed = nodes != view.nodes;
            if changed {
                *view = Arc::new(View { nodes });
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, leaving: bool) -> Node {
        let announced = Announced {
            announcement: Announcement::default(),
            leaving,
        };
        Node::heard(
            name.to_owned(),
            SocketAddr::from(([1, 2, 3, 4], 5)),
            announced,
        )
    }

    #[test]
    fn a_node_that_said_it_leaves_did_not_die() {
        let board = Board::new();
        board.heard(node("a", false));
        board.heard(node("b", false));
        board.heard(node("b", true));
        board.gone("a");
        board.gone("b");
        board.gone("c");
        let view = board.view();
        assert_eq!(view.nodes["a"].liveness, Liveness::Dead);
        assert_eq!(view.nodes["b"].liveness, Liveness::Left);
        assert_eq!(view.nodes.len(), 2);
    }

    #[test]
    fn watchers_are_woken_by_changes_only() {
        let board = Board::new();
        let mut watch = board.watch();
        watch.mark_unchanged();
        board.heard(node("a", false));
        assert!(watch.has_changed().expect("open"));
        watch.mark_unchanged();
        board.heard(node("a", false));
        board.gone("nobody");
        board.replace(board.view().nodes.clone());
        assert!(!watch.has_changed().expect("open"));
    }

    #[test]
    fn a_conflict_outlives_news_until_it_is_over() {
        let board = Board::new();
        let other = SocketAddr::from(([9, 9, 9, 9], 9));
        board.heard(node("a", false));
        board.conflict("a", Some(other));
        board.heard(node("a", false));
        board.replace([("a".to_owned(), node("a", false))].into());
        assert_eq!(board.view().nodes["a"].conflict, Some(other));
        board.conflict("a", None);
        assert_eq!(board.view().nodes["a"].conflict, None);
    }
}
