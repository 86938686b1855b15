//! What goes wrong, and when: drawn from the seed.

use std::{collections::BTreeSet, sync::Arc, sync::atomic::Ordering, time::Duration};

use kelda_server::types::NodeId;
use tokio::time::sleep;

use crate::{
    disk::{Fault, Random},
    network::Weather,
    node::End,
    world::World,
};

/// Which faults a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Faults {
    /// All kinds.
    Mixed,
    /// Power cuts of all nodes at once.
    Power,
}

/// Latest write or sync from now at which a power cut comes.
const CALLS_MAX: u64 = 60;
/// How long a power cut waits for that call.
const CALL_PATIENCE: Duration = Duration::from_secs(2);

/// Draws faults and lets them happen.
pub(crate) struct Schedule {
    world: Arc<World>,
    random: Random,
}

impl Schedule {
    pub(crate) fn new(world: &Arc<World>, random: Random) -> Self {
        Self {
            world: Arc::clone(world),
            random,
        }
    }

    /// One fault after the other, with calm between.
    pub(crate) async fn run(&mut self, faults: Faults) {
        let rounds = 3 + self.random.below(4);
        for _ in 0..rounds {
            self.pause(300, 3000).await;
            match faults {
                Faults::Power => self.cut_power_of_all().await,
                Faults::Mixed => self.something().await,
            }
        }
    }

    async fn something(&mut self) {
        match self.random.below(100) {
            0..15 => self.cut_power_of_all().await,
            15..33 => self.end_some(End::PowerCut).await,
            33..43 => self.end_some(End::Kill).await,
            43..63 => self.cut_network().await,
            63..72 => self.worsen_weather().await,
            72..79 => self.slow_disk().await,
            79..86 => self.hand_over().await,
            86..93 => self.change_members().await,
            _ => self.cut_and_move_majority().await,
        }
    }

    async fn pause(&mut self, from_ms: u64, to_ms: u64) {
        let pause = from_ms + self.random.below(to_ms - from_ms);
        sleep(Duration::from_millis(pause)).await;
    }

    /// Some of the nodes, at least one.
    fn some_nodes(&mut self) -> Vec<NodeId> {
        let mut nodes = self.shuffled();
        let count = 1 + self.random.below(nodes.len() as u64) as usize;
        // Mostly a minority.
        let few = nodes.len().div_ceil(2).saturating_sub(1).max(1);
        let count = if self.random.chance(70) {
            count.min(few)
        } else {
            count
        };
        nodes.truncate(count);
        nodes
    }

