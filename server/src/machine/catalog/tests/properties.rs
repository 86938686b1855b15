//! Properties over random histories.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use prost::Message;

use super::*;

/// Group and replicas.
type Place = (u64, Vec<u64>);

/// What is left of each created topic: id, name, retention, partitions. Plain lists, searched.
#[derive(Debug, Default)]
struct Model {
    nodes: Vec<String>,
    topics: Vec<(u64, String, Option<i64>, Vec<Place>)>,
    created: u64,
    placed: u64,
}

impl Model {
    fn apply(&mut self, command: &Command) -> bool {
        match command {
            Command::FoundCluster(_) => false,
            Command::RegisterNode(register) if register.id == 0 => {
                self.nodes.push(register.address.clone());
                true
            }
            Command::RegisterNode(register) => {
                let known = self.nodes.get_mut(register.id as usize - 1);
                known.is_some_and(|address| {
                    address.clone_from(&register.address);
                    true
                })
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

    fn valid(&self, sets: &[ReplicaSet]) -> bool {
        let known = 1..=self.nodes.len() as u64;
        !sets.is_empty()
            && sets.iter().all(|set| {
                let mut nodes = set.nodes.clone();
                nodes.sort_unstable();
                nodes.dedup();
                !nodes.is_empty()
                    && nodes.len() == set.nodes.len()
                    && nodes.iter().all(|id| known.contains(id))
            })
    }

    fn place(&mut self, sets: &[ReplicaSet]) -> Vec<Place> {
        sets.iter()
            .map(|set| {
                self.placed += 1;
                (self.placed, set.nodes.clone())
            })
            .collect()
    }

    fn check(&self, catalog: &Catalog) -> Result<(), TestCaseError> {
        let addresses: Vec<String> = catalog.nodes().map(|node| node.address.clone()).collect();
        prop_assert_eq!(&addresses, &self.nodes);
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
    let replicas = || {
        let nodes = prop_oneof![
            20 => proptest::sample::subsequence(vec![1_u64, 2, 3], 1..=3),
            1 => vec(0..5_u64, 0..3)
        ];
        vec(nodes.prop_map(|nodes| ReplicaSet { nodes }), 0..4)
    };
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
            Command::UpdateTopic(UpdateTopic { name, config, update_mask, topic_id })
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
    ]
}

proptest! {
    #[test]
    fn a_catalog_does_what_the_model_does(commands in vec(command(), 1..60)) {
        let mut catalog = three_nodes();
        let mut model = Model {
            nodes: vec!["host:1".to_owned(); 3],
            ..Model::default()
        };
        for command in commands {
            let before = catalog.clone();
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
