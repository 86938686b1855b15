//! Moving replicas, emptying and removing nodes.

use kelda_proto::internal::v1::catalog_command::{
    DrainNode, MoveReplicas, RemoveNode, move_replicas::Move,
};

use super::*;

pub(super) fn moves(topic_id: u64, topic: &str, moves: &[(u32, &[u64], &[u64])]) -> Command {
    let one = |(partition, before, after): &(u32, &[u64], &[u64])| Move {
        partition: *partition,
        before: before.to_vec(),
        after: after.to_vec(),
    };
    Command::MoveReplicas(MoveReplicas {
        topic: topic.to_owned(),
        topic_id,
        moves: moves.iter().map(one).collect(),
    })
}

pub(super) fn drain(id: u64, draining: bool) -> Command {
    Command::DrainNode(DrainNode { id, draining })
}

/// Removes a node that was looked at in this version of the catalog.
pub(super) fn remove_as_of(checked_version: u64, id: u64) -> Command {
    Command::RemoveNode(RemoveNode {
        id,
        checked_version,
    })
}

fn remove(catalog: &Catalog, id: u64) -> Command {
    remove_as_of(catalog.version(), id)
}

fn apply_to(
    catalog: &mut Catalog,
    command: impl FnOnce(&Catalog) -> Command,
) -> Result<Change, Rejection> {
    let command = command(catalog);
    apply(catalog, command)
}

fn replicas(catalog: &Catalog, number: usize) -> Vec<u64> {
    let partition = &catalog.topic("t").unwrap().partitions[number];
    partition.replicas.iter().map(|node| node.0).collect()
}

#[test]
fn replicas_move_and_the_founders_stay() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1, 2], &[3]])).unwrap();
    let command = moves(1, "t", &[(0, &[1, 2], &[3, 2]), (1, &[3], &[1, 2, 3])]);
    assert_eq!(
        apply(&mut catalog, command.clone()),
        Ok(Change::ReplicasMoved)
    );
    assert_eq!(replicas(&catalog, 0), [3, 2]);
    assert_eq!(replicas(&catalog, 1), [1, 2, 3]);
    let topic = catalog.topic("t").unwrap();
    assert_eq!(topic.partitions[0].founders, [NodeId(1), NodeId(2)]);
    assert_eq!(topic.partitions[1].founders, [NodeId(3)]);
    let found = catalog.replicas_of_group(GroupId(1));
    assert_eq!(found, Some(&[NodeId(3), NodeId(2)][..]));
    let again = apply(&mut catalog, command);
    assert_eq!(again, Err(Rejection::ReplicasChanged { partition: 0 }));
    let stay = moves(1, "t", &[(0, &[3, 2], &[3, 2])]);
    assert_eq!(apply(&mut catalog, stay), Ok(Change::Unchanged));
}

#[test]
fn moves_are_carried_out_all_or_none() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1], &[2]])).unwrap();
    let before = catalog.clone();
    let good: (u32, &[u64], &[u64]) = (0, &[1], &[2]);
    for (bad, expected) in [
        (
            (1, &[3][..], &[1][..]),
            Rejection::ReplicasChanged { partition: 1 },
        ),
        ((1, &[2], &[4]), Rejection::UnknownNode),
        (
            (1, &[2], &[]),
            Rejection::Malformed("replicas are none or repeated"),
        ),
        (
            (1, &[2], &[1, 1]),
            Rejection::Malformed("replicas are none or repeated"),
        ),
        ((2, &[2], &[1]), Rejection::Malformed("no such partition")),
        (good, Rejection::Malformed("two moves of one partition")),
    ] {
        let applied = apply(&mut catalog, moves(1, "t", &[good, bad]));
        assert_eq!(applied, Err(expected), "{bad:?}");
    }
    let none = apply(&mut catalog, moves(1, "t", &[]));
    assert_eq!(none, Err(Rejection::Malformed("no moves")));
    for (id, name) in [(2, "t"), (1, "u")] {
        let applied = apply(&mut catalog, moves(id, name, &[good]));
        assert_eq!(applied, Err(Rejection::UnknownTopic));
    }
    assert_eq!(catalog, before);
}

#[test]
fn a_node_is_to_be_emptied_until_that_is_taken_back_even_if_it_restarts() {
    let mut catalog = three_nodes();
    let id = NodeId(2);
    assert_eq!(apply(&mut catalog, drain(2, true)), Ok(Change::NodeDrained));
    assert_eq!(apply(&mut catalog, drain(2, true)), Ok(Change::Unchanged));
    apply(&mut catalog, register(2, "host:2")).unwrap();
    assert!(catalog.node(id).unwrap().draining);
    assert_eq!(
        Catalog::restore(catalog.state()).as_ref(),
        Ok(&catalog),
        "it is stored"
    );
    assert_eq!(
        apply(&mut catalog, drain(2, false)),
        Ok(Change::NodeDrained)
    );
    assert!(!catalog.node(id).unwrap().draining);
    assert_eq!(
        apply(&mut catalog, drain(4, true)),
        Err(Rejection::UnknownNode)
    );
}

