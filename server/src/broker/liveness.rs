//! Which nodes live, as gossip has it: a hint, for people and for where replicas go.

use std::sync::Arc;

use tokio::sync::watch;

use super::Broker;
use crate::{
    membership::{self, View},
    types::NodeId,
};

/// The view of gossip, as it changes. None: the node is alone.
pub type Liveness = Option<watch::Receiver<Arc<View>>>;

impl Broker {
    /// Whether a node gives signs of life. It may be dead for some seconds already, or only be cut off from this one.
    pub fn seems_alive(&self, node: NodeId) -> bool {
        node == self.shared.groups.node()
            || self
                .gossip_says(node)
                .unwrap_or_else(|| self.shared.groups.lives(node))
    }

    /// What gossip says of a node, once it has heard of it.
    fn gossip_says(&self, node: NodeId) -> Option<bool> {
        let view = self.shared.liveness.as_ref()?.borrow().clone();
        // By id: a node that has lost its directory lives under its old name as another one.
        let mut heard = view.nodes.values();
        let heard = heard.find(|it| it.announcement.node_id == node)?;
        Some(heard.liveness == membership::Liveness::Alive)
    }
}
