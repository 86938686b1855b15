//! Properties over random histories.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use kelda_proto::internal::v1::catalog_command::{MoveReplicas, move_replicas::Move};

use super::moves::{drain, remove_as_of};
use super::*;

/// Group and replicas.
type Place = (u64, Vec<u64>);

/// What is left of each created topic: id, name, retention, partitions. Plain lists, searched.
#[derive(Debug, Default)]
struct Model {
    /// Address of each node that ever was, whether it is to be emptied, and the version that gave it a partition last;
    /// `None`: removed.
    nodes: Vec<Option<(String, bool, u64)>>,
    /// The version that the next change makes.
    next_version: u64,
    topics: Vec<(u64, String, Option<i64>, Vec<Place>)>,
    created: u64,
    placed: u64,
}

impl Model {
    fn apply(&mut self, command: &Command) -> bool {
        match command {
            Command::FoundCluster(_) => false,
            Command::RegisterNode(register) if register.id == 0 => {
                self.nodes.push(Some((register.address.clone(), false, 0)));
                true
            }
            Command::RegisterNode(register) => self.node(register.id).is_some_and(|node| {
                node.0.clone_from(&register.address);
                true
            }),
            Command::DrainNode(drain) => self.node(drain.id).is_some_and(|node| {
                node.1 = drain.draining;
                true
            }),
            Command::RemoveNode(remove) => self.remove(remove.id, remove.checked_version),
            Command::MoveReplicas(moves) => {
                let found = self.find(&moves.topic, moves.topic_id);
                found.is_some_and(|position| self.moves(position, &moves.moves))
            }
            Command::CreateTopic(create) => {
                let taken = self.topics.iter().any(|topic| topic.1 == create.name);
                let valid = !taken && !create.name.is_empty() && self.valid(&create.partitions);
                if valid {
                    self.created += 1;
                    let retention_ms = create.config.and_then(|config| config.retention_ms);
                    let partitions = self.place(&create.partitions);
                    let name = create.name.clone();
                    self.topics
                        .push((self.created, name, retention_ms, partitions));
                }
                valid
            }
            Command::UpdateTopic(update) => {
                let found = self.find(&update.name, update.topic_id);
                found.is_some_and(|position| {
                    let new = update.config.and_then(|config| config.retention_ms);
                    let current = &mut self.topics[position].2;
                    *current = match update.update_mask.as_slice() {
                        [] => new.or(*current),
                        [only] if only == "retention_ms" => new,
                        _ => *current,
                    };
                    true
                })
            }
            Command::DeleteTopic(delete) => {
                let found = self.find(&delete.name, delete.topic_id);
                found.is_some_and(|position| {
                    self.topics.remove(position);
                    true
                })
            }
            Command::AddPartitions(add) => {
                self.find(&add.name, add.topic_id).is_some_and(|position| {
                    let count = self.topics[position].3.len();
                    let valid =
                        count == add.partition_count_before as usize && self.valid(&add.partitions);
                    if valid {
                        let partitions = self.place(&add.partitions);
                        self.topics[position].3.extend(partitions);
                    }
                    valid
                })
            }
        }
    }

    fn find(&self, name: &str, id: u64) -> Option<usize> {
        let matches = |topic: &(u64, String, _, _)| topic.1 == name && topic.0 == id;
        self.topics.iter().position(matches)
    }

    fn remove(&mut self, id: u64, checked_version: u64) -> bool {
        let mut places = self.topics.iter().flat_map(|topic| &topic.3);
        let in_use = places.any(|place| place.1.contains(&id));
        let last = self.nodes.iter().flatten().count() == 1;
        let unchanged = self.node(id).is_some_and(|node| node.2 <= checked_version);
        let removed = !in_use && !last && unchanged;
        if removed {
            self.nodes[id as usize - 1] = None;
        }
        removed
    }

    fn node(&mut self, id: u64) -> Option<&mut (String, bool, u64)> {
        let place = usize::try_from(id).ok()?.checked_sub(1)?;
        self.nodes.get_mut(place)?.as_mut()
    }

