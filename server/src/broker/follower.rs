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
    task::{JoinError, JoinHandle, JoinSet},
    time::Instant,
};

use super::{
    directory::{Directory, NotOpen, Slot, TopicHandle},
    partition::Partition,
};
use crate::{
    consensus::{CatalogView, Groups, OpenError, Standing},
    machine::catalog::{Topic, TopicRange},
    storage::Storage,
    types::{CATALOG_GROUP, GroupId, NodeId},
};

/// Groups that are opened at a time: each waits for a few commits, which it shares with the others.
const OPEN_AT_ONCE: usize = 256;
/// Groups of one topic that are deleted at a time.
const DELETE_AT_ONCE: usize = 32;
/// Replicas that leave this node at a time, and how often those are tried that could not.
const LEAVE_AT_ONCE: usize = 32;
const LEAVE_AGAIN: Duration = Duration::from_secs(1);
/// When a group that failed to open is tried again; the time doubles with each failure.
const REOPEN_AFTER_MIN: Duration = Duration::from_secs(1);
/// Longest time between two tries.
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(60);

/// Opens and deletes partitions.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) groups: Groups,
    pub(super) runtime: Handle,
    /// Groups that had something stored when the node started.
    pub(super) stored: Arc<HashSet<GroupId>>,
}

/// A partition that is not open, and its group.
#[derive(Clone)]
pub(super) struct Closed {
    pub(super) topic: Arc<Topic>,
    pub(super) number: usize,
    pub(super) group: GroupId,
}

