//! A cluster with the counts that placement decides by, kept true while moves are made.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Change, Cluster, Load, Move, Moves, Reason, Wanted};
use crate::types::NodeId;

/// Below this much a node, writes are too few to matter, and nothing is moved for them.
const BYTES_PER_SECOND_MIN: u64 = 1 << 20;
/// The same for stored bytes.
const DISK_BYTES_MIN: u64 = 1 << 30;
/// All load of a kind together: large enough that the share of a small partition is not 0.
const WHOLE: u128 = 1_000_000_000;

/// The cluster while moves are made.
pub(super) struct State {
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) partitions: Vec<Partition>,
}

/// A node with what it has.
pub(super) struct Node {
    /// Nodes with the same number stand together.
    pub(super) rack: usize,
    pub(super) draining: bool,
    pub(super) alive: bool,
    /// Places of its partitions in the list of all.
    pub(super) held: BTreeSet<usize>,
    pub(super) leaders: usize,
    pub(super) load: u64,
    /// Replicas by topic.
    pub(super) topics: BTreeMap<u64, usize>,
}

/// A partition with its share of all load.
pub(super) struct Partition {
    pub(super) topic: u64,
    pub(super) number: u32,
    pub(super) replicas: Vec<NodeId>,
    pub(super) leader: Option<NodeId>,
    pub(super) replication_factor: usize,
    pub(super) moving: bool,
    pub(super) load: u64,
}

impl Node {
    /// Whether it may get something new, and give something away to make the cluster even.
    pub(super) fn is_usable(&self) -> bool {
        self.alive && !self.draining
    }

    pub(super) fn of_topic(&self, topic: u64) -> usize {
        self.topics.get(&topic).copied().unwrap_or_default()
    }
}

impl State {
    pub(super) fn new(cluster: &Cluster) -> Self {
        let share = shares(cluster);
        let mut state = Self {
            nodes: nodes(cluster),
            partitions: Vec::with_capacity(cluster.partitions.len()),
        };
        for partition in &cluster.partitions {
            state.add(Partition {
                topic: partition.topic,
                number: partition.number,
                replicas: partition.replicas.clone(),
                leader: partition.leader,
                replication_factor: partition.replication_factor,
                moving: partition.moving,
                load: share(partition.load),
            });
        }
        state
    }

    fn add(&mut self, partition: Partition) {
        let at = self.partitions.len();
        let replicas = partition.replicas.clone();
        if let Some(leader) = partition.leader.and_then(|node| self.nodes.get_mut(&node)) {
            leader.leaders += 1;
        }
        self.partitions.push(partition);
        for node in replicas {
            self.take(at, node);
        }
    }

    fn take(&mut self, at: usize, node: NodeId) {
        let partition = &self.partitions[at];
        if let Some(node) = self.nodes.get_mut(&node) {
            node.held.insert(at);
            node.load += partition.load;
            *node.topics.entry(partition.topic).or_default() += 1;
        }
    }

    fn leave(&mut self, at: usize, node: NodeId) {
        let partition = &self.partitions[at];
        if let Some(node) = self.nodes.get_mut(&node) {
            node.held.remove(&at);
            node.load -= partition.load;
            if let Some(count) = node.topics.get_mut(&partition.topic) {
                *count -= 1;
            }
        }
    }

    /// Chooses the replicas of a new partition, and counts them.
    pub(super) fn place(&mut self, wanted: Wanted) -> Vec<NodeId> {
        let at = self.partitions.len();
        self.add(Partition {
            topic: wanted.topic,
            number: 0,
            replicas: Vec::new(),
            leader: None,
            replication_factor: wanted.replication_factor,
            moving: false,
            load: 0,
        });
        for _ in 0..wanted.replication_factor {
            let chosen = self.best_target(at, None).or_else(|| self.last_resort(at));
            let Some(chosen) = chosen else { break };
            self.partitions[at].replicas.push(chosen);
            self.take(at, chosen);
        }
        let mut replicas = self.partitions[at].replicas.clone();
        replicas.sort_by_key(|id| {
            let node = &self.nodes[id];
            (!node.is_usable(), node.leaders, *id)
        });
        if let Some(first) = replicas.first() {
            self.set_leader(at, Some(*first));
        }
        self.partitions[at].replicas.clone_from(&replicas);
        replicas
    }

