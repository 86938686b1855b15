//! Opening and deleting the groups of this node.

use std::{collections::BTreeSet, time::Duration};

use kelda_proto::internal::v1::{RaftRequest, RaftResponse};
use tokio::{runtime::Handle, sync::watch, task::JoinSet};

use super::{Beat, CatalogGroup, OpenError, PartitionGroup, Sleep, inbox::Inbox};
use crate::{
    peers::Peers,
    storage::{self, Storage},
    types::{CATALOG_GROUP, GroupId, NodeId},
};

/// What the groups of a node share.
#[derive(Clone)]
pub(super) struct Home {
    pub(super) peers: Peers,
    pub(super) inbox: Inbox,
}

/// Opens groups on this node's storage. Clones share them.
#[derive(Clone)]
pub struct Groups {
    pub(super) storage: Storage,
    pub(super) home: Home,
    /// Carries the groups, whoever opens them.
    runtime: Handle,
    beat: Beat,
    /// Whether those who look after the groups do so also while all of them sleep.
    look_while_asleep: bool,
}

impl Groups {
    /// Groups of a node, stored in `storage`, that reach their members through `peers`. Their tasks run on the current
    /// runtime, whoever opens them.
    pub fn new(storage: Storage, peers: Peers) -> Self {
        Self {
            storage,
            home: Home {
                peers,
                inbox: Inbox::default(),
            },
            runtime: Handle::current(),
            beat: Beat::begin(),
            look_while_asleep: false,
        }
    }

    /// The same, but with `look` nobody is told that they are asleep, so that what is looked at every so often goes on.
    #[must_use]
    pub fn look_while_asleep(mut self, look: bool) -> Self {
        self.look_while_asleep = look;
        self
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.home.peers.node()
    }

    /// The beat of all that this node does now and then.
    pub fn beat(&self) -> Beat {
        self.beat
    }

    /// The way to the other nodes.
    pub fn peers(&self) -> &Peers {
        &self.home.peers
    }

    /// Opens the catalog. If it is new, this node founds it, unless it has `joined` others, who will send it.
    pub async fn open_catalog(&self, joined: bool) -> Result<CatalogGroup, OpenError> {
        let founders = if joined {
            Vec::new()
        } else {
            vec![self.node()]
        };
        let store = self.storage.group(CATALOG_GROUP);
        let catalog = CatalogGroup::open(&self.home, store, &founders).await?;
        self.home.inbox.set_catalog(catalog.watch());
        Ok(catalog)
    }

    /// Opens a partition's group. If it is new, `founders` found it, unless this node has left it before. A group must not
    /// be opened twice at a time.
    pub async fn open_partition(
        &self,
        id: GroupId,
        founders: &[NodeId],
    ) -> Result<PartitionGroup, OpenError> {
        // All of a simulation is one runtime, and its seed belongs to the task.
        if cfg!(feature = "simulation") {
            return PartitionGroup::open(&self.home, self.storage.group(id), founders).await;
        }
        let (home, store, founders) =
            (self.home.clone(), self.storage.group(id), founders.to_vec());
        // Raft spawns its tasks where it is opened. A set of one, since it ends its task when it is dropped.
        let mut opening = JoinSet::new();
        opening.spawn_on(
            async move { PartitionGroup::open(&home, store, &founders).await },
            &self.runtime,
        );
        match opening.join_next().await {
            Some(Ok(opened)) => opened,
            failed => Err(OpenError::Raft {
                group: id,
                detail: match failed {
                    Some(Err(error)) => error.to_string(),
                    _ => "nothing was opened".to_owned(),
                },
            }),
        }
    }

    /// Deletes the data of a group that is not open.
    pub async fn delete(&self, id: GroupId) -> Result<(), storage::Error> {
        self.storage.delete_group(id).await
    }

    /// Whether a node belongs to the cluster, as far as this one knows.
    pub fn knows(&self, node: NodeId) -> bool {
        self.home.inbox.knows(node)
    }

    /// If all groups of this node are asleep and no node is silent, a sleep that stays the same until a group wakes or is
    /// opened, or a node falls silent, is heard of again, comes or goes. None with `look_while_asleep`.
    pub fn asleep(&self) -> Option<Sleep> {
        if self.look_while_asleep {
            return None;
        }
        // In this order: a node that falls silent is among the silent before it stirs.
        let sleep = self.home.inbox.stir().asleep();
        let is_silent = !self.home.inbox.signs().silent().borrow().is_empty();
        sleep.filter(|_| !is_silent)
    }

    /// Waits until what is done every `interval` is due: not before it ends, for whoever has found nothing to do in the sleep
    /// `idle_in`. May be dropped while it waits.
    pub async fn rest(&self, interval: Duration, idle_in: Option<Sleep>) {
        let stir = self.home.inbox.stir();
        let asleep = || self.asleep();
        stir.rest(self.beat(), interval, idle_in, asleep).await;
    }

    /// The nodes of the catalog that have been silent for a second, as that changes.
    pub fn silent(&self) -> watch::Receiver<BTreeSet<NodeId>> {
        self.home.inbox.signs().silent()
    }

    /// Whether a node was heard of within the last second.
    pub fn lives(&self, node: NodeId) -> bool {
        self.home.inbox.signs().lives(node)
    }

    /// Hands what another node said to its group.
    pub async fn receive(&self, from: NodeId, request: RaftRequest) -> RaftResponse {
        let call = request.call;
        let message = self.home.inbox.receive(from, request).await;
        RaftResponse {
            call,
            message: Some(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Config, Hooks};

    #[tokio::test]
    async fn groups_sleep_unless_they_are_looked_at_all_the_same() {
        let storage = Storage::open(Config::in_memory(), Hooks::default()).expect("opened");
        let groups = Groups::new(storage, Peers::alone());
        let stir = groups.home.inbox.stir();
        stir.found_asleep(stir.count());
        assert!(groups.asleep().is_some());
        assert_eq!(groups.clone().look_while_asleep(true).asleep(), None);
    }
}
