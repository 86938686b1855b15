//! Properties of random clusters, against counts that are taken anew each time.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Racks by number; 0 is none.
const RACKS: [&str; 4] = ["", "a", "b", "c"];

fn node() -> impl Strategy<Value = (usize, bool, bool)> {
    (
        0..RACKS.len(),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.85),
    )
}

fn partition() -> impl Strategy<Value = (u64, Vec<u64>, usize, usize, u64, bool)> {
    (
        1..4u64,
        // Some of them on nodes that there are not.
        vec(1..9u64, 1..6),
        prop::sample::select(vec![1, 3, 5]),
        0..6usize,
        prop_oneof![Just(0), 0..(64u64 << 20)],
        prop::bool::weighted(0.1),
    )
}

fn any_cluster() -> impl Strategy<Value = Cluster> {
    (vec(node(), 1..8), vec(partition(), 0..24)).prop_map(|(nodes, partitions)| {
        let nodes = (1..).zip(nodes).map(|(id, (rack, draining, alive))| Node {
            id: NodeId(id),
            rack: RACKS[rack].to_owned(),
            draining,
            alive,
        });
        let partitions = (0..).zip(partitions).map(|(number, it)| {
            let (topic, replicas, replication_factor, leader, bytes_per_second, moving) = it;
            let distinct: BTreeSet<u64> = replicas.into_iter().collect();
            let replicas: Vec<NodeId> = distinct.into_iter().map(NodeId).collect();
            Partition {
                topic,
                number,
                leader: replicas.get(leader).copied(),
                replicas,
                replication_factor,
                load: Load {
                    bytes_per_second,
                    disk_bytes: 0,
                },
                moving,
            }
        });
        Cluster {
            nodes: nodes.collect(),
            partitions: partitions.collect(),
        }
    })
}

/// A cluster that placement itself has filled.
fn placed_cluster() -> impl Strategy<Value = Cluster> {
    let topics = vec((1..9usize, prop::sample::select(vec![1, 3])), 1..6);
    (vec(0..RACKS.len(), 3..8), topics).prop_map(|(racks, topics)| {
        let racks: Vec<_> = racks.into_iter().map(|rack| RACKS[rack]).collect();
        let mut filled = cluster(&racks, &[]);
        for (topic, (partitions, replication_factor)) in (1..).zip(topics) {
            let wanted = Wanted {
                topic,
                partitions,
                replication_factor,
            };
            let placed = place(&filled, wanted).expect("three nodes are enough");
            for (number, replicas) in (0..).zip(placed) {
                filled.partitions.push(Partition {
                    topic,
                    number,
                    leader: replicas.first().copied(),
                    replicas,
                    replication_factor,
                    load: Load::default(),
                    moving: false,
                });
            }
        }
        filled
    })
}

fn find(cluster: &Cluster, id: NodeId) -> Option<&Node> {
    cluster.nodes.iter().find(|node| node.id == id)
}

/// Nodes that are there to stay.
fn usable(cluster: &Cluster) -> Vec<&Node> {
    let nodes = cluster.nodes.iter();
    nodes.filter(|node| node.alive && !node.draining).collect()
}

/// Whether the group of a partition can change its members.
fn has_quorum(cluster: &Cluster, partition: &Partition) -> bool {
    let alive = |id: &&NodeId| find(cluster, **id).is_some_and(|node| node.alive);
    partition.replicas.iter().filter(alive).count() * 2 > partition.replicas.len()
}

/// Replicas by rack; a node without a rack is one.
fn racks(cluster: &Cluster, replicas: &[NodeId]) -> BTreeMap<String, usize> {
    let mut racks = BTreeMap::new();
    for node in replicas.iter().filter_map(|id| find(cluster, *id)) {
        *racks.entry(rack_of(node)).or_default() += 1;
    }
    racks
}

fn rack_of(node: &Node) -> String {
    if node.rack.is_empty() {
        format!("node {}", node.id)
    } else {
        node.rack.clone()
    }
}

