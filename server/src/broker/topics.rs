//! Topics: create, look up, change, delete.

use std::{sync::Arc, time::Duration};

use kelda_proto::{
    internal::v1::{CatalogCommand, ReplicaSet, catalog_command as command},
    limits::PARTITIONS_MAX,
    v1,
};

use super::{
    Broker, Error, Violation,
    status::{count, timestamp},
};
use crate::{
    consensus::ChangeError,
    machine::{
        catalog::{Rejection, Topic, TopicRange},
        placement::Wanted,
        topic_config,
    },
    telemetry::clock,
    types::NodeId,
};

/// How long this node may take to carry out a change of the catalog that is committed.
const CARRY_OUT_TIMEOUT: Duration = Duration::from_secs(30);
/// Replicas that a topic gets if it does not say, where there are as many nodes.
const REPLICATION_FACTOR_DEFAULT: i32 = 3;

impl Broker {
    /// Creates a topic, and waits until its partitions have leaders.
    pub async fn create_topic(
        &self,
        name: &str,
        partition_count: i32,
        replication_factor: i32,
        config: v1::TopicConfig,
        validate_only: bool,
    ) -> Result<v1::Topic, Error> {
        self.check_ready()?;
        check_name(name)?;
        let partition_count = if partition_count == 0 {
            1
        } else {
            partition_count
        };
        let mut violations = violations(topic_config::validate(&config));
        violations.extend(check_partition_count(partition_count).err());
        violations.extend(check_replication_factor(replication_factor).err());
        if !violations.is_empty() {
            return Err(Error::InvalidFields(violations));
        }
        let nodes = self.shared.catalog.view().nodes().count();
        let replicas = match replication_factor {
            0 if count(nodes) >= REPLICATION_FACTOR_DEFAULT => REPLICATION_FACTOR_DEFAULT,
            0 => 1,
            asked => asked,
        };
        let partitions = self.place_new(0, partition_count, replicas).await?;
        if validate_only {
            return self.would_create(name, config, &partitions);
        }
        let create = command::CreateTopic {
            name: name.to_owned(),
            partitions,
            config: Some(config),
        };
        self.change(name, command::Command::CreateTopic(create))
            .await?;
        self.get_topic(name).await
    }

    /// A topic with its partitions.
    pub async fn get_topic(&self, name: &str) -> Result<v1::Topic, Error> {
        let handle = Arc::clone(self.directory().topic(name)?);
        let mut topic = describe(&handle.topic);
        topic.partitions = self.partitions(&handle).await;
        Ok(topic)
    }

    /// Topics whose name starts with `prefix`, behind the name `after`, at most `limit`; and the name to go on
    /// behind, if there are more.
    pub fn list_topics(
        &self,
        prefix: &str,
        after: &str,
        limit: usize,
    ) -> (Vec<v1::Topic>, Option<String>) {
        let catalog = self.shared.catalog.view();
        let mut found = catalog.topics_from(TopicRange { prefix, after });
        let topics: Vec<_> = found
            .by_ref()
            .take(limit)
            .map(|topic| describe(topic))
            .collect();
        let next = found
            .next()
            .and_then(|_| topics.last().map(|topic: &v1::Topic| topic.name.clone()));
        (topics, next)
    }

    /// Changes the fields of a topic's configuration that `mask` names; the ones that are present if it is empty. With a
    /// replication factor other than 0 its partitions get that many replicas, later.
    pub async fn update_topic(
        &self,
        name: &str,
        config: v1::TopicConfig,
        mask: &[String],
        replication_factor: i32,
    ) -> Result<v1::Topic, Error> {
        self.check_ready()?;
        check_replication_factor(replication_factor)
            .map_err(|violation| Error::InvalidFields(vec![violation]))?;
        let topic = Arc::clone(&self.directory().topic(name)?.topic);
        // Only to say what is wrong: the values are merged where the command is applied, in the order of all updates.
        topic_config::merge(&topic.config, &config, mask)
            .map_err(|found| Error::InvalidFields(violations(found)))?;
        self.check_enough_nodes(replication_factor)?;
        let update = command::UpdateTopic {
            name: name.to_owned(),
            topic_id: topic.id,
            config: Some(config),
            update_mask: mask.to_vec(),
            replication_factor: replication_factor.unsigned_abs(),
        };
        self.change(name, command::Command::UpdateTopic(update))
            .await?;
        Ok(describe(&self.directory().topic(name)?.topic))
    }

