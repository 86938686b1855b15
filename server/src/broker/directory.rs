//! Topics by name with their running partitions: the catalog, carried out on this node.
//!
//! One task follows the catalog, see `follower.rs`. It opens the groups of new partitions and only then publishes a
//! new directory, so whoever finds a partition can use it.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{Error, partition::Partition};
use crate::{
    machine::{catalog::Topic, topic_config::Effective},
    types::{GroupId, NodeId},
};

/// Topics and their partitions as of one version of the catalog.
#[derive(Default)]
pub(super) struct Directory {
    pub(super) version: u64,
    pub(super) topics: HashMap<String, Arc<TopicHandle>>,
}

/// A topic on this node.
pub(super) struct TopicHandle {
    /// Shared with the catalog.
    pub(super) topic: Arc<Topic>,
    pub(super) config: Effective,
    /// By number.
    partitions: Vec<Slot>,
    next_unkeyed: AtomicU32,
}

/// A partition that runs, or why it does not.
pub(super) type Slot = Result<Arc<Partition>, NotOpen>;

/// Why a partition could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotOpen {
    /// What is stored of it is damaged.
    Corrupt,
    /// Something that may pass.
    Failed,
    /// Its replicas are on other nodes.
    Elsewhere,
}

impl Directory {
    pub(super) fn topic(&self, name: &str) -> Result<&Arc<TopicHandle>, Error> {
        self.topics.get(name).ok_or_else(|| Error::UnknownTopic {
            topic: name.to_owned(),
        })
    }

    pub(super) fn topics(&self) -> impl Iterator<Item = &Arc<TopicHandle>> {
        self.topics.values()
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.topics
            .values()
            .flat_map(|topic| topic.partitions.iter().flatten())
    }
}

/// The directory as a call finds it.
pub(super) struct Known {
    pub(super) directory: Arc<Directory>,
    /// Whether it has all topics. A node that was just started may have the catalog of before.
    pub(super) is_whole: bool,
}

impl Known {
    /// A topic; that it is not there is said only if that is known.
    pub(super) fn topic(&self, name: &str) -> Result<&Arc<TopicHandle>, Error> {
        let found = self.directory.topic(name);
        found.map_err(|error| {
            if self.is_whole {
                error
            } else {
                Error::NotReady
            }
        })
    }
}

impl Deref for Known {
    type Target = Directory;

    fn deref(&self) -> &Directory {
        &self.directory
    }
}

impl TopicHandle {
    /// A handle of `topic` that goes on where `old`, an earlier one of the same topic, is.
    pub(super) fn new(topic: Arc<Topic>, partitions: Vec<Slot>, old: Option<&Self>) -> Self {
        let next_unkeyed = old.map_or(0, |old| old.next_unkeyed.load(Ordering::Relaxed));
        Self {
            config: Effective::of(&topic.config),
            topic,
            partitions,
            next_unkeyed: AtomicU32::new(next_unkeyed),
        }
    }

    /// The slots with the groups that belong in them, in order of number.
    pub(super) fn groups(&self) -> impl Iterator<Item = (GroupId, &Slot)> {
        let groups = self.topic.partitions.iter().map(|placed| placed.group);
        groups.zip(&self.partitions)
    }

    pub(super) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// The slot of a number that a client sent.
    pub(super) fn slot(&self, number: i32) -> Result<&Slot, Error> {
        let slot = usize::try_from(number).ok();
        let slot = slot.and_then(|number| self.partitions.get(number));
        slot.ok_or_else(|| Error::UnknownPartition {
            topic: self.topic.name.clone(),
            partition: number.into(),
            partition_count: self.partition_count(),
        })
    }

    /// The partition of a number that a client sent, if this node has a replica.
    pub(super) fn partition(&self, number: i32) -> Result<&Arc<Partition>, Error> {
        let (topic, partition) = (&self.topic.name, number.unsigned_abs());
        self.slot(number)?.as_ref().map_err(|reason| match reason {
            NotOpen::Corrupt => Error::CorruptData {
                topic: topic.clone(),
                partition,
            },
            NotOpen::Failed | NotOpen::Elsewhere => Error::NoLeader {
                topic: topic.clone(),
                partition,
            },
        })
    }

    /// Whether a partition is, or is to be, on a node.
    pub(super) fn is_replica(&self, number: i32, node: NodeId) -> bool {
        let placed = usize::try_from(number).ok();
        let placed = placed.and_then(|number| self.topic.partitions.get(number));
        placed.is_some_and(|placed| placed.replicas.contains(&node))
    }

    /// Number of replicas of a partition.
    pub(super) fn replica_count(&self, number: u32) -> usize {
        let placed = self.topic.partitions.get(number as usize);
        placed.map_or(0, |placed| placed.replicas.len())
    }

    /// The slots in order of number.
    pub(super) fn slots(&self) -> &[Slot] {
        &self.partitions
    }

    /// A partition for records without a key: another one each time.
    pub(super) fn next_unkeyed(&self) -> u32 {
        self.next_unkeyed.fetch_add(1, Ordering::Relaxed) % self.partition_count().max(1)
    }
}
