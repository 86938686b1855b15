//! Tables for each rule, and properties against a list of topics that is searched.

mod moves;
mod properties;

use kelda_proto::internal::v1::catalog_command::{FoundCluster, RegisterNode};
use kelda_proto::internal::v1::{CatalogPartition, CatalogState};

use super::*;

fn apply(catalog: &mut Catalog, command: Command) -> Result<Change, Rejection> {
    let command = CatalogCommand {
        time_ms: 1000,
        command: Some(command),
    };
    catalog.apply(&command)
}

fn register(id: u64, address: &str) -> Command {
    Command::RegisterNode(RegisterNode {
        id,
        name: "node".to_owned(),
        address: address.to_owned(),
        version: "1".to_owned(),
        raft_address: format!("raft of {address}"),
        rack: String::new(),
        token: String::new(),
    })
}

fn sets(replicas: &[&[u64]]) -> Vec<ReplicaSet> {
    let set = |nodes: &&[u64]| ReplicaSet {
        nodes: nodes.to_vec(),
    };
    replicas.iter().map(set).collect()
}

fn create(name: &str, replicas: &[&[u64]]) -> Command {
    Command::CreateTopic(CreateTopic {
        name: name.to_owned(),
        partitions: sets(replicas),
        config: None,
    })
}

fn delete(topic_id: u64, name: &str) -> Command {
    Command::DeleteTopic(DeleteTopic {
        name: name.to_owned(),
        topic_id,
    })
}

fn add(topic_id: u64, name: &str, partition_count_before: u32, replicas: &[&[u64]]) -> Command {
    Command::AddPartitions(AddPartitions {
        name: name.to_owned(),
        topic_id,
        partition_count_before,
        partitions: sets(replicas),
    })
}

fn update(topic_id: u64, name: &str, mask: &[&str], config: TopicConfig) -> Command {
    Command::UpdateTopic(UpdateTopic {
        name: name.to_owned(),
        topic_id,
        config: Some(config),
        update_mask: mask.iter().map(|path| (*path).to_owned()).collect(),
        replication_factor: 0,
    })
}

/// A catalog with nodes 1, 2 and 3.
fn three_nodes() -> Catalog {
    let mut catalog = Catalog::new();
    for id in 1..=3 {
        let registered = apply(&mut catalog, register(0, "host:1"));
        assert_eq!(registered, Ok(Change::NodeRegistered { id: NodeId(id) }));
    }
    catalog
}

fn names(catalog: &Catalog, prefix: &str, after: &str) -> Vec<String> {
    catalog
        .topics_from(TopicRange { prefix, after })
        .map(|topic| topic.name.clone())
        .collect()
}

#[test]
fn only_the_first_founding_counts() {
    let mut catalog = Catalog::new();
    let found = |id: &str| {
        Command::FoundCluster(FoundCluster {
            cluster_id: id.to_owned(),
        })
    };
    assert!(apply(&mut catalog, found("")).is_err());
    assert_eq!(
        apply(&mut catalog, found("one")),
        Ok(Change::ClusterFounded)
    );
    assert_eq!(apply(&mut catalog, found("two")), Ok(Change::Unchanged));
    assert_eq!(catalog.cluster_id(), "one");
    assert_eq!(catalog.version(), 1);
}

#[test]
fn a_node_keeps_its_id_when_its_address_changes() {
    let mut catalog = three_nodes();
    let id = NodeId(2);
    assert_eq!(
        apply(&mut catalog, register(2, "host:1")),
        Ok(Change::Unchanged)
    );
    assert_eq!(catalog.version(), 3);
    assert_eq!(
        apply(&mut catalog, register(2, "host:2")),
        Ok(Change::NodeRegistered { id })
    );
    assert_eq!(
        catalog.node(id).map(|node| node.address.as_str()),
        Some("host:2")
    );
    assert_eq!(catalog.nodes().count(), 3);
    assert_eq!(
        apply(&mut catalog, register(4, "host:2")),
        Err(Rejection::UnknownNode)
    );
}

#[test]
fn ids_are_never_given_twice() {
    let mut catalog = three_nodes();
    let created = apply(&mut catalog, create("t", &[&[1], &[2]]));
    assert_eq!(created, Ok(Change::TopicCreated { topic: 1 }));
    assert_eq!(catalog.partition_of_group(GroupId(2)), Some(("t", 1)));
    let groups = vec![GroupId(1), GroupId(2)];
    assert_eq!(
        apply(&mut catalog, delete(1, "t")),
        Ok(Change::TopicDeleted { groups })
    );
    assert_eq!(catalog.partition_of_group(GroupId(2)), None);
    let created = apply(&mut catalog, create("t", &[&[3]]));
    assert_eq!(created, Ok(Change::TopicCreated { topic: 2 }));
    let topic = catalog.topic("t").unwrap();
    assert_eq!(topic.partitions[0].group, GroupId(3));
    assert_eq!(topic.create_time_ms, 1000);
}

