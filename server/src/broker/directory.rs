//! Topics by name with their running partitions: the catalog, carried out on this node.
//!
//! One task follows the catalog. It opens the groups of new partitions, deletes those of deleted topics, and only
//! then publishes a new directory, so whoever finds a partition can use it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use futures::{StreamExt, stream};
use tokio::{runtime::Handle, sync::watch, task::JoinHandle};

use super::{Error, partition::Partition};
use crate::{
    consensus::{CatalogView, Groups},
    machine::{
        catalog::{Topic, TopicRange},
        topic_config::Effective,
    },
    storage::Storage,
    types::{CATALOG_GROUP, GroupId},
};

/// Groups that are opened at a time.
const OPEN_AT_ONCE: usize = 32;

/// Topics and their partitions as of one version of the catalog.
#[derive(Default)]
pub(super) struct Directory {
    pub(super) version: u64,
    topics: HashMap<String, Arc<TopicHandle>>,
}

/// A topic on this node.
pub(super) struct TopicHandle {
    pub(super) topic: Topic,
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

impl TopicHandle {
    pub(super) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).unwrap_or(u32::MAX)
    }

    /// The partition of a number that a client sent.
    pub(super) fn partition(&self, number: i32) -> Result<&Arc<Partition>, Error> {
        let unknown = || Error::UnknownPartition {
            topic: self.topic.name.clone(),
            partition: number.into(),
            partition_count: self.partition_count(),
        };
        let slot = usize::try_from(number)
            .ok()
            .and_then(|number| self.partitions.get(number));
        let (topic, partition) = (&self.topic.name, number.unsigned_abs());
        slot.ok_or_else(unknown)?
            .as_ref()
            .map_err(|reason| match reason {
                NotOpen::Corrupt => Error::CorruptData {
                    topic: topic.clone(),
                    partition,
                },
                NotOpen::Failed => Error::NoLeader {
                    topic: topic.clone(),
                    partition,
                },
            })
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

/// Opens partitions.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) groups: Groups,
    pub(super) runtime: Handle,
}

impl Opener {
    async fn open(&self, topic: &str, number: u32, group: GroupId) -> Slot {
        match self.groups.open_partition(group).await {
            Ok(opened) => Ok(Partition::new(
                topic.to_owned(),
                number,
                opened,
                self.runtime.clone(),
            )),
            Err(error) => {
                tracing::error!(topic, partition = number, %group, %error, "partition can not be opened");
                Err(if error.is_corrupt() {
                    NotOpen::Corrupt
                } else {
                    NotOpen::Failed
                })
            }
        }
    }

    /// A directory of `catalog`: takes over what is open, opens the rest.
    async fn build(&self, catalog: &CatalogView, old: &Directory) -> Directory {
        let open: HashMap<GroupId, &Arc<Partition>> = old
            .partitions()
            .map(|partition| (partition.group_id(), partition))
            .collect();
        let mut missing = Vec::new();
        for topic in catalog.topics_from(TopicRange::default()) {
            for (partition, number) in topic.partitions.iter().zip(0u32..) {
                if !open.contains_key(&partition.group) {
                    missing.push((topic.name.clone(), number, partition.group));
                }
            }
        }
        let mut opened: HashMap<GroupId, Slot> =
            stream::iter(missing)
                .map(|(topic, number, group)| async move {
                    (group, self.open(&topic, number, group).await)
                })
                .buffer_unordered(OPEN_AT_ONCE)
                .collect()
                .await;
        let topics = catalog.topics_from(TopicRange::default()).map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let open = open.get(&partition.group).map(|open| Arc::clone(open));
                let opened = || opened.remove(&partition.group);
                open.map(Ok).or_else(opened).unwrap_or(Err(NotOpen::Failed))
            });
            let handle = TopicHandle {
                topic: topic.clone(),
                config: Effective::of(&topic.config),
                partitions: partitions.collect(),
                next_unkeyed: AtomicU32::new(0),
            };
            (topic.name.clone(), Arc::new(handle))
        });
        Directory {
            version: catalog.version(),
            topics: topics.collect(),
        }
    }

    /// Stops and deletes the partitions that `new` no longer has.
    async fn delete_gone(&self, old: &Directory, new: &Directory) {
        let kept: std::collections::HashSet<GroupId> = new
            .partitions()
            .map(|partition| partition.group_id())
            .collect();
        for partition in old
            .partitions()
            .filter(|partition| !kept.contains(&partition.group_id()))
        {
            partition.stop().await;
            self.delete(partition.group_id()).await;
        }
    }

    async fn delete(&self, group: GroupId) {
        if let Err(error) = self.groups.delete(group).await {
            tracing::error!(%group, %error, "data of a deleted partition is still there");
        }
    }

    /// Deletes what a crash left of deleted topics. Groups that the catalog has never given out are kept: their data
    /// may be all that is left of something.
    async fn delete_leftovers(&self, storage: &Storage, catalog: &CatalogView) {
        let storage = storage.clone();
        let groups = tokio::task::spawn_blocking(move || storage.groups()).await;
        let Ok(Ok(groups)) = groups else { return };
        let next = catalog.state().next_group_id;
        for group in groups {
            if group == CATALOG_GROUP || catalog.partition_of_group(group).is_some() {
                continue;
            }
            if group.0 < next {
                self.delete(group).await;
            } else {
                tracing::warn!(%group, "stored group is not in the catalog: its data is kept");
            }
        }
    }
}

/// Builds the directory of the catalog as it is now, and follows it from then on.
pub(super) async fn follow(
    opener: Opener,
    mut catalog: watch::Receiver<CatalogView>,
    storage: &Storage,
) -> (watch::Receiver<Arc<Directory>>, JoinHandle<()>) {
    let view = catalog.borrow_and_update().clone();
    opener.delete_leftovers(storage, &view).await;
    let first = opener.build(&view, &Directory::default()).await;
    let (sender, receiver) = watch::channel(Arc::new(first));
    let task = tokio::spawn(async move {
        while catalog.changed().await.is_ok() {
            let view = catalog.borrow_and_update().clone();
            let old = sender.borrow().clone();
            let new = Arc::new(opener.build(&view, &old).await);
            sender.send_replace(Arc::clone(&new));
            opener.delete_gone(&old, &new).await;
        }
    });
    (receiver, task)
}