impl Opener {
    pub(super) async fn open(&self, closed: Closed) -> (Closed, Slot) {
        let Closed { topic, group, .. } = &closed;
        let placed = topic.partitions.get(closed.number);
        let founders = placed.map_or(&[][..], |placed| &placed.founders);
        let replicas = placed.map_or(&[][..], |placed| &placed.replicas);
        let opened = if replicas.contains(&self.groups.node()) {
            self.groups.open_partition(*group, founders).await
        } else {
            match self.is_still_here(*group, founders).await {
                Ok(true) => self.groups.open_partition(*group, founders).await,
                Ok(false) => return (closed, Err(NotOpen::Elsewhere)),
                Err(error) => Err(error),
            }
        };
        let (topic, number) = (&topic.name, u32::try_from(closed.number));
        let number = number.unwrap_or(u32::MAX);
        let slot = match opened {
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

    /// Whether a group takes part here though the catalog has its replicas on other nodes: because it may not have left
    /// this node out yet, or because its founding may have waited for this node ever since.
    async fn is_still_here(&self, group: GroupId, founders: &[NodeId]) -> Result<bool, OpenError> {
        let founds = founders.contains(&self.groups.node());
        if !founds && !self.stored.contains(&group) {
            return Ok(false);
        }
        Ok(match self.groups.standing(group).await? {
            Standing::Held => true,
            Standing::Never => founds,
            Standing::Left => false,
        })
    }

    async fn open_all(&self, closed: Vec<Closed>) -> Vec<(Closed, Slot)> {
        let opening = stream::iter(closed).map(|closed| self.open(closed));
        opening.buffer_unordered(OPEN_AT_ONCE).collect().await
    }

    /// A directory of `catalog`: takes over what `old` has, and opens the partitions that are new, or new here, but for
    /// those that are `busy`.
    async fn build(
        &self,
        catalog: &CatalogView,
        old: &Directory,
        busy: impl Fn(&GroupId) -> bool,
    ) -> Directory {
        let me = self.groups.node();
        let mut new = Vec::new();
        for topic in catalog.topics_from(TopicRange::default()) {
            let known = same_topic(old, topic).map_or(&[][..], |handle| handle.slots());
            for (number, partition) in topic.partitions.iter().enumerate() {
                match known.get(number) {
                    Some(Err(NotOpen::Elsewhere))
                        if partition.replicas.contains(&me) && !busy(&partition.group) => {}
                    Some(_) => continue,
                    None => {}
                }
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
            let opens = |handle: &TopicHandle| {
                let mut groups = handle.groups();
                groups.any(|(group, _)| opened.contains_key(&group))
            };
            let handle = match before {
                Some(handle) if Arc::ptr_eq(&handle.topic, topic) && !opens(handle) => {
                    Arc::clone(handle)
                }
                _ => {
                    let known = before.map_or(&[][..], |handle| handle.slots());
                    let slots = topic.partitions.iter().enumerate();
                    let slots = slots.map(|(number, partition)| {
                        let known = || known.get(number).cloned();
                        let slot = opened.remove(&partition.group).or_else(known);
                        slot.unwrap_or(Err(NotOpen::Failed))
                    });
                    let slots = slots.collect();
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

/// Whether both are the same running partition.
fn is_same(one: &Slot, other: &Slot) -> bool {
    matches!((one, other), (Ok(one), Ok(other)) if Arc::ptr_eq(one, other))
}

/// What is stored, before anything is opened.
async fn stored(storage: &Storage) -> Vec<GroupId> {
    let storage = storage.clone();
    match tokio::task::spawn_blocking(move || storage.groups()).await {
        Ok(Ok(groups)) => groups,
        Ok(Err(error)) => {
            tracing::error!(%error, "data of deleted partitions can not be looked for");
            Vec::new()
        }
        Err(_) => Vec::new(),
    }
}

/// What a crash left of deleted topics. Groups that the catalog has never given out are not among it: their data may
/// be all that is left of something.
fn leftovers(groups: &[GroupId], catalog: &CatalogView) -> Vec<GroupId> {
    let next = catalog.next_group();
    let mut leftovers = Vec::new();
    for group in groups.iter().copied() {
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
    leaving: JoinSet<(Closed, Slot)>,
    /// Nobody else may open or delete these either.
    leaving_groups: HashSet<GroupId>,
    /// Partitions of the directory that run here and are to be elsewhere.
    surplus: Vec<(Closed, Arc<Partition>)>,
    /// Those of them that had their turn to leave; the others come first.
    had_turn: HashSet<GroupId>,
    leave_at: Instant,
    /// Partitions of the directory that failed to open.
    failed: Vec<Closed>,
    reopen_after: Duration,
    reopen_at: Instant,
}

/// Builds the directory of the catalog as it is now, and follows it from then on, on `thread`.
pub(super) async fn follow(
    mut opener: Opener,
    mut catalog: watch::Receiver<CatalogView>,
    storage: &Storage,
    thread: &Handle,
) -> (watch::Receiver<Arc<Directory>>, JoinHandle<()>) {
    let view = catalog.borrow_and_update().clone();
    // Listed before anything is opened or created, so that nothing new is among it.
    let stored = stored(storage).await;
    let leftovers = leftovers(&stored, &view);
    opener.stored = Arc::new(stored.into_iter().collect());
    let first = opener.build(&view, &Directory::default(), |_| false).await;
    let (directory, receiver) = watch::channel(Arc::default());
    let mut follower = Follower {
        opener,
        catalog,
        directory,
        deletions: JoinSet::new(),
        reopened: JoinSet::new(),
        reopening: HashSet::new(),
        leaving: JoinSet::new(),
        leaving_groups: HashSet::new(),
        surplus: Vec::new(),
        had_turn: HashSet::new(),
        leave_at: Instant::now(),
        failed: Vec::new(),
        reopen_after: REOPEN_AFTER_MIN,
        reopen_at: Instant::now(),
    };
    follower.publish(first);
    follower.delete(leftovers.into_iter().map(|group| (group, None)).collect());
    (receiver, thread.spawn(follower.run()))
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
                Some(left) = self.leaving.join_next() => self.left(left).await,
                () = tokio::time::sleep_until(self.leave_at), if !self.surplus.is_empty() => {
                    self.leave();
                }
                () = tokio::time::sleep_until(self.reopen_at),
                    if self.reopened.is_empty() && !self.failed.is_empty() => self.reopen(),
            }
        }
    }

    async fn catch_up(&mut self) {
        let view = self.catalog.borrow_and_update().clone();
        let old = self.directory.borrow().clone();
        let busy =
            |group: &GroupId| self.reopening.contains(group) || self.leaving_groups.contains(group);
        let new = self.opener.build(&view, &old, busy).await;
        let mut gone = Vec::new();
        for handle in old.topics() {
            if same_topic(&new, &handle.topic).is_none() {
                let groups = handle.groups();
                // Those that are being opened, or leave, are deleted by `settle`.
                let free = groups.filter(|(group, _)| !busy(group));
                gone.extend(free.map(|(group, slot)| (group, slot.as_ref().ok().cloned())));
            }
        }
        self.publish(new);
        self.delete(gone);
    }

    fn publish(&mut self, directory: Directory) {
        let before = std::mem::take(&mut self.failed).len();
        self.surplus.clear();
        let me = self.opener.groups.node();
        for handle in directory.topics() {
            let places = handle.topic.partitions.iter().zip(handle.slots());
            for (number, (placed, slot)) in places.enumerate() {
                let closed = || Closed {
                    topic: Arc::clone(&handle.topic),
                    number,
                    group: placed.group,
                };
                match slot {
                    Err(NotOpen::Failed) => self.failed.push(closed()),
                    Ok(partition) if !placed.replicas.contains(&me) => {
                        self.surplus.push((closed(), Arc::clone(partition)));
                    }
                    _ => {}
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

    fn take(&mut self, reopened: Vec<(Closed, Slot)>) {
        self.reopening.clear();
        self.reopen_after = (self.reopen_after * 2).min(REOPEN_AFTER_MAX);
        self.reopen_at = Instant::now() + self.reopen_after;
        self.settle(reopened);
    }

    /// Tries to leave some groups that this node is to be no member of.
    fn leave(&mut self) {
        self.leave_at = Instant::now() + LEAVE_AGAIN;
        let had_turn = |(closed, _): &(Closed, _)| self.had_turn.contains(&closed.group);
        if self.leaving.is_empty() && self.surplus.iter().all(had_turn) {
            self.had_turn.clear();
        }
        for (closed, partition) in &self.surplus {
            if self.leaving.len() >= LEAVE_AT_ONCE {
                break;
            }
            if self.had_turn.insert(closed.group) && self.leaving_groups.insert(closed.group) {
                let leaving = self.opener.clone();
                let leaving = leaving.leave(closed.clone(), Arc::clone(partition));
                self.leaving.spawn(leaving);
            }
        }
    }

    async fn left(&mut self, left: Result<(Closed, Slot), JoinError>) {
        // A task that panicked leaves its group alone until the node starts again.
        let Ok((closed, slot)) = left else { return };
        self.leaving_groups.remove(&closed.group);
        let is_away = matches!(slot, Err(NotOpen::Elsewhere));
        self.settle(vec![(closed, slot)]);
        if is_away {
            // It may be wanted here again, and was not opened because it was leaving.
            self.catch_up().await;
        }
    }

    /// Takes over what was opened again or has left; topics may have changed or gone in the meantime.
    fn settle(&mut self, reopened: Vec<(Closed, Slot)>) {
        let mut changed = false;
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
                    if is_same(&handle.slots()[number], &slot) {
                        continue;
                    }
                    changed = true;
                    let mut slots = handle.slots().to_vec();
                    slots[number] = slot;
                    let topic = Arc::clone(&handle.topic);
                    *handle = Arc::new(TopicHandle::new(topic, slots, Some(handle)));
                }
                None => gone.push((group, slot.ok())),
            }
        }
        let version = old.version;
        if changed {
            self.publish(Directory { version, topics });
        }
        self.delete(gone);
    }
}

#[cfg(test)]
mod tests;