#[test]
fn a_node_is_removed_only_when_it_is_empty_and_not_the_last_and_its_id_is_not_given_again() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1, 3], &[3]])).unwrap();
    let in_use = Err(Rejection::NodeInUse { partitions: 2 });
    assert_eq!(apply_to(&mut catalog, |it| remove(it, 3)), in_use);
    let away = moves(1, "t", &[(0, &[1, 3], &[1]), (1, &[3], &[1])]);
    apply(&mut catalog, away).unwrap();
    assert_eq!(
        apply_to(&mut catalog, |it| remove(it, 3)),
        Ok(Change::NodeRemoved)
    );
    let unknown = Err(Rejection::UnknownNode);
    for command in [
        remove(&catalog, 3),
        remove(&catalog, 0),
        drain(3, true),
        register(3, "host:1"),
        moves(1, "t", &[(0, &[1], &[3])]),
    ] {
        assert_eq!(apply(&mut catalog, command.clone()), unknown, "{command:?}");
    }
    let id = NodeId(4);
    assert_eq!(
        apply(&mut catalog, register(0, "host:4")),
        Ok(Change::NodeRegistered { id })
    );
    apply(&mut catalog, delete(1, "t")).unwrap();
    apply_to(&mut catalog, |it| remove(it, 4)).unwrap();
    apply_to(&mut catalog, |it| remove(it, 2)).unwrap();
    assert_eq!(
        apply_to(&mut catalog, |it| remove(it, 1)),
        Err(Rejection::LastNode)
    );
    assert_eq!(Catalog::restore(catalog.state()), Ok(catalog));
}

#[test]
fn a_node_that_was_given_a_partition_since_it_was_looked_at_is_not_removed() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1]])).unwrap();
    let there_and_back = [
        vec![
            moves(1, "t", &[(0, &[1], &[2, 3])]),
            moves(1, "t", &[(0, &[2, 3], &[1])]),
        ],
        vec![create("u", &[&[2, 3]]), delete(2, "u")],
        vec![
            add(1, "t", 1, &[&[3, 2]]),
            moves(1, "t", &[(1, &[3, 2], &[1])]),
        ],
    ];
    for commands in there_and_back {
        let checked = catalog.version();
        for command in commands {
            apply(&mut catalog, command).unwrap();
        }
        let before = catalog.clone();
        let version = checked + 1;
        let given = Err(Rejection::NodeGivenPartitions { version });
        assert_eq!(apply(&mut catalog, remove_as_of(checked, 2)), given);
        assert_eq!(catalog, before);
        assert_eq!(Catalog::restore(catalog.state()).as_ref(), Ok(&catalog));
    }
    // What else changes does not matter, nor does a replica that stays.
    let checked = catalog.version();
    apply(&mut catalog, register(2, "host:7")).unwrap();
    apply(&mut catalog, drain(2, true)).unwrap();
    apply(&mut catalog, create("v", &[&[1, 3]])).unwrap();
    let removed = apply(&mut catalog, remove_as_of(checked, 2));
    assert_eq!(removed, Ok(Change::NodeRemoved));
    let checked = catalog.version();
    apply(&mut catalog, moves(3, "v", &[(0, &[1, 3], &[3, 1])])).unwrap();
    apply(&mut catalog, delete(3, "v")).unwrap();
    let removed = apply(&mut catalog, remove_as_of(checked, 3));
    assert_eq!(removed, Ok(Change::NodeRemoved));
}

#[test]
fn a_topic_is_to_have_the_replicas_of_its_creation_until_that_is_changed() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1]])).unwrap();
    let factor = |catalog: &Catalog| catalog.topic("t").unwrap().replication_factor;
    assert_eq!(factor(&catalog), 1);
    let mut change = UpdateTopic {
        name: "t".to_owned(),
        topic_id: 1,
        replication_factor: 3,
        ..UpdateTopic::default()
    };
    let applied = apply(&mut catalog, Command::UpdateTopic(change.clone()));
    assert_eq!(applied, Ok(Change::TopicUpdated));
    assert_eq!((factor(&catalog), replicas(&catalog, 0)), (3, vec![1]));
    let again = apply(&mut catalog, Command::UpdateTopic(change.clone()));
    assert_eq!(again, Ok(Change::Unchanged));
    change.replication_factor = 0;
    let none = apply(&mut catalog, Command::UpdateTopic(change));
    assert_eq!(none, Ok(Change::Unchanged));
    assert_eq!(Catalog::restore(catalog.state()).as_ref(), Ok(&catalog));
    let mut old = catalog.state();
    old.topics[0].replication_factor = 0;
    assert_eq!(
        factor(&Catalog::restore(old).unwrap()),
        1,
        "as stored before"
    );
}
