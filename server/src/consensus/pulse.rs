//! The pulse between nodes: each pair exchanges a sign of life, whatever groups they share, and what follows from its
//! end.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use kelda_proto::internal::v1::{RaftRequest, raft_request as request};
use openraft::{ServerState, async_runtime::WatchReceiver};
use tokio::{task::JoinSet, time::Instant};

use super::{
    CatalogGroup, Groups,
    seat::Seat,
    signs::{DEAD_AFTER, Signs},
    takeover,
};
use crate::{
    peers::Lane,
    types::{CATALOG_GROUP, NodeId},
};

/// How often a pair of nodes exchanges a sign of life. The node of the lower id asks, the other answers.
const INTERVAL: Duration = Duration::from_millis(250);

struct Pulse {
    groups: Groups,
    catalog: CatalogGroup,
    dead: BTreeSet<NodeId>,
    /// Nodes that have not answered yet.
    asked: BTreeSet<NodeId>,
    answers: JoinSet<NodeId>,
    /// Takeovers, and groups that are woken: a group that stands still must not hold up the pulse.
    work: JoinSet<()>,
}

impl Groups {
    /// Exchanges signs of life with the nodes of the catalog, takes the groups of dead ones over, and wakes groups that
    /// have something to tell to those that come back.
    pub async fn keep_pulse(self, catalog: CatalogGroup) {
        let pulse = Pulse {
            groups: self,
            catalog,
            dead: BTreeSet::new(),
            asked: BTreeSet::new(),
            answers: JoinSet::new(),
            work: JoinSet::new(),
        };
        pulse.run().await;
    }
}

impl Pulse {
    async fn run(mut self) {
        let mut beat = Instant::now();
        let mut known = Vec::new();
        loop {
            let nodes = self.others();
            if nodes != known {
                self.groups.home.inbox.stir().stir();
                known.clone_from(&nodes);
            }
            if Instant::now() >= beat {
                self.ask(&nodes);
                beat = Instant::now() + INTERVAL;
            }
            self.look(&nodes);
            let deaths = nodes.iter().filter(|node| !self.dead.contains(node));
            let deaths = deaths.map(|node| self.signs().silent_since(*node) + DEAD_AFTER);
            let wake = deaths.min().map_or(beat, |death| death.min(beat));
            // All only watch, or hand out what has ended.
            tokio::select! {
                () = tokio::time::sleep_until(wake) => {}
                Some(answered) = self.answers.join_next() => match answered {
                    Ok(node) => {
                        self.asked.remove(&node);
                    }
                    Err(_) => self.asked.clear(),
                },
                Some(_) = self.work.join_next() => {}
            }
        }
    }

    fn signs(&self) -> &Signs {
        self.groups.home.inbox.signs()
    }

    fn others(&self) -> Vec<NodeId> {
        let me = self.groups.node();
        let catalog = self.catalog.view();
        let nodes = catalog.nodes().map(|node| node.id);
        nodes.filter(|node| *node != me).collect()
    }

    fn ask(&mut self, nodes: &[NodeId]) {
        let me = self.groups.node();
        for node in nodes.iter().copied().filter(|node| *node > me) {
            if !self.asked.insert(node) {
                continue;
            }
            let (peers, signs) = (self.groups.peers().clone(), self.signs().clone());
            self.answers.spawn(async move {
                let request = RaftRequest {
                    call: 0,
                    group: CATALOG_GROUP.0,
                    message: Some(request::Message::Pulse(request::Pulse {})),
                };
                if peers
                    .raft(node, Lane::Control, request, DEAD_AFTER)
                    .await
                    .is_ok()
                {
                    signs.hear(node);
                }
                node
            });
        }
    }

    /// Looks who has died, and who has come back.
    fn look(&mut self, nodes: &[NodeId]) {
        self.dead.retain(|node| nodes.contains(node));
        let mut changed = false;
        for node in nodes.iter().copied() {
            let lives = self.signs().lives(node);
            changed |= lives == self.dead.contains(&node);
            if !lives && self.dead.insert(node) {
                tracing::warn!(%node, "node is silent: the groups that it leads are taken over");
                self.take_over(node);
            } else if lives && self.dead.remove(&node) {
                tracing::info!(%node, "node is heard of again");
                self.wake_for(node);
            }
        }
        self.signs().set_silent(&self.dead);
        if changed {
            self.groups.home.inbox.stir().stir();
        }
    }

    fn take_over(&mut self, dead: NodeId) {
        let home = &self.groups.home;
        for seat in home.inbox.seats() {
            if seat.leader() == Some(dead) {
                let takeover = takeover::run(seat, home.inbox.signs().clone(), dead);
                self.work.spawn(takeover);
            }
        }
    }

    /// Groups that this node leads may have something for a node that was away.
    fn wake_for(&mut self, node: NodeId) {
        for seat in self.groups.home.inbox.seats() {
            if leads_for(&seat, node) {
                // One that is about to be quiesced without the node is not, either.
                seat.touch();
                self.work.spawn(async move { seat.wake().await });
            }
        }
    }
}

fn leads_for(seat: &Arc<Seat>, member: NodeId) -> bool {
    let metrics = seat.raft.server_metrics();
    let metrics = metrics.borrow_watched();
    let members = metrics.membership_config.membership();
    metrics.state == ServerState::Leader && members.get_node(&member).is_some()
}
