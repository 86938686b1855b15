//! Opening and deleting the groups of this node.

use super::{CatalogGroup, OpenError, PartitionGroup};
use crate::{
    storage::{self, Storage},
    types::{CATALOG_GROUP, GroupId, NodeId},
};

/// Opens groups on this node's storage.
#[derive(Clone)]
pub struct Groups {
    storage: Storage,
    node: NodeId,
}

impl Groups {
    /// Groups of `node`, stored in `storage`. Their tasks run on the runtime that opens them.
    pub fn new(storage: Storage, node: NodeId) -> Self {
        Self { storage, node }
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Opens the catalog, founding it if it is new.
    pub async fn open_catalog(&self) -> Result<CatalogGroup, OpenError> {
        CatalogGroup::open(self.node, self.storage.group(CATALOG_GROUP)).await
    }

    /// Opens a partition's group, founding it if it is new. A group must not be opened twice at a time.
    pub async fn open_partition(&self, id: GroupId) -> Result<PartitionGroup, OpenError> {
        PartitionGroup::open(self.node, self.storage.group(id)).await
    }

    /// Deletes the data of a group that is not open.
    pub async fn delete(&self, id: GroupId) -> Result<(), storage::Error> {
        self.storage.delete_group(id).await
    }
}