#[test]
fn a_topic_is_created_only_if_all_of_it_is_valid() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("taken", &[&[1, 2, 3]])).unwrap();
    let before = catalog.clone();
    for (name, replicas, expected) in [
        ("taken", [&[1_u64][..]].as_slice(), Rejection::TopicExists),
        ("t", &[&[1], &[4]], Rejection::UnknownNode),
        ("t", &[&[0]], Rejection::UnknownNode),
        ("t", &[], Rejection::Malformed("no partitions")),
    ] {
        let created = apply(&mut catalog, create(name, replicas));
        assert_eq!(created, Err(expected), "{name} {replicas:?}");
    }
    let malformed = [
        create("t", &[&[]]),
        create("t", &[&[1], &[2, 2]]),
        create("..", &[&[1]]),
        create("", &[&[1]]),
    ];
    for command in malformed {
        let created = apply(&mut catalog, command.clone());
        assert!(
            matches!(created, Err(Rejection::Malformed(_))),
            "{command:?}"
        );
    }
    let nothing = CatalogCommand::default();
    assert_eq!(
        catalog.apply(&nothing),
        Err(Rejection::Malformed("no command"))
    );
    assert_eq!(catalog, before, "a rejected command changes nothing");
}

#[test]
fn partitions_are_added_once_when_two_ask_for_the_same() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1]])).unwrap();
    apply(&mut catalog, create("u", &[&[1]])).unwrap();
    let more = add(1, "t", 1, &[&[2], &[3, 1]]);
    assert_eq!(
        apply(&mut catalog, more.clone()),
        Ok(Change::PartitionsAdded)
    );
    let partition_count = 3;
    assert_eq!(
        apply(&mut catalog, more),
        Err(Rejection::PartitionCountChanged { partition_count })
    );
    let topic = catalog.topic("t").unwrap();
    let groups: Vec<u64> = topic.partitions.iter().map(|it| it.group.0).collect();
    assert_eq!(groups, [1, 3, 4]);
    assert_eq!(topic.partitions[2].replicas, [NodeId(3), NodeId(1)]);
    assert_eq!(catalog.partition_of_group(GroupId(4)), Some(("t", 2)));
    assert_eq!(catalog.partition_count(), 4);
    assert_eq!(
        apply(&mut catalog, add(3, "v", 0, &[&[1]])),
        Err(Rejection::UnknownTopic)
    );
}

#[test]
fn an_update_changes_what_its_mask_names_and_keeps_what_others_changed() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1]])).unwrap();
    let copy = catalog.clone();
    let nothing = TopicConfig::default();
    let age = TopicConfig {
        retention_ms: Some(7),
        ..nothing
    };
    let size = TopicConfig {
        retention_bytes: Some(8),
        ..nothing
    };
    let both = TopicConfig {
        retention_bytes: Some(8),
        ..age
    };
    for (mask, values, change, expected) in [
        (&[][..], nothing, Change::Unchanged, nothing),
        (&[], age, Change::TopicUpdated, age),
        (&["retention_bytes"], size, Change::TopicUpdated, both),
        (&["retention_bytes"], both, Change::Unchanged, both),
        (&["retention_ms"], nothing, Change::TopicUpdated, size),
    ] {
        let updated = apply(&mut catalog, update(1, "t", mask, values));
        assert_eq!(updated, Ok(change), "{mask:?} {values:?}");
        assert_eq!(catalog.topic("t").unwrap().config, expected);
    }
    assert_eq!(copy.topic("t").unwrap().config, nothing, "a clone stays");
    let invalid = TopicConfig {
        retention_ms: Some(0),
        ..nothing
    };
    for (mask, values) in [(&["colour"][..], nothing), (&[], invalid)] {
        let updated = apply(&mut catalog, update(1, "t", mask, values));
        assert!(matches!(updated, Err(Rejection::Malformed(_))), "{mask:?}");
    }
}

#[test]
fn a_command_for_a_topic_does_nothing_to_another_one_of_its_name() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1]])).unwrap();
    apply(&mut catalog, delete(1, "t")).unwrap();
    apply(&mut catalog, create("t", &[&[1]])).unwrap();
    let before = catalog.clone();
    for (id, name) in [(1, "t"), (0, "t"), (2, "u")] {
        let commands = [
            update(id, name, &[], TopicConfig::default()),
            add(id, name, 1, &[&[1]]),
            delete(id, name),
        ];
        for command in commands {
            let applied = apply(&mut catalog, command.clone());
            assert_eq!(applied, Err(Rejection::UnknownTopic), "{command:?}");
        }
    }
    assert_eq!(catalog, before);
}