    fn moves(&mut self, position: usize, moves: &[Move]) -> bool {
        let mut numbers: Vec<u32> = moves.iter().map(|it| it.partition).collect();
        numbers.sort_unstable();
        numbers.dedup();
        let mut places = self.topics[position].3.clone();
        let all = numbers.len() == moves.len()
            && moves.iter().all(|it| {
                let after = it.after.clone();
                let valid = self.valid(&[ReplicaSet { nodes: after }]);
                let place = places.get_mut(it.partition as usize);
                valid
                    && place.is_some_and(|place| {
                        std::mem::replace(&mut place.1, it.after.clone()) == it.before
                    })
            });
        let moved = all && !moves.is_empty();
        if moved {
            for change in moves {
                let new = change.after.iter().filter(|id| !change.before.contains(id));
                self.give(new.copied());
            }
            self.topics[position].3 = places;
        }
        moved
    }

    fn give(&mut self, nodes: impl Iterator<Item = u64>) {
        let version = self.next_version;
        for id in nodes {
            if let Some(node) = self.node(id) {
                node.2 = version;
            }
        }
    }

    fn valid(&self, sets: &[ReplicaSet]) -> bool {
        let known = |id: &u64| {
            let place = id.checked_sub(1).map(|place| place as usize);
            place.is_some_and(|place| matches!(self.nodes.get(place), Some(Some(_))))
        };
        !sets.is_empty()
            && sets.iter().all(|set| {
                let mut nodes = set.nodes.clone();
                nodes.sort_unstable();
                nodes.dedup();
                !nodes.is_empty() && nodes.len() == set.nodes.len() && nodes.iter().all(known)
            })
    }

    fn place(&mut self, sets: &[ReplicaSet]) -> Vec<Place> {
        sets.iter()
            .map(|set| {
                self.give(set.nodes.iter().copied());
                self.placed += 1;
                (self.placed, set.nodes.clone())
            })
            .collect()
    }

    fn check(&self, catalog: &Catalog) -> Result<(), TestCaseError> {
        let nodes = catalog.nodes();
        let nodes: Vec<_> = nodes
            .map(|node| {
                let address = node.address.clone();
                (node.id.0, address, node.draining, node.given_version)
            })
            .collect();
        let known = (1_u64..).zip(&self.nodes);
        let known: Vec<_> = known
            .filter_map(|(id, node)| node.clone().map(|node| (id, node.0, node.1, node.2)))
            .collect();
        prop_assert_eq!(nodes, known);
        prop_assert_eq!(catalog.next_node().0, self.nodes.len() as u64 + 1);
        let mut expected: Vec<_> = self.topics.iter().collect();
        expected.sort_by_key(|topic| topic.1.as_str());
        prop_assert_eq!(catalog.topic_count(), expected.len());
        let mut partition_count = 0;
        for (topic, expected) in catalog.topics_from(TopicRange::default()).zip(expected) {
            prop_assert_eq!(topic.id, expected.0);
            prop_assert_eq!(&topic.name, &expected.1);
            prop_assert_eq!(topic.config.retention_ms, expected.2);
            prop_assert_eq!(Some(&**topic), catalog.topic(&topic.name));
            prop_assert_eq!(topic.partitions.len(), expected.3.len());
            for (number, (partition, expected)) in
                (0..).zip(topic.partitions.iter().zip(&expected.3))
            {
                let replicas: Vec<u64> = partition.replicas.iter().map(|id| id.0).collect();
                prop_assert_eq!((partition.group.0, &replicas), (expected.0, &expected.1));
                prop_assert_eq!(
                    catalog.partition_of_group(partition.group),
                    Some((topic.name.as_str(), number))
                );
            }
            partition_count += topic.partitions.len();
        }
        prop_assert_eq!(catalog.partition_count(), partition_count);
        Ok(())
    }
}