    /// A node that should get nothing new, where there is no other.
    fn last_resort(&self, at: usize) -> Option<NodeId> {
        let replicas = &self.partitions[at].replicas;
        let rest = self.nodes.iter().filter(|(id, _)| !replicas.contains(id));
        let best = rest.min_by_key(|(id, node)| (!node.alive, node.held.len(), **id));
        best.map(|(id, _)| *id)
    }

    /// The node that a replica of a partition should go to, beside those it has without `leaving`.
    pub(super) fn best_target(&self, at: usize, leaving: Option<NodeId>) -> Option<NodeId> {
        let partition = &self.partitions[at];
        let free = self
            .usable()
            .filter(|(id, _)| !partition.replicas.contains(id));
        let best = free.min_by_key(|(id, node)| {
            (
                self.rack_count(at, node.rack, leaving),
                node.held.len(),
                node.of_topic(partition.topic),
                node.load,
                *id,
            )
        });
        best.map(|(id, _)| id)
    }

    /// Nodes that may get something, in order of id.
    pub(super) fn usable(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        let nodes = self.nodes.iter().map(|(id, node)| (*id, node));
        nodes.filter(|(_, node)| node.is_usable())
    }

    /// Pairs of usable nodes, those that differ most in `measure` first, while they differ by more than one: moving one
    /// thing between others would only make them change places.
    pub(super) fn uneven_pairs(&self, measure: impl Fn(&Node) -> usize) -> Vec<(NodeId, NodeId)> {
        let mut nodes: Vec<_> = self
            .usable()
            .map(|(id, node)| (measure(node), id))
            .collect();
        nodes.sort_unstable();
        let mut pairs = Vec::new();
        let by_most = {
            let mut by_most = nodes.clone();
            by_most.sort_unstable_by_key(|(count, id)| (Reverse(*count), *id));
            by_most
        };
        for (most, high) in by_most {
            let lower = nodes.iter().take_while(|(least, _)| *least + 1 < most);
            pairs.extend(lower.map(|(_, low)| (high, *low)));
        }
        pairs
    }

    /// Replicas of a partition in a rack, without `leaving`.
    pub(super) fn rack_count(&self, at: usize, rack: usize, leaving: Option<NodeId>) -> usize {
        let replicas = self.partitions[at].replicas.iter();
        let staying = replicas.filter(|id| Some(**id) != leaving);
        staying
            .filter(|id| self.nodes.get(id).is_some_and(|node| node.rack == rack))
            .count()
    }

    /// Whether `to` is as good a place for the replica on `from`, as far as racks go.
    pub(super) fn keeps_racks(&self, at: usize, from: NodeId, to: NodeId) -> bool {
        let count = |id: &NodeId| {
            let node = self.nodes.get(id);
            node.map_or(0, |node| self.rack_count(at, node.rack, Some(from)))
        };
        count(&to) <= count(&from)
    }

    /// Whether the members of a partition's group can be changed now: nothing else is under way, and it has a quorum.
    pub(super) fn is_movable(&self, at: usize) -> bool {
        let partition = &self.partitions[at];
        let alive = |id: &&NodeId| self.nodes.get(id).is_some_and(|node| node.alive);
        let alive = partition.replicas.iter().filter(alive).count();
        !partition.moving && alive * 2 > partition.replicas.len()
    }

    /// The replica that should lead instead of `from`, if there is one.
    pub(super) fn best_leader(&self, at: usize, from: NodeId) -> Option<NodeId> {
        let replicas = self.partitions[at].replicas.iter();
        let others = replicas.filter(|id| **id != from);
        let usable = others.filter_map(|id| Some((*id, self.nodes.get(id)?)));
        let usable = usable.filter(|(_, node)| node.is_usable());
        usable
            .min_by_key(|(id, node)| (node.leaders, *id))
            .map(|(id, _)| id)
    }

