//! Signs of life of the other nodes: when each was heard of last, whatever it said.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::members::LEASE;
use crate::types::NodeId;

/// A node that is silent for so long is taken for dead, and others may lead its groups.
///
/// A leader answers reads for [`LEASE`] after it sent what a quorum has answered. Whoever answered it heard of it later
/// than that, so by the time that it is taken for dead the lease is over.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(1);

const _: () = assert!(DEAD_AFTER.as_millis() > LEASE.as_millis());

/// When nodes were heard of. Clones share it.
#[derive(Clone)]
pub(super) struct Signs {
    heard: Arc<Mutex<HashMap<NodeId, Instant>>>,
    /// The nodes that the pulse found silent when it looked last.
    silent: watch::Sender<BTreeSet<NodeId>>,
    started: Instant,
}

impl Default for Signs {
    fn default() -> Self {
        Self {
            heard: Arc::default(),
            silent: watch::Sender::default(),
            started: Instant::now(),
        }
    }
}

impl Signs {
    /// A node has said something.
    pub(super) fn hear(&self, node: NodeId) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(node, Instant::now());
    }

    /// Since when a node is silent; one that was never heard of, since this node has started.
    pub(super) fn silent_since(&self, node: NodeId) -> Instant {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&node).copied().unwrap_or(self.started)
    }

    /// Whether a node was heard of lately enough to be taken for alive.
    pub(super) fn lives(&self, node: NodeId) -> bool {
        self.silent_since(node).elapsed() < DEAD_AFTER
    }

    /// The nodes of the catalog that are silent, as that changes.
    pub(super) fn silent(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.silent.subscribe()
    }

    /// These nodes of the catalog are silent now.
    pub(super) fn set_silent(&self, nodes: &BTreeSet<NodeId>) {
        self.silent.send_if_modified(|silent| {
            let changed = silent != nodes;
            silent.clone_from(nodes);
            changed
        });
    }

    /// Whether this node may have promised a leader, before it was started again, to elect nobody else.
    pub(super) fn may_have_promised(&self) -> bool {
        self.started.elapsed() < LEASE
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_node_lives_until_it_was_silent_for_too_long() {
        let signs = Signs::default();
        let (one, two) = (NodeId(1), NodeId(2));
        assert!(signs.lives(one), "it had no time to say anything");
        advance(DEAD_AFTER / 2).await;
        signs.hear(one);
        advance(DEAD_AFTER / 2).await;
        assert!(signs.lives(one));
        assert!(!signs.lives(two));
        advance(DEAD_AFTER / 2).await;
        assert!(!signs.lives(one));
        signs.hear(one);
        assert!(signs.lives(one));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_promised_before_the_start_is_kept_for_a_lease() {
        let signs = Signs::default();
        assert!(signs.may_have_promised());
        advance(LEASE).await;
        assert!(!signs.may_have_promised());
    }
}