fn led(cluster: &Cluster, id: NodeId) -> usize {
    let leaders = cluster.partitions.iter();
    leaders.filter(|it| it.leader == Some(id)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_plan_is_made_of_moves_that_can_be_made_and_leaves_nothing_to_do(start in any_cluster()) {
        let mut end = start.clone();
        let moves = settle(&mut end);
        prop_assert!(plan(&start, usize::MAX) == moves, "the same each time");
        for made in &moves {
            let to = match &made.change {
                Change::Leader { to, .. } => Some(*to),
                Change::Replicas { before, after, .. } => {
                    after.iter().find(|id| !before.contains(id)).copied()
                }
            };
            let node = to.map(|id| find(&start, id).expect("a node that there is"));
            prop_assert!(node.is_none_or(|node| node.alive && !node.draining), "{:?}", made);
        }
        for (before, after) in start.partitions.iter().zip(&end.partitions) {
            let distinct: BTreeSet<_> = after.replicas.iter().collect();
            prop_assert_eq!(distinct.len(), after.replicas.len(), "never two on a node");
            if before.moving || !has_quorum(&start, before) {
                prop_assert_eq!(before, after);
                continue;
            }
            let (factor, count) = (after.replication_factor, after.replicas.len());
            let free = usable(&start).iter().any(|node| !after.replicas.contains(&node.id));
            prop_assert!(count == factor || (count < factor && !free), "{:?}", after);
            let unwanted = |id: &NodeId| find(&start, *id).is_none_or(|node| node.draining);
            prop_assert!(!free || !after.replicas.iter().any(unwanted), "{:?}", after);
        }
    }

    #[test]
    fn racks_are_used_as_evenly_as_they_can_be(start in any_cluster()) {
        let mut end = start;
        settle(&mut end);
        let movable = |it: &&Partition| !it.moving && has_quorum(&end, it);
        for partition in end.partitions.iter().filter(movable) {
            let racks = racks(&end, &partition.replicas);
            for from in usable(&end).iter().filter(|it| partition.replicas.contains(&it.id)) {
                for to in usable(&end).iter().filter(|it| !partition.replicas.contains(&it.id)) {
                    let crowd = racks[&rack_of(from)];
                    let there = racks.get(&rack_of(to)).copied().unwrap_or_default();
                    prop_assert!(crowd < there + 2, "{:?}: {:?} to {:?}", partition, from, to);
                }
            }
        }
    }

    #[test]
    fn without_racks_replicas_and_leaders_are_even(mut start in any_cluster()) {
        for node in &mut start.nodes {
            node.rack.clear();
            node.draining = false;
            node.alive = true;
        }
        let nodes = start.nodes.len();
        for partition in &mut start.partitions {
            partition.moving = false;
            partition.load = Load::default();
            partition.replicas.retain(|id| id.0 <= nodes as u64);
            partition.leader = partition.replicas.last().copied();
        }
        start.partitions.retain(|it| !it.replicas.is_empty());
        settle(&mut start);
        let counts = counts(&start);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        prop_assert!(most.unwrap() - least.unwrap() <= 1, "{:?}", counts);
        // Leaders may be bound by where replicas are, but never between two nodes that share a partition.
        for partition in start.partitions.iter().filter(|it| it.leader.is_some()) {
            let leader = partition.leader.unwrap();
            for replica in &partition.replicas {
                prop_assert!(led(&start, leader) <= led(&start, *replica) + 1);
            }
        }
    }

    #[test]
    fn what_was_placed_needs_no_moves_but_of_leaders_or_for_racks(filled in placed_cluster()) {
        let moves = plan(&filled, usize::MAX);
        let replicas = moves.iter().filter(|it| matches!(it.change, Change::Replicas { .. }));
        let named = filled.nodes.iter().any(|node| !node.rack.is_empty());
        prop_assert!(named || replicas.count() == 0, "{:?}", moves);
        for partition in &filled.partitions {
            let all: BTreeSet<_> = filled.nodes.iter().map(rack_of).collect();
            let used = racks(&filled, &partition.replicas).len();
            prop_assert_eq!(used, all.len().min(partition.replicas.len()));
        }
    }

    #[test]
    fn a_node_that_joins_costs_no_more_moves_than_its_share(mut filled in placed_cluster()) {
        for node in &mut filled.nodes {
            node.rack.clear();
        }
        settle(&mut filled);
        let id = NodeId(filled.nodes.len() as u64 + 1);
        filled.nodes.push(Node { id, rack: String::new(), draining: false, alive: true });
        let total: usize = counts(&filled).iter().sum();
        let moves = settle(&mut filled);
        let moved = moves.iter().filter(|it| matches!(it.change, Change::Replicas { .. }));
        let share = total / filled.nodes.len();
        prop_assert_eq!(moved.count(), share);
        prop_assert_eq!(counts(&filled).last().copied(), Some(share));
    }

    #[test]
    fn a_plan_in_pieces_ends_too(mut start in any_cluster(), limit in 1..4usize) {
        for _ in 0..1000 {
            let moves = plan(&start, limit);
            prop_assert!(moves.len() <= limit + 1);
            if moves.is_empty() {
                return Ok(());
            }
            moves.iter().for_each(|made| apply(&mut start, made));
        }
        prop_assert!(false, "it goes round in circles");
    }
}
