//! The task that carries the catalog out on this node.
//!
//! It opens the groups of new partitions and publishes a [`Directory`] that has them. What takes long and nobody has
//! to wait for runs beside it: deleting the data of deleted topics, and opening groups again that failed to open.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, future, stream};
use tokio::{
    runtime::Handle,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    directory::{Directory, NotOpen, Slot, TopicHandle},
    partition::Partition,
};
use crate::{
    consensus::{CatalogView, Groups},
    machine::catalog::{Topic, TopicRange},
    storage::Storage,
    types::{CATALOG_GROUP, GroupId},
};

/// Groups that are opened at a time: each waits for a few commits, which it shares with the others.
const OPEN_AT_ONCE: usize = 256;
/// Groups of one topic that are deleted at a time.
const DELETE_AT_ONCE: usize = 32;
/// When a group that failed to open is tried again; the time doubles with each failure.
const REOPEN_AFTER_MIN: Duration = Duration::from_secs(1);
/// Longest time between two tries.
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(60);

/// Opens and deletes partitions.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) groups: Groups,
    pub(super) runtime: Handle,
}

/// A partition that is not open, and its group.
#[derive(Clone)]
struct Closed {
    topic: Arc<Topic>,
    number: usize,
    group: GroupId,
}

impl Opener {
    async fn open(&self, closed: Closed) -> (Closed, Slot) {
        let Closed { topic, group, .. } = &closed;
        let placed = topic.partitions.get(closed.number);
        let founders = placed.map_or(&[][..], |placed| &placed.founders);
        let replicas = placed.map_or(&[][..], |placed| &placed.replicas);
        if !replicas.contains(&self.groups.node()) {
            return (closed, Err(NotOpen::Elsewhere));
        }
        let (topic, number) = (&topic.name, u32::try_from(closed.number));
        let number = number.unwrap_or(u32::MAX);
        let slot = match self.groups.open_partition(*group, founders).await {
            Ok(opened) => Ok(Partition::new(
                topic.clone(),
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
        };
        (closed, slot)
    }

    async fn open_all(&self, closed: Vec<Closed>) -> Vec<(Closed, Slot)> {
        let opening = stream::iter(closed).map(|closed| self.open(closed));
        opening.buffer_unordered(OPEN_AT_ONCE).collect().await
    }

    /// A directory of `catalog`: takes over what `old` has, and opens the partitions that are new.
    async fn build(&self, catalog: &CatalogView, old: &Directory) -> Directory {
        let mut new = Vec::new();
        for topic in catalog.topics_from(TopicRange::default()) {
            let known = same_topic(old, topic).map_or(0, |handle| handle.slots().len());
            for (number, partition) in topic.partitions.iter().enumerate().skip(known) {
                new.push(Closed {
                    topic: Arc::clone(topic),
                    number,
                    group: partition.group,
                });
            }
        }
        let opened = self.open_all(new).await.into_iter();
        let mut opened: HashMap<GroupId, Slot> =
            opened.map(|(closed, slot)| (closed.group, slot)).collect();
        let topics = catalog.topics_from(TopicRange::default()).map(|topic| {
            let before = same_topic(old, topic);
            let handle = match before {
                Some(handle) if Arc::ptr_eq(&handle.topic, topic) => Arc::clone(handle),
                _ => {
                    let mut slots = before.map_or_else(Vec::new, |handle| handle.slots().to_vec());
                    slots.extend(topic.partitions.iter().skip(slots.len()).map(|partition| {
                        let opened = opened.remove(&partition.group);
                        opened.unwrap_or(Err(NotOpen::Failed))
                    }));
                    let before = before.map(Arc::as_ref);
                    Arc::new(TopicHandle::new(Arc::clone(topic), slots, before))
                }
            };
            (topic.name.clone(), handle)
        });
        Directory {
            version: catalog.version(),
            topics: topics.collect(),
        }
    }

    /// Stops and deletes groups that the catalog no longer has.
    async fn delete(self, gone: Vec<(GroupId, Option<Arc<Partition>>)>) {
        let running = gone.iter().filter_map(|(_, partition)| partition.as_ref());
        // All first, so that readers and producers need not wait for the deletion to be told.
        future::join_all(running.map(|partition| partition.stop())).await;
        stream::iter(gone)
            .for_each_concurrent(DELETE_AT_ONCE, async |(group, _)| {
                if let Err(error) = self.groups.delete(group).await {
                    tracing::error!(%group, %error, "data of a deleted partition is still there");
                }
            })
            .await;
    }
}

/// The handle that a directory has of this very topic, and not of one that had its name before.
fn same_topic<'a>(directory: &'a Directory, topic: &Topic) -> Option<&'a Arc<TopicHandle>> {
    let handle = directory.topics.get(&topic.name)?;
    (handle.topic.id == topic.id).then_some(handle)
}

/// What a crash left of deleted topics. Groups that the catalog has never given out are not among it: their data may
/// be all that is left of something.
async fn leftovers(storage: &Storage, catalog: &CatalogView) -> Vec<GroupId> {
    let storage = storage.clone();
    let groups = match tokio::task::spawn_blocking(move || storage.groups()).await {
        Ok(Ok(groups)) => groups,
        Ok(Err(error)) => {
            tracing::error!(%error, "data of deleted partitions can not be looked for");
            return Vec::new();
        }
        Err(_) => return Vec::new(),
    };
    let next = catalog.next_group();
    let mut leftovers = Vec::new();
    for group in groups {
        if group == CATALOG_GROUP || catalog.partition_of_group(group).is_some() {
            continue;
        }
        if group < next {
            leftovers.push(group);
        } else {
            tracing::warn!(%group, "stored group is not in the catalog: its data is kept");
        }
    }
    leftovers
}