    /// Puts `to` into the place of `from`; with only one of them, adds or leaves out a replica.
    pub(super) fn replace(
        &mut self,
        at: usize,
        (from, to): (Option<NodeId>, Option<NodeId>),
        reason: Reason,
        moves: &mut Moves,
    ) {
        let leaving = from.filter(|from| self.partitions[at].leader == Some(*from));
        // Rather one that has the log and can take over at once.
        let leader = leaving.and_then(|leader| self.best_leader(at, leader).or(to));
        let partition = &mut self.partitions[at];
        let before = partition.replicas.clone();
        match (from, to) {
            (Some(from), Some(to)) => {
                let place = partition.replicas.iter_mut().find(|id| **id == from);
                *place.expect("it is a replica that leaves") = to;
            }
            (Some(from), None) => partition.replicas.retain(|id| *id != from),
            (None, Some(to)) => partition.replicas.push(to),
            (None, None) => return,
        }
        let change = Change::Replicas {
            before,
            after: partition.replicas.clone(),
            leader,
        };
        moves.list.push(self.change(at, change, reason));
        if let Some(from) = from {
            self.leave(at, from);
        }
        if let Some(to) = to {
            self.take(at, to);
        }
        if leaving.is_some() {
            self.set_leader(at, leader);
        }
    }

    /// Makes a replica the leader.
    pub(super) fn lead(&mut self, at: usize, to: NodeId, reason: Reason, moves: &mut Moves) {
        let Some(from) = self.partitions[at].leader else {
            return;
        };
        let change = Change::Leader { from, to };
        moves.list.push(self.change(at, change, reason));
        self.set_leader(at, Some(to));
    }

    fn set_leader(&mut self, at: usize, to: Option<NodeId>) {
        let before = std::mem::replace(&mut self.partitions[at].leader, to);
        if let Some(node) = before.and_then(|id| self.nodes.get_mut(&id)) {
            node.leaders -= 1;
        }
        if let Some(node) = to.and_then(|id| self.nodes.get_mut(&id)) {
            node.leaders += 1;
        }
    }

    fn change(&self, at: usize, change: Change, reason: Reason) -> Move {
        let partition = &self.partitions[at];
        Move {
            topic: partition.topic,
            partition: partition.number,
            change,
            reason,
        }
    }
}

fn nodes(cluster: &Cluster) -> BTreeMap<NodeId, Node> {
    let mut racks: BTreeMap<&str, usize> = BTreeMap::new();
    let nodes = cluster.nodes.iter().enumerate().map(|(number, node)| {
        // A node that says nothing has a rack of its own.
        let rack = match node.rack.as_str() {
            "" => number,
            named => *racks.entry(named).or_insert(number),
        };
        let state = Node {
            rack,
            draining: node.draining,
            alive: node.alive,
            held: BTreeSet::new(),
            leaders: 0,
            load: 0,
            topics: BTreeMap::new(),
        };
        (node.id, state)
    });
    nodes.collect()
}

/// Weighs a partition's load against that of all: writes and stored bytes count the same.
fn shares(cluster: &Cluster) -> impl Fn(Load) -> u64 + use<> {
    let nodes = cluster.nodes.len() as u64;
    let total = |of: fn(&Load) -> u64, least: u64| {
        let loads = cluster.partitions.iter();
        let total = loads.map(|it| of(&it.load).saturating_mul(it.replicas.len() as u64));
        let total = total.fold(0u64, u64::saturating_add);
        (total >= least.saturating_mul(nodes)).then_some(total)
    };
    let bytes_per_second = total(|load| load.bytes_per_second, BYTES_PER_SECOND_MIN);
    let disk_bytes = total(|load| load.disk_bytes, DISK_BYTES_MIN);
    let share = |part: u64, total: Option<u64>| {
        let total = total.filter(|total| *total > 0);
        let share = total.map_or(0, |total| u128::from(part) * WHOLE / u128::from(total));
        u64::try_from(share).unwrap_or_default()
    };
    move |load| share(load.bytes_per_second, bytes_per_second) + share(load.disk_bytes, disk_bytes)
}
