//! What placement answers for clusters that fit on a line.

use super::*;

mod properties;

/// Nodes 1, 2 and so on, in these racks.
fn nodes(racks: &[&str]) -> Vec<Node> {
    let nodes = (1..).zip(racks).map(|(id, rack)| Node {
        id: NodeId(id),
        rack: (*rack).to_owned(),
        draining: false,
        alive: true,
    });
    nodes.collect()
}

/// Partitions of topic 1 on these nodes, led by the first of them.
fn cluster(racks: &[&str], partitions: &[&[u64]]) -> Cluster {
    let partitions = (0..).zip(partitions).map(|(number, replicas)| Partition {
        topic: 1,
        number,
        replicas: replicas.iter().copied().map(NodeId).collect(),
        leader: replicas.first().copied().map(NodeId),
        replication_factor: replicas.len(),
        load: Load::default(),
        moving: false,
    });
    Cluster {
        nodes: nodes(racks),
        partitions: partitions.collect(),
    }
}

/// The naive model: carries out a move and insists that it is one.
fn apply(cluster: &mut Cluster, made: &Move) {
    let mut partitions = cluster.partitions.iter_mut();
    let partition = partitions
        .find(|it| (it.topic, it.number) == (made.topic, made.partition))
        .expect("a move is of a partition that there is");
    assert!(!partition.moving, "{made:?}: one change at a time");
    match &made.change {
        Change::Replicas {
            before,
            after,
            leader,
        } => {
            assert_eq!(&partition.replicas, before, "{made:?}");
            let gone: Vec<_> = before.iter().filter(|id| !after.contains(id)).collect();
            let new: Vec<_> = after.iter().filter(|id| !before.contains(id)).collect();
            assert!(gone.len() <= 1 && new.len() <= 1, "{made:?}: one replica");
            assert_eq!(after.len(), before.len() - gone.len() + new.len());
            partition.replicas.clone_from(after);
            let leaves = partition.leader.filter(|now| gone.contains(&now));
            if leaves.is_some() {
                assert!(leader.is_none_or(|leader| after.contains(&leader)));
                partition.leader = *leader;
            }
        }
        Change::Leader { from, to } => {
            assert_eq!(partition.leader, Some(*from), "{made:?}");
            assert!(from != to && partition.replicas.contains(to), "{made:?}");
            partition.leader = Some(*to);
        }
    }
}

/// Plans and carries out until nothing is left to do.
fn settle(cluster: &mut Cluster) -> Vec<Move> {
    let moves = plan(cluster, usize::MAX);
    for made in &moves {
        apply(cluster, made);
    }
    assert_eq!(plan(cluster, usize::MAX), [], "a plan is complete");
    moves
}

fn reasons(moves: &[Move]) -> Vec<Reason> {
    moves.iter().map(|made| made.reason).collect()
}

fn replicas(cluster: &Cluster, at: usize) -> Vec<u64> {
    let replicas = cluster.partitions[at].replicas.iter();
    replicas.map(|id| id.0).collect()
}

fn counts(cluster: &Cluster) -> Vec<usize> {
    let held = |node: &Node| {
        let partitions = cluster.partitions.iter();
        partitions
            .filter(|it| it.replicas.contains(&node.id))
            .count()
    };
    cluster.nodes.iter().map(held).collect()
}

#[test]
fn a_balanced_cluster_is_left_alone() {
    let mut even = cluster(&["", "", ""], &[&[1, 2, 3], &[2, 3, 1], &[3, 1, 2]]);
    assert_eq!(settle(&mut even), []);
    assert_eq!(settle(&mut Cluster::default()), []);
}

#[test]
fn a_node_that_joins_gets_its_share_and_no_more_is_moved() {
    let mut grown = cluster(&["", "", ""], &[&[1], &[1], &[1], &[2], &[2], &[2]]);
    let moves = settle(&mut grown);
    assert_eq!(counts(&grown), [2, 2, 2]);
    assert_eq!(reasons(&moves), [Reason::ReplicasUnbalanced; 2]);
}

#[test]
fn a_drained_node_is_emptied_and_hands_its_leaders_to_those_that_have_the_log() {
    let mut drained = cluster(&["", "", "", ""], &[&[1, 2, 3], &[2, 1, 3]]);
    drained.nodes[0].draining = true;
    let moves = settle(&mut drained);
    assert_eq!(replicas(&drained, 0), [4, 2, 3]);
    assert_eq!(replicas(&drained, 1), [2, 4, 3]);
    assert_eq!(reasons(&moves), [Reason::NodeDraining; 2]);
    assert_eq!(drained.partitions[0].leader, Some(NodeId(3)));
}

#[test]
fn a_drained_node_keeps_what_nobody_else_can_take_but_does_not_lead() {
    let mut drained = cluster(&["", "", ""], &[&[1, 2, 3]]);
    drained.nodes[0].draining = true;
    assert_eq!(cannot_leave(&drained, NodeId(1)), Some(3));
    assert_eq!(reasons(&settle(&mut drained)), [Reason::NodeDraining]);
    assert_eq!(replicas(&drained, 0), [1, 2, 3]);
    assert_ne!(drained.partitions[0].leader, Some(NodeId(1)));
}

#[test]
fn who_may_leave_depends_on_those_that_would_stay() {
    let mut four = cluster(&["", "", "", ""], &[&[1, 2, 3], &[4]]);
    assert_eq!(cannot_leave(&four, NodeId(1)), None);
    four.nodes[1].draining = true;
    assert_eq!(cannot_leave(&four, NodeId(1)), Some(3));
    assert_eq!(
        cannot_leave(&four, NodeId(4)),
        None,
        "one replica fits anywhere"
    );
}