struct Follower {
    opener: Opener,
    catalog: watch::Receiver<CatalogView>,
    directory: watch::Sender<Arc<Directory>>,
    deletions: JoinSet<()>,
    /// At most one task, which opens the groups of `reopening`.
    reopened: JoinSet<Vec<(Closed, Slot)>>,
    /// Nobody else may open or delete these.
    reopening: HashSet<GroupId>,
    /// Partitions of the directory that failed to open.
    failed: Vec<Closed>,
    reopen_after: Duration,
    reopen_at: Instant,
}

/// Builds the directory of the catalog as it is now, and follows it from then on.
pub(super) async fn follow(
    opener: Opener,
    mut catalog: watch::Receiver<CatalogView>,
    storage: &Storage,
) -> (watch::Receiver<Arc<Directory>>, JoinHandle<()>) {
    let view = catalog.borrow_and_update().clone();
    // Listed before anything is opened or created, so that nothing new is among it.
    let leftovers = leftovers(storage, &view).await;
    let first = opener.build(&view, &Directory::default()).await;
    let (directory, receiver) = watch::channel(Arc::default());
    let mut follower = Follower {
        opener,
        catalog,
        directory,
        deletions: JoinSet::new(),
        reopened: JoinSet::new(),
        reopening: HashSet::new(),
        failed: Vec::new(),
        reopen_after: REOPEN_AFTER_MIN,
        reopen_at: Instant::now(),
    };
    follower.publish(first);
    follower.delete(leftovers.into_iter().map(|group| (group, None)).collect());
    (receiver, tokio::spawn(follower.run()))
}

impl Follower {
    async fn run(mut self) {
        loop {
            tokio::select! {
                changed = self.catalog.changed() => match changed {
                    Ok(()) => self.catch_up().await,
                    Err(_) => return,
                },
                Some(_) = self.deletions.join_next() => {}
                Some(reopened) = self.reopened.join_next() => {
                    self.take(reopened.unwrap_or_default());
                }
                () = tokio::time::sleep_until(self.reopen_at),
                    if self.reopened.is_empty() && !self.failed.is_empty() => self.reopen(),
            }
        }
    }

    async fn catch_up(&mut self) {
        let view = self.catalog.borrow_and_update().clone();
        let old = self.directory.borrow().clone();
        let new = self.opener.build(&view, &old).await;
        let mut gone = Vec::new();
        for handle in old.topics() {
            if same_topic(&new, &handle.topic).is_none() {
                let groups = handle.groups();
                // Those that are being opened are deleted by `take`.
                let free = groups.filter(|(group, _)| !self.reopening.contains(group));
                gone.extend(free.map(|(group, slot)| (group, slot.as_ref().ok().cloned())));
            }
        }
        self.publish(new);
        self.delete(gone);
    }

    fn publish(&mut self, directory: Directory) {
        let before = std::mem::take(&mut self.failed).len();
        for handle in directory.topics() {
            for (number, (group, slot)) in handle.groups().enumerate() {
                if matches!(slot, Err(NotOpen::Failed)) {
                    self.failed.push(Closed {
                        topic: Arc::clone(&handle.topic),
                        number,
                        group,
                    });
                }
            }
        }
        if self.failed.len() > before {
            self.reopen_after = REOPEN_AFTER_MIN;
            self.reopen_at = Instant::now() + self.reopen_after;
        }
        self.directory.send_replace(Arc::new(directory));
    }

    fn delete(&mut self, gone: Vec<(GroupId, Option<Arc<Partition>>)>) {
        if !gone.is_empty() {
            self.deletions.spawn(self.opener.clone().delete(gone));
        }
    }

    fn reopen(&mut self) {
        let opener = self.opener.clone();
        let failed = self.failed.clone();
        self.reopening = failed.iter().map(|closed| closed.group).collect();
        self.reopened
            .spawn(async move { opener.open_all(failed).await });
    }

    /// Takes over what was opened again; topics may have changed or gone in the meantime.
    fn take(&mut self, reopened: Vec<(Closed, Slot)>) {
        self.reopening.clear();
        self.reopen_after = (self.reopen_after * 2).min(REOPEN_AFTER_MAX);
        self.reopen_at = Instant::now() + self.reopen_after;
        let old = self.directory.borrow().clone();
        let mut topics = old.topics.clone();
        let mut gone = Vec::new();
        for (
            Closed {
                topic,
                number,
                group,
            },
            slot,
        ) in reopened
        {
            let handle = topics.get_mut(&topic.name);
            match handle.filter(|handle| handle.topic.id == topic.id) {
                Some(handle) => {
                    let mut slots = handle.slots().to_vec();
                    slots[number] = slot;
                    let topic = Arc::clone(&handle.topic);
                    *handle = Arc::new(TopicHandle::new(topic, slots, Some(handle)));
                }
                None => gone.push((group, slot.ok())),
            }
        }
        let version = old.version;
        self.publish(Directory { version, topics });
        self.delete(gone);
    }
}

#[cfg(test)]
mod tests;