fn command() -> impl Strategy<Value = Command> {
    let name = || prop_oneof![20 => "[ab]", 1 => Just(String::new())];
    let nodes = || {
        prop_oneof![
            20 => proptest::sample::subsequence(vec![1_u64, 2, 3], 1..=3),
            1 => vec(0..5_u64, 0..3)
        ]
    };
    let replicas = || vec(nodes().prop_map(|nodes| ReplicaSet { nodes }), 0..4);
    let moves = vec((0..3_u32, nodes(), nodes()), 0..3);
    let config = || {
        proptest::option::of((1..4_i64).prop_map(|retention_ms| TopicConfig {
            retention_ms: Some(retention_ms),
            ..TopicConfig::default()
        }))
    };
    let topic_id = || 0..6_u64;
    let mask = prop_oneof![
        Just(vec![]),
        Just(vec!["retention_ms"]),
        Just(vec!["retention_bytes"])
    ];
    let id = prop_oneof![3 => Just(0_u64), 1 => 1..5_u64];
    prop_oneof![
        2 => (id, "[a-c]").prop_map(|(id, address)| register(id, &address)),
        4 => (name(), replicas(), config()).prop_map(|(name, partitions, config)| {
            Command::CreateTopic(CreateTopic { name, partitions, config })
        }),
        3 => (topic_id(), name(), mask, config()).prop_map(|(topic_id, name, mask, config)| {
            let update_mask = mask.into_iter().map(str::to_owned).collect();
            Command::UpdateTopic(UpdateTopic { name, config, update_mask, topic_id, replication_factor: 0 })
        }),
        2 => (topic_id(), name()).prop_map(|(id, name)| delete(id, &name)),
        4 => (topic_id(), name(), 0..6_u32, replicas()).prop_map(|(topic_id, name, before, partitions)| {
            Command::AddPartitions(AddPartitions {
                name,
                topic_id,
                partition_count_before: before,
                partitions,
            })
        }),
        4 => (topic_id(), name(), moves).prop_map(|(topic_id, topic, moves)| {
            let one = |(partition, before, after)| Move { partition, before, after };
            let moves = moves.into_iter().map(one).collect();
            Command::MoveReplicas(MoveReplicas { topic, topic_id, moves })
        }),
        1 => (0..5_u64, any::<bool>()).prop_map(|(id, draining)| drain(id, draining)),
        2 => (0..4_u64, 0..5_u64).prop_map(|(ago, id)| remove_as_of(ago, id)),
    ]
}

/// A move names what is there, unless it is one of the few that are to be wrong: by chance it would hardly ever. A node
/// was looked at a few versions ago.
fn aimed(mut command: Command, catalog: &Catalog) -> Command {
    if let Command::MoveReplicas(moves) = &mut command
        && let Some(topic) = catalog.topic(&moves.topic)
    {
        for change in &mut moves.moves {
            let partition = topic.partitions.get(change.partition as usize);
            if let Some(partition) = partition.filter(|_| change.before.len() < 3) {
                change.before = partition.replicas.iter().map(|node| node.0).collect();
            }
        }
        moves.topic_id = topic.id;
    }
    if let Command::RemoveNode(remove) = &mut command {
        remove.checked_version = catalog.version().saturating_sub(remove.checked_version);
    }
    command
}

proptest! {
    #[test]
    fn a_catalog_does_what_the_model_does(commands in vec(command(), 1..60)) {
        let mut catalog = three_nodes();
        let mut model = Model {
            nodes: vec![Some(("host:1".to_owned(), false, 0)); 3],
            ..Model::default()
        };
        for command in commands {
            let before = catalog.clone();
            let command = aimed(command, &catalog);
            model.next_version = before.version() + 1;
            let applied = apply(&mut catalog, command.clone());
            prop_assert_eq!(model.apply(&command), applied.is_ok(), "{:?}: {:?}", command, applied);
            model.check(&catalog)?;
            let changed = applied.is_ok_and(|change| change != Change::Unchanged);
            prop_assert_eq!(changed, catalog != before);
            prop_assert_eq!(catalog.version(), before.version() + u64::from(changed));

            let stored = CatalogState::decode(&*catalog.state().encode_to_vec()).unwrap();
            let restored = Catalog::restore(stored);
            prop_assert_eq!(restored.as_ref(), Ok(&catalog));
        }
    }

    #[test]
    fn damaged_commands_and_states_do_not_panic(
        entries in vec((command(), any::<Index>(), any::<u8>()), 1..20),
    ) {
        let mut catalog = three_nodes();
        for (command, position, byte) in entries {
            let command = CatalogCommand { time_ms: -1, command: Some(command) };
            let mut bytes = command.encode_to_vec();
            *position.get_mut(&mut bytes) = byte;
            if let Ok(command) = CatalogCommand::decode(&*bytes) {
                // Whatever it does, the state stays one that can be restored.
                let _ = catalog.apply(&command);
            }
            let mut bytes = catalog.state().encode_to_vec();
            *position.get_mut(&mut bytes) = byte;
            if let Ok(Ok(restored)) = CatalogState::decode(&*bytes).map(Catalog::restore) {
                let again = Catalog::restore(restored.state());
                prop_assert_eq!(again.as_ref(), Ok(&restored));
            }
            let restored = Catalog::restore(catalog.state());
            prop_assert_eq!(restored.as_ref(), Ok(&catalog));
        }
    }
}