#[test]
fn replicas_on_a_node_that_was_removed_are_replaced() {
    let mut removed = cluster(&["", "", ""], &[&[1, 2, 9]]);
    assert_eq!(reasons(&settle(&mut removed)), [Reason::NodeRemoved]);
    assert_eq!(replicas(&removed, 0), [1, 2, 3]);
}

#[test]
fn silence_moves_nothing_and_takes_nothing() {
    let mut silent = cluster(&["", "", "", ""], &[&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]]);
    silent.nodes[0].alive = false;
    silent.nodes[3].alive = false;
    for partition in &mut silent.partitions {
        partition.leader = Some(NodeId(2));
    }
    let moves = settle(&mut silent);
    assert_eq!(reasons(&moves), [Reason::LeadersUnbalanced]);
}

#[test]
fn a_group_without_a_quorum_is_left_alone() {
    let mut lost = cluster(&["", "", "", ""], &[&[1, 2, 3]]);
    lost.nodes[0].alive = false;
    lost.nodes[1].alive = false;
    lost.nodes[0].draining = true;
    lost.partitions[0].leader = None;
    assert_eq!(settle(&mut lost), []);
}

#[test]
fn replicas_spread_over_racks() {
    let mut crowded = cluster(&["a", "a", "a", "b", "c"], &[&[1, 2, 3]]);
    let moves = settle(&mut crowded);
    assert!(moves.iter().all(|it| it.reason == Reason::RackRepeated));
    let mut racks: Vec<_> = crowded.partitions[0]
        .replicas
        .iter()
        .map(|id| crowded.nodes[id.0 as usize - 1].rack.as_str())
        .collect();
    racks.sort_unstable();
    assert_eq!(racks, ["a", "b", "c"]);
}

#[test]
fn five_replicas_in_two_racks_are_three_and_two() {
    let racks = ["a", "a", "a", "a", "b", "b"];
    let mut crowded = cluster(&racks, &[&[1, 2, 3, 4, 5]]);
    assert_eq!(reasons(&settle(&mut crowded)), [Reason::RackRepeated]);
    assert!(replicas(&crowded, 0).contains(&6));
}

#[test]
fn the_replication_factor_is_reached_one_replica_at_a_time() {
    let mut grown = cluster(&["", "", ""], &[&[1]]);
    grown.partitions[0].replication_factor = 3;
    assert_eq!(reasons(&settle(&mut grown)), [Reason::ReplicationFactor; 2]);
    assert_eq!(replicas(&grown, 0), [1, 2, 3]);
    grown.partitions[0].replication_factor = 1;
    grown.partitions[0].leader = Some(NodeId(2));
    assert_eq!(reasons(&settle(&mut grown)), [Reason::ReplicationFactor; 2]);
    assert_eq!(replicas(&grown, 0), [2], "the leader stays");
}

#[test]
fn what_is_moving_already_is_counted_and_not_touched() {
    let mut moving = cluster(&["", "", ""], &[&[1], &[1], &[2], &[3]]);
    moving.partitions[0].moving = true;
    moving.nodes[0].draining = true;
    let moves = plan(&moving, usize::MAX);
    assert!(moves.iter().all(|made| made.partition != 0), "{moves:?}");
}

#[test]
fn a_busy_node_exchanges_a_replica_for_a_smaller_one() {
    let mut busy = cluster(&["", ""], &[&[1], &[1], &[2], &[2]]);
    for (partition, megabytes) in busy.partitions.iter_mut().zip([40, 30, 1, 2]) {
        partition.load.bytes_per_second = megabytes << 20;
    }
    let moves = settle(&mut busy);
    assert_eq!(reasons(&moves), [Reason::LoadUnbalanced; 2]);
    assert_eq!(counts(&busy), [2, 2]);
    for partition in &mut busy.partitions {
        partition.load.bytes_per_second >>= 10;
    }
    busy.partitions.swap(0, 3);
    assert_eq!(settle(&mut busy), [], "a few records are no load");
}

#[test]
fn new_partitions_go_round_the_nodes() {
    let empty = cluster(&["", "", ""], &[]);
    let wanted = Wanted {
        topic: 0,
        partitions: 3,
        replication_factor: 2,
    };
    let placed = place(&empty, wanted).expect("there are enough");
    let mut leaders: Vec<_> = placed.iter().map(|replicas| replicas[0].0).collect();
    leaders.sort_unstable();
    assert_eq!(leaders, [1, 2, 3]);
    let wanted = Wanted {
        replication_factor: 4,
        ..wanted
    };
    assert_eq!(place(&empty, wanted), None);
}

#[test]
fn new_partitions_avoid_nodes_that_leave_or_are_silent_while_others_are_enough() {
    let mut five = cluster(&["", "", "", "", ""], &[]);
    five.nodes[0].draining = true;
    five.nodes[1].alive = false;
    let wanted = |replication_factor| Wanted {
        topic: 0,
        partitions: 1,
        replication_factor,
    };
    let placed = place(&five, wanted(3)).expect("there are enough");
    assert_eq!(placed, [[NodeId(3), NodeId(4), NodeId(5)]]);
    let placed = place(&five, wanted(5)).expect("there are enough");
    assert_eq!(placed[0].len(), 5);
    assert_eq!(placed[0][0], NodeId(3), "who is there leads");
}

#[test]
fn a_plan_ends_at_its_limit() {
    let crowded = cluster(&["", ""], &[&[1], &[1], &[1], &[1], &[1], &[1]]);
    assert_eq!(plan(&crowded, 2).len(), 2);
    assert_eq!(plan(&crowded, 0), []);
}