#[test]
fn topics_are_listed_in_order_of_name_from_any_place() {
    let mut catalog = three_nodes();
    for name in ["b2", "a", "c", "b1", "b"] {
        apply(&mut catalog, create(name, &[&[1]])).unwrap();
    }
    assert_eq!(names(&catalog, "", ""), ["a", "b", "b1", "b2", "c"]);
    assert_eq!(names(&catalog, "", "b1"), ["b2", "c"]);
    assert_eq!(names(&catalog, "", "b11"), ["b2", "c"]);
    assert_eq!(names(&catalog, "b", ""), ["b", "b1", "b2"]);
    assert_eq!(names(&catalog, "b", "b"), ["b1", "b2"]);
    assert_eq!(names(&catalog, "b", "a"), ["b", "b1", "b2"]);
    assert_eq!(names(&catalog, "b", "c"), [""; 0]);
    assert_eq!(names(&catalog, "x", ""), [""; 0]);
    assert_eq!(catalog.topic_count(), 5);
}

#[test]
fn limits_hold() {
    let mut catalog = three_nodes();
    let one: &[u64] = &[1];
    let many = vec![one; PARTITIONS_MAX];
    let limit = PARTITIONS_MAX;
    let reached = Err(Rejection::LimitReached { limit });
    let too_many = vec![one; PARTITIONS_MAX + 1];
    assert_eq!(apply(&mut catalog, create("t", &too_many)), reached);
    for number in 0..CLUSTER_PARTITIONS_MAX / PARTITIONS_MAX {
        apply(&mut catalog, create(&format!("t{number}"), &many)).unwrap();
    }
    let before = u32::try_from(PARTITIONS_MAX).unwrap();
    assert_eq!(apply(&mut catalog, add(1, "t0", before, &[one])), reached);
    let limit = CLUSTER_PARTITIONS_MAX;
    assert_eq!(
        apply(&mut catalog, create("t", &[one])),
        Err(Rejection::LimitReached { limit })
    );
    apply(&mut catalog, delete(4, "t3")).unwrap();
    assert!(apply(&mut catalog, create("t", &[one])).is_ok());
}

#[test]
fn damaged_state_is_refused() {
    let mut catalog = three_nodes();
    apply(&mut catalog, create("t", &[&[1, 2], &[3]])).unwrap();
    apply(&mut catalog, create("u", &[&[1]])).unwrap();
    let good = catalog.state();
    assert_eq!(Catalog::restore(good.clone()), Ok(catalog));

    type Damage = fn(&mut CatalogState);
    let damages: [Damage; 19] = [
        |state| state.next_node_id = 0,
        |state| state.next_node_id = 3,
        |state| state.next_topic_id = 2,
        |state| state.next_group_id = 3,
        |state| state.next_group_id = u64::MAX,
        |state| state.version = u64::MAX,
        |state| state.nodes[0].id = 0,
        |state| state.nodes[0].id = 2,
        |state| state.nodes[1].given_version = state.version + 1,
        |state| state.nodes.truncate(2),
        |state| state.topics[0].id = 0,
        |state| state.topics[0].id = 2,
        |state| state.topics[0].name = "u".to_owned(),
        |state| state.topics[0].name = "/".to_owned(),
        |state| state.topics[0].partitions.clear(),
        |state| state.topics[0].partitions[0].group = 0,
        |state| state.topics[0].partitions[0].group = 3,
        |state| state.topics[0].partitions[0].replicas.clear(),
        |state| {
            state.topics[0].partitions[0] = CatalogPartition {
                group: 1,
                replicas: vec![1, 1],
                founders: Vec::new(),
            }
        },
    ];
    for (number, damage) in damages.iter().enumerate() {
        let mut state = good.clone();
        damage(&mut state);
        let restored = Catalog::restore(state);
        assert!(restored.is_err(), "damage {number}: {restored:?}");
    }
}

#[test]
fn a_node_that_joins_again_with_its_token_keeps_its_id() {
    let with = |id, token: &str, address: &str| {
        Command::RegisterNode(RegisterNode {
            id,
            token: token.to_owned(),
            raft_address: address.to_owned(),
            ..RegisterNode::default()
        })
    };
    let mut catalog = Catalog::new();
    let registered = |id| Ok(Change::NodeRegistered { id: NodeId(id) });
    assert_eq!(apply(&mut catalog, with(0, "a", "host:1")), registered(1));
    assert_eq!(apply(&mut catalog, with(0, "b", "host:2")), registered(2));
    for address in ["host:2", "host:3"] {
        assert_eq!(apply(&mut catalog, with(0, "b", address)), registered(2));
    }
    let node = catalog.node(NodeId(2)).expect("registered");
    assert_eq!(node.raft_address, "host:3");
    // What a node says of itself later has no token, and does not take it away.
    assert_eq!(apply(&mut catalog, with(2, "", "host:4")), registered(2));
    assert_eq!(apply(&mut catalog, with(0, "b", "host:4")), registered(2));
    // Without a token everybody is new.
    assert_eq!(apply(&mut catalog, with(0, "", "host:4")), registered(3));
    assert_eq!(apply(&mut catalog, with(0, "", "host:4")), registered(4));
    let restored = Catalog::restore(catalog.state()).expect("consistent");
    assert_eq!(restored, catalog);
}