    fn shuffled(&mut self) -> Vec<NodeId> {
        let mut nodes = self.world.nodes();
        for at in (1..nodes.len()).rev() {
            nodes.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        nodes
    }

    /// The leader, or some node.
    fn leader(&mut self) -> NodeId {
        let some = self.shuffled()[0];
        self.world.leader().unwrap_or(some)
    }

    /// Lets the power of a node fail at some write or sync from now, and waits for that.
    async fn arm(&mut self, node: NodeId) {
        let Some(life) = self.world.life(node) else {
            return;
        };
        life.disk
            .plan(Fault::Power(1 + self.random.below(CALLS_MAX)));
        let failed = async {
            while life.pulse.beats() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(CALL_PATIENCE, failed).await;
    }

    /// Starts nodes one after the other, some of which fail again meanwhile.
    async fn restart(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.pause(1, 1500).await;
            while self.random.chance(20) {
                let fault = Fault::Power(1 + self.random.below(CALLS_MAX));
                self.world.start(*node, Some(fault));
                self.pause(1, 1000).await;
                self.world.end(*node, End::PowerCut);
            }
            self.world.start(*node, None);
        }
    }

    async fn cut_power_of_all(&mut self) {
        let nodes = self.shuffled();
        // In the middle of what one of them writes, or between.
        if self.random.chance(80) {
            self.arm(nodes[0]).await;
        }
        for node in &nodes {
            self.world.end(*node, End::PowerCut);
        }
        self.restart(&nodes).await;
    }

    async fn end_some(&mut self, end: End) {
        let mut nodes = self.some_nodes();
        if self.random.chance(50) {
            nodes[0] = self.leader();
        }
        for node in &nodes {
            if self.random.chance(60) {
                self.arm(*node).await;
            }
            self.world.end(*node, end);
        }
        self.pause(1, 4000).await;
        self.restart(&nodes).await;
    }

    fn cut(&self, ways: BTreeSet<(NodeId, NodeId)>) {
        self.world.count(|counts| counts.partitions += 1);
        self.world.network.cut(ways);
    }

    async fn cut_network(&mut self) {
        let nodes = self.shuffled();
        let mut ways = BTreeSet::new();
        match self.random.below(5) {
            // The leader can not send, or not receive.
            0 => {
                let leader = self.leader();
                let deaf = self.random.chance(50);
                ways.extend(nodes.iter().map(|other| match deaf {
                    true => (*other, leader),
                    false => (leader, *other),
                }));
            }
            1 => ways = between(&[self.leader()], &nodes),
            // Everybody hears their neighbours only.
            2 => {
                for (at, node) in nodes.iter().enumerate() {
                    let across = nodes.iter().skip(at + 2);
                    ways.extend(across.flat_map(|other| [(*node, *other), (*other, *node)]));
                }
            }
            3 => {
                let some = self.some_nodes();
                ways = between(&some, &nodes);
            }
            // Any ways at all.
            _ => {
                for node in &nodes {
                    for other in &nodes {
                        if self.random.chance(30) {
                            ways.insert((*node, *other));
                        }
                    }
                }
            }
        }
        self.cut(ways);
        self.pause(200, 6000).await;
        self.world.network.cut(BTreeSet::new());
    }

    async fn worsen_weather(&mut self) {
        let delay_min_ms = 1 + self.random.below(100);
        self.world.network.set_weather(Weather {
            delay_min_ms,
            delay_max_ms: delay_min_ms + self.random.below(200),
            lost_permille: self.random.below(200),
        });
        self.pause(500, 5000).await;
        self.world.network.set_weather(Weather::FINE);
    }

    async fn slow_disk(&mut self) {
        let node = match self.random.chance(50) {
            true => self.leader(),
            false => self.shuffled()[0],
        };
        let Some(life) = self.world.life(node) else {
            return;
        };
        self.world
            .trace
            .note(format_args!("{node} has a slow disk"));
        self.world.count(|counts| counts.slow_disks += 1);
        life.is_slow.store(true, Ordering::Relaxed);
        self.pause(500, 5000).await;
        life.is_slow.store(false, Ordering::Relaxed);
    }

    async fn hand_over(&mut self) {
        let leader = self.leader();
        let Some(life) = self.world.life(leader) else {
            return;
        };
        if let Some(partition) = life.partition() {
            self.world
                .trace
                .note(format_args!("{leader} is to hand on"));
            self.world.count(|counts| counts.hand_overs += 1);
            partition.group().hand_over(Duration::from_secs(2)).await;
        }
    }

    /// Wants other replicas; the group comes to have them while other faults go on.
    async fn change_members(&mut self) {
        let mut nodes = self.shuffled();
        let count = self.world.replicas().len().min(nodes.len());
        nodes.truncate(count);
        let replicas: BTreeSet<NodeId> = nodes.into_iter().collect();
        self.world
            .trace
            .note(format_args!("replicas are to be {replicas:?}"));
        self.world.count(|counts| counts.member_changes += 1);
        self.world.set_replicas(replicas);
        self.pause(1, 1000).await;
    }

    /// Jepsen's `pause-kill`: a minority lacks what is acknowledged, one of the others loses its power, and with the
    /// minority it makes a majority that must still have everything.
    async fn cut_and_move_majority(&mut self) {
        let nodes = self.shuffled();
        let few = (nodes.len() - 1) / 2;
        let (minority, rest) = nodes.split_at(few);
        self.cut(between(minority, &nodes));
        self.pause(1000, 5000).await;
        let witness = rest[0];
        if self.random.chance(50) {
            self.arm(witness).await;
        }
        self.world.end(witness, End::PowerCut);
        self.cut(between(&rest[1..], &nodes));
        self.world.start(witness, None);
        self.pause(1000, 6000).await;
        self.world.network.cut(BTreeSet::new());
    }
}

/// All ways between some nodes and the others.
fn between(some: &[NodeId], all: &[NodeId]) -> BTreeSet<(NodeId, NodeId)> {
    let others = all.iter().filter(|node| !some.contains(node));
    let ways = others.flat_map(|other| some.iter().map(move |node| (*node, *other)));
    ways.flat_map(|(one, other)| [(one, other), (other, one)])
        .collect()
}