    /// Deletes a topic. Its records are out of sight when this returns; their space is freed in the background.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        self.check_ready()?;
        let topic_id = self.directory().topic(name)?.topic.id;
        let delete = command::DeleteTopic {
            name: name.to_owned(),
            topic_id,
        };
        self.change(name, command::Command::DeleteTopic(delete))
            .await?;
        Ok(())
    }

    /// Gives a topic more partitions, `partition_count` in all.
    pub async fn add_partitions(
        &self,
        name: &str,
        partition_count: i32,
    ) -> Result<v1::Topic, Error> {
        self.check_ready()?;
        let topic = Arc::clone(&self.directory().topic(name)?.topic);
        check_partition_count(partition_count)
            .map_err(|violation| Error::InvalidFields(vec![violation]))?;
        let now = count(topic.partitions.len());
        if partition_count <= now {
            let message = format!("must be more than the {now} that the topic has");
            return Err(Error::invalid("partition_count", message));
        }
        let replicas = topic.replication_factor.cast_signed();
        let add = command::AddPartitions {
            name: name.to_owned(),
            topic_id: topic.id,
            partition_count_before: now.unsigned_abs(),
            partitions: self
                .place_new(topic.id, partition_count - now, replicas)
                .await?,
        };
        self.change(name, command::Command::AddPartitions(add))
            .await?;
        self.get_topic(name).await
    }

    /// Commits a change of the catalog and waits until this node has carried it out.
    async fn change(&self, name: &str, command: command::Command) -> Result<(), Error> {
        let command = CatalogCommand {
            time_ms: clock::now_ms(),
            command: Some(command),
        };
        let changed = match self.shared.catalog.change(&command).await {
            // Whoever hears that a topic is there must find it there.
            Err(ChangeError::Rejected(rejection)) => Err(rejected(name, rejection)),
            Err(error) => return Err(error.into()),
            Ok(changed) => Ok(changed.version),
        };
        let known = self.shared.catalog.view().version();
        let version = changed.as_ref().map_or(known, |version| *version);
        let mut directory = self.shared.directory.clone();
        let carried_out = directory.wait_for(|directory| directory.version >= version);
        match tokio::time::timeout(CARRY_OUT_TIMEOUT, carried_out).await {
            Ok(Ok(_)) => changed.map(|_| ()),
            Ok(Err(_)) => Err(Error::NotReady),
            Err(_) => Err(Error::DeadlineExceeded),
        }
    }

    /// Chooses the replicas of new partitions of a topic; 0: one that is new too.
    async fn place_new(
        &self,
        topic: u64,
        partition_count: i32,
        replication_factor: i32,
    ) -> Result<Vec<ReplicaSet>, Error> {
        let size = |count: i32| usize::try_from(count).unwrap_or_default();
        let wanted = Wanted {
            topic,
            partitions: size(partition_count),
            replication_factor: size(replication_factor),
        };
        let placed = self.place(wanted).await;
        let placed = placed.ok_or_else(|| Error::NotEnoughNodes {
            replication_factor,
            nodes: self.shared.catalog.view().nodes().count(),
        })?;
        let set = |replicas: Vec<NodeId>| ReplicaSet {
            nodes: replicas.iter().map(|id| id.0).collect(),
        };
        Ok(placed.into_iter().map(set).collect())
    }

    fn check_enough_nodes(&self, replication_factor: i32) -> Result<(), Error> {
        let catalog = self.shared.catalog.view();
        let nodes = catalog.nodes().filter(|node| !node.draining).count();
        if replication_factor > count(nodes) {
            return Err(Error::NotEnoughNodes {
                replication_factor,
                nodes,
            });
        }
        Ok(())
    }

    fn would_create(
        &self,
        name: &str,
        config: v1::TopicConfig,
        partitions: &[ReplicaSet],
    ) -> Result<v1::Topic, Error> {
        if self.directory().topic(name).is_ok() {
            return Err(Error::TopicExists {
                topic: name.to_owned(),
            });
        }
        Ok(v1::Topic {
            name: name.to_owned(),
            id: 0,
            partition_count: count(partitions.len()),
            replication_factor: partitions.first().map_or(0, |set| count(set.nodes.len())),
            config: Some(topic_config::Effective::of(&config).into()),
            create_time: None,
            partitions: Vec::new(),
        })
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    topic_config::validate_name(name).map_err(|_| Error::InvalidTopicName {
        topic: name.to_owned(),
    })
}

fn check_replication_factor(replication_factor: i32) -> Result<(), Violation> {
    if [0, 1, 3, 5].contains(&replication_factor) {
        return Ok(());
    }
    Err(Violation::new("replication_factor", "must be 1, 3 or 5"))
}

fn check_partition_count(partition_count: i32) -> Result<(), Violation> {
    if (1..=count(PARTITIONS_MAX)).contains(&partition_count) {
        return Ok(());
    }
    Err(Violation::new(
        "partition_count",
        format!("must be 1 to {PARTITIONS_MAX}"),
    ))
}

fn violations(found: Vec<topic_config::Violation>) -> Vec<Violation> {
    found
        .into_iter()
        .map(|found| Violation::new(found.field, found.message))
        .collect()
}

fn rejected(name: &str, rejection: Rejection) -> Error {
    match rejection {
        Rejection::TopicExists => Error::TopicExists {
            topic: name.to_owned(),
        },
        Rejection::UnknownTopic => Error::UnknownTopic {
            topic: name.to_owned(),
        },
        Rejection::PartitionCountChanged { partition_count } => Error::invalid(
            "partition_count",
            format!("was changed to {partition_count} by somebody else: look again"),
        ),
        Rejection::LimitReached { limit } => Error::LimitReached { limit },
        // No command of a topic is refused for the others.
        Rejection::UnknownNode
        | Rejection::ReplicasChanged { .. }
        | Rejection::NodeInUse { .. }
        | Rejection::NodeGivenPartitions { .. }
        | Rejection::LastNode
        | Rejection::Malformed(_) => Error::Internal {
            detail: rejection.to_string(),
        },
    }
}

pub(super) fn describe(topic: &Topic) -> v1::Topic {
    v1::Topic {
        name: topic.name.clone(),
        id: topic.id,
        partition_count: count(topic.partitions.len()),
        replication_factor: topic.replication_factor.cast_signed(),
        config: Some(topic_config::Effective::of(&topic.config).into()),
        create_time: Some(timestamp(topic.create_time_ms)),
        partitions: Vec::new(),
    }
}
